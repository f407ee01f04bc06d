"""Networks: two parts that are the published network, and what is frozen."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from networks import LITE, LITES, TORCHVISION, batch, moved, stir
from safetensors import safe_open
from torch import nn

from drstudy.models import compat, nets  # noqa: F401  (compat before torchvision)
from drstudy.training import prediction

from torchvision import models as zoo  # isort: skip


def stepped(net, x, target=(0, 1, 4)):
    """One step of Adam on what may learn; returns the state before and after."""
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.train()
    optimiser = torch.optim.Adam([q for q in net.parameters() if q.requires_grad], lr=1e-2)
    nn.functional.cross_entropy(net(x), torch.tensor(target)).backward()
    optimiser.step()
    return before, dict(net.state_dict())


# --- two parts, one network ------------------------------------------------------------------------


@pytest.mark.parametrize("name", TORCHVISION)
def test_trunk_and_tail_are_torchvisions_network(name):
    net = stir(nets.build(name, seed=1)).eval()
    with torch.device("meta"):
        original = zoo.get_model(name, weights=None, num_classes=5).eval()
    original.load_state_dict(net.net.state_dict(), assign=True)  # the names are the published ones
    x = batch()
    with torch.no_grad():
        expected = original(x)
        assert torch.equal(net.tail(net.trunk(x)), expected)
        assert torch.equal(net(x), expected)
    assert expected.std() > 1e-3, "the comparison is not one of zeros"


@pytest.mark.parametrize(
    ("name", "size"), [(LITE, 64), *((name, size) for name in LITES for size in (96, 224))]
)
def test_trunk_and_tail_are_the_package_of_lite(name, size):
    from efficientnet_lite_pytorch import EfficientNet

    net = nets.build(name, weights="bundled", seed=1).eval()
    original = EfficientNet.from_name(name.replace("_", "-"), num_classes=5, image_size=size).eval()
    original.load_state_dict(net.net.state_dict())
    x = batch(size=size)
    with torch.no_grad():
        expected = original(x)
        found = net.tail(net.trunk(x))
    # the same sums of at most 49 positions in another order
    assert (found - expected).abs().max() < 1e-6 < 1e-4 * expected.std()


@pytest.mark.parametrize("size", [32, 96, 224, 256])
@pytest.mark.parametrize("name", LITES)
def test_lite_pads_every_convolution_as_same_padding_does(name, size, monkeypatch):
    """The package pads once for all, for the network's own size; here each input is padded for the size that it has.
    At the published sizes of Lite1 and Lite2, 240 and 260 pixels, other sides occur and the two differ."""
    net = nets.build(name, weights="bundled", seed=1).eval()
    x = batch(2, size)
    with torch.no_grad():
        found = net(x)

    def dynamic(conv, x):
        sides = zip(x.shape[-2:], conv.kernel_size, conv.stride)
        (top, bottom), (left, right) = (same_padding(*side) for side in sides)
        padded = nn.functional.pad(x, (left, right, top, bottom))
        return nn.functional.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, 1, conv.groups)

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            monkeypatch.setattr(module, "forward", partial(dynamic, module))
    with torch.no_grad():
        assert torch.allclose(net(x), found, rtol=1e-5, atol=1e-5)
        if name != LITE and size == 224:
            published = {"efficientnet_lite1": 240, "efficientnet_lite2": 260}[name]
            assert elsewhere(net, published, x) > 0.01 * found.abs().max(), (
                "the comparison tells paddings apart"
            )


def same_padding(side, kernel, stride):
    """Pixels before and after, so that the output has ceil(side / stride) pixels."""
    both = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    return both // 2, both - both // 2


def elsewhere(net, size, x):
    """How far the logits are from those of the package's network made for another size of input."""
    from efficientnet_lite_pytorch import EfficientNet

    other = EfficientNet.from_name(net.backbone.replace("_", "-"), num_classes=5, image_size=size).eval()
    other.load_state_dict(net.net.state_dict())
    return (other(x) - net(x)).abs().max()


@pytest.mark.parametrize("name", [*TORCHVISION, *LITES])
def test_the_trunk_holds_nothing_that_learns_and_the_tail_sees_all_that_does(name):
    net = nets.empty(name, "single")  # without storage: what depends on what is known all the same
    net.freeze()
    net.train()
    h = net.trunk(batch().to("meta"))
    assert not h.requires_grad
    net.tail(h).sum().backward()
    without = [key for key, q in net.named_parameters() if q.requires_grad and q.grad is None]
    assert without == []


def test_names_are_those_that_build_takes_and_an_unknown_one_names_the_nearest():
    assert {"densenet121", "resnet101", "vgg16", *LITES, *TORCHVISION} <= set(nets.names())
    for wrong, near in (
        ("densnet121", "densenet121"),
        ("fasterrcnn_resnet50_fpn", "resnet50"),
        ("efficientnet_lite3", "efficientnet_lite2"),
        ("?", "vgg16"),
    ):
        with pytest.raises(KeyError, match=near):
            nets.build(wrong)


@pytest.mark.parametrize(
    "name",
    [
        "densenet201",
        "resnet101",
        "wide_resnet50_2",
        "resnext50_32x4d",
        "vgg16_bn",
        "inception_v3",
        "mobilenet_v3_small",
        "efficientnet_v2_s",
        "convnext_small",
    ],
)
def test_relatives_have_the_layers_that_are_declared(name):
    net = nets.empty(name, "single")
    for path in (*net.trainable, net.head_path, *net.cam_layers.values(), *net._active_when_frozen()):
        net.net.get_submodule(path)
    assert net.net.get_submodule(net.head_path).out_features == 5
    assert net(batch(2, 96).to("meta")).shape == (2, 5)  # InceptionV3 takes no 64 pixels


def test_the_seed_makes_the_network_and_the_global_generator_does_not():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = nets.build("resnet18", seed=3).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert moved(first, nets.build("resnet18", seed=3).state_dict()) == set()
    assert "net.fc.weight" in moved(first, nets.build("resnet18", seed=4).state_dict())


# --- freezing --------------------------------------------------------------------------------------

LEARN = {
    "densenet121": (
        "net.features.denseblock4.denselayer14.",
        "net.features.denseblock4.denselayer15.",
        "net.features.denseblock4.denselayer16.",
        "net.classifier.",
    ),
    "resnet18": ("net.layer4.", "net.fc."),
    "vgg11": ("net.features.16.", "net.features.18.", "net.classifier.6."),
} | {
    name: (f"net._blocks.{last}.", "net._conv_head.", "net._bn1.", "net._fc.")
    for name, last in zip(LITES, (15, 20, 20))
}


@pytest.mark.parametrize("name", LEARN)
def test_what_learns_is_what_is_declared(name):
    net = nets.empty(name, "single")
    net.freeze()
    learn = {key for key, q in net.named_parameters() if q.requires_grad}
    assert learn == {key for key, _ in net.named_parameters() if key.startswith(LEARN[name])}


@pytest.mark.parametrize("name", ["densenet121", "resnet18", *LITES])
def test_a_step_moves_what_is_declared_and_nothing_else(name):
    net = stir(nets.build(name, weights="bundled" if name in LITES else "none", seed=1))
    net.freeze("eval")
    before, after = stepped(net, batch())
    changed = moved(before, after)
    assert {key for key in changed if not key.startswith(LEARN[name])} == set()
    parameters = {key for key, _ in net.named_parameters() if key.startswith(LEARN[name])}
    assert parameters <= changed, "everything declared does learn, its statistics too"
    buffers = {key for key, _ in net.named_buffers() if key.startswith(LEARN[name])}
    assert buffers <= changed


def test_tracked_statistics_of_frozen_layers_drift_and_their_weights_do_not():
    net = stir(nets.build("densenet121", seed=1))
    net.freeze("track")
    before, after = stepped(net, batch())
    changed = moved(before, after)
    frozen = {key for key, q in net.named_parameters() if not q.requires_grad}
    assert changed & frozen == set()
    statistics = {key for key, _ in net.named_buffers()}
    assert len([key for key in statistics if key.endswith("running_mean")]) == 121  # docs/sources.md, A3
    assert statistics <= changed


def test_evaluation_moves_nothing_whatever_is_frozen():
    for frozen_bn in ("eval", "track"):
        net = stir(nets.build("resnet18", seed=1))
        net.freeze(frozen_bn)
        net.eval()
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        net(batch())
        assert moved(before, dict(net.state_dict())) == set()
    with pytest.raises(ValueError, match="FROZEN_BN is 'drift'"):
        net.freeze("drift")


@pytest.mark.parametrize(("name", "layers"), [("vgg11", 2), ("mobilenet_v2", 1), (LITE, 1)])
def test_dropout_of_the_tail_acts_while_training_and_not_after(name, layers):
    net = nets.empty(name, "single")
    net.freeze()
    net.train()
    active = [module for module in net.modules() if isinstance(module, nn.Dropout) and module.training]
    assert len(active) == layers
    net.eval()
    assert not any(module.training for module in net.modules())


def test_recorded_layers_are_the_torchvision_activations():
    net = stir(nets.build("densenet121", seed=1)).eval()
    seen = {}
    features = net.net.features
    features.denseblock4.denselayer16.register_forward_hook(lambda m, i, o: seen.update(denselayer16=o))
    features.denseblock4.register_forward_hook(lambda m, i, o: seen.update(denseblock4=o))
    features.norm5.register_forward_hook(lambda m, i, o: seen.update(norm5_relu=o.relu()))
    x = batch(1)
    with torch.no_grad():
        net.net(x)
        with net.record(*net.cam_layers) as box:
            net(x)
    assert set(box) == {"denselayer16", "denseblock4", "norm5_relu"}
    for layer, activation in box.items():
        if layer != "denseblock4":
            assert torch.equal(activation, seen[layer]), layer
    assert torch.equal(box["denseblock4"], seen["denseblock4"])
    with pytest.raises(KeyError, match="no layer 'layer4'"), net.record("layer4"):
        pass


@pytest.mark.parametrize("outputs", [5, 2])
def test_a_saved_network_says_what_it_describes(tmp_path, outputs):
    net = nets.build(LITE, weights="bundled", outputs=outputs)
    net.freeze("track")
    about = net.describe(64)
    names = ["backbone", "head", "weights_used", "frozen_bn", "input_size", "mean", "std"]
    assert list(about) == names + ["outputs"] * (outputs != 5)
    assert (about["weights_used"], about["frozen_bn"], about["input_size"]) == ("bundled", "track", 64)
    prediction.save(net, tmp_path / "model.safetensors", 64)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata()["drstudy"] == json.dumps(about)
    again = prediction.load(tmp_path / "model.safetensors")
    assert again.describe(again.input_size) == about
