"""Tables of results as a reader meets them: headings in words with their units, an explanation of each, and rounded numbers.

Tables on disk have the names of variables and all digits (``value, lo, hi, n_valid``; ``4.17e-07``). :func:`table` joins a number and its
interval to one cell, rounds a column to one number of digits, and replaces codes by names. What is common to several papers has its
words in :mod:`drstudy.show.vocabulary`. A paper gives those of its own columns in its :class:`drstudy.papers.base.Section`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from drstudy.core.names import GRADE_NAMES
from drstudy.core.names import NAMES as STRUCTURES
from drstudy.show import intervals, style
from drstudy.show.vocabulary import CONCEPTS, DASH, MEASURES, NAMES, OF_MEASURES, REGIONS, TERMS, Term

INTERVAL = "95 % interval"

FEWEST = 0.001
"""A p-value below this is printed as such."""

DIGITS = 3
"""Most digits after the point."""


_ONE = r"[-+−]?\d[\d,]*(?:\.\d+)?(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)? ?%?"
_NUMBER = re.compile(
    rf"{_ONE}(?: ?(?:\[{_ONE}, {_ONE}\]|\({_ONE} to {_ONE}\)|to {_ONE}))?(?: †)?(?: \(\d+ seeds\))?(?:, p [=<] [\d.]+|; sd [\d.]+)?"
    r"|[–=-]|undefined|< 0\.001|"
)
"""A cell that is set to the right: a number, with its interval, p-value or spread if it has one, or the absence of a number."""

_FIRST = re.compile(r"[-−+]?\d[\d,]*(?:\.\d+)?(?:\s*×\s*10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?")
_EXPONENT = re.compile(r"(?<![\w.])([-+]?\d+(?:\.\d+)?)e([-+]?\d+)(?!\w)")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_CUT = re.compile(r"(.+)_ge([1-4])$")
_NETWORK = re.compile(r"(?P<name>[a-z0-9_]+?)[-_]seed(?P<seed>\d+)(?:[-_](?P<more>\w+))?$")
_OWN_NETWORK = re.compile(r"(ram|baseline)_(net)(\d)")


@dataclass(frozen=True)
class Column:
    """A column of a :class:`Table`: heading, explanation (may be empty), and whether it holds numbers."""

    heading: str
    explains: str
    numeric: bool


@dataclass(frozen=True)
class Cell:
    """A text, and the number by which it is sorted; None sorts it by its text."""

    text: str
    order: float | None = None

    @property
    def lead(self) -> str:
        """The number without its interval; of a text all."""
        return self.text if self.order is None else re.split(r" (?=[\[(])", self.text, maxsplit=1)[0]

    @property
    def rest(self) -> str:
        """What follows :attr:`lead`: the interval."""
        return self.text[len(self.lead) :].strip()


@dataclass(frozen=True)
class Table:
    """What a page shows of a table.

    Attributes:
        columns: One per column.
        rows: One tuple of cells per row.
        notes: Sentences below it; may be empty.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: str = ""


def table(
    frame: pd.DataFrame, terms: Mapping[str, Term] | None = None, most: int | None = None, name: str = ""
) -> Table:
    """A table as a reader meets it.

    Args:
        frame: As a run wrote it: numbers with all digits, or texts.
        terms: Headings and meanings of columns of one paper, over :data:`TERMS`. ``<name>/<column>`` is for the table of that name only.
        most: Rows that are shown; None is all. The notes say how many there are.
        name: Of the table.
    """
    own = {
        key.removeprefix(f"{name}/"): term
        for key, term in (terms or {}).items()
        if key.startswith(f"{name}/")
    }
    known = {**TERMS, **(terms or {}), **own}
    shown = frame if most is None else frame.head(most)
    notes = [f"The first {len(shown):,} of {len(frame):,} rows."] if len(shown) < len(frame) else []
    shown, incomplete = _without_bookkeeping(shown)
    codes = {str(cell) for column in shown.select_dtypes(exclude="number") for cell in shown[column]}
    columns, contents = [], []
    for column, texts, joined in _joined(shown, incomplete):
        numeric = all(_NUMBER.fullmatch(text) for text in texts)
        columns.append(Column(*_heading(column, known, joined, codes), numeric))
        contents.append([Cell(text, _order(text, numeric)) for text in texts])
    if any("†" in cell.text for column in contents for cell in column):
        notes.append("†: undefined in some resamples, which the interval leaves out.")
    return Table(tuple(columns), tuple(zip(*contents)), " ".join(notes))


def _without_bookkeeping(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series | None]:
    """Without the columns that the reader meets elsewhere: the run beside its label, and the resamples, which become a dagger."""
    drop = [name for name in ("n_valid", "resamples") if name in frame]
    drop += ["run"] if {"run", "label"} <= {*frame} else []
    incomplete = None
    if "n_valid" in frame:
        whole = frame["resamples"] if "resamples" in frame else frame["n_valid"].max()
        incomplete = frame["n_valid"] < whole
    return frame.drop(columns=drop), incomplete


def _joined(frame: pd.DataFrame, incomplete: pd.Series | None) -> list[tuple[str, list[str], bool]]:
    """Name and texts of each column, and whether an interval joined it.

    ``lo, hi`` join the column before them, and ``x_lo, x_hi`` the column ``x``. Without a column ``x`` the limits stand as ``lo to hi``.
    """
    names, found = [str(name) for name in frame.columns], []
    frame = frame.set_axis(names, axis=1)
    for name, following in zip(names, [*names[1:], ""]):
        low, high = ("lo", "hi") if following == "lo" else (f"{name}_lo", f"{name}_hi")
        base = name.removesuffix("_lo")
        if name in ("lo", "hi") or name.endswith(("_lo", "_hi")):
            if name.endswith("_lo") and f"{base}_hi" in names and base not in names:
                found.append((base, _limits(frame[[name, f"{base}_hi"]]), True))
        elif {low, high} <= set(names):
            found.append((name, _with_interval(frame[[name, low, high]], incomplete), True))
        else:
            found.append((name, texts_of(frame[name]), False))
    return found


def _limits(frame: pd.DataFrame) -> list[str]:
    pairs = frame.to_numpy(float)
    digits = max(2, digits_of(pairs.ravel()))
    return [DASH if np.isnan(lo) else intervals.between(lo, hi, digits) for lo, hi in pairs]


def _with_interval(frame: pd.DataFrame, incomplete: pd.Series | None) -> list[str]:
    numbers = frame.to_numpy(float)
    digits = digits_of(numbers.ravel())
    complete = np.ones(len(frame), bool) if incomplete is None else ~incomplete.to_numpy(bool)
    return [
        intervals.text(*row, digits, missing=DASH, complete=whole) for row, whole in zip(numbers, complete)
    ]


def texts_of(column: pd.Series) -> list[str]:
    """The cells of one column: numbers with one number of digits, codes as names."""
    name = str(column.name)
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return [DASH if _missing(one) else value(str(one), name) for one in column]
    numbers = column.to_numpy(float)
    if name == "p" or name.startswith("p_"):
        return [DASH if np.isnan(one) else p_value(one) for one in numbers]
    digits = digits_of(numbers)
    return [DASH if np.isnan(one) else number(one, digits) for one in numbers]


def _missing(one: Any) -> bool:
    return one is None or (isinstance(one, float) and math.isnan(one)) or one is pd.NA


def digits_of(numbers: np.ndarray) -> int:
    """Digits after the point for a column: 3 for numbers below 1, 2 below 10, 1 below 1000, and none that would be 0 in all."""
    finite = np.abs(numbers[np.isfinite(numbers)])
    greatest = finite.max(initial=0.0)
    most = next(digits for below, digits in ((1, 3), (10, 2), (1000, 1), (math.inf, 0)) if greatest <= below)
    return next((few for few in range(most) if np.allclose(finite, np.round(finite, few), atol=1e-9)), most)


def number(one: float, digits: int) -> str:
    """A rounded number with thousands marked; one that rounding would make 0 keeps two significant digits: ``1.5 × 10⁻⁸``."""
    if one and abs(one) < 0.5 * 10**-digits:
        return plain(f"{one:.1e}")
    return f"{one:,.0f}" if digits == 0 else f"{one:,.{digits}f}"


def p_value(p: float) -> str:
    """Three digits, or ``< 0.001``."""
    return f"< {FEWEST}" if p < FEWEST else intervals.number(p, 3)


def plain(text: str) -> str:
    """A text without numbers such as ``4.17e-07``: ``4.17 × 10⁻⁷``, and ``1.2e+04`` is ``12,000``."""

    def written(match: re.Match[str]) -> str:
        exponent = int(match[2])
        if 0 <= exponent < 7:
            return f"{float(match[0]):,.0f}"
        return f"{match[1]} × 10{str(exponent).translate(_RAISED)}"

    return _EXPONENT.sub(written, text)


def value(text: str, column: str = "") -> str:
    """A cell's text: a code by its name, numbers without ``e-07``.

    Args:
        text: The cell.
        column: Name of its column, by which codes of measures and regions are known.
    """
    known = {
        **NAMES,
        **(MEASURES if column in OF_MEASURES else {}),
        **(REGIONS if column == "region" else {}),
    }
    if text in known:
        return known[text]
    if cut := _CUT.fullmatch(text):
        base = {"brier": "Brier score"}.get(
            cut[1], MEASURES.get(cut[1], words(cut[1])).removesuffix(", 5 grades")
        )
        return f"{base}, grade ≥ {cut[2]}"
    if match := _NETWORK.fullmatch(text):
        name = style.BACKBONE_NAMES.get(match["name"], words(match["name"]))
        more = f", {words(match['more'])}" if match["more"] else ""
        return f"{name}, seed {match['seed']}{more}"
    if match := _OWN_NETWORK.match(text):
        kind = "RAM" if match[1] == "ram" else match[1]
        return f"{kind} {match[2]}-{match[3]}{text[match.end() :]}"
    first, space, others = text.partition(" ")
    return (
        f"{style.BACKBONE_NAMES[first]} {others}" if space and first in style.BACKBONE_NAMES else plain(text)
    )


def words(name: str) -> str:
    """``share_from_here`` as ``share from here``."""
    return name.replace("_", " ").strip()


def _heading(name: str, terms: Mapping[str, Term], joined: bool, codes: set[str]) -> tuple[str, str]:
    """Heading and explanation of a column, and what stands in its brackets if an interval joined it. A name that cells have too stays."""
    term = terms.get(name, Term())
    code = re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", name) and name not in codes
    heading = term.heading or (
        "row" if name.startswith("Unnamed") else words(value(name, "metric")) if code else name
    )
    about = [term.explains] if term.explains else []
    about += [f"{code}: {STRUCTURES[code]}." for code in STRUCTURES if re.search(rf"\b{code}\b", heading)]
    if not term.explains:
        about += [sentence for said, sentence in CONCEPTS if re.search(said, heading)]
    grades = re.findall(r"\bgrade (\d)\b", heading)
    about += [
        f"Grade {grade}: {GRADE_NAMES[int(grade)]}." for grade in grades if int(grade) < len(GRADE_NAMES)
    ]
    if joined and "rackets" not in term.explains:
        about.append(f"In brackets: {INTERVAL}." if not heading.endswith("interval") else "")
    return heading, " ".join(filter(None, about))


def _order(text: str, numeric: bool) -> float | None:
    """What a cell of numbers is sorted by: its first number. A cell without one goes to the end."""
    if not numeric:
        return None
    if text.startswith("<"):
        return 0.0
    match = _FIRST.match(text)
    if match is None:
        return -math.inf
    first = float(re.split(r"\s*×", match[0])[0].replace(",", "").replace("−", "-"))
    return first * 10.0 ** int(match[1].translate(_LOWERED)) if match[1] else first


def legend(shown: Table) -> list[tuple[str, str]]:
    """Heading and explanation of each column that has one, each once."""
    return list({(one.heading, one.explains): None for one in shown.columns if one.explains})
