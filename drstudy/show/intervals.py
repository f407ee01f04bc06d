"""The one way to print a number with its interval: in tables, sentences and figures.

Two forms are in use. Scores are printed as ``0.71 [0.62, 0.80]`` (:func:`text`), differences as ``+1.2 (0.3 to 2.0)``
(:func:`difference`). Everything else is an argument of :func:`text`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

ENDS = ("", "_lo", "_hi")
"""Endings of the three columns of a number with its interval, such as ``heat, heat_lo, heat_hi``."""

Form = Literal["[,]", "(to)"]
Signs = Literal["minus", "value", "all"]


def text(
    value: float,
    lo: float,
    hi: float,
    digits: int | None = 2,
    *,
    form: Form = "[,]",
    signs: Signs = "minus",
    unit: str = "",
    missing: str = "undefined",
    complete: bool = True,
    significant: int = 0,
) -> str:
    """``0.71 [0.62, 0.80]``, or ``0.71`` where there is no interval.

    Args:
        value, lo, hi: Numbers in the unit shown; NaN where undefined.
        digits: Digits after the point; ``None`` takes one from 1 upwards and two below.
        form: ``[,]`` prints ``[lo, hi]``, ``(to)`` prints ``(lo to hi)``.
        signs: ``minus`` prints a sign only below 0. ``value`` also prints a plus before the value. ``all`` prints the signs
            of all three numbers, and keeps that of a small negative number that is rounded to ``-0.0``.
        unit: Text between the value and its interval, such as `` points``.
        missing: Text instead of a value that is NaN.
        complete: False adds a dagger: the number was undefined in some resamples, which the interval leaves out.
        significant: Significant digits, in place of ``digits`` and ``signs``, where numbers of any size stand in one column.
    """
    if np.isnan(value):
        return missing
    if significant:
        shown, low, high = (f"{one:.{significant}g}" for one in (value, lo, hi))
        return shown if np.isnan(lo) else f"{shown} [{low}, {high}]"
    if digits is None:
        digits = 1 if abs(value) >= 1 else 2
    shown = f"{number(value, digits, signs != 'minus', signs == 'all')}{unit}"
    if np.isnan(lo) or np.isnan(hi):
        return shown
    low, high = (number(end, digits, signs == "all", signs == "all") for end in (lo, hi))
    ends = f"[{low}, {high}]" if form == "[,]" else f"({low} to {high})"
    return f"{shown} {ends}" + ("" if complete else " †")


def between(lo: float, hi: float, digits: int | None = None, significant: int = 4) -> str:
    """``0.3 to 2.0``: the limits of an interval alone.

    Args:
        lo, hi: Limits.
        digits: Digits after the point; ``None`` prints so many significant ones instead.
        significant: Significant digits.
    """
    return " to ".join(
        f"{end:.{significant}g}" if digits is None else number(end, digits) for end in (lo, hi)
    )


def column(table: pd.DataFrame, digits: int = 2) -> list[str]:
    """:func:`text` of each row of a table with the columns ``value``, ``lo`` and ``hi``."""
    return [text(*row, digits) for row in table[["value", "lo", "hi"]].to_numpy(float)]


def number(value: float, digits: int, plus: bool = False, keep_sign: bool = False) -> str:
    """A rounded number.

    Args:
        value: The number.
        digits: Digits after the point.
        plus: Whether a number of 0 or more gets a plus sign.
        keep_sign: Whether a negative number that is rounded to 0 keeps its minus sign.
    """
    if not keep_sign:
        value = round(value, digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{value:+.{digits}f}" if plus else f"{value:.{digits}f}"


def difference(value: float, lo: float, hi: float) -> str:
    """``+1.2 (0.3 to 2.0)``; without an interval where there is none, ``-`` where there is no number."""
    return text(value, lo, hi, None, form="(to)", signs="value", missing="-")


def of(row: Mapping[str, float], name: str, scale: float = 1) -> tuple[float, float, float]:
    """The value of a column and the ends of its interval, from a row with the columns ``name``, ``name_lo``, ``name_hi``.

    Args:
        row: A row of a table.
        name: Column of the value.
        scale: Factor of all three, such as 100 for percentages.
    """
    return tuple(scale * row[f"{name}{end}"] for end in ENDS)
