"""Tables of notebook 11, and the sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from drstudy.evaluation import ordinal, statistics
from drstudy.papers.ram import arithmetic
from drstudy.show import intervals, style

NAMES = {
    "ram_net5": "RAM net-5",
    "baseline_net5": "baseline net-5",
    "ram_net4": "RAM net-4",
    "baseline_net4": "baseline net-4",
    "ram_visual5": "RAM net-5, visual",
}

PRINTED_SECONDS = {"net5": (422.1, 367.3), "net4": (451.7, 398.2)}
"""Seconds per epoch of baseline and RAM, as printed (docs/sources.md, E1)."""


ENDS = {"": "value", "_lo": "lo", "_hi": "hi"}


def names(trained: Sequence[str], backbone: str, weights_used: str) -> dict[str, str]:
    """Network to a label with what it started from."""
    own = {name: f"{NAMES[name]} (no pretraining)" for name in trained if name in NAMES}
    return own | (
        {backbone: f"{style.backbone_label(backbone, weights_used)}, regression"} if backbone else {}
    )


def parameters(counted: Mapping[str, int]) -> pd.DataFrame:
    """Counts beside print: ``network, quantity, value, lo, hi, printed``; a count has no interval.

    Args:
        counted: ``parameters_<network>``, as :func:`drstudy.papers.ram.model.parameters` gives them.
    """
    counts = arithmetic.parameters()
    printed = counts["printed"]
    rows = []
    for kind in ("net5", "net4"):
        baseline, ram = (counted[f"parameters_{head}_{kind}"] for head in ("baseline", "ram"))
        for head, count in (("baseline", baseline), ("ram", ram)):
            network = f"{head}_{kind}"
            rows.append((network, "parameters, millions", count / 1e6, printed[NAMES[network]]))
        rows.append((kind, "fewer than the baseline, %", 100 * (1 - ram / baseline), 22.0))
        biases = counts.loc[NAMES[f"ram_{kind}"], "untied_biases"]
        rows.append((f"ram_{kind}", "of these, biases of positions, %", 100 * biases / ram, np.nan))
    table = pd.DataFrame(rows, columns=["network", "quantity", "value", "printed"])
    table.insert(3, "lo", np.nan)
    table.insert(4, "hi", np.nan)
    return table


def timing(timed: pd.DataFrame, seed: int, resamples: int = 2000) -> pd.DataFrame:
    """Training time of RAM against its baseline, from turns taken side by side.

    Args:
        timed: Result of :func:`drstudy.papers.ram.training.time_side_by_side`.
        seed, resamples: Seed of the draws of a bootstrap over the turns, and number of its resamples.

    Returns:
        One row per kind of net: ``kind``, ``baseline`` and ``ram`` (median seconds a 1,000 images), ``value`` (percent saved, the median over
        turns) with ``lo`` and ``hi``, ``printed`` (from the seconds that the paper prints).
    """
    wide = timed.pivot(index="round", columns="network", values="seconds_per_1000_images")
    rows = []
    for kind, (slow, fast) in PRINTED_SECONDS.items():
        if f"ram_{kind}" not in wide or f"baseline_{kind}" not in wide:
            continue
        baseline, ram = wide[f"baseline_{kind}"], wide[f"ram_{kind}"]
        saved = 100 * (1 - ram / baseline).to_numpy()
        random = np.random.default_rng(seed)
        drawn = np.median(random.choice(saved, (resamples, len(saved))), axis=1)
        found = statistics.percentiles(np.median(saved), drawn)
        rows.append(
            {"kind": kind, "baseline": baseline.median(), "ram": ram.median()}
            | {name: found[name] for name in ("value", "lo", "hi")}
            | {"printed": 100 * (1 - fast / slow)}
        )
    return pd.DataFrame(rows, columns=["kind", "baseline", "ram", "value", "lo", "hi", "printed"])


def _of(table: pd.DataFrame, network: str, size: int | str, split: str) -> pd.DataFrame:
    rows = (
        (table["network"] == network) & (table["size"].astype(str) == str(size)) & (table["split"] == split)
    )
    return table[rows].reset_index(drop=True)


def with_both_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """Scores with the mean over sizes added for each network that has several, as size ``128+256``."""
    added = []
    for network, rows in table.groupby("network", sort=False):
        sizes = list(dict.fromkeys(rows["size"]))
        if len(sizes) > 1:
            by = ["image_id", "patient_id", "split", "grade"]
            mean = rows.groupby(by, sort=False, as_index=False)["score"].mean()
            added.append(mean.assign(network=network, size="+".join(map(str, sizes)))[table.columns])
    return pd.concat([table.astype({"size": str}), *added], ignore_index=True)


def agreement(
    table: pd.DataFrame, resamples: int, seed: int
) -> tuple[pd.DataFrame, dict[tuple[str, str], np.ndarray]]:
    """Agreement of scores with grades on test, rounded and by cuts fitted on validation.

    Args:
        table: Result of :func:`with_both_sizes`.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        ``network, size, cuts, metric, value, lo, hi, n_valid``, and the fitted cuts by network and size.
    """
    fitted, parts = {}, []
    for network, size in dict.fromkeys(zip(table["network"], table["size"])):
        validation, test = (_of(table, network, size, split) for split in ("validation", "test"))
        fitted[network, size] = ordinal.fit_cuts(validation["score"], validation["grade"].to_numpy(int))
        for name, cuts in (("rounded", ordinal.ROUNDED), ("fitted", fitted[network, size])):
            found = ordinal.bootstrap(test, cuts, resamples, seed)
            found.insert(0, "network", network)
            found.insert(1, "size", size)
            found.insert(2, "cuts", name)
            parts.append(found)
    return pd.concat(parts, ignore_index=True), fitted


def display_agreement(agreement: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Kappa for readers: one row per network and size; ``QWK, rounded`` and ``QWK, fitted cuts`` with intervals.

    Args:
        agreement: Result of :func:`agreement`.
        names: Result of :func:`names`.
    """
    kappa = agreement[agreement["metric"] == "qwk"]
    texts = intervals.column(kappa)
    headings = {"rounded": "QWK, rounded", "fitted": "QWK, fitted cuts"}
    wide = kappa.assign(text=texts).pivot(index=["network", "size"], columns="cuts", values="text")
    wide = wide.loc[list(dict.fromkeys(zip(kappa["network"], kappa["size"])))].reset_index()
    wide = wide.assign(network=wide["network"].map(names)).rename(columns={"size": "size, px"} | headings)
    return wide.rename_axis(columns=None)[["network", "size, px", *headings.values()]]


def comparisons(
    table: pd.DataFrame, fitted: Mapping[tuple[str, str], np.ndarray], resamples: int, seed: int
) -> pd.DataFrame:
    """Paired differences of kappa on test: each size minus the one before, both minus the better single, RAM minus its baseline.

    Args:
        table: Result of :func:`with_both_sizes`.
        fitted: Result of :func:`agreement`; the cuts of all.

    Returns:
        ``comparison`` (``size``, ``sizes together`` or ``head``), ``a``, ``size_a``, ``b``, ``size_b``, ``metric``, ``value``, ``lo``,
        ``hi``, ``n_valid``.
    """
    pairs = []
    for network in dict.fromkeys(table["network"]):
        sizes = list(dict.fromkeys(table.loc[table["network"] == network, "size"]))
        single = [size for size in sizes if "+" not in size]
        pairs += [("size", network, big, network, small) for small, big in pairwise(single)]
        if len(single) > 1:
            pairs.append(("sizes together", network, sizes[-1], network, single[-1]))
        other = network.replace("ram_", "baseline_")
        shared = [size for size in single if (other, size) in fitted]
        if network.startswith("ram_") and shared:
            pairs.append(("head", network, shared[-1], other, shared[-1]))
    parts = []
    for what, a, size_a, b, size_b in pairs:
        found = ordinal.difference(
            *(_of(table, a, size_a, "test"), _of(table, b, size_b, "test")),
            *(fitted[a, size_a], fitted[b, size_b], resamples, seed),
        )
        about = {"comparison": what, "a": a, "size_a": size_a, "b": b, "size_b": size_b}
        parts.append(found.assign(**about)[[*about, *found.columns]])
    columns = ["comparison", "a", "size_a", "b", "size_b", "metric", "value", "lo", "hi", "n_valid"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def as_metrics(agreement: pd.DataFrame, compared: pd.DataFrame) -> dict[str, float]:
    """``qwk_<network>_<size>`` (fitted cuts) and ``qwk_<comparison>_<network>`` (differences), each with ``_lo`` and ``_hi``."""
    found = {}
    for row in agreement[(agreement["metric"] == "qwk") & (agreement["cuts"] == "fitted")].to_dict("records"):
        name = f"qwk_{row['network']}_{row['size'].replace('+', '_')}"
        found |= {f"{name}{end}": row[column] for end, column in ENDS.items()}
    for row in compared[compared["metric"] == "qwk"].to_dict("records"):
        name = f"qwk_{row['comparison'].replace(' ', '_')}_{row['size_a'].replace('+', '_')}_minus_{row['size_b']}_{row['a']}"
        found |= {f"{name}{end}": row[column] for end, column in ENDS.items()}
    return found


def blended(
    table: pd.DataFrame,
    networks: Sequence[tuple[str, int]],
    both: Sequence[pd.DataFrame],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Kappa of the blend of both eyes beside that of the single eye, and their paired difference, on test.

    Args:
        table: Result of :func:`with_both_sizes`.
        networks: Name and size of each network.
        both: Scores of :func:`drstudy.papers.ram.blend.scores`, one for each of them.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        ``network, size, eyes`` (``single``, ``both``, ``both minus single``), ``value, lo, hi``; cuts are fitted on validation.
    """
    rows = []
    for (network, size), pair in zip(networks, both):
        single = table[(table["network"] == network) & (table["size"] == str(size))]
        parts = [one[one["split"] == "test"].reset_index(drop=True) for one in (single, pair)]
        fitted = [
            ordinal.fit_cuts(part["score"], part["grade"].to_numpy(int))
            for part in (one[one["split"] == "validation"] for one in (single, pair))
        ]
        found = {
            "single": ordinal.bootstrap(parts[0], fitted[0], resamples, seed),
            "both": ordinal.bootstrap(parts[1], fitted[1], resamples, seed),
            "both minus single": ordinal.difference(parts[1], parts[0], *fitted[::-1], resamples, seed),
        }
        for eyes, one in found.items():
            qwk = one[one["metric"] == "qwk"].iloc[0]
            rows.append(
                {"network": network, "size": size, "eyes": eyes} | qwk[["value", "lo", "hi"]].to_dict()
            )
    return pd.DataFrame(rows)


def findings(differences: pd.DataFrame) -> list[str]:
    """One sentence per row, computed from the numbers: the compared maps and the measured difference.

    Args:
        differences: Result of :func:`drstudy.papers.ram.maps.differences`.
    """
    sentences = []
    for row in differences.to_dict("records"):
        if not row["eyes"]:
            sentences.append(f"{row['map']} minus {row['minus']}: no eye could be measured in both")
            continue
        what = "share of heat on lesions" if row["quantity"] == "heat" else "pointing game"
        lo, hi = row["lo"], row["hi"]
        if np.isnan(lo):
            verdict = "too few patients for an interval"
        else:
            verdict = "better" if lo > 0 else "worse" if hi < 0 else "undecided"
        sentences.append(
            f"{row['map']} minus {row['minus']}, {what}: {_points(row, unit=' points')}, {row['eyes']} eyes: {verdict}"
        )
    return list(dict.fromkeys(sentences))


def _points(row: Mapping[str, float], **options: str) -> str:
    """A difference in percentage points with its interval, all with their signs."""
    numbers = (100 * row[name] for name in ("value", "lo", "hi"))
    return intervals.text(*numbers, 1, signs="all", **options)


def readable(differences: pd.DataFrame) -> pd.DataFrame:
    """:func:`drstudy.papers.ram.maps.differences` of one region for readers: one row per pair, in percentage points with intervals."""
    shown = differences.assign(
        text=[_points(row, form="(to)", missing="-") for row in differences.to_dict("records")]
    )
    wide = shown.pivot(index=["map", "minus", "eyes"], columns="quantity", values="text").reset_index()
    order = list(dict.fromkeys(zip(differences["map"], differences["minus"])))
    place = {pair: i for i, pair in enumerate(order)}
    wide = wide.iloc[np.argsort([place[pair] for pair in zip(wide["map"], wide["minus"])])]
    names = {"heat": "heat on lesions, points", "hit": "pointing game, points"}
    return wide.rename(columns=names).rename_axis(columns=None).reset_index(drop=True)
