"""Figures of notebook 14: learning, localisation of every map, and photographs with map, outlines and truth side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.explain.measures import outlines
from drstudy.explain.measures.baselines import LUMINANCE
from drstudy.papers.glam import tables
from drstudy.show import figures, heatmaps, marks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from drstudy.explain.measures.lesion_maps import LesionMaps
    from drstudy.explain.measures.localisation import Masks
    from drstudy.explain.measures.outlines import Outline

CASES = ("best", "median", "worst")
"""Eyes that are shown for each lesion, by Dice at the validation cut."""

SHOWN_FROM = 0.25
"""Share of a pixel from which a true lesion is outlined, as in :func:`drstudy.show.heatmaps.outline`."""

PANELS = ("photograph", "map", "outlines at the cut", "true lesions")

TITLES = {"aupr": "average precision", "dice_cut": "Dice, cut of validation"}


@style.theme()
def learning_curves(history: pd.DataFrame) -> Figure:
    """Validation loss and mean AUC by epoch, one line per training.

    Args:
        history: ``training, epoch, val_loss, val_auc``.
    """
    figure, axes = figures.new_figure(1, 2, 9, 3.6)
    for place, (name, rows) in enumerate(history.groupby("training", sort=False)):
        group, mark = divmod(
            place, len(style.SERIES_COLOURS)
        )  # colours come again with another mark and line
        look = {
            "color": style.SERIES_COLOURS[mark],
            "marker": "o^"[group % 2],
            "linestyle": "-:"[group % 2],
            "markersize": 4,
        }
        axes[0, 0].plot(rows["epoch"], rows["val_loss"], label=name, **look)
        axes[0, 1].plot(rows["epoch"], rows["val_auc"], **look)
    for axis in axes[0]:
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set(xlabel="epoch", ylabel="validation loss", yscale="log")
    axes[0, 1].set(xlabel="epoch", ylabel="validation AUC, mean")
    axes[0, 1].axhline(0.5, color=style.NEUTRAL, linestyle=":")
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


@style.theme()
def localisation(found: pd.DataFrame) -> Figure:
    """Average precision and Dice of every map on every lesion, with intervals; lines are the lesion's share of the area.

    Args:
        found: Result of :func:`drstudy.papers.glam.tables.localisation`.
    """
    names, regions = list(dict.fromkeys(found["map"])), list(dict.fromkeys(found["region"]))
    if not names:
        return _note("no annotated lesion: nothing to measure")
    size = {"width": 1.9 * len(regions) + 2, "height": 2 * (0.17 * len(names) + 0.7)}
    figure, axes = figures.new_figure(len(TITLES), len(regions), **size, sharey=True)
    for line, (metric, title) in zip(axes, TITLES.items()):
        for axis, region in zip(line, regions):
            part = found[found["region"] == region]
            _forest(axis, part[part["metric"] == metric], names)
            chance = part[part["metric"] == "area"]["value"]
            if metric == "aupr" and len(chance):
                axis.axvline(chance.iloc[0], color=style.CHANCE_COLOUR, linestyle=":", linewidth=1)
            axis.set_title(f"{tables.region_name(region)}: {title}", fontsize=8)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(names)), names)
        axis.tick_params(axis="y", labelsize=8)
    return figure


def _forest(axis: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    """One point with its interval per map."""
    palette = {name: style.lesion_map_colour(name) for name in names}
    ends = ("value_lo", "value_hi")
    marks.points(axis, rows, "map", names, palette, ends=ends, size=4, width=1.5)
    axis.set_xlim(0, 1)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x")


def _note(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure, axes = figures.new_figure(1, 1, 5, 0.8)
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center", transform=axes[0, 0].transAxes)
    return figure


# --- pictures -------------------------------------------------------------------------------------------


def choose(eyes: pd.DataFrame, name: str, regions: Sequence[str]) -> pd.DataFrame:
    """The eyes that are shown, by a rule and never by hand: for each lesion the best, the median (lower of two) and the worst Dice.

    Args:
        eyes: ``image_id, map, region, dice_cut``.
        name: The map.
        regions: Lesions.

    Returns:
        ``region, case, image_id, dice``; ties go to the first ``image_id``; a lesion of fewer than three eyes has fewer cases.
    """
    rows: list[dict] = []
    for region in regions:
        part = eyes[(eyes["map"] == name) & (eyes["region"] == region)].dropna(subset="dice_cut")
        part = part.sort_values("image_id").sort_values("dice_cut", ascending=False, kind="stable")
        places = dict(zip(CASES, (0, len(part) // 2, len(part) - 1)))
        kept = CASES if len(part) >= len(CASES) else CASES[: len(part)]
        for case in kept:
            eye = part.iloc[places[case] if len(part) >= len(CASES) else kept.index(case)]
            rows.append(
                {"region": region, "case": case, "image_id": eye["image_id"], "dice": eye["dice_cut"]}
            )
    return pd.DataFrame(rows, columns=["region", "case", "image_id", "dice"])


def side_by_side(
    cases: pd.DataFrame,
    pictures: Mapping[str, tuple[np.ndarray, Masks]],
    kept: LesionMaps,
    traced: Mapping[str, Sequence[Outline]],
) -> Figure:
    """Photograph, map, outlines and truth, one row per case, enlarged around the largest true lesion. The colours of a lesion's maps
    reach from 0 to their greatest value in all kept eyes.

    Args:
        cases: Result of :func:`choose`.
        pictures: image_id to photograph and masks.
        kept: The maps.
        traced: image_id to outlines.
    """
    if cases.empty:
        return _note("no eye with an annotated lesion")
    figure, axes = figures.new_figure(len(cases), len(PANELS), 7.4, 1.78 * len(cases) + 0.4)
    for row, (line, case) in enumerate(zip(axes, cases.to_dict("records"))):
        image, masks = pictures[case["image_id"]]
        truth = true_lesion(masks, case["region"])
        place = list(kept.codes).index(case["region"])
        heat, highest = kept.of(case["image_id"])[place], float(kept.probabilities[:, place].max())
        grey = np.repeat((image @ LUMINANCE)[..., None] / 255, 3, axis=2)
        size = len(image)
        for axis, title in zip(line, PANELS):
            heatmaps.show_picture(axis, image if title == "photograph" else grey, "" if row else title)
        line[1].images[0].remove()
        span = (-0.5, size - 0.5, size - 0.5, -0.5)
        line[1].imshow(heat, cmap=style.HEAT_MAP, vmin=0, vmax=highest, extent=span, interpolation="nearest")
        mine = [one for one in traced[case["image_id"]] if one.label == case["region"]]
        _lines(line[2], [ring for one in mine for ring in one.rings], case["region"])
        _lines(line[3], [r for _, rings in outlines.borders(truth) for r in rings], case["region"])
        x0, x1, y0, y1 = window(truth)
        for axis in line:
            axis.set(xlim=(x0 - 0.5, x1 - 0.5), ylim=(y1 - 0.5, y0 - 0.5))
        line[0].set_ylabel(f"{case['region']}, {case['case']}\nDice {case['dice']:.2f}", fontsize=8)
    return figure


def true_lesion(masks: Masks, region: str) -> np.ndarray:
    """(S, S) bool: pixels of a region, of all annotated lesions for all together."""
    from drstudy.explain.measures import localisation

    return np.asarray(localisation.regions(masks)[region]) >= SHOWN_FROM


def window(mask: np.ndarray, share: float = 0.5) -> tuple[int, int, int, int]:
    """A square window around the largest connected part of a mask, inside the picture: ``x0, x1, y0, y1`` in pixels, ends excluded.

    Args:
        mask: (S, S) bool.
        share: Side of the window as a share of S; the whole picture if the mask is empty.
    """
    import cv2

    size = len(mask)
    side = max(1, round(share * size))
    count, _, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count == 1:
        return 0, size, 0, size
    x, y = centres[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
    x0, y0 = (int(np.clip(round(at - side / 2), 0, size - side)) for at in (x, y))
    return x0, x0 + side, y0, y0 + side


def _lines(axis: Axes, rings: Sequence[np.ndarray], label: str) -> None:
    """Closed lines with a dark rim; rings are in pixel edges, pictures are drawn around pixel centres."""
    from matplotlib import patheffects

    for ring in rings:
        x, y = np.concatenate([ring, ring[:1]]).T - 0.5
        rim = [patheffects.withStroke(linewidth=2, foreground="black")]
        axis.plot(x, y, color=style.LESIONS[label].colour, linewidth=1, path_effects=rim)
