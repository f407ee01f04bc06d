"""The loader of expected numbers refuses a tolerance that guards nothing."""

from __future__ import annotations

import pytest
from expectations import Expectation, load

GOOD = {"stage": "03", "metric": "qwk", "value": 0.4, "tolerance": 0.01, "reason": "rounding", "seed_sd": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": 0.4}, "not below the value"),
        ({"value": 0.0}, "not below the value"),
        ({"value": -0.005}, "not below the value"),
        ({"tolerance": 0.1}, "spread over seeds"),
        ({"tolerance": -0.1}, "below 0"),
        ({"reason": " "}, "needs its reason"),
    ],
)
def test_dishonest_tolerance_is_refused(change, message):
    Expectation(**GOOD)
    with pytest.raises(ValueError, match=message):
        Expectation(**GOOD | change)


def test_count_of_zero_may_be_exact():
    zero = Expectation(**GOOD | {"value": 0, "tolerance": 0})
    assert zero.holds(0)
    assert not zero.holds(1)


def test_tolerance_is_both_ways():
    one = Expectation(**GOOD)
    assert [one.holds(x) for x in (0.389, 0.391, 0.409, 0.411)] == [False, True, True, False]


def test_file_is_honest():
    assert len(load()) > 10


def test_unknown_field_is_refused(tmp_path):
    file = tmp_path / "expected.json"
    file.write_text('[{"stage": "03", "metric": "qwk", "value": 1, "tolerance": 0, "reasons": "x"}]')
    with pytest.raises(TypeError, match="reasons"):
        load(file)
