"""Numbers with their intervals as text."""

import numpy as np
import pandas as pd
import pytest

from drstudy.show import intervals


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.714, 0.618, 0.8), "0.71 [0.62, 0.80]"),
        ((77.04, 70.0, 81.26, 1), "77.0 [70.0, 81.3]"),
        ((-0.001, -0.1, 0.1), "0.00 [-0.10, 0.10]"),
        ((0.89, np.nan, np.nan), "0.89"),
        ((np.nan, np.nan, np.nan), "undefined"),
    ],
)
def test_interval(arguments, text):
    assert intervals.text(*arguments) == text


def test_a_number_that_is_undefined_in_some_resamples_has_a_dagger():
    assert intervals.text(0.5, 0.4, 0.6, 1, complete=False) == "0.5 [0.4, 0.6] †"
    table = pd.DataFrame({"value": [0.5, 0.5], "lo": 0.4, "hi": 0.6, "n_valid": [9, 10], "resamples": 10})
    assert intervals.column(table, 1) == ["0.5 [0.4, 0.6]"] * 2


def test_differences_have_a_sign_and_as_many_digits_as_their_size():
    assert intervals.difference(0.123, -0.001, 0.5) == "+0.12 (0.00 to 0.50)"
    assert intervals.difference(-12.3, -20, np.float64(-1)) == "-12.3 (-20.0 to -1.0)"
    assert intervals.difference(1.0, np.nan, np.nan) == "+1.0"
    assert intervals.difference(np.nan, np.nan, np.nan) == "-"


def test_signs_of_all_three_numbers_keep_the_direction_of_what_rounds_to_zero():
    assert intervals.text(-0.04, -0.1, 0.04, 1, signs="all", unit=" points") == "-0.0 points [-0.1, +0.0]"
    assert intervals.text(-0.04, -0.1, 0.04, 1, signs="value", form="(to)") == "+0.0 (-0.1 to 0.0)"
    assert intervals.text(float("nan"), 0, 1, missing="none") == "none"


def test_a_row_gives_its_number_and_its_ends():
    row = {"heat": 0.1, "heat_lo": 0.05, "heat_hi": 0.2, "other": 7}
    assert intervals.of(row, "heat", 100) == pytest.approx((10, 5, 20))
