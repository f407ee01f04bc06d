"""Regression: draws, views, steps and cuts as the paper has them; it learns; sizes hand on their weights."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from drstudy.core.devices import Compute
from drstudy.evaluation import ordinal
from drstudy.models import nets
from drstudy.papers.ram import blend, layers, model, params, training
from drstudy.papers.transfer.params import FineTuning
from drstudy.training import features, grading, loop, networks, prediction

CPU = Compute("cpu", "fp32")
KAGGLE = np.array([25810, 2443, 5292, 873, 708])


# --- draws -----------------------------------------------------------------------------------------


def test_annealed_weights_are_the_printed_ones():
    """N / count in the first epoch (sources E4: 1.361, 14.378, 6.638, 40.236, 49.613), near (1, 2, 2, 2, 2) after many."""
    first = training.annealed_weights(KAGGLE, 1)
    np.testing.assert_allclose(first, (1.361, 14.378, 6.638, 40.236, 49.613), atol=5e-4)  # their last digit
    second = training.annealed_weights(KAGGLE, 2)
    np.testing.assert_allclose(second, 0.975 * first + 0.025 * np.array([1, 2, 2, 2, 2]))
    np.testing.assert_allclose(training.annealed_weights(KAGGLE, 1000), (1, 2, 2, 2, 2), atol=1e-9)
    np.testing.assert_allclose(training.annealed_weights(KAGGLE, 2, ratio=0.0), (1, 2, 2, 2, 2))
    assert training.annealed_weights(np.array([5, 0, 3, 1, 1]), 3)[1] == 0


def task_of(net, recipe, feed=None):
    return training.Regression(net, feed, recipe, CPU)


def test_annealed_draws_lean_from_balance_to_what_there_is():
    grades = np.repeat(range(5), [700, 100, 100, 50, 50])
    feed = SimpleNamespace(train=pd.DataFrame({"grade": grades}))
    task = task_of(model.build("ram_net5", 128), params.Ram().net_recipe("ram_net5", 128), feed)

    def shares(epoch):
        drawn = grades[task.draw(epoch, torch.Generator().manual_seed(0)).numpy()]
        return np.bincount(drawn, minlength=5) / len(grades)

    # 1,000 draws: a share of 0.2 has a standard error of 0.013
    np.testing.assert_allclose(shares(1), 0.2, atol=0.05)
    late = np.array([700, 200, 200, 100, 100]) / 1300
    np.testing.assert_allclose(shares(400), late, atol=0.05)


# --- views -----------------------------------------------------------------------------------------


def ramp(size: int = 128) -> np.ndarray:
    """A photograph whose colour says the place: red is the column, green the row."""
    y, x = np.mgrid[:size, :size]
    return np.stack([x, y, np.full_like(x, 200)], axis=2).astype(np.uint8)


def test_a_view_is_a_warp_within_the_ranges():
    """From places that the pixels name: the matrix by least squares, its zooms, determinant and shift."""
    shifts, zooms, angles, flips = [], [], [], []
    y, x = np.mgrid[:112, :112]
    for number in range(60):
        seen = training.view(ramp(), 112, 10.0, 0, 3, number)
        inside = (seen[..., 2] == 200) & (seen[..., :2] > 0).all(2) & (seen[..., :2] < 127).all(2)
        at = np.column_stack([x[inside] - 55.5, y[inside] - 55.5, np.ones(inside.sum())])
        fitted = np.linalg.lstsq(at, seen[inside][:, :2].astype(float), rcond=None)[0].T
        matrix, centre = fitted[:, :2], fitted[:, 2] - 63.5
        shifts.append(centre)
        zooms.append(1 / np.linalg.norm(matrix, axis=0))
        flips.append(np.linalg.det(matrix) < 0)
        angles.append(np.arctan2(matrix[1, 1], matrix[0, 1]))
    # nearest neighbour: half a pixel of noise a pixel, far less in the fit
    assert np.abs(shifts).max() < 10.3
    assert np.abs(shifts).max() > 8, "of 120 uniform draws the greatest is almost surely in the last fifth"
    assert np.min(zooms) > 1 / 1.16
    assert np.max(zooms) < 1.16
    assert np.max(np.abs(np.diff(zooms))) > 0.1, "the axes zoom apart"
    assert 15 <= np.sum(flips) <= 45, "every second, 60 draws: four standard deviations"
    assert np.ptp(angles) > 5, "any angle"


def test_views_repeat_and_differ():
    one = training.view(ramp(), 112, 10.0, 0, 3, 1)
    assert np.array_equal(one, training.view(ramp(), 112, 10.0, 0, 3, 1))
    for other in ((1, 3, 1), (0, 4, 1), (0, 3, 2)):
        assert not np.array_equal(one, training.view(ramp(), 112, 10.0, *other))


@pytest.mark.parametrize(("augmentation", "expected"), [("paper", (40, 40, 40)), ("fixed", (10, 20, 40))])
def test_translation_is_forty_pixels_everywhere_or_in_proportion(augmentation, expected):
    p = params.Ram(
        sizes=(128, 256, 512), net_epochs=(1,) * 3, net_learning_rates=(0.1,) * 3, augmentation=augmentation
    )
    assert tuple(training.shift(p.net_recipe("ram_net5", size)) for size in p.sizes) == expected


@pytest.fixture(scope="module")
def data(coloured_eyes):
    return coloured_eyes(train=40, validation=15, test=20, size=128)


def test_without_augmentation_the_network_sees_the_centre(data):
    recipe = params.Ram().net_recipe("ram_net5", 128)
    net = model.build("ram_net5", 128)
    seen = training.Views(net, data, recipe, CPU)
    [batch] = seen.images([(5, -1), (7, -1)], [(0, 2)])
    assert batch.shape == (2, 3, 112, 112)
    for one, row in zip(batch, (5, 7)):
        centre = data.images[row, 8:-8, 8:-8] / 255
        by_hand = ((centre - np.array(net.mean)) / np.array(net.std)).transpose(2, 0, 1)
        np.testing.assert_allclose(one.numpy(), by_hand, atol=1e-5)


def test_colour_noise_lies_along_the_principal_colours(data):
    recipe = params.Ram().net_recipe("ram_net5", 128)
    seen = training.Views(model.build("ram_net5", 128), data, recipe, CPU)
    noise = np.stack([seen._noise(0, number) for number in range(2000)])
    expected = (
        0.25 * seen.colours @ seen.colours.T
    )  # colour_noise is 0.5, so the variance a quarter of the pixels'
    # 2,000 draws: a variance has a relative standard error of 3 %
    np.testing.assert_allclose(np.cov(noise, rowvar=False), expected, atol=0.12 * np.abs(expected).max())
    assert not seen._noise(0, -1).any()


# --- steps -----------------------------------------------------------------------------------------


def test_the_optimiser_is_nesterov_with_decay_of_weights_only():
    recipe = params.Ram().net_recipe("ram_net5", 128)
    net = model.build("ram_net5", 128, batch_norm=True)
    optimiser = task_of(net, recipe).optimisers["net"]
    decayed, rest = optimiser.param_groups
    assert isinstance(optimiser, torch.optim.SGD)
    assert decayed["nesterov"]
    assert (decayed["momentum"], decayed["weight_decay"], rest["weight_decay"]) == (0.9, 1e-3, 0)
    assert len(decayed["params"]) == 8 + 1, "of eight convolutions and the linear unit"
    assert len(decayed["params"]) + len(rest["params"]) == len(list(net.parameters()))


def test_the_rate_falls_where_the_paper_says():
    """At 512 px: a tenth after 150 and again after 220 of 250 epochs (sources E4)."""
    p = params.Ram(sizes=(512,), net_epochs=(250,), net_learning_rates=(0.003,))
    with torch.device("meta"):
        task = task_of(model.build("ram_net5", 512), p.net_recipe("ram_net5", 512))
    rates = {}
    for epoch in (1, 150, 151, 220, 221, 250):
        task.start_epoch(epoch)
        rates[epoch] = task.optimisers["net"].param_groups[0]["lr"]
    expected = {1: 3e-3, 150: 3e-3, 151: 3e-4, 220: 3e-4, 221: 3e-5, 250: 3e-5}
    assert rates == pytest.approx(expected)


def test_loss_and_validation_by_hand():
    task = task_of(model.build("ram_net5", 128), params.Ram().net_recipe("ram_net5", 128))
    said, grades = torch.tensor([[0.4], [2.6], [9.0], [-3.0]]), torch.tensor([0, 2, 4, 1])
    assert task.loss(said, {"grade": grades}).item() == pytest.approx((0.16 + 0.36 + 25 + 16) / 4)
    found = task.measure(said.numpy(), {"grade": grades.numpy()})
    assert found["loss"] == pytest.approx(10.38)
    assert found["qwk"] == pytest.approx(cohen_kappa_score([0, 2, 4, 1], [0, 3, 4, 0], weights="quadratic"))


def test_classification_is_as_before(data):
    """The loop's default task is what notebook 03 has always run."""
    p = FineTuning(input_size=64, epochs=1, views=1, batch_size=8)
    net = networks.build(p, data, CPU)
    assert net.outputs == 5
    fit = loop.fit(grading.Grading(net, features.Live(net, data, p, CPU), p, CPU))
    assert 0 < fit.history["loss"].iloc[0] < 5


# --- the whole -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRSTUDY_DATA", str(tmp_path_factory.mktemp("data")))
        p = params.Ram(
            networks=("ram_net5",),
            sizes=(128,),
            net_epochs=(12,),
            net_learning_rates=(2e-3,),
            net_batch_size=8,
            colour_noise=0.0,
            sampler="none",
            epochs=8,
            views=2,
            batch_size=8,
        )
        return training.train(p, data, CPU)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1], ids=["from random weights", "pretrained"])
def test_it_learns_an_easy_problem(trained, place):
    """Grades that are colours: labels mixed up, a step in the wrong direction or a wrong output could not order test eyes."""
    one = trained[place]
    test = one.scores[one.scores["split"] == "test"]
    assert len(test) == 20
    assert np.corrcoef(test["score"], test["grade"].astype(float))[0, 1] > 0.8
    losses = training.history([one])["loss"]
    assert losses.iloc[-1] < 0.5 * losses.iloc[0]


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1], ids=["of the paper", "pretrained"])
def test_a_trained_network_survives_its_file(trained, tmp_path, place):
    one = trained[place]
    training.save([one], tmp_path)
    rebuild = (model if one.network in layers.NETWORKS else nets).rebuild
    again = prediction.load(tmp_path / f"{one.network}-128.safetensors", rebuild)
    assert (again.backbone, again.outputs, again.input_size) == (one.network, 1, 128)
    with torch.no_grad():
        x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        kept, found = one.net.cpu().state_dict(), again.state_dict()
        assert kept.keys() == found.keys()
        assert all(torch.equal(kept[name], found[name]) for name in kept), (
            "every weight and statistic, to the bit"
        )
        # the network that was trained has its channels last in memory; as AVX2, sums in the other order differ by 1e-7 of the score
        torch.testing.assert_close(again(x), one.net(x), rtol=1e-6, atol=0)
        for weight in again.parameters():
            if weight.ndim == 4:
                weight.data.mul_(1.001)
                break
        assert not torch.allclose(again(x), one.net(x), rtol=1e-6, atol=0), (
            "one layer off by a thousandth is seen"
        )


def test_sizes_hand_on_their_weights_and_a_size_can_be_left_out(data, monkeypatch):
    handed = []
    real = model.transfer
    monkeypatch.setattr(model, "transfer", lambda a, b: handed.append((a.size, b.size)) or real(a, b))
    p = params.Ram(networks=("ram_net5",), backbone="", net_epochs=(1, 0), net_batch_size=20)
    assert [(one.network, one.size) for one in training.train(p, data, CPU)] == [("ram_net5", 128)]
    assert handed == []
    small = dataclasses.replace(data, table=data.table.groupby("split").head(10).reset_index(drop=True))
    found = training.train(p.model_copy(update={"net_epochs": (1, 1)}), small, CPU)
    assert [one.size for one in found] == [128, 256]
    assert handed == [(128, 256)]


def test_recipes_of_wrong_length_or_order_are_refused():
    with pytest.raises(ValueError, match="SIZES has 1 entries"):
        params.Ram(sizes=(128,))
    with pytest.raises(ValueError, match="must rise"):
        params.Ram(sizes=(256, 128))


def test_timing_takes_turns():
    table = training.time_side_by_side(["ram_net5", "baseline_net5"], 128, 2, 3, CPU, False)
    assert table["network"].tolist() == ["ram_net5", "baseline_net5"] * 3
    assert table["round"].tolist() == [0, 0, 1, 1, 2, 2]
    assert (table["seconds_per_1000_images"] > 0).all()


# --- scores to grades ------------------------------------------------------------------------------


def test_rounding():
    assert ordinal.grades([-3, 0.49, 0.5, 1.6, 3.4, 3.6, 9]).tolist() == [0, 0, 1, 2, 3, 4, 4]


def test_fitted_cuts_undo_a_shifted_scale():
    """Scores squeezed into 1 to 2: rounding calls nearly all 1 or 2, the fitted cuts get all right."""
    truth = np.tile(range(5), 8)
    said = 1 + truth / 4 + np.random.default_rng(0).uniform(-0.1, 0.1, 40)
    cuts = ordinal.fit_cuts(said, truth)
    assert (np.diff(cuts) > 0).all()
    assert (ordinal.grades(said, cuts) == truth).all()
    assert (ordinal.grades(said) == truth).mean() < 0.5


def test_fitted_cuts_are_never_worse_than_rounding_on_what_they_were_fitted_on():
    random = np.random.default_rng(1)
    for _ in range(10):
        truth = random.integers(0, 5, 40)
        said = truth + random.normal(0, 1.5, 40)
        kappas = [
            cohen_kappa_score(truth, ordinal.grades(said, cuts), weights="quadratic")
            for cuts in (ordinal.ROUNDED, ordinal.fit_cuts(said, truth))
        ]
        assert kappas[1] >= kappas[0]


def test_one_score_for_all_keeps_the_cuts():
    assert ordinal.fit_cuts(np.ones(6), np.arange(6) % 5).tolist() == list(ordinal.ROUNDED)


def test_agreement_is_that_of_an_independent_library():
    random = np.random.default_rng(2)
    truth = random.integers(0, 5, 60)
    table = pd.DataFrame(
        {
            "image_id": [f"{i}" for i in range(60)],
            "patient_id": [f"{i // 2}" for i in range(60)],
            "grade": truth,
            "score": truth + random.normal(0, 1, 60),
        }
    )
    found = ordinal.bootstrap(table, ordinal.ROUNDED, 200, 0).set_index("metric")
    expected = cohen_kappa_score(truth, ordinal.grades(table["score"]), weights="quadratic")
    assert found.loc["qwk", "value"] == pytest.approx(expected)
    assert found.loc["qwk", "lo"] < expected < found.loc["qwk", "hi"]
    same = ordinal.difference(table, table, ordinal.ROUNDED, ordinal.ROUNDED, 50, 0)
    assert (same[["value", "lo", "hi"]].to_numpy() == 0).all()


# --- both eyes -------------------------------------------------------------------------------------


def test_fellow_eyes_find_each_other():
    table = pd.DataFrame({"patient_id": ["a", "b", "a", "c", "b"]})
    assert blend.pairs(table).tolist() == [2, 4, 0, 3, 1]


@pytest.mark.slow
def test_the_blend_uses_the_fellow_eye(data, trained):
    """The fellow eye's features alone tell the grade apart where the own ones are blank."""
    right = dict.fromkeys(data.table["image_id"], True)
    found = blend.scores(trained[1].net, data, right, CPU, False, 0)
    assert set(found["split"]) == {"validation", "test"}
    # measured: 0.93 to 0.97 natively and as AVX2; 0.17 when features that are constant but for rounding were scaled up
    assert np.corrcoef(found["score"], found["grade"].astype(float))[0, 1] > 0.7
    again = blend.scores(trained[1].net, data, right, CPU, False, 0)
    pd.testing.assert_frame_equal(found, again, check_exact=True)
    other = data.table.assign(patient_id=[f"x{i}" for i in range(len(data.table))])
    alone = blend.scores(trained[1].net, dataclasses.replace(data, table=other), right, CPU, False, 0)
    assert not np.allclose(alone["score"], found["score"])


def test_pooled_features_are_what_the_linear_unit_sees(data):
    net = model.build("ram_net5", 128, seed=1)
    net.input_size = 128
    seen = blend.pooled(net, data.images, np.arange(4), CPU, tta=False)
    head = net.net.head
    by_hand = seen @ head.weight.detach().numpy()[0] + head.bias.item()
    from drstudy.training import transforms

    with torch.no_grad():
        direct = net(transforms.to_input(data.images[:4], 128, net.mean, net.std))[:, 0].numpy()
    np.testing.assert_allclose(by_hand, direct, atol=1e-5)
    assert blend.pooled(net, data.images, np.arange(4), CPU, tta=True).shape == (4, 256)
