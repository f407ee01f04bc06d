"""The numbers of the ledger's claims about GLAM, on fabricated scores."""

import numpy as np
import pandas as pd
import pytest
import yaml

from drstudy.papers.glam import claimed, maps, paper
from drstudy.papers.glam.params import TOGETHER

EYES = [f"p{number}_left" for number in range(8)]
PATIENTS = {name: name.split("_")[0] for name in EYES}
DICE = {maps.GLOBAL: 0.5, maps.LOCAL: 0.6, maps.DISEASE: 0.1, maps.BAG: 0.4, maps.RELEASED[1]: 0.0}


@pytest.fixture
def eyes():
    rows = []
    for k, image_id in enumerate(EYES):
        for name, dice in DICE.items():
            row = {"image_id": image_id, "map": name, "region": TOGETHER, "present": True}
            rows.append(row | {"dice_cut": dice + 0.01 * k, "aupr_over_chance": 0.02})
            rows.append(row | {"region": "MA", "dice_cut": 0.0, "aupr_over_chance": -1.0})
        healthy = {"image_id": f"{image_id}_healthy", "map": maps.LOCAL, "region": TOGETHER, "present": False}
        rows.append(healthy | {"dice_cut": np.nan, "aupr_over_chance": np.nan})
    return pd.DataFrame(rows)


def cuts(**dice) -> pd.DataFrame:
    rows = [{"map": name, "region": TOGETHER, "dice": value} for name, value in dice.items()]
    return pd.DataFrame([*rows, {"map": maps.SUPERVISED, "region": TOGETHER, "dice": 0.9}])


def found(eyes, chosen) -> pd.DataFrame:
    return claimed.claims(eyes, chosen, PATIENTS, 200, 0).set_index("quantity")


def test_the_gain_is_over_the_best_existing_map_on_validation(eyes):
    table = found(eyes, cuts(**{maps.DISEASE: 0.2, maps.BAG: 0.1}))
    assert table.loc["Dice, relative gain", "against"] == maps.DISEASE
    mean = np.arange(8).mean() * 0.01
    assert table.loc["Dice, relative gain", "value"] == pytest.approx((0.6 + mean) / (0.1 + mean) - 1)
    assert table.loc["Dice, difference", ["value", "lo", "hi"]].to_numpy(float) == pytest.approx([0.5] * 3)
    assert table.loc["Dice, second step", "value"] == pytest.approx(0.1)
    assert table.loc["released, average precision over chance", "value"] == pytest.approx(0.02)


def test_the_upper_bound_is_no_existing_map():
    assert claimed.best_existing(cuts(**{maps.BAG: 0.3, maps.RAM: 0.35})) == maps.RAM
    assert claimed.best_existing(cuts()) == ""


def test_every_claim_has_its_quantity(eyes):
    quantities = set(found(eyes, cuts(**{maps.BAG: 0.3})).index)
    asked = yaml.safe_load(paper.PAPER.claims.read_text())
    assert {one["where"]["quantity"] for claim in asked for one in claim["evidence"]} == quantities


def test_without_a_second_step_its_gain_is_unknown(eyes):
    table = found(eyes[eyes["map"] != maps.LOCAL], cuts(**{maps.BAG: 0.3}))
    assert np.isnan(table.loc["Dice, second step", "value"])
    assert table.loc["Dice, difference", "value"] == pytest.approx(0.1)
