"""The training contract: four kinds of task through one loop, killed and resumed to identical bytes, and two processes like one."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toy_tasks

from drstudy.training import checkpoints, features, loop

KINDS = tuple(toy_tasks.KINDS)
ROUNDING = 1e-5
"""Of losses and metrics in two processes: sums are taken in another order. Measured over the four kinds: at most 4.8e-7; training changes losses
by 0.2 to 1.0."""


def trained(kind, folder=None, prepare=None, **changes):
    task = toy_tasks.build(toy_tasks.recipe(kind, **changes))
    if prepare:
        prepare(task)
    return task, loop.fit(task, folder)


def everything(task):
    """All that a task has after training, as bytes."""
    state = {f"{name}/{key}": t for name, m in task.modules.items() for key, t in m.state_dict().items()}
    return {key: tensor.contiguous().numpy().tobytes() for key, tensor in state.items()}


@pytest.fixture(scope="module")
def whole():
    """Each kind, trained without interruption."""
    return {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_through_the_same_loop(whole, kind):
    task, fit = whole[kind]
    losses = [name for name in fit.history if name.startswith("loss")]
    assert losses == (["loss_critic", "loss_generator"] if kind == "alternating" else ["loss"])
    measured = [f"val_{name}" for name in task.measures]
    assert list(fit.history.columns) == ["epoch", "step", *losses, *measured]
    assert len(fit.history) == 3 * 3, "20 images in batches of 7, in three epochs"
    assert fit.history[measured].notna().all(axis=1).sum() == 3
    start = everything(toy_tasks.build(toy_tasks.recipe(kind)))
    learned = set(task.learned())
    moved = {key for key, value in everything(task).items() if start[key] != value}
    assert moved, "something was learnt"
    assert moved <= learned, "and nothing that was frozen"
    assert not any(module.training for module in task.modules.values())


def killed_in(epoch, step):
    return lambda task: toy_tasks.stop_in(task.feed, epoch, step)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_bytes(whole, kind, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(kind, tmp_path, killed_in(3, 1))
    torch.manual_seed(99)
    task, fit = trained(kind, tmp_path)
    assert fit.resumed_at == 2
    expected, expected_fit = whole[kind]
    pd.testing.assert_frame_equal(fit.history, expected_fit.history, check_exact=True)
    assert everything(task) == everything(expected)


def test_a_checkpoint_holds_every_part_of_a_task(tmp_path):
    """Each part alone: what is not saved is found to differ after the same two epochs."""
    first, _ = trained("alternating", tmp_path, epochs=2)
    again = toy_tasks.build(toy_tasks.recipe("alternating", epochs=2))
    files = checkpoints.Checkpointer(again, tmp_path / "checkpoints", _key(tmp_path))
    files.restore(*files.read("last"))
    assert torch.equal(again.noise.get_state(), first.noise.get_state())
    assert again.schedulers["critic"].state_dict() == first.schedulers["critic"].state_dict()
    assert again.optimisers["critic"].param_groups[0]["lr"] == pytest.approx(0.7e-2)
    assert torch.equal(again.average.weight, first.average.weight), (
        "a moving average learns nothing, and is saved whole"
    )
    assert not torch.equal(again.average.weight, again.generator.weight)
    for name in ("generator", "critic"):
        ours, theirs = (task.optimisers[name].state_dict()["state"] for task in (again, first))
        assert ours.keys() == theirs.keys() != set()
        for index, entry in theirs.items():
            for field, value in entry.items():
                assert torch.equal(torch.as_tensor(ours[index][field]), torch.as_tensor(value)), (
                    name,
                    index,
                    field,
                )


def _key(folder: Path) -> str:
    import json

    from safetensors import safe_open

    with safe_open(folder / "checkpoints" / "last.safetensors", "pt") as file:
        return json.loads(file.metadata()["drstudy"])["key"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_end_with_the_numbers_of_one(whole, kind, own_folders, monkeypatch):
    tests = str(Path(toy_tasks.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))
    p = toy_tasks.recipe(kind, processes=2)
    task = toy_tasks.build(p)
    fit = loop.fit(task, p.folder)
    assert fit.resumed_at == 3, "it was trained elsewhere"
    _, alone = whole[kind]
    assert len(fit.history) == len(alone.history)
    for name in fit.history.columns[2:]:
        assert np.allclose(fit.history[name], alone.history[name], atol=ROUNDING, equal_nan=True), name
    first, last = alone.history[fit.history.columns[2]].iloc[[0, -1]]
    assert abs(first - last) > 10 * ROUNDING, "training changes far more than rounding does"


def test_a_schedule_by_milestones_is_resumed(tmp_path):
    """JSON alone would turn its numbers of epochs into texts, and the rate would never fall."""

    def prepare(task):
        falling = torch.optim.lr_scheduler.MultiStepLR(task.optimisers["critic"], [2, 4], 0.1)
        task.schedulers["critic"] = falling

    with pytest.raises(KeyboardInterrupt):
        trained("alternating", tmp_path, lambda task: (prepare(task), killed_in(2, 1)(task)), epochs=5)
    task, fit = trained("alternating", tmp_path, prepare, epochs=5)
    whole, _ = trained("alternating", None, prepare, epochs=5)
    assert fit.resumed_at == 1
    assert task.optimisers["critic"].param_groups[0]["lr"] == pytest.approx(1e-4)
    assert everything(task) == everything(whole)


def test_losses_may_take_turns(monkeypatch):
    """A critic in one step and a generator in the next: each loss has a column, empty where it was not computed."""
    both, turn = toy_tasks.Alternating.step, []

    def one_of_them(self, batch):
        turn.append(None)
        losses = both(self, batch)
        return {name: losses[name] for name in [("loss_critic", "loss_generator")[len(turn) % 2]]}

    monkeypatch.setattr(toy_tasks.Alternating, "step", one_of_them)
    _, fit = trained("alternating")
    known = fit.history[["loss_critic", "loss_generator"]].notna()
    assert (known.sum(axis=1) == 1).all()
    assert known.all(axis=0).tolist() == [False, False]


def test_a_torn_checkpoint_is_not_taken(tmp_path, capsys):
    trained("grades", tmp_path, epochs=1)
    file = tmp_path / "checkpoints" / "last.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    assert trained("grades", tmp_path, epochs=1)[1].resumed_at == 0
    assert "cannot be read" in capsys.readouterr().out


# --- targets -----------------------------------------------------------------------------------------


def test_targets_come_by_name_and_what_is_unknown_is_nan():
    p = toy_tasks.recipe("grades")
    data = toy_tasks.eyes()
    task = toy_tasks.build(p)
    positions = torch.tensor([4, 1, 7, 0, 2])
    batch = next(task.feed.draws(positions, torch.tensor([1, 0, 1, 1, 0])))
    assert set(batch.targets) == {"grade", "dr", "amd"}
    assert batch.targets["grade"].dtype == torch.int64
    rows = data.part("train").iloc[positions.tolist()]
    assert batch.targets["grade"].tolist() == rows["grade"].tolist()
    assert batch.targets["dr"].dtype == torch.float32
    assert batch.targets["dr"].tolist() == pytest.approx(rows["dr"].tolist())
    assert (
        batch.targets["amd"].isnan().tolist()
        == rows["amd"].isna().tolist()
        == [True, True, True, False, False]
    )
    assert batch.rows.tolist() == rows["row"].tolist()
    assert np.isnan(task.feed.targets("validation")["amd"]).any()


def test_pixels_are_the_very_views_of_the_batch(monkeypatch):
    """At the recipe's size they are what the trunk saw."""
    p = toy_tasks.recipe("grades", feature_store=False)
    task = toy_tasks.build(p)
    seen = []
    real = features.Live.trunk
    monkeypatch.setattr(features.Live, "trunk", lambda self, x: seen.append(x.clone()) or real(self, x))
    batch = next(task.feed.draws(torch.arange(7), torch.tensor([0, 1, 1, 0, 1, 0, 0])))
    assert torch.equal(task.feed.pixels(batch, toy_tasks.SIZE), seen[0])
    larger = task.feed.pixels(batch, 2 * toy_tasks.SIZE)
    assert larger.shape == (7, 3, 128, 128)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ({"image_id": ["00", "00"], "x": [1.0, 2.0]}, "each image once"),
        ({"x": [1.0]}, "a column image_id"),
        ({"image_id": ["00"], "grade": [1.0]}, "cannot be named 'grade'"),
        ({"image_id": ["00"], "x": ["yes"]}, "'x' has values that are no finite numbers"),
        ({"image_id": ["00"], "x": [np.inf]}, "'x' has values that are no finite numbers"),
        (
            {"image_id": [0, 1], "x": [1.0, 0.0]},
            "None of the 2 images of the targets is among the 33 images; compare 0 with '00'",
        ),
    ],
)
def test_targets_that_would_be_something_else_are_refused(targets, said):
    with pytest.raises(ValueError, match=said):
        toy_tasks.eyes().with_targets(pd.DataFrame(targets))


# --- which epoch ---------------------------------------------------------------------------------------


def test_any_metric_chooses_the_epoch_and_another_name_is_refused():
    task, fit = trained("heads", select_by="closeness")
    values = fit.history["val_closeness"].dropna().tolist()
    assert fit.best_epoch == 1 + int(np.argmax(values))
    assert isinstance(task, toy_tasks.Heads)
    with pytest.raises(
        ValueError, match=r"SELECT_BY is 'qwk'; Heads measures loss, closeness on validation \('last'"
    ):
        toy_tasks.build(toy_tasks.recipe("heads", select_by="qwk"))


def test_a_metric_that_chooses_must_be_a_number(monkeypatch):
    monkeypatch.setattr(toy_tasks.Heads, "validate", lambda _: {"loss": 1.0, "closeness": float("nan")})
    with pytest.raises(FloatingPointError, match="validation closeness is nan after epoch 1"):
        trained("heads", select_by="closeness")
    assert trained("heads", select_by="loss")[1].best_epoch == 1, "one that does not choose may be undefined"


# --- the trained-model store -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_training_is_found_again(own_folders, monkeypatch, kind):
    def kept(**changes):
        task = toy_tasks.build(toy_tasks.recipe(kind, **changes))
        return task, loop.fit(task, keep=True)

    first, trained_once = kept()
    monkeypatch.setattr(loop, "train_epoch", lambda *_: pytest.fail("it trained again"))
    again, found = kept()
    assert (trained_once.found, found.found) == (False, True)
    pd.testing.assert_frame_equal(found.history, trained_once.history, check_exact=True)
    assert everything(again) == everything(first)
    same = ("best_epoch", "seconds_per_epoch", "seconds_trunk", "seconds_prepare")
    assert [getattr(found, name) for name in same] == [getattr(trained_once, name) for name in same]


def test_what_decides_a_training_is_another_key(own_folders):
    from drstudy.training import identity

    def key(task):
        return identity.of(task).key

    p = toy_tasks.recipe("heads")
    base = key(toy_tasks.build(p))
    assert base == key(toy_tasks.build(toy_tasks.recipe("heads", threads=2, variant="other")))
    changes = (
        {"learning_rate": 2e-3},
        {"sampler": "sqrt"},
        {"epochs": 4},
        {"seed": 6},
        {"views": 1},
        {"batch_size": 8},
    )
    others = [key(toy_tasks.build(toy_tasks.recipe("heads", **change))) for change in changes]
    data = toy_tasks.build(p)
    data.feed.data = dataclasses.replace(data.feed.data, key="other photographs")
    label = toy_tasks.build(p)
    label.feed.train.loc[0, "dr"] = 0.123
    teacher = toy_tasks.build(p)
    teacher.teachers["dr"].weight.data += 1
    start = toy_tasks.build(p)
    start.dr.weight.data[0, 0] += 1
    statistic = toy_tasks.build(p)
    statistic.net.net.bn1.running_mean[0] += 1e-6
    keys = [base, *others, *map(key, (data, label, teacher, start, statistic))]
    assert len(set(keys)) == len(keys)


def test_another_rounding_is_kept_apart_and_may_go_on(monkeypatch):
    """Threads and processors change last digits: a finished training is found under the same ones only, a killed one may go on."""
    from drstudy.training import identity

    one = identity.of(toy_tasks.build(toy_tasks.recipe("heads")))
    torch.set_num_threads(2)
    two = identity.of(toy_tasks.build(toy_tasks.recipe("heads", threads=2)))
    torch.set_num_threads(1)
    monkeypatch.setattr("drstudy.core.devices.processor", lambda: "another")
    other = identity.of(toy_tasks.build(toy_tasks.recipe("heads")))
    assert one.rounding["threads"] == 1
    assert one.key != other.key
    assert one.resume_key == other.resume_key == two.resume_key


def test_code_that_is_in_no_file_is_not_kept():
    from drstudy.training import identity

    cell = type("Cell", (toy_tasks.Heads,), {"__module__": "__main__"})
    p = toy_tasks.recipe("heads")
    base = toy_tasks.build(p)
    task = cell(base.feed, p, base.compute)
    with pytest.raises(identity.IdentityError, match=r"__main__\.Cell is in no file"):
        identity.of(task)
    assert identity.of(task, keep=False).resume_key
    assert "toy_tasks.py" in identity.of(base).code, "a task outside the package counts by its file"


def test_a_torn_file_is_trained_again(own_folders, capsys):
    from drstudy.training import identity, kept

    def task():
        return toy_tasks.build(toy_tasks.recipe("alternating"))

    loop.fit(task(), keep=True)
    file = kept.path_of(identity.of(task()))
    file.write_bytes(file.read_bytes()[:100])
    assert not loop.fit(task(), keep=True).found
    assert "cannot be read" in capsys.readouterr().out
    assert loop.fit(task(), keep=True).found
