"""What a system costs: seconds of its trainings, seconds per eye."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from drstudy.training import timing
from drstudy.training.loop import Fit


def fit(epochs: int, per_epoch: float, prepare: float) -> Fit:
    history = pd.DataFrame({"epoch": np.repeat(np.arange(1, epochs + 1), 2), "step": range(2 * epochs)})
    return Fit(history, 1, per_epoch, seconds_prepare=prepare)


def test_all_epochs_count_and_so_do_stored_features():
    assert timing.seconds_to_train([fit(3, 2.0, 5.0), fit(4, 0.5, 0.0)]) == pytest.approx(3 * 2 + 5 + 4 * 0.5)


def test_seconds_per_eye_leave_the_first_call_out():
    calls = []

    def infer(rows):
        calls.append(rows.tolist())
        time.sleep(0.3 if len(calls) == 1 else 0.02 * len(rows))

    found = timing.seconds_per_eye(infer, np.arange(40), eyes=4)
    assert calls == [[0], [0, 1, 2, 3]]
    assert found >= 0.02
    assert found < 0.07, "the slow first call would bring 0.075 per eye"


def test_no_eye_takes_no_time():
    assert np.isnan(timing.seconds_per_eye(lambda rows: None, np.empty(0, int)))
