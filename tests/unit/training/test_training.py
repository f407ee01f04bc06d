"""The loop: it learns, twice alike, resumes exactly, and keeps the epoch it was asked to keep."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import toy_tasks
from sklearn.metrics import cohen_kappa_score

from drstudy.core import paths, records
from drstudy.core.devices import Compute
from drstudy.models import nets
from drstudy.papers.transfer import params
from drstudy.training import checkpoints, features, grading, loop, networks, prediction

CPU = Compute("cpu", "fp32")
PROBABILITIES = [f"p{grade}" for grade in range(5)]


def recipe(**changes):
    given = {
        "backbone": "efficientnet_lite0",
        "input_size": 64,
        "batch_size": 6,
        "views": 2,
        "epochs": 4,
        "seed": 3,
        "select_by": "last",
    }
    return params.FineTuning(**(given | changes))


@pytest.fixture(scope="module")
def data(coloured_eyes):
    return coloured_eyes(train=19, validation=7, test=6)


class Trained:
    """A run of a recipe, as notebook 03 does it."""

    def __init__(self, data, folder=None, prepare=None, **changes):
        self.p = recipe(**changes)
        self.net = networks.build(self.p, data, CPU)
        self.features = features.open_features(self.net, data, self.p, CPU)
        if prepare:
            prepare(self)
        self.fit = loop.fit(grading.Grading(self.net, self.features, self.p, CPU), folder)
        self.predictions = pd.concat(
            [prediction.table(self.net, self.features, split, CPU) for split in ("validation", "test")]
        )
        self.history = self.fit.history

    def bytes(self, tmp_path):
        prediction.write(self.predictions, tmp_path / "p.csv")
        return (tmp_path / "p.csv").read_bytes()


def same(run, other):
    pd.testing.assert_frame_equal(run.history, other.history, check_exact=True)
    pd.testing.assert_frame_equal(run.predictions, other.predictions, check_exact=True)
    first, second = run.net.state_dict(), other.net.state_dict()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def uninterrupted(data):
    return Trained(data)


# --- it learns -------------------------------------------------------------------------------------


def test_it_learns_an_easy_problem(coloured_eyes):
    """Grades that are colours: a loop that mixes up labels, images or views, or does not step, cannot grade
    the test images."""
    data = coloured_eyes(train=80, validation=15, test=25)
    run = Trained(data, epochs=24, batch_size=8, views=3)
    loss = run.history.groupby("epoch")["loss"].mean()
    assert loss.iloc[-1] < 0.3 * loss.iloc[0]
    assert loss.iloc[0] < 2 * np.log(5), "at the start it is near that of guessing"
    test = run.predictions[run.predictions["split"] == "test"]
    grades, predicted = test["grade"].to_numpy(int), test[PROBABILITIES].to_numpy().argmax(1)
    assert cohen_kappa_score(grades, predicted, weights="quadratic") > 0.8
    assert len(test) == 25
    assert run.history["val_loss"].dropna().iloc[-1] < 0.5 * run.history["val_loss"].dropna().iloc[0]


def test_it_steps_with_adam_as_the_recipe_says_on_what_may_learn(data, monkeypatch):
    given = {}
    real = torch.optim.Adam

    def adam(learning, **options):
        given.update(options, count=sum(q.numel() for q in learning))
        return real(learning, **options)

    monkeypatch.setattr(torch.optim, "Adam", adam)
    run = Trained(data, epochs=1, learning_rate=2e-4, betas=(0.0, 0.99), weight_decay=0.01)
    assert given == {
        "lr": 2e-4,
        "betas": (0.0, 0.99),
        "eps": 1e-8,
        "weight_decay": 0.01,
        "fused": True,
        "count": run.net.count()["parameters_trainable"],
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_first_loss_is_smoothed_cross_entropy_by_hand(data, smoothing):
    seen = []

    def record(run):
        tail = run.net.tail

        def recorded(h):
            logits = tail(h)
            seen.append(logits.detach().double())
            return logits

        run.net.tail = recorded
        draws = run.features.draws

        def kept(positions, views):
            for batch in draws(positions, views):
                seen.append(batch.targets["grade"])
                yield batch

        run.features.draws = kept

    run = Trained(data, prepare=record, epochs=1, label_smoothing=smoothing)
    grades, logits = seen[0], seen[1]
    target = torch.full((6, 5), smoothing / 5, dtype=torch.float64)
    target[torch.arange(6), grades] += 1 - smoothing
    logarithm = logits - torch.log(torch.exp(logits).sum(1, keepdim=True))
    # float32 inside, double here
    assert run.history["loss"][0] == pytest.approx(-(target * logarithm).sum(1).mean().item(), rel=1e-5)


def test_history_has_a_row_a_step_and_validation_at_the_end_of_an_epoch(data, uninterrupted):
    history = uninterrupted.history
    assert list(history.columns) == ["epoch", "step", "loss", "val_loss", "val_qwk"]
    # 19 draws in batches of 6: the last one joins the third batch
    assert history["epoch"].tolist() == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert history["step"].tolist() == list(range(1, 13))
    at_end = history["step"] % 3 == 0
    assert history["val_loss"].notna().equals(at_end)
    assert history["val_qwk"].notna().equals(at_end)
    assert history["loss"].notna().all()


def test_validation_numbers_are_those_of_the_predictions(uninterrupted):
    part = uninterrupted.predictions.query("split == 'validation'")
    grades, p = part["grade"].to_numpy(int), part[PROBABILITIES].to_numpy()
    last = uninterrupted.history.iloc[-1]
    assert last["val_loss"] == pytest.approx(-np.log(p[np.arange(len(p)), grades]).mean(), rel=1e-12)
    assert last["val_qwk"] == pytest.approx(
        cohen_kappa_score(grades, p.argmax(1), weights="quadratic"), abs=1e-12
    )


def test_kappa_is_scikit_learns_and_zero_where_it_is_undefined():
    grades, predicted = np.array([0, 0, 1, 2, 4, 3, 0]), np.array([0, 1, 1, 2, 2, 4, 0])
    assert grading.qwk(grades, predicted) == cohen_kappa_score(grades, predicted, weights="quadratic")
    assert grading.qwk(np.zeros(4, int), np.zeros(4, int)) == 0.0


# --- twice alike -----------------------------------------------------------------------------------


def test_two_runs_write_the_same_bytes(data, uninterrupted, tmp_path):
    torch.manual_seed(99)
    again = Trained(data)
    same(again, uninterrupted)
    assert again.bytes(tmp_path) == uninterrupted.bytes(tmp_path)
    assert not Trained(data, seed=4).history["loss"].equals(uninterrupted.history["loss"])


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "densenet121"])
def test_stored_features_train_exactly_as_live_ones(data, own_folders, monkeypatch, backbone):
    """Draws, views, dropout and validation are the same to the last bit, once the trunk takes one image at a
    time; otherwise its sums are rounded differently in batches of another size (see test_features)."""
    real = features.Live.trunk

    def one_by_one(self, images):
        each = torch.cat([real(self, image[None]) for image in images])
        return each.contiguous(memory_format=torch.channels_last)

    monkeypatch.setattr(features.Live, "trunk", one_by_one)
    weights = "bundled" if backbone == "efficientnet_lite0" else "none"
    stored, live = (Trained(data, backbone=backbone, weights=weights, feature_store=s) for s in (True, False))
    assert isinstance(stored.features, features.Stored)
    assert isinstance(live.features, features.Live)
    same(stored, live)


def test_every_epoch_and_seed_draws_images_views_and_dropout_anew(data):
    asked = []

    def record(run):
        draws = run.features.draws

        def kept(positions, views):
            asked.append((tuple(positions.tolist()), tuple(views.tolist()), torch.initial_seed()))
            return draws(positions, views)

        run.features.draws = kept

    for seed in (3, 4):
        Trained(data, prepare=record, views=3, seed=seed)
    positions, views, dropout = zip(*asked)
    assert len(set(positions)) == len(set(views)) == len(set(dropout)) == 8
    assert set().union(*views) == {0, 1, 2}
    assert all(len(epoch) == 19 for epoch in positions)
    asked.clear()
    Trained(data, prepare=record, sampler="none", epochs=2)
    assert all(sorted(epoch) == list(range(19)) for epoch, _, _ in asked)


def test_fresh_views_are_new_each_epoch_and_the_same_each_run(data):
    asked = []

    def record(run):
        draws = run.features.draws

        def kept(positions, views):
            asked.append(views.tolist())
            return draws(positions, views)

        run.features.draws = kept

    changes = {"views": 0, "feature_store": False, "epochs": 2}
    first, second = Trained(data, prepare=record, **changes), Trained(data, prepare=record, **changes)
    same(first, second)
    assert asked[:2] == asked[2:]
    assert len(set(asked[0] + asked[1])) == 38, "no view twice"


def measured(loss, kappa):
    """What a task of grades measures."""
    return {"loss": loss, "qwk": kappa}


# --- killed and resumed ----------------------------------------------------------------------------


def killed_in(epoch, step):
    return lambda run: toy_tasks.stop_in(run.features, epoch, step)


def killed_before_file(number):
    """Stops the run before a checkpoint is written; each epoch here writes two, the best and the last."""

    def prepare(run):
        real, calls = checkpoints.Checkpointer.save, []

        def stopping(*arguments, **options):
            calls.append(None)
            if len(calls) == number:
                checkpoints.Checkpointer.save = real
                raise KeyboardInterrupt
            real(*arguments, **options)

        checkpoints.Checkpointer.save = stopping

    return prepare


@pytest.mark.parametrize(
    ("kill", "finished"),
    [
        (killed_in(3, 1), 2),
        (killed_in(1, 2), 0),
        (killed_before_file(5), 2),
        (killed_before_file(6), 2),
        (killed_before_file(2), 0),
    ],
    ids=["in epoch 3", "in epoch 1", "before best 3", "between best and last 3", "between best and last 1"],
)
def test_a_killed_run_ends_with_the_numbers_of_an_uninterrupted_one(
    data, uninterrupted, tmp_path, kill, finished
):
    with pytest.raises(KeyboardInterrupt):
        Trained(data, tmp_path, prepare=kill)
    torch.manual_seed(123)
    resumed = Trained(data, tmp_path)
    assert resumed.fit.resumed_at == finished
    assert resumed.fit.best_epoch == uninterrupted.fit.best_epoch
    same(resumed, uninterrupted)
    assert resumed.bytes(tmp_path) == uninterrupted.bytes(tmp_path)


def test_drifting_statistics_and_a_chosen_epoch_are_resumed_too(data, tmp_path, monkeypatch):
    changes = {
        "backbone": "densenet121",
        "weights": "none",
        "frozen_bn": "track",
        "feature_store": False,
        "views": 0,
        "head": "mlp",
        "epochs": 3,
        "select_by": "loss",
    }
    scores = [
        (1.0, 0.1),
        (2.0, 0.3),
        (3.0, 0.2),
    ]  # the first epoch is best, and it is over when the run is killed

    def scripted():
        script = iter(scores)
        monkeypatch.setattr(grading.Grading, "validate", lambda _: measured(*next(script)))

    scripted()
    whole = Trained(data, **changes)
    assert whole.fit.best_epoch == 1
    scripted()
    with pytest.raises(KeyboardInterrupt):
        Trained(data, tmp_path, prepare=killed_in(3, 1), **changes)
    script = iter(scores[2:])
    monkeypatch.setattr(grading.Grading, "validate", lambda _: measured(*next(script)))
    resumed = Trained(data, tmp_path, **changes)
    assert (resumed.fit.resumed_at, resumed.fit.best_epoch) == (2, 1)
    same(resumed, whole)


def test_a_finished_run_is_not_trained_again(data, tmp_path, monkeypatch):
    first = Trained(data, tmp_path)
    monkeypatch.setattr(loop, "train_epoch", lambda *_: pytest.fail("it trained again"))
    again = Trained(data, tmp_path)
    assert again.fit.resumed_at == 4
    same(first, again)


def test_checkpoints_of_another_recipe_or_other_data_are_not_taken(data, coloured_eyes, tmp_path, capsys):
    Trained(data, tmp_path, epochs=2)
    others = [
        (data, {"epochs": 3}),
        (data, {"learning_rate": 2e-3}),
        (data, {"sampler": "none"}),
        (data, {"seed": 5}),
        (data, {"head": "mlp"}),
        (dataclasses.replace(data, key="another image store"), {}),
        (coloured_eyes(train=18, validation=7, test=7), {}),
    ]
    for images, changes in others:
        capsys.readouterr()
        changes = {"epochs": 2} | changes
        run = Trained(images, tmp_path, **changes)
        assert run.fit.resumed_at == 0, changes
        assert "belongs to another recipe or other data" in capsys.readouterr().out
        same(run, Trained(images, **changes))


def test_checkpoints_of_another_file_of_weights_are_not_taken(data, tmp_path):
    state = nets.build("efficientnet_lite0", weights="bundled").net.state_dict()
    state |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    for shift, finished in ((0.0, 0), (0.0, 1), (0.1, 0)):
        torch.save(state | {"_conv_stem.weight": state["_conv_stem.weight"] + shift}, tmp_path / "w.pth")
        run = Trained(data, tmp_path, epochs=1, weights=str(tmp_path / "w.pth"))
        assert run.fit.resumed_at == finished


def test_threads_alone_do_not_make_another_recipe(data, tmp_path):
    Trained(data, tmp_path, epochs=1, threads=1)
    assert Trained(data, tmp_path, epochs=1, threads=2).fit.resumed_at == 1


def test_without_a_folder_nothing_is_written(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(paths.data().rglob("*"))
    Trained(data, epochs=1)
    assert sorted(tmp_path.iterdir()) == []
    assert sorted(paths.data().rglob("*")) == before


# --- which epoch is kept ---------------------------------------------------------------------------

SCRIPT = [(1.0, 0.2), (0.7, 0.5), (0.6, 0.4), (0.8, 0.5)]
"""(validation loss, validation QWK) of four epochs; the QWK of epochs 2 and 4 is equal."""


@pytest.mark.parametrize(("select_by", "best"), [("last", 4), ("loss", 3), ("qwk", 2)])
def test_the_chosen_epoch_is_the_one_kept(data, monkeypatch, select_by, best):
    states = []

    def scripted(task):
        states.append({name: tensor.clone() for name, tensor in task.net.state_dict().items()})
        return measured(*SCRIPT[len(states) - 1])

    monkeypatch.setattr(grading.Grading, "validate", scripted)
    run = Trained(data, select_by=select_by)
    assert run.fit.best_epoch == best
    kept = run.net.state_dict()
    equal = [all(torch.equal(state[name], kept[name]) for name in kept) for state in states]
    assert equal == [epoch == best for epoch in (1, 2, 3, 4)]
    assert not any(module.training for module in run.net.modules())


@pytest.mark.parametrize("select_by", ["loss", "qwk"])
def test_of_equal_epochs_the_first_is_kept(data, monkeypatch, select_by):
    monkeypatch.setattr(grading.Grading, "validate", lambda _: measured(0.5, 0.5))
    assert Trained(data, select_by=select_by).fit.best_epoch == 1


# --- what goes wrong -------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run(data, tmp_path):
    def break_it(run):
        draws, calls = run.features.draws, []

        def broken(positions, views):
            calls.append(None)
            for i, batch in enumerate(draws(positions, views)):
                broken = dataclasses.replace(batch, inputs=batch.inputs * float("nan"))
                yield broken if (len(calls), i) == (2, 1) else batch

        run.features.draws = broken

    with pytest.raises(FloatingPointError, match=r"loss is nan at step 2 of epoch 2.*LEARNING_RATE"):
        Trained(data, tmp_path, prepare=break_it)
    assert Trained(data, tmp_path).fit.resumed_at == 1, "the epoch before it is kept"


@pytest.mark.parametrize("select_by", ["last", "loss", "qwk"])
def test_a_validation_loss_that_is_no_number_is_never_kept(data, monkeypatch, select_by):
    monkeypatch.setattr(grading.Grading, "validate", lambda _: measured(float("nan"), 0.0))
    with pytest.raises(FloatingPointError, match="validation loss is nan after epoch 1"):
        Trained(data, select_by=select_by)


# --- the network of a recipe -----------------------------------------------------------------------


def norms(net):
    return {name: tensor for name, tensor in net.named_buffers() if "running" in name}


SHORT = {"EPOCHS": 2, "VIEWS": 1, "INPUT_SIZE": 96}


class Notebook03(Trained):
    """As notebook 03 does it, with a recipe for networks without pretraining."""

    def __init__(self, data, folder=None, prepare=None, **changes):
        self.p = recipe(**{"without_pretraining": SHORT} | changes)
        self.net = networks.build(self.p, data, CPU)
        self.recipe = networks.recipe_for(self.net, self.p)
        self.features = features.open_features(self.net, data, self.recipe, CPU)
        if prepare:
            prepare(self)
        self.fit = loop.fit(grading.Grading(self.net, self.features, self.recipe, CPU), folder)
        self.predictions = pd.concat(
            [prediction.table(self.net, self.features, split, CPU) for split in ("validation", "test")]
        )
        self.history = self.fit.history


def test_without_pretraining_the_short_recipe_trains_as_one_of_its_own(data):
    """The same bytes as a recipe that asks for these settings outright: norms, store, draws and epochs."""
    net = {"backbone": "resnet18", "weights": "none"}
    run = Notebook03(data, **net)
    assert networks.described(run.net, run.p) == {
        "weights_used": "none",
        "recipe": records.SHORT,
        "epochs": 2,
        "views": 1,
        "input_size": 96,
    }
    assert run.history["epoch"].max() == 2
    outright = Trained(data, **net | {name.lower(): value for name, value in SHORT.items()})
    assert run.features.folder == outright.features.folder, "one store"
    same(run, outright)
    assert networks.described(outright.net, outright.p)["recipe"] == records.FULL


def test_with_weights_the_full_recipe_trains_whatever_the_short_one_is(data, uninterrupted):
    run = Notebook03(data)
    assert run.recipe is run.p
    assert networks.described(run.net, run.p) == {
        "weights_used": "bundled",
        "recipe": records.FULL,
        "epochs": 4,
        "views": 2,
        "input_size": 64,
    }
    same(run, uninterrupted)
    assert run.features.folder == uninterrupted.features.folder


@pytest.mark.parametrize("weights", ["imagenet-if-reachable", "none"])
def test_what_was_found_decides_and_not_what_was_asked_for(data, tmp_path, offline, monkeypatch, weights):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    p = recipe(backbone="resnet18", weights=weights, without_pretraining=SHORT)
    assert networks.recipe_for(networks.build(p, data, CPU), p) == p.shortened()


@pytest.mark.parametrize(
    "kill", [killed_in(2, 1), killed_before_file(4)], ids=["in epoch 2", "before last 2"]
)
def test_a_killed_short_recipe_goes_on_to_the_same_numbers(data, tmp_path, kill):
    net = {"backbone": "resnet18", "weights": "none"}
    whole = Notebook03(data, **net)
    with pytest.raises(KeyboardInterrupt):
        Notebook03(data, tmp_path, prepare=kill, **net)
    resumed = Notebook03(data, tmp_path, **net)
    assert resumed.fit.resumed_at == 1
    same(resumed, whole)


def test_checkpoints_go_by_the_recipe_that_runs(data, tmp_path):
    """Another short recipe is another training where it holds, and none where it does not."""
    other = {"without_pretraining": {"EPOCHS": 1}}
    Notebook03(data, tmp_path / "bundled", epochs=1)
    assert Notebook03(data, tmp_path / "bundled", epochs=1, **other).fit.resumed_at == 1
    net = {"backbone": "resnet18", "weights": "none"}
    Notebook03(data, tmp_path / "none", **net)
    assert Notebook03(data, tmp_path / "none", **net).fit.resumed_at == 2
    assert Notebook03(data, tmp_path / "none", **net, **other).fit.resumed_at == 0


def test_only_untrained_norms_are_calibrated_and_on_training_images_alone(data):
    pretrained = networks.build(recipe(), data, CPU)
    plain = nets.build("efficientnet_lite0", weights="bundled")
    assert all(torch.equal(a, b) for a, b in zip(norms(pretrained).values(), norms(plain).values()))

    p = recipe(backbone="densenet121", weights="none")
    net = networks.build(p, data, CPU)
    assert (net.weights_used, net.frozen_bn, net.head) == ("none", "eval", "single")
    initial = norms(nets.build("densenet121"))
    assert not any(torch.equal(a, b) for a, b in zip(norms(net).values(), initial.values()))

    others = data.images.copy()
    others[data.table.loc[data.table["split"] != "train", "row"]] = 0
    same_norms = networks.build(p, dataclasses.replace(data, images=others), CPU)
    assert all(torch.equal(a, b) for a, b in zip(norms(net).values(), norms(same_norms).values()))
    others[data.table.loc[data.table["split"] == "train", "row"]] = 0
    other_norms = networks.build(p, dataclasses.replace(data, images=others), CPU)
    assert not torch.equal(
        norms(net)["net.features.norm5.running_mean"], norms(other_norms)["net.features.norm5.running_mean"]
    )


def test_the_recipes_frozen_layers_are_frozen_when_training_ends(data):
    p = recipe(backbone="densenet121", weights="none", epochs=2)
    start = networks.build(p, data, CPU).state_dict()
    run = Trained(data, backbone="densenet121", weights="none", epochs=2)
    learn = {name for name, q in run.net.named_parameters() if q.requires_grad}
    layers = (f"net.features.denseblock4.denselayer{i}." for i in (14, 15, 16))
    tail = (*layers, "net.classifier.")
    assert {name for name in learn if not name.startswith(tail)} == set()
    moved = {name for name, tensor in run.net.state_dict().items() if not torch.equal(tensor, start[name])}
    assert {name for name in moved if not name.startswith(tail)} == set()
    assert learn <= moved
