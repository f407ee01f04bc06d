"""Numbers of a fine-tuned network that claims of the main study look up, beside its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from drstudy.core.records import Record
from drstudy.evaluation import metrics, statistics
from drstudy.papers.base import Interval
from drstudy.show import figures


def final_loss(record: Record) -> Interval:
    """Mean training loss of the last epoch, nats; a training loss has no interval over patients."""
    history = pd.read_csv(record.path("history.csv"))
    return float(history.loc[history["epoch"] == history["epoch"].max(), "loss"].mean()), np.nan, np.nan


def steps_to_settle(record: Record) -> Interval:
    """Steps until the smoothed training loss has made nine tenths of its way down to its least value."""
    history = pd.read_csv(record.path("history.csv"))
    loss = figures.smoothed(history["loss"], 0.9)
    return (
        float(history["step"][loss <= loss.min() + 0.1 * (loss.iloc[0] - loss.min())].iloc[0]),
        np.nan,
        np.nan,
    )


def severe_predicted_normal(record: Record) -> Interval:
    """Share of grade 0 among the wrong predictions for test eyes of grade 3, minus the 1/4 that evenly spread errors would give."""
    test = metrics.read_predictions(record.path("predictions.csv"))
    grade, _, predicted = metrics.arrays(test)
    wrong = (grade == 3) & (predicted != 3)
    sums = np.column_stack([wrong & (predicted == 0), wrong]).astype(float)
    if not wrong.any():
        return np.nan, np.nan, np.nan
    drawn = statistics.resampled_sums(sums, test["patient_id"], 1000, seed=0)
    shares = np.divide(drawn[:, 0], drawn[:, 1], out=np.full(len(drawn), np.nan), where=drawn[:, 1] > 0)
    found = statistics.percentiles(sums[:, 0].sum() / wrong.sum() - 0.25, shares - 0.25)
    return found["value"], found["lo"], found["hi"]


MEASURES = {
    "final_loss": final_loss,
    "steps_to_settle": steps_to_settle,
    "severe_predicted_normal": severe_predicted_normal,
}
"""Name of a measure, as ``claims.yaml`` writes it, to its function."""
