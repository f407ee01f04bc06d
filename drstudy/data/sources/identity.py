"""Whose eye a photograph shows: patient and side from its name, and what must not be guessed.

A photograph of which the patient is not known must not count as independent of others: a split by patient would put copies of one eye on
two sides.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

SIDES = {
    "left": "left",
    "l": "left",
    "os": "left",
    "right": "right",
    "r": "right",
    "od": "right",
}
"""Words for the side of an eye, in lower case; OD and OS are the right and the left eye."""

SEPARATOR = r"[_\-. ]+"
SCHEMES = (
    rf"(?P<patient>.+?){SEPARATOR}(?P<eye>left|right)(?:{SEPARATOR}.*)?",
    rf"(?P<patient>.*\d.*?){SEPARATOR}(?P<eye>od|os|l|r)(?:{SEPARATOR}.*)?",
    rf"(?P<eye>left|right|od|os){SEPARATOR}(?P<patient>.*\d.*)",
    r"(?P<patient>.*\d)(?P<eye>left|right)",
)
"""Names of photographs as data sets have them, each tried in turn: ``10_left``, ``10_left_90`` (a turned copy), ``P7-OD``, ``left_10``,
``10left``."""
SET_SHARE = 0.5
"""A beginning that this share of all names has is the name of the data set, not a patient's."""


def normal(text: str) -> str:
    """The form in which names are compared: composed letters, lower case, slashes."""
    return unicodedata.normalize("NFC", text).replace("\\", "/").casefold()


def of_name(stem: str, pattern: str = "") -> dict[str, str]:
    """``patient`` and ``eye`` from the name of a photograph without its suffix; both empty where it does not say.

    Args:
        stem: Name, such as ``12_left_90``.
        pattern: Regular expression with a group ``patient`` and perhaps ``eye``, instead of the known schemes.
    """
    for scheme in (pattern,) if pattern else SCHEMES:
        if match := re.fullmatch(scheme, stem, re.IGNORECASE):
            groups = match.groupdict()
            return {
                "patient": (groups["patient"] or "").strip(),
                "eye": SIDES.get((groups.get("eye") or "").lower(), ""),
            }
    return {"patient": "", "eye": ""}


def shared(
    rows: Sequence[dict[str, Any]], nameless: Collection[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Photographs whose patient is not known, and those among them that seem to share one.

    Two names share a stem if one begins with the other, if one begins with a known patient's name, or if both have the same beginning before
    their last part, this beginning has a digit, and it is not the beginning of most names (which is the name of the data set).

    Args:
        rows: Rows of a manifest.
        nameless: Paths of the images whose patient is not known.

    Returns:
        Their ids, and pairs (id, what it shares).
    """
    unknown = [row["image_id"] for row in rows if row["path"] in nameless]
    if not unknown:
        return [], []
    known = {normal(row["patient_id"]) for row in rows if row["path"] not in nameless}
    every = known | {normal(name) for name in unknown}
    beginnings = Counter(_beginning(name) for name in unknown)
    pairs = []
    for name in unknown:
        whole = next((part for part in _beginnings(name) if part in every), "")
        part = _beginning(name)
        if whole and any(letter.isdigit() for letter in whole):
            pairs.append((name, whole))
        elif (
            re.search(r"\d", part)
            and beginnings[part] > 1
            and beginnings[part] < SET_SHARE * max(4, len(rows))
        ):
            pairs.append((name, part))
    return unknown, pairs


def _beginnings(name: str) -> Iterable[str]:
    """The name without its last part, without its last two, ..."""
    text = normal(name)
    for cut in reversed([match.start() for match in re.finditer(SEPARATOR, text)]):
        if cut:
            yield text[:cut]


def _beginning(name: str) -> str:
    return next(iter(_beginnings(name)), "")
