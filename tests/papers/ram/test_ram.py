"""RAM: the networks to the unit, the map as the score's mean, fusion, and where a map lies on its photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from drstudy.core.devices import Compute
from drstudy.explain.methods import cam
from drstudy.models import nets, norms
from drstudy.papers.ram import layers, maps, model

CPU = Compute("cpu", "fp32")
PUBLISHED = {  # sources E3; printed as 12.4, 9.7, 12.5 and 9.8 million
    "parameters_baseline_net5": 12_402_657,
    "parameters_ram_net5": 9_729_249,
    "parameters_baseline_net4": 12_465_121,
    "parameters_ram_net4": 9_841_633,
}
BATCH_NORM = {"ram_net5": 3_846, "ram_net4": 2_822}
"""Further parameters with batch norm (sources E3)."""


# --- networks --------------------------------------------------------------------------------------


def test_parameters_are_the_published_ones_to_the_unit():
    assert model.parameters() == PUBLISHED


@pytest.mark.parametrize("network", BATCH_NORM)
def test_batch_norm_adds_what_the_paper_has(network):
    with torch.device("meta"):
        more = model.build(network, 512, batch_norm=True).count()["parameters_total"]
    assert more - PUBLISHED[f"parameters_{network}"] == BATCH_NORM[network]


@pytest.mark.parametrize(("network", "tied"), [("ram_net5", 5_521_633), ("baseline_net5", 8_145_121)])
def test_tied_biases_leave_one_a_channel(network, tied):
    """5.52 and 8.15 million (sources E3): convolutions and head, and one bias for each of 2,432 channels."""
    with torch.device("meta"):
        assert model.build(network, 512, untied=False).count()["parameters_total"] == tied


@pytest.mark.parametrize(
    ("network", "size", "cells"),
    [
        ("ram_net5", 128, 6),
        ("ram_net5", 256, 6),
        ("baseline_net5", 128, 6),
        ("ram_net4", 128, 7),
        ("ram_visual5", 128, 54),
        ("ram_visual5", 256, 56),
    ],
)
def test_a_network_takes_its_photographs_and_has_maps_of_the_stated_size(network, size, cells):
    net = model.build(network, size).eval()
    with torch.no_grad(), net.record("last_conv") as seen:
        assert net(torch.zeros(1, 3, size, size)).shape == (1, 1)
    assert seen["last_conv"].shape[2:] == (cells, cells)
    assert layers.sides(layers.layers_of(network, size)[0], layers.CROPS[size])[-1] == cells


def test_unknown_networks_and_sizes_are_named():
    with pytest.raises(ValueError, match="'ram_net6' for 128 px; there are ram_net5"):
        model.build("ram_net6", 128)
    with pytest.raises(ValueError, match="128, 256 and 512 px"):
        model.build("ram_net5", 96)
    with pytest.raises(ValueError, match="no maps at 512 px"):
        model.build("ram_visual5", 512)


def test_weights_start_orthogonal_biases_at_a_twentieth_and_by_the_seed():
    net, again, other = (model.build("ram_net5", 128, seed=seed) for seed in (1, 1, 2))
    first = net.net.features[0]
    rows = first.conv.weight.detach().flatten(1).double()
    # float32 orthogonalisation of 32 rows of 75: entries of the product are good to about 1e-6
    assert torch.allclose(rows @ rows.T, torch.eye(32, dtype=torch.float64), atol=1e-5)
    assert (first.bias == 0.05).all()
    assert first.bias.shape == (1, 32, 55, 55)
    assert torch.equal(first.conv.weight, again.net.features[0].conv.weight)
    assert not torch.equal(first.conv.weight, other.net.features[0].conv.weight)


def test_a_layer_is_convolution_bias_and_leak_by_hand():
    layer = model.BiasedConv(1, layers.Conv(1, 1), side=2, untied=True)
    with torch.no_grad():
        layer.conv.weight.fill_(2.0)
        layer.bias.copy_(torch.tensor([[[[0.0, 1.0], [-5.0, 0.5]]]]))
        found = layer(torch.tensor([[[[1.0, -1.0], [1.0, 3.0]]]]))
    assert torch.allclose(found, torch.tensor([[[[2.0, -0.01], [-0.03, 6.5]]]]))


def test_root_mean_square_and_maxout_by_hand():
    assert model.RMSPool(2, 2)(torch.tensor([[[[1.0, 7.0], [5.0, 5.0]]]])).item() == pytest.approx(5.0)
    assert model.Maxout()(torch.tensor([[1.0, 3.0, -2.0, -4.0]])).tolist() == [[3.0, -2.0]]


def test_everything_learns():
    net = model.build("ram_net5", 128, batch_norm=True)
    assert net.count()["parameters_total"] == net.count()["parameters_trainable"]
    leaves = [module for module in net.train().modules() if not list(module.children())]
    assert all(module.training for module in leaves)


def test_transfer_keeps_the_function_of_the_shared_layers():
    """With tied biases the same convolutions see the same pixels: a larger network's first blocks are the smaller one's."""
    small, large = (model.build("ram_net5", size, untied=False, seed=size) for size in (128, 256))
    x = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    shared = len(small.net.features)
    before = large.net.features[:shared](x)
    taken = model.transfer(small, large)
    assert not torch.allclose(before, small.net.features(x), atol=0.01)
    assert torch.equal(large.net.features[:shared](x), small.net.features(x))
    assert all(name.startswith("net.features") for name in taken), "the head has another width"
    assert len(taken) == 2 * 8


def test_transfer_stretches_untied_biases():
    small, large = (model.build("ram_net5", size) for size in (128, 256))
    with torch.no_grad():
        small.net.features[0].bias.copy_(torch.linspace(0, 1, 55).expand(1, 32, 55, 55))
    model.transfer(small, large)
    bias = large.net.features[0].bias
    assert bias.shape == (1, 32, 111, 111)
    middle = bias[0, 0, 55, 1:-1]
    assert middle[0] < 0.02
    assert middle[-1] > 0.98
    assert (middle.diff() > 0).all()


# --- maps ------------------------------------------------------------------------------------------


def regressor(network: str, size: int = 128) -> nets.GradingNet:
    net = (
        model.build(network, size, batch_norm=True, seed=3)
        if network in layers.NETWORKS
        else nets.build(network, outputs=1, seed=3)
    )
    net.freeze()
    net.input_size = size
    if network not in layers.NETWORKS:  # else activations fade away through the untrained depth
        noise = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(2))
        norms.calibrate(net, lambda: iter([noise]))
    with torch.no_grad():  # a head that is not by chance near 0, with a bias that must be left out
        for module in net.net.get_submodule(net.head_path).modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, 1, generator=torch.Generator().manual_seed(1))
                module.bias.fill_(1.7)
    return net


@pytest.fixture(scope="module")
def photographs():
    return np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)


def explained(net, photographs, **options):
    return maps.explain(net, photographs, ["a", "b", "c"], np.arange(3), CPU, **options)


@pytest.mark.parametrize("network", ["ram_net5", "ram_net4", "efficientnet_lite0", "densenet121"])
@pytest.mark.parametrize("tta", [False, True])
def test_score_is_the_mean_of_the_map_and_the_bias(network, tta, photographs):
    net = regressor(network)
    found = explained(net, photographs, tta=tta)
    assert found.bias == pytest.approx(1.7)
    gap = found.raw.mean((1, 2), dtype=np.float64) + found.bias - found.scores
    # sums of float32 products; a bias left in would be 1.7, a flip not undone leaves the mean alone and is tested below
    assert np.abs(gap).max() < 1e-4 * max(1, np.abs(found.scores).max())
    if not tta:
        from drstudy.training import transforms

        with torch.no_grad():
            direct = net.eval()(transforms.to_input(photographs, 128, net.mean, net.std))[:, 0].numpy()
        # measured: 1e-6 of the score natively, 1.2e-5 for one network as AVX2; five times that. The bias alone is a twentieth of it
        np.testing.assert_allclose(found.scores, direct, rtol=6e-5, atol=1e-5)
    assert (found.raw < 0).any(), "it is signed"


def test_map_is_grad_cam_of_the_score_times_the_positions(photographs):
    """By differentiation, which knows nothing of heads: d score / d activation = weight / positions."""
    net = regressor("efficientnet_lite0")
    found = explained(net, photographs)
    by_gradient = cam.explain_images(net, photographs, ["a", "b", "c"], 128, CPU).raw["conv_head"]
    np.testing.assert_allclose(found.raw, by_gradient * by_gradient[0].size, rtol=1e-3, atol=1e-3)


def test_flips_are_undone(photographs):
    """Of a photograph and its mirror image, the averaged maps are mirror images."""
    net = regressor("efficientnet_lite0")
    found = explained(net, photographs, tta=True)
    mirrored = explained(net, photographs[:, :, ::-1], tta=True)
    # the same four views in another order: only the order of summation differs
    np.testing.assert_allclose(mirrored.raw, found.raw[:, :, ::-1], atol=1e-3 * np.abs(found.raw).max())
    single = explained(net, photographs), explained(net, photographs[:, :, ::-1])
    assert np.abs(single[1].raw - single[0].raw[:, :, ::-1]).max() > 0.01 * np.abs(found.raw).max()


@pytest.mark.parametrize("network", ["baseline_net5", "vgg16"])
def test_no_map_where_the_score_is_no_mean(network):
    net = model.build(network, 128) if network.startswith("base") else nets.build(network, outputs=1)
    with pytest.raises(maps.NotLinearError, match=r"no map|channels of"):
        maps.ram(net, net.trunk(torch.zeros(1, 3, 128, 128)))


def test_no_map_of_five_classes_and_none_where_something_stands_between():
    net = nets.build("efficientnet_lite0")
    with pytest.raises(maps.NotLinearError, match="5 outputs"):
        maps.ram(net, net.trunk(torch.zeros(1, 3, 64, 64)))
    net = regressor("efficientnet_lite0")
    net.net._dropout = nn.Softplus()
    with pytest.raises(maps.NotLinearError, match="away from the mean"):
        maps.ram(net, net.trunk(torch.randn(2, 3, 64, 64)))


def score_maps(raw, scores=None, bias=0.5, seen=(0.0, 1.0)) -> maps.ScoreMaps:
    raw = np.asarray(raw, np.float32)
    cells = raw.shape[1]
    scores = raw.mean((1, 2)) + bias if scores is None else scores
    names = np.array([f"e{i}" for i in range(len(raw))])
    return maps.ScoreMaps(raw, scores, bias, 0.5 / cells, 1 / cells, seen, names)


def test_fusion_keeps_scale_sign_and_score():
    random = np.random.default_rng(0)
    parts = [
        score_maps(random.normal(1, 3, (2, cells, cells)), bias=bias)
        for cells, bias in ((4, 1.0), (8, -2.0), (7, 0.0))
    ]
    fused = maps.fuse(parts)
    assert fused.raw.shape == (2, 8, 8)
    assert fused.raw.min() < 0
    # float32 maps of order 10
    np.testing.assert_allclose(fused.raw.mean((1, 2)) + fused.bias, fused.scores, atol=1e-5)
    np.testing.assert_allclose(fused.scores, np.mean([part.scores for part in parts], axis=0))
    same = maps.fuse([parts[1], parts[1]])
    np.testing.assert_allclose(same.raw, parts[1].raw, atol=1e-6)


def test_printed_fusion_drops_the_border_scales_and_adds():
    small, large = np.zeros((1, 54, 54)), np.zeros((1, 56, 56))
    small[0, 10, 20], small[0, 3, 3] = -4, 6  # minimum 0, maximum 1
    large[0, 11, 21], large[0, 0, 0] = 8, 99  # the border's 99 does not scale it: it is dropped
    fused = maps.fuse_printed(score_maps(small), score_maps(large))
    assert fused.raw.shape == (1, 54, 54)
    assert fused.raw[0, 10, 20] == pytest.approx(0 + 1)
    assert fused.raw[0, 3, 3] == pytest.approx(1 + 0)
    assert fused.raw[0, 30, 30] == pytest.approx(0.4)


def test_printed_fusion_loses_severity_and_ours_does_not():
    """A map ten times as strong says ten times as much; scaled to its own maximum it says the same."""
    weak = np.random.default_rng(0).normal(size=(1, 6, 6))
    both = score_maps(np.concatenate([weak, 10 * weak]))
    printed, ours = maps.fuse_printed(both, both).raw, maps.fuse([both, both]).raw
    np.testing.assert_allclose(printed[0], printed[1], atol=1e-5)
    np.testing.assert_allclose(10 * ours[0], ours[1], rtol=1e-5)


def test_only_maps_of_the_same_eyes_are_fused():
    one = score_maps(np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="same eyes"):
        maps.fuse([one, score_maps(np.zeros((3, 4, 4)))])


@pytest.mark.parametrize("network", ["ram_net5", "ram_net4", "ram_visual5"])
def test_cells_look_where_the_grid_says(network):
    """By differentiation: the pixels that move a cell lie about its centre, in an input so large that no border cuts its field of view;
    pooling by means, which looks at the same windows, keeps them symmetric."""
    features = model.build(network, 128, untied=False).double().net.features
    for i, module in enumerate(features):
        if isinstance(module, nn.MaxPool2d):
            features[i] = nn.AvgPool2d(module.kernel_size, module.stride, ceil_mode=module.ceil_mode)
        else:
            module.conv.weight.data.fill_(1 / module.conv.weight[0].numel())
    x = torch.ones(1, 3, 384, 384, dtype=torch.float64, requires_grad=True)
    cells = features(x)[0, 0]
    first, step = layers.grid(layers.layers_of(network, 128)[0])
    for cell in (len(cells) // 2 - 1, len(cells) // 2):
        (gradient,) = torch.autograd.grad(cells[cell, cell], x, retain_graph=True)
        along = gradient[0, 0].sum(1)
        assert along[0] == along[-1] == 0, "its whole field of view is inside"
        found = (along * torch.arange(384)).sum().item() / along.sum().item()
        assert found == pytest.approx(first + step * cell, abs=1e-6)


def test_a_map_is_drawn_where_its_grid_says():
    raw = np.zeros((1, 6, 6), np.float32)
    raw[0, 1, 3] = 1
    one = maps.ScoreMaps(raw, np.zeros(1), 0.0, 23.5 / 128, 16 / 128, (1 / 16, 15 / 16), np.array(["a"]))
    placed = one.placed(0, 256)
    y, x = np.unravel_index(placed.argmax(), placed.shape)
    assert (y + 0.5, x + 0.5) == pytest.approx((2 * 39.5, 2 * 71.5), abs=1)
    assert placed[:16].max() == 0


def test_nothing_is_claimed_where_the_network_does_not_look():
    net = regressor("ram_net5")
    placed = explained(net, np.full((3, 128, 128, 3), 120, np.uint8)).placed(0, 128)
    assert (placed[:8] == 0).all()
    assert (placed[:, -8:] == 0).all()
    assert (placed[8:-8, 8:-8] != 0).all()


def test_difference_is_paired_and_knows_better_from_worse():
    """A map on the lesion, one beside it, and one that is uniform: by construction."""
    eyes = [f"e{i}" for i in range(12)]
    random = np.random.default_rng(0)
    places = random.integers(0, 24, (12, 2))
    raw = {name: np.full((12, 32, 32), 0.0, np.float32) for name in ("on", "off", "flat")}
    masks = {}
    for i, (y, x) in enumerate(places):
        mask = np.zeros((32, 32), np.float32)
        mask[y : y + 8, x : x + 8] = 1
        masks[eyes[i]] = {"HE": mask, "FOV": np.ones((32, 32), bool)}
        raw["on"][i] = mask
        raw["off"][i] = 1 - mask
        raw["flat"][i] = 1
    kinds = {name: score_maps(one) for name, one in raw.items()}
    measured = maps.measure(kinds, masks.__getitem__)
    patients = {eye: f"p{i // 2}" for i, eye in enumerate(eyes)}
    asked = [("on", "flat"), ("off", "flat"), ("flat", "flat")]
    found = maps.differences(measured, asked, ["lesion"], patients, 200, 0).set_index(["map", "quantity"])
    share = 64 / 1024
    assert found.loc[("on", "heat"), "value"] == pytest.approx(1 - share)
    assert found.loc[("on", "heat"), "lo"] == pytest.approx(1 - share)
    assert found.loc[("off", "heat"), "value"] == pytest.approx(-share)
    assert found.loc[("off", "hit"), "hi"] < 0 < found.loc[("on", "hit"), "lo"]
    assert found.loc[("flat", "heat"), ["value", "lo", "hi"]].tolist() == [0, 0, 0]
    assert (found["patients"] == 6).all()
    few = measured[measured["image_id"].isin(eyes[:6])]
    assert maps.differences(few, asked, ["lesion"], patients, 200, 0)["lo"].isna().all()


def test_kinds_and_questions_name_what_is_compared():
    parts = {
        ("ram_net5", size): score_maps(np.random.default_rng(size).normal(size=(2, 6, 6)))
        for size in (128, 256)
    }
    kinds = maps.kinds(parts)
    assert list(kinds) == [
        *("ram_net5 128", "ram_net5 256", "ram_net5 fused"),
        *("ram_net5 128 scaled", "ram_net5 256 scaled", "ram_net5 fused as printed"),
        "ram_net5 uniform",
    ]
    assert kinds["ram_net5 128 scaled"].raw.min() == 0
    asked = maps.questions([*kinds, maps.GRAD_CAM])
    assert asked[:4] == [
        ("ram_net5 fused", "ram_net5 128"),
        ("ram_net5 fused", "ram_net5 256"),
        ("ram_net5 fused as printed", "ram_net5 128 scaled"),
        ("ram_net5 fused as printed", "ram_net5 256 scaled"),
    ]
    signed = [f"ram_net5 {name}" for name in ("128", "256", "fused")]
    assert asked[4:7] == [(name, "ram_net5 uniform") for name in signed]
    assert asked[7:] == [(name, "Grad-CAM") for name in signed]
    assert list(maps.kinds({("x", 128): parts["ram_net5", 128]})) == ["x 128", "x 128 scaled", "x uniform"]
