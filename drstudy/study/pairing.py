"""Numbers of two versions of a result side by side, whatever order their rows have.

A table is taken apart into one row per number, which knows what it is about (the texts of its row), its column and its interval. What is
compared, and what a difference means, says :mod:`drstudy.study.verify`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import zip_longest

import numpy as np
import pandas as pd

from drstudy.core import records
from drstudy.show import style

LABELS = ("seed", "grade", "resamples", "epoch", "step", "size", "views", "bins")
"""Columns of whole numbers that say what a row is about; they are no results."""
NOT_NUMBERS = re.compile(r"^(seconds|peak)|_(seconds|ms|mb)$")
"""Metrics that are costs."""
WITHOUT = " without pretraining"
"""What the name of a group ends in that holds numbers of such networks; they are chaotic (docs/reproducibility.md)."""
MOST_ROWS = 1000
"""Longer tables list details (every layer, subgroup and measure); they are compared by their bytes only."""
DIGITS = re.compile(r"[-+−]?\d[\d,]*(\.\d+)?([eE][-+]?\d+)?")


def tables(record: records.Record) -> dict[str, pd.DataFrame]:
    """The tables of a stage that are compared number by number: those without a row per photograph, of at most :data:`MOST_ROWS` rows."""
    frames = {
        file.stem: pd.read_csv(file, keep_default_na=False, na_values=[""])
        for file in sorted((record.folder / "tables").glob("*.csv"))
    }
    return {
        name: frame for name, frame in frames.items() if "image_id" not in frame and len(frame) <= MOST_ROWS
    }


def further_metrics(record: records.Record, compared: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """The numbers among a stage's metrics that stand in none of its tables (as :func:`tables` gives them) and are no costs."""
    standing = {
        v for frame in compared.values() for v in frame.select_dtypes("number").to_numpy(dtype=float).ravel()
    }
    numbers = {
        name: value
        for name, value in record.metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {
        name: value
        for name, value in numbers.items()
        if not NOT_NUMBERS.search(name) and value not in standing
    }


def _texts(column: pd.Series) -> list[str]:
    return ["" if pd.isna(value) else str(value) for value in column]


def _is_number(column: pd.Series) -> bool:
    return (
        pd.api.types.is_numeric_dtype(column)
        and not pd.api.types.is_bool_dtype(column)
        and column.name not in LABELS
    )


def labels(frame: pd.DataFrame, columns: list[str]) -> list[str]:
    """What each row of a table is about: the texts of some columns, in one."""
    texts = [
        [f"{name} {value}" if name in LABELS else value for value in _texts(frame[name])] for name in columns
    ]
    return [" · ".join(part for part in row if part) for row in zip(*texts)] if texts else [""] * len(frame)


def _label_columns(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Columns by which the rows of two versions of a table find each other: texts and labels that are the same on both sides.

    A text that says what was found, such as a remark, may differ, and then it is no label. Where one side lacks rows, texts of which most
    occur on both sides count as the same.
    """
    chosen = []
    for name in [
        name for name in one if name in other and not _is_number(one[name]) and not _is_number(other[name])
    ]:
        a, b = (_texts(frame[name]) for frame in (one, other))
        same = (
            sorted(a) == sorted(b)
            if len(a) == len(b)
            else 2 * len(set(a) & set(b)) > max(len(set(a)), len(set(b)))
        )
        chosen += [str(name)] if same else []
    return chosen


def long(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """A table as one row per number.

    Args:
        frame: The table.
        by: Columns that say what a row is about.

    Returns:
        Columns ``row`` (its label), ``place`` (position among the rows with the same label), ``column``, ``group`` (numbers that share a
        tolerance: the column, with the metric where the table has a column ``metric``; those of networks without pretraining apart), ``value``, ``lo``, ``hi`` (the interval that the
        number has or, with ``limit``, that it is a limit of; NaN without one).
    """
    names = pd.Series(labels(frame, by), dtype=str)
    place = names.groupby(names).cumcount().to_numpy()
    metric = _texts(frame["metric"]) if "metric" in frame else [""] * len(frame)
    texts = [_texts(frame[name]) for name in frame if not _is_number(frame[name])]
    random = (
        [any(style.NO_PRETRAINING in text for text in row) for row in zip(*texts)]
        if texts
        else [False] * len(frame)
    )
    suffix = [(f" of {m}" if m else "") + (WITHOUT if r else "") for m, r in zip(metric, random)]
    parts = []
    for column in [str(name) for name in frame if _is_number(frame[name])]:
        lo, hi, limit = _ends(frame, column)
        group = [column + text for text in suffix]
        fields = {"row": names.to_numpy(), "place": place, "column": column, "group": group}
        parts.append(
            pd.DataFrame(
                fields | {"value": frame[column].to_numpy(float), "lo": lo, "hi": hi, "limit": limit}
            )
        )
    columns = ["row", "place", "column", "group", "value", "lo", "hi", "limit"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _ends(frame: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """The interval that belongs to a column, and whether the column is one of its limits."""
    none = np.full(len(frame), np.nan)
    stem = column.rpartition("_")[0]
    for lo, hi in (
        (("lo", "hi"),)
        if column in ("value", "lo", "hi")
        else ((f"{column}_lo", f"{column}_hi"), (f"{stem}_lo", f"{stem}_hi"))
    ):
        if lo in frame and hi in frame and _is_number(frame[lo]) and _is_number(frame[hi]):
            return frame[lo].to_numpy(dtype=float), frame[hi].to_numpy(dtype=float), column in (lo, hi)
    return none, none, False


def pair(committed: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Numbers of two versions of a table side by side: matched by row label, place among equal labels, and column.

    Returns:
        Columns of :func:`long` of the committed table, with ``committed`` and ``found``; a number that one side lacks is NaN there
        and True in ``absent``.
    """
    keys = ["row", "place", "column"]
    by = _label_columns(committed, found)
    left, right = long(committed, by), long(found, by)
    both = left.merge(
        right[[*keys, "group", "value"]],
        on=keys,
        how="outer",
        suffixes=("", "_found"),
        indicator=True,
        sort=False,
    )
    both["group"] = both["group"].fillna(both["group_found"])
    both = both.rename(columns={"value": "committed", "value_found": "found"})
    both["limit"] = both["limit"].fillna(False).astype(bool)
    both["absent"] = both["_merge"] != "both"
    return both.drop(columns=["_merge", "group_found"])


def nothing() -> pd.DataFrame:
    """What :func:`side_by_side` gives where there is no number."""
    return pair(pd.DataFrame(), pd.DataFrame()).assign(stage="", table="")


def untrained(stage: str, others: Mapping[str, records.Record]) -> bool:
    """Whether a stage is about one network that started from random weights: notebook 03 of the same variant says so."""
    variant = stage.partition("/")[2]
    trained = [record for name, record in others.items() if variant and name.partition("/")[2] == variant]
    return any(record.metrics.get("weights_used") == "none" for record in trained)


def side_by_side(
    committed: records.Record, found: records.Record, others: Mapping[str, records.Record]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All numbers of a stage in pairs (see :func:`pair`), with ``stage`` and ``table``; and the texts whose words differ.

    Args:
        committed, found: The stage on both sides.
        others: All committed stages by name.
    """
    left = tables(committed)
    rest = further_metrics(committed, left)
    random = untrained(committed.name, others)
    left |= {"metrics": pd.DataFrame([rest], index=[0])}
    right = tables(found) | {
        "metrics": pd.DataFrame([{name: found.metrics.get(name) for name in rest}], index=[0], dtype=float)
    }
    pairs, words = [], []
    for name in [*left, *(name for name in right if name not in left)]:
        one, other = left.get(name, pd.DataFrame()), right.get(name, pd.DataFrame())
        both = pair(one, other)
        if random:
            both["group"] = both["group"].str.removesuffix(WITHOUT) + WITHOUT
        both.insert(0, "stage", committed.name)
        both.insert(1, "table", name)
        pairs.append(both)
        words += _differing(one, other, committed.name, name)
    columns = ["stage", "table", "column", "committed", "found"]
    return pd.concat(pairs, ignore_index=True), pd.DataFrame(words, columns=columns)


def _differing(one: pd.DataFrame, other: pd.DataFrame, stage: str, table: str) -> list[dict[str, str]]:
    """Texts of one version of a table that the other lacks, numbers in them aside; the order of rows does not matter."""
    rows = []
    for column in [
        name for name in one if name in other and not _is_number(one[name]) and name not in LABELS
    ]:
        a, b = ([DIGITS.sub("#", text) for text in _texts(frame[column])] for frame in (one, other))
        lost, new = (sorted((Counter(p) - Counter(q)).elements()) for p, q in ((a, b), (b, a)))
        for left, right in zip_longest(lost, new, fillvalue=""):
            rows.append(
                {"stage": stage, "table": table, "column": str(column), "committed": left, "found": right}
            )
    return rows
