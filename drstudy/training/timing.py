"""What a system costs: seconds to train, and seconds per eye. Times are of the machine that ran it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from drstudy.training.loop import Fit


def seconds_to_train(fits: Iterable[Fit]) -> float:
    """Time of all epochs of some trainings, and of the features that were stored for them.

    An epoch counts with the median time of the epochs of its training, validation included. A training that was found in the store of trained
    models has the times of the run that trained.
    """
    return float(
        sum(fit.seconds_prepare + fit.history["epoch"].max() * fit.seconds_per_epoch for fit in fits)
    )


def seconds_per_eye(infer: Callable[[np.ndarray], Any], rows: np.ndarray, eyes: int = 16) -> float:
    """Time that one eye takes, from the stored photograph to the output, in batches.

    Args:
        infer: Function that runs a system on the photographs of some rows of the image store.
        rows: (N,) rows of the image store.
        eyes: Number of eyes that are timed, at most. One call before warms up and does not count.

    Returns:
        Seconds per eye; NaN without rows.
    """
    timed = np.asarray(rows)[:eyes]
    if not len(timed):
        return float("nan")
    infer(timed[:1])
    began = time.perf_counter()
    infer(timed)
    return (time.perf_counter() - began) / len(timed)
