"""Finer maps: exact where the coarse network has a value, registered, and of the right unit."""

import numpy as np
import pytest
import torch
from torch import nn
from untrained import network

from drstudy.explain.methods import cam, finer, methods
from drstudy.models import nets

TARGET = np.array([0, 3])
FLOAT32 = 1e-4
"""Relative to the largest value: a whole network in another shape, whose convolutions sum in another order."""


@pytest.fixture(scope="module")
def eyes():
    torch.manual_seed(3)
    return torch.rand(2, 3, 96, 96)


def close(found, expected, tolerance=FLOAT32):
    assert np.asarray(found).shape == np.asarray(expected).shape
    assert np.abs(np.asarray(found) - np.asarray(expected)).max() <= tolerance * np.abs(expected).max()
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize(
    "backbone", ["resnet18", "resnet50", "densenet121", "efficientnet_lite0", "resnext50_32x4d"]
)
def test_stride_one_keeps_every_second_feature(eyes, backbone):
    net = network(backbone)
    layer = list(net.cam_layers)[-1]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fine = finer.stride_one(net)
    with torch.no_grad():
        with net.record(layer) as box:
            net(eyes)
        with fine.record(layer) as fine_box:
            fine(eyes)
    assert box[layer].shape[-1] == 3
    assert fine_box[layer].shape[-1] == 6
    close(fine_box[layer][..., ::2, ::2], box[layer])
    assert not torch.allclose(fine_box[layer][..., 1::2, 1::2], box[layer], rtol=0.1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with torch.no_grad(), net.record(layer) as again:
        net(eyes)
    assert torch.equal(again[layer], box[layer])  # the original keeps its stride


@pytest.mark.parametrize("backbone", ["vgg11", "mobilenet_v3_small"])
def test_stride_one_is_refused_where_it_is_not_true(backbone):
    with pytest.raises(ValueError, match=f"not possible for {backbone}"):
        finer.stride_one(network(backbone))


@pytest.mark.parametrize(
    ("backbone", "sides"),
    [("resnet18", (12, 6)), ("densenet121", (12, 6)), ("efficientnet_lite0", (12, 6)), ("vgg11", (24, 12))],
)
def test_fusion_takes_stages_of_rising_stride(eyes, backbone, sides):
    net = network(backbone)
    layers = finer.stage_layers(net)
    assert tuple(methods.explain(net, eyes, "layer_cam", TARGET, name).shape[-1] for name in layers) == sides
    found = finer.finer(net, eyes, "fusion", target=TARGET)
    assert found.shape == (2, sides[0], sides[0])
    assert (found >= 0).all()


def test_fusion_by_hand():
    deep = np.array([[[4.0, 0], [0, 0]]])
    early = np.zeros((1, 4, 4))
    early[0, 0, 0], early[0, 1, 1], early[0, 3, 3] = 2, 1, 2
    flat = np.zeros((1, 2, 2))
    found = finer._fused({"a": early, "b": flat, "deep": deep}, "deep")[0]
    grown = cam.upsample(deep, 4)[0]
    np.testing.assert_allclose(
        found, grown * early[0] / 2 / 2, rtol=1e-6
    )  # two stages, the maximum of one is 2
    assert found[3, 3] == 0  # detail without deep evidence is none
    assert found.argmax() == 0


def test_a_shift_there_and_back_is_the_identity_inside():
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    moved = finer.shifted(x, 2, -1)
    assert moved[0, 0, 3, 2] == x[0, 0, 1, 3]
    assert moved[0, 0, 0, 0] == x[0, 0, 0, 1]  # the edge is repeated
    back = finer.shifted(moved, -2, 1)
    torch.testing.assert_close(back[..., :4, 1:], x[..., :4, 1:])
    assert (finer.shifted(x, 2, -1, fill=0)[..., :2, :] == 0).all()
    torch.testing.assert_close(finer.shifted(x, 0, 0), x)


class PixelNet(nets.GradingNet):
    """Evidence is the brightness of each pixel: its map is the image, on the image's own grid."""

    head_path = "fc"

    def _declare(self):
        self.cam_layers = {"conv": "conv"}

    def trunk(self, x):
        return x

    def tail(self, h):
        return self.net.fc(self.tap("conv", self.net.conv(h)).mean((2, 3)))


def pixel_net():
    layers = nn.Module()
    layers.conv, layers.fc = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(1, 5)
    nn.init.ones_(layers.conv.weight)
    nn.init.ones_(layers.fc.weight)
    return PixelNet("pixels", layers, "single").eval()


def test_views_are_registered():
    """Where the map is a function of the pixel alone, every view brought back gives the same map: the mean is the map."""
    x = torch.rand(2, 3, 28, 28)
    found = finer.finer(pixel_net(), x, "views", target=TARGET)
    close(found, methods.explain(pixel_net(), x, "grad_cam", TARGET), 1e-5)


def test_views_refine_a_coarse_grid():
    """Of a spot's place inside a 4 pixel cell, a coarse map knows nothing; the mean over shifted views does."""

    class Coarse(PixelNet):
        def trunk(self, x):
            return nn.functional.avg_pool2d(x, 4)

    layers = pixel_net().net
    net = Coarse("coarse", layers, "single").eval()
    x = torch.zeros(2, 3, 28, 28)
    x[0, :, 12, 12] = x[1, :, 15, 12] = 1  # the first and the last row of one cell
    coarse = methods.explain(net, x, "grad_cam", TARGET)
    np.testing.assert_array_equal(coarse[0], coarse[1])
    fine = finer.finer(net, x, "views", target=TARGET)
    rows = np.arange(28)
    centre = [(each.sum(1) * rows).sum() / each.sum() for each in fine]
    assert centre[1] - centre[0] > 0.5


def test_every_way_leaves_the_class_and_the_network_alone(eyes):
    net = network("resnet18").train()
    modes = [module.training for module in net.modules()]
    net_sides = {}
    for way in finer.WAYS:
        maps = finer.finer(net, eyes, way)
        assert maps.dtype == np.float32
        assert maps.shape[0] == 2
        assert np.isfinite(maps).all()
        net_sides[way] = maps.shape[-1]
        with torch.no_grad():
            predicted = network("resnet18")(eyes).argmax(1)
        np.testing.assert_array_equal(maps, finer.finer(net, eyes, way, target=predicted))
    assert net_sides == {"coarse": 3, "fusion": 12, "views": 96, "resolution": 6, "stride 1": 6}
    assert [module.training for module in net.modules()] == modes
    with pytest.raises(KeyError, match="no way 'magic'"):
        finer.finer(net, eyes, "magic")
