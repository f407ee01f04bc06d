"""Figures of lesions as labels: learning, scores, decisions, the masks under each lesion's map, and outlined eyes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.evaluation import multilabel
from drstudy.explain.measures import attention, outlines
from drstudy.explain.measures.baselines import LUMINANCE
from drstudy.papers.lesions import tables
from drstudy.show import figures, heatmaps, intervals, marks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from drstudy.explain.measures.localisation import Masks
    from drstudy.explain.measures.outlines import Outline

SHOWN_FROM = 0.25
"""Share of a pixel from which a true lesion is outlined, as in :func:`drstudy.show.heatmaps.outline`."""

DECISION_MARKS = {"sensitivity": "o", "specificity": "s"}
APART = 0.13
"""Distance of the two points of a decision from the middle of its row."""

VALUE_SIZE = 11
"""Size of the values in the matrix of attention, points."""

DIGITS = {"hit": 0}
"""Digits behind the point in that matrix; one for every other metric."""

_PANELS = {
    "predicted": "lesion of the map predicted",
    "present": "lesion of the map present",
    "absent": "lesion of the map absent (control)",
}

_METRICS = {
    "enrichment": ("heat on the mask, times chance", 1.0),
    "hit": ("pointing game, %", 100.0),
    "aupr_over_chance": ("pixel AUPR minus chance, points", 100.0),
    "heat": ("heat on the mask, %", 100.0),
}


def _colour(network: str) -> str:
    return style.NEUTRAL if network == tables.GRADES else style.backbone_colour(network)


@style.theme()
def learning_curves(history: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Loss and mean AUC by epoch on validation, one line per network.

    Args:
        history: ``network, epoch, loss, val_loss, val_auc``.
        names: Network to its label.
    """
    figure, axes = figures.new_figure(1, 2, 9, 3.4)
    for network, rows in history.groupby("network", sort=False):
        axes[0, 0].plot(rows["epoch"], rows["val_loss"], ".-", label=names[network], color=_colour(network))
        axes[0, 1].plot(rows["epoch"], rows["val_auc"], ".-", color=_colour(network))
    for axis in axes[0]:
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set(xlabel="epoch", ylabel="validation loss", ylim=(0, None))
    axes[0, 1].set(xlabel="epoch", ylabel="validation AUC, mean over labels")
    axes[0, 1].axhline(0.5, color=style.NEUTRAL, linestyle=":")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


@style.theme()
def label_scores(scored: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """AUC and average precision by label, filled on all eyes, hollow among those of grade 2 or more; ticks are chance.

    Args:
        scored: Result of :func:`drstudy.papers.lesions.tables.by_label`.
        names: Network to its label.
    """
    labels = [label for label in dict.fromkeys(scored["label"]) if label != "all labels"]
    networks = list(dict.fromkeys(scored["network"]))
    figure, axes = figures.new_figure(1, 2, 9.5, 0.3 * len(labels) * len(networks) + 1.9, sharey=True)
    level = scored["network"].map(names) + ", " + scored["group"].map(tables.GROUPS)
    rows = scored.assign(level=level, share=scored["present"] / (scored["present"] + scored["absent"]))
    levels = {
        f"{names[network]}, {said}": (network, group)
        for network in networks
        for group, said in tables.GROUPS.items()
    }
    palette = {name: _colour(network) for name, (network, _) in levels.items()}
    look = {"hollow": [name for name, (_, group) in levels.items() if group != "all"], "size": 5}
    span = 0.7 * (len(levels) - 1) / len(levels)
    for axis, metric, title in zip(axes[0], ("auc", "ap"), ("AUC", "average precision")):
        part = rows[(rows["metric"] == metric) & rows["label"].isin(labels)]
        dots = marks.points(axis, part, "label", labels, palette, "level", span=span, width=1.6, **look)
        for place, name in zip(np.linspace(-span / 2, span / 2, len(levels)), levels):
            known = part[(part["level"] == name) & part["value"].notna()]
            chance = known["share"] if metric == "ap" else np.full(len(known), 0.5)
            y = [labels.index(label) + place for label in known["label"]]
            axis.plot(chance, y, "|", color=style.NEUTRAL, markersize=9)
        axis.set(xlabel=title, xlim=(0, 1.02))
        axis.grid(axis="x", alpha=0.3)
    present = scored[scored["group"] == "all"].drop_duplicates("label").set_index("label")
    texts = [f"{label} ({present.loc[label, 'present']})" for label in labels]
    axes[0, 0].set_yticks(range(len(labels)), texts)
    axes[0, 0].set(ylim=(len(labels) - 0.5, -0.5), ylabel="label (present in all eyes)")
    figure.legend(dots.values(), dots.keys(), loc="outside lower center", ncols=2)
    return figure


@style.theme()
def co_occurrence(truth: np.ndarray, predicted: np.ndarray, codes: tuple[str, ...]) -> Figure:
    """Share of the eyes with the row's lesion that also have the column's lesion: as annotated, and as predicted.

    Args:
        truth: (N, L) 1, 0 or NaN.
        predicted: (N, L) bool.
        codes: L names.
    """
    side = 0.72 * len(codes) + 1.5
    figure, axes = figures.new_figure(1, 2, 2 * side + 1, side, sharey=True)
    for axis, labels, title in zip(
        axes[0], (truth, predicted.astype(float)), ("annotated", "predicted by the network")
    ):
        share = 100 * multilabel.co_occurrence(labels)
        texts = [["–" if np.isnan(percent) else f"{percent:.0f}" for percent in row] for row in share]
        picture = marks.matrix(axis, share, texts, style.RISING_MAP, style.SMALL, vmin=0, vmax=100)
        for row, column in np.argwhere(np.isnan(share)):
            axis.text(column + 0.5, row + 0.5, "–", ha="center", va="center", fontsize=style.SMALL)
        eyes = (labels == 1).sum(0)
        at = np.arange(len(codes)) + 0.5
        axis.set(title=title, xlabel="share that also has")
        axis.set_xticks(at, codes)
        axis.set_yticks(at, codes)
        for i, count in enumerate(eyes):
            axis.text(len(codes) + 0.05, i + 0.5, f"n {count}", va="center", fontsize=8, color=style.NEUTRAL)
    axes[0, 0].set_ylabel("eyes with")
    figure.colorbar(picture, ax=axes, label="share, %", shrink=0.8)
    return figure


@style.theme()
def decisions(decided: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Sensitivity and specificity of each decision with intervals; diamonds are what the paper prints, decision not stated.

    Args:
        decided: Result of :func:`drstudy.papers.lesions.tables.decisions`.
        names: Network to its label.
    """
    kinds = list(decided[["network", "rule"]].drop_duplicates().itertuples(index=False, name=None))
    texts = {kind: _decider(*kind, names) for kind in kinds}
    order = list(texts.values())
    keys = zip(decided["network"], decided["rule"])
    named = decided.assign(kind=[texts[key] for key in keys])
    columns = ["value", *marks.ENDS, "printed"]
    named[columns] = 100 * named[columns].astype(float)
    shown = list(dict.fromkeys(decided["decision"]))
    figure, axes = figures.new_figure(
        1, max(len(shown), 1), 5.2 * max(len(shown), 1) + 1, 0.5 * len(kinds) + 1.8, sharey=True
    )
    for axis, decision in zip(axes[0], shown):
        rows = named[(named["decision"] == decision) & named["metric"].isin(DECISION_MARKS)]
        for network, part in rows.groupby("network", sort=False):
            palette = dict.fromkeys(DECISION_MARKS, _colour(network))
            marks.points(axis, part, "kind", order, palette, "metric", markers=DECISION_MARKS, span=2 * APART)
        for metric, offset in zip(DECISION_MARKS, (-APART, APART)):
            printed = rows[(rows["metric"] == metric) & rows["printed"].notna()]
            at = [order.index(kind) + offset for kind in printed["kind"]]
            axis.plot(printed["printed"], at, "d", color=style.INK, markerfacecolor="none", zorder=4)
        axis.set(title=tables.DECISION_NAMES[decision], xlabel="%", xlim=(0, 102))
        axis.grid(axis="x", alpha=0.3)
    figure.supxlabel(
        "● sensitivity   ■ specificity   ◇ printed by the paper, for a decision that it does not name",
        fontsize=9,
    )
    return figure


def _decider(network: str, rule: str, names: Mapping[str, str]) -> str:
    """A network and its rule as the label of a row."""
    if network == tables.GRADES:
        return "five grades, sum of probabilities"
    return f"{names[network]}, {rule.replace('_', '-')}"


@style.theme()
def attention_matrix(
    table: pd.DataFrame,
    metric: str = "enrichment",
    conditions: Sequence[str] = ("predicted", "absent"),
    baselines: Sequence[str] = ("centre",),
) -> Figure:
    """How the map of each lesion (rows) lies on the mask of each (columns): value, interval, eyes in every cell.

    Cells with fewer than :data:`drstudy.show.heatmaps.FEWEST_SHOWN` eyes show their number in grey and no colour.

    Args:
        table: Result of :func:`drstudy.explain.measures.attention.confusion`.
        metric: ``enrichment`` and ``aupr_over_chance`` are coloured around chance, ``hit`` and ``heat`` from 0 up.
        conditions: One panel each.
        baselines: Which baselines follow as further rows, on all eyes.

    Raises:
        KeyError: If ``metric`` is none of these.
    """
    name, scale = _METRICS[metric]
    labels = list(dict.fromkeys(table["mask"]))
    blind = [
        row for row in dict.fromkeys(table["map"]) if row not in labels and row.split(" ")[0] in baselines
    ]
    rows = [*labels, *blind]
    width = 0.98 * len(labels) * len(conditions) + 2.6
    figure, axes = figures.new_figure(1, len(conditions), width, 0.62 * len(rows) + 1.7, sharey=True)
    panels = []
    for condition in conditions:
        cells = table[table["condition"].isin((condition, attention.ALL))]
        panels.append(cells.set_index(["map", "mask"]).reindex(pd.MultiIndex.from_product([rows, labels])))
    values = [
        (scale * cells[metric].where(cells["eyes"].fillna(0) >= heatmaps.FEWEST_SHOWN)).to_numpy(float)
        for cells in panels
    ]
    shown = np.concatenate(values)
    norm, colours = _scale(metric, shown[np.isfinite(shown)])
    for axis, condition, cells, found in zip(axes[0], conditions, panels, values):
        found = np.clip(
            found.reshape(len(rows), len(labels)), norm.vmin, norm.vmax
        )  # a logarithm has no colour for 0
        known = np.array([_value(cell, metric, scale) for cell in cells.to_dict("records")], dtype=object)
        picture = marks.matrix(axis, found, known.reshape(found.shape), colours, VALUE_SIZE, norm=norm)
        _beside_values(axis, found, cells, metric, scale)
        if blind:
            axis.axhline(len(labels), color=style.INK, linewidth=1)
        axis.set_xticks(np.arange(len(labels)) + 0.5, [f"{label} mask" for label in labels])
        axis.set_yticks(np.arange(len(rows)) + 0.5, [f"{row} map" for row in labels] + blind)
        axis.set_title(textwrap.fill(_PANELS[condition], 14 * len(labels)), fontsize=10)
    bar = figure.colorbar(picture, ax=axes[0], fraction=0.04, aspect=25, pad=0.02)
    bar.set_label(name)
    if metric == "enrichment":
        ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if norm.vmin <= tick <= norm.vmax]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
    return figure


def _beside_values(axes: Axes, values: np.ndarray, cells: pd.DataFrame, metric: str, scale: float) -> None:
    """Write interval and number of eyes below each value, or why there is none, and frame each lesion's own mask."""
    from matplotlib.patches import Rectangle

    tones = {text.get_position(): text.get_color() for text in axes.texts}
    for text in list(axes.texts):
        text.set_y(text.get_position()[1] - 0.22)
    for (row, column), cell in zip(np.ndindex(values.shape), cells.to_dict("records")):
        x, y = column + 0.5, row + 0.5
        centred = {"ha": "center", "va": "center", "color": tones.get((x, y), style.NEUTRAL)}
        if not np.isfinite(values[row, column]) and _eyes(cell):
            axes.text(x, y - 0.22, _value(cell, metric, scale), fontsize=VALUE_SIZE, **centred)
        if _eyes(cell):
            axes.text(
                x, y + 0.2, _below(cell, metric, scale), fontsize=style.SMALLEST, linespacing=1.1, **centred
            )
        else:
            blank = f"no heat in\n{int(cell['no_heat'])} eyes" if cell["no_heat"] > 0 else "no eye"
            axes.text(x, y, blank, fontsize=style.SMALLEST, **centred)
        if row == column:
            box = {"fill": False, "edgecolor": "black", "linewidth": 2}
            axes.add_patch(Rectangle((column + 0.03, row + 0.04), 0.94, 0.92, **box))


def _scale(metric: str, values: np.ndarray) -> tuple[object, str]:
    """Colours that are neutral at chance, or that begin at 0."""
    from matplotlib.colors import LogNorm, Normalize

    if metric == "enrichment":
        positive = values[values > 0]
        far = float(np.exp(np.abs(np.log(positive)).max())) if len(positive) else 1
        far = min(max(far, 2), 20)
        return LogNorm(1 / far, far), style.SIGNED_MAP
    far = float(np.abs(values).max(initial=0)) or 1
    if metric == "aupr_over_chance":
        return Normalize(-far, far), style.SIGNED_MAP
    return Normalize(0, far), style.RISING_MAP


def _eyes(cell: Mapping[str, float]) -> int:
    """Number of eyes behind a cell."""
    return 0 if pd.isna(cell["eyes"]) else int(cell["eyes"])


def _value(cell: Mapping[str, float], metric: str, scale: float) -> str:
    """The value of a cell; empty if no eye is behind it."""
    number, _, _ = intervals.of(cell, metric, scale)
    return intervals.number(number, DIGITS.get(metric, 1)) if _eyes(cell) else ""


def _below(cell: Mapping[str, float], metric: str, scale: float) -> str:
    """Interval and number of eyes of a cell."""
    _, lo, hi = intervals.of(cell, metric, scale)
    interval = "no interval" if np.isnan(lo) else intervals.between(lo, hi, DIGITS.get(metric, 1))
    return f"{interval}\n{_eyes(cell)} eyes"


def choose_outlined(agreements: pd.DataFrame) -> pd.DataFrame:
    """Examples of outlines, right and wrong, by a rule and never by hand.

    - ``best``: present and outlined, the highest Dice.
    - ``typical``: present and outlined, the median Dice (the lower of two).
    - ``misplaced``: present and outlined, no outline touches a true lesion of its kind; the highest probability.
    - ``false alarm``: absent and outlined; the highest probability.
    - ``missed``: present without an outline; the lowest probability.

    No eye is shown twice; ties go to the first ``image_id`` and label. The order of the rows does not matter.

    Args:
        agreements: Result of :func:`drstudy.explain.measures.outlines.agreement`, of several eyes, with ``image_id`` and
            ``probability``.

    Returns:
        One row per case that there is: ``case``, ``image_id``, ``label``, ``probability``, ``dice``, ``status``.
    """
    eyes = agreements.dropna(subset="present").sort_values(["image_id", "label"], ignore_index=True)
    present, outlined = eyes["present"].astype(bool), eyes["status"] == outlines.OUTLINED
    placed = eyes[present & outlined].sort_values("dice", ascending=False, kind="stable")
    astray = placed[placed["outlines_right"] == 0]
    orders = {
        "best": placed,
        "typical": placed.iloc[np.argsort(np.abs(np.arange(len(placed)) - len(placed) // 2), kind="stable")],
        "misplaced": astray.sort_values("probability", ascending=False, kind="stable"),
        "false alarm": eyes[~present & outlined].sort_values("probability", ascending=False, kind="stable"),
        "missed": eyes[present & ~outlined].sort_values("probability", kind="stable"),
    }
    rows: list[dict] = []
    for case, among in orders.items():
        among = among[~among["image_id"].isin([row["image_id"] for row in rows])]
        rows += [{"case": case, **row} for row in among.head(1).to_dict("records")]
    return pd.DataFrame(rows).reindex(columns=["case", "image_id", "label", "probability", "dice", "status"])


def outlined(
    cases: pd.DataFrame,
    images: Sequence[np.ndarray],
    masks: Sequence[Masks],
    found: Sequence[Sequence[Outline]],
    labels: Sequence[str],
) -> Figure:
    """A page of eyes: photograph, true lesions and predicted outlines on grey; the lesion of the case in a wide line.

    Args:
        cases: Result of :func:`choose_outlined`.
        images: (S, S, 3) uint8 RGB, one per case.
        masks: Masks of each eye.
        found: Outlines of the eyes, of :func:`drstudy.explain.measures.outlines.trace`.
        labels: Which lesions are drawn.
    """
    rows = max(len(cases), 1)
    figure, axes = figures.new_figure(rows, 3, 7, 2.35 * rows + 0.6)
    drawn: set[str] = set()
    for row, case in enumerate(cases.to_dict("records")):
        titles = ("photograph", "true lesions", "predicted outlines") if row == 0 else ("", "", "")
        grey = np.repeat((images[row] @ LUMINANCE)[..., None] / 255, 3, axis=2)
        for axis, picture, title in zip(axes[row], (images[row], grey, grey), titles):
            heatmaps.show_picture(axis, picture, title)
        axes[row, 0].set_ylabel(_caption(case), fontsize=9)
        size = len(images[row])
        for label in labels:
            mask = masks[row].get(label)
            wide = label == case["label"]
            if mask is not None and (np.asarray(mask) >= SHOWN_FROM).any():
                truth = outlines.borders(np.asarray(mask) >= SHOWN_FROM)
                _lines(axes[row, 1], [ring for _, rings in truth for ring in rings], label, wide)
                drawn.add(label)
            mine = [one for one in found[row] if one.label == label]
            _lines(axes[row, 2], [ring for one in mine for ring in one.rings], label, wide)
            drawn |= {one.label for one in mine}
        for axis in axes[row]:
            axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
        if not any(one.label == case["label"] for one in found[row]):
            note = f"no outline of {case['label']}: {case['status']}"
            box = {"facecolor": "black", "edgecolor": "none", "alpha": 0.75, "pad": 2}
            look = {"ha": "center", "color": "white", "fontsize": 8.5, "bbox": box}
            axes[row, 2].text(0.5, 0.02, note, transform=axes[row, 2].transAxes, **look)
    if cases.empty:
        for axis in axes.flat:
            axis.set_axis_off()
        axes[0, 1].text(0.5, 0.5, "no eye with masks", ha="center", transform=axes[0, 1].transAxes)
    _legend(figure, [label for label in labels if label in drawn])
    return figure


def _lines(axes: Axes, rings: Sequence[np.ndarray], label: str, wide: bool) -> None:
    """Closed lines with a dark rim; rings are in pixel edges, pictures are drawn around pixel centres."""
    from matplotlib import patheffects

    width = 1.8 if wide else 0.8
    for ring in rings:
        x, y = np.concatenate([ring, ring[:1]]).T - 0.5
        rim = [patheffects.withStroke(linewidth=width + 1, foreground="black")]
        axes.plot(x, y, color=style.LESIONS[label].colour, linewidth=width, path_effects=rim)


def _caption(case: Mapping[str, object]) -> str:
    """``best: HE`` with the probability, and Dice where there is one."""
    dice = "" if pd.isna(case["dice"]) else f", Dice {case['dice']:.2f}"
    return f"{case['case']}: {case['label']}\np = {case['probability']:.2f}{dice}"


def _legend(figure: Figure, labels: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    if labels:
        lines = [Line2D([], [], color=style.LESIONS[label].colour, linewidth=2) for label in labels]
        names = [f"{label}: {style.LESIONS[label].name}" for label in labels]
        look = style.LEGEND_ON_PHOTOGRAPHS | {"fontsize": 9}
        figure.legend(lines, names, loc="outside lower center", ncols=min(len(labels), 3), **look)
