"""Sanity checks on networks whose maps depend on everything, on nothing, or turn with the eye by construction."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from drstudy.explain.checks import sanity
from drstudy.models import nets

TARGET = np.array([0, 3, 1])


class Tiny(nets.GradingNet):
    """1x1 convolutions only: a position's evidence depends on its own pixels alone, so maps turn with the eye exactly."""

    head_path = "fc"

    def _declare(self):
        self.cam_layers = {"last": "last"}

    def trunk(self, x):
        return torch.relu(self.net.first(x))

    def tail(self, h):
        return self.net.fc(self.tap("last", torch.relu(self.net.last(h))).mean((2, 3)))


class Blind(Tiny):
    """Its map is the photograph's brightness, whatever the weights."""

    def trunk(self, x):
        self.net.first(x)
        return x.mean(1, keepdim=True)

    def tail(self, h):
        self.net.last(h.expand(-1, 8, -1, -1))
        h = self.tap("last", h)
        return h.mean((2, 3)) + 0 * self.net.fc(h.new_zeros(len(h), 6))


def tiny(cls=Tiny):
    torch.manual_seed(0)
    layers = nn.Module()
    layers.first, layers.last, layers.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Linear(6, 5)
    return cls("tiny", layers, "single").eval()


@pytest.fixture(scope="module")
def eyes():
    torch.manual_seed(3)
    return torch.randn(3, 3, 12, 12)


def test_stages_run_from_the_head_to_the_first_layer():
    assert sanity.stages(tiny(), torch.zeros(1, 3, 8, 8)) == {
        "head": ["fc"],
        "tail": ["last"],
        "first": ["first"],
    }


@pytest.mark.parametrize("backbone", ["densenet121", "resnet18", "vgg11", "efficientnet_lite0"])
def test_stages_hold_every_parameter_once(backbone):
    net = nets.build(backbone, head="paper", seed=1).eval()
    found = sanity.stages(net, torch.rand(1, 3, 64, 64), trunk_stages=3)
    paths = [path for stage in found.values() for path in stage]
    owners = {name.rpartition(".")[0] for name, _ in net.net.named_parameters()}
    assert len(paths) == len(set(paths))
    assert set(paths) == owners
    assert list(found)[:2] == ["head", "tail"]
    assert len(found) == 5
    first = next(name.rpartition(".")[0] for name, _ in net.net.named_parameters())
    assert first in list(found.values())[-1]  # the layer next to the eye comes last


def test_cascade_randomises_more_and_more_of_a_copy():
    net = nets.build("resnet18", seed=1).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.rand(4, 3, 64, 64)
    changed = []
    for _, random in sanity.randomised(net, x, seed=0):
        state = random.state_dict()
        changed.append(
            {n for n, v in state.items() if n.endswith(".weight") and not torch.equal(v, before[n])}
        )
        assert not random.training
    assert all(a < b for a, b in pairwise(changed))
    convolutions = {name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert {name.removesuffix(".weight") for name in changed[-1]} >= convolutions
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_random_head_is_not_the_one_that_training_began_with(seed):
    """Both are drawn by a seed, and studies like to call theirs 0."""
    net = nets.build("resnet18", seed=seed).eval()
    began = net.net.fc.weight.clone()
    _, random = next(sanity.randomised(net, torch.rand(2, 3, 64, 64), seed=seed))
    pair = torch.stack([began.flatten(), random.net.fc.weight.flatten()])
    assert torch.corrcoef(pair)[0, 1].abs() < 0.1  # of 2560 independent draws: 5 standard deviations


def test_randomised_networks_still_carry_a_signal():
    """Their norms know the eyes: without that, numbers of a deep network would vanish or overflow."""
    net = nets.build("densenet121", seed=1).eval()
    x = torch.rand(4, 3, 64, 64)
    *_, (_, random) = sanity.randomised(net, x)
    with torch.no_grad(), random.record("norm5_relu") as box:
        random(x)
    assert 0.2 < box["norm5_relu"].std() < 5


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_s_alone(eyes):
    net = tiny()
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    a = sanity.cascade(net, eyes, "hires_cam", TARGET)
    assert torch.rand(1) == expected
    pd.testing.assert_frame_equal(a, sanity.cascade(tiny(), eyes, "hires_cam", TARGET))
    assert not a.equals(sanity.cascade(tiny(), eyes, "hires_cam", TARGET, seed=1))


def test_a_map_that_ignores_the_weights_survives(eyes):
    table = sanity.cascade(tiny(Blind), eyes.repeat(3, 1, 1, 1), "hires_cam", np.zeros(9, int))
    assert list(table["stage"].unique()) == ["head", "tail", "first"]
    assert (table["spearman"] > 1 - 1e-9).all()
    assert (table["ssim"] > 1 - 1e-6).all()
    found = sanity.verdict(table, [f"p{i}" for i in range(9)])
    assert list(found["verdict"]) == ["survives"] * 3


def test_a_map_made_of_weights_does_not_survive():
    """Evidence of twelve colour channels, weighted by what is then drawn anew."""
    torch.manual_seed(0)
    x = torch.randn(24, 3, 16, 16)
    tables = [
        sanity.cascade(tiny(), x, "hires_cam", np.zeros(24, int), seed=seed).assign(seed=seed)
        for seed in range(6)
    ]
    last = pd.concat(tables).query("stage == 'first'")
    assert abs(last["spearman"].mean()) < 0.5  # six drawings, each between -1 and 1


@pytest.mark.parametrize("method", ["grad_cam", "layer_cam", "guided_backprop"])
def test_maps_of_single_positions_turn_with_the_eye(eyes, method):
    table = sanity.equivariance(tiny(), eyes, method, TARGET)
    assert set(table["transform"]) == {"flip", "quarter turn"}
    assert len(table) == 6
    assert (table["spearman"] > 1 - 1e-6).all()
    assert (table["ssim"] > 1 - 1e-6).all()


def test_a_map_that_does_not_turn_is_seen(eyes):
    class Left(Tiny):
        def tail(self, h):
            return super().tail(h + 3 * torch.linspace(-1, 1, h.shape[-1]))

    table = sanity.equivariance(tiny(Left), eyes, "grad_cam", TARGET).set_index("transform")
    assert (table.loc["flip", "spearman"] < 0.9).all()


def test_agreement_of_known_maps():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 7, 7))
    b = np.stack([a[0] ** 3, -a[1], np.zeros((7, 7)), rng.normal(size=(7, 7))])
    found = sanity.agreement(a, b)
    from scipy.stats import spearmanr

    assert found["spearman"][0] == pytest.approx(1)
    assert found["spearman"][1] == pytest.approx(-1)
    assert np.isnan(found["spearman"][2])
    assert found["spearman"][3] == pytest.approx(spearmanr(a[3].ravel(), b[3].ravel()).statistic)
    assert sanity.agreement(a, 5 * a)["ssim"].to_numpy() == pytest.approx(1)
    assert (found["ssim"].to_numpy()[1:] < 0.5).all()
    with pytest.raises(ValueError, match="cannot be compared"):
        sanity.agreement(a, a[:3])


@pytest.mark.parametrize(
    ("value", "word"), [(0.9, "survives"), (0.3, "survives in part"), (0.0, "is lost"), (-0.4, "is lost")]
)
def test_verdict_in_words(value, word):
    noise = np.linspace(-0.1, 0.1, 21)
    table = pd.DataFrame({"image": range(21), "spearman": value + noise, "ssim": 0.5, "stage": "s"})
    found = sanity.verdict(table, [f"p{i}" for i in range(21)]).loc[0]
    assert found["verdict"] == word
    assert found["spearman"] == pytest.approx(value)
    assert found["spearman_lo"] < value < found["spearman_hi"]
    assert found["eyes"] == 21
    assert sanity.verdict(table, ["one"] * 21).loc[0, "verdict"] == "no interval"


def test_verdict_draws_patients_not_eyes():
    values = np.repeat([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], 10)
    table = pd.DataFrame({"image": range(60), "spearman": values, "ssim": 0.5})
    alone = sanity.verdict(table, [f"p{i}" for i in range(60)], by=()).loc[0]
    shared = sanity.verdict(table, [f"p{i // 10}" for i in range(60)], by=()).loc[0]
    assert shared["spearman_hi"] - shared["spearman_lo"] > 2 * (alone["spearman_hi"] - alone["spearman_lo"])


def test_flat_maps_are_counted():
    table = pd.DataFrame({"image": range(8), "spearman": [np.nan, *[0.7] * 7], "ssim": 0.5, "stage": "s"})
    found = sanity.verdict(table, list("abcdefgh")).loc[0]
    assert found["flat"] == 1
    assert found["eyes"] == 7
