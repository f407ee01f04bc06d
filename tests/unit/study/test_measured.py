"""Tables of what benchmarks measured, from made-up measurements."""

from __future__ import annotations

import pandas as pd
import pytest

from drstudy.study import measured


def line(work: str, ours: float, device: str = "GPU X, bf16, 16 thread(s)", **more) -> dict:
    return {
        "script": "device_speed",
        "name": f"device_speed, {work}",
        "device": device,
        "ours": ours,
        "other": 2 * ours,
        "same_result": True,
    } | more


ROWS = [
    line("densenet121, features of augmented views", 6.0, largest_difference=0.02),
    line("densenet121, an epoch as the paper trains", 12.0),
    line("densenet121, Grad-CAM", 3.0, rank_correlation=0.98),
    line("efficientnet_lite0, Grad-CAM", 1.0, rank_correlation=0.9),
    line("densenet121, Grad-CAM", 90.0, device="CPU, bf16, 2 thread(s)", rank_correlation=1.0),
    {"script": "bootstrap", "name": "bootstrap"},
]


def test_only_measurements_on_a_gpu_are_shown():
    found = measured.speed(ROWS)
    assert found["device"].unique().tolist() == ["GPU X"]
    assert len(found) == 4
    assert found.loc[0, "agreement of both"] == "largest difference 2.0% of the largest value"
    assert found.loc[1, "agreement of both"] == "losses are finite"
    assert found.loc[2, "agreement of both"] == "median rank correlation 0.98"
    assert (found.loc[2, "s per 1,000 photographs"], found.loc[2, "the same in fp32"]) == ("3", "6")


def test_the_whole_set_is_computed_from_the_rates_of_densenet121():
    found = measured.computed(ROWS).set_index("work")["minutes, computed"]
    training, test = 0.8 * 35126, 0.2 * 35126
    assert float(found["100 epochs as the main paper trains"]) == pytest.approx(
        100 * training * 0.012 / 60, rel=1e-3
    )
    assert float(found["Grad-CAM of the test photographs"]) == pytest.approx(test * 0.003 / 60, abs=0.05)
    assert len(found) == 3, "what was not measured is not computed"


def test_the_newest_rehearsal_is_shown_stage_by_stage():
    assert measured.rehearsal(ROWS).empty
    old = {"script": "whole_size", "name": "whole_size", "stages": [[10, "01_data_audit", 1.0, 100.0]]}
    new = old | {
        "stages": [
            [10, "01_data_audit", 5.0, 200.0],
            [20, "01_data_audit", 9.6, 230.0],
            [20, "report", 3.0, 90.0],
        ]
    }
    found = measured.rehearsal([old, new])
    expected = pd.DataFrame(
        {
            "stage": ["01 data audit", "report"],
            "10 photographs, s": ["5", None],
            "peak memory, MiB": ["230", "90"],
            "20 photographs, s": ["10", "3"],
        }
    )
    pd.testing.assert_frame_equal(found.where(found.notna(), None), expected, check_dtype=False)
