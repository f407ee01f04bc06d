"""Measures of all trainings: scores, gains over single task with both spreads, calibration, teachers, and what features reveal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from drstudy.core.names import PROBABILITIES
from drstudy.evaluation import calibration, metrics, statistics
from drstudy.papers.sall.feed import Pooled
from drstudy.papers.sall.model import Student
from drstudy.papers.sall.params import DISEASES, SETTINGS
from drstudy.papers.sall.runs import KEY
from drstudy.papers.sall.teachers import Teachers

MEASURES = {
    "accuracy": "accuracy",
    "qwk": "quadratic weighted kappa",
    "macro_auc": "macro AUC",
    "nll": "negative log likelihood, nats",
    "brier": "Brier score",
    "ece": "calibration error, equal bins",
    "ece_adaptive": "calibration error, adaptive bins",
}
"""What is measured on test photographs, and its printed name. Higher is better for the first three, lower for the others."""

ALL, OWN = "all eyes", "own collection"
"""On which test photographs a network is measured: all whose label is known, or, as the paper measures (``docs/sources.md``, C2), those of
the disease's own collection and normal ones."""

RAW, SCALED = "as trained", "temperature scaled"
"""Probabilities as they are, and after one temperature that was fitted on the shown validation labels."""

TASK = ["fraction", "setting", "disease"]


def both_scales(predictions: pd.DataFrame, classes: Mapping[str, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test predictions as trained and temperature scaled (column ``scale``), and the fitted temperatures of each network.

    Args:
        predictions: As of :class:`drstudy.papers.sall.runs.Results`.
        classes: Number of classes by disease.
    """
    found, fitted = [], []
    for key, part in predictions.groupby(KEY, sort=False):
        count = classes[key[KEY.index("disease")]]
        test = part[part["split"] == "test"]
        temperature = calibration.fit_temperature(part[part["split"] == "validation"], count)
        fitted.append(dict(zip(KEY, key)) | {"temperature": temperature})
        found += [test.assign(scale=RAW), calibration.scaled(test, temperature, count).assign(scale=SCALED)]
    return pd.concat(found, ignore_index=True), pd.DataFrame(fitted)


class Drawn:
    """Every measure of one network on the test photographs and on each resample of their patients, (1 + B,) each, the value first.

    All networks of a disease are tested on the same photographs, so their resamples are the same and differences are paired.

    Args:
        test: Predictions of one network for one disease.
        weights: (1 + B, N) of :func:`drstudy.evaluation.statistics.image_weights`.
        bins: Bins of the calibration error.
    """

    def __init__(self, test: pd.DataFrame, weights: np.ndarray, bins: int) -> None:
        grade, p, predicted = metrics.arrays(test)
        weights = weights.astype(float)
        total = weights.sum(1)
        shares = metrics.from_confusion(statistics.weighted_confusion(weights, grade, predicted))
        self.values = {name: shares[name] for name in ("accuracy", "qwk")}
        self.values["macro_auc"] = macro_area(grade, p, weights)
        for name, each in metrics.per_image(grade, p).items():
            self.values[name] = statistics.weighted_sums(weights, each) / total
        top, right = p.max(1), predicted == grade
        for name, adaptive in (("ece", False), ("ece_adaptive", True)):
            place = calibration.bin_of(top, calibration.edges(top, bins, adaptive))
            self.values[name] = calibration.weighted_ece(top, right, place, weights)


def macro_area(grade: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the classes that occur of the :func:`drstudy.evaluation.metrics.weighted_auc` of each against the others, (R,); arguments as there."""
    present = [label for label in range(p.shape[1]) if 0 < (grade == label).sum() < len(grade)]
    if not present:
        return np.full(len(weights), np.nan)
    return np.mean([metrics.weighted_auc(grade == label, p[:, label], weights) for label in present], axis=0)


def eyes_of(tests: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Test predictions on :data:`ALL` and on :data:`OWN` photographs."""
    own = (tests["origin"] == tests["disease"]) | (tests["origin"] == "normal")
    return {ALL: tests, OWN: tests[own]}


def drawn(tests: pd.DataFrame, resamples: int, seed: int, bins: int) -> dict[tuple, Drawn]:
    """(fraction, setting, disease, scale, seed) to the measures of that network.

    Args:
        tests: First result of :func:`both_scales`, or a value of :func:`eyes_of`.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.
        bins: Bins of the calibration error.
    """
    weights: dict[str, np.ndarray] = {}
    found = {}
    for key, part in tests.groupby([*TASK, "scale", "seed"], sort=False):
        part = part.sort_values("image_id")
        disease = key[2]
        if disease not in weights:
            weights[disease] = statistics.image_weights(part["patient_id"], resamples, seed)
        found[key] = Drawn(part, weights[disease], bins)
    return found


def scores(networks: Mapping[tuple, Drawn]) -> pd.DataFrame:
    """Mean of each measure over the seeds, with two spreads.

    Args:
        networks: Result of :func:`drawn`.

    Returns:
        ``fraction, setting, disease, scale, metric``; ``value`` with ``lo`` and ``hi`` (95 % over patients of the mean over seeds); and
        ``seeds``, ``seed_sd``, ``seed_lo`` and ``seed_hi`` (number of seeds; standard deviation, least and greatest over them).
    """
    return _table(_by_setting(networks), lambda key, name: [one.values[name] for one in key])


def gains(networks: Mapping[tuple, Drawn], against: str = "single") -> pd.DataFrame:
    """Each measure of a setting less that of another, the same seed and resamples; columns as of :func:`scores`, and ``against``.

    Args:
        networks: Result of :func:`drawn`.
        against: The other setting, at the same fraction and scale.
    """
    grouped = _by_setting(networks)
    pairs = {}
    for (fraction, setting, disease, how), own in grouped.items():
        other = grouped.get((fraction, against, disease, how))
        if setting != against and other is not None:
            pairs[fraction, setting, disease, how] = list(zip(own, other))
    found = _table(pairs, lambda both, name: [one.values[name] - two.values[name] for one, two in both])
    return found.assign(against=against)


def gains_by_seed(networks: Mapping[tuple, Drawn], metric: str = "accuracy") -> pd.DataFrame:
    """Gain over single task of each seed, on all labels and as trained: ``setting, disease, seed, value``."""
    rows = []
    for (fraction, setting, disease, how, seed), one in networks.items():
        base = networks.get((fraction, "single", disease, how, seed))
        if fraction == 1 and how == RAW and setting != "single" and base is not None:
            value = one.values[metric][0] - base.values[metric][0]
            rows.append({"setting": setting, "disease": disease, "seed": seed, "value": value})
    return pd.DataFrame(rows)


def relative(networks: Mapping[tuple, Drawn], setting: str, disease: str, metric: str) -> dict[str, float]:
    """Mean measure of a setting over that of single task, less 1, on all labels as trained: ``value``, ``lo``, ``hi``."""
    grouped = _by_setting(networks)
    ours, base = (
        np.mean([one.values[metric] for one in grouped[1.0, name, disease, RAW]], axis=0)
        for name in (setting, "single")
    )
    return statistics.from_weights(metrics.ratio(ours, base) - 1)


def across(
    networks: Mapping[tuple, Drawn], first: tuple, second: tuple, disease: str, metric: str
) -> dict[str, float]:
    """One (setting, fraction) less another, means over seeds, as trained: ``value``, ``lo``, ``hi``; NaN where one was not trained."""
    grouped = _by_setting(networks)
    means = []
    for setting, fraction in (first, second):
        own = grouped.get((fraction, setting, disease, RAW))
        if own is None:
            return {"value": np.nan, "lo": np.nan, "hi": np.nan}
        means.append(np.mean([one.values[metric] for one in own], axis=0))
    return statistics.from_weights(means[0] - means[1])


def _by_setting(networks: Mapping[tuple, Drawn]) -> dict[tuple, list[Drawn]]:
    """(fraction, setting, disease, scale) to the networks of all seeds, in order."""
    found: dict[tuple, list[Drawn]] = {}
    for key in sorted(networks, key=lambda key: key[-1]):
        found.setdefault(key[:-1], []).append(networks[key])
    order = list(SETTINGS)
    return dict(
        sorted(
            found.items(),
            key=lambda item: (-item[0][0], order.index(item[0][1]), -DISEASES.index(item[0][2])),
        )
    )


def _table(grouped: Mapping, values_of) -> pd.DataFrame:
    rows = []
    for key, own in grouped.items():
        for name in MEASURES:
            draws = np.stack(values_of(own, name))
            each = draws[:, 0]
            spread = each.std(ddof=1) if len(each) > 1 else np.nan
            about = dict(zip([*TASK, "scale"], key)) | {"metric": name}
            about |= statistics.from_weights(draws.mean(0))
            rows.append(
                about | {"seeds": len(each), "seed_sd": spread, "seed_lo": each.min(), "seed_hi": each.max()}
            )
    return pd.DataFrame(rows)


def reliability(tests: pd.DataFrame, settings: Iterable[str], bins: int) -> pd.DataFrame:
    """Reliability curves of the greatest probability, all seeds together, on all labels.

    Returns:
        ``setting, disease, scale`` and the columns of :func:`drstudy.evaluation.calibration.reliability`.
    """
    found = []
    part = tests[(tests["fraction"] == 1) & tests["setting"].isin(list(settings))]
    for (setting, disease, how), rows in part.groupby(["setting", "disease", "scale"], sort=False):
        p = rows[PROBABILITIES].to_numpy(float)
        curve = calibration.reliability(p.max(1), p.argmax(1) == rows["grade"].to_numpy(), bins)
        found.append(curve.assign(setting=setting, disease=disease, scale=how))
    return pd.concat(found, ignore_index=True)


def teacher_quality(
    feed: Pooled,
    table: pd.DataFrame,
    shown: pd.DataFrame,
    teachers: Mapping[str, Teachers],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Soft labels of training photographs beside the hidden truth, which the paper could not see.

    Args:
        feed: Pooled features.
        table, shown: Results of :func:`drstudy.papers.sall.labels.truth` and :func:`drstudy.papers.sall.labels.shown`.
        teachers: Name to teachers, such as one per seed and the controls.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        One row per teacher, disease, kind of photograph (``other collection``: the label is hidden; ``own, out of fold``: it is shown) and
        measure: ``value, lo, hi``, ``photographs``, and ``always_0``, the accuracy of the answer "no disease".
    """
    ids = feed.train["image_id"]
    true = table.set_index("image_id").loc[ids, list(DISEASES)]
    seen = shown.set_index("image_id").loc[ids, list(DISEASES)]
    rows = []
    for name, one in teachers.items():
        for disease in DISEASES:
            p = _softmax(one.logits[disease])
            for kind, wanted in (
                ("other collection", seen[disease].isna()),
                ("own, out of fold", seen[disease].notna()),
            ):
                here = (wanted & true[disease].notna()).to_numpy()
                if here.any():
                    frame = _frame(feed.train[here], true[disease].to_numpy()[here], p[here])
                    rows += _quality(frame, resamples, seed, teacher=name, disease=disease, kind=kind)
    return pd.DataFrame(rows)


def teacher_confusion(
    feed: Pooled, table: pd.DataFrame, shown: pd.DataFrame, teachers: Teachers
) -> pd.DataFrame:
    """Hidden truth and the teacher's most probable class, on training photographs that hide the disease.

    Returns:
        ``disease, truth, predicted, photographs, share`` (of the photographs of that truth), one row per cell.
    """
    ids, rows = feed.train["image_id"], []
    true = table.set_index("image_id").loc[ids, list(DISEASES)]
    seen = shown.set_index("image_id").loc[ids, list(DISEASES)]
    for disease in DISEASES:
        logits = teachers.logits[disease]
        here = (seen[disease].isna() & true[disease].notna()).to_numpy()
        grade, predicted = true[disease].to_numpy()[here].astype(int), logits[here].argmax(1)
        for label in range(logits.shape[1]):
            for said in range(logits.shape[1]):
                count = int(((grade == label) & (predicted == said)).sum())
                share = count / max(1, (grade == label).sum())
                rows.append(
                    {
                        "disease": disease,
                        "truth": label,
                        "predicted": said,
                        "photographs": count,
                        "share": share,
                    }
                )
    return pd.DataFrame(rows)


def _quality(frame: pd.DataFrame, resamples: int, seed: int, **about: str) -> list[dict]:
    measured = Drawn(frame, statistics.image_weights(frame["patient_id"], resamples, seed), calibration.BINS)
    extra = {"photographs": len(frame), "always_0": float((frame["grade"] == 0).mean())}
    names = ("accuracy", "qwk", "macro_auc", "nll", "ece")
    return [
        about | {"metric": name} | statistics.from_weights(measured.values[name]) | extra for name in names
    ]


def _frame(rows: pd.DataFrame, grade: np.ndarray, p: np.ndarray) -> pd.DataFrame:
    padded = np.zeros((len(p), len(PROBABILITIES)))
    padded[:, : p.shape[1]] = p
    about = rows[["image_id", "patient_id"]].reset_index(drop=True)
    return about.assign(grade=grade.astype(int), **dict(zip(PROBABILITIES, padded.T)))


def _softmax(logits: np.ndarray) -> np.ndarray:
    values = np.asarray(logits, float)
    values = np.exp(values - values.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


def origin_probe(
    feed: Pooled,
    origin: pd.Series,
    table: pd.DataFrame,
    students: Mapping[tuple[str, int], Mapping[str, Student]],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """How well a linear classifier tells the collection of a photograph from the student's shared features.

    It learns on training photographs of the two disease collections, and is tested on the test patients' photographs. Part of what it finds
    is the disease itself, which no adversary should remove; settings are compared with each other.

    Args:
        feed: Pooled features.
        origin, table: Results of :func:`drstudy.papers.sall.labels.assign` and :func:`drstudy.papers.sall.labels.truth`.
        students: (setting, seed) to networks; both heads must share one encoder, so ``single`` is left out.
        resamples, seed: Number of resamples of the bootstrap over patients, and seed of its draws.

    Returns:
        ``setting, value, lo, hi, seeds, seed_sd``: AUC, mean over seeds; 0.5 is chance.
    """
    of = pd.Series(origin.to_numpy(), index=table["image_id"])
    train, test = (rows["image_id"].map(of).to_numpy() for rows in (feed.train, feed.clean))
    learn = np.isin(train, DISEASES)
    asked = np.isin(test, DISEASES) & (feed.clean["split"] == "test").to_numpy()
    weights = statistics.image_weights(feed.clean.loc[asked, "patient_id"], resamples, seed)
    found: dict[str, list[np.ndarray]] = {}
    for (setting, _), networks in students.items():
        if setting == "single":
            continue
        encoder = networks[DISEASES[0]]
        inside, outside = (
            encoder.encode(values).detach().numpy() for values in (feed.values[:, 0], feed.still)
        )
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        probe.fit(inside[learn], train[learn] == "amd")
        said = probe.decision_function(outside[asked])
        found.setdefault(setting, []).append(metrics.weighted_auc(test[asked] == "amd", said, weights))
    rows = []
    for setting, draws in found.items():
        each = [one[0] for one in draws]
        spread = np.std(each, ddof=1) if len(each) > 1 else np.nan
        rows.append(
            {"setting": setting}
            | statistics.from_weights(np.mean(draws, axis=0))
            | {"seeds": len(each), "seed_sd": spread}
        )
    return pd.DataFrame(rows)


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Mean cost of each setting on all labels, over the seeds.

    Args:
        table: ``costs`` of :class:`drstudy.papers.sall.runs.Results`.

    Returns:
        ``setting``; ``seconds`` of training; ``parameters`` of the networks that predict, without those that only training needs (a peer,
        projections, discriminators); ``epoch``, the selected epoch, from 1, the mean over the networks and seeds. The row ``teachers`` has the
        time of all teachers, folds included. The networks of ``single`` are the teachers of all labels, so its time is part of that row. The
        row ``shuffled teachers`` has the time of that control's teachers. Neither is counted in the rows of the students.
    """
    whole = table[table["fraction"] == 1]
    found = whole.groupby("setting", sort=False)[["seconds", "parameters", "epoch"]].mean()
    return found.reset_index()
