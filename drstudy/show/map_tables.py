"""Tables and sentences about maps for readers: scores beside baselines, shares of heat, checks of a map.

The numbers come from :mod:`drstudy.explain`; here they get words, percentages and printed intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.explain.measures import baselines, comparison
from drstudy.show import intervals

# --- maps beside other maps -----------------------------------------------------------------------


def differences(
    found: pd.DataFrame, by: Sequence[str], unit: str = "eyes", scale: float = 100
) -> pd.DataFrame:
    """Differences for readers: one row per map, the score, then the score less each baseline's with its interval.

    Args:
        found: Result of :func:`drstudy.explain.measures.comparison.differences` or
            :func:`drstudy.explain.measures.comparison.coverage` with
            :func:`drstudy.explain.measures.comparison.pairs`.
        by: Columns that tell the rows apart.
        unit: Which column counts: ``eyes`` or ``lesions``.
        scale: 100 shows percentages.
    """
    rows = []
    for key, cell in found.groupby(list(by), sort=False):
        row = dict(zip(by, key)) | {
            unit: int(cell[unit].iloc[0]),
            "score, %": _number(scale * cell["value"].iloc[0]),
        }
        for one in cell.to_dict("records"):
            name = one["against"].split(" ")[0]
            row[f"minus {name}"] = intervals.difference(*intervals.of(one, "difference", scale))
        rows.append(row | {"verdict": verdict(cell)})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*by, unit, "score, %", "verdict"])


def verdict(rows: pd.DataFrame) -> str:
    """One sentence on a map compared with several others: which of them it exceeds beyond chance.

    Args:
        rows: Result of :func:`drstudy.explain.measures.comparison.differences` or
            :func:`drstudy.explain.measures.comparison.coverage`, one for each other map.
    """
    if rows["difference_lo"].isna().any():
        return "too few patients"
    names = rows["against"].str.split(" ").str[0]
    above, below = rows["difference_lo"] > 0, rows["difference_hi"] < 0
    if above.all():
        return "above all four" if len(rows) == len(baselines.NAMES) else "above"
    said = []
    for word, which in (("above", above), ("not above", ~above & ~below), ("below", below)):
        if which.any():
            said.append(f"{word} {', '.join(names[which])}")
    return "; ".join(said)


def _number(value: float) -> str:
    """One digit from 1 upwards, two below."""
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def add_centre(display: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
    """The table of shares with one column more: the share less that of a centre prior, in percentage points.

    Args:
        display: Result of :func:`shares`, with ``layer`` and ``region``.
        parts: Result of :func:`drstudy.explain.measures.comparison.differences` on ``kind`` ``part``.
    """
    rows = parts[parts["against"].str.startswith("centre ")].to_dict("records")
    texts = {
        (row["layer"], row["region"]): intervals.difference(*intervals.of(row, "difference", 100))
        for row in rows
    }
    found = [texts.get(key, "-") for key in zip(display["layer"], display["region"])]
    return display.assign(**{"minus centre prior, points": found})


# --- shares of heat -------------------------------------------------------------------------------


def shares(
    summary: pd.DataFrame, kinds: Sequence[str] = ("mask",), regions: Sequence[str] = ()
) -> pd.DataFrame:
    """A summary for readers: percentages with intervals, and words where there is no number.

    Args:
        summary: Result of :func:`drstudy.explain.measures.localisation.summarise`.
        kinds: Any of ``part``, ``mask`` and ``field``; the pointing game is shown with ``mask`` only.
        regions: Only these; empty is all that are annotated in some eye.
    """
    rows = summary[summary["kind"].isin(kinds)]
    known = rows["eyes"] + rows["empty_mask"] + rows["no_heat"] > 0
    rows = rows[rows["region"].isin(regions) if regions else known]
    table = rows[["layer", "region", "group", "eyes", "empty_mask", "no_heat"]].reset_index(drop=True)
    found = rows.to_dict("records")
    table["heat, %"] = [share(row, "heat", 100) for row in found]
    table["area, %"] = [f"{100 * row['area']:.1f}" if row["eyes"] else "-" for row in found]
    table["times chance"] = [share(row, "enrichment", 1) for row in found]
    if "mask" in kinds:
        table["hit, %"] = [share(row, "hit", 100, 0) for row in found]
        by_chance = [f"{100 * row['hit_chance']:.0f}" if row["eyes"] else "-" for row in found]
        table["hit by chance, %"] = by_chance
    return table.rename(columns={"empty_mask": "empty mask", "no_heat": "no heat"})


def share(row: Mapping[str, float], name: str, scale: float, digits: int = 1) -> str:
    """One number of a summary of heat, ``3.5 (2.0 to 5.1)``; words where there is none.

    Args:
        row: A row of :func:`drstudy.explain.measures.localisation.summarise`.
        name: ``heat``, ``enrichment`` or ``hit``.
        scale: 100 shows percentages, 1 shows times chance with one more digit.
        digits: Digits after the point of a percentage.
    """
    missing = "not annotated" if row["not_annotated"] and not row["eyes"] else "-"
    digits = digits + 1 if scale == 1 else digits
    return intervals.text(*intervals.of(row, name, scale), digits, form="(to)", missing=missing)


# --- checks of a map ------------------------------------------------------------------------------


def gain(found: pd.DataFrame) -> pd.DataFrame:
    """Gain of each map over Grad-CAM in average precision and Dice on all lesions, in percentage points."""
    found = found[(found["region"] == "lesion") & found["metric"].isin(("aupr", "dice_validation"))]
    rows: dict[str, dict[str, object]] = {}
    for row in found.to_dict("records"):
        cell = rows.setdefault(row["layer"], {"map": row["layer"], "eyes": row["eyes"]})
        shown = intervals.difference(*intervals.of(row, "difference", 100))
        cell[f"{comparison.METRICS[row['metric']]}, gain in points"] = shown
    return pd.DataFrame(rows.values())


def faithfulness(found: pd.DataFrame) -> pd.DataFrame:
    """Insertion, deletion and ROAD for readers, one row per measure and map.

    Args:
        found: Result of :func:`drstudy.explain.checks.verdicts.faithful`.
    """
    rows = []
    for row in found.to_dict("records"):
        sign = 1 if row["better"] == "more" else -1
        low, high = sorted((sign * row["difference_lo"], sign * row["difference_hi"]))
        word = (
            "better than random" if low > 0 else "worse than random" if high < 0 else "no better than random"
        )
        shown = {
            "measure": f"{row['measure']}, {row['better']} is better",
            "map": row["map"],
            "eyes": row["eyes"],
        }
        shown["probability"] = f"{row['value']:.3f}"
        shown["minus random"] = intervals.difference(*intervals.of(row, "difference"))
        rows.append(shown | {"verdict": "too few patients" if np.isnan(low) else word})
    return pd.DataFrame(rows)


def sanity(found: pd.DataFrame) -> pd.DataFrame:
    """Checks of maps for readers. Of the cascade only the last stage is shown, where no trained weight is left.

    Args:
        found: Result of :func:`drstudy.explain.checks.verdicts.sane`.
    """
    last = found["step"] == found.groupby(["method", "check"])["step"].transform("max")
    rows = []
    for row in found[last | (found["check"] != "random weights")].to_dict("records"):
        whole = row["check"] == "random weights"
        shown = {"map": row["method"], "check": "all weights random" if whole else row["check"]}
        shown |= {
            "stage": "" if whole or not isinstance(row["stage"], str) else row["stage"],
            "eyes": row["eyes"],
        }
        for name, label in (("spearman", "rank correlation"), ("ssim", "SSIM")):
            shown[label] = intervals.difference(*intervals.of(row, name))
        rows.append(shown | {"verdict": "" if row["check"] == "turned eye" else row["verdict"]})
    return pd.DataFrame(rows)


def survivors(found: pd.DataFrame) -> str:
    """One sentence that names the maps that stay alike in a network that has learnt nothing.

    Args:
        found: Result of :func:`drstudy.explain.checks.verdicts.sane`.
    """
    last = found["step"] == found.groupby(["method", "check"])["step"].transform("max")
    ends = found[last & found["check"].isin(("random weights", "shuffled labels"))]
    called = [
        f"{row['method']} ({row['check']}: rank correlation {row['spearman']:.2f}, {row['verdict']})"
        for row in ends.to_dict("records")
        if row["verdict"].startswith("survives")
    ]
    halfway = found[(found["check"] == "random weights") & ~last & (found["step"] > 1)]
    for method, rows in halfway[halfway["verdict"] == "survives"].groupby("method", sort=False):
        row = rows.iloc[-1]
        called.append(
            f"{method} (random from the head down to {row['stage']}: {row['spearman']:.2f}, survives)"
        )
    asked = ", ".join(dict.fromkeys(ends["method"]))
    if called:
        return "These maps stay similar although the network has learnt nothing: " + "; ".join(called) + "."
    if (ends["verdict"] == "no interval").any():
        return f"There are too few patients to decide whether a map ({asked}) survives."
    return f"None of the tested maps ({asked}) stays similar when the network has learnt nothing."


# --- maps of several lesions ----------------------------------------------------------------------


def attention(differences: pd.DataFrame) -> pd.DataFrame:
    """Differences of :func:`drstudy.explain.measures.attention.own_mask` or :func:`drstudy.explain.measures.attention.own_map` for readers: one row per pair (and map), one column per metric.

    Enrichment is in times chance, everything else in percentage points.
    """
    by = [name for name in ("label", "against", "map") if name in differences]
    rows = []
    for key, part in differences.groupby(by, sort=False):
        row = dict(zip(by, key)) | {"eyes": int(part["eyes"].max())}
        for one in part.to_dict("records"):
            scale = 1 if one["metric"] == "enrichment" else 100
            name = f"{one['metric']}, {'times chance' if scale == 1 else 'points'}"
            row[name] = intervals.difference(*intervals.of(one, "difference", scale))
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else [*by, "eyes"])


def attention_findings(masks: pd.DataFrame, maps: pd.DataFrame) -> list[str]:
    """One sentence per pair of lesions, computed from the numbers: does the map point at its own lesion?

    Args:
        masks: Result of :func:`drstudy.explain.measures.attention.own_mask`.
        maps: Result of :func:`drstudy.explain.measures.attention.own_map`, on heat inside the mask.
    """
    said = []
    chosen = masks[(masks["metric"] == "enrichment") & (masks["map"] == masks["label"])]
    beside = maps[maps["metric"] == "heat"].set_index(["label", "against"])
    for row in chosen.to_dict("records"):
        pair = row["label"], row["against"]
        text = (
            f"{pair[0]} map: {row['own']:.1f} times chance on {pair[0]}, {row['other']:.1f} on {pair[1]} in the "
            f"{row['eyes']} eyes with both: {_answer(row, f'more on {pair[0]}', f'more on {pair[1]}')}"
        )
        if pair in beside.index:
            other = beside.loc[pair]
            better = f"{pair[0]} gets more heat from its own map than from that of {pair[1]}"
            worse = f"{pair[0]} gets more heat from the map of {pair[1]} than from its own"
            text += f"; {_answer(other, better, worse)} ({other['eyes']} eyes)"
        said.append(text + ".")
    return said


def _answer(row: Mapping[str, float], yes: str, no: str) -> str:
    if np.isnan(row["difference_lo"]):
        return "too few patients to tell"
    if row["difference_lo"] > 0:
        return yes
    return no if row["difference_hi"] < 0 else "no difference beyond chance"
