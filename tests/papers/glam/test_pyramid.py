"""A backbone read at several strides: nothing is lost on the way to the store, the heads compute what they say, files give the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from drstudy.models.folding import folded
from drstudy.models.stages import stages
from drstudy.models.weights import BUNDLED
from drstudy.papers.glam import pyramid
from drstudy.papers.glam.recipe import HeadSpec
from drstudy.training import prediction

SIDE, LABELS, HIDDEN = 64, 3, 6
SPECS = {
    "fine": HeadSpec(strides=(4, 8)),
    "coarse": HeadSpec(strides=(32,), share=1),
    "local": HeadSpec(strides=(4, 8, 16, 32), kind="local"),
    "decoder": HeadSpec(strides=(4, 8, 16, 32), kind="decoder"),
}


def build(backbone="efficientnet_lite0", strides=(4, 8, 16, 32), specs=SPECS, seed=3):
    """With published weights where they are bundled; else with batch norms that are not the identity, so that folding changes something."""
    weights = "bundled" if backbone in BUNDLED else "none"
    net = pyramid.build(backbone, weights, seed, LABELS, strides, HIDDEN, specs).eval()
    torch.manual_seed(2)
    for module in net.net.backbone.modules():
        if isinstance(module, nn.BatchNorm2d) and weights == "none":
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


@pytest.fixture(scope="module")
def net():
    return build()


@pytest.fixture(scope="module")
def x():
    torch.manual_seed(5)
    return torch.randn(2, 3, SIDE, SIDE)


@torch.no_grad()
def outputs(backbone, paths, x):
    """Outputs of layers of a backbone on its own, copied at once, so that a later layer cannot change them in place."""
    found = {}

    def noting(stride):
        def note(module, given, output):
            found[stride] = output.clone()

        return note

    hooks = [backbone.net.get_submodule(p).register_forward_hook(noting(s)) for s, p in paths.items()]
    backbone.net(x)
    for hook in hooks:
        hook.remove()
    return found


# --- the trunk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "strides"),
    [
        ("efficientnet_lite0", (4, 8, 16, 32)),
        ("efficientnet_lite0", (8, 32)),
        ("resnet18", (4, 8, 16, 32)),
        ("densenet121", (16, 32)),
    ],
)
@torch.no_grad()
def test_packing_loses_nothing(x, backbone, strides):
    net = build(backbone, strides, {"one": HeadSpec(strides=strides[-1:])})
    expected = outputs(
        net.net.backbone, {s: p for s, p in stages(net.net.backbone).items() if s in strides}, x
    )
    packed = net.trunk(x)
    cells = SIDE // strides[-1]
    depth = (strides[-1] // strides[0]) ** 2 + sum(net.channels[s] * (strides[-1] // s) ** 2 for s in strides)
    assert packed.shape == (2, depth, cells, cells)
    found, lit = net.unpack(packed)
    assert list(found) == net.strides == list(strides)
    for stride in strides:
        assert torch.equal(found[stride], expected[stride]), f"stride {stride}, which is not scaled yet"
    share = pyramid.lit_share(x, net.mean, net.std, strides[0])
    assert lit.shape == (2, 1, SIDE // strides[0], SIDE // strides[0])
    assert torch.equal(lit, share > 0.5)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "densenet121"])
@torch.no_grad()
def test_a_folded_trunk_gives_the_same(x, backbone):
    net = build(backbone, (8, 16, 32), {"one": HeadSpec(strides=(8,))})
    quick = folded(net, SIDE)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in one.modules()) for one in (net, quick)]
    assert norms[1] < norms[0]
    expected, lit = net.unpack(net.trunk(x))
    found, quick_lit = quick.unpack(quick.trunk(x))
    assert torch.equal(lit, quick_lit)
    for stride, values in expected.items():
        # measured, natively and as AVX2: at most 1.7e-6 of the greatest value. Two photographs differ by 0.09 to 0.96 of it
        torch.testing.assert_close(found[stride], values, rtol=0, atol=1e-5 * values.abs().max().item())


def test_lit_share_by_hand():
    """A quarter of a cell at 0.5, all of it at 0.07 in one channel, all at 0.05: a quarter, all, and nothing is lit."""
    photograph = torch.zeros(1, 3, 4, 12)
    photograph[..., :2, :2] = 0.5
    photograph[:, 1, :, 4:8] = 0.07
    photograph[..., 8:] = 0.05
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    normalised = (photograph - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert pyramid.lit_share(normalised, mean, std, 4).tolist() == [[[[0.25, 1.0, 0.0]]]]


def test_a_stride_that_the_backbone_lacks_is_refused():
    with pytest.raises(ValueError, match="resnet18_stride1 has no features of stride 32; it has 4, 8, 16"):
        build("resnet18_stride1")
    with pytest.raises(ValueError, match="stages of mobilenet_v3_small are not declared"):
        build("mobilenet_v3_small")


def test_only_heads_learn(net):
    assert {name.split(".")[1] for name, q in net.named_parameters() if q.requires_grad} == {"heads"}
    net.train()
    assert not net.net.backbone.training
    assert net.net.heads["decoder"].training
    net.eval()


# --- the scale of the features ---------------------------------------------------------------------------


def test_features_are_scaled_by_their_mean_and_deviation():
    torch.manual_seed(1)
    batches = [{4: 3 + 2 * torch.randn(5, 2, 8, 8), 8: torch.randn(5, 1, 4, 4) - 1} for _ in range(3)]
    for batch in batches:
        batch[8][:, 0] = 7.0  # a channel that never changes
    standard = pyramid.Standard({4: 2, 8: 1})
    standard.measure(batches)
    whole = torch.cat([standard(batch)[4] for batch in batches])
    torch.testing.assert_close(whole.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.std((0, 2, 3), correction=1), torch.ones(2), rtol=0, atol=1e-2)
    assert (standard(batches[0])[8] == 0).all(), "not divided by 0"


# --- heads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_shapes_and_gradients_of_heads(net, x, name):
    features, _ = net.unpack(net.trunk(x))
    head, spec = net.net.heads[name], SPECS[name]
    z = head(features)
    side = SIDE // min(spec.strides)
    assert z.shape == (2, LABELS, side, side)
    head.zero_grad()
    z.square().sum().backward()
    for parameter, q in head.named_parameters():
        assert q.grad is not None, parameter
        assert q.grad.abs().max() > 0, parameter
    assert set(head.project) == {str(s) for s in spec.strides}
    expected = {"fine": set(), "coarse": set(), "local": {"4"}, "decoder": {"4", "8", "16", "32"}}[name]
    assert set(head.mix) == expected
    assert {m.groups for m in head.mix.values()} == {"local": {HIDDEN}, "decoder": {1}}.get(name, set())


def test_evidence_starts_as_rare(net):
    """With features of 0, up to what the biases of the projection do."""
    head = net.net.heads["fine"]
    zeros = {s: torch.zeros(1, net.channels[s], SIDE // s, SIDE // s) for s in (4, 8)}
    with torch.no_grad():
        z = head(zeros)
    assert (z - pyramid.UNLIKELY).abs().max() < 0.5
    assert torch.equal(head.evidence.bias.detach(), torch.full((LABELS,), pyramid.UNLIKELY))


@torch.no_grad()
def test_projecting_before_enlarging_equals_projecting_after(net, x):
    """A 1x1 layer and bilinear enlarging exchange places: the weights of enlarging sum to 1, so that biases do not change."""
    features, _ = net.unpack(net.trunk(x))
    head = net.net.heads["fine"]
    large = nn.functional.interpolate(features[8], scale_factor=2, mode="bilinear", align_corners=False)
    after = head.evidence(torch.relu(head.project["4"](features[4]) + head.project["8"](large)))
    found = head(features)
    # measured, natively and as AVX2: 1.8e-7 of the greatest value
    torch.testing.assert_close(found, after, rtol=0, atol=1e-5 * found.abs().max().item())


@torch.no_grad()
def test_a_local_head_sees_its_neighbours_and_a_pointwise_one_does_not(net):
    torch.manual_seed(4)
    features = {s: torch.randn(1, net.channels[s], SIDE // s, SIDE // s) for s in net.strides}
    changed = dict(features) | {4: features[4].clone()}
    changed[4][:, :, 8, 8] += 5
    moved = {
        name: (net.net.heads[name](changed) - net.net.heads[name](features)).abs().amax((0, 1)) > 1e-6
        for name in ("fine", "local")
    }
    assert moved["fine"].nonzero().tolist() == [[8, 8]]
    cells = moved["local"].nonzero()
    assert cells.min().item() >= 7
    assert cells.max().item() <= 9
    assert len(cells) > 1


def test_the_tail_gives_the_greatest_evidence_of_the_first_head(net, x):
    with torch.no_grad():
        h = net.trunk(x)
        features, _ = net.unpack(h)
        assert torch.equal(net(x), net.net.heads["fine"](features).flatten(2).max(2).values)


# --- made again -------------------------------------------------------------------------------------------


def test_heads_follow_from_the_seed():
    states = [build(seed=s).net.heads.state_dict() for s in (3, 3, 4)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(states[0]["fine.project.4.weight"], states[2]["fine.project.4.weight"])


def test_a_network_from_a_file_gives_the_same_bytes(x, tmp_path):
    net = build()
    net.net.standard.measure([net.unpack(net.trunk(x))[0]])
    prediction.save(net, tmp_path / "heads.safetensors", 96)
    again = prediction.load(tmp_path / "heads.safetensors", pyramid.rebuild)
    assert again.input_size == 96
    assert (again.strides, again.channels, again.layers) == (net.strides, net.channels, net.layers)
    assert again.describe(96) == net.describe(96)
    state = again.state_dict()
    assert list(state) == list(net.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        features, lit = net.unpack(net.trunk(x))
        found, found_lit = again.unpack(again.trunk(x))
        assert torch.equal(lit, found_lit)
        for name, head in net.net.heads.items():
            np.testing.assert_array_equal(head(features).numpy(), again.net.heads[name](found).numpy())
