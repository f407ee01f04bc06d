"""Figures of notebook 22."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from drstudy.papers.external.tables import METRICS, OWN
from drstudy.show import figures, intervals, marks, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("qwk", "auc_ge2", "sensitivity_ge2", "ece_ge2")
"""Metrics with a panel in the figure of the matrix."""


@style.theme()
def matrix(table: pd.DataFrame, mix: str = OWN) -> Figure:
    """Training sets (rows) against test sets (columns), one panel per metric; a darker cell is a better score.

    Args:
        table: Result of :func:`drstudy.papers.external.tables.matrix`.
        mix: Mix of grades.
    """
    rows = table[table["mix"] == mix]
    trainings, tests = rows["training"].unique(), rows["test"].unique()
    figure, axes = figures.new_figure(
        1, len(SHOWN), 1.2 + len(SHOWN) * (0.9 + 0.95 * len(tests)), 1.6 + 0.62 * len(trainings)
    )
    for ax, name in zip(axes.flat, SHOWN):
        one = rows[rows["metric"] == name]
        values = one.pivot(index="training", columns="test", values="value").loc[trainings, tests]
        texts = one.assign(text=[text.replace(" [", "\n[") for text in intervals.column(one)])
        labels = texts.pivot(index="training", columns="test", values="text").loc[trainings, tests]
        shown = 1 - values / 0.5 if name == "ece_ge2" else values
        low = 0.5 if name.startswith("auc") else 0.0
        marks.matrix(ax, shown, labels, style.SHARES_MAP, vmin=low, vmax=1)
        ax.set(xlabel="tested on", ylabel="trained on" if ax is axes.flat[0] else "")
        ax.set_title(METRICS[name].replace(" (", "\n("), fontsize=10)
        ax.tick_params(axis="y", rotation=0, labelleft=ax is axes.flat[0])
        ax.tick_params(axis="x", rotation=20)
    return figure


@style.theme()
def shifts(table: pd.DataFrame, names: Sequence[str] = ("qwk", "auc_ge2", "sensitivity_ge2")) -> Figure:
    """Change of a score from a training set's own test images to another set: in total, by prevalence, and by all the rest.

    Args:
        table: Result of :func:`drstudy.papers.external.tables.shifts`.
        names: Names of the metrics, one panel each.
    """
    pairs = list(table[["training", "test"]].drop_duplicates().itertuples(index=False, name=None))
    labels = [f"{training} → {test}" for training, test in pairs]
    figure, axes = figures.new_figure(1, len(names), 3.4 * len(names), 1.5 + 0.55 * len(pairs), sharey=True)
    for ax, name in zip(axes.flat, names):
        rows = table[table["metric"] == name]
        rows = rows.assign(pair=rows["training"] + " → " + rows["test"])
        dots = marks.points(ax, rows, "pair", labels, style.SHIFT_COLOURS, "part", span=0.4)
        ax.axvline(0, color=style.NEUTRAL, linestyle=":")
        ax.set_xlabel(f"change of {METRICS[name]}")
        ax.grid(axis="x")
    figure.legend(dots.values(), dots.keys(), loc="outside lower center", ncols=3)
    return figure


@style.theme()
def ablation(table: pd.DataFrame, names: Sequence[str] = ("qwk", "auc_ge2")) -> Figure:
    """Scores of each recipe on each test set, with 95 % intervals.

    Args:
        table: Result of :func:`drstudy.papers.external.tables.ablation`.
        names: Names of the metrics, one panel each.
    """
    rows = table[table["what"] == "score"]
    recipes, tests = list(rows["recipe"].unique()), list(rows["test"].unique())
    figure, axes = figures.new_figure(1, len(names), 4.6 * len(names), 1.4 + 0.42 * len(recipes), sharey=True)
    palette = dict(zip(tests, style.SERIES_COLOURS[1:]))
    for ax, name in zip(axes.flat, names):
        span = 0.16 * (len(tests) - 1)
        dots = marks.points(ax, rows[rows["metric"] == name], "recipe", recipes, palette, "test", span=span)
        ax.set_xlabel(METRICS[name])
        ax.grid(axis="x")
    figure.legend(
        dots.values(),
        dots.keys(),
        loc="outside lower center",
        ncols=len(tests),
        frameon=False,
        title="tested on",
    )
    return figure


@style.theme()
def curves(table: pd.DataFrame) -> Figure:
    """Scores by number of training photographs: measured with intervals, and the power law with its band.

    Args:
        table: Result of :func:`drstudy.papers.external.tables.curves`.
    """
    names = list(table["metric"].unique())
    tests = list(table["test"].unique())
    figure, axes = figures.new_figure(1, len(names), 4.8 * len(names), 4.0)
    colours = style.SERIES_COLOURS[1:]
    for ax, name in zip(axes.flat, names):
        for place, (test, colour) in enumerate(zip(tests, colours)):
            one = table[(table["metric"] == name) & (table["test"] == test)]
            measured, law = one[one["what"] == "measured"], one[one["what"] == "law"]
            x = measured["size"] * 1.03 ** (
                place - (len(tests) - 1) / 2
            )  # so that intervals do not cover each other
            ax.vlines(x, measured["lo"], measured["hi"], color=colour, linewidth=2)
            ax.plot(x, measured["value"], "o", color=colour, label=test)
            ax.plot(law["size"], law["value"], "--", color=colour)
            ax.fill_between(law["size"], law["lo"], law["hi"], color=colour, alpha=0.15, linewidth=0)
        ax.axvline(table.loc[table["what"] == "measured", "size"].max(), color=style.NEUTRAL, linestyle=":")
        ax.set(xscale="log", xlabel="training photographs", ylabel=METRICS[name])
        ax.grid(alpha=0.3)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(tests), frameon=False, title="tested on"
    )
    return figure
