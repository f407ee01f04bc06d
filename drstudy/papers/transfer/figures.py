"""Figures of the main study alone: samplers, the paper's arithmetic, and its figures 4 and 5 beside legible ones.

Maps are drawn twice: as the paper printed them (each scaled to its own maximum, in jet, docs/sources.md, A6), and on a scale that
keeps their units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.evaluation import metrics
from drstudy.papers.transfer.shift import SEVERE
from drstudy.show import figures, heatmaps, marks, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from drstudy.explain.measures.localisation import Masks


def choose_cases(predictions: pd.DataFrame) -> pd.DataFrame:
    """The eyes of figure 5, by a rule and never by hand.

    - ``right``: of the eyes graded correctly, a severe one (grade 3 or 4; failing that, of the highest
      grade), the one with the highest confidence.
    - ``wrong``: of the eyes graded wrongly, a severe one (failing that, of the highest grade) that was called
      the lowest grade, the one with the highest confidence: severe disease missed, the paper's failure.
    - ``borderline``: of the others, the eye with the smallest margin between its two most probable grades.
    - ``certain``: only where no eye has a grade, and so none is right or wrong: the eye with the highest
      confidence.

    Ties go to the first ``image_id``. The order of the rows does not matter.

    Args:
        predictions: one row per eye: ``image_id``, ``grade`` (may be missing), ``p0`` to ``p4``.

    Returns:
        One row per case, in the order right, borderline, wrong, certain: ``case``, ``image_id`` (empty where
        there is no such eye), ``grade``, ``predicted``, ``confidence``, ``margin`` and ``note``: why there is
        none, or where the rule gave way.
    """
    eyes = predictions.sort_values("image_id", ignore_index=True)
    ranked = np.sort(eyes[[f"p{k}" for k in range(5)]].to_numpy(float), axis=1)
    eyes = pd.DataFrame(
        {
            "image_id": eyes["image_id"],
            "grade": eyes["grade"].astype("Int64"),
            "predicted": eyes[[f"p{k}" for k in range(5)]].to_numpy(float).argmax(1),
            "confidence": ranked[:, -1],
            "margin": ranked[:, -1] - ranked[:, -2],
        }
    )
    graded = eyes.dropna(subset="grade").assign(severity=lambda t: t["grade"].clip(upper=SEVERE))
    correct = graded["grade"] == graded["predicted"]
    orders = {
        "right": (graded[correct], {"severity": False, "confidence": False}),
        "wrong": (graded[~correct], {"severity": False, "predicted": True, "confidence": False}),
        "borderline": (eyes, {"margin": True}),
    }
    if graded.empty:
        orders["certain"] = (eyes, {"confidence": False})
    rows: dict[str, dict] = {}
    for case, (among, order) in orders.items():
        among = among.sort_values(list(order), ascending=list(order.values()), kind="stable")
        taken = [row["image_id"] for row in rows.values()]
        first = among[~among["image_id"].isin(taken)].head(1).to_dict("records") or [{"image_id": ""}]
        rows[case] = {"case": case, **first[0], "note": _note(case, first[0], len(graded))}
    table = pd.DataFrame([rows.pop("right"), rows.pop("borderline"), *rows.values()])
    table = table.reindex(columns=["case", *eyes.columns, "note"])
    return table.astype({"grade": "Int64", "predicted": "Int64"})


def _note(case: str, eye: Mapping[str, object], graded: int) -> str:
    """Where the rule for a case found nobody, or had to give way."""
    if case in ("borderline", "certain"):
        return "" if eye["image_id"] else "no other eye is left"
    if not graded:
        return "the eyes have no grade"
    how = "correctly" if case == "right" else "wrongly"
    if not eye["image_id"]:
        return f"no eye was graded {how}"
    notes = [f"no severe eye was graded {how}"] if eye["grade"] < SEVERE else []
    if case == "wrong" and eye["predicted"] > eye["grade"]:
        notes.append("none of its kind was predicted too low")
    return "; ".join(notes)


@style.theme()
def class_shares(shares: pd.DataFrame) -> Figure:
    """Shares of the grades among an epoch's draws, by sampler: bars as drawn, black ticks as expected.

    Args:
        shares: Long: ``sampler, grade, expected, drawn``, shares 0 to 1.
    """
    samplers = list(shares["sampler"].unique())
    figure, axes = figures.new_figure(1, len(samplers), 2.4 * len(samplers) + 0.8, 3.0, sharey=True)
    for ax, sampler in zip(axes.flat, samplers):
        rows = shares[shares["sampler"] == sampler].sort_values("grade")
        percent = rows.assign(value=100 * rows["drawn"])
        palette = dict(zip(range(5), style.GRADE_COLOURS))
        marks.bars(ax, percent, "grade", list(palette), palette, ends=None)
        ax.hlines(
            100 * rows["expected"], rows["grade"] - 0.45, rows["grade"] + 0.45, color=style.INK, linewidth=2
        )
        ax.axhline(20, linestyle=":", color=style.NEUTRAL)
        ax.set(title=f"sampler: {sampler}", xlabel="grade", xticks=range(5))
    axes[0, 0].set_ylabel("share of draws, %")
    figure.supxlabel("▇ drawn   ━ expected   ··· equal shares (20 %)", fontsize=9)
    return figure


def augmentations(images: Mapping[str, np.ndarray]) -> Figure:
    """One eye under each augmentation, by name; images (S, S, 3) uint8."""
    columns = 4
    figure, axes = figures.new_figure(
        -(-len(images) // columns), columns, 8.4, 2.3 * -(-len(images) // columns)
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, image) in zip(axes.flat, images.items()):
        ax.imshow(image)
        ax.set_title(title, fontsize=9)
    return figure


@style.theme()
def implied_prevalence(arithmetic: pd.DataFrame, counts: Sequence[int]) -> Figure:
    """Share of positives that each printed row implies, with the range of rounding, against the share at each cut.

    Args:
        arithmetic: Result of :func:`drstudy.papers.transfer.tables.paper_arithmetic`.
        counts: Images by grade.
    """
    figure, axes = figures.new_figure(1, 1, 7.5, 2.6)
    ax = axes[0, 0]
    shares = 100 * np.cumsum(counts[::-1])[::-1] / sum(counts)
    for cut in metrics.CUTS:
        ax.axvline(shares[cut], color=style.NEUTRAL, linestyle=":")
        ax.text(shares[cut], -0.7, f" ≥ {cut}", ha="left", color=style.NEUTRAL, fontsize=9)
    rows = arithmetic.assign(name=arithmetic["backbone"].map(style.BACKBONE_NAMES))
    rows = rows.assign(**{name: 100 * rows[name] for name in ("implied", *marks.ENDS)})
    palette = {row.name: style.backbone_colour(row.backbone) for row in rows.itertuples(index=False)}
    marks.points(ax, rows, "name", list(palette), palette, value="implied", width=3)
    ax.set(ylim=(len(rows) - 0.5, -1.0), xlim=(0, None))
    ax.set_xlabel("implied share of positives, % (bar: range of rounding; dotted: share at each cut)")
    return figure


def paper_overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The paper's overlay: 0.1 of the heat picture and 0.8 of the photograph scaled to 0..1 (docs/sources.md, A6).

    The weights sum to 0.9, so the result is darker than the photograph, and the heat is hard to see.

    Args:
        image: (S, S, 3) uint8 RGB.
        heat: (S, S).

    Returns:
        (S, S, 3) float RGB, 0..0.9.
    """
    low, high = float(image.min()), float(image.max())
    return 0.1 * heatmaps.printed_heat(heat) + 0.8 * (image.astype(float) - low) / max(high - low, 1)


def figure4(image: np.ndarray, heat: np.ndarray, masks: Masks, title: str = "") -> Figure:
    """One eye, as the paper's figure 4 shows it and as it can be read.

    Args:
        image: (S, S, 3) uint8 RGB.
        heat: (S, S), at least 0, unscaled.
        masks: Masks of the eye; may be empty.
        title: Above all panels.

    Returns:
        Photograph, the paper's heat picture, the paper's overlay, and ours with outlines and scale.
    """
    figure, axes = figures.new_figure(1, 4, 11, 3.4)
    highest = float(heat.max())
    panels = {
        "photograph": image,
        "heat, as printed": heatmaps.printed_heat(heat),
        "overlay, as printed": paper_overlay(image, heat),
        "overlay, legible": heatmaps.overlay(image, heat, highest),
    }
    for axis, (name, picture) in zip(axes[0], panels.items()):
        heatmaps.show_picture(axis, picture, name)
    heatmaps.heat_bar(figure, axes[0, 3], highest)
    heatmaps.outline_legend(figure, [heatmaps.outline(axes[0, 3], masks)])
    figure.suptitle(title, fontsize=11)
    return figure


def figure5(
    cases: pd.DataFrame, images: Sequence[np.ndarray], heats: Sequence[np.ndarray], masks: Sequence[Masks]
) -> Figure:
    """The right, borderline and wrong eye: photograph, the paper's overlay, and ours on one scale for all.

    Args:
        cases: Rows of :func:`choose_cases` that have an eye.
        images, heats, masks: One for each row, as :func:`figure4` takes them.
    """
    figure, axes = figures.new_figure(len(cases), 3, 7.4, 2.4 * len(cases) + 0.6)
    highest = max(float(heat.max()) for heat in heats)
    drawn = []
    for row, (case, image, heat, mask) in enumerate(zip(cases.to_dict("records"), images, heats, masks)):
        heatmaps.show_picture(axes[row, 0], image, _caption(case))
        heatmaps.show_picture(axes[row, 1], paper_overlay(image, heat), "as printed" if row == 0 else "")
        heatmaps.show_picture(
            axes[row, 2], heatmaps.overlay(image, heat, highest), "legible, one scale" if row == 0 else ""
        )
        drawn.append(heatmaps.outline(axes[row, 2], mask))
    heatmaps.heat_bar(figure, axes[:, 2], highest)
    heatmaps.outline_legend(figure, drawn)
    return figure


def _caption(case: Mapping[str, object]) -> str:
    grade = "no grade" if pd.isna(case["grade"]) else f"grade {case['grade']}"
    return f"{case['case']}: {grade}, predicted {case['predicted']} ({100 * case['confidence']:.0f} %)"
