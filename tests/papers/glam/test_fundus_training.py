"""The four groups of heads: what is asked of each cell, by hand; each learns; teachers stay; a killed run goes on to the same bytes."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import toy_tasks
from squares import CODES, CPU, SIDE, SIZE, built, eyes, params

from drstudy.papers.glam import evidence, fundus_training, patches, training
from drstudy.training import features, loop, multilabel

NAN = np.nan

TASKS = {"saliency": fundus_training.SaliencyTask, "local": fundus_training.LocalTask}
TASKS |= {"refined": fundus_training.RefinedTask}


def task_of(group, **changes) -> fundus_training.HeadsTask:
    """The task of a group on a store of features, with the teachers as they are before they learn."""
    p, (data, masks) = params(**changes), eyes()
    net = copy.deepcopy(built())
    recipe = p.recipe(group)
    feed = features.open_features(net, data, recipe, CPU)
    if group == "masks":
        by_view = training.masks_by_view(feed, recipe, masks.__getitem__)
        return fundus_training.MaskTask(net, feed, recipe, CPU, by_view)
    rules = None if group == "saliency" else fundus_training.rules(net, feed, p.recipe("saliency"))
    return TASKS[group](net, feed, recipe, CPU, rules)


def everything(module) -> dict[str, bytes]:
    return {name: t.contiguous().numpy().tobytes() for name, t in module.state_dict().items()}


# --- what each cell learns -------------------------------------------------------------------------------


def cells(*values, side=10) -> torch.Tensor:
    """(1, 1, side, side) of -9, with the first cells set."""
    z = torch.full((1, 1, side * side), -9.0)
    z[0, 0, : len(values)] = torch.tensor(values)
    return z.view(1, 1, side, side)


def seeds(z, label, lit=None) -> torch.Tensor:
    lit = torch.ones_like(z[:, :1], dtype=torch.bool) if lit is None else lit
    return fundus_training.seeds(z, torch.tensor([[label]]), lit)[0].flatten()


def same(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=0, equal_nan=True)


def test_seeds_of_an_eye_without_the_lesion_and_of_one_that_nobody_looked_at():
    z = cells(5.0, 0.1, -0.1, -3.0)
    assert (seeds(z, 0.0) == 0).all()
    assert seeds(z, NAN).isnan().all()


def test_seeds_of_an_eye_with_the_lesion():
    """At most 3 of 100 cells. High evidence is from 0 on, since the peak is far above it; low evidence is below -2; between lies the gap."""
    found = seeds(cells(5.0, 0.1, -0.1, -1.9, -2.1), 1.0)
    same(found[:6], [1.0, 1, NAN, NAN, 0, 0])
    assert (found[6:] == 0).all()


def test_the_peak_always_counts_however_low():
    """One below the peak is -5, and two below that is -7."""
    found = seeds(cells(-4.0, -4.9, -5.1, -6.9, -7.1), 1.0)
    same(found[:6], [1.0, 1, NAN, NAN, 0, 0])


def test_not_more_than_the_largest_seed():
    """Six cells are above 0, and 3 % of 100 are three; what is within the gap below the third is unknown."""
    found = seeds(cells(6.0, 5.0, 4.0, 3.0, 2.1, 1.9), 1.0)
    same(found[:7], [1.0, 1, 1, NAN, NAN, NAN, 0])
    assert (found == 1).sum() == 3, "1.9 is more than 2 below 4, but above -2: unknown"


def test_seeds_lie_inside_the_field():
    lit = torch.ones(1, 1, 10, 10, dtype=torch.bool)
    lit[..., 0, :2] = False
    found = seeds(cells(9.0, 8.0, -3.0, -3.5, -9.0), 1.0, lit)
    same(found[2:5], [1.0, 1, 0])
    assert not (found[:2] == 1).any(), "the two greatest lie outside"


def test_each_eye_has_its_own_limit():
    """A field of 100 cells and one of 34: three cells, and one; as if each were alone."""
    both = cells(6.0, 5.0, 4.0, 3.0, 2.0).repeat(2, 1, 1, 1)
    lit = torch.ones(2, 1, 10, 10, dtype=torch.bool)
    lit[1].view(-1)[34:] = False
    found = fundus_training.seeds(both, torch.ones(2, 1), lit)
    assert [(one == 1).sum().item() for one in found] == [3, 1]
    for i in range(2):
        alone = fundus_training.seeds(both[i : i + 1], torch.ones(1, 1), lit[i : i + 1])
        torch.testing.assert_close(alone[0], found[i], equal_nan=True, rtol=0, atol=0)


def test_a_photograph_without_a_field_teaches_no_lesion():
    dark = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
    assert not (seeds(cells(3.0), 1.0, dark) == 1).any()


def test_each_label_has_its_own_seeds():
    z = torch.cat([cells(5.0), cells(-9.0, 5.0), cells(1.0)], 1)
    labels = torch.tensor([[1.0, 0.0, NAN]])
    found = fundus_training.seeds(z, labels, torch.ones(1, 1, 10, 10, dtype=torch.bool))
    assert [(one == 1).sum().item() for one in found[0]] == [1, 0, 0]
    assert [bool(one.isnan().all()) for one in found[0]] == [False, False, True]


def test_loss_by_cells_by_hand():
    """Two labels on 2 photographs of 10 x 10 cells. Of label 0: 60 cells with a lesion, 139 without, 1 unknown; of label 1, no lesion."""
    torch.manual_seed(0)
    z = torch.randn(2, 2, 10, 10)
    truth = torch.zeros(2, 2, 10, 10)
    truth[0, 0].view(-1)[:60] = 1
    truth[1, 0, 9, 9] = NAN
    lit = torch.ones(2, 1, 10, 10, dtype=torch.bool)
    first, one = z[:, 0].flatten().double(), truth[:, 0].flatten()
    positive = torch.log1p(torch.exp(-first[one == 1])).sum()
    negative = torch.log1p(torch.exp(first[one == 0])).sum()
    label0 = (3 * positive + negative) / (60 * 1.02 + 139 * 0.02)
    label1 = (
        torch.log1p(torch.exp(z[:, 1].double())).sum() / 50
    )  # 200 times 0.02 is less than the least norm, 50
    expected = ((label0 + label1) / 2).item()
    assert fundus_training.by_cells(z, truth, lit).item() == pytest.approx(expected, rel=1e-5)


def test_loss_by_cells_leaves_out_what_is_dark_or_unknown():
    torch.manual_seed(0)
    z, truth = torch.randn(1, 1, 10, 10, requires_grad=True), torch.ones(1, 1, 10, 10)
    lit = torch.ones(1, 1, 10, 10, dtype=torch.bool)
    lit[..., :3, :] = False
    truth[..., 9, :] = NAN
    fundus_training.by_cells(z, truth, lit).backward()
    assert (z.grad[0, 0, :3] == 0).all()
    assert (z.grad[0, 0, 9] == 0).all()
    assert (z.grad[0, 0, 3:9] != 0).all()
    unknown = fundus_training.by_cells(z, torch.full_like(truth, NAN), lit)
    assert unknown.item() == 0


@pytest.mark.parametrize("label", range(3))
def test_patches_are_never_proposed_by_what_is_outside_the_field(label):
    """The greatest evidence lies outside; windows are those of the map with nothing there."""
    torch.manual_seed(label)
    z = torch.randn(2, 3, SIDE, SIDE)
    lit = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    lit[..., 4:12, 4:12] = True
    hot = z.clone()
    hot[:, label, 0, 0] = hot[:, label, 15, 15] = 50
    found = fundus_training.proposed(hot, lit, 2, 0.25)
    assert torch.equal(found, fundus_training.proposed(z, lit, 2, 0.25))
    assert found.shape == (2, 1, SIDE, SIDE)
    assert not found[..., 0, 0].any()
    assert not found[..., 15, 15].any()
    assert (found & lit).flatten(1).any(1).all()
    assert (found.flatten(1).sum(1) <= 2 * 16).all()
    assert not fundus_training.proposed(z, lit & False, 2, 0.25).any(), (
        "nothing for a photograph without a field"
    )


def test_scores_are_of_the_field_on_the_grid_of_the_map():
    z = torch.full((1, 1, 4, 4), -1.0)
    z[..., 0, 0], z[..., 1, 1], z[..., 2, 2] = 9, 5, 3
    lit = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    lit[..., :2, :2] = False
    found = fundus_training.score(z, lit, 2 / 15)
    assert found.item() == 4
    assert fundus_training.score(z, lit & False, 0.5).item() == -1, "without a field, the least evidence"


# --- learning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["saliency", "local", "refined", "masks"])
def test_each_group_learns_and_nothing_else_changes(group):
    task = task_of(group, learning_rate=0.01)
    before = everything(task.net)
    fit = loop.fit(task)
    by_epoch = fit.history.groupby("epoch")["loss"].mean()
    assert by_epoch.iloc[-1] < 0.85 * by_epoch.iloc[0]
    changed = {name for name, value in everything(task.net).items() if value != before[name]}
    assert {name.split(".")[2] for name in changed} == set(task.p.heads)
    assert all(name.startswith("net.heads.") for name in changed), "neither backbone, scale nor teachers"
    expected = [] if group in ("saliency", "masks") else list(fundus_training.SALIENCY)
    assert list(task.teachers) == expected
    assert not any(q.requires_grad for head in task.teachers.values() for q in head.parameters())


def test_the_learning_rate_falls_along_a_cosine():
    task = task_of("refined", epochs=1, learning_rate=0.02)
    rates = []
    for epoch in (1, 4, 6):
        task.start_epoch(epoch)
        rates.append(task.optimisers["adam"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.02, 0.01, 0.02 * (1 + np.cos(5 * np.pi / 6)) / 2])


def test_rules_come_from_labels_of_training_and_validation():
    task = task_of("saliency")
    known = fundus_training.known_labels(task.feed, CODES, "train")
    rules = fundus_training.rules(task.net, task.feed, task.p)
    assert rules.implied == evidence.implied_by(known) == ((1,), (), ())
    weights = np.array(rules.weights)
    assert weights.shape == (len(fundus_training.SALIENCY), len(CODES))
    np.testing.assert_allclose(weights.sum(0), 1)
    free = fundus_training.rules(task.net, task.feed, task.p.model_copy(update={"exclusive": False}))
    assert free.implied == ((), (), ())


def test_the_sparsity_term_is_the_mean_size_of_evidence_inside():
    task = task_of("saliency", sparsity=0.5)
    plain = task_of("saliency", sparsity=0.0)
    torch.manual_seed(0)
    z = {name: torch.randn(3, 3, 4, 4) for name in task.p.heads}
    lit = torch.ones(3, 1, SIDE, SIDE, dtype=torch.bool)
    lit[..., :8] = False
    batch = next(task.feed.draws(torch.arange(3), torch.zeros(3, dtype=torch.int64)))
    found, base = (one.losses(z, {}, lit, batch) for one in (task, plain))
    more = {name: (found[name] - base[name]).item() for name in found}
    assert more.pop("bag") == pytest.approx(0.5 * z["bag"][..., 2:].abs().mean().item(), rel=1e-5)
    assert set(more.values()) == {0.0}


def test_the_local_step_asks_inside_the_patches_only():
    """Evidence outside the patches of the frozen map has no gradient; some inside has."""
    task = task_of("local", patches=1)
    batch = next(task.feed.draws(torch.arange(4), torch.zeros(4, dtype=torch.int64)))
    with torch.no_grad():
        features, lit = task.net.unpack(batch.inputs)
        z = task.net.net.heads["local"](features)
        within = fundus_training.proposed(task.global_map(features), lit, 1, task.p.patch_share) & lit
    z.requires_grad_(True)
    (loss,) = task.losses({"local": z}, features, lit, batch).values()
    loss.backward()
    asked = (z.grad != 0).any(1, keepdim=True)
    assert asked.any()
    assert not (asked & ~within).any()
    score = patches.top_mean(z.detach(), task.p.local_share, within)
    labels = task.labels(batch.targets)
    assert loss.item() == pytest.approx(
        multilabel.cross_entropy(score, labels, task.weights).item(), rel=1e-6
    )


def test_masks_are_those_of_the_view_that_is_drawn():
    """Each view of each photograph: its squares lie where its masks are, on the grid of the features."""
    task = task_of("masks")
    for position, view in ((1, 0), (1, 1), (5, 0), (5, 1), (9, 1)):
        batch = next(task.feed.draws(torch.tensor([position]), torch.tensor([view])))
        truth = task.masks[int(batch.rows), int(batch.views)]
        image = task.feed.pixels(batch, SIZE)[0]
        red = image[1:].mean(0) - image[0]  # a red square is dark in green and blue
        pooled = torch.nn.functional.avg_pool2d(red[None, None], 4)[0, 0]
        lit = task.net.unpack(batch.inputs)[1][0, 0]
        on = torch.from_numpy(truth[0] > 0)
        assert on.any()
        outside = torch.nn.functional.max_pool2d(on[None].float(), 3, 1, 1)[0] == 0
        assert pooled[on].min() < pooled[lit & outside].quantile(0.02), (position, view)
    first, second = (task.masks[int(batch.rows), view][0] for view in (0, 1))
    assert (first != second).any()
    assert len(task.masks) == 2 * 16


def test_other_masks_are_another_training():
    task = task_of("masks")
    before = task.extra()
    assert task.extra() == before
    key = next(iter(task.masks))
    task.masks = task.masks | {key: 1 - task.masks[key]}
    assert task.extra()["masks"] != before["masks"]
    assert task.extra()["frozen"] == before["frozen"]


# --- kill and resume ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["saliency", "refined"])
def test_a_killed_run_goes_on_to_the_same_bytes(group, tmp_path):
    few = {"epochs": 3, "refined_epochs": 3}
    whole = task_of(group, **few)
    expected = loop.fit(whole)
    killed = task_of(group, **few)
    toy_tasks.stop_in(killed.feed, 3, 1)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(killed, tmp_path)
    torch.manual_seed(99)
    again = task_of(group, **few)
    fit = loop.fit(again, tmp_path)
    assert fit.resumed_at == 2
    pd.testing.assert_frame_equal(fit.history, expected.history, check_exact=True)
    assert everything(again.net) == everything(whole.net)
