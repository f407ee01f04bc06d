"""Tables of notebook 20: what readers see of the comparison, and what the papers claim beside what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.core.names import LESIONS
from drstudy.core.records import Record
from drstudy.explain.measures.grid import ANY
from drstudy.papers.base import Claimed, System
from drstudy.papers.beside import gather, grading, locating
from drstudy.papers.beside.gather import RANDOM, Compared, Gathered
from drstudy.show import intervals

NOTHING = "–"
"""Where there is no number."""

SMALL = 0.001
"""p-values below it are printed as such."""

COSTS = {
    "parameters_system": "parameters, millions",
    "seconds_to_train": "seconds to train",
    "seconds_per_eye": "seconds per eye",
}
"""Metrics of a record, and what readers see."""

TITLES = grading.MEASURES | locating.TITLES
"""Every measure of the notebook."""

HEADLINES = ("qwk", "auc", "ap")
"""Measures of the short table, as far as a system has them."""


def wide(scores: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """One row per system, one column per measure, each number with its interval.

    Args:
        scores: ``system, measure, value, lo, hi``.
        titles: Measures and their headings.
    """
    texts = scores.assign(text=[_text(row) for row in scores.to_dict("records")])
    found = texts.pivot(index="system", columns="measure", values="text")
    found = found.reindex(index=list(dict.fromkeys(scores["system"])), columns=list(titles)).fillna(NOTHING)
    return found.rename(columns=dict(titles)).rename_axis(columns=None).reset_index()


def _text(row: Mapping[str, float]) -> str:
    return intervals.text(row["value"], row["lo"], row["hi"], missing=NOTHING)


def display_grading(scores: pd.DataFrame, same_eyes: bool) -> pd.DataFrame:
    """:func:`wide` of the systems with the reference network's test eyes, or of those with others."""
    return wide(scores[scores["same_eyes"] == same_eyes], grading.MEASURES)


def display_locating(scores: pd.DataFrame, region: str = ANY) -> pd.DataFrame:
    """:func:`wide` of one region, with the number of eyes that have the lesion."""
    own = scores[scores["region"] == region]
    found = wide(own, locating.TITLES)
    eyes = own.groupby("system")["eyes"].max()
    found.insert(1, "eyes", found["system"].map(eyes))
    return found


def display_by_lesion(scores: pd.DataFrame, measure: str = "ap") -> pd.DataFrame:
    """One measure, one column per lesion."""
    own = scores[scores["measure"] == measure].assign(measure=lambda rows: rows["region"])
    regions = [region for region in (*LESIONS, ANY) if region in set(own["region"])]
    return wide(own, {region: "all lesions" if region == ANY else region for region in regions})


def display_differences(found: pd.DataFrame) -> pd.DataFrame:
    """One row per system and reference; each difference with its interval and its adjusted p-value."""
    texts = [
        intervals.difference(row["value"], row["lo"], row["hi"]) + _p(row["p_holm"])
        for row in found.to_dict("records")
    ]
    order = list(dict.fromkeys(zip(found["minus"], found["system"])))
    table = found.assign(text=texts).pivot(index=["minus", "system"], columns="measure", values="text")
    titles = {name: title for name, title in TITLES.items() if name in table}
    table = (
        table.reindex(index=pd.MultiIndex.from_tuples(order, names=["minus", "system"])) if order else table
    )
    table = table.reindex(columns=list(titles)).fillna(NOTHING).rename(columns=titles)
    return table.rename_axis(columns=None).reset_index()[["system", "minus", *titles.values()]]


def _p(p: float) -> str:
    if np.isnan(p):
        return ""
    return f", p < {SMALL:g}" if p < SMALL else f", p = {p:.3f}"


def costs(gathered: Gathered) -> pd.DataFrame:
    """One row per system: parameters (millions), seconds to train and seconds per eye, NaN where the result does not say."""
    rows = []
    for one in gathered.systems:
        row: dict[str, object] = {"system": one.label}
        for name, title in COSTS.items():
            value = one.record.metrics.get(name)
            row[title] = np.nan if value is None else float(value)
        row[COSTS["parameters_system"]] /= 1e6
        rows.append(row)
    return pd.DataFrame(rows, columns=["system", *COSTS.values()])


# --- claimed and found --------------------------------------------------------------------------------


def comparable(claimed: Claimed, weights_used: str | None, audited: Record, measured: Sequence[str]) -> str:
    """Whether the printed number may be compared with the number found here: ``yes``, or ``no`` and every reason.

    It follows from facts that the paper's declaration and the records state. Nobody writes it.

    Args:
        claimed: The declaration.
        weights_used: What the system here started from, as in its record; None if the record does not say.
        audited: Audit of the photographs on which it was tested.
        measured: Measures that the system has here.
    """
    reasons = []
    if not claimed.source:
        reasons.append("photographs that are not available to this study")
    elif audited.params["SOURCE"] != claimed.source:
        reasons.append(f"other photographs ({audited.params['SOURCE']})")
    if not claimed.measure:
        reasons.append("another measure")
    elif claimed.measure not in measured:
        reasons.append(f"no {TITLES[claimed.measure]} here")
    known = claimed.pretrained is not None and weights_used is not None
    if known and claimed.pretrained != (weights_used != RANDOM):
        reasons.append(
            "pretrained in the paper" if claimed.pretrained else "random starting weights in the paper"
        )
    if not claimed.as_published:
        reasons.append("an adaptation by this study")
    return "yes" if not reasons else f"no: {'; '.join(reasons)}"


def claimed_and_found(
    systems: Sequence[System],
    gathered: Gathered,
    graded: pd.DataFrame,
    located: pd.DataFrame,
    verdicts: Mapping[str, tuple[str, str]],
    audited: Record,
) -> pd.DataFrame:
    """What each paper claims of its system, what was found here, whether both are comparable, and the verdict of the ledger.

    Args:
        systems: All declarations, in the order of the table. A system without a result has a row too, if the paper claims something of it.
        gathered: Systems with results.
        graded: Result of :func:`drstudy.papers.beside.grading.scores`.
        located: Result of :func:`drstudy.papers.beside.locating.scores`.
        verdicts: Identifier of a claim to verdict and reason, from the claims ledger.
        audited: Audit of the photographs.

    Returns:
        Texts: ``system``, ``claimed by the paper``, one column for each of :data:`HEADLINES`, ``comparable?``, ``verdict of the ledger``.
    """
    values = _values(graded, located)
    rows = []
    for system in systems:
        own = [one for one in gathered.systems if one.system is system]
        lacking = gathered.missing[gathered.missing["id"] == system.id]["why"]
        for one in own or ([None] if system.claimed else []):
            rows.append(
                _claimed_row(system, one, values, verdicts, audited, "; ".join(dict.fromkeys(lacking)))
            )
    columns = ["system", "claimed by the paper", *(TITLES[name] for name in HEADLINES)]
    return pd.DataFrame(rows, columns=[*columns, "comparable?", "verdict of the ledger"])


def _values(graded: pd.DataFrame, located: pd.DataFrame) -> dict[tuple[str, str], str]:
    """System and measure to the number with its interval; localisation of all lesions together."""
    whole = pd.concat([graded, located[located["region"] == ANY]], ignore_index=True)
    known = whole.dropna(subset="value").to_dict("records")
    return {(row["system"], row["measure"]): _text(row) for row in known}


def _claimed_row(
    system: System,
    one: Compared | None,
    values: Mapping[tuple[str, str], str],
    verdicts: Mapping[str, tuple[str, str]],
    audited: Record,
    why: str,
) -> dict[str, str]:
    claimed = system.claimed
    name = one.label if one else gather.plain(system)
    row = {"system": name, "claimed by the paper": claimed.says if claimed else NOTHING}
    row |= {TITLES[key]: values.get((name, key), NOTHING) for key in HEADLINES}
    if claimed is None:
        return row | {"comparable?": NOTHING, "verdict of the ledger": NOTHING}
    if one is None:
        says = f"no: {why or 'no result here'}"
    else:
        measured = [measure for system_, measure in values if system_ == name]
        says = comparable(claimed, one.record.metrics.get("weights_used"), audited, measured)
    return row | {"comparable?": says, "verdict of the ledger": verdicts.get(claimed.claim, (NOTHING, ""))[0]}


def as_metrics(gathered: Gathered, graded: pd.DataFrame, located: pd.DataFrame) -> dict[str, float]:
    """Flat metrics: ``<id>_<measure>`` with ``_lo`` and ``_hi``; a network of several has its variant in its name."""
    keys = {one.label: _key(one) for one in gathered.systems}
    whole = pd.concat([graded, located[located["region"] == ANY]], ignore_index=True)
    found: dict[str, float] = {"systems": len(gathered.systems), "missing": len(gathered.missing)}
    for row in whole[whole["system"].isin(keys)].to_dict("records"):
        name = f"{keys[row['system']]}_{row['measure']}"
        found |= {f"{name}{end}": row[end.strip("_") or "value"] for end in intervals.ENDS}
    return found


def _key(one: Compared) -> str:
    variant = one.record.data["variant"].replace("-", "_")
    return "_".join(filter(None, (one.system.id, variant)))
