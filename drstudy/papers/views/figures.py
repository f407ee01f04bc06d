"""Figure of scores by number of views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from drstudy.papers.views.tables import LOWER_IS_BETTER, METRICS
from drstudy.papers.views.training import label
from drstudy.show import figures, marks, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style.theme()
def by_views(table: pd.DataFrame, colour: str) -> Figure:
    """Metrics by number of views (above) and their paired differences to fresh views (below), with 95 % intervals.

    Args:
        table: Result of :func:`drstudy.papers.views.tables.compare`.
        colour: Colour of the backbone.
    """
    names = [name for name in METRICS if name in set(table["metric"])]
    order = [label(views) for views in table["views"].unique()]
    table = table.assign(group=table["views"].map(label))
    figure, axes = figures.new_figure(2, len(names), 2.7 * len(names), 5.0, sharex=True)
    for column, name in zip(axes.T, names):
        for ax, what in zip(column, ("score", "difference")):
            rows = table[(table["metric"] == name) & (table["what"] == what)]
            marks.points(ax, rows, "group", order, dict.fromkeys(order, colour), vertical=True)
            at = [order.index(group) for group in rows["group"]]
            for end in ("least", "greatest"):
                ax.plot(at, rows[end], "_", color=style.INK, markersize=9)
            ax.grid(axis="y", alpha=0.3)
        column[0].set_title(
            METRICS[name] + (" (lower is better)" if name in LOWER_IS_BETTER else ""), fontsize=10
        )
        column[1].axhline(0, color=style.NEUTRAL, linestyle=":")
        column[1].set_xlabel("stored views per image")
    axes[0, 0].set_ylabel("score")
    axes[1, 0].set_ylabel("minus fresh views")
    figure.supxlabel("● mean over seeds, 95 % interval over patients   – least and greatest seed", fontsize=9)
    return figure
