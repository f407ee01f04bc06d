"""Tables of the main study alone: its Table 2 beside ours, its arithmetic, and the deviations of each recipe.

The paper's Table 2 (docs/sources.md, A5) prints three numbers per network. It does not state which grades count as positive, nor on which
images they were computed. Here every number states its cut, and the paper's numbers stand beside them as printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from drstudy.evaluation import metrics
from drstudy.papers.transfer import params
from drstudy.show import map_tables, style, tables
from drstudy.show.tables import ComparedRun

PAPER_SOURCE = "Nian & Jin 2025, Table 2 (positive cut and test set not stated)"

PAPER_TABLE2 = pd.DataFrame(
    [("resnet101", 0.29, 0.89, 0.76), ("vgg16", 0.06, 0.96, 0.74), ("densenet121", 0.77, 0.913, 0.883)],
    columns=["backbone", "sensitivity", "specificity", "accuracy"],
)
"""The paper's Table 2 as shares; printed 29 %, 89 %, 76 % / 6 %, 96 %, 74 % / 77 %, 91.3 %, 88.3 %."""

PAPER_GRADE_COUNTS = (25810, 2443, 5292, 873, 708)
"""Images of grades 0 to 4 in the paper's data, the Kaggle training set of 35,126 (docs/sources.md, A1)."""

PAPER_TEST_IMAGES = 7025
"""A fifth of them, its test share (docs/sources.md, A1)."""

POSITIVE = {f"ge{cut}": f"grade ≥ {cut}" for cut in metrics.CUTS} | {
    "macro": "each grade against the rest, mean"
}
"""What counts as positive, by the last part of a metric's name."""

NOT_STATED = "not stated by the paper"
QUANTITIES = ("sensitivity", "specificity", "accuracy")


def table2(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 2 for every cut, and below it the paper's own rows.

    Args:
        table: Result of :func:`drstudy.show.tables.scores`.

    Returns:
        Long, with ``positive`` (what counts as positive), its ``prevalence`` among the test images (none for
        the mean over grades), ``quantity`` (sensitivity, specificity or accuracy) and ``source`` instead of
        ``metric``.
    """
    prevalence = table.drop_duplicates("metric").set_index("metric")["value"]
    ours = [
        table[table["metric"] == f"{quantity}_{key}"].assign(
            source="this study",
            positive=POSITIVE[key],
            prevalence=prevalence.get(f"prevalence_{key}", np.nan),
            quantity=quantity,
        )
        for key, quantity in product(POSITIVE, QUANTITIES)
    ]
    paper = PAPER_TABLE2.melt("backbone", QUANTITIES, "quantity").assign(
        source=PAPER_SOURCE,
        positive=NOT_STATED,
        label=lambda rows: rows["backbone"].map(style.BACKBONE_NAMES) + ", as printed",
    )
    first = ["positive", "prevalence", "source", "label", "backbone", "seed", "quantity", "value", "lo", "hi"]
    return pd.concat([*ours, paper], ignore_index=True)[[*first, "n_valid", "resamples"]]


def table2_display(long: pd.DataFrame) -> pd.DataFrame:
    """:func:`table2` for readers: one row per network and cut, percentages with 95 % intervals."""
    share = (100 * long["prevalence"]).map(": {:.1f} % of images".format, na_action="ignore").fillna("")
    rows = long.assign(text=tables.texts(long, 1, scale=100), positive=long["positive"] + share)
    found = tables.wide(rows, ["positive", "label"], "quantity")
    return found[list(QUANTITIES)].rename(columns="{}, %".format)


def recipe_deviations(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """Where each recipe is not the paper's: one row per setting, one column per run, ``=`` where it is the paper's.

    What is compared is the recipe that really ran and the weights that were really used, not what was asked for.
    """
    found = {run.label: params.deviations(run.record.recipe) for run in runs if run.record}
    settings = [name for name in params.PAPER if any(name in differing for differing in found.values())]
    columns = {"paper": [str(params.PAPER[name]) for name in settings]}
    for label, differing in found.items():
        columns[label] = [str(differing[name][0]) if name in differing else "=" for name in settings]
    return pd.DataFrame(columns, index=settings)


def paper_arithmetic() -> pd.DataFrame:
    """Which positive cut the paper's rows could have, by their own arithmetic (docs/sources.md, A5).

    Returns:
        One row per network: ``implied`` share of positives, its range from the rounding of print (``lo``,
        ``hi``), and for each cut K ``sd_geK``, the distance of that range from the cut's share in the paper's
        data in standard deviations of a random test set (0 inside the range), and ``accuracy_geK``, the
        accuracy that its sensitivity and specificity imply there. ``nearest`` is the cut of least distance.
    """
    shares = np.cumsum(PAPER_GRADE_COUNTS[::-1])[::-1] / sum(PAPER_GRADE_COUNTS)
    rows = []
    for row in PAPER_TABLE2.itertuples():
        printed = (row.sensitivity, row.specificity, row.accuracy)
        corners = product(*((number - _half_unit(number), number + _half_unit(number)) for number in printed))
        rates = [metrics.implied_prevalence(*corner) for corner in corners]
        implied = metrics.implied_prevalence(*printed)
        found = {"backbone": row.backbone, "implied": implied, "lo": min(rates), "hi": max(rates)}
        for cut in metrics.CUTS:
            p = shares[cut]
            sd = np.sqrt(p * (1 - p) / PAPER_TEST_IMAGES)
            found[f"sd_ge{cut}"] = max(found["lo"] - p, p - found["hi"], 0) / sd
            found[f"accuracy_ge{cut}"] = p * row.sensitivity + (1 - p) * row.specificity
        found["nearest"] = POSITIVE[
            min((f"ge{cut}" for cut in metrics.CUTS), key=lambda key: found[f"sd_{key}"])
        ]
        rows.append(found)
    return pd.DataFrame(rows)


def paper_at(cut: int) -> pd.DataFrame:
    """The paper's numbers under the names that ours have at a cut: ``backbone, metric, value``.

    For figures that show both; that the paper meant this cut is an assumption, so say it beside the figure.
    """
    long = PAPER_TABLE2.melt("backbone", QUANTITIES, "metric")
    return long.assign(metric=long["metric"] + f"_ge{cut}")


def findings(summary: pd.DataFrame, layer: str, by_outcome: pd.DataFrame, by_miss: pd.DataFrame) -> list[str]:
    """The paper's statements about its maps (docs/sources.md, A6), each with what is measured here, as computed sentences.

    Args:
        summary: Result of :func:`drstudy.explain.measures.localisation.summarise` over all eyes.
        layer: At which layer.
        by_outcome, by_miss: Result of :func:`drstudy.explain.measures.localisation.summarise` with :func:`drstudy.explain.measures.localisation.outcome` and :func:`drstudy.explain.measures.localisation.missed` as groups; may be
            empty.
    """

    def measured(table: pd.DataFrame, region: str, group: str) -> str:
        where = (table["kind"] == "mask") & (table["layer"] == layer)
        rows = table[where & (table["region"] == region) & (table["group"] == group)].to_dict("records")
        if not rows:
            return f"there is no eye of the group '{group}'"
        row = rows[0]
        about = f"group '{group}', {row['eyes']} eyes"
        if not row["eyes"]:
            return f"nothing could be measured ({about}, {row['not_annotated']} without annotation)"
        heat, times = map_tables.share(row, "heat", 100), map_tables.share(row, "enrichment", 1)
        return (
            f"{heat} % of the heat on {100 * row['area']:.1f} % of the area, {times} times chance ({about})"
        )

    lesion, disc, beside = (measured(summary, region, "all") for region in ("lesion", "disc", "beside disc"))
    miss, right = (
        measured(by_miss, "vessel", "severe predicted normal"),
        measured(by_outcome, "vessel", "right"),
    )
    return [
        f"Paper: the heat covers lesions only partly. Here: {lesion}.",
        f"Paper: it lies beside the disc. Here, beside the disc: {beside}; on the disc: {disc}.",
        "Paper: vessels are used where severe disease is predicted normal. "
        f"Here, on vessels: {miss}; and for comparison {right}.",
    ]


def _half_unit(share: float) -> float:
    """Half of the last printed place of a percentage: 0.29 is 29 %, so 0.005; 0.913 is 91.3 %, so 0.0005."""
    return 0.005 if round(100 * share, 6) == round(100 * share) else 0.0005
