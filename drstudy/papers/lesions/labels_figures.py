"""Figures of lesions as labels: learning, scores by label, labels that come together, decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.evaluation import multilabel
from drstudy.papers.lesions import tables
from drstudy.show import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _colour(network: str) -> str:
    return figures.NEUTRAL if network == tables.GRADES else figures.backbone_colour(network)


def learning_curves(history: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Loss and mean AUC by epoch on validation, one line a network.

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
    axes[0, 1].axhline(0.5, color=figures.NEUTRAL, linestyle=":")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def label_scores(scored: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """AUC and average precision by label, filled on all eyes, hollow among those of grade 2 or more; ticks are chance.

    Args:
        scored: Of :func:`drstudy.papers.lesions.tables.by_label`.
        names: Network to its label.
    """
    labels = [label for label in dict.fromkeys(scored["label"]) if label != "all labels"]
    networks = list(dict.fromkeys(scored["network"]))
    figure, axes = figures.new_figure(1, 2, 9.5, 0.3 * len(labels) * len(networks) + 1.9, sharey=True)
    height = 0.7 / (2 * len(networks))
    for axis, metric, title in zip(axes[0], ("auc", "ap"), ("AUC", "average precision")):
        for number, network in enumerate(networks):
            for step, group in enumerate(tables.GROUPS):
                rows = scored[(scored["network"] == network) & (scored["group"] == group)]
                rows = rows[rows["metric"] == metric].set_index("label").reindex(labels)
                y = np.arange(len(labels)) + (2 * number + step + 0.5) * height - 0.35
                error = np.nan_to_num(
                    np.clip([rows["value"] - rows["lo"], rows["hi"] - rows["value"]], 0, None)
                )
                look = {"color": _colour(network), "markerfacecolor": None if group == "all" else "white"}
                name = f"{names[network]}, {tables.GROUPS[group]}"
                axis.errorbar(
                    rows["value"], y, xerr=error, fmt="o", markersize=5, capsize=2, label=name, **look
                )
                share = rows["present"] / (rows["present"] + rows["absent"])
                chance = (share if metric == "ap" else share * 0 + 0.5).where(rows["value"].notna())
                axis.plot(chance, y, "|", color=figures.NEUTRAL, markersize=9)
        axis.set(xlabel=title, xlim=(0, 1.02))
        axis.grid(axis="x", alpha=0.3)
    present = scored[scored["group"] == "all"].drop_duplicates("label").set_index("label")
    texts = [f"{label} ({present.loc[label, 'present']})" for label in labels]
    axes[0, 0].set_yticks(range(len(labels)), texts)
    axes[0, 0].set(ylim=(len(labels) - 0.5, -0.5), ylabel="label (present in all eyes)")
    handles, said = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, said, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def co_occurrence(truth: np.ndarray, called: np.ndarray, codes: tuple[str, ...]) -> Figure:
    """Of the eyes with the row's lesion, how many also have the column's: as annotated, and as called.

    Args:
        truth: (N, L) 1, 0 or NaN.
        called: (N, L) bool.
        codes: L names.
    """
    side = 0.72 * len(codes) + 1.5
    figure, axes = figures.new_figure(1, 2, 2 * side + 1, side, sharey=True)
    for axis, labels, title in zip(
        axes[0], (truth, called.astype(float)), ("annotated", "called by the network")
    ):
        share = 100 * multilabel.co_occurrence(labels)
        picture = axis.imshow(share, cmap="cividis", vmin=0, vmax=100)
        for (i, j), percent in np.ndenumerate(share):
            text = "–" if np.isnan(percent) else f"{percent:.0f}"
            tone = "black" if np.isnan(percent) or percent > 55 else "white"
            axis.text(j, i, text, ha="center", va="center", fontsize=9, color=tone)
        eyes = (labels == 1).sum(0)
        axis.set(title=title, xlabel="also has", xticks=range(len(codes)), xticklabels=codes)
        axis.set_yticks(range(len(codes)), codes)
        for i, count in enumerate(eyes):
            axis.text(len(codes) - 0.45, i, f"n {count}", va="center", fontsize=8, color=figures.NEUTRAL)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    axes[0, 0].set_ylabel("of the eyes with")
    figure.colorbar(picture, ax=axes, label="share, %", shrink=0.8)
    return figure


def decisions(decided: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Sensitivity and specificity of each decision with intervals; diamonds are what the paper prints, decision not stated.

    Args:
        decided: Of :func:`drstudy.papers.lesions.tables.decisions`.
        names: Network to its label.
    """
    kinds = decided[["network", "rule"]].drop_duplicates().to_dict("records")
    shown = list(dict.fromkeys(decided["decision"]))
    figure, axes = figures.new_figure(
        1, max(len(shown), 1), 5.2 * max(len(shown), 1) + 1, 0.5 * len(kinds) + 1.8, sharey=True
    )
    for axis, decision in zip(axes[0], shown):
        for y, kind in enumerate(kinds):
            rows = decided[(decided["decision"] == decision) & (decided["network"] == kind["network"])]
            rows = rows[rows["rule"] == kind["rule"]].set_index("metric")
            for offset, name, mark in ((-0.13, "sensitivity", "o"), (0.13, "specificity", "s")):
                row = 100 * rows.loc[name, ["value", "lo", "hi", "printed"]].astype(float)
                colour = _colour(kind["network"])
                axis.plot([row["lo"], row["hi"]], [y + offset] * 2, color=colour, linewidth=2)
                axis.plot(row["value"], y + offset, mark, color=colour, markersize=6)
                axis.plot(
                    row["printed"], y + offset, "d", color="black", markerfacecolor="none", markersize=6
                )
        axis.set(title=tables.DECISION_NAMES[decision], xlabel="%", xlim=(0, 102))
        axis.grid(axis="x", alpha=0.3)
    texts = [
        "five grades, sum of probabilities"
        if kind["network"] == tables.GRADES
        else f"{names[kind['network']]}, {kind['rule'].replace('_', '-')}"
        for kind in kinds
    ]
    axes[0, 0].set_yticks(range(len(kinds)), texts)
    axes[0, 0].set_ylim(len(kinds) - 0.5, -0.5)
    figure.supxlabel(
        "● sensitivity   ■ specificity   ◇ printed by the paper, for a decision that it does not name",
        fontsize=9,
    )
    return figure
