"""How much of a mapped file counts as memory of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

SMAPS = Path("/proc/self/smaps")

listed = pytest.mark.skipif(not SMAPS.exists(), reason="the system does not list mapped files")


def resident_kib(file: Path) -> int:
    """KiB of a mapped file that count as memory of this process."""
    counted, inside, name = 0, False, str(file.resolve())
    for line in SMAPS.read_text().splitlines():
        if not line.split()[0].endswith(":"):
            inside = line.endswith(name)
        elif inside and line.startswith("Rss:"):
            counted += int(line.split()[1])
    return counted
