"""Statistical marks that the figures share, drawn with seaborn: points with intervals, grouped bars, matrices.

Intervals are never computed here. They come from tables (:mod:`drstudy.evaluation.statistics`), and seaborn draws them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.show import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.container import BarContainer
    from matplotlib.lines import Line2D

ENDS = ("lo", "hi")
"""Columns of the limits of an interval."""

SPAN = 0.8
"""Share of the room of a group that its bars, or its points side by side, fill."""


def points(
    ax: Axes,
    table: pd.DataFrame,
    group: str,
    order: Sequence[str],
    palette: Mapping[str, str],
    hue: str | None = None,
    *,
    value: str = "value",
    ends: tuple[str, str] = ENDS,
    vertical: bool = False,
    span: float = 0.5,
    hollow: Iterable[str] = (),
    markers: Mapping[str, str] | None = None,
    mark_missing: bool = False,
    size: float = 6,
    width: float = 2,
) -> dict[str, Line2D]:
    """Estimates as points with their intervals as lines, one row per group from the top, side by side for each level of ``hue``.

    Args:
        ax: Where they are drawn. With ``vertical``, groups are columns from the left.
        table: One row per group and level of ``hue``. Rows without an estimate are left out; a missing limit means no interval.
        group: Column of the groups.
        order: Groups in order; group k is at position k, whether it has an estimate or not.
        palette: Level of ``hue`` to its colour, in the order of the levels.
        hue: Column of the levels; without it every group has its own colour.
        value, ends: Columns of the estimate and of the limits of its interval.
        vertical: Whether values run upwards rather than to the right.
        span: Distance between the first and the last level, as a share of the distance of two groups.
        hollow: Levels whose points are hollow.
        markers: Level to its marker; a disc for all without it.
        mark_missing: Whether points without an interval are hollow.
        size, width: Diameter of the points and width of the lines, points.

    Returns:
        The line of points of each level, for a legend.
    """
    levels, before = list(palette), len(ax.lines)
    long = _long(table, group, hue or group, value, ends)
    dodge = span if hue and len(levels) > 1 else 0.0
    look = {"markersize": size, "err_kws": {"linewidth": width, "solid_capstyle": "butt"}}
    look["markers"] = [markers[level] for level in levels] if markers else "o"
    _point_plot(ax, long, order, palette, vertical, dodge=dodge or False, **look)
    lines = [line for line in ax.lines[before:] if line.get_marker() not in ("None", "")]
    dots = dict(zip(levels, lines))
    for level in set(hollow) & set(dots):
        dots[level].set(markerfacecolor="white", zorder=3)
    if mark_missing:
        offsets = dict(zip(levels, np.linspace(-dodge / 2, dodge / 2, len(levels))))
        for row in table[table[value].notna() & table[list(ends)].isna().any(axis=1)].to_dict("records"):
            level = row[hue or group]
            at = [row[value], list(order).index(row[group]) + offsets[level]]
            hole = {"color": palette[level], "markerfacecolor": "white", "markersize": size, "zorder": 4}
            ax.plot(*([number] for number in (at[::-1] if vertical else at)), "o", **hole)
    _places(ax, order, vertical)
    return dots


def _point_plot(
    ax: Axes, long: pd.DataFrame, order: Sequence[str], palette: Mapping[str, str], vertical: bool, **look
) -> None:
    """seaborn's points of :func:`_long`; nothing where there is no estimate.

    seaborn gives every level a place in every group; those without a number are taken away again.
    """
    import seaborn as sns

    place, number = ("x", "y") if vertical else ("y", "x")
    before = len(ax.lines)
    if len(long):
        sns.pointplot(
            long,
            **{place: "group", number: "value"},
            order=list(order),
            hue="hue",
            hue_order=list(palette),
            palette=dict(palette),
            estimator=_first,
            errorbar=_limits,
            linestyle="none",
            markeredgewidth=1.3,
            legend=False,
            ax=ax,
            **look,
        )
    for line in list(ax.lines)[before:]:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        known = ~(np.isnan(x) | np.isnan(y))
        line.set_data(x[known], y[known])
        if not known.any() and line.get_marker() == "None":
            line.remove()


def bars(
    ax: Axes,
    table: pd.DataFrame,
    group: str,
    order: Sequence[str],
    palette: Mapping[str, str],
    hue: str | None = None,
    *,
    value: str = "value",
    ends: tuple[str, str] | None = ENDS,
    horizontal: bool = False,
    hatches: Mapping[str, str] | None = None,
) -> dict[str, BarContainer]:
    """Bars from 0, grouped, each with its interval as a dark line.

    Args:
        ax, table, group, order, palette, hue, value, ends: As in :func:`points`; ``ends`` may be None.
        horizontal: Whether bars run to the right, the first group at the top.
        hatches: Level to its hatching.

    Returns:
        The bars of each level, with the level as their label. A group without an estimate has no bar.
    """
    import seaborn as sns

    levels = list(palette)
    place, number = ("y", "x") if horizontal else ("x", "y")
    before = len(ax.containers)
    sns.barplot(
        _long(table, group, hue or group, value, ends or ()),
        **{place: "group", number: "value"},
        order=list(order),
        hue="hue",
        hue_order=levels,
        palette=dict(palette),
        saturation=1,
        width=SPAN,
        gap=0.06,
        dodge=hue is not None,
        estimator=_first,
        errorbar=_limits if ends else None,
        err_kws={"color": style.INK, "linewidth": 1.5},
        edgecolor="white",
        legend=False,
        ax=ax,
    )
    found = dict(zip(levels, ax.containers[before:]))
    for level, container in found.items():
        container.set_label(level)
        for bar in container:
            bar.set_hatch((hatches or {}).get(level, ""))
    ax.set(xlabel="", ylabel="")
    return found


def places(count: int, levels: int) -> np.ndarray:
    """Positions of the bars of :func:`bars`, (levels, count): the middle of each level's bar in each group."""
    offset = (np.arange(levels) - (levels - 1) / 2) * SPAN / levels
    return np.arange(count)[None] + offset[:, None]


def matrix(
    ax: Axes,
    shades: pd.DataFrame | np.ndarray,
    texts: object,
    cmap: str,
    size: float = style.SMALLEST,
    **scale,
) -> QuadMesh:
    """A matrix of colours with a text in each cell, in black or white, whichever stands out.

    Args:
        ax: Where it is drawn.
        shades: What the colours show, (R, C); a cell that is not a number is blank and has no text.
        texts: (R, C) texts.
        cmap: Name of the colour map.
        size: Size of the texts, points.
        scale: ``vmin`` and ``vmax``, or ``norm``, and other arguments of :func:`seaborn.heatmap`.

    Returns:
        The cells, for a colour bar.
    """
    import seaborn as sns

    if "norm" in scale:  # else seaborn looks for limits in the numbers, of which there may be none
        scale = {"vmin": scale["norm"].vmin, "vmax": scale["norm"].vmax} | scale
    look = {"cbar": False, "linewidths": 1, "linecolor": "white", "annot_kws": {"fontsize": size}} | scale
    sns.heatmap(shades, annot=np.asarray(texts), fmt="", cmap=cmap, ax=ax, **look)
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)
    cells = ax.collections[0]
    faces = cells.get_facecolors().reshape(*np.shape(shades), -1)
    for text in ax.texts:
        x, y = text.get_position()
        text.set_color(readable_on(faces[int(y), int(x)]))
    return cells


def readable_on(face: Sequence[float]) -> str:
    """Black or white, whichever has the greater contrast (WCAG 2) on a colour (R, G, B, 0 to 1)."""
    rgb = np.asarray(face[:3], float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white"


def _long(table: pd.DataFrame, group: str, hue: str, value: str, ends: Sequence[str]) -> pd.DataFrame:
    """The estimate and the limits of each row below each other, in this order, as seaborn takes observations."""
    known = table[table[value].notna()]
    parts = [
        pd.DataFrame(
            {
                "group": known[group].to_numpy(),
                "hue": known[hue].to_numpy(),
                "value": known[name].to_numpy(float),
            }
        )
        for name in (value, *ends)
    ]
    return pd.concat(parts, ignore_index=True).dropna(subset="value")


def _first(values: pd.Series) -> float:
    """The estimate, which comes before the limits."""
    return float(values.iloc[0])


def _limits(values: pd.Series) -> tuple[float, float]:
    """The limits, which come after the estimate; none if one of them is missing."""
    if len(values) < 3:
        return np.nan, np.nan
    return float(values.iloc[1]), float(values.iloc[2])


def _places(ax: Axes, order: Sequence[str], vertical: bool) -> None:
    """Ticks of all groups, the first at the top or at the left."""
    at = range(len(order))
    if not len(order):
        (ax.set_xticks if vertical else ax.set_yticks)([])
    elif vertical:
        ax.set_xticks(at, order)
        ax.set_xlim(-0.5, len(order) - 0.5)
    else:
        ax.set_yticks(at, order)
        ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set(xlabel="", ylabel="")
