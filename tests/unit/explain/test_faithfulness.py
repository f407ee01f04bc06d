"""Insertion, deletion and ROAD where the answer is known in closed form."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from drstudy.explain.checks import faithfulness
from drstudy.explain.methods import cam, methods
from drstudy.models import nets

from pytorch_grad_cam.metrics import road as packaged  # isort: skip
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # isort: skip

SIDE = 16


class Linear(nets.GradingNet):
    """The score of class 1 is the mean of brightness times a known weight of each pixel; that of the others 0."""

    head_path = "fc"
    mean, std = (0.0,) * 3, (1.0,) * 3

    def _declare(self):
        self.cam_layers = {"conv": "conv"}

    def trunk(self, x):
        return x

    def tail(self, h):
        evidence = self.tap("conv", self.net.conv(h)) * self.net.place
        return self.net.fc(evidence.mean((2, 3)))


def linear(place):
    layers = nn.Module()
    layers.conv, layers.fc = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(1, 5, bias=False)
    layers.register_buffer("place", torch.as_tensor(place, dtype=torch.float32))
    nn.init.constant_(layers.conv.weight, 1 / 3)
    with torch.no_grad():
        layers.fc.weight.copy_(torch.tensor([[0.0], [1], [0], [0], [0]]))
    return Linear("linear", layers, "single").eval()


def probability(score):
    return np.exp(score) / (np.exp(score) + 4)


def test_curves_of_a_linear_score_in_closed_form():
    """A white eye on black: with all weights equal, the score is the share of pixels shown."""
    net, x = linear(np.full((SIDE, SIDE), 6.0)), torch.ones(2, 3, SIDE, SIDE)
    raw = faithfulness.random_maps(2, SIDE)
    found = faithfulness.curves(net, x, raw, np.array([1, 1]), "black", 8)
    np.testing.assert_allclose(found.shares, np.arange(9) / 8)
    np.testing.assert_allclose(found.insertion, [probability(6 * found.shares)] * 2, rtol=1e-5)
    np.testing.assert_allclose(found.deletion, [probability(6 * (1 - found.shares))] * 2, rtol=1e-5)
    area = np.trapezoid(probability(6 * found.shares), found.shares)
    for auc in found.auc():
        np.testing.assert_allclose(auc, [area] * 2, rtol=1e-5)


def test_the_most_important_pixels_come_first():
    """Evidence in one quarter: the right map has it all after a quarter, the inverted one in the last quarter."""
    place = np.zeros((SIDE, SIDE))
    place[: SIDE // 2, : SIDE // 2] = 24  # mean 6
    net, x = linear(place), torch.ones(1, 3, SIDE, SIDE)
    right = faithfulness.curves(net, x, place[None], np.array([1]), "black", 8)
    wrong = faithfulness.curves(net, x, -place[None], np.array([1]), "black", 8)
    np.testing.assert_allclose(right.insertion[0], probability(np.minimum(6, 24 * right.shares)), rtol=1e-5)
    np.testing.assert_allclose(
        right.deletion[0], probability(np.maximum(0, 6 - 24 * right.shares)), rtol=1e-5
    )
    np.testing.assert_allclose(
        wrong.insertion[0], probability(np.maximum(0, 24 * right.shares - 18)), rtol=1e-5
    )


@pytest.fixture(scope="module")
def evidence():
    """Eyes with spots of evidence on noise, and the network for which these are all that counts."""
    rng = np.random.default_rng(0)
    place = np.zeros((32, 32))
    place[4:12, 6:14] = place[20:26, 18:26] = 60
    x = torch.from_numpy(rng.uniform(0.2, 1, (6, 1, 32, 32)).astype(np.float32)).repeat(1, 3, 1, 1)
    return linear(place), x, place


def test_a_map_equal_to_the_evidence_beats_random_ones(evidence):
    net, x, place = evidence
    maps = {
        "evidence": np.repeat(place[None], 6, 0) * x[:, 0].numpy(),
        "random": faithfulness.random_maps(6, 7),
        "inverted": -np.repeat(place[None], 6, 0),
    }
    found = faithfulness.measure(net, x, maps, np.ones(6, int), baselines=("mean", "black"))
    assert list(found.columns) == [
        *("image", "map", "insertion_mean", "deletion_mean", "insertion_black", "deletion_black", "road")
    ]
    assert len(found) == 18
    means = found.set_index("image").groupby("map").mean()
    assert means.loc["evidence", "insertion_black"] > means.loc["random", "insertion_black"] + 0.1
    assert means.loc["evidence", "deletion_black"] < means.loc["random", "deletion_black"] - 0.1
    assert means.loc["inverted", "insertion_black"] < means.loc["random", "insertion_black"] - 0.1
    # with its mean in place of each pixel the score of uniform noise stays: nothing can be inserted
    assert abs(means.loc["evidence", "insertion_mean"] - means.loc["random", "insertion_mean"]) < 0.05


def test_road_sees_a_smooth_spot_that_imputation_cannot_restore():
    y, x = np.mgrid[:32, :32]
    spot = np.exp(-((y - 12) ** 2 + (x - 18) ** 2) / 18)
    net = linear(40 * spot)
    eyes = torch.from_numpy(np.float32(spot)).expand(4, 3, 32, 32).contiguous()
    maps = {
        "spot": np.repeat(spot[None], 4, 0),
        "random": faithfulness.random_maps(4, 7),
        "not": -np.repeat(spot[None], 4, 0),
    }
    found = faithfulness.measure(net, eyes, maps, np.ones(4, int), baselines=()).groupby("map")["road"].mean()
    assert found["spot"] > 0.1
    assert abs(found["random"]) < 0.05
    assert found["not"] == pytest.approx(
        -found["spot"], abs=0.01
    )  # the orders change places; ties are no mirror


def test_road_is_the_package_s_without_its_noise(monkeypatch):
    """Blocks of one pixel, no noise, a map without ties: the same number from its own classes."""
    torch.manual_seed(1)
    y, x = np.mgrid[:32, :32]
    net = linear(200 * np.exp(-((y - 12) ** 2 + (x - 18) ** 2) / 18))
    eyes = nn.functional.interpolate(torch.rand(3, 3, 5, 5), size=32, mode="bicubic")
    raw = cam.upsample(faithfulness.random_maps(3, 7), 32)
    monkeypatch.setattr(faithfulness, "ROAD_NOISE", 0)
    monkeypatch.setattr(faithfulness.impute, "__defaults__", (1,))
    found = faithfulness.road(net, eyes, raw, np.ones(3, int), (0.25, 0.5))
    init = packaged.NoisyLinearImputer.__init__
    monkeypatch.setattr(packaged.NoisyLinearImputer, "__init__", lambda self, *_: init(self, noise=0))
    expected = packaged.ROADCombined([50, 75])(
        eyes, raw, [ClassifierOutputTarget(1)] * 3, nn.Sequential(net, nn.Softmax(1))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert np.abs(found).min() > 1e-4


def test_imputation_on_blocks_is_close_to_the_direct_solution():
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.randn(2, 3, 8, 8), size=64, mode="bicubic")
    rank = faithfulness.ranks(faithfulness.random_maps(2, 7), smooth)
    for share in (0.1, 0.5):
        hole = torch.from_numpy(rank < share * 64 * 64)[:, None]
        exact = faithfulness.impute(smooth, hole, factor=1)
        package = packaged.NoisyLinearImputer(noise=0)(smooth[0], (~hole[0, 0]).float())
        torch.testing.assert_close(exact[0], package)
        assert torch.equal(exact[~hole.expand_as(exact)], smooth[~hole.expand_as(exact)])
        error = (faithfulness.impute(smooth, hole) - exact)[hole.expand_as(exact)]
        gap = (smooth - exact)[hole.expand_as(exact)]
        assert error.std() < 0.35 * gap.std()
        inside = exact[0, 0][hole[0, 0]]
        assert inside.min() >= smooth.min()  # a mean of neighbours is never outside
        assert inside.max() <= smooth.max()


def test_imputation_without_a_hole_changes_nothing():
    x = torch.randn(1, 3, 9, 9)
    assert torch.equal(faithfulness.impute(x, torch.zeros(1, 1, 9, 9, dtype=torch.bool)), x)


def test_a_single_missing_pixel_is_the_weighted_mean_of_its_neighbours():
    x = torch.arange(25.0).reshape(1, 1, 5, 5).repeat(1, 3, 1, 1) ** 2
    hole = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    hole[..., 2, 2] = True
    around = x[0, 0, 1:4, 1:4]
    expected = (around[0, 1] + around[1, 0] + around[1, 2] + around[2, 1]) / 6
    expected = expected + (around[0, 0] + around[0, 2] + around[2, 0] + around[2, 2]) / 12
    assert faithfulness.impute(x, hole, factor=1)[0, 0, 2, 2] == pytest.approx(float(expected))


def test_batches_steps_and_images_do_not_mix(evidence):
    net, x, _ = evidence
    maps = {"random": faithfulness.random_maps(6, 7)}
    together = faithfulness.measure(net, x, maps, np.ones(6, int), batch_size=6)
    apart = faithfulness.measure(net, x, maps, np.ones(6, int), batch_size=4)
    deterministic = [column for column in together if column != "road"]  # its noise is drawn batch by batch
    pd.testing.assert_frame_equal(together[deterministic], apart[deterministic], rtol=1e-5)
    one = faithfulness.measure(net, x[2:3], {"random": maps["random"][2:3]}, np.ones(1, int), road_shares=())
    assert list(one) == [column for column in together if column != "road"]
    for column in deterministic[2:]:
        assert one[column][0] == pytest.approx(together[column][2], rel=1e-5)
    pd.testing.assert_frame_equal(together, faithfulness.measure(net, x, maps, np.ones(6, int), batch_size=6))


def test_ranks_order_all_pixels_and_break_ties_at_random():
    x = torch.zeros(2, 3, 8, 8)
    rank = faithfulness.ranks(np.stack([np.arange(64.0).reshape(8, 8), np.zeros((8, 8))]), x)
    assert rank[0].ravel().tolist() == list(range(64))[::-1]
    assert sorted(rank[1].ravel()) == list(range(64))
    assert np.corrcoef(rank[1].ravel(), np.arange(64))[0, 1] < 0.4  # not row by row
    np.testing.assert_array_equal(
        rank, faithfulness.ranks(np.stack([np.arange(64.0).reshape(8, 8), np.zeros((8, 8))]), x)
    )


def test_without_a_target_the_predicted_class_is_followed(evidence):
    net, x, _ = evidence
    maps = {"random": faithfulness.random_maps(6, 7)}
    pd.testing.assert_frame_equal(
        faithfulness.measure(net, x, maps, road_shares=()),
        faithfulness.measure(net, x, maps, np.ones(6, int), road_shares=()),
    )


@pytest.mark.parametrize(
    ("raw", "target", "shares", "message"),
    [
        (np.zeros((2, 7, 7)), None, (0.5,), r"must be \(6, h, w\)"),
        (np.full((6, 7, 7), np.nan), None, (0.5,), "not finite"),
        (np.zeros((6, 7, 7)), np.ones(5, int), (0.5,), "one integer class for each of the 6"),
        (np.zeros((6, 7, 7)), None, (0.5, 1.0), "between 0 and 1"),
    ],
)
def test_refuses_what_cannot_be_measured(evidence, raw, target, shares, message):
    net, x, _ = evidence
    with pytest.raises(ValueError, match=message):
        faithfulness.measure(net, x, {"map": raw}, target, baselines=("mean",), road_shares=shares)


def test_leaves_the_network_as_it_was(evidence):
    net, x, _ = evidence
    net.train()
    faithfulness.measure(net, x, {"random": faithfulness.random_maps(6, 7)}, road_shares=(0.5,))
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    net.eval()


def test_in_autocast_probabilities_are_those_of_that_precision(evidence):
    """Whole curves differ by what bfloat16, of 8 bits, rounds; everything beside the network is float32."""
    net, x, place = evidence
    maps = {"evidence": np.repeat(place[None], 6, 0)}
    expected = faithfulness.measure(net, x, maps, np.ones(6, int), baselines=("black",))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = faithfulness.measure(net, x, maps, np.ones(6, int), baselines=("black",))
    for column in ("insertion_black", "deletion_black", "road"):
        np.testing.assert_allclose(found[column], expected[column], atol=0.02)
    assert not found.equals(expected)  # the precision was really another
    assert next(net.parameters()).dtype == torch.float32


def test_random_maps_differ_by_eye_and_seed():
    maps = faithfulness.random_maps(3, 7, 0)
    assert maps.shape == (3, 7, 7)
    assert maps.dtype == np.float32
    assert not np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps, faithfulness.random_maps(3, 7, 1))
    np.testing.assert_array_equal(maps, faithfulness.random_maps(3, 7, 0))


def test_maps_of_methods_can_be_measured(evidence):
    net, x, _ = evidence
    found = methods.explain_many(net, x, ("hires_cam", "guided_backprop"), np.ones(6, int))
    table = faithfulness.measure(net, x, found.raw, found.target, road_shares=())
    assert list(table["map"].unique()) == ["hires_cam", "guided_backprop"]
    assert table.notna().all(axis=None)
