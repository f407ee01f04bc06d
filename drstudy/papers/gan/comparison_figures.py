"""Figures that compare generated with real photographs: what survives a size, arms, distances, agreement, nearest pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.core.names import GRADE_NAMES, LESIONS
from drstudy.papers.gan import arm_tables, arms, memorisation, quality
from drstudy.papers.gan.pictures import Pictures
from drstudy.show import figures, heatmaps, marks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = (arm_tables.PRIMARY, "qwk", "macro_auc", "sensitivity_ge2", "specificity_ge2", "ece")
"""Metrics of the figure of the arms."""

GAP = 2
"""Pixels between the two pictures of a pair."""


@style.theme()
def survival(lesions: pd.DataFrame) -> Figure:
    """Share of visible lesions by kind and size; below each share the median diameter.

    Args:
        lesions: Result of :func:`drstudy.papers.gan.survival.by_lesion`, not empty.

    Raises:
        ValueError: If there is no lesion.
    """
    if lesions.empty:
        raise ValueError(
            "No lesion was measured: these photographs have no masks, so there is nothing to draw."
        )
    codes = [code for code in LESIONS if code in set(lesions["code"])]
    share = lesions.pivot(index="code", columns="size", values="value").loc[codes]
    wide = lesions.pivot(index="code", columns="size", values="diameter_px").loc[codes]
    texts = share.map("{:.0%}".format) + "\n" + wide.map("{:.1f} px".format)
    names = lesions.drop_duplicates("code").set_index("code")["name"]
    figure, axes = figures.new_figure(1, 1, 6.5, 0.55 * len(codes) + 1.4)
    bar = {"label": "share of lesions that are visible"}
    look = {"size": style.SMALL, "vmin": 0, "vmax": 1, "cbar": True, "cbar_kws": bar}
    marks.matrix(axes[0, 0], share.set_axis([names[code] for code in codes]), texts, style.SHARES_MAP, **look)
    axes[0, 0].set(xlabel="side of the photograph, pixels", ylabel="")
    return figure


@style.theme()
def difference_of_arms(gaps: pd.DataFrame, metrics: Sequence[str] = SHOWN) -> Figure:
    """Difference of each arm to another one: points with 95 % intervals over patients, and small ticks for the range over seeds.

    Args:
        gaps: Result of :func:`drstudy.papers.gan.arm_tables.differences`.
        metrics: Metrics, one panel each.
    """
    order = [arm for arm in arms.TITLES if arm in set(gaps["arm"])]
    figure, axes = figures.panels(len(metrics), 3, 3.4, 0.26 * len(order) + 1.1, extra=2.2, sharey=True)
    for ax, metric in zip(axes.flat, metrics):
        part = gaps[gaps["metric"] == metric].set_index("arm").loc[order].reset_index()
        kinds = part["arm"].map(arms.KINDS)
        _points(ax, part.assign(name=part["arm"].map(arms.TITLES), kind=kinds), ("seed_lo", "seed_hi"))
        ax.axvline(0, color=style.NEUTRAL, linestyle=":", zorder=0)
        better = "smaller is better" if metric in arm_tables.FALLING else "larger is better"
        ax.set(title=arm_tables.METRICS[metric], xlabel=f"difference ({better})", ylabel="")
    return figure


@style.theme()
def distances(found: pd.DataFrame, encoder: str) -> Figure:
    """Every measure of every set in one feature space: means and ranges over draws; the dotted line is the floor.

    Args:
        found: Result of :func:`drstudy.papers.gan.quality.table`.
        encoder: Name of the encoder.

    Raises:
        KeyError: If there is no such encoder.
    """
    part = found[found["encoder"] == encoder]
    if part.empty:
        raise KeyError(f"There is no encoder {encoder!r}; there are {', '.join(found['encoder'].unique())}.")
    sets = part["set"].nunique()
    figure, axes = figures.panels(len(quality.MEASURES), 3, 3.2, 0.24 * sets + 1.0, extra=1.8, sharey=True)
    for ax, (measure, title) in zip(axes.flat, quality.MEASURES.items()):
        rows = part[part["measure"] == measure].rename(columns={"set": "name"})
        _points(ax, rows, ())
        ax.axvline(
            rows.loc[rows["kind"] == "floor", "value"].iloc[0], color=style.NEUTRAL, linestyle=":", zorder=0
        )
        better = "smaller" if measure in ("kd", "fd") else "larger"
        ax.set(title=f"{title}, {measure}_{encoder}", xlabel=f"{better} is nearer to real", ylabel="")
    return figure


def _points(ax: Axes, rows: pd.DataFrame, ticks: Sequence[str]) -> None:
    """One row per ``name``, from the top: ``value`` with ``lo`` and ``hi`` in the colour of its ``kind``, and small ticks at other columns."""
    import seaborn as sns

    sns.scatterplot(
        rows,
        x="value",
        y="name",
        hue="kind",
        palette=style.PICTURE_COLOURS,
        legend=False,
        s=36,
        zorder=3,
        ax=ax,
    )
    for place, row in enumerate(rows.to_dict("records")):
        colour = style.PICTURE_COLOURS[row["kind"]]
        if not np.isnan(row["lo"]):
            ax.plot([row["lo"], row["hi"]], [place, place], color=colour, linewidth=1.5)
        for name in ticks:
            ax.plot(row[name], place, marker="|", color=colour, markersize=9, alpha=0.6)
    ax.tick_params(axis="both", labelsize=8)


@style.theme()
def agreement(grades: pd.DataFrame, kinds: Mapping[str, str]) -> Figure:
    """How often the grading network predicts the requested or observed grade, with 95 % intervals.

    Args:
        grades: Result of :func:`drstudy.papers.gan.agreement.by_grade`.
        kinds: Name of a set to its kind in :data:`drstudy.show.style.PICTURE_COLOURS`.
    """
    import seaborn as sns

    rows = grades[grades["grade"] != "all"].dropna(subset="value")
    figure, axes = figures.new_figure(1, 1, 7.5, 3.4)
    ax = axes[0, 0]
    palette = {name: style.PICTURE_COLOURS[kinds[name]] for name in rows["set"].unique()}
    sns.barplot(
        rows,
        x="grade",
        y="value",
        hue="set",
        palette=palette,
        order=[*"01234"],
        saturation=1,
        errorbar=None,
        ax=ax,
    )
    for bars, (_, part) in zip(ax.containers, rows.groupby("set", sort=False)):
        for bar, row in zip(bars, part.to_dict("records")):
            if not np.isnan(row["lo"]):
                ax.plot(
                    [bar.get_x() + bar.get_width() / 2] * 2,
                    [row["lo"], row["hi"]],
                    color="black",
                    linewidth=1,
                )
    ax.set(
        xlabel="requested (generated) or observed (real) grade", ylabel="predicted as this grade", ylim=(0, 1)
    )
    ax.legend(frameon=False, fontsize=8)
    return figure


def nearest_pairs(
    found: memorisation.Found, train: Pictures, generated: Pictures, space: str = "pixels"
) -> Figure:
    """The generated pictures that are nearest to a training photograph, each beside it: left generated, right real.

    Args:
        found: Result of :func:`drstudy.papers.gan.memorisation.check`.
        train, generated: The pictures that were given to it.
        space: ``pixels`` or ``features``.
    """
    pairs = memorisation.closest(found, space)
    figure, axes = figures.panels(len(pairs), 4, 2.9, 1.75, extra=0)
    for ax, row in zip(axes.flat, pairs.to_dict("records")):
        left, right = generated.images[row["picture"]], train.images[row["train"]]
        gap = np.full((len(left), GAP, 3), 255, np.uint8)
        title = f"ratio {row['ratio']:.2f}" + (", flagged" if row["flagged"] else "")
        heatmaps.show_picture(ax, np.concatenate([left, gap, right], axis=1), title)
    return figure


def heat(some: Pictures, maps: np.ndarray, predicted: np.ndarray) -> Figure:
    """Generated pictures above the same with the grading network's heat for the requested grade.

    Args:
        some: Pictures, up to about ten.
        maps: Result of :func:`drstudy.papers.gan.agreement.heat` for the same pictures.
        predicted: (N,) predicted grades.
    """
    figure, axes = figures.new_figure(2, len(some), 1.5 * len(some), 3.6)
    highest = float(maps.max())
    for place in range(len(some)):
        title = f"{GRADE_NAMES[some.grades[place]]}\npredicted: {predicted[place]}"
        heatmaps.show_picture(axes[0, place], some.images[place], title)
        axes[0, place].title.set_fontsize(8)
        heatmaps.show_picture(axes[1, place], heatmaps.overlay(some.images[place], maps[place], highest), "")
    heatmaps.heat_bar(figure, axes, highest)
    return figure
