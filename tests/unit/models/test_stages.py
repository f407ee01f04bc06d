"""The last layer of each stage really has the stride under which it is named, in every family."""

from __future__ import annotations

import pytest
import torch

from drstudy.explain.methods import finer
from drstudy.models import nets, stages

SIDE = 64
EVERY, TO_16 = (4, 8, 16, 32), (4, 8, 16)


@pytest.mark.parametrize(
    ("backbone", "strides", "channels", "fused"),
    [
        ("resnet18", EVERY, (64, 128, 256, 512), ("layer2", "layer3")),
        ("resnext50_32x4d", EVERY, (256, 512, 1024, 2048), ("layer2", "layer3")),
        ("resnet18_stride1", TO_16, (64, 128, 256), ("layer2", "layer3")),
        ("densenet121", EVERY, (256, 512, 1024, 1024), ("features.denseblock2", "features.denseblock3")),
        ("vgg11", TO_16, (256, 512, 512), ("features.9", "features.14")),
        ("vgg11_bn", TO_16, (256, 512, 512), ("features.13", "features.20")),
        ("efficientnet_lite0", EVERY, (24, 40, 112, 320), ("_blocks.4", "_blocks.10")),
        ("efficientnet_lite1", EVERY, (24, 40, 112, 320), ("_blocks.6", "_blocks.14")),
        ("efficientnet_lite2", EVERY, (24, 48, 120, 352), ("_blocks.6", "_blocks.14")),
    ],
)
def test_each_stage_has_its_stride_and_is_the_last_of_it(backbone, strides, channels, fused):
    net = nets.empty(backbone, "single").eval()
    found, known = {}, stages.stages(net)

    def noting(stride):
        def note(module, given, output):
            found[stride] = tuple(output.shape)

        return note

    for stride, path in known.items():
        net.net.get_submodule(path).register_forward_hook(noting(stride))
    with torch.no_grad():
        net.net(torch.zeros(1, 3, SIDE, SIDE, device="meta"))
    assert tuple(known) == strides
    assert found == {s: (1, c, SIDE // s, SIDE // s) for s, c in zip(strides, channels)}
    assert finer.stage_layers(net) == fused, "as before the stages had a module of their own"


def test_no_later_layer_has_the_same_stride():
    """Of EfficientNet-Lite, whose stages are found by counting: the block after the named one halves the side."""
    net = nets.empty("efficientnet_lite2", "single")
    blocks = net.net._blocks
    for path in list(stages.stages(net).values())[:-1]:
        after = blocks[int(path.split(".")[1]) + 1]
        assert after._depthwise_conv.stride[0] == 2, path
    assert stages.stages(net)[32] == f"_blocks.{len(blocks) - 1}"


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "efficientnet_b0"])
def test_other_families_are_refused(backbone):
    with pytest.raises(ValueError, match=f"stages of {backbone} are not declared; use a ResNet"):
        stages.stages(nets.empty(backbone, "single"))
