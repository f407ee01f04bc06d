"""Tables, pictures and claims of notebook 15 by hand, and its stages."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from drstudy.papers.base import Profile
from drstudy.papers.gan import grids, paper, pictures, tables, worth
from drstudy.papers.gan.params import PRETRAINING, SCRATCH, TRANSFER, Gan
from drstudy.study import plan


@pytest.fixture(autouse=True)
def _no_window():
    mpl.use("Agg")


def some(counts, value):
    grades = np.repeat(np.arange(5), counts)
    return pictures.generated(np.full((len(grades), 16, 16, 3), value, np.uint8), grades)


def test_the_quiz_shows_as_many_real_as_generated_and_knows_the_answers():
    figure, answers = grids.quiz(some([5, 1, 0, 4, 2], 10), some([3, 3, 3, 3, 3], 200), 2, 0)
    # of each grade 2, 1, 0, 2, 2 of both kinds
    assert answers.groupby("answer").size().to_dict() == {"generated": 7, "real": 7}
    assert answers["picture"].tolist() == list(range(1, 15))
    assert not answers["answer"].eq("real").iloc[:7].all(), "in random order"
    for axis, answer in zip(figure.axes, answers["answer"]):
        assert axis.images[0].get_array().max() == (10 if answer == "real" else 200)
    real = answers.loc[answers["answer"] == "real", "picture"]
    assert grids.answers_in_words(answers) == f"Real: {', '.join(map(str, real))}. All others are generated."


def test_pictures_by_grade_leave_room_where_a_grade_has_none():
    figure = grids.by_grade({"real": some([3, 0, 1, 2, 9], 1), "generated": some([4] * 5, 2)}, 4)
    shown = [len(axis.images) for axis in figure.axes]
    assert shown == [1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    assert figure.axes[4].images[0].get_array().shape == (16, 64, 3)


def test_energy_with_and_without_transfer_is_compared_at_the_same_steps():
    found = pd.DataFrame(
        {
            "training": [TRANSFER] * 4 + [SCRATCH] * 4 + [PRETRAINING],
            "steps": [10, 20, 30, 40] * 2 + [10],
            "val_energy": [4.0, 3, 2, 1, 8, 7, 6, 5, 9],
        }
    )
    table = tables.transfer_curve(found)
    assert table["steps"].tolist() == [10, 20, 30, 40]
    assert table["with transfer"].tolist() == [4, 3, 2, 1]
    assert table["without transfer"].tolist() == [8, 7, 6, 5]
    assert tables.transfer_curve(found[found["training"] != SCRATCH]).empty


def test_the_numbers_of_the_ledger_by_hand():
    distances = pd.DataFrame(
        {
            "set": [TRANSFER, SCRATCH, worth.BLURRED, TRANSFER],
            "metric": ["kd_lite0"] * 3 + ["fd_lite0"],
            "value": [2.0, 3.0, 1.0, 99],
            "lo": [1.5, 2.5, 0.9, 99],
            "hi": [2.5, 3.5, 1.1, 99],
        }
    )
    agreed = pd.DataFrame(
        {"set": [TRANSFER] * 2, "grade": ["0", "all"], "value": [0.9, 0.3], "lo": [0, 0.1], "hi": [1, 0.5]}
    )
    gaps = pd.DataFrame(
        {
            "arm": ["gan_100", "gan_50"],
            "metric": "recall_rare",
            "value": [0.1, 9],
            "lo": [-0.1, 9],
            "hi": [0.2, 9],
        }
    )
    found = worth.claims(distances, agreed, gaps, gaps.assign(value=0.05), TRANSFER).set_index("quantity")
    expected = {
        "kernel distance, generated less blurred": (1.0, 1.5 - 1.1, 2.5 - 0.9),
        "kernel distance, no transfer less transfer": (1.0, 2.5 - 2.5, 3.5 - 1.5),
        "QWK of requested and predicted grade": (0.3, 0.1, 0.5),
        "recall of grades 3 and 4, generated less none": (0.1, -0.1, 0.2),
        "recall of grades 3 and 4, generated less duplicated": (0.05, -0.1, 0.2),
    }
    assert list(found.index) == list(expected)
    for name, numbers in expected.items():
        assert tuple(found.loc[name]) == pytest.approx(numbers), name
    without = worth.claims(distances[distances["set"] != SCRATCH], agreed, gaps, gaps, TRANSFER)
    assert "kernel distance, no transfer less transfer" not in set(without["quantity"])


def test_every_claim_finds_its_row():
    import yaml

    claims = yaml.safe_load(paper.PAPER.claims.read_text())
    wanted = {item["where"]["quantity"] for claim in claims for item in claim.get("evidence", ())}
    empty = pd.DataFrame(
        {"set": [TRANSFER, SCRATCH, worth.BLURRED], "metric": "kd_lite0", "value": 0.0, "lo": 0.0, "hi": 0.0}
    )
    agreed = pd.DataFrame({"set": [TRANSFER], "grade": ["all"], "value": 0.0, "lo": 0.0, "hi": 0.0})
    gaps = pd.DataFrame({"arm": ["gan_100"], "metric": "recall_rare", "value": 0.0, "lo": 0.0, "hi": 0.0})
    assert wanted == set(worth.claims(empty, agreed, gaps, gaps, TRANSFER)["quantity"])


def test_a_profile_that_looks_at_another_starts_from_its_gan():
    given = {"name": "mine", "description": "x", "backbones": ("efficientnet_lite0",)}
    (alone,) = paper.stages(Profile(**given))
    (after,) = paper.stages(Profile(**given, models_from="demo"))
    assert alone.overrides["PRETRAINED"] == ""
    assert after.overrides["PRETRAINED"] == "results/demo/15_gan_oversampling" in after.needs


@pytest.mark.parametrize("name", plan.profiles())
def test_pictures_are_not_larger_than_the_photographs(name):
    for stage in plan.plan(name, "all"):
        if stage.notebook == Gan.notebook:
            p = stage.parameters()
            assert plan.stage_of(p.audit).parameters().image_size >= p.size


def test_the_paper_profile_has_256_pixels_in_mixed_precision_and_may_have_several_processes():
    p = plan.stage(Gan.notebook, "paper").parameters({"PROCESSES": 4})
    recipe = p.recipe(TRANSFER, "start.safetensors")
    assert (recipe.input_size, recipe.precision, recipe.critic_steps, recipe.processes) == (256, "auto", 5, 4)
    assert recipe.folder.name == TRANSFER, (
        "each GAN has a folder, through which the processes hand over checkpoints"
    )
