"""What the benchmarks measured, as tables of the pages: on a GPU, and at the number of photographs of the Kaggle set.

``benchmarks/results.jsonl`` has one line per measurement. Nothing is measured here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from drstudy.core import paths

RESULTS = "benchmarks/results.jsonl"

DEVICE, WHOLE = "device_speed", "whole_size"
"""Names of the two benchmarks."""

KAGGLE = 35126
"""Photographs of the Kaggle set (docs/sources.md)."""

SHARES = {"training": 0.8, "test": 0.2}
"""The main paper's split."""

EPOCHS, VIEWS = 100, 4
"""Epochs of the main paper, and stored views of each photograph that are computed here."""


def read() -> list[dict[str, Any]]:
    """All measurements, in the order of the file."""
    return [json.loads(line) for line in (paths.root() / RESULTS).read_text(encoding="utf-8").splitlines()]


def on_gpu(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Measurements of :data:`DEVICE` on a GPU."""
    return [row for row in rows if row["script"] == DEVICE and not row["device"].startswith("CPU")]


def speed(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Seconds per 1,000 photographs on each GPU, by kind of work: texts, one row per kind."""
    found = [
        {
            "work": row["name"].removeprefix(f"{DEVICE}, "),
            "device": row["device"].split(",")[0],
            "precision": row["device"].split(", ")[1],
            "s per 1,000 photographs": f"{row['ours']:.3g}",
            "the same in fp32": f"{row['other']:.3g}",
            "agreement of both": _agreement(row),
        }
        for row in on_gpu(rows)
    ]
    return pd.DataFrame(found)


def _agreement(row: Mapping[str, Any]) -> str:
    if "rank_correlation" in row:
        return f"median rank correlation {row['rank_correlation']:.2f}"
    if row.get("largest_difference"):
        return f"largest difference {row['largest_difference']:.1%} of the largest value"
    return "losses are finite" if row["same_result"] else "losses are not finite"


def computed(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Hours at the number of photographs of the Kaggle set, computed from the measured rates of DenseNet121: texts, one row per kind of work.

    Decoding, audit and tables are not in these rates.
    """
    rates = {}
    for row in on_gpu(rows):
        network, _, work = row["name"].removeprefix(f"{DEVICE}, ").partition(", ")
        if network == "densenet121":
            rates.setdefault(work, row["ours"] / 1000)
    training, test = (share * KAGGLE for share in SHARES.values())
    wanted = (
        (
            f"features of {VIEWS} views of each training photograph, once",
            "features of augmented views",
            VIEWS * training,
        ),
        (
            f"{EPOCHS} epochs of the tail, from the store",
            "an epoch of the tail, from the store",
            EPOCHS * training,
        ),
        (f"{EPOCHS} epochs as the main paper trains", "an epoch as the paper trains", EPOCHS * training),
        ("Grad-CAM of the test photographs", "Grad-CAM", test),
    )
    found = [
        {"work": text, "photographs": f"{count:,.0f}", "minutes, computed": f"{count * rates[work] / 60:.1f}"}
        for text, work, count in wanted
        if work in rates
    ]
    return pd.DataFrame(found)


def rehearsal(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Seconds and memory of each stage of the newest rehearsal, by number of photographs: texts, one row per stage."""
    newest = [row for row in rows if row["script"] == WHOLE]
    if not newest:
        return pd.DataFrame(columns=["stage"])
    found: dict[str, dict[str, str]] = {}
    for count, stage, seconds, memory in newest[-1]["stages"]:
        row = found.setdefault(stage, {"stage": re.sub(r"^(\d\d)_", r"\1 ", stage).replace("_", " ")})
        row[f"{count:,} photographs, s"] = f"{seconds:.0f}"
        row["peak memory, MiB"] = f"{memory:.0f}"
    return pd.DataFrame(list(found.values()))
