"""Tables of notebook 12: scores by lesion, decisions made of lesions, and the sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drstudy.core.names import MILD
from drstudy.data import labels as lesion_labels
from drstudy.evaluation import calibration, multilabel, statistics
from drstudy.explain.measures import comparison, localisation
from drstudy.show import intervals

DECISIONS = {"any_dr": 1, "referable": 2}
"""Decision to the grade from which an eye has it."""

DECISION_NAMES = {"any_dr": "any DR (grade 1 or more)", "referable": "referable DR (grade 2 or more)"}

GRADES = "five grades"
"""In the column ``network``: the network of notebook 03, whose decision is a sum of the probabilities of grades."""

PRINTED = {"sensitivity": 0.939, "specificity": 0.944}
"""Of "DR classification" in the paper's abstract (docs/sources.md, B1); which decision that is, it does not say."""

GROUPS = {"all": "all eyes", "referable": "eyes of grade 2 or more"}
"""Groups of eyes in which labels are scored. In the second group the grade reveals less, so the score depends on lesions and not on severity."""


def signs(codes: Sequence[str], decision: str) -> list[str]:
    """Which lesions speak for a decision: signs of the disease; for ``referable`` those beyond :data:`drstudy.core.names.MILD`."""
    disease = [code for code in codes if code in localisation.LESIONS]
    return [code for code in disease if decision == "any_dr" or code not in MILD]


def truth(grade: pd.Series, labels: pd.DataFrame, codes: Sequence[str], decision: str) -> np.ndarray:
    """Whether each eye has what a decision is about, by its grade; without a grade by its lesions, which can only say yes.

    Args:
        grade: Int64, may be missing.
        labels: Labels of the same eyes in the same order, one column per code.
        codes, decision: As in :func:`signs`.

    Returns:
        (N,) 1, 0 or NaN.
    """
    seen = (lesion_labels.as_array(labels, signs(codes, decision)) == 1).any(axis=1)
    graded = grade.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    by_grade = np.where(np.isnan(graded), np.nan, graded >= DECISIONS[decision])
    return np.where(np.isnan(by_grade) & seen, 1.0, by_grade)


def decision_scores(
    probabilities: pd.DataFrame, grades: pd.DataFrame | None, labels: pd.DataFrame, codes: Sequence[str]
) -> pd.DataFrame:
    """One score per decision, rule and eye.

    Args:
        probabilities: Result of :func:`drstudy.papers.lesions.training.probabilities`, of any networks and splits.
        grades: ``image_id, patient_id, split, grade, p0..p4`` of the network of five grades, or ``None``.
        labels: Result of :func:`drstudy.data.labels.read`.
        codes: Lesions.

    Returns:
        ``network, decision, rule, split, image_id, patient_id, score, truth`` (1, 0 or NaN).
    """
    by_image, parts = labels.set_index("image_id"), []

    def add(rows: pd.DataFrame, network: str, decision: str, rule: str, score: np.ndarray) -> None:
        about = rows[["split", "image_id", "patient_id"]].reset_index(drop=True)
        about.insert(0, "rule", rule)
        about.insert(0, "decision", decision)
        about.insert(0, "network", network)
        true = truth(rows["grade"], by_image.loc[rows["image_id"]], codes, decision)
        parts.append(about.assign(score=score, truth=true))

    for decision, cut in DECISIONS.items():
        used = [f"p_{code}" for code in signs(codes, decision)]
        for network, rows in probabilities.groupby("network", sort=False) if used else ():
            for rule in multilabel.RULES:
                add(rows, network, decision, rule, multilabel.combine(rows[used].to_numpy(float), rule))
        if grades is not None:
            add(
                grades,
                GRADES,
                decision,
                "grades",
                grades[[f"p{k}" for k in range(cut, 5)]].sum(axis=1).to_numpy(),
            )
    return pd.concat(parts, ignore_index=True)


def thresholds(
    probabilities: pd.DataFrame,
    scores: pd.DataFrame,
    labels: pd.DataFrame,
    codes: Sequence[str],
    specificity: float,
) -> pd.DataFrame:
    """Lowest probability at which a lesion is predicted, and lowest score at which a decision is yes; from validation alone.

    A lesion has the threshold of its greatest F1, and 0.5 where validation has no positive; a decision the least threshold with the
    wanted specificity.

    Args:
        probabilities, scores: With validation rows; others are not looked at.
        labels: Result of :func:`drstudy.data.labels.read`.
        codes: Lesions.
        specificity: Wanted of decisions.

    Returns:
        ``network, target`` (a code or a decision), ``rule`` (empty for lesions), ``threshold``, ``as_good_from`` and ``as_good_to`` (of lesions,
        see :func:`drstudy.evaluation.multilabel.best_threshold`), ``positives, images, fitted_for``.

    Raises:
        drstudy.evaluation.calibration.CalibrationError: If validation has no eye without DR.
    """
    by_image, rows = labels.set_index("image_id"), []
    for network, part in probabilities[probabilities["split"] == "validation"].groupby("network", sort=False):
        values = lesion_labels.as_array(by_image.loc[part["image_id"]], codes)
        for j, code in enumerate(codes):
            known = ~np.isnan(values[:, j])
            positive = values[known, j] == 1
            best, low, high = multilabel.best_threshold(positive, part.loc[known, f"p_{code}"].to_numpy())
            rows.append(
                {"network": network, "target": code, "rule": "", "threshold": 0.5 if np.isnan(best) else best}
                | {"as_good_from": low, "as_good_to": high}
                | {"positives": positive.sum(), "images": known.sum()}
                | {"fitted_for": "nothing: no positive" if np.isnan(best) else "greatest F1"}
            )
    of_validation = scores[(scores["split"] == "validation") & scores["truth"].notna()]
    for (network, decision, rule), part in of_validation.groupby(["network", "decision", "rule"], sort=False):
        cut = DECISIONS[decision]
        frame = pd.DataFrame(0.0, index=part.index, columns=[f"p{k}" for k in range(5)])
        frame["p0"], frame[f"p{cut}"] = 1 - part["score"], part["score"]
        frame["grade"] = np.where(part["truth"] == 1, cut, 0)
        rows.append(
            {"network": network, "target": decision, "rule": rule}
            | {"threshold": calibration.threshold(frame, specificity, cut)}
            | {"positives": int(part["truth"].sum()), "images": len(part)}
            | {"fitted_for": f"specificity {100 * specificity:g} %"}
        )
    return pd.DataFrame(rows)


def lesion_thresholds(fitted: pd.DataFrame, network: str, codes: Sequence[str]) -> np.ndarray:
    """(L,) of one network, out of :func:`thresholds`."""
    rows = fitted[(fitted["network"] == network) & (fitted["rule"] == "")]
    return rows.set_index("target")["threshold"].loc[list(codes)].to_numpy(float)


def by_label(
    probabilities: pd.DataFrame,
    fitted: pd.DataFrame,
    labels: pd.DataFrame,
    codes: Sequence[str],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Scores of every label by network, on all eyes and on those of grade 2 or more; see :func:`drstudy.evaluation.multilabel.evaluate`.

    Args:
        probabilities: Probabilities of the eyes to be scored.
        fitted: Result of :func:`thresholds`.
        labels, codes: As there.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        Long: ``network, group, label, metric, value, lo, hi, n_valid, present, absent, patients_present``.
    """
    by_image, parts = labels.set_index("image_id"), []
    for network, rows in probabilities.groupby("network", sort=False):
        wanted = lesion_thresholds(fitted, network, codes)
        severe = (rows["grade"] >= DECISIONS["referable"]).fillna(False).to_numpy(bool)
        for group, part in {"all": rows, "referable": rows[severe]}.items():
            if part.empty:
                continue
            found = multilabel.evaluate(
                lesion_labels.as_array(by_image.loc[part["image_id"]], codes),
                part[[f"p_{code}" for code in codes]].to_numpy(float),
                wanted,
                part["patient_id"].to_numpy(str),
                tuple(codes),
                resamples,
                seed,
            )
            found.insert(0, "group", group)
            found.insert(0, "network", network)
            parts.append(found)
    return pd.concat(parts, ignore_index=True)


def predicted(probabilities: pd.DataFrame, fitted: pd.DataFrame, codes: Sequence[str]) -> pd.DataFrame:
    """Lesions that one network predicts: bool, by ``image_id``, one column per code."""
    rows = probabilities.set_index("image_id")
    (network,) = rows["network"].unique()
    at = dict(zip(codes, lesion_thresholds(fitted, network, codes)))
    return pd.DataFrame({code: rows[f"p_{code}"] >= at[code] for code in codes})


def decisions(scores: pd.DataFrame, fitted: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Sensitivity, specificity and AUC of each decision, and each paired with that of the network of five grades.

    Args:
        scores: Result of :func:`decision_scores`, of the eyes to be scored.
        fitted: Result of :func:`thresholds`.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws; all networks share the resamples.

    Returns:
        Long: ``network, decision, rule, metric, value, lo, hi, n_valid, present, absent, threshold, printed``, and with the network of
        five grades there ``difference, difference_lo, difference_hi`` (this less that). No interval without
        :func:`drstudy.evaluation.multilabel.enough` patients.
    """
    at = fitted.set_index(["network", "target", "rule"])["threshold"]
    rows, rivals = [], {}
    known = scores[scores["truth"].notna()]
    order = (known["network"] != GRADES).astype(int)
    for key, part in known.iloc[np.argsort(order, kind="stable")].groupby(
        ["network", "decision", "rule"], sort=False
    ):
        network, decision, rule = key
        part = part.sort_values("image_id")
        weights = statistics.image_weights(part["patient_id"].to_numpy(str), resamples, seed)
        positive, threshold = part["truth"].to_numpy() == 1, at[network, decision, rule]
        score = part["score"].to_numpy()
        drawn = multilabel.measures(positive, score, score >= threshold, weights)
        patients = part["patient_id"].to_numpy(str)
        sides = [len(set(patients[chosen])) for chosen in (positive, ~positive)]
        rivals |= {(decision, name): values for name, values in drawn.items()} if network == GRADES else {}
        for name in ("sensitivity", "specificity", "auc"):
            enough = multilabel.enough(name, *sides)
            row = {"network": network, "decision": decision, "rule": rule, "metric": name}
            row |= statistics.from_weights(drawn[name], enough)
            row |= {"present": int(positive.sum()), "absent": int((~positive).sum()), "threshold": threshold}
            row["printed"] = PRINTED.get(name, np.nan)
            if network != GRADES and (decision, name) in rivals:
                gap = statistics.from_weights(drawn[name] - rivals[decision, name], enough)
                row |= {
                    f"difference{end}": gap[of] for end, of in (("", "value"), ("_lo", "lo"), ("_hi", "hi"))
                }
            rows.append(row)
    columns = [
        "network",
        "decision",
        "rule",
        "metric",
        "value",
        "lo",
        "hi",
        "n_valid",
        "present",
        "absent",
        "threshold",
        "printed",
    ]
    return pd.DataFrame(rows).reindex(columns=[*columns, "difference", "difference_lo", "difference_hi"])


def as_metrics(
    scored: pd.DataFrame, decided: pd.DataFrame, located: pd.DataFrame, network: str, rule: str
) -> dict[str, float]:
    """Flat metrics of one network, each with ``_lo`` and ``_hi``: ``auc_<label>``, ``ap_<label>``, ``f1_<label>``, ``macro_...``;
    ``sensitivity_any_dr``, ``specificity_any_dr``, ``auc_any_dr`` and of ``referable``; and on lesion masks
    ``<score>_<label>_minus_grades``.

    Args:
        scored: Result of :func:`by_label`.
        decided: Result of :func:`decisions`.
        located: Result of :func:`drstudy.papers.lesions.maps.differences` with the question ``five grades``.
        network, rule: Which.
    """
    found = {}
    ends = {"": "value", "_lo": "lo", "_hi": "hi"}
    for row in scored[(scored["network"] == network) & (scored["group"] == "all")].to_dict("records"):
        name = f"{row['metric']}_{row['label']}".removesuffix("_all labels")
        found |= {f"{name}{end}": row[column] for end, column in ends.items()}
    for row in decided[(decided["network"] == network) & (decided["rule"] == rule)].to_dict("records"):
        found |= {f"{row['metric']}_{row['decision']}{end}": row[column] for end, column in ends.items()}
    for row in located[located["against"].str.endswith("disease")].to_dict("records"):
        name = f"{row['metric']}_{row['layer'].replace(' ', '_')}_minus_grades"
        found |= {f"{name}{end}": row[f"difference{end}"] for end in ends}
    return found


def claims(decided: pd.DataFrame, beyond: pd.DataFrame, network: str, rule: str) -> pd.DataFrame:
    """What the ledger looks up: ``quantity, value, lo, hi``.

    Args:
        decided: Result of :func:`decisions`.
        beyond: Result of :func:`drstudy.papers.lesions.maps.differences` with the question ``chance``.
        network, rule: Which.

    Returns:
        ``auc_<decision>_beyond_chance``, the AUC less 0.5; ``aupr_<map>_beyond_centre``.
    """
    rows = []
    chosen = (decided["network"] == network) & (decided["rule"] == rule) & (decided["metric"] == "auc")
    for row in decided[chosen].to_dict("records"):
        numbers = {name: row[name] - 0.5 for name in ("value", "lo", "hi")}
        rows.append({"quantity": f"auc_{row['decision']}_beyond_chance", **numbers})
    centre = beyond["against"].str.startswith("centre ") & (beyond["metric"] == "aupr")
    for row in beyond[centre].to_dict("records"):
        numbers = dict(zip(("value", "lo", "hi"), (row[f"difference{end}"] for end in ("", "_lo", "_hi"))))
        rows.append({"quantity": f"aupr_{row['layer'].replace(' ', '_')}_beyond_centre", **numbers})
    return pd.DataFrame(rows, columns=["quantity", "value", "lo", "hi"])


def display_labels(scored: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Scores for readers: one row per network and label, with intervals; ``AUC within`` is among eyes of grade 2 or more."""
    columns = {"auc": "AUC", "ap": "average precision", "f1": "F1"}
    columns |= {"sensitivity": "sensitivity", "specificity": "specificity"}
    rows = []
    labelled = scored[scored["label"] != "all labels"]
    for (network, label), part in labelled.groupby(["network", "label"], sort=False):
        cell = part.set_index(["group", "metric"])
        whole = cell.loc["all"]
        there, absent = (int(whole[name].iloc[0]) for name in ("present", "absent"))
        row = {"network": names[network], "label": label, "present": there, "of": there + absent}
        row |= {
            heading: intervals.text(*whole.loc[name, ["value", "lo", "hi"]])
            for name, heading in columns.items()
        }
        within = ("referable", "auc")
        shown = cell.loc[within, ["value", "lo", "hi"]] if within in cell.index else None
        unsure = shown is None or (
            label == "macro" and np.isnan(shown["lo"])
        )  # a mean over labels of which one has few patients
        row["AUC within"] = "–" if unsure else intervals.text(*shown)
        rows.append(row)
    return pd.DataFrame(rows)


def display_decisions(decided: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Decisions for readers: percent with intervals, and what the paper prints."""
    rows = []
    for (network, decision, rule), part in decided.groupby(["network", "decision", "rule"], sort=False):
        cell = part.set_index("metric")
        row = {
            "decision": DECISION_NAMES[decision],
            "network": names.get(network, network),
            "rule": rule.replace("_", "-"),
        }
        row |= {"with": cell["present"].iloc[0], "without": cell["absent"].iloc[0]}
        for name in ("sensitivity", "specificity"):
            row[f"{name}, %"] = intervals.text(*(100 * cell.loc[name, ["value", "lo", "hi"]]), digits=1)
        row["AUC"] = intervals.text(*cell.loc["auc", ["value", "lo", "hi"]])
        gap = 100 * cell.loc["sensitivity", ["difference", "difference_lo", "difference_hi"]].astype(float)
        row["sensitivity minus that of five grades, points"] = intervals.difference(*gap)
        rows.append(row)
    return pd.DataFrame(rows)


def findings(located: pd.DataFrame) -> list[str]:
    """One sentence per lesion and score, computed from the numbers: does learning lesions localise better than learning grades?

    Args:
        located: Result of :func:`drstudy.papers.lesions.maps.differences` with the question ``five grades``.
    """
    sentences = []
    for row in located.to_dict("records"):
        lo, hi = row["difference_lo"], row["difference_hi"]
        verdict = (
            "too few patients" if np.isnan(lo) else "better" if lo > 0 else "worse" if hi < 0 else "undecided"
        )
        gap = intervals.difference(*intervals.of(row, "difference", 100))
        sentences.append(
            f"{row['layer']} map on {row['region']}, {comparison.METRICS[row['metric']]}, minus {row['against']}: {gap} points, "
            f"{row['eyes']} eyes: {verdict}"
        )
    return sentences


def display_located(located: pd.DataFrame) -> pd.DataFrame:
    """Paired differences for readers: one row per pair of maps, percentage points with intervals."""
    shown = located.assign(
        text=[
            intervals.difference(*intervals.of(row, "difference", 100)) for row in located.to_dict("records")
        ],
        score=located["metric"].map(comparison.METRICS),
    )
    if shown.empty:
        return pd.DataFrame(columns=["map", "on", "less", "eyes"])
    rows = []
    for (layer, region, against), part in shown.groupby(["layer", "region", "against"], sort=False):
        about = {"map": layer, "on": region, "less": against, "eyes": int(part["eyes"].max())}
        rows.append(about | dict(zip(part["score"], part["text"])))
    return pd.DataFrame(rows)
