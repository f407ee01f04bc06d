"""Names of files that Windows accepts."""

from __future__ import annotations

LETTERS = set('<>:"|?*\\')
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def unfit(name: str) -> str:
    """What Windows does not accept in a relative path; empty if it accepts all."""
    for part in name.split("/"):
        if LETTERS & set(part) or any(ord(letter) < 32 for letter in part):
            return f"{part!r} has a letter that no name may have"
        if part.split(".")[0].lower() in DEVICES:
            return f"{part!r} is the name of a device"
        if part[-1:] in (".", " "):
            return f"{part!r} ends with {part[-1]!r}"
    return ""
