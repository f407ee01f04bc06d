"""The three stages learn, resume to the same bytes and leave frozen what is frozen; labels, identity, and a measure by masks."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
import toy_tasks
from pydantic import ValidationError

from drstudy.core.devices import Compute
from drstudy.data.dataset import Dataset
from drstudy.papers.glam import losses
from drstudy.papers.glam import released_training as training
from drstudy.papers.glam.recipe import FIXED, GlamRecipe
from drstudy.training import identity, loop, multilabel

CPU = Compute("cpu", "fp32")
SIZE, GRID = 64, 16
TASKS = {"global": training.GlobalTask, "local": training.LocalTask, "joint": training.JointTask}


def eyes(train=24, validation=12, test=4, seed=0) -> Dataset:
    """Grey squares with noise; a bright spot somewhere is the first label, a blue tint the second, which one eye in four does not know."""
    random = np.random.default_rng(seed)
    count = train + validation + test
    images = random.normal(90, 12, (count, SIZE, SIZE, 3))
    spot, tint = np.arange(count) % 2, (np.arange(count) // 2) % 2
    for i in range(count):
        y, x = random.integers(0, SIZE - 16, 2)
        images[i, y : y + 16, x : x + 16] += 90 * spot[i]
        images[i, ..., 2] += 60 * tint[i]
    table = pd.DataFrame(
        {
            "image_id": [f"{i:02d}" for i in range(count)],
            "patient_id": [f"p{i // 2:02d}" for i in range(count)],
            "grade": pd.array(spot, dtype="Int64"),
            "split": np.repeat(["train", "validation", "test"], [train, validation, test]),
            "row": np.arange(count),
        }
    )
    labels = pd.DataFrame(
        {"image_id": table["image_id"], "spot": spot.astype(float), "tint": tint.astype(float)}
    )
    labels.loc[labels.index % 4 == 3, "tint"] = np.nan
    return Dataset(images.clip(0, 255).astype(np.uint8), table, f"spots-{seed}").with_targets(labels)


def recipe(**changes) -> GlamRecipe:
    given = {"labels": ("spot", "tint"), "width": 0.25, "local_blocks": (1, 1, 1, 1), "input_size": SIZE}
    given |= {"crop_share": 0.5, "share": 0.2, "patches": 2, "views": 2, "seed": 3, "select_by": "last"}
    for stage in ("", "local_", "joint_"):
        given |= {f"{stage}epochs": 3, f"{stage}batch_size": 7, f"{stage}learning_rate": 1e-3}
    return GlamRecipe(**given | changes)


def task_of(stage, by_masks=None, data=None, compute=CPU, **changes):
    p = recipe(**changes)
    net = training.build(p, compute)
    own = p.stage(stage)
    feed = training.Photographs(net, data or eyes(), own, compute)
    return TASKS[stage](net.net, feed, own, compute, by_masks)


def everything(module) -> dict[str, bytes]:
    return {name: t.contiguous().numpy().tobytes() for name, t in module.state_dict().items()}


# --- learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", TASKS)
@pytest.mark.parametrize("oddities", [{}, FIXED | {"patches": 2}], ids=["released", "fixed"])
def test_each_stage_learns(stage, oddities):
    many = {f"{name}epochs": 8 for name in ("", "local_", "joint_")}
    task = task_of(stage, learning_rate=5e-3, **many, **oddities)
    start = {
        name: everything(module)
        for name, module in (("global", task.glam.global_net), ("local", task.glam.local_net))
    }
    fit = loop.fit(task)
    by_epoch = fit.history.groupby("epoch")["loss"].mean()
    assert by_epoch.iloc[-1] < 0.85 * by_epoch.iloc[0]
    for name, module in (("global", task.glam.global_net), ("local", task.glam.local_net)):
        assert (everything(module) != start[name]) is (name in task.learns), name
    assert set(task.modules) == set(task.learns)
    assert list(task.teachers) == (["global"] if stage == "local" else [])


def test_the_frozen_global_network_does_not_change_nor_its_statistics():
    task = task_of("local")
    before = everything(task.glam.global_net)
    loop.fit(task)
    assert everything(task.glam.global_net) == before
    assert not any(q.requires_grad for q in task.glam.global_net.parameters())
    assert any("running_mean" in name for name in before)


def test_the_loss_of_a_stage_is_the_sum_of_its_parts():
    p = {"beta": 0.5, "beta_local": 0.25}
    joint = task_of("joint", **p)
    history = loop.fit(joint).history
    parts = ["loss_scales", "loss_averaged", "loss_l1", "loss_local", "loss_l1_local"]
    assert list(history.columns) == ["epoch", "step", "loss", *parts, "val_loss", "val_auc"]
    weights = np.array([1, 1, 0.5, 1, 0.25])
    np.testing.assert_allclose(history["loss"], history[parts] @ weights, rtol=1e-5)


def test_l1_as_a_sum_weighs_as_many_times_more():
    """A patch map has 8 x 8 positions, and there are two."""
    mean, total = (
        loop.fit(task_of("joint", l1=l1, epochs=1, joint_epochs=1, beta=0, beta_local=0)).history
        for l1 in ("mean", "sum")
    )
    first = total.iloc[0] / mean.iloc[0]
    assert first["loss_l1"] == pytest.approx(GRID, rel=1e-5)
    assert first["loss_l1_local"] == pytest.approx(128, rel=1e-5)
    assert first["loss"] == 1


# --- validation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", TASKS)
def test_validation_does_not_depend_on_the_batches(stage):
    """Batch norms use their statistics; losses are those of the whole split, of which batches know different numbers of labels."""
    found = [task_of(stage, batch_size=n, local_batch_size=n, joint_batch_size=n).validate() for n in (12, 5)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_auc_of_the_local_stage_is_of_the_local_score():
    task = task_of("local")
    measured = task.validate()
    rows = np.flatnonzero(task.feed.clean["split"] == "validation")
    with torch.no_grad():
        x = torch.cat(list(task.feed.unaugmented(rows)))
        run = task.run(task.glam.prepare(x))
    targets = {name: torch.from_numpy(v) for name, v in task.feed.targets("validation").items()}
    expected = multilabel.mean_auc(task.labels(targets).numpy(), run.fine.score.numpy())
    assert measured["auc"] == pytest.approx(expected, abs=1e-9)


def test_mean_auc_by_hand():
    labels = np.array([[1, 1], [0, 1], [1, np.nan], [0, 1.0]])
    scores = np.array([[0.9, 0.1], [0.2, 0.2], [0.3, 0.3], [0.4, 0.4]])
    assert multilabel.mean_auc(labels, scores) == 0.75, "3 of 4 pairs; the second label has no negative"
    assert multilabel.mean_auc(labels[:, 1:], scores[:, 1:]) == 0.5


def test_images_without_a_patch_are_ranked_last_and_leave_no_loss():
    task = task_of("local", **FIXED | {"least_contrast": 1.0})
    measured = task.validate()
    assert measured == {"loss": 0.0, "auc": 0.5}


# --- kill and resume -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["joint", "local"])
def test_a_killed_run_goes_on_to_the_same_bytes(stage, tmp_path):
    whole = task_of(stage)
    expected = loop.fit(whole)
    killed = task_of(stage)
    toy_tasks.stop_in(killed.feed, 3, 1)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(killed, tmp_path)
    torch.manual_seed(99)
    again = task_of(stage)
    fit = loop.fit(again, tmp_path)
    assert fit.resumed_at == 2
    pd.testing.assert_frame_equal(fit.history, expected.history, check_exact=True)
    assert everything(again.glam) == everything(whole.glam)


def test_all_three_in_turn_and_found_again(own_folders, monkeypatch):
    p = recipe(epochs=2, local_epochs=1, joint_epochs=1)
    first = training.train(p, eyes(), CPU, own_folders / "run")
    assert list(first.fits) == ["global", "local", "joint"]
    sep, joint = first.sep.net, first.joint.net
    assert everything(sep.global_net) != everything(joint.global_net), "joint learns on"
    assert everything(sep.local_net) != everything(joint.local_net)
    assert not any(q.requires_grad for net in (first.sep, first.joint) for q in net.parameters())
    assert (first.sep.input_size, first.joint.training) == (SIZE, False)
    assert {file.parts[-3] for file in own_folders.glob("run/**/*.safetensors")} == {
        "global",
        "local",
        "joint",
    }
    monkeypatch.setattr(loop, "train_epoch", lambda *_: pytest.fail("it trained again"))
    again = training.train(p, eyes(), CPU)
    assert all(fit.found for fit in again.fits.values())
    assert everything(again.sep) == everything(first.sep)
    assert everything(again.joint) == everything(first.joint)


def test_the_separate_system_starts_the_joint_one(own_folders, monkeypatch):
    """With nothing learnt in the last stage, both are the same."""
    seen = {}
    real = loop.fit

    def fit(task, *given, **more):
        if isinstance(task, training.JointTask):
            seen.update(everything(task.glam))
        return real(task, *given, **more)

    monkeypatch.setattr(loop, "fit", fit)
    systems = training.train(recipe(epochs=1, local_epochs=1, joint_epochs=1), eyes(), CPU)
    assert everything(systems.sep.net) == seen


# --- what decides a training ---------------------------------------------------------------------------


def key(stage, by_masks=None, **changes):
    return identity.of(task_of(stage, by_masks, **changes)).key


def test_fields_of_later_stages_train_nothing_anew():
    base = {stage: key(stage) for stage in TASKS}
    later = {
        "local_epochs": 9,
        "joint_epochs": 9,
        "local_learning_rate": 0.1,
        "crop_share": 0.25,
        "patches": 1,
    }
    later |= {"beta_local": 1.0, "local_share": 0.1, "fill": "edge"}
    assert key("global", **later) == base["global"]
    for change in (
        {"crop_share": 0.25},
        {"patches": 1},
        {"beta_local": 1.0},
        {"local_share": 0.1},
        {"fill": "edge"},
        {"l1": "sum"},
    ):
        assert key("local", **change) != base["local"], change
        assert key("joint", **change) != base["joint"], change
    for change in (
        {"beta": 1.0},
        {"share": 0.1},
        {"l1": "sum"},
        {"epochs": 4},
        {"upsampling": "bilinear"},
        {"closing": "all"},
    ):
        assert key("global", **change) != base["global"], change
    shown = {"overlap": "mean", "border": "in place", "fusion": "fixed"}
    assert {stage: key(stage, **shown) for stage in TASKS} == base, "they decide maps, not weights"


def test_a_stage_has_its_own_epochs_batches_and_rate():
    p = recipe(local_epochs=5, local_batch_size=4, local_learning_rate=0.2)
    own = p.stage("local")
    assert (own.epochs, own.batch_size, own.learning_rate) == (5, 4, 0.2)
    assert p.stage("global").epochs == 3
    with pytest.raises(ValueError, match="no stage 'both'; there are global, local, joint"):
        p.stage("both")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ()}, "at least 1 item"),
        ({"labels": ("spot", "spot")}, "a label stands twice"),
        ({"least_contrast": 0.1}, "Set FLAT to 'none'"),
        ({"l1": "l2"}, "'mean' or 'sum'"),
        ({"crop_share": 0}, "greater than 0"),
        ({"channels": 2}, "1 or 3"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        recipe(**changes)


def test_labels_that_cannot_be_learnt_are_refused():
    with pytest.raises(ValueError, match="label 'amd' is not among the targets grade, spot, tint"):
        task_of("global", labels=("spot", "amd"))
    data = eyes()
    data.table.loc[2, "tint"] = 0.5
    with pytest.raises(ValueError, match=r"label 'tint' has the value 0.5 in train; it must be 0, 1"):
        task_of("global", data=data)
    data = eyes()
    data.table.loc[data.table["split"] == "validation", "tint"] = np.nan
    with pytest.raises(ValueError, match="label 'tint' is unknown for every image of validation"):
        task_of("global", data=data)


def test_unknown_labels_are_left_out_of_the_loss():
    task = task_of("global")
    batch = next(task.feed.draws(torch.arange(7), torch.zeros(7, dtype=torch.int64)))
    labels = task.labels(batch.targets)
    assert labels[3].tolist() == [1.0, pytest.approx(math.nan, nan_ok=True)]
    task.train_mode()
    outputs = task.outputs(task.run(task.glam.prepare(batch.inputs)))
    scales = outputs["scales"]
    known = ~labels.isnan()
    by_hand = [
        losses.bce(scales[i, :, j][:, None], labels[i, j].expand(3)[:, None])
        for i in range(7)
        for j in range(2)
        if known[i, j]
    ]
    assert len(by_hand) == 13
    found = task.losses(outputs, labels)["loss_scales"]
    torch.testing.assert_close(found, torch.stack(by_hand).mean())


# --- a measure by masks ----------------------------------------------------------------------------------


class Brightness:
    """Mean of all maps; stands for a measure that compares them with masks."""

    name, direction = "brightness", -1

    def __init__(self):
        self.seen, self.shapes = [], []

    def start(self):
        self.seen, self.positions = [], []

    def add(self, maps, positions):
        self.seen.append(maps)
        self.positions.extend(positions.tolist())

    def value(self):
        return torch.cat(self.seen).mean().item()

    def facts(self):
        return {"masks": "none"}


@pytest.mark.parametrize("stage", TASKS)
def test_a_measure_of_the_maps_may_choose_the_epoch(stage):
    measure = Brightness()
    task = task_of(stage, measure, select_by="brightness")
    fit = loop.fit(task)
    values = fit.history["val_brightness"].dropna().tolist()
    assert fit.best_epoch == 1 + int(np.argmin(values))
    assert torch.cat(measure.seen).shape == (12, 2, SIZE, SIZE)
    assert measure.positions == np.flatnonzero(task.feed.clean["split"] == "validation").tolist()
    with pytest.raises(ValueError, match="SELECT_BY is 'brightness'"):
        task_of(stage, select_by="brightness")
    assert "brightness" not in type(task).measures, "other tasks do not have it"


def test_a_measure_of_the_maps_makes_their_settings_part_of_the_training():
    by_masks = Brightness()
    base = key("joint", by_masks)
    assert base != key("joint")
    assert base != key("joint", by_masks, fusion="fixed")


def test_bfloat16_gives_float32_scores():
    task = task_of("joint", compute=Compute("cpu", "bf16"), joint_epochs=1)
    batch = next(task.feed.draws(torch.arange(4), torch.zeros(4, dtype=torch.int64)))
    assert batch.inputs.dtype == torch.float32
    with task.compute.autocast():
        outputs = task.outputs(task.run(task.glam.prepare(batch.inputs)))
    assert {value.dtype for value in outputs.values()} == {torch.float32}
    assert math.isfinite(task.step(batch)["loss"])
