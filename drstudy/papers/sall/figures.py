"""Figures of notebook 13: one function per figure, which returns its Figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from drstudy.papers.sall import measures
from drstudy.papers.sall.params import DISEASES, SETTINGS
from drstudy.papers.sall.tables import NAMES, title
from drstudy.show import figures, marks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("baseline", "method", "option", "control", "reference")
CURVES = ("single", "hard", "soft", "full")
"""Settings of the reliability curves and of the curves over fractions of the labels."""


@style.theme()
def gains(table: pd.DataFrame, by_seed: pd.DataFrame) -> Figure:
    """Gain of accuracy over single task: the mean over seeds with its 95 % interval over patients, and each seed as a small point.

    Args:
        table: Result of :func:`drstudy.papers.sall.measures.gains`.
        by_seed: Result of :func:`drstudy.papers.sall.measures.gains_by_seed`.
    """
    import seaborn as sns

    part = table[
        (table["fraction"] == 1) & (table["scale"] == measures.RAW) & (table["metric"] == "accuracy")
    ]
    names = [name for name in SETTINGS if name in set(part["setting"])]
    colours = dict(zip(KINDS, style.series_colours(KINDS)))
    figure, axes = figures.new_figure(1, 2, 10, 0.34 * len(names) + 1.4, sharey=True)
    for axis, disease in zip(axes[0], DISEASES):
        seeds = by_seed[by_seed["disease"] == disease].assign(value=100 * by_seed["value"])
        seeds = seeds.assign(name=seeds["setting"].map(title))
        order = [title(name) for name in names]
        sns.stripplot(
            seeds,
            x="value",
            y="name",
            order=order,
            color=style.NEUTRAL,
            size=3,
            alpha=0.6,
            jitter=0.15,
            ax=axis,
        )
        rows = part[part["disease"] == disease].set_index("setting")
        for y, name in enumerate(names):
            row, colour = rows.loc[name], colours[SETTINGS[name].kind]
            axis.plot([100 * row["lo"], 100 * row["hi"]], [y, y], color=colour, linewidth=2)
            axis.plot(100 * row["value"], y, "o", color=colour, markersize=6, zorder=5)
        axis.axvline(0, color=style.NEUTRAL, linewidth=0.8)
        axis.set(title=NAMES[disease], xlabel="accuracy minus single task, percentage points", ylabel="")
        axis.grid(axis="x", alpha=0.3)
    kinds = [kind for kind in KINDS if any(SETTINGS[name].kind == kind for name in names)]
    _legend(figure, [(kind, colours[kind]) for kind in kinds])
    return figure


@style.theme()
def reliability(curves: pd.DataFrame, scale: str = measures.RAW) -> Figure:
    """Reliability curves of the greatest probability, all seeds together.

    Args:
        curves: Result of :func:`drstudy.papers.sall.measures.reliability`.
        scale: Which of the two scales is drawn.
    """
    figure, axes = figures.new_figure(1, 2, 9, 4.2, sharey=True)
    names = [name for name in CURVES if name in set(curves["setting"])]
    palette = dict(zip(map(title, names), style.series_colours(names)))
    part = curves[curves["scale"] == scale].assign(name=curves["setting"].map(title))
    for axis, disease in zip(axes[0], DISEASES):
        rows = part[part["disease"] == disease]
        _lines(axis, rows, "said", "seen", palette)
        axis.plot([0, 1], [0, 1], color=style.NEUTRAL, linewidth=0.8, linestyle="--")
        axis.set(
            title=NAMES[disease],
            xlabel=f"predicted probability ({scale})",
            ylabel="observed share of correct answers",
            xlim=(0, 1),
            ylim=(0, 1),
        )
        axis.grid(alpha=0.3)
    _legend(figure, list(palette.items()))
    return figure


@style.theme()
def fractions(scores: pd.DataFrame) -> Figure:
    """Accuracy over the share of the labels: the mean over seeds, with the 95 % interval over patients.

    Args:
        scores: Result of :func:`drstudy.papers.sall.measures.scores`.
    """
    part = scores[(scores["scale"] == measures.RAW) & (scores["metric"] == "accuracy")]
    figure, axes = figures.new_figure(1, 2, 9, 4.2, sharey=True)
    names = [name for name in CURVES if name in set(part["setting"])]
    palette = dict(zip(map(title, names), style.series_colours(names)))
    for axis, disease in zip(axes[0], DISEASES):
        _curves(axis, part[part["disease"] == disease], names, palette)
        axis.set(title=NAMES[disease], xlabel="share of the labelled patients, %", ylabel="accuracy, %")
    _legend(figure, list(palette.items()))
    return figure


def _lines(axis: Axes, rows: pd.DataFrame, x: str, y: str, palette: dict[str, str]) -> None:
    """One line with points for each ``name`` of the palette, without a legend."""
    import seaborn as sns

    sns.lineplot(
        rows,
        x=x,
        y=y,
        hue="name",
        hue_order=list(palette),
        palette=palette,
        marker="o",
        ax=axis,
        legend=False,
    )


def _curves(axis: Axes, part: pd.DataFrame, names: list[str], palette: dict[str, str]) -> None:
    shown = part[part["setting"].isin(names)]
    shown = shown.assign(
        name=shown["setting"].map(title), share=100 * shown["fraction"], percent=100 * shown["value"]
    )
    _lines(axis, shown, "share", "percent", palette)
    for place, (name, rows) in enumerate(shown.groupby("name", sort=False)):
        x = rows["share"] * (1 + 0.02 * (place - 1.5))  # side by side, so that no interval hides another
        axis.vlines(x, 100 * rows["lo"], 100 * rows["hi"], color=palette[name], alpha=0.5)
    axis.set_xscale("log")
    ticks = sorted(shown["share"].unique())
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)


@style.theme()
def teacher(confusion: pd.DataFrame) -> Figure:
    """The teacher's most probable class beside the hidden truth: share of each true class as colour, and numbers of photographs.

    Args:
        confusion: Result of :func:`drstudy.papers.sall.measures.teacher_confusion`.
    """
    figure, axes = figures.new_figure(1, 2, 9, 4)
    for axis, disease in zip(axes[0], DISEASES):
        part = confusion[confusion["disease"] == disease]
        share = part.pivot(index="truth", columns="predicted", values="share")
        count = part.pivot(index="truth", columns="predicted", values="photographs")
        look = {"vmin": 0, "vmax": 100, "square": True}
        marks.matrix(axis, 100 * share, count.astype(str), style.SHARES_MAP, style.TEXT, **look)
        other = NAMES[next(name for name in DISEASES if name != disease)]
        axis.set(
            title=f"{NAMES[disease]} teacher on the {other} collection",
            xlabel=f"{NAMES[disease]} class of the teacher",
            ylabel=f"hidden {NAMES[disease]} class",
        )
    return figure


def _legend(figure: Figure, entries: list[tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, marker="o", label=name) for name, colour in entries]
    figure.legend(
        handles=lines, loc="outside lower center", ncols=min(len(lines), 5), frameon=False, fontsize=9
    )
