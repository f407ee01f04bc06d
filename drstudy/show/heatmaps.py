"""Heatmaps over photographs, and what they score: figures that notebooks 05, 11 and 12 share.

Maps are drawn on a scale that keeps their units, with a colour map whose lightness rises with the value. :func:`printed_heat`
draws a map as the source papers print it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.show import figures, marks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from drstudy.explain.measures.localisation import Masks

OUTLINES = {code: style.LESIONS[code] for code in style.OUTLINED} | {"DISC": style.DISC}
"""Structures that are outlined over a photograph or a heatmap."""


def printed_heat(heat: np.ndarray) -> np.ndarray:
    """A map as the source papers print it: scaled to its own minimum and maximum, in jet, red is high (docs/sources.md, A6).

    Args:
        heat: (S, S).

    Returns:
        (S, S, 3) float RGB, 0..1.
    """
    import matplotlib as mpl

    from drstudy.explain.methods.cam import display

    return mpl.colormaps[style.PRINTED_HEAT_MAP](display(np.asarray(heat, float)))[..., :3]


def overlay(image: np.ndarray, heat: np.ndarray, highest: float) -> np.ndarray:
    """A legible overlay: the photograph in grey, and over it the heat, the more opaque the hotter.

    Args:
        image: (S, S, 3) uint8 RGB.
        heat: (S, S), at least 0, in its own units.
        highest: What is drawn as the hottest colour, the same for all maps that are to be compared.

    Returns:
        (S, S, 3) float RGB, 0..1.
    """
    import matplotlib as mpl

    grey = (image.astype(float) @ (0.299, 0.587, 0.114))[..., None] / 255
    scaled = np.clip(heat / highest, 0, 1) if highest > 0 else np.zeros_like(heat)
    alpha = 0.75 * np.sqrt(scaled)[..., None]
    return (1 - alpha) * grey + alpha * mpl.colormaps[style.HEAT_MAP](scaled)[..., :3]


def outline(axes: Axes, masks: Masks, width: float = 0.9) -> list[str]:
    """Draw the outlines of lesions and disc over a picture of the masks' size.

    Args:
        axes: Where the picture is.
        masks: Masks of the eye; shares of a pixel count from 0.25 on, so that small lesions keep an outline.
        width: Width of the lines, points.

    Returns:
        The codes that were drawn.
    """
    from matplotlib import patheffects

    drawn = []
    for code, (_, colour, dashes) in OUTLINES.items():
        mask = masks.get(code)
        if mask is None or not (np.asarray(mask) >= 0.25).any():
            continue
        lines = axes.contour(
            np.asarray(mask, float), [0.25], colors=colour, linewidths=width, linestyles=dashes
        )
        lines.set_path_effects([patheffects.withStroke(linewidth=width + 0.8, foreground="black")])
        drawn.append(code)
    return drawn


def layers_panel(
    images: Sequence[np.ndarray],
    heats: Mapping[str, Sequence[np.ndarray]],
    masks: Sequence[Masks],
    labels: Sequence[str],
) -> Figure:
    """The same eyes at each candidate layer; one scale per layer, so that the eyes of a column can be compared.

    Args:
        images: E photographs, (S, S, 3) uint8 RGB.
        heats: Layer name to E maps (S, S), at least 0, unscaled.
        masks: Masks of each eye.
        labels: Labels of the eyes, beside the rows.
    """
    columns = 1 + len(heats)
    figure, axes = figures.new_figure(len(images), columns, 2.3 * columns, 2.2 * len(images) + 0.7)
    drawn = []
    for row, (image, label) in enumerate(zip(images, labels)):
        show_picture(axes[row, 0], image, "photograph" if row == 0 else "")
        axes[row, 0].set_ylabel(label)
    for column, (layer, maps) in enumerate(heats.items(), 1):
        highest = max(float(heat.max()) for heat in maps)
        for row, (image, heat, mask) in enumerate(zip(images, maps, masks)):
            show_picture(axes[row, column], overlay(image, heat, highest), layer if row == 0 else "")
            drawn.append(outline(axes[row, column], mask))
        heat_bar(figure, axes[:, column], highest)
    outline_legend(figure, drawn)
    return figure


@style.theme()
def share_bars(summary: pd.DataFrame, group: str = "all") -> Figure:
    """Where the heat lies, beside chance: shares of the partition, and how many times chance each mask gets.

    Args:
        summary: Result of :func:`drstudy.explain.measures.localisation.summarise`.
        group: Which group's rows.
    """
    summary = summary[(summary["group"] == group) & (summary["eyes"] > 0)]
    layers = list(summary["layer"].unique())
    figure, axes = figures.new_figure(1, 2, 10.5, 4)
    parts = summary[(summary["kind"] == "part") & (summary["region"] != "elsewhere")]
    _grouped(axes[0, 0], parts, layers, "heat", 100)
    axes[0, 0].set(
        ylabel="share of the heat in the field of view, %", title="Heat by structure, 95 % intervals"
    )
    _grouped(axes[0, 1], summary[summary["kind"] == "mask"], layers, "enrichment", 1)
    axes[0, 1].axhline(1, color=style.NEUTRAL, linestyle="dashed", zorder=0)
    axes[0, 1].set(ylabel="heat share / area share", title="Times chance (1: a uniform map)")
    axes[0, 1].set_ylim(bottom=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


FEWEST_SHOWN = 8
"""Regions with fewer eyes are in the table only, since their wide intervals would stretch the scale of the figure."""


@style.theme()
def beyond_chance(found: pd.DataFrame, metrics: Mapping[str, str], regions: Sequence[str]) -> Figure:
    """Score of a map minus that of each of the four baselines, by lesion. Points right of the line are above the baseline.

    The pointing game is in percentage points; other scores, which grow with the lesions' area, in percent of the
    baseline's own mean score.

    Args:
        found: Result of :func:`drstudy.explain.measures.comparison.differences` for one map and group, by baseline.
        metrics: Column to name, one panel per metric.
        regions: From top to bottom; those with fewer than :data:`FEWEST_SHOWN` eyes are left out.
    """
    shown = [region for region in regions if _most(found, region) >= FEWEST_SHOWN]
    figure, axes = figures.new_figure(
        1, len(metrics), 3.6 * len(metrics) + 1, 0.62 * max(len(shown), 1) + 1.9, sharey=True
    )
    palette = {f"minus {name}": colour for name, colour in style.BASELINE_COLOURS.items()}
    for axis, (metric, name) in zip(axes[0], metrics.items()):
        axis.axvline(0, color=style.INK, lw=1)
        rows = found[(found["metric"] == metric) & found["region"].isin(shown)]
        rows = rows.assign(name="minus " + rows["against"].str.split(" ").str[0])
        rows = _percent(rows[rows["name"].isin(palette)], metric != "hit")
        dots = marks.points(
            axis, rows, "region", shown, palette, "name", mark_missing=True, size=5, width=1.6
        )
        axis.set(title=name, xlabel="percentage points" if metric == "hit" else "% of the baseline's value")
    if not shown:
        axes[0, 0].text(0.5, 0.5, "no lesion is in enough eyes", ha="center", transform=axes[0, 0].transAxes)
    axes[0, 0].set_yticks(range(len(shown)), [f"{region} ({_most(found, region)} eyes)" for region in shown])
    figure.legend(dots.values(), dots.keys(), loc="outside lower center", ncols=4)
    return figure


def _most(found: pd.DataFrame, region: str) -> int:
    eyes = found.loc[found["region"] == region, "eyes"]
    return int(eyes.max()) if len(eyes) else 0


def _percent(rows: pd.DataFrame, relative: bool) -> pd.DataFrame:
    """Differences with their limits as ``value, lo, hi``: in percentage points, or in percent of the other map's score."""
    scale = 1 / rows["other"].where(rows["other"] > 0) if relative else 1.0
    ends = dict(zip(("value", *marks.ENDS), ("difference", "difference_lo", "difference_hi")))
    return rows.drop(columns="value", errors="ignore").assign(
        **{name: 100 * rows[column].astype(float) * scale for name, column in ends.items()}
    )


@style.theme()
def methods_beside(
    found: pd.DataFrame, metrics: Mapping[str, str], names: Sequence[str], title: str = ""
) -> Figure:
    """Maps side by side: each score minus that of random maps on its own grid.

    Args:
        found: Result of :func:`drstudy.explain.measures.comparison.differences` against ``random``, one region.
        metrics: Column to name, one panel per metric.
        names: Maps from top to bottom.
        title: Above all panels.
    """
    figure, axes = figures.new_figure(
        1, len(metrics), 3.4 * len(metrics) + 1.6, 0.32 * len(names) + 1.5, sharey=True
    )
    palette = {name: style.FINER_COLOUR if name.startswith("finer") else style.ACCENT for name in names}
    for axis, (metric, name) in zip(axes[0], metrics.items()):
        axis.axvline(0, color=style.INK, lw=1)
        rows = _percent(found[(found["metric"] == metric) & found["layer"].isin(names)], False)
        marks.points(axis, rows, "layer", names, palette, mark_missing=True, size=5, width=1.6)
        axis.set(title=name, xlabel="minus random, percentage points")
    axes[0, 0].set_yticks(range(len(names)), [style.METHOD_NAMES.get(name, name) for name in names])
    figure.suptitle(title, fontsize=11)
    return figure


@style.theme()
def cascade(found: pd.DataFrame, survives: float) -> Figure:
    """Similarity of a map to that of the trained network, while the weights become random from the head down.

    Args:
        found: Result of :func:`drstudy.explain.checks.verdicts.sane`.
        survives: Rank correlation above which a map is said to survive.
    """
    rows = found[found["check"] == "random weights"]
    figure, axes = figures.new_figure(1, 2, 10, 4)
    for axis, (column, name) in zip(axes[0], (("spearman", "rank correlation"), ("ssim", "SSIM"))):
        for (method, part), colour in zip(rows.groupby("method", sort=False), style.CHECKED_COLOURS):
            x = [0, *part["step"]]
            line = np.concatenate([[1], part[column].to_numpy(float)])
            axis.plot(x, line, "o-", color=colour, label=style.METHOD_NAMES.get(method, method))
            low, high = (
                np.concatenate([[1], part[f"{column}_{end}"].to_numpy(float)]) for end in ("lo", "hi")
            )
            axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        stages = rows.drop_duplicates("step")
        axis.set_xticks(
            [0, *stages["step"]],
            ["trained", *(_deepest(stage) for stage in stages["stage"])],
            rotation=35,
            ha="right",
            rotation_mode="anchor",
        )
        axis.set(
            title=f"{name} with the trained map",
            xlabel="layers with random weights: from the head down to",
            ylim=(-0.35, 1.05),
        )
        axis.axhline(0, color=style.INK, lw=0.8)
    axes[0, 0].axhline(
        survives, color=style.NEUTRAL, linestyle="dashed", label=f"survives above {survives:g}"
    )
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def _deepest(stage: str) -> str:
    """Of ``features.conv0 to features.denseblock1`` the part nearest to the photograph: ``conv0``."""
    return stage.split(" to ")[0].removeprefix("features.").lstrip("_")


def _grouped(axes: Axes, table: pd.DataFrame, layers: Sequence[str], value: str, scale: float) -> None:
    """Bars (shares) or points (ratios) for each region and layer, with intervals, and chance as a line."""
    regions = list(table["region"].unique())
    if not regions:
        axes.text(0.5, 0.5, "no mask in these eyes", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    palette = {layer: style.LAYER_COLOURS[i % len(style.LAYER_COLOURS)] for i, layer in enumerate(layers)}
    ends = dict(zip(("value", *marks.ENDS), (value, f"{value}_lo", f"{value}_hi")))
    long = table.drop(columns="value", errors="ignore").assign(
        **{name: scale * table[column].astype(float) for name, column in ends.items()}
    )
    if value == "heat":
        marks.bars(axes, long, "region", regions, palette, "layer")
        for number, (layer, at) in enumerate(zip(layers, marks.places(len(regions), len(layers)))):
            area = scale * table[table["layer"] == layer].set_index("region").reindex(regions)["area"]
            half = marks.SPAN / len(layers) / 2
            look = {"color": style.CHANCE_COLOUR, "lw": 2}
            axes.hlines(area, at - half, at + half, label="" if number else "area share (chance)", **look)
    else:
        marks.points(axes, long, "region", regions, palette, "layer", vertical=True)
    slanted = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(regions) > 5 else {}
    axes.set_xticks(range(len(regions)), regions, **slanted)


def show_picture(axes: Axes, picture: np.ndarray, title: str) -> None:
    """Draw a picture (S, S, 3) without ticks and frame."""
    axes.imshow(picture)
    axes.set_title(title, fontsize=10)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def heat_bar(figure: Figure, axes: Axes | np.ndarray, highest: float) -> None:
    """Add a colour bar from 0 to ``highest`` in the maps' own units."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(0, highest if highest > 0 else 1), style.HEAT_MAP)
    bar = figure.colorbar(colours, ax=axes, location="bottom", fraction=0.05, aspect=25, pad=0.02)
    bar.set_label("evidence for the class, score per position", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.ax.locator_params(nbins=3)


def outline_legend(figure: Figure, drawn: Sequence[Sequence[str]]) -> None:
    """Add one legend for all outlines that were drawn.

    Args:
        figure: Where the legend goes.
        drawn: Results of :func:`outline`.
    """
    from matplotlib.lines import Line2D

    codes = [code for code in OUTLINES if any(code in some for some in drawn)]
    if codes:
        lines = [Line2D([], [], color=OUTLINES[code][1], linestyle=OUTLINES[code][2], lw=2) for code in codes]
        names = [OUTLINES[code][0] for code in codes]
        columns = max(1, min(len(codes), int(figure.get_figwidth() / 1.8)))
        look = style.LEGEND_ON_PHOTOGRAPHS
        figure.legend(lines, names, loc="outside lower center", ncols=columns, **look)
