"""Every method of heatmaps against its definition, the package it comes from, or one eye at a time."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from untrained import network

from drstudy.explain.methods import cam, methods
from drstudy.models import compat  # noqa: F401  (before grad-cam, which imports torchvision)
from drstudy.models import nets as backbones

import captum.attr  # isort: skip
import pytorch_grad_cam as package  # isort: skip
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # isort: skip

TARGET = np.array([0, 3, 4])
FLOAT32 = 1e-5
"""Relative to a map's largest value: sums of a thousand float32 products in another order; eps is 1.2e-7."""

BATCH = 2e-4
"""The same, where a batch of another size goes through a whole network, whose convolutions then sum in another order."""

GATES = 0.02
"""Of the norm of a map at pixel level: one open gate more among some ten thousand."""

BACKBONES = ("densenet121", "resnet18", "vgg11", "efficientnet_lite0")


@pytest.fixture(scope="module")
def nets():
    return {backbone: network(backbone) for backbone in BACKBONES}


@pytest.fixture(scope="module")
def eyes():
    torch.manual_seed(3)
    return torch.rand(3, 3, 64, 64)


def close(found, expected, tolerance=FLOAT32):
    expected = np.asarray(expected)
    assert np.asarray(found).shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() <= tolerance * np.abs(expected).max()
    assert np.abs(expected).max() > 0


class Tiny(backbones.GradingNet):
    """Two channels of 1x1 convolution, mean pooling and a linear head: everything is known in closed form."""

    head_path = "fc"

    def _declare(self):
        self.cam_layers = {"conv": "conv"}

    def trunk(self, x):
        return x

    def tail(self, h):
        return self.net.fc(self.tap("conv", torch.relu(self.net.conv(h))).mean((2, 3)))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    layers = nn.Module()
    layers.conv, layers.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)
    return Tiny("tiny", layers, "single").eval()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_grad_cam_is_the_study_s_own_and_the_package_s(nets, eyes, backbone):
    net = nets[backbone]
    layer = list(net.cam_layers)[-1]
    found = methods.explain(net, eyes, "grad_cam", TARGET, layer)
    with torch.no_grad():
        own = cam.grad_cam(net, net.trunk(eyes), torch.tensor(TARGET), [layer])[layer]
    np.testing.assert_array_equal(found, own.raw.numpy())
    found = methods.gradients(net, eyes, torch.tensor(TARGET), [layer])
    packaged = package.GradCAM(net, []).get_cam_image(
        None, None, None, found.activations[layer].numpy(), found.gradients[layer].numpy(), False
    )
    close(own.raw, packaged)


@pytest.mark.parametrize(
    "method", ["grad_cam", "grad_cam++", "hires_cam", "layer_cam", "score_cam", "eigen_cam"]
)
@pytest.mark.parametrize(("backbone", "path"), [("resnet18", "layer3"), ("vgg11", "features.15")])
def test_equals_the_package_used_as_it_asks_to_be(eyes, method, backbone, path):
    """Its own hooks, its own backward pass, its own loop; where its ReLU and scaling begin, ours ends."""
    if method == "score_cam" and backbone == "vgg11":
        pytest.skip("a pass of VGG's wide layers for each of 512 channels; ResNet18 shows it")
    if method == "score_cam":
        eyes = eyes[:, :, :32, :32]  # it takes a pass for each of 256 channels
    net = network(backbone)
    found = methods.explain(net, eyes, method, TARGET, path, batch_size=16)
    recorded = []
    base = {
        "grad_cam": package.GradCAM,
        "grad_cam++": package.GradCAMPlusPlus,
        "hires_cam": package.HiResCAM,
        "layer_cam": package.LayerCAM,
        "score_cam": package.ScoreCAM,
        "eigen_cam": package.EigenCAM,
    }[method]

    class Recorded(base):
        def get_cam_image(self, *args, **kwargs):
            recorded.append(super().get_cam_image(*args, **kwargs))
            return recorded[-1]

    net.net.requires_grad_(True)  # it finds no gradient behind frozen layers
    explainer = Recorded(net.net, [net.net.get_submodule(path)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flat maps: it divides by their span
        explainer(eyes, [ClassifierOutputTarget(int(t)) for t in TARGET])
    for ours, theirs in zip(found, recorded[0]):
        if method == "eigen_cam":  # its sign is arbitrary, ours is not
            assert ours.max() >= -ours.min()
            theirs = theirs * np.sign((ours * theirs).sum())
        close(ours, theirs, BATCH)


@pytest.mark.parametrize("method", [m for m in methods.METHODS if m != "score_cam"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_equals_one_by_one(nets, eyes, backbone, method):
    if backbone == "vgg11" and method == "cam":
        pytest.skip("no linear head after pooling; refused, see below")
    net = nets[backbone]
    found = methods.explain(net, eyes, method, TARGET, batch_size=2, steps=2)
    assert found.dtype == np.float32
    alone = [methods.explain(net, eyes[i : i + 1], method, TARGET[i : i + 1], steps=2)[0] for i in range(3)]
    for together, one in zip(found, alone, strict=True):
        if method in methods.PIXEL_METHODS:  # a gate within rounding of zero may open, and moves some pixels
            assert np.linalg.norm(together - one) <= GATES * np.linalg.norm(one)
            assert np.linalg.norm(one) > 0
        else:
            close(together, one, BATCH)


def test_many_methods_of_one_pass_equal_each_alone(nets, eyes):
    net = nets["densenet121"]
    chosen = ("cam", *methods.FAST, "guided_backprop")
    found = methods.explain_many(net, eyes, chosen, TARGET, "norm5_relu")
    assert tuple(found.raw) == chosen
    assert found.layer == "norm5_relu"
    np.testing.assert_array_equal(found.target, TARGET)
    for method in chosen:
        np.testing.assert_array_equal(
            found.raw[method], methods.explain(net, eyes, method, TARGET, "norm5_relu")
        )
    assert (found.maps("grad_cam") >= 0).all()
    np.testing.assert_array_equal(found.maps("grad_cam"), np.maximum(found.raw["grad_cam"], 0))


@pytest.mark.parametrize("backbone", ["densenet121", "resnet18", "efficientnet_lite0"])
def test_with_a_linear_head_three_methods_are_one(nets, eyes, backbone):
    found = methods.explain_many(nets[backbone], eyes, ("cam", "grad_cam", "hires_cam"), TARGET)
    close(found.raw["cam"], found.raw["grad_cam"])
    close(found.raw["hires_cam"], found.raw["grad_cam"])


def test_closed_form_refuses_what_is_not_linear(nets, eyes):
    for net, layer in (
        (nets["vgg11"], None),
        (network("resnet18", "mlp"), None),
        (nets["densenet121"], "denselayer16"),
        (nets["densenet121"], "denseblock4"),
    ):
        with pytest.raises(ValueError, match=f"one affine map follows mean pooling; {net.backbone}"):
            methods.explain(net, eyes, "cam", TARGET, layer)


def test_without_a_target_the_predicted_class_is_explained(nets, eyes):
    net = nets["resnet18"]
    found = methods.explain_many(net, eyes, ("layer_cam",))
    with torch.no_grad():
        np.testing.assert_array_equal(found.target, net(eyes).argmax(1).numpy())
    np.testing.assert_array_equal(
        found.raw["layer_cam"], methods.explain(net, eyes, "layer_cam", found.target)
    )


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam++", "eigen_cam", "guided_backprop"])
@pytest.mark.parametrize("count", [2, 4])
def test_wrong_number_of_targets_is_an_error(nets, eyes, method, count):
    with pytest.raises(ValueError, match=f"{count} targets for 3 images"):
        methods.explain(nets["resnet18"], eyes, method, np.zeros(count, int))


def state_of(net):
    return (
        [module.training for module in net.modules()],
        [p.requires_grad for p in net.parameters()],
        [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules()],
        [value.clone() for value in net.state_dict().values()],
        net._box,
    )


def same(before, after):
    for old, new in zip(before[:2] + before[3:4], after[:2] + after[3:4]):
        assert old == new
    for old, new in zip(before[2] + before[4], after[2] + after[4]):
        assert (old is None and new is None) or torch.equal(old, new)
    assert before[5] is None
    assert after[5] is None


@pytest.mark.parametrize("layer", [None, "layer3"])
def test_leaves_everything_as_it_was(eyes, layer):
    net = network("resnet18", "mlp").train()
    net.net.layer4[0].eval()
    next(p for p in net.parameters() if p.requires_grad).grad = torch.ones_like(
        next(p for p in net.parameters() if p.requires_grad)
    )
    x = eyes[:2].clone()
    before = state_of(net)
    chosen = (*methods.FAST, *methods.PIXEL_METHODS)
    with torch.no_grad():
        first = methods.explain_many(net, x, chosen, TARGET[:2], layer, steps=2)
        again = methods.explain_many(net, x, chosen, TARGET[:2], layer, steps=2)
    same(before, state_of(net))
    assert not x.requires_grad
    assert torch.equal(x, eyes[:2])
    for method in chosen:
        np.testing.assert_array_equal(first.raw[method], again.raw[method])  # no dropout was active


@pytest.mark.parametrize(
    ("method", "layer", "target", "error", "message"),
    [
        ("grad_cam", None, [0, 1, 5], ValueError, "classes are 0 to 4"),
        ("grad_cam", "layer9", [0, 1, 2], KeyError, "neither of layer4 nor the path"),
        ("grad_cam", "fc", [0, 1, 2], ValueError, "gives no"),
        ("grad_cam", "layer2.0.relu", [0, 1, 2], ValueError, "more than once"),
        ("saliency", None, [0, 1, 2], KeyError, "no method 'saliency'"),
        ("integrated_gradients", None, [0, 1, -1], ValueError, "from -1 to 1"),
    ],
)
def test_an_error_is_told_and_leaves_everything_as_it_was(nets, eyes, method, layer, target, error, message):
    net = nets["resnet18"].train()
    before = state_of(net)
    with pytest.raises(error, match=message):
        methods.explain(net, eyes, method, np.array(target), layer)
    same(before, state_of(net))
    net.eval()


def test_an_index_error_is_not_swallowed(nets, eyes, monkeypatch):
    """In the package's own ``with`` block it would be printed and forgotten."""

    def fail(*_args):
        raise IndexError("inside")

    monkeypatch.setattr(package.LayerCAM, "get_cam_image", fail)
    net = nets["resnet18"].train()
    before = state_of(net)
    with pytest.raises(IndexError, match="inside"):
        methods.explain(net, eyes, "layer_cam", TARGET)
    same(before, state_of(net))
    net.eval()


def test_a_module_not_called_as_a_whole_is_told(nets, eyes):
    with pytest.raises(ValueError, match="'features' of densenet121 is not called as a whole"):
        methods.explain(nets["densenet121"], eyes, "grad_cam", TARGET, "features")


@pytest.mark.parametrize(
    ("backbone", "path", "side"),
    [
        ("densenet121", "features.denseblock3", 4),
        ("resnet18", "layer2", 8),
        ("efficientnet_lite0", "_blocks.4", 8),
    ],
)
@pytest.mark.parametrize("method", ["grad_cam", "layer_cam"])
def test_any_layer(nets, eyes, backbone, path, side, method):
    found = methods.explain(nets[backbone], eyes, method, TARGET, path)
    assert found.shape == (3, side, side)
    assert all(np.ptp(each) > 0 for each in found)


def test_a_module_path_and_a_layer_s_name_agree(nets, eyes):
    """``conv_head`` is the activation after the rectifier, ``layer4`` the module itself."""
    for method in methods.FAST:
        found = methods.explain(nets["resnet18"], eyes, method, TARGET, "layer4")
        net = network("resnet18")
        net.cam_layers = {"other": "layer3"}
        close(methods.explain(net, eyes, method, TARGET, "layer4"), found, BATCH)


@pytest.mark.parametrize("method", methods.METHODS)
def test_autocast_reaches_the_trunk_only(eyes, method):
    """Maps are float32; what a bfloat16 trunk of 8 bits leaves of them is the same map."""
    net = network("resnet18")
    x = eyes[:, :, :32, :32]
    expected = methods.explain(net, x, method, TARGET, steps=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = methods.explain(net, x, method, TARGET, steps=2)
    assert found.dtype == np.float32
    for ours, full in zip(found, expected):
        assert np.abs(ours - full).max() < 0.1 * np.abs(full).max() + 1e-12


# pixel level


@pytest.mark.parametrize("backbone", ["resnet18", "vgg11"])
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_backprop_is_captum_s_where_every_rectifier_is_a_module(nets, eyes, backbone):
    net = nets[backbone]
    found = methods.explain(net, eyes, "guided_backprop", TARGET)
    theirs = captum.attr.GuidedBackprop(net).attribute(eyes.clone(), target=torch.tensor(TARGET))
    close(found, theirs.detach().sum(1))


@pytest.mark.parametrize("backbone", ["densenet121", "efficientnet_lite0"])
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_backprop_also_guides_functions_and_relu6(nets, eyes, backbone):
    """captum misses these; the reference here has each of them as a module that captum knows."""

    class ReLU6(nn.ReLU):
        def forward(self, h):
            return torch.clamp(h, 0, 6)

    net = network(backbone)
    rectifier = (nn.ReLU if backbone == "densenet121" else ReLU6)()

    class Modules(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net.net
            self.stem, self.last = type(rectifier)(), type(rectifier)()

        def forward(self, x):
            if backbone == "densenet121":
                x = self.last(self.net.features(x))
                return self.net.classifier(x.mean((2, 3)))
            x = self.stem(self.net._bn0(self.net._conv_stem(x)))
            for block in self.net._blocks:
                x = block(x)
            x = self.last(self.net._bn1(self.net._conv_head(x)))
            return self.net._fc(x.mean((2, 3)))

    for module in list(net.net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, ReLU6())
    expected = captum.attr.GuidedBackprop(Modules()).attribute(eyes.clone(), target=torch.tensor(TARGET))
    found = methods.explain(nets[backbone], eyes, "guided_backprop", TARGET)
    close(found, expected.detach().sum(1), BATCH)
    missed = captum.attr.GuidedBackprop(nets[backbone]).attribute(eyes.clone(), target=torch.tensor(TARGET))
    gap = np.abs(found - missed.detach().sum(1).numpy()).max()
    assert gap > 0.01 * np.abs(found).max()  # else this test and the class it guards were needless


def test_guided_backprop_by_hand(tiny):
    x = torch.randn(2, 3, 5, 5)
    found = methods.explain(tiny, x, "guided_backprop", np.array([1, 2]))
    with torch.no_grad():
        on = (tiny.net.conv(x) > 0).float()
        weight = tiny.net.fc.weight[torch.tensor([1, 2])].clamp(min=0) / 25
        expected = torch.einsum("nkhw,nk,kc->nhw", on, weight, tiny.net.conv.weight[:, :, 0, 0])
    close(found, expected)


def test_guided_backprop_refuses_smooth_activations(eyes):
    with pytest.raises(ValueError, match="mobilenet_v3_small has hardswish"):
        methods.explain(network("mobilenet_v3_small"), eyes, "guided_backprop", TARGET)


@pytest.mark.parametrize("baseline", methods.BASELINES)
def test_integrated_gradients_are_complete(nets, eyes, baseline):
    """Their sum is the difference of the scores, in the limit of many steps."""
    net = nets["resnet18"]
    with torch.no_grad():
        start = methods.baseline_of(eyes, baseline, net)
        difference = (net(eyes) - net(start))[range(3), TARGET].numpy()
    errors = []
    for steps in (4, 64):
        found = methods.explain(net, eyes, "integrated_gradients", TARGET, steps=steps, baseline=baseline)
        assert found.shape == (3, 64, 64)
        errors.append(np.abs(found.sum((1, 2)) - difference).max() / np.abs(difference).max())
    assert errors[1] < min(0.1, errors[0] / 2)


def test_integrated_gradients_of_a_linear_score_are_exact(tiny):
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        tiny.net.conv.bias.fill_(100)  # all rectifiers stay open: the score is linear
        weight = tiny.net.fc.weight[torch.tensor([0, 4])] @ tiny.net.conv.weight[:, :, 0, 0] / 36
    expected = torch.einsum("nc,nchw->nhw", weight, x - x.mean((2, 3), keepdim=True))
    found = methods.explain(tiny, x, "integrated_gradients", np.array([0, 4]), steps=2, baseline="mean")
    close(
        found, expected, 1e-4
    )  # gradients of scores of size 100, whose rounding stays: 100 * 1.2e-7 / their own size


def test_baselines(tiny):
    x = torch.rand(2, 3, 32, 32)
    tiny.mean, tiny.std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)
    close(methods.baseline_of(x, "black", tiny)[1, :, 3, 4], [-2.5, -2, -3])
    close(methods.baseline_of(x, "mean", tiny)[1, 2], np.full((32, 32), x[1, 2].mean()))
    blurred = methods.baseline_of(x, "blur", tiny)
    assert blurred.shape == x.shape
    assert blurred.std() < 0.2 * x.std()
    flat = torch.full((1, 3, 32, 32), 0.7)
    close(methods.baseline_of(flat, "blur", tiny), flat)
    with pytest.raises(ValueError, match="no baseline 'noise'; there are blur, mean, black"):
        methods.baseline_of(x, "noise", tiny)


# on the tiny network, by hand


def test_formulas_by_hand(tiny):
    x = torch.randn(2, 3, 4, 4)
    target = np.array([1, 3])
    found = methods.explain_many(tiny, x, ("hires_cam", "layer_cam", "grad_cam++", "score_cam"), target)
    with torch.no_grad():
        a = torch.relu(tiny.net.conv(x)).numpy()
    w = tiny.net.fc.weight.detach().numpy()[target] / 16
    close(found.raw["hires_cam"], np.einsum("nk,nkhw->nhw", w, a))
    close(found.raw["layer_cam"], np.einsum("nk,nkhw->nhw", np.maximum(w, 0), a))
    g = np.broadcast_to(w[:, :, None, None], a.shape)
    alpha = g**2 / (
        2 * g**2 + a.sum((2, 3), keepdims=True) * g**3 + 1e-6
    )  # eq. 19, with the package's epsilon
    alpha = np.where(g != 0, alpha, 0)
    weights = (np.maximum(g, 0) * alpha).sum((2, 3))
    close(found.raw["grad_cam++"], np.einsum("nk,nkhw->nhw", weights, a), 1e-4)
    masks = (a - a.min((2, 3), keepdims=True)) / (np.ptp(a, axis=(2, 3), keepdims=True) + 1e-8)
    with torch.no_grad():
        scores = np.stack(
            [tiny(x[i] * torch.tensor(masks[i])[:, None])[:, target[i]].numpy() for i in range(2)]
        )
    softmax = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    close(found.raw["score_cam"], np.einsum("nk,nkhw->nhw", softmax, a), 1e-4)


def test_score_cam_prints_nothing(tiny, capsys):
    methods.explain(tiny, torch.randn(2, 3, 4, 4), "score_cam", np.array([1, 3]))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
