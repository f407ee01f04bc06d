"""Predictions in the common form: what is written is read, five probabilities are turned into it, and what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fabricated import eyes, fine_tuning, graded

from drstudy.evaluation import common
from drstudy.evaluation.metrics import PredictionError


def some(count: int = 4) -> pd.DataFrame:
    ids = [f"e{k}" for k in range(count)]
    about = {"image_id": ids, "patient_id": ids, "split": "test", "grade": np.arange(count) % 5}
    return pd.DataFrame(about)


def test_five_probabilities_become_a_score_and_a_grade(own_folders):
    images = graded(eyes(20), 2, 1)
    record = fine_tuning(images, "densenet121")
    found = common.read(record, "predictions.csv")
    test = found[found["split"] == "test"].set_index("image_id").loc[images["image_id"]]
    p = images[[f"p{k}" for k in range(5)]].to_numpy()
    np.testing.assert_allclose(test["score"], p[:, 2:].sum(axis=1), rtol=0, atol=1e-12)
    assert test["predicted"].tolist() == p.argmax(axis=1).tolist()
    assert (test["probability"] == test["score"]).all()


def test_what_is_written_is_read_to_the_last_digit(own_folders):
    record = fine_tuning(graded(eyes(5), 2, 1), "densenet121")
    frame = common.frame(some(), np.array([0.1, 1 / 3, 2.5, -1]))
    common.write(frame, record.folder / common.FILE)
    found = common.read(record)
    assert found["score"].tolist() == [0.1, 1 / 3, 2.5, -1]
    assert found["probability"].isna().all()
    assert found["grade"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"score": [0.1, np.nan, 0.2, 0.3]},
            "have a score that is missing or not finite; the first is image_id e1",
        ),
        (
            {"probability": [0.1, 0.2, 1.2, 0.3]},
            "have a probability outside 0 to 1; the first is image_id e2",
        ),
        ({"probability": [0.1, np.nan, 0.2, 0.3]}, "have no probability although other rows have one"),
        ({"predicted": [0, 1, 5, 2]}, "have a predicted grade that is not 0, 1, 2, 3 or 4"),
        ({"grade": [0, 1, 2.5, 3]}, "have a grade that is not"),
        ({"split": ["test", "test", "exam", "test"]}, "have a split other than"),
        ({"image_id": ["e0", "e1", "e1", "e3"]}, "repeat an image_id; the first is image_id e1"),
        ({"patient_id": ["e0", None, "e2", "e3"]}, "have no image_id or no patient_id"),
    ],
)
def test_what_does_not_fit_is_refused(change, problem):
    frame = common.frame(some(), np.arange(4.0))
    with pytest.raises(PredictionError, match=problem):
        common.check(frame.assign(**change))


def test_a_file_of_neither_form_is_told(own_folders):
    record = fine_tuning(graded(eyes(5), 2, 1), "densenet121")
    with pytest.raises(PredictionError, match=r"history\.csv: it has neither p0"):
        common.read(record, "history.csv")


def test_patients_who_are_measured_fix_no_cut():
    measured, validation = some(2), some(4).assign(split="validation")
    found = common.eyes(measured, validation)
    assert found["split"].tolist() == ["test", "test", "validation", "validation"]
    assert found["image_id"].tolist() == ["e0", "e1", "e2", "e3"]
    assert common.eyes(measured)["split"].tolist() == ["test", "test"]
