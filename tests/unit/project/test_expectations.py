"""The loader of expected numbers refuses a tolerance that guards nothing or that nobody measured."""

from __future__ import annotations

import json

import expectations
import pytest
from expectations import Expectation, load, tolerance

from drstudy.papers.registry import NOTEBOOKS

GOOD = {
    "stage": "03",
    "metric": "qwk",
    "reason": "training in single precision",
    "exact": False,
    "value": 0.4,
    "spread": 0.002,
    "family": "",
    "assumed": 0.002,
    "step": 0.0,
    "tolerance": 0.01,
    "seed_sd": 0.1,
    "measured": ("native-1", "avx2-1"),
}
COUNT = GOOD | {"exact": True, "value": 7, "spread": 0.0, "assumed": 0.0, "tolerance": 0.0, "seed_sd": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": 0.02}, "not by the rule, which gives 0.01"),
        ({"tolerance": 0.009}, "not by the rule"),
        ({"spread": 0.0, "assumed": 0.0}, "not by the rule"),
        ({"assumed": 0.001, "tolerance": 0.005}, "largest of the family"),
        ({"assumed": 0.003, "tolerance": 0.015}, "largest of the family"),
        ({"spread": 0.09, "assumed": 0.09, "tolerance": 0.45, "seed_sd": None}, "not below the value"),
        ({"value": 0.0}, "not below the value"),
        ({"value": -0.005}, "not below the value"),
        ({"seed_sd": 0.019}, r"above 0\.5 times 0\.019, the standard deviation over seeds"),
        ({"spread": -0.1}, "below 0"),
        ({"tolerance": -0.1}, "below 0"),
        ({"reason": " "}, "reason is missing"),
        ({"measured": ("native-1",)}, "at least two settings"),
        ({"measured": ("native-1", "native-1")}, "at least two settings"),
        ({"exact": True}, "an exact number has no spread"),
        ({"exact": True, "spread": 0.0, "assumed": 0.0, "tolerance": 0.01}, "an exact number has no spread"),
    ],
)
def test_dishonest_tolerance_is_refused(change, message):
    Expectation(**GOOD)
    with pytest.raises(ValueError, match=message):
        Expectation(**GOOD | change)


def test_the_rule():
    assert tolerance(0.4, 0.002) == 0.01
    assert tolerance(0.4, 0.002, step=0.02) == 0.02, "at least one step of a number that moves in steps"
    assert tolerance(-0.4, 0.0) == pytest.approx(0.4e-9), "at least the rounding of double precision"
    Expectation(**GOOD | {"spread": 0.0, "assumed": 0.0, "step": 0.01})


def test_exact_numbers_have_no_tolerance():
    for value in (0, 7):
        one = Expectation(**COUNT | {"value": value})
        assert one.holds(value)
        assert not one.holds(value + 1)


def test_tolerance_is_both_ways():
    one = Expectation(**GOOD)
    assert [one.holds(x) for x in (0.389, 0.391, 0.409, 0.411)] == [False, True, True, False]


def test_files_are_honest_and_each_is_of_a_notebook():
    assert len(load()) > 10
    for file in expectations.EXPECTED.iterdir():
        assert file.stem in NOTEBOOKS
        assert {entry["stage"].partition("/")[0] for entry in json.loads(file.read_text())} == {file.stem}


def test_what_is_written_is_read_again(tmp_path):
    made = [GOOD, COUNT | {"stage": "01_data_audit"}, GOOD | {"stage": "03/densenet121-seed0"}]
    expectations.write(made, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"01_data_audit.json", "03.json"}
    assert expectations.entries(tmp_path) == [
        one | {"measured": list(one["measured"])} for one in (made[1], made[0], made[2])
    ]


def test_file_was_measured_under_several_kinds():
    kinds = {name.split("-")[0] for one in load() for name in one.measured}
    assert len(kinds) >= 2


def test_unknown_field_is_refused(tmp_path):
    file = tmp_path / "03.json"
    file.write_text(json.dumps([GOOD | {"reasons": "x"}]))
    with pytest.raises(TypeError, match="reasons"):
        load(tmp_path)


def test_an_entry_is_made_of_what_was_measured():
    found = {"native-1": 0.4, "native-2": 0.401, "avx2-1": 0.399}
    made = expectations.entry(GOOD, found, [0.4, 0.5, 0.3])
    assert made["value"] == 0.4
    assert made["spread"] == pytest.approx(0.002)
    assert made["tolerance"] == pytest.approx(0.01)
    assert made["seed_sd"] == pytest.approx(0.1)
    assert made["measured"] == ["native-1", "native-2", "avx2-1"]
    Expectation(**made)


def test_a_machine_that_emulates_fewer_kinds_keeps_the_larger_spread():
    old = GOOD | {"measured": ["native-1", "native-2", "avx512-1"]}
    found = {"native-1": 0.41, "native-2": 0.4101}
    made = expectations.entry(old, found, [])
    assert (made["value"], made["spread"]) == (0.41, 0.002)
    assert made["measured"] == ["native-1", "native-2", "avx512-1 (earlier)"]
    again = expectations.entry(made, found | {"avx512-1": 0.4102}, [])
    assert again["spread"] == pytest.approx(0.0002), "what is measured anew replaces what was kept"
    assert again["measured"] == ["native-1", "native-2", "avx512-1"]


def test_a_family_shares_its_largest_spread(tmp_path):
    one, other = (
        GOOD | {"family": "qwk"},
        GOOD | {"family": "qwk", "metric": "qwk2", "spread": 0.004, "assumed": 0.004},
    )
    made = expectations.share_spreads([one, other, GOOD])
    assert [x["assumed"] for x in made] == [0.004, 0.004, 0.002]
    assert [x["tolerance"] for x in made] == pytest.approx([0.02, 0.02, 0.01])
    file = tmp_path / "03.json"
    file.write_text(json.dumps(made))
    assert len(load(tmp_path)) == 3
    file.write_text(json.dumps([made[0], one | {"metric": "qwk3"}]))
    with pytest.raises(ValueError, match="not the largest spread of family qwk"):
        load(tmp_path)


def test_an_exact_number_that_moved_is_refused():
    made = expectations.entry(COUNT, {"native-1": 7, "avx2-1": 8}, [])
    with pytest.raises(ValueError, match="an exact number has no spread"):
        Expectation(**made)


def test_settings_are_those_that_can_be_run_here(monkeypatch):
    monkeypatch.setattr(expectations.processors, "available", lambda: ["avx2", "sse4"])
    assert [str(s) for s in expectations.settings()] == ["native-1", "native-2", "avx2-1"]
