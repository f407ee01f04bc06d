"""Labels, teachers and students of the SALL-style study on fabricated features."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import sall_eyes
import torch

from drstudy.core.params import ParameterError
from drstudy.papers.sall import feed as feed_module
from drstudy.papers.sall import labels, losses, params, runs, teachers, training
from drstudy.papers.sall.params import DISEASES, SETTINGS
from drstudy.training import checkpoints, loop, multilabel, networks

CPU = sall_eyes.CPU


@pytest.fixture(scope="module")
def p():
    return params.Sall(
        epochs=3, steps=4, batch_size=8, width=8, seeds=1, folds=2, fractions=(1.0,), resamples=20
    )


@pytest.fixture(scope="module")
def table():
    return sall_eyes.truth()


@pytest.fixture(scope="module")
def feed(table, p):
    return sall_eyes.feed(table, p.recipe("single", 0))


@pytest.fixture(scope="module")
def shown(table):
    return labels.shown(table, labels.assign(table, 0))


# --- one label per photograph -------------------------------------------------------------------------


def test_a_photograph_shows_one_disease_and_normal_ones_both(table):
    origin = labels.assign(table, 0)
    shown = labels.shown(table, origin)
    learning = (table["split"] != "test").to_numpy()
    known = shown[list(DISEASES)].notna().sum(axis=1).to_numpy()
    normal = ((table["dr"] == 0) & (table["amd"] == 0)).to_numpy()
    assert (known[learning & normal] == 2).all()
    assert (known[learning & ~normal] == 1).all()
    assert (known[~learning] == 0).all(), "a test photograph shows no label"
    for disease in DISEASES:
        there = shown[disease].notna()
        assert (shown.loc[there, disease] == table.loc[there, disease]).all()


def test_a_patient_belongs_to_one_collection_and_the_order_of_rows_does_not_matter(table):
    origin = labels.assign(table, 3)
    of = table.assign(origin=origin)
    ill = of[of["origin"] != "normal"]
    assert (ill.groupby("patient_id")["origin"].nunique() == 1).all()
    mixed = table.sample(frac=1, random_state=1)
    assert labels.assign(mixed, 3).loc[table.index].equals(origin)
    both = of.groupby("patient_id")[["dr", "amd"]].max()
    only_dr = both.index[(both["dr"] > 0) & (both["amd"] == 0)]
    assert set(ill.loc[ill["patient_id"].isin(only_dr), "origin"]) == {"dr"}
    coins = {tuple(labels.assign(table, seed)) for seed in range(6)}
    assert len(coins) > 1, "the seed decides for patients with both diseases"


def test_an_unknown_label_is_never_shown_and_the_known_one_is():
    """Of the last patient nothing is known but the label of AMD: the photograph belongs to that collection."""
    nan = float("nan")
    table = pd.DataFrame(
        {
            "image_id": list("abcd"),
            "patient_id": list("wxyz"),
            "split": "train",
            "dr": [2.0, nan, 0.0, nan],
            "amd": [nan, 1.0, nan, 0.0],
        }
    )
    origin = labels.assign(table, 0)
    assert origin.tolist() == ["dr", "amd", "dr", "amd"]
    shown = labels.shown(table, origin)
    assert shown["dr"].tolist() == pytest.approx([2, nan, 0, nan], nan_ok=True)
    assert shown["amd"].tolist() == pytest.approx([nan, 1, nan, 0], nan_ok=True)


def test_fractions_are_nested_and_by_patient(table):
    origin = labels.assign(table, 0)
    small, large = (labels.fraction(table, origin, share, 1) for share in (0.25, 0.75))
    assert (large | ~small).all()
    train = (table["split"] == "train").to_numpy()
    assert small[train].sum() < large[train].sum() < train.sum()
    assert labels.fraction(table, origin, 1.0, 1).all()
    ill = train & (origin != "normal").to_numpy()
    assert (pd.Series(small[ill]).groupby(table.loc[ill, "patient_id"].to_numpy()).nunique() == 1).all()


# --- teachers -------------------------------------------------------------------------------------------


def test_a_teacher_never_predicts_a_patient_that_it_learnt_from(feed, shown, p):
    made = teachers.teach(feed, shown, p, 0)
    patients = feed.train["patient_id"].to_numpy()
    fold = labels.folds(patients, p.folds, p.seed)
    for disease in DISEASES:
        learned, outside = made.learned[disease], made.out_of_fold[disease]
        assert outside.any()
        assert not outside.all()
        assert not set(patients[~outside]) & learned["all"], (
            "the teacher of all labels never saw these patients"
        )
        for number in range(p.folds):
            here = (fold == number) & outside
            assert here.any()
            assert not set(patients[here]) & learned[f"without fold {number}"]


def test_out_of_fold_logits_are_those_of_the_other_folds_network(feed, shown, p, monkeypatch):
    """Were the teacher of all labels used throughout, its logits would stand on photographs that it learnt from."""
    made = teachers.teach(feed, shown, p, 0)
    for disease in DISEASES:
        everywhere = teachers.predict(made.networks[disease], feed, disease)
        same = (everywhere == made.logits[disease]).all(1)
        assert same[~made.out_of_fold[disease]].all()
        assert not same[made.out_of_fold[disease]].any()


def test_control_teachers_know_nothing(feed, shown, p):
    real = teachers.teach(feed, shown, p, 0)
    for source in ("random", "shuffled"):
        control = teachers.teach(feed, shown, p, 0, source=source)
        for disease in DISEASES:
            assert not np.allclose(control.logits[disease], real.logits[disease])
    again = teachers.teach(feed, shown, p, 0, source="random")
    assert not again.fits
    moved = teachers._shuffled(shown, feed, "dr", 0)
    here = shown["image_id"].isin(feed.train["image_id"])
    assert sorted(moved.loc[here, "dr"].dropna()) == sorted(shown.loc[here, "dr"].dropna())
    assert moved.loc[~here, "dr"].equals(shown.loc[~here, "dr"])


# --- students -------------------------------------------------------------------------------------------


def all_targets(feed, shown, p):
    made = teachers.teach(feed, shown, p, 0)
    return made, shown.merge(made.soft(feed.train["image_id"], p.temperature), on="image_id", how="left")


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "single"])
def test_every_setting_trains_and_is_a_variant_of_one_recipe(setting, feed, table, p):
    one = runs._Labels(feed, table, labels.assign(table, 0), p, 0, 1.0, False)
    networks, cost, history = one.train(setting)
    assert len(history) == p.epochs * p.steps, "the budget of steps is the same for all"
    assert set(networks) == set(DISEASES)
    assert cost["parameters"] > 0
    recipe = one.recipe(setting)
    base = p.recipe("hard", 0)
    changed = {name for name in type(base).model_fields if getattr(base, name) != getattr(recipe, name)}
    assert changed <= set(SETTINGS[setting].changes)


def test_the_released_form_has_its_temperature_on_all_heads(p):
    recipe = p.recipe("released", 0)
    assert (recipe.own_temperature, recipe.temperature, recipe.soft_weight, recipe.squared) == (
        3,
        3,
        1,
        False,
    )


def test_loss_of_a_batch_by_hand(feed, shown, p):
    """The hard part of a step is the mean over photographs of the sum over heads of what is shown; the soft part of what is hidden."""
    _made, targets = all_targets(feed, shown, p)
    recipe = p.recipe("soft", 0)
    task = training.Sall(feed.labelled(targets, recipe), recipe)
    batch = next(task.feed.draws(torch.arange(8), torch.zeros(8, dtype=torch.int64)))
    with torch.no_grad():
        logits = task.student(batch.inputs)
    hard = soft = 0.0
    for name in DISEASES:
        q = torch.stack([batch.targets[column] for column in task.soft[name]], 1)
        for i in range(8):
            label = batch.targets[name][i]
            if label.isnan():
                soft += 9 * float(-(q[i] * (logits[name][i] / 3).log_softmax(0)).sum())
            else:
                hard += float(-logits[name][i].log_softmax(0)[int(label)])
    assert task.hard(logits, batch).item() == pytest.approx(hard / 8, rel=1e-5)
    assert task.softened(logits, batch).item() == pytest.approx(0.5 * soft / 8, rel=1e-5)


def test_the_domain_adversary_pushes_the_encoder_against_its_discriminator(feed, shown, p):
    """What the adversary adds to the encoder's gradient in a step is the discriminator's own gradient, times minus the weight."""
    recipe = p.recipe("adversarial", 0)
    task = training.Sall(feed.labelled(shown, recipe), recipe)
    batch = next(task.feed.draws(torch.arange(16), torch.zeros(16, dtype=torch.int64)))
    encoder = list(task.student.shared.parameters())
    said = task.modules["domain"](task.student.encode(batch.inputs))
    direct = torch.autograd.grad(losses.told_apart(said, batch.targets["domain"]), encoder)
    logits = task.student(batch.inputs)
    supervised = torch.autograd.grad(task.hard(logits, batch), encoder)  # these targets have no soft labels
    task.start_epoch(1)
    assert task.strength == 0
    task.start_epoch(recipe.epochs)
    assert task.strength == pytest.approx(0.1, abs=1e-4)
    task.step(batch)
    for parameter, one, other in zip(encoder, direct, supervised):
        assert (task.strength * one).abs().max() > 1e-4
        assert torch.allclose(parameter.grad - other, -task.strength * one, atol=1e-7)


def test_rivals_learn_apart_from_the_student(feed, shown, p):
    """A step of the discriminators changes no tensor of the student, and terms in feature space concern hidden labels only."""
    made, targets = all_targets(feed, shown, p)
    recipe = p.recipe("rival", 0)
    task = training.Sall(feed.labelled(targets, recipe), recipe, made.networks)
    batch = next(task.feed.draws(torch.arange(16), torch.zeros(16, dtype=torch.int64)))
    pairs = task.pairs(task.student.encode(batch.inputs), batch)
    for name in DISEASES:
        assert len(pairs[name][0]) == int(batch.targets[name].isnan().sum()) > 0
    before = {key: value.clone() for key, value in task.student.state_dict().items()}
    first = task.learn_rivals(pairs)
    for _ in range(60):
        last = task.learn_rivals(pairs)
    assert last < first
    assert all(torch.equal(before[key], value) for key, value in task.student.state_dict().items())


def test_the_students_update_leaves_the_rivals_as_they_are(feed, shown, p, monkeypatch):
    made, targets = all_targets(feed, shown, p)
    recipe = p.recipe("rival", 0)
    task = training.Sall(feed.labelled(targets, recipe), recipe, made.networks)
    batch = next(task.feed.draws(torch.arange(16), torch.zeros(16, dtype=torch.int64)))
    task.start_epoch(recipe.epochs)
    monkeypatch.setattr(task, "learn_rivals", lambda pairs: 0.0)
    rivals = {key: value.clone() for key, value in task.modules["rivals"].state_dict().items()}
    student = task.student.shared.weight.clone()
    found = task.step(batch)
    assert found["adversary"] > 0
    assert not torch.equal(student, task.student.shared.weight)
    assert all(torch.equal(rivals[key], value) for key, value in task.modules["rivals"].state_dict().items())


@pytest.mark.parametrize("apart", [False, True])
def test_discriminators_learn_only_what_differs(apart, feed, shown, p):
    """Teacher and student with identical features cannot be told apart: the loss stays at ln 2. With shifted features it falls far below."""
    made, targets = all_targets(feed, shown, p)
    recipe = p.recipe("rival", 0)
    task = training.Sall(feed.labelled(targets, recipe), recipe, made.networks)
    mine = torch.rand(64, recipe.width, generator=torch.Generator().manual_seed(1))
    pairs = {name: (mine, mine + 2 if apart else mine.clone()) for name in DISEASES}
    for _ in range(400):
        last = task.learn_rivals(pairs)
    if apart:
        assert last < 0.35
    else:
        assert last == pytest.approx(math.log(2), abs=0.02)


def test_terms_in_feature_space_need_teachers(feed, shown, p):
    recipe = p.recipe("full", 0)
    with pytest.raises(ValueError, match="needs a teacher of dr, amd"):
        training.Sall(feed.labelled(shown, recipe), recipe)


def test_the_student_learns_both_diseases(feed, shown):
    long = params.Sall(epochs=12, steps=20, batch_size=16, width=16, learning_rate=1e-2)
    recipe = long.recipe("hard", 0)
    student, _ = training.fit(feed, shown, recipe)
    logits = student(feed.still)
    test = (feed.clean["split"] == "test").to_numpy()
    truth = sall_eyes.truth().set_index("image_id").loc[feed.clean["image_id"]]
    for name in DISEASES:
        said = 1 - logits[name].softmax(1)[:, 0].detach().numpy()[test]
        assert (
            multilabel.mean_auc((truth[name].to_numpy()[test] > 0).astype(float)[:, None], said[:, None])
            > 0.85
        )


class Killed(Exception):
    pass


@pytest.mark.parametrize("setting", ["rival", "mutual"])
def test_kill_and_resume(setting, feed, shown, p, tmp_path, monkeypatch):
    """A training with two optimisers, and one with two students, end after a kill with the bytes of an undisturbed one."""
    made, targets = all_targets(feed, shown, p)
    recipe = p.recipe(setting, 0)

    def task():
        return training.Sall(feed.labelled(targets, recipe), recipe, made.networks)

    whole = task()
    loop.fit(whole, tmp_path / "whole")
    save, saved = checkpoints.Checkpointer.save, []

    def dying(self, *args, **kwargs):
        save(self, *args, **kwargs)
        saved.append(args[0])
        if saved.count("last") == 2:
            raise Killed

    monkeypatch.setattr(checkpoints.Checkpointer, "save", dying)
    with pytest.raises(Killed):
        loop.fit(task(), tmp_path / "cut")
    monkeypatch.setattr(checkpoints.Checkpointer, "save", save)
    resumed = task()
    assert loop.fit(resumed, tmp_path / "cut").resumed_at == 2
    mine, theirs = whole.learned(), resumed.learned()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_hidden_truth_is_no_target(feed, table, p):
    """Other hidden labels, in the same collections, make the same shown labels and the same batches."""
    assert feed.data.targets == ()
    origin = labels.assign(table, 0)
    shown, other = labels.shown(table, origin), table.copy()
    for disease in DISEASES:
        hidden = shown[disease].isna().to_numpy()
        assert hidden[(table["split"] == "train").to_numpy()].any()
        other.loc[hidden, disease] = (other.loc[hidden, disease] + 1) % 4
    assert not other.equals(table)
    again = labels.shown(other, origin)
    pd.testing.assert_frame_equal(again, shown)
    count = len(feed.train)
    drawn = []
    for one in (shown, again):
        own = feed.labelled(one, p.recipe("hard", 0))
        drawn += list(own.draws(torch.arange(8), torch.zeros(8, dtype=torch.int64)))
    assert count >= 8
    assert set(drawn[0].targets) == {"dr", "amd", "domain"}
    for name, values in drawn[0].targets.items():
        assert torch.equal(values.isnan(), drawn[1].targets[name].isnan())
        assert torch.equal(values.nan_to_num(-1), drawn[1].targets[name].nan_to_num(-1))


def test_pooled_features_are_means_of_the_last_layer_scaled_by_the_training_views(coloured_eyes):
    """Of a small frozen network on fabricated photographs, against the steps one by one; the grades are no target."""
    data = coloured_eyes(train=5, validation=3, test=2)
    small = params.Sall(input_size=64, batch_size=4, views=2, width=8, weights="none")
    recipe = small.recipe("single", 0)
    net = networks.build(recipe, data, CPU)
    made, base = feed_module.open_pooled(net, data, recipe, CPU)
    assert made.values.shape == (5, 2, made.width)
    assert made.still.shape == (5, made.width)
    assert made.data.targets == ()
    assert not any(q.requires_grad for q in net.parameters())
    views = made.values.reshape(10, -1)
    assert views.mean(0).abs().max() < 1e-4
    assert views.var(0).mean().item() == pytest.approx(1, rel=1e-3)
    h = next(base.unaugmented(made.place("test")))
    wanted = (feed_module.last_layer(net, h).mean((2, 3)) - made.mean) / made.spread
    assert torch.allclose(made.still[made.place("test")], wanted, atol=1e-3)
    h = next(base.draws(torch.tensor([3]), torch.tensor([1]))).inputs
    wanted = (feed_module.last_layer(net, h).mean((2, 3)) - made.mean) / made.spread
    assert torch.allclose(made.values[3, 1], wanted[0], atol=1e-3)
    assert not torch.allclose(made.values[3, 0], wanted[0], atol=1e-2), "another view is another photograph"


def test_a_channel_that_is_silent_in_training_is_not_blown_up():
    """One that fires only in a validation photograph keeps its size beside the others; by its own spread it would be infinite."""
    raw = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 2.0, 2.0, 0.0])
    mean, scale = feed_module.centre_and_scale(raw)
    assert scale.tolist() == pytest.approx([raw.var(0).mean().sqrt().item()] * 4)
    assert ((torch.tensor([0.0, 0.0, 0.0, 3.0]) - mean) / scale).abs().max() < 2
    assert ((raw - mean) / scale).var(0).mean().item() == pytest.approx(1, rel=1e-5)


# --- parameters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"SETTINGS": ["single", "soft"]}, "'full' is missing"),
        ({"SETTINGS": ["single", "full", "sof"]}, "'sof' is no setting"),
        ({"FRACTIONS": [0.1, 0.5]}, "1.0 must be among"),
        ({"SEEDS": 2, "MAP_SEEDS": 3}, "MAP_SEEDS is 3"),
        ({"CLASSES": [5, 1]}, "CLASSES"),
        ({"TEMPRATURE": 3.0}, "did you mean TEMPERATURE"),
    ],
)
def test_parameters_say_what_is_wrong(given, says):
    with pytest.raises(ParameterError, match=says):
        params.Sall.check(given)
