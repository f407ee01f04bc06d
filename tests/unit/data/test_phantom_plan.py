"""The fundus phantom: the grading rule, the configuration and the plan."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from drstudy.data.phantom import (
    DISTRIBUTIONS,
    QUADRANTS,
    PhantomConfig,
    grade_from_lesions,
    plan,
)


def lesions(**counts: int | tuple[int, ...]) -> list[dict[str, str]]:
    """Hand-made lesion sets: ``HE=(21, 21, 21, 20)`` is that many in ST, SN, IT, IN; ``MA=3`` three in ST."""
    rows = []
    for code, per in counts.items():
        code, _, kind = code.partition("_")
        for quadrant, count in zip(QUADRANTS, (per, 0, 0, 0) if isinstance(per, int) else per, strict=True):
            rows += [{"code": code, "quadrant": quadrant, "kind": kind}] * count
    return rows


# ---- the rule --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "grade"),
    [
        (lesions(), 0),
        (lesions(LASER=90, DRUSEN=30), 0),
        (lesions(MA=1), 1),
        (lesions(MA=80, LASER=9), 1),
        (lesions(HE=1), 2),
        (lesions(EX=1), 2),
        (lesions(SE=1), 2),
        (lesions(MA=2, VB=3), 2),  # beading in one quadrant only, however often
        (lesions(IRMA_mild=5), 2),
        (lesions(HE=(21, 21, 21, 20)), 2),  # "more than 20 in each": 20 is not enough
        (lesions(HE=(500, 500, 500, 0)), 2),
        (lesions(HE=(21, 21, 21, 21)), 3),
        (lesions(VB=(1, 1, 0, 0)), 3),
        (lesions(VB=(1, 0, 0, 1)), 3),
        (lesions(IRMA_prominent=1), 3),
        (lesions(IRMA=1), 3),
        (lesions(NV=1), 4),
        (lesions(PRH=1), 4),
        (lesions(NV=1, HE=(21, 21, 21, 21), VB=(1, 1, 1, 1)), 4),
    ],
)
def test_icdr_rule(found, grade):
    assert grade_from_lesions(found) == grade
    assert grade_from_lesions(pd.DataFrame(found, columns=["code", "quadrant", "kind"])) == grade


def test_icdr_rule_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="unknown lesion code"):
        grade_from_lesions([{"code": "XX", "quadrant": "ST"}])
    with pytest.raises(ValueError, match="quadrant"):
        grade_from_lesions([{"code": "HE", "quadrant": "upper"}])


# ---- the configuration and the plan ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n_patients": 0}, "n_patients must be from 1"),
        ({"size": 4096}, "size must be from 64 to 2048"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 1.5}, "seed must be an integer"),
        ({"n_patients": True}, "integer"),
        ({"difficulty": 1.2}, "difficulty is a share from 0 to 1"),
        ({"difficulty": float("nan")}, "difficulty"),
        ({"label_noise": "much"}, "label_noise must be a number"),
        ({"ungradable": 3}, "write 0.03 for 3 %"),
        ({"distribution": "eyepac"}, "did you mean 'eyepacs'"),
        ({"distribution": (1, 2, 3)}, "five finite numbers"),
        ({"distribution": (0, 0, 0, 0, 0)}, "not all 0"),
        ({"distribution": (1, -1, 1, 1, 1)}, "five finite numbers"),
        ({"distribution": 5}, "five numbers"),
    ],
)
def test_configuration_errors(wrong, says):
    with pytest.raises((ValueError, TypeError), match=says):
        PhantomConfig(**wrong)


def test_configuration_round_trip():
    config = PhantomConfig(n_patients=7, distribution=(1, 2, 3, 4, 5), difficulty=1)
    assert PhantomConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="did you mean 'difficulty'"):
        PhantomConfig.from_dict({"dificulty": 1})


def test_plan_columns_and_prefix():
    table = plan(PhantomConfig(n_patients=30, label_noise=0.3))
    assert list(table.columns[:6]) == ["image_id", "patient_id", "eye", "grade", "label", "gradable"]
    assert table["image_id"].is_unique
    assert (table["image_id"] == table["patient_id"] + "_" + table["eye"]).all()
    assert table.groupby("patient_id")["eye"].agg(" ".join).eq("left right").all()
    shorter = plan(PhantomConfig(n_patients=10, label_noise=0.3))
    pd.testing.assert_frame_equal(shorter, table[:20])


@pytest.mark.parametrize("distribution", ["eyepacs", "mild", (0, 1, 0, 1, 1)])
def test_plan_follows_the_distribution(distribution):
    n = 3000
    table = plan(PhantomConfig(n_patients=n, distribution=distribution, seed=3))
    shares = np.array(DISTRIBUTIONS[distribution] if isinstance(distribution, str) else distribution, float)
    shares /= shares.sum()
    found = np.bincount(table["grade"], minlength=5) / (2 * n)
    # 5 standard errors, with 3000 (not 6000) independent draws because fellow eyes resemble each other
    assert (np.abs(found - shares) <= 5 * np.sqrt(shares * (1 - shares) / n)).all()
    assert (found[shares == 0] == 0).all()


def test_fellow_eyes_resemble_each_other():
    table = plan(PhantomConfig(n_patients=1500))
    left, right = (table[table["eye"] == eye]["grade"].to_numpy() for eye in ("left", "right"))
    assert 0.7 < np.corrcoef(left, right)[0, 1] < 0.95
    assert (left != right).mean() > 0.05


def test_label_noise_moves_to_neighbours_only():
    table = plan(PhantomConfig(n_patients=1500, label_noise=0.2))
    moved = table["label"] - table["grade"]
    assert set(moved) == {-1, 0, 1}
    assert 0.17 < (moved != 0).mean() < 0.23  # 0.2 with 3000 draws: standard error 0.0073
    assert table["label"].between(0, 4).all()
    clean = plan(PhantomConfig(n_patients=1500))
    assert (clean["label"] == clean["grade"]).all()
    assert (clean["grade"] == table["grade"]).all()
