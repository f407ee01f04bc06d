"""Tables of results as a reader meets them: headings in words with their units, an explanation of each, and rounded numbers.

Tables on disk have the names of variables and all digits (``value, lo, hi, n_valid``; ``4.17e-07``). :func:`table` joins a number and its
interval to one cell, rounds a column to one number of digits, and replaces codes by names. What is common to several papers has its
words in :data:`TERMS` and :data:`NAMES`. A paper gives those of its own columns in its :class:`drstudy.papers.base.Section`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from drstudy.core.names import GRADE_NAMES
from drstudy.core.names import NAMES as STRUCTURES
from drstudy.explain.measures import aggregate, comparison
from drstudy.show import intervals, style, tables

DASH = "–"
"""What stands where there is no number."""

INTERVAL = "95 % interval"

FEWEST = 0.001
"""A p-value below this is printed as such."""

DIGITS = 3
"""Most digits after the point."""


class Term(NamedTuple):
    """A heading and what it means; an empty heading keeps the column's name, in words."""

    heading: str = ""
    explains: str = ""


TERMS: Mapping[str, Term] = {
    "run": Term("network", "Backbone and training seed."),
    "label": Term("network", "Network, with the weights that it started from."),
    "backbone": Term("network", "Backbone of the network."),
    "reference": Term("compared with", "The network that is subtracted."),
    "metric": Term("measure", "What is measured."),
    "n": Term("number", ""),
    "bca": Term(
        "BCa interval", "Bias-corrected and accelerated bootstrap interval of the same resamples, 95 %."
    ),
    "resamples": Term("resamples", "Number of bootstrap resamples over patients."),
    "seeds": Term("seeds", "Number of trainings with different random seeds."),
    "mean": Term("mean over seeds", ""),
    "std": Term("standard deviation over seeds", ""),
    "seed_sd": Term("standard deviation over seeds", "Spread of the number over training seeds."),
    "over seeds": Term(
        "standard deviation over seeds", "Spread over trainings; the test patients are the same."
    ),
    "over patients": Term(
        "standard deviation over patients", "Spread over resampled test patients; the network is the same."
    ),
    "p_images": Term(
        "p, eyes taken as independent",
        "p-value that takes all eyes as independent (DeLong's test for AUC, McNemar's for shares). It is too small where two eyes are of one patient.",
    ),
    "p_patients": Term("p, patients resampled", "p-value of the bootstrap over patients."),
    "p_patients_holm": Term(
        "p, patients resampled, adjusted",
        "The same p-value, adjusted by Holm's method for the number of networks that are compared.",
    ),
    "p": Term("p", "p-value."),
    "temperature": Term(
        "temperature",
        "Number by which the network's outputs are divided so that its probabilities fit the validation split. Above 1, the network was too sure.",
    ),
    "as trained": Term("as trained", "Probabilities as the network gives them."),
    "scaled": Term(
        "temperature scaled",
        "Probabilities after temperature scaling, which is fitted on the validation split.",
    ),
    "if_calibrated": Term(
        "expected if calibrated",
        "The calibration error that chance alone gives to a perfectly calibrated network on these eyes.",
    ),
    "wanted": Term(
        "wanted specificity", "The specificity for which the threshold was chosen on the validation split."
    ),
    "threshold": Term("threshold", "Probability from which on an eye is called referable."),
    "on_validation": Term(
        "on validation", "The same measure on the validation split, where the threshold was chosen."
    ),
    "share": Term("share", "Share of all, 0 to 1."),
    "share_from_here": Term(
        "share of this grade or above", "Share of images with this grade or a higher one, 0 to 1."
    ),
    "dice": Term("Dice", "Overlap of the outline and the true lesion: 1 is perfect, 0 is none."),
    "false_alarms": Term("false alarms", "Eyes without the lesion in which something is outlined."),
    "area": Term("area, share of the field", "Share of the field of view that is outlined."),
    "present": Term("eyes with the lesion", ""),
    "absent": Term("eyes without the lesion", ""),
    "outlined": Term("of these outlined", "Eyes with the lesion in which something is outlined."),
    "largest_gap": Term("largest gap, grades", "Largest difference over all eyes, in grades."),
    "largest_gap_to_prediction": Term("largest gap to the prediction, grades", ""),
    "parameters_total": Term("parameters", "Number of weights of the network."),
    "parameters_trainable": Term("parameters trained", "Number of weights that training may change."),
    "copy": Term("exact copies", "Test rows of which an exact copy is among the training rows."),
    "duplicate": Term("near duplicates", "Test rows of which a near duplicate is among the training rows."),
    "fellow": Term("fellow eyes", "Test rows of which the patient's other eye is among the training rows."),
    "printed": Term("printed by the paper", "The number that the paper prints."),
    "id": Term("identifier", ""),
}
"""Column to its heading and meaning."""

MEASURES: Mapping[str, str] = {
    **comparison.METRICS,
    **aggregate.NAMES,
    **tables.SUMMARY,
    **tables.RECALLS,
    "auc": "AUC",
    "ap": "average precision",
    "f1": "F1",
    "brier": "Brier score, five grades",
    "ece": "calibration error",
    "ece_adaptive": "calibration error, bins of equal counts",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
}
"""Code of a measure to its name."""

OF_MEASURES = ("metric", "measure", "measured", "score", "quantity")
"""Columns whose cells are codes of measures."""

REGIONS: Mapping[str, str] = {
    "lesion": "all lesions",
    "disc": "optic disc",
    "vessel": "vessels",
    "elsewhere": "elsewhere in the field",
}
"""Code of a region to its name, in columns ``region``."""

NAMES: Mapping[str, str] = {
    **style.BACKBONE_NAMES,
    **style.METHOD_NAMES,
    "cwgan_gp": "Wasserstein with gradient penalty",
    "True": "yes",
    "False": "no",
    "-": DASH,
}
"""Any other cell that is a code, to what is shown."""

CONCEPTS: tuple[tuple[str, str], ...] = (
    (
        r"\bQWK\b|\bkappa\b",
        "Quadratic weighted kappa: agreement with the reference grades. 1 is perfect, 0 is chance.",
    ),
    (r"\bAUC\b", "Area under the ROC curve: 1 is perfect, 0.5 is chance."),
    (r"\bmacro\b", "Mean over the grades or labels, each with equal weight."),
    (r"\bsensitivity\b|\brecall\b", "Share of the eyes with the condition that are predicted to have it."),
    (r"\bspecificity\b", "Share of the eyes without the condition that are predicted not to have it."),
    (r"\breferable\b|grade ≥ 2", "Referable: grade 2 or more."),
    (r"balanced accuracy", "Mean of the recalls of all grades."),
    (r"\bNLL\b|negative log likelihood", "Negative log likelihood of the reference grade. Lower is better."),
    (
        r"calibration error",
        "Mean distance between predicted probability and observed share. Lower is better.",
    ),
    (r"\bBrier\b", "Mean squared error of the probabilities. Lower is better."),
    (r"energy inside|heat on lesions", "Share of a map's heat that lies on the lesion."),
    (r"pointing game", "Share of eyes whose hottest point lies on the lesion."),
    (
        r"average precision",
        "Area under the curve of precision by recall, pixel by pixel for maps. 1 is perfect.",
    ),
    (r"\bDice\b|\bIoU\b", "Overlap with the true lesion after a cut: 1 is perfect, 0 is none."),
    (r"patch precision", "Share of the hottest patches that touch a lesion."),
    (r"\brandom\b", "Random: a map of smoothed noise, which knows nothing of network or eye."),
    (r"\bcentre\b", "Centre: a map that is hot in the middle, whatever the eye."),
    (r"\bintensity\b", "Intensity: the brightness of the photograph as a map."),
    (r"\bvessels\b", "Vessels: the vessels of the photograph as a map."),
    (r"\bchance\b", "Chance: what a uniform map would get."),
    (r"\bpoints\b", "Percentage points."),
    (r"\bSSIM\b", "Structural similarity of two maps: 1 is equal."),
    (r"rank correlation", "Spearman's correlation of two maps: 1 is the same order, 0 is none."),
    (r"\bp\b", "p-values below 0.05 are unlikely if there is no difference."),
    (r"\boracle\b", "Oracle: the best cut on the eye itself, which no one could know."),
    (r"\bOtsu", "Otsu: a cut from the map's histogram alone."),
    (r"validation cut|validation-best", "The cut was chosen on other eyes."),
)
"""Words of a heading to a sentence about them."""

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
    columns, contents = [], []
    for column, texts, joined in _joined(shown, incomplete):
        numeric = all(_NUMBER.fullmatch(text) for text in texts)
        columns.append(Column(*_heading(column, known, joined), numeric))
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
    return plain(text)


def words(name: str) -> str:
    """``share_from_here`` as ``share from here``."""
    return name.replace("_", " ").strip()


def _heading(name: str, terms: Mapping[str, Term], joined: bool) -> tuple[str, str]:
    """Heading and explanation of a column, and what stands in its brackets if an interval joined it."""
    term = terms.get(name, Term())
    heading = term.heading or (
        "row" if name.startswith("Unnamed") else words(value(name, "metric" if "_" in name else ""))
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
