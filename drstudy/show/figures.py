"""Figures that several notebooks and papers draw: one function per figure, which returns its Figure.

Colours and names come from :mod:`drstudy.show.style`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.core.names import GRADE_NAMES
from drstudy.evaluation import metrics
from drstudy.show import intervals, marks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from drstudy.show.tables import ComparedRun

CHANCE = {"qwk": 0.0, "balanced_accuracy": 0.2, "macro_auc": 0.5, "sensitivity_macro": 0.2} | {
    f"auc_ge{cut}": 0.5 for cut in metrics.CUTS
}
"""Score of guessing, where it does not depend on how often each grade occurs."""

DPI = 72
"""Of figures inside notebooks; :meth:`drstudy.core.records.Run.figure` writes files at its own resolution."""


def new_figure(
    rows: int = 1, columns: int = 1, width: float = 6.0, height: float = 4.0, **options
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes in the theme of :mod:`drstudy.show.style`; a notebook shows it once, where it is returned.

    Args:
        rows, columns: Numbers of rows and columns of axes.
        width, height: Size of the figure, inches.
        options: For :func:`matplotlib.pyplot.subplots`, such as ``sharex``.

    Returns:
        The Figure and a (rows, columns) array of Axes, always two-dimensional.
    """
    import matplotlib.pyplot as plt

    with style.theme():
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height), dpi=DPI, squeeze=False, layout="constrained", **options
        )
        plt.close(figure)
    return figure, axes


@style.theme()
def confusion_matrices(
    matrices: Mapping[str, np.ndarray], columns: int = 3, rows: str = "observed grade"
) -> Figure:
    """Confusion matrices side by side: counts, and the share of each row as colour and percentage.

    Args:
        matrices: Title to (5, 5) counts, predicted grades in columns.
        columns: Matrices in a row of the figure.
        rows: What the rows are.
    """
    figure, axes = panels(len(matrices), columns, 3.6, 4.1)
    for ax, (title, counts) in zip(axes.flat, matrices.items()):
        counts = np.asarray(counts)
        true = counts.sum(axis=1, keepdims=True)
        share = np.divide(100 * counts, true, out=np.zeros(counts.shape), where=true > 0)
        texts = [
            [f"{count}\n{percent:.0f} %" if row.any() else "–" for count, percent in zip(row, percents)]
            for row, percents in zip(counts, share)
        ]
        cells = marks.matrix(ax, share, texts, style.SHARES_MAP, vmin=0, vmax=100, square=True)
        ax.set(title=textwrap.fill(title, 30), xlabel="predicted grade", ylabel=rows)
    figure.colorbar(cells, ax=axes, label=f"share of the {rows}, %", shrink=0.7)
    return figure


@style.theme()
def roc_curves(
    runs: Sequence[ComparedRun], scores: pd.DataFrame, paper: pd.DataFrame | None = None
) -> Figure:
    """ROC curves of the four cuts, one panel per cut, with the AUC and its 95 % interval in the legend.

    A filled marker is the decision that the tables count (the grade of greatest probability), which need not
    lie on the curve. Runs of one backbone share its colour and differ in line style.

    Args:
        runs: The compared networks.
        scores: Result of :func:`drstudy.show.tables.scores`.
        paper: ``backbone, sensitivity, specificity`` as printed by a paper that does not state the cut, so they are drawn
            in every panel.
    """
    from matplotlib.lines import Line2D

    figure, axes = new_figure(2, 2, 8.5, 9.5)
    lines = {}
    for ax, cut in zip(axes.flat, metrics.CUTS):
        lines |= _roc_panel(ax, cut, runs, scores.set_index(["run", "metric"]))
        for row in () if paper is None else paper.itertuples():
            look = {"color": style.backbone_colour(row.backbone), "markerfacecolor": "none"}
            ax.plot(100 * (1 - row.specificity), 100 * row.sensitivity, "D", **look)
    lines["decision counted in the tables"] = Line2D([], [], color=style.NEUTRAL, marker="o", linestyle="")
    if paper is not None:
        hollow = {"marker": "D", "linestyle": "", "markerfacecolor": "none"}
        lines["printed by the paper, cut not stated"] = Line2D([], [], color=style.NEUTRAL, **hollow)
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=2)
    return figure


def _roc_panel(ax: Axes, cut: int, runs: Sequence[ComparedRun], value: pd.DataFrame) -> dict[str, Line2D]:
    """Draw the curves of one cut; return the line of each run, by its label."""
    from sklearn.metrics import roc_curve

    lines = {}
    ax.plot([0, 100], [0, 100], ":", color=style.NEUTRAL, label="0.50 (chance)")
    for run, dashes in zip(runs, _line_styles([run.backbone for run in runs])):
        grade, p, _ = metrics.arrays(run.predictions)
        positive, score = metrics.binary_problems(grade, p)[f"ge{cut}"]
        if positive.all() or not positive.any():
            continue
        fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
        auc = value.loc[(run.name, f"auc_ge{cut}"), ["value", "lo", "hi"]]
        colour, label = style.backbone_colour(run.backbone), intervals.text(*map(float, auc))
        (lines[run.label],) = ax.plot(100 * fpr, 100 * tpr, color=colour, linestyle=dashes, label=label)
        sensitivity, specificity = (
            value.loc[(run.name, f"{q}_ge{cut}"), "value"] for q in ("sensitivity", "specificity")
        )
        ax.plot(100 * (1 - specificity), 100 * sensitivity, "o", color=colour, markeredgecolor="white")
    share = 100 * np.mean(positive)
    ax.set(title=f"grade ≥ {cut} ({share:.1f} % of images)", aspect="equal", xlim=(-2, 102), ylim=(-2, 102))
    ax.set(xlabel="1 − specificity, %", ylabel="sensitivity, %")
    if 0 < share < 100:
        look = {"fontsize": style.SMALLEST, "title_fontsize": style.SMALLEST}
        ax.legend(loc="lower right", title="AUC [95 % interval]", **look)
    else:
        ax.text(50, 60, "undefined: one class only", ha="center")
    return lines


@style.theme()
def metric_dots(
    scores: pd.DataFrame, columns: Mapping[str, str], paper: pd.DataFrame | None = None, per_row: int = 3
) -> Figure:
    """Metrics by run as dots with 95 % intervals, one panel per metric; hollow diamonds are the paper's values.

    Args:
        scores: Long: ``label, backbone, metric, value, lo, hi``; a run without backbone is a baseline.
        columns: Metrics and their headings.
        paper: Long: ``backbone, metric, value``; drawn in the rows of that backbone.
        per_row: Panels in a row of the figure.
    """
    runs = scores[["label", "backbone"]].drop_duplicates(ignore_index=True)
    palette = {run.label: _colour(run.backbone) for run in runs.itertuples()}
    figure, axes = panels(len(columns), per_row, 2.9, 0.34 * len(runs) + 1.1, extra=2.6, sharey=True)
    for ax, (metric, heading) in zip(axes.flat, columns.items()):
        if metric in CHANCE:
            ax.axvline(CHANCE[metric], linestyle=":", color=style.NEUTRAL)
        marks.points(ax, scores[scores["metric"] == metric], "label", list(palette), palette)
        for y, run in enumerate(runs.itertuples()) if paper is not None else ():
            printed = paper[(paper["backbone"] == run.backbone) & (paper["metric"] == metric)]["value"]
            look = {"color": palette[run.label], "markerfacecolor": "none", "markersize": 8}
            ax.plot(printed, [y] * len(printed), "D", **look)
        ax.set_xlabel(heading)
        ax.grid(axis="x")
    notes = ["··· chance"] if CHANCE.keys() & columns.keys() else []
    notes += ["◇ printed by the paper"] if paper is not None else []
    figure.supxlabel("   ".join(["● this study, 95 % interval", *notes]), fontsize=style.SMALL)
    return figure


def _colour(backbone: str) -> str:
    """The colour of a backbone, or of a baseline, which has none."""
    return style.backbone_colour(backbone) if backbone else style.NEUTRAL


@style.theme()
def loss_curves(
    histories: Mapping[str, pd.DataFrame], colours: Sequence[str], smoothing: float = 0.9, columns: int = 3
) -> Figure:
    """Loss at every training step, raw (light) and smoothed (dark), and after each epoch on validation.

    As the paper's figures 1 to 3. Smoothing is TensorBoard's: an exponential moving average without bias at
    the start.

    Args:
        histories: Title to a ``history.csv``: ``epoch, step, loss, val_loss``; ``val_loss`` in the last row
            of an epoch.
        colours: One per history.
        smoothing: Weight of the past, 0 to below 1.
        columns: Panels in a row of the figure.
    """
    figure, axes = panels(len(histories), columns, 4.2, 3.2, sharey=True)
    for ax, (title, history), colour in zip(axes.flat, histories.items(), colours):
        ax.plot(
            history["step"], history["loss"], color=colour, alpha=0.3, linewidth=0.8, label="training, raw"
        )
        smooth = smoothed(history["loss"], smoothing)
        ax.plot(history["step"], smooth, color=colour, linewidth=1.8, label="training, smoothed")
        ends = history.dropna(subset="val_loss")
        ax.plot(ends["step"], ends["val_loss"], "k.--", linewidth=1, label="validation, each epoch")
        ax.axhline(np.log(5), linestyle=":", color=style.NEUTRAL, label="equal probabilities (ln 5)")
        ax.set(title=textwrap.fill(title, 34), xlabel="training step (batch)")
    axes[0, 0].set_ylim(
        bottom=0
    )  # of all panels, when all are drawn: set earlier, the first would cut off the others
    for ax in axes[:, 0]:
        ax.set_ylabel("cross-entropy, nats")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2 * min(2, len(histories)))
    return figure


def smoothed(values: pd.Series, smoothing: float) -> pd.Series:
    """The smoothing of TensorBoard: s_i = sum_j w^(i-j) x_j / sum_j w^(i-j), with w the weight of the past."""
    return values.ewm(alpha=1 - smoothing, adjust=True).mean()


@style.theme()
def recall_by_grade(scores: pd.DataFrame) -> Figure:
    """Recall of each grade as grouped bars with 95 % intervals, one bar per label in each group.

    Args:
        scores: Long: ``label, metric, value, lo, hi``, of which ``recall_grade0`` to ``recall_grade4`` are
            drawn. With a column ``backbone`` bars take its colour, further runs of one backbone hatched; else those of
            :func:`drstudy.show.style.series_colours`.
    """
    labels = list(scores["label"].unique())
    if "backbone" in scores:
        backbones = list(scores.drop_duplicates("label")["backbone"])
        palette = {label: _colour(name) for label, name in zip(labels, backbones)}
    else:
        backbones, palette = labels, dict(zip(labels, style.series_colours(labels)))
    repeats = [backbones[:place].count(name) for place, name in enumerate(backbones)]
    hatches = {label: ("", "//", "..", "xx")[times % 4] for label, times in zip(labels, repeats)}
    grades = [f"recall_grade{grade}" for grade in metrics.GRADES]
    recall = scores[scores["metric"].isin(grades)].astype(dict.fromkeys(("value", *marks.ENDS), float))
    recall = recall.assign(**{name: 100 * recall[name] for name in ("value", *marks.ENDS)})
    figure, axes = new_figure(1, 1, 8.5, 3.8)
    ax = axes[0, 0]
    marks.bars(ax, recall, "metric", grades, palette, "label", hatches=hatches)
    known = recall.dropna(subset="value").set_index(["label", "metric"]).index
    for label, row in zip(labels, marks.places(len(grades), len(labels))):
        for grade, at in zip(grades, row):
            if (label, grade) not in known:
                ax.text(at, 1, "–", ha="center")
    ax.set_xticks(range(5), [f"{g}\n{name}" for g, name in enumerate(GRADE_NAMES)])
    ax.set(xlabel="true grade", ylabel="recall, % (95 % interval)", ylim=(0, 103))
    figure.legend(loc="outside upper center", ncols=min(2, len(labels)))
    return figure


def panels(
    count: int, columns: int, width: float, height: float, extra: float = 0.6, **options
) -> tuple[Figure, np.ndarray]:
    """A figure of equal panels, blank where none is left.

    Args:
        count: Number of panels.
        columns: Panels in a row of the figure, at most.
        width, height: Size of a panel, inches.
        extra: Further width of the figure, inches.
        options: Arguments of :func:`matplotlib.pyplot.subplots`, such as ``sharey``.

    Returns:
        As :func:`new_figure`.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, width * columns + extra, height * rows, **options)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, axes


def _line_styles(backbones: Sequence[str]) -> list[str | tuple]:
    """Solid for the first run of a backbone, other styles for further ones."""
    styles = ("-", "--", "-.", (0, (1, 1)))
    return [styles[backbones[:i].count(name) % len(styles)] for i, name in enumerate(backbones)]


@style.theme()
def reliability_curves(
    curves: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], colours: Sequence[str]
) -> Figure:
    """Observed share against predicted probability, one panel per network: hollow before temperature scaling, filled after.

    Args:
        curves: Title to two tables of :func:`drstudy.evaluation.calibration.reliability`, before and after. The area of a
            marker grows with the images of its bin.
        colours: One per network.
    """
    figure, axes = panels(len(curves), 3, 3.4, 3.4, sharex=True, sharey=True)
    for ax, (title, (before, after)), colour in zip(axes.flat, curves.items(), colours):
        ax.plot([0, 100], [0, 100], ":", color=style.NEUTRAL)
        most = max(before["images"].max(), after["images"].max())
        for table, face in ((before, "none"), (after, colour)):
            size = 8 + 90 * table["images"] / most
            ax.scatter(100 * table["said"], 100 * table["seen"], size, edgecolors=colour, facecolors=face)
            ax.plot(100 * table["said"], 100 * table["seen"], color=colour, linewidth=0.8, alpha=0.5)
        ax.set(
            title=textwrap.fill(title, 30),
            xlabel="predicted probability, %",
            aspect="equal",
            xlim=(-4, 104),
            ylim=(-4, 104),
        )
    for ax in axes[:, 0]:
        ax.set_ylabel("observed share, %")
    figure.supxlabel(
        "○ as trained   ● temperature fitted on validation   ··· perfect calibration", fontsize=style.SMALL
    )
    return figure


@style.theme()
def decision_curves(curves: Mapping[str, pd.DataFrame], colours: Sequence[str]) -> Figure:
    """Net benefit against the referral threshold, with 95 % bands; dashed is referring all, 0 is referring none.

    Args:
        curves: Label to a table of :func:`drstudy.evaluation.calibration.decision_curve`, all of the same images.
        colours: One per network.
    """
    figure, axes = new_figure(1, 1, 8.0, 4.0)
    ax = axes[0, 0]
    for (label, table), colour in zip(curves.items(), colours):
        at = 100 * table["threshold"]
        ax.plot(at, 100 * table["value"], color=colour, label=label)
        ax.fill_between(at, 100 * table["lo"], 100 * table["hi"], color=colour, alpha=0.15, linewidth=0)
    ax.plot(at, 100 * table["refer_all"], "--", color=style.NEUTRAL, label="refer all")
    ax.axhline(0, color=style.NEUTRAL, linewidth=1, label="refer none")
    top = 100 * max(table["hi"].max() for table in curves.values())
    ax.set(xlabel="referral threshold, %", ylabel="net benefit, per 100 eyes", ylim=(-0.25 * top, 1.1 * top))
    figure.legend(loc="outside upper center", ncols=min(2, len(curves) + 2))
    return figure
