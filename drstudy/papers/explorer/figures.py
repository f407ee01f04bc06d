"""Figures of single eyes: photograph, map, regions and probabilities, of one system or of two side by side; and the worst eyes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from drstudy.core.names import GRADES
from drstudy.papers.explorer.eyes import View
from drstudy.show import figures, heatmaps, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("photograph, lesions outlined", "map", "regions above the cut", "probabilities")
WORST_A_ROW = 4
SCREEN_DPI = 80
"""Of a picture in a menu: one that is drawn anew at every choice."""


def eye(views: Sequence[View]) -> Figure:
    """One eye through one system, or through several, one row each.

    Args:
        views: Of the same eye, from top to bottom.
    """
    figure, axes = figures.new_figure(
        len(views), 4, 13.5, 3.45 * len(views) + 0.55, width_ratios=(1, 1, 1, 0.9)
    )
    drawn = []
    for place, (row, view) in enumerate(zip(axes, views)):
        titles = PANELS if place == 0 else ("",) * 4
        heatmaps.show_picture(row[0], view.image, titles[0])
        drawn.append(heatmaps.outline(row[0], view.masks))
        _map(row[1], view, titles[1])
        _regions(row[2], view, titles[2])
        _probabilities(row[3], view, titles[3])
        row[0].set_ylabel(f"{view.label}\n{view.answer}", fontsize=9)
    figure.suptitle(f"{views[0].image_id}, {views[0].observed}", fontsize=11)
    heatmaps.outline_legend(figure, drawn)
    return figure


def _map(axes: Axes, view: View, title: str) -> None:
    if view.heat is None:
        heatmaps.show_picture(axes, np.full_like(view.image, 235), title)
        axes.text(0.5, 0.5, "no map of this eye", ha="center", transform=axes.transAxes)
        return
    heatmaps.show_picture(axes, heatmaps.overlay(view.image, view.heat, view.highest), title)
    heatmaps.outline(axes, view.masks, 0.6)
    axes.set_xlabel(f"{view.map_name}\nbrightest: {view.highest:.2g} or more", fontsize=9)


def _regions(axes: Axes, view: View, title: str) -> None:
    from matplotlib import patheffects

    heatmaps.show_picture(axes, view.image, title)
    if view.regions.any():
        colour = style.LESIONS["lesion"].colour
        lines = axes.contour(view.regions.astype(float), [0.5], colors=colour, linewidths=1.4)
        lines.set_path_effects([patheffects.withStroke(linewidth=2.6, foreground="black")])
    why = "" if view.regions.any() or not view.status else f"none: {view.status}\n"
    words = view.cut_words if view.heat is None else f"cut {view.cut:.2g}, {view.cut_words}"
    axes.set_xlabel(f"{why}{_wrapped(words)}", fontsize=9)


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 34))


def _probabilities(axes: Axes, view: View, title: str) -> None:
    """Bars of the five grades, with marks at the observed and the predicted grade; or what the system says, in words."""
    axes.set_title(title, fontsize=10)
    if view.probabilities is None:
        axes.text(
            0.5,
            0.5,
            f"no probability of each grade\n{view.answer}",
            ha="center",
            va="center",
            transform=axes.transAxes,
        )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return
    axes.barh(
        GRADES, 100 * view.probabilities, color=style.GRADE_COLOURS, edgecolor=style.NEUTRAL, linewidth=0.6
    )
    for grade in GRADES:
        marks = [
            word
            for word, value in (("observed", view.grade), ("predicted", view.predicted))
            if value == grade
        ]
        if marks:
            ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
            axes.text(99, grade, ", ".join(marks), ha="right", va="center", fontsize=9, bbox=ground)
    axes.set_yticks(GRADES)
    axes.set(xlim=(0, 100), xlabel="probability, %", ylabel="grade")
    axes.invert_yaxis()


def worst(views: Sequence[View], notes: Mapping[str, str] | None = None) -> Figure:
    """Eyes with their maps, the worst first.

    Args:
        views: Of one system, in order.
        notes: By image_id, a further line above the eye: by what it is the worst.
    """
    rows = max(1, -(-len(views) // WORST_A_ROW))
    figure, axes = figures.new_figure(rows, WORST_A_ROW, 13.5, (3.9 if notes else 3.7) * rows)
    drawn = []
    for axis, view in zip(axes.flat, views):
        picture = view.image if view.heat is None else heatmaps.overlay(view.image, view.heat, view.highest)
        lines = [f"{view.image_id}: {view.observed}", view.answer, (notes or {}).get(view.image_id, "")]
        heatmaps.show_picture(axis, picture, "\n".join(filter(None, lines)))
        drawn.append(heatmaps.outline(axis, view.masks))
    for axis in axes.flat[len(views) :]:
        axis.set_axis_off()
    heatmaps.outline_legend(figure, drawn)
    return figure


def jpeg(figure: Figure) -> bytes:
    """A figure for the screen, as the bytes of a JPEG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="jpeg", dpi=SCREEN_DPI, pil_kwargs={"quality": 88})
    return stream.getvalue()
