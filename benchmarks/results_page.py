"""The page RESULTS.md: one row per benchmark, the two kinds of processors side by side, goals, and what was missed."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

BF16, AVX2, OTHER, GPU = "bf16 units", "AVX2", "another processor", "GPU"
"""Kinds of devices. The first two are columns of the page."""

IF_NAMED = ("device_speed", "whole_size")
"""Scripts that run only if they are named: one is for a GPU, and one takes an hour. Their rows stand apart."""


@dataclass(frozen=True)
class Goal:
    """What a benchmark set out to reach.

    Attributes:
        limit: The value to reach.
        field: Field of the row that is judged; of a list, its worst value counts.
        at_most: Whether the field must be at most, not at least, the limit.
        words: The goal in words where field and limit alone would be unclear.
    """

    limit: float
    field: str = "ratio"
    at_most: bool = False
    words: str = ""

    def value(self, row: Mapping[str, Any]) -> float | None:
        """The judged value of a row; ``None`` if it lacks the field."""
        found = row.get(self.field)
        if isinstance(found, list):
            return (max if self.at_most else min)(found)
        return found

    def missed(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has the field and falls short."""
        value = self.value(row)
        return value is not None and (value > self.limit if self.at_most else value < self.limit)

    def __str__(self) -> str:
        name = "ratio" if self.field == "ratio" else spoken(self.field)
        return self.words or f"{name} {'≤' if self.at_most else '≥'} {self.limit:g}"


GOALS: dict[str, tuple[Goal, ...]] = {
    r"fine_tune .* against (the paper's way|the same recipe)": (Goal(25),),
    r"fine_tune .* against (fastai|fastdrs)": (Goal(1),),
    r"prepare_images": (Goal(5), Goal(0.75, "share_of_limit")),
    r"prepare_images_two_processes": (Goal(1.85),),
    r"heatmaps .*bf16.* against grad-cam": (
        Goal(10),
        Goal(0.999, "rank_correlation_lowest"),
        Goal(0.01, "greatest_difference_of_range", at_most=True),
    ),
    r"heatmaps .*one layer.* against grad-cam": (Goal(6),),
    r"heatmaps .* against grad-cam": (Goal(10),),
    r"heatmap_methods .*": (Goal(1),),
    r"glam .*": (
        Goal(5, "images_a_second"),
        Goal(0.05, "memory_growth_a_doubling", at_most=True),
    ),
    r"gan .* against the plain loop": (Goal(1 / 1.2, words="ours at most 1.2 times the other"),),
    r"gan .* against torchgan": (Goal(1),),
    r"sall .*": (Goal(5),),
    r"bootstrap.*": (Goal(50),),
    r"scaling": (
        Goal(2.05, "time_ratio_a_doubling", at_most=True),
        Goal(0.05, "memory_growth_a_doubling", at_most=True),
    ),
    r"overhead": (Goal(0.04, "share", at_most=True),),
    r"stages .*": (Goal(1), Goal(1536, "largest_peak_mib", at_most=True)),
}
"""Goals by pattern of a benchmark's whole name; the first pattern that fits counts. Benchmarks without one report without a goal."""

NEAR_THE_LIMIT = 0.85
"""Share of the physical limit's speed from which a wanted ratio counts as reached, whatever the ratio."""

WORDS = {
    "after_epochs": "number of epochs before the comparison",
    "epoch_ours": "seconds per epoch, ours",
    "epoch_other": "seconds per epoch, other",
    "images_a_second": "images per second",
    "images_a_second_and_core_small": "images per second and core, small",
    "images_a_second_and_core_large": "images per second and core, large",
    "own_memory_mib": "memory of its own of the largest process, MiB",
    "peak_mib_with_mapped_stores": "peak of resident memory with the pages of mapped stores, MiB",
    "load": "load of the machine",
    "memory_growth_a_doubling": "growth of memory per doubling",
    "metrics_loop": "metrics of the loop",
    "peak_mib": "peak memory, MiB",
    "largest_peak_mib": "largest peak memory of a process, MiB",
    "processor_ms_an_image": "ms of the processor per image",
    "qwk_difference": "difference in kappa",
    "qwk_difference_hi": "upper limit of its interval",
    "qwk_difference_lo": "lower limit of its interval",
    "qwk_ours": "kappa of ours",
    "qwk_other": "kappa of the other",
    "seconds": "seconds",
    "share": "share of the whole time",
    "share_of_limit": "share of the physical limit's speed",
    "time_ratio_a_doubling": "time ratio per doubling",
    "trunk_once": "seconds of the trunk, once",
    "image_store": "seconds of the image store, once",
    "wanted_images_a_second": "images per second that were wanted",
}
"""Words for fields whose own name reads badly."""

SHOWN = ("script", "options", "name", "processor", "ours", "other", "ratio", "unit", "same_result")
"""Fields that the tables show, beside the commit and the date."""
PROVENANCE = ("commit", "changed", "date", "script_seconds")


def kind(row: Mapping[str, Any]) -> str:
    """On which kind of device a row was measured, by its fields ``device`` and ``processor``."""
    processor = row.get("processor", "")
    if not str(row.get("device", "CPU")).startswith("CPU"):
        return GPU
    if ", lowered to " in processor:
        return AVX2 if ", lowered to avx2" in processor else OTHER
    if "with bf16 units" in processor:
        return BF16
    return AVX2 if processor.endswith(", AVX2") else OTHER


def goals(name: str) -> tuple[Goal, ...]:
    """The goals of a benchmark."""
    return next((found for pattern, found in GOALS.items() if re.fullmatch(pattern, name)), ())


def at_limit(row: Mapping[str, Any]) -> bool:
    """Whether a row comes so near to the physical limit of the same run (decoding, a forward pass) that this stands for a ratio.

    A row whose result differs from the other side's never does.
    """
    return row.get("share_of_limit", 0.0) >= NEAR_THE_LIMIT and row["same_result"] is not False


def missed(row: Mapping[str, Any]) -> bool:
    """Whether a row falls short of one of its goals. Where the physical limit is nearer than a wanted ratio, reaching it is enough."""
    return any(
        goal.missed(row) and not (goal.field == "ratio" and at_limit(row)) for goal in goals(row["name"])
    )


def spoken(field: str) -> str:
    """A field's name in words."""
    return WORDS.get(field, field.replace("_", " "))


def told(value: Any) -> str:
    """A value of a field as text: lists and tables without brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {told(one)}" for name, one in value.items())
    if isinstance(value, list):
        nested = any(isinstance(one, list) for one in value)
        return ("; " if nested else ", ").join(told(one) for one in value) or "none"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def figures(row: Mapping[str, Any] | None) -> list[str]:
    """Ratio with what was missed, ours / other, and whether the result was the same: the three cells of a row on one kind of processor."""
    if row is None:
        return ["-", "-", "-"]
    ratio = f"{row['ratio']:.2f}"
    judged = [goal for goal in goals(row["name"]) if goal.field != "ratio" and goal.value(row) is not None]
    parts = [ratio, *(f"{spoken(goal.field)} {goal.value(row):g}" for goal in judged)]
    if any(goal.field == "ratio" and goal.missed(row) for goal in goals(row["name"])) and at_limit(row):
        parts.append(f"at the limit ({row['share_of_limit']:.2f} of its speed)")
    cell = "; ".join(parts) + (" **missed**" if missed(row) else "")
    pair = f"{row['ours']} / {row['other']}" + (f" ({row['options']})" if row.get("options") else "")
    same = {True: "yes", False: "**no**", None: "not asked"}[row["same_result"]]
    return [cell, pair, same]


def page(rows: list[dict[str, Any]]) -> str:
    """The whole page, from the rows of ``results.jsonl`` in the order in which they are shown."""
    columns: dict[str, dict[str, dict]] = {BF16: {}, AVX2: {}}
    rest, gpu, asked = [], [], []
    for row in rows:
        where = kind(row)
        if where == GPU:
            gpu.append(row)
        elif row["script"] in IF_NAMED:
            asked.append(row)
        elif where in columns:
            if row["name"] in columns[where]:  # the newest stays in the table
                rest.append(columns[where][row["name"]])
            columns[where][row["name"]] = row
        else:
            rest.append(row)
    tabled = [row for row in rows if any(row is of.get(row["name"]) for of in columns.values())]
    lines = [
        "# What the benchmarks measured",
        "",
        *_standing(tabled),
        *_durations(tabled),
        "",
        "`make bench` writes this page. It runs the scripts in this folder; each says at its top what is compared and what is not. Figures are medians",
        "of runs that alternate. The ratio is other / ours, so more is better. *Same result* says whether both sides computed the same thing, where that can",
        "be asked. **missed** marks a row that falls short of its goal.",
        "",
        f"The columns *{BF16}* were measured on a processor with units for bf16, the columns *{AVX2}* on one without them, or with libraries that are told to use AVX2",
        "only (`python tests/processors.py avx2 -- python benchmarks/run_all.py`). " + _versions(),
        "",
        f"| benchmark | goal | {BF16}: ratio | ours / other | same result | {AVX2}: ratio | ours / other | same result | unit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["name"] for row in tabled):
        found = [columns[where].get(name) for where in (BF16, AVX2)]
        unit = next(row["unit"] for row in found if row)
        goal = "; ".join(map(str, goals(name))) or "-"
        lines.append(f"| {' | '.join([name, goal, *figures(found[0]), *figures(found[1]), unit])} |")
    if gpu:
        lines += ["", "## On a GPU", "", *_plain_table(gpu)]
    if asked:
        lines += ["", "## Scripts that run only if they are named", "", *_plain_table(asked)]
    if rest:
        lines += [
            "",
            "## On other processors, or before the processor was on record",
            "",
            *_plain_table(rest),
        ]
    lines += ["", "<details><summary>What else was measured in each row</summary>", ""]
    lines += [_details(row) for row in [*tabled, *gpu, *asked, *rest]]
    return "\n".join([*lines, "", "</details>"]) + "\n"


def _durations(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """How long the scripts of the main table took on each kind of processor, as far as that is on record."""
    taken: dict[str, dict[str, float]] = {}
    for row in rows:
        if "script_seconds" in row:
            taken.setdefault(kind(row), {})[row["script"]] = row["script_seconds"]
    parts = [
        f"{sum(of.values()) / 60:.1f} minutes with {where} ({len(of)} scripts)" for where, of in taken.items()
    ]
    return [f"Its scripts took {' and '.join(parts)}."] if parts else []


def _plain_table(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| benchmark | device | goal | ratio | ours / other | same result | unit | commit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        device = row.get("device") or row.get("processor") or "not on record"
        goal = "; ".join(map(str, goals(row["name"]))) or "-"
        cells = [row["name"], device, goal, *figures(row), row["unit"], commit_of(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def commit_of(row: Mapping[str, Any]) -> str:
    """The commit of a row, short, as it is shown."""
    if not row.get("commit"):
        return "not on record"
    return f"`{row['commit'][:12]}`" + (" with changes" if row.get("changed") else "")


def _standing(rows: list[dict[str, Any]]) -> list[str]:
    """For which commit and date the rows of the main table stand, and a warning if there are several."""
    commits = list(dict.fromkeys(map(commit_of, rows)))
    if not rows:
        return ["No row was measured on either kind of processor."]
    dates = sorted({row["date"] for row in rows if row.get("date")})
    when = f", measured {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else "") if dates else ""
    if not any(row.get("commit") for row in rows):
        return ["No commit is on record for the rows of the first table: run all scripts again."]
    if len(commits) == 1:
        return [f"All rows of the first table stand for commit {commits[0]}{when}."]
    counted = ", ".join(f"{one} ({sum(commit_of(row) == one for row in rows)})" for one in commits)
    return [
        f"**Warning: the rows of the first table come from different commits**, with the number of rows: {counted}{when}. Run all scripts",
        "again before these rows are compared with each other. The list at the end of the page has the commit of each row.",
    ]


def _details(row: Mapping[str, Any]) -> str:
    more = {k: v for k, v in row.items() if k not in (*SHOWN, *PROVENANCE)}
    parts = [f"{spoken(field)}: {told(value)}" for field, value in more.items()]
    dated = f", {row['date']}" if row.get("date") else ""
    where = row.get("processor") or "processor not on record"
    return f"- **{row['name']}** ({where}; commit {commit_of(row)}{dated}). {'. '.join(parts) or 'Nothing else'}."


def _versions() -> str:
    names = ("torch", "torchvision", "numpy", "opencv-python-headless")
    found = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"Python {platform.python_version()}, {found}."
