"""Time of 2,000 bootstrap resamples over patients, for every metric of Table 2 at every cut, compared with a loop over scikit-learn's functions.

The loop is timed on some of the resamples, and its time is extrapolated. On these resamples its numbers are compared with ours. On both sides, the
study's own generator draws the patients of a resample.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from side_by_side import alternate, options, report, set_threads

CUTS = (1, 2, 3, 4)


def cohort(patients: int) -> pd.DataFrame:
    """Two eyes per patient with similar grades, and predictions that are mostly right."""
    random = np.random.default_rng(0)
    severity = np.repeat(random.normal(size=patients), 2) + 0.4 * random.normal(size=2 * patients)
    grade = np.searchsorted(np.quantile(severity, (0.73, 0.80, 0.95, 0.98)), severity)
    logits = -0.7 * (np.arange(5) - (grade + 0.8 * random.normal(size=len(grade)))[:, None]) ** 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ids = np.repeat(np.arange(patients), 2).astype(str)
    return pd.DataFrame(
        {"image_id": np.arange(len(grade)).astype(str), "patient_id": ids, "grade": grade}
    ).assign(**{f"p{k}": p[:, k] for k in range(5)})


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        patients=(10_000, 1_000, "patients, two eyes each"),
        resamples=(2_000, 400, "resamples of ours"),
        loop=(4, 4, "resamples of the loop, extrapolated"),
        repeats=(5, 5, "measurements"),
    )
    set_threads(given.threads)
    from sklearn.metrics import accuracy_score, cohen_kappa_score, recall_score, roc_auc_score

    from drstudy.evaluation import statistics

    predictions = cohort(given.patients)
    grade = predictions["grade"].to_numpy()
    p = predictions[[f"p{k}" for k in range(5)]].to_numpy()
    predicted, scores = p.argmax(1), np.cumsum(p[:, ::-1], axis=1)[:, ::-1]
    counts = statistics.resample_counts(predictions["patient_id"], given.resamples, 0)[: given.loop]
    _, patient = np.unique(predictions["patient_id"], return_inverse=True)

    def loop() -> pd.DataFrame:
        rows = []
        for drawn in counts:
            images = np.repeat(np.arange(len(grade)), drawn[patient])
            y, z, s = grade[images], predicted[images], scores[images]
            row = {"accuracy": accuracy_score(y, z), "qwk": cohen_kappa_score(y, z, weights="quadratic")}
            for k in range(5):
                row[f"recall_grade{k}"] = recall_score(y == k, z == k)
            for cut in CUTS:
                row[f"sensitivity_ge{cut}"] = recall_score(y >= cut, z >= cut)
                row[f"specificity_ge{cut}"] = recall_score(y < cut, z < cut)
                row[f"accuracy_ge{cut}"] = accuracy_score(y >= cut, z >= cut)
                row[f"auc_ge{cut}"] = roc_auc_score(y >= cut, s[:, cut])
            rows.append(row)
        return pd.DataFrame(rows)

    seconds, results = alternate(
        {"ours": lambda: statistics.resampled(predictions, given.resamples, 0), "loop": loop}, given.repeats
    )
    names = list(results["loop"])
    gap = np.abs(results["ours"][names].iloc[: given.loop].to_numpy() - results["loop"].to_numpy()).max()
    report(
        "bootstrap",
        seconds["ours"],
        seconds["loop"] * given.resamples / given.loop,
        f"s for {given.resamples} resamples, the loop extrapolated from {given.loop}",
        bool(gap < 1e-12),
        greatest_difference=float(gap),
        patients=given.patients,
        metrics_ours=results["ours"].shape[1],
        metrics_loop=len(names),
    )


if __name__ == "__main__":
    main()
