"""Figures of notebook 20."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.explain.measures.grid import ANY
from drstudy.papers.beside import grading, locating
from drstudy.show import figures, marks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from drstudy.papers.beside.grading import Drawn

LEVEL = 0.05
"""Adjusted p-value below which two systems are not joined."""

SHOWN = ("qwk", "auc", "ap")
"""Measures by which systems are compared in pairs."""

JOINED, STEP = 3.5, 0.025
"""Width of the bars that join systems, points, and their distance, as a share of the width of the panel."""

MARGIN = 0.02
"""Room beside the first and the last point, as a share of the range of the points."""


@style.theme()
def scores(found: pd.DataFrame, titles: Mapping[str, str], per_row: int = 3) -> Figure:
    """Every measure as dots with 95 % intervals, one panel per measure.

    Args:
        found: ``system, measure, value, lo, hi``.
        titles: Measures and their headings; measures that no system has are left out.
        per_row: Panels in a row of the figure.
    """
    known = found.dropna(subset="value")
    shown = {name: title for name, title in titles.items() if name in set(known["measure"])}
    order = list(dict.fromkeys(found["system"]))
    colours = style.system_colours(order)
    figure, axes = figures.panels(len(shown), per_row, 2.9, 0.34 * len(order) + 1.1, extra=3.2, sharey=True)
    for ax, (name, title) in zip(axes.flat, shown.items()):
        rows = known[known["measure"] == name]
        marks.points(ax, rows, "system", order, colours)
        ax.set_xlabel(title)
        ax.grid(axis="x", alpha=0.3)
        ax.set_xlim(right=min(ax.get_xlim()[1], 1 + MARGIN))
    figure.supxlabel("Dots: this study. Lines: 95 % intervals over patients.", fontsize=9)
    return figure


def cliques(order: Sequence[str], pairs: pd.DataFrame, level: float = LEVEL) -> list[tuple[int, int]]:
    """Longest runs of neighbouring systems of which no two differ.

    Args:
        order: k systems from the lowest to the highest value.
        pairs: ``a, b, p_holm``. A pair without a p-value counts as not different, since it has too few patients.
        level: p-value from which two systems do not differ.

    Returns:
        First and last place of each run of at least two systems; no run lies within another.
    """
    differ = {frozenset((row.a, row.b)) for row in pairs.itertuples() if row.p_holm < level}
    runs = []
    for first in range(len(order)):
        last = first
        while last + 1 < len(order) and not any(
            frozenset((order[k], order[last + 1])) in differ for k in range(first, last + 1)
        ):
            last += 1
        if last > first and not any(a <= first and last <= b for a, b in runs):
            runs.append((first, last))
    return runs


@style.theme()
def critical_differences(
    values: Mapping[str, Mapping[str, float]], pairs: Mapping[str, pd.DataFrame], titles: Mapping[str, str]
) -> Figure:
    """Systems in order of each measure; a bar joins systems of which no two differ. One panel per measure.

    It is read like a critical-difference diagram (Demsar 2006, J Mach Learn Res 7:1), but places are values, and a difference is judged by the
    bootstrap over patients with Holm's adjustment for all pairs.

    Args:
        values: Measure to the value of each system.
        pairs: Measure to ``a, b, p_holm``.
        titles: Measures and their headings.
    """
    shown = {name: title for name, title in titles.items() if len(values.get(name, ())) > 1}
    most = max((len(values[name]) for name in shown), default=1)
    figure, axes = figures.new_figure(
        max(1, len(shown)), 1, width=8.5, height=max(1, len(shown)) * (0.3 * most + 1.3)
    )
    everyone = list(dict.fromkeys(system for one in values.values() for system in one))
    colours = style.system_colours(everyone)
    for ax, (name, title) in zip(axes[:, 0], shown.items()):
        _line(ax, values[name], pairs[name], colours)
        ax.set_xlabel(title)
    if not shown:
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "Fewer than two systems have a score.", ha="center")
    return figure


def _line(ax: Axes, values: Mapping[str, float], pairs: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """One measure: names beside their values in rising order, and the bars at the right of the names."""
    order = sorted(values, key=lambda system: values[system])
    places = np.arange(len(order))
    numbers = [values[system] for system in order]
    ax.scatter(numbers, places, color=[colours[system] for system in order], zorder=3)
    runs = cliques(order, pairs)
    for number, (first, last) in enumerate(runs):
        x, ends = 1 + STEP * (number + 1), [first - 0.2, last + 0.2]
        look = {"color": style.NEUTRAL, "linewidth": JOINED, "solid_capstyle": "butt", "clip_on": False}
        ax.plot([x, x], ends, transform=ax.get_yaxis_transform(), **look)
    left, right = min(0, *numbers), max(numbers)
    room = MARGIN * ((right - left) or 1)
    ax.set(yticks=places, yticklabels=order, ylim=(-0.6, len(order) - 0.4))
    ax.set_xlim(left - room, right + room)
    ax.grid(axis="x", alpha=0.3)


def compared(
    drawn: Sequence[Drawn], by_eye: pd.DataFrame, resamples: int, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, pd.DataFrame]]:
    """Values and pairs of :data:`SHOWN` for :func:`critical_differences`.

    Args:
        drawn: Grading of every system; those with other test eyes are left out.
        by_eye: Result of :func:`drstudy.papers.beside.locating.measure`.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.
    """
    values, pairs = {}, {}
    for name in SHOWN:
        if name in grading.MEASURES:
            own = {one.one.label: float(one.draws[name][0]) for one in drawn if one.one.same_eyes}
            values[name] = {system: value for system, value in own.items() if not np.isnan(value)}
            pairs[name] = grading.pairs(drawn, name)
        else:
            located = locating.scores(by_eye, 1, seed)
            rows = located[(located["region"] == ANY) & (located["measure"] == name)]
            rows = rows[~rows["system"].isin(locating.BLIND)]
            values[name] = dict(zip(rows["system"], rows["value"]))
            pairs[name] = locating.pairs(by_eye, name, resamples, seed)
    return values, pairs
