"""What the checks say in words: from tables made by hand, and on a small network."""

import numpy as np
import pandas as pd
import pytest

from drstudy.evaluation import statistics
from drstudy.explain.checks import verdicts
from drstudy.show import map_tables


def sane(**spearman):
    """Rows of verdicts.sane: two stages of a cascade and one of shuffled labels, by method."""
    rows = []
    for method, values in spearman.items():
        for step, value in enumerate(values, 1):
            check = "random weights" if step < 3 else "shuffled labels"
            low, high = (np.nan, np.nan) if np.isnan(value) else (value - 0.1, value + 0.1)
            verdict = (
                "no interval"
                if np.isnan(low)
                else "survives"
                if low > 0.5
                else "is lost"
                if low < 0
                else "survives in part"
            )
            rows.append(
                {
                    "method": method,
                    "check": check,
                    "stage": "head" if step < 3 else np.nan,
                    "step": step if step < 3 else 1,
                }
                | {"eyes": 9, "spearman": value, "spearman_lo": low, "spearman_hi": high, "verdict": verdict}
                | {"ssim": 0.2, "ssim_lo": 0.1, "ssim_hi": 0.3}
            )
    return pd.DataFrame(rows)


def test_a_map_that_survives_is_named():
    said = map_tables.survivors(sane(grad_cam=(0.9, 0.0, 0.05), guided_backprop=(0.95, 0.8, 0.3)))
    assert "guided_backprop (random weights: rank correlation 0.80, survives)" in said
    assert "guided_backprop (shuffled labels: rank correlation 0.30, survives in part)" in said
    assert "grad_cam (" not in said, "a head alone is not the whole network"
    deeper = sane(grad_cam=(0.9, 0.0, 0.05))
    deeper.loc[deeper["check"] == "random weights", "step"] = [2, 3]
    assert "grad_cam (random from the head down to head: 0.90, survives)" in map_tables.survivors(deeper)
    assert "None of the tested maps (grad_cam)" in map_tables.survivors(sane(grad_cam=(0.9, 0.0, 0.05)))
    assert "too few patients" in map_tables.survivors(sane(grad_cam=(0.9, np.nan, np.nan)))


def test_readers_of_the_cascade_see_its_last_stage():
    shown = map_tables.sanity(sane(grad_cam=(0.9, 0.0, 0.05)))
    assert shown["check"].tolist() == ["all weights random", "shuffled labels"]
    assert shown["rank correlation"].tolist() == ["+0.00 (-0.10 to 0.10)", "+0.05 (-0.05 to 0.15)"]
    assert shown["stage"].tolist() == ["", ""]


def test_less_is_better_for_deletion():
    row = {
        "map": "grad_cam",
        "eyes": 9,
        "value": 0.2,
        "difference": -0.1,
        "difference_lo": -0.2,
        "difference_hi": -0.05,
    }
    found = pd.DataFrame(
        [
            row | {"measure": "deletion", "better": "less"},
            row | {"measure": "insertion", "better": "more"},
            row | {"measure": "ROAD", "better": "more", "difference_hi": 0.1},
            row | {"measure": "ROAD", "better": "more", "difference_lo": np.nan, "difference_hi": np.nan},
        ]
    )
    assert map_tables.faithfulness(found)["verdict"].tolist() == [
        "better than random",
        "worse than random",
        "no better than random",
        "too few patients",
    ]


def test_eyes_that_are_checked_have_a_lesion_and_a_map():
    measured = pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "a"],
            "kind": ["mask", "mask", "mask", "part"],
            "region": "lesion",
            "status": ["measured", "empty mask", "no heat", "measured"],
        }
    )
    eyes = pd.DataFrame({"image_id": list("abcd"), "grade": [1, 0, 2, 3]})
    assert verdicts.choose(measured, eyes, 4, 0)["image_id"].tolist() == ["a"]


def test_gain_is_over_grad_cam_and_chance_is_random_on_the_same_grid():
    random, rows = np.random.default_rng(0), []
    for number in range(12):
        for layer, base in (
            ("grad_cam", 0.1),
            ("finer: x", 0.3),
            ("random 7x7", 0.05),
            ("random 14x14", 0.05),
        ):
            value = base + 0.01 * random.random()
            about = {"image_id": f"{number}", "layer": layer, "kind": "mask", "region": "lesion"}
            rows.append(about | dict.fromkeys(verdicts.comparison.METRICS, value))
    patients = {f"{number}": f"p{number // 2}" for number in range(12)}
    grids = {"grad_cam": (7, 7), "finer: x": (14, 14)}
    blind, gain = verdicts.beside_grad_cam(pd.DataFrame(rows), grids, patients, 100, 0)
    assert dict(zip(blind["layer"], blind["against"])) == {
        "grad_cam": "random 7x7",
        "finer: x": "random 14x14",
    }
    assert (blind["difference_lo"] > 0).all()
    shown = map_tables.gain(gain)
    assert shown["map"].tolist() == ["finer: x"]
    assert shown["average precision, gain in points"].iloc[0].startswith("+2")


@pytest.mark.slow
def test_every_check_runs_on_a_small_network_and_leaves_it_as_it_was():
    import torch

    from drstudy.core import devices
    from drstudy.models import nets, weights

    compute = devices.setup("cpu", "fp32", 1, 0)
    net = nets.build("efficientnet_lite0", "single", "bundled").eval()
    before = weights.digest_of(net.state_dict())
    x = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    raw, target = verdicts.several(net, x, compute, costly=True, steps=2)
    assert {"grad_cam", "layer_cam", "guided_backprop", "finer: fusion", "finer: stride 1"} <= set(raw)
    assert all(len(maps) == 6 and np.isfinite(maps).all() for maps in raw.values())
    assert set(verdicts.several(net, x[:2], compute, costly=False)[0]) == set(verdicts.methods.FAST)
    patients = list("abcdef")
    found = verdicts.faithful(net, x, {"grad_cam": raw["grad_cam"]}, target, patients, 50, 0)
    assert found["measure"].nunique() == len(verdicts.FAITHFULNESS)
    twin = nets.build("efficientnet_lite0", "single", "bundled", seed=1).eval()
    table = verdicts.sane(net, x, raw, target, patients, {"itself": net, "twin": twin}, 50, 0)
    same = table[table["check"] == "itself"].iloc[0]
    assert same["spearman"] == pytest.approx(1)
    assert same["verdict"] == "survives"
    assert set(table["method"]) == set(verdicts.SANITY_METHODS)
    assert len(map_tables.sanity(table)) == 2 + 2 * 2 + 2
    assert weights.digest_of(net.state_dict()) == before
    assert statistics.FEWEST_PATIENTS <= 6
