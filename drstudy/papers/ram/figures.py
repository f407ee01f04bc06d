"""Figures of notebook 11: scores against grades, agreement by size, and signed maps."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.evaluation.ordinal import ROUNDED
from drstudy.show import figures, heatmaps, marks, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from drstudy.explain.measures.localisation import Masks
    from drstudy.papers.ram.maps import ScoreMaps


@style.theme()
def learning_curves(history: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Squared error and kappa by epoch on validation, one line per network and size.

    Args:
        history: ``network, size, epoch, loss, val_loss, val_qwk``, one row per epoch.
        names: Network to its label.
    """
    figure, axes = figures.new_figure(1, 2, 9, 3.4)
    sizes = sorted(history["size"].unique())
    for (network, size), rows in history.groupby(["network", "size"], sort=False):
        look = {"color": style.backbone_colour(network), "linestyle": ("-", "--", ":")[sizes.index(size)]}
        axes[0, 0].plot(rows["epoch"], rows["val_loss"], label=f"{names[network]}, {size} px", **look)
        axes[0, 1].plot(rows["epoch"], rows["val_qwk"], **look)
    for axis in axes[0]:
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set(xlabel="epoch at this size", ylabel="validation error, grades²", ylim=(0, None))
    axes[0, 1].set(xlabel="epoch at this size", ylabel="validation QWK, rounded")
    axes[0, 1].axhline(0, color=style.NEUTRAL, linestyle=":")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.theme()
def score_by_grade(scores: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Scores of eyes by their grade, one panel per network and size; dotted lines are the cuts of rounding.

    Args:
        scores: ``network, size, grade, score``.
        names: Network to its label.
    """
    import seaborn as sns

    panels = list(scores.groupby(["network", "size"], sort=False))
    figure, axes = figures.panels(len(panels), 3, 3.1, 2.9, sharey=True)
    for ax, ((network, size), rows) in zip(axes.flat, panels):
        for cut in ROUNDED:
            ax.axhline(cut, color=style.NEUTRAL, linestyle=":", linewidth=0.8, zorder=0)
        sns.boxplot(
            rows,
            x="grade",
            y="score",
            order=range(5),
            hue="grade",
            hue_order=range(5),
            palette=list(style.GRADE_COLOURS),
            saturation=1,
            width=0.6,
            fliersize=3,
            linecolor=style.INK,
            medianprops={"color": "white", "linewidth": 1.5},
            legend=False,
            ax=ax,
        )
        title = textwrap.fill(f"{names[network]}, {size} px", 30)
        ax.set(xlabel="observed grade", ylabel="", xticks=range(5), xticklabels=range(5))
        ax.set_title(title, fontsize=9)
    for ax in axes[:, 0]:
        ax.set_ylabel("score, grades")
    return figure


@style.theme()
def agreement_by_size(agreement: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Quadratic weighted kappa by size of the photograph, with intervals; hollow is rounding, filled are fitted cuts.

    Args:
        agreement: Result of :func:`drstudy.papers.ram.tables.agreement`.
        names: Network to its label.
    """
    figure, axes = figures.new_figure(1, 1, 7.5, 3.6)
    ax = axes[0, 0]
    rows = agreement[agreement["metric"] == "qwk"]
    sizes, networks = list(dict.fromkeys(rows["size"])), list(dict.fromkeys(rows["network"]))
    rows = rows.assign(level=rows["network"] + " " + rows["cuts"])
    levels = {f"{name} {cuts}": (name, cuts) for name in networks for cuts in ("rounded", "fitted")}
    palette = {level: style.backbone_colour(name) for level, (name, _) in levels.items()}
    hollow = [level for level, (_, cuts) in levels.items() if cuts == "rounded"]
    dots = marks.points(ax, rows, "size", sizes, palette, "level", vertical=True, span=0.7, hollow=hollow)
    filled = {names[name]: dots[level] for level, (name, cuts) in levels.items() if cuts == "fitted"}
    ax.axhline(0, color=style.NEUTRAL, linestyle=":")
    ax.set_xticks(range(len(sizes)), [f"{size} px" for size in sizes])
    ax.set(
        ylabel="QWK on test (95 % interval)", xlabel="○ rounded   ● cuts fitted on validation   ··· chance"
    )
    figure.legend(filled.values(), filled.keys(), loc="outside upper center", ncols=2)
    return figure


def maps_panel(
    photographs: Sequence[np.ndarray],
    signed: Mapping[str, Sequence[np.ndarray]],
    printed: Mapping[str, Sequence[np.ndarray]],
    masks: Sequence[Masks],
    labels: Sequence[str],
) -> Figure:
    """Signed maps over photographs with the outlines of lesions, and the same as the paper prints them.

    Args:
        photographs: E, (S, S, 3) uint8.
        signed: Column title to E maps (S, S), in grades; all on one scale.
        printed: Column title to E maps (S, S) that were scaled one by one, drawn in jet as the paper does.
        masks: Masks of each eye.
        labels: Labels of the eyes.
    """
    import matplotlib as mpl

    columns = 1 + len(signed) + len(printed)
    figure, axes = figures.new_figure(
        len(photographs), columns, 2.15 * columns, 2.25 * len(photographs) + 0.8
    )
    highest = max(float(np.abs(one).max()) for maps in signed.values() for one in maps) or 1.0
    drawn = []
    for row, (photograph, label) in enumerate(zip(photographs, labels)):
        heatmaps.show_picture(axes[row, 0], photograph, "photograph" if row == 0 else "")
        axes[row, 0].set_ylabel(label, fontsize=9)
        grey = (photograph.astype(float) @ (0.299, 0.587, 0.114))[..., None] / 255
        for column, (title, maps) in enumerate(signed.items(), 1):
            scaled = maps[row] / highest
            alpha = 0.85 * np.sqrt(np.abs(scaled))[..., None]
            over = mpl.colormaps[style.SIGNED_MAP](0.5 + scaled / 2)[..., :3]
            picture = (1 - alpha) * grey + alpha * over
            heatmaps.show_picture(axes[row, column], picture, title if row == 0 else "")
            drawn.append(heatmaps.outline(axes[row, column], masks[row]))
        for column, (title, maps) in enumerate(printed.items(), 1 + len(signed)):
            picture = 0.5 * heatmaps.printed_heat(maps[row]) + 0.5 * photograph / 255
            heatmaps.show_picture(axes[row, column], picture, title if row == 0 else "")
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(-highest, highest), style.SIGNED_MAP)
    bar = figure.colorbar(
        scale, ax=axes[:, 1 : 1 + len(signed)], location="bottom", fraction=0.05, aspect=40, pad=0.02
    )
    bar.set_label("evidence for a higher grade, grades (mean of the map + bias = score)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    heatmaps.outline_legend(figure, drawn)
    return figure


def network_panel(
    kinds: Mapping[str, ScoreMaps],
    network: str,
    eyes: pd.DataFrame,
    images: np.ndarray,
    masks_of: Callable[[str], Masks],
) -> Figure:
    """:func:`maps_panel` for the first eye of the grades 0, 2 and 4 (the next higher or lower where there is none).

    Args:
        kinds: Result of :func:`drstudy.papers.ram.maps.kinds`.
        network: Whose maps.
        eyes: ``image_id, grade, row`` of the maps, in their order.
        images: (M, S, S, 3) uint8.
        masks_of: Gives the masks of an image_id.
    """
    first = eyes.reset_index(drop=True).groupby("grade").head(1).sort_values("grade")
    rows = list(first.index[[0, len(first) // 2, -1]].unique())
    own = {
        name.removeprefix(f"{network} "): maps
        for name, maps in kinds.items()
        if name.startswith(f"{network} ")
    }
    size = images.shape[1]
    titles = {name: name if name.startswith("fused") else f"{name} px" for name in own}
    placed = {titles[name]: [maps.placed(row, size) for row in rows] for name, maps in own.items()}
    signed = [name for name in own if not name.endswith(("scaled", "printed", "uniform"))]
    score = own[signed[-1]].scores
    labels = [f"grade {eyes['grade'].iloc[row]}, score {score[row] + 0.0:.1f}" for row in rows]
    return maps_panel(
        [images[eyes["row"].iloc[row]] for row in rows],
        {titles[name]: placed[titles[name]] for name in signed},
        {titles[name]: placed[titles[name]] for name in own if name.endswith("printed")},
        [masks_of(eyes["image_id"].iloc[row]) for row in rows],
        labels,
    )


@style.theme()
def localisation_dots(summary: pd.DataFrame, region: str) -> Figure:
    """Heat on a structure as times chance, and the pointing game beside its own chance, one row per kind of map.

    Args:
        summary: Result of :func:`drstudy.explain.measures.localisation.summarise`.
        region: Its mask.
    """
    rows = summary[(summary["kind"] == "mask") & (summary["region"] == region)].reset_index(drop=True)
    rows = rows[rows["eyes"] > 0].reset_index(drop=True)
    figure, axes = figures.new_figure(1, 2, 9.5, 0.3 * len(rows) + 1.4, sharey=True)
    if rows.empty:
        for ax in axes.flat:
            ax.set_axis_off()
        figure.suptitle(f"no mask of {region} in these eyes")
        return figure
    for ax, name, scale, chance in (
        (axes[0, 0], "enrichment", 1, np.ones(len(rows))),
        (axes[0, 1], "hit", 100, rows["hit_chance"]),
    ):
        percent = rows.assign(
            **{
                end: scale * rows[column]
                for end, column in zip(("value", *marks.ENDS), (name, f"{name}_lo", f"{name}_hi"))
            }
        )
        kinds = dict.fromkeys(rows["layer"], style.ACCENT)
        marks.points(ax, percent, "layer", list(kinds), kinds)
        ax.plot(
            scale * chance, range(len(rows)), "|", color=style.CHANCE_COLOUR, markersize=12, markeredgewidth=2
        )
        ax.grid(axis="x")
    axes[0, 0].set(xlabel=f"heat on {region}, times chance")
    axes[0, 1].set(xlabel=f"pointing game on {region}, %", xlim=(0, None))
    figure.supxlabel("● 95 % interval over patients   | chance", fontsize=style.SMALL)
    return figure
