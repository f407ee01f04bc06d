"""Families of backbones: what belongs to the trunk and to the tail of each.

What is fine-tuned is declared by family: DenseNet the last three dense layers (docs/sources.md, A3), ResNet ``layer4``,
VGG the fifth block (its 4096-wide layers stay frozen), any other its last stage. The choices for ResNet and VGG are ours:
the paper says only "the last block that contains convolutions".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drstudy.models.base import GradingNet
from drstudy.models.compat import torchvision
from drstudy.models.convolutions import ClampedConv, SameConv
from drstudy.models.weights import LITE_MEAN, LITE_STD


def _pool(x: Tensor) -> Tensor:
    """Global average pooling, (N, C, h, w) to (N, C).

    Summed as (N, h, w, C), which is how it lies in memory: ``mean((2, 3))`` and ``avg_pool2d`` have gradients five to eight times slower.
    """
    return x.permute(0, 2, 3, 1).sum((1, 2)) / (x.shape[2] * x.shape[3])


def _dropouts(classifier: nn.Sequential) -> tuple[str, ...]:
    """Paths of the dropout layers of a torchvision classifier."""
    return tuple(f"classifier.{i}" for i, m in enumerate(classifier) if isinstance(m, nn.Dropout))


class DenseNet(GradingNet):
    """DenseNet: the last three dense layers are fine-tuned."""

    pooled = True

    def _declare(self) -> None:
        layers = list(self.net.features.denseblock4)[-3:]
        self.trainable = tuple(f"features.denseblock4.{name}" for name in layers)
        last = layers[-1]
        self.cam_layers = {
            last: f"features.denseblock4.{last}",
            "denseblock4": "features.denseblock4",
            "norm5_relu": "features.norm5",
        }

    def trunk(self, x: Tensor) -> Tensor:
        features = self.net.features
        for name, module in features.named_children():
            if name == "denseblock4":
                break
            x = module(x)
        outputs = [x]
        for layer in list(features.denseblock4.values())[:-3]:
            outputs.append(layer(outputs))
        return torch.cat(outputs, 1)

    def tail(self, h: Tensor) -> Tensor:
        features = self.net.features
        outputs = [h]
        for name, layer in list(features.denseblock4.items())[-3:]:
            outputs.append(self.tap(name, layer(outputs)))
        x = self.tap("denseblock4", torch.cat(outputs, 1))
        x = self.tap("norm5_relu", F.relu(features.norm5(x)))
        return self.net.classifier(_pool(x))


class ResNet(GradingNet):
    """ResNet, Wide ResNet and ResNeXt: ``layer4`` is fine-tuned."""

    pooled = True
    head_path = "fc"

    def _declare(self) -> None:
        self.trainable = ("layer4",)
        self.cam_layers = {"layer4": "layer4"}

    def trunk(self, x: Tensor) -> Tensor:
        net = self.net
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        return net.layer3(net.layer2(net.layer1(x)))

    def tail(self, h: Tensor) -> Tensor:
        x = self.tap("layer4", self.net.layer4(h))
        return self.net.fc(_pool(x))


class FineResNet(ResNet):
    """ResNet whose last stage does not halve the resolution: maps of twice as many cells per side, with the parameters of the plain one.

    Attributes:
        whole: Whether all layers learn; see :meth:`learn_all`.
    """

    whole = False

    def _declare(self) -> None:
        super()._declare()
        first = self.net.layer4[0]
        for layer in (
            first.conv1,
            first.conv2,
            first.downsample[0],
        ):  # which of the two halves depends on the kind of block
            layer.stride = (1, 1)

    def learn_all(self) -> None:
        """Freeze nothing, for training from random weights: the trunk hands photographs on, and the tail is the whole network."""
        self.whole = True
        self.trainable = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
        self.freeze(self.frozen_bn)

    def trunk(self, x: Tensor) -> Tensor:
        return x if self.whole else super().trunk(x)

    def tail(self, h: Tensor) -> Tensor:
        return super().tail(super().trunk(h) if self.whole else h)


class VGG(GradingNet):
    """VGG: the fifth block is fine-tuned; the wide layers of the classifier stay frozen."""

    head_path = "classifier.6"
    trunk_batch = 4  # the first layers have 64 channels at full resolution: 13 MB an image at 224 pixels

    def _declare(self) -> None:
        pools = [i for i, module in enumerate(self.net.features) if isinstance(module, nn.MaxPool2d)]
        self.split, self.last = pools[-2] + 1, pools[-1]
        convolutions = (
            i for i in range(self.split, self.last) if not isinstance(self.net.features[i], nn.ReLU)
        )
        self.trainable = tuple(f"features.{i}" for i in convolutions)
        self.cam_layers = {"block5_relu": f"features.{self.last - 1}"}
        for module in self.net.features[self.split :]:
            if isinstance(module, nn.ReLU):
                module.inplace = False  # a map needs the activation before and after

    def _active_when_frozen(self) -> tuple[str, ...]:
        return _dropouts(self.net.classifier)

    def trunk(self, x: Tensor) -> Tensor:
        return self.net.features[: self.split](x)

    def tail(self, h: Tensor) -> Tensor:
        x = self.tap("block5_relu", self.net.features[self.split : self.last](h))
        x = self.net.features[self.last :](x)
        return self.net.classifier(torch.flatten(self.net.avgpool(x), 1))


class Staged(GradingNet):
    """torchvision networks built as ``features``, ``avgpool``, ``classifier`` (EfficientNet, MobileNet, ConvNeXt)."""

    def _declare(self) -> None:
        linear = [i for i, module in enumerate(self.net.classifier) if isinstance(module, nn.Linear)]
        self.head_path = f"classifier.{linear[-1]}"
        size = len(self.net.features)
        self.trainable = tuple(f"features.{i}" for i in range(size - 2, size)) + tuple(
            f"classifier.{i}"
            for i, m in enumerate(self.net.classifier)
            if i != linear[-1] and any(True for _ in m.parameters())
        )
        self.cam_layers = {"last_stage": f"features.{size - 1}"}

    def _active_when_frozen(self) -> tuple[str, ...]:
        return _dropouts(self.net.classifier)

    def trunk(self, x: Tensor) -> Tensor:
        return self.net.features[:-2](x)

    def tail(self, h: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.tap("last_stage", self.net.features[-2:](h)), 1)
        flattens = any(isinstance(module, nn.Flatten) for module in self.net.classifier)
        return self.net.classifier(x if flattens else torch.flatten(x, 1))


class Inception(GradingNet):
    """InceptionV3: the last block, ``Mixed_7c``, is fine-tuned. The auxiliary head keeps its place for published weights, and is not used.

    Its ImageNet weights expect pixels scaled to -1 to 1.
    """

    pooled = True
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    head_path = "fc"

    @classmethod
    def create(cls, backbone: str) -> nn.Module:
        """InceptionV3 from random weights, with the auxiliary head and without a normalisation of its own."""
        options = {"weights": None, "aux_logits": True, "transform_input": False, "init_weights": False}
        return torchvision.models.get_model(backbone, **options)

    def _declare(self) -> None:
        self.trainable = ("Mixed_7c",)
        self.cam_layers = {"mixed_7c": "Mixed_7c"}

    def _active_when_frozen(self) -> tuple[str, ...]:
        return ("dropout",)

    def trunk(self, x: Tensor) -> Tensor:
        for name, module in self.net.named_children():
            if name == "Mixed_7c":
                break
            if name != "AuxLogits":
                x = module(x)
        return x

    def tail(self, h: Tensor) -> Tensor:
        net = self.net
        return net.fc(net.dropout(_pool(self.tap("mixed_7c", net.Mixed_7c(h)))))


class EfficientNetLite(GradingNet):
    """EfficientNet-Lite: the last block and the convolution after it are fine-tuned."""

    pooled = True
    mean, std = LITE_MEAN, LITE_STD
    head_path = "_fc"
    stride_multiple = 32  # its static "same" padding is right for these sizes only; see create

    @classmethod
    def create(cls, backbone: str) -> nn.Module:
        """EfficientNet-Lite from random weights, padded for inputs whose side is a multiple of 32.

        The package computes the "same" padding of each convolution once, from the published input size of the network. Those of
        Lite1 and Lite2 (240 and 260 pixels) meet odd sides on the way, whose padding is another than that of even sides.
        """
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name(backbone.replace("_", "-"), image_size=7 * cls.stride_multiple)

    def _declare(self) -> None:
        self.trainable = (f"_blocks.{len(self.net._blocks) - 1}", "_conv_head", "_bn1")
        self.cam_layers = {"conv_head": "_bn1"}
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = (
                    0.1  # torch's; the package keeps TensorFlow's 0.01, whose statistics lag 100 steps behind
                )
        SameConv.convert(self.net)
        self.net._stem_relu = nn.ReLU6()

    def _active_when_frozen(self) -> tuple[str, ...]:
        return ("_dropout",)

    def join_activations(self) -> None:
        """ReLU6 follows the first convolution, and in a block the expanding and the depthwise one, but not the last."""
        net = self.net
        net._conv_stem = ClampedConv(net._conv_stem)
        net._stem_relu = nn.Identity()
        for block in net._blocks[:-1]:
            if hasattr(block, "_expand_conv"):
                block._expand_conv = ClampedConv(block._expand_conv)
            block._depthwise_conv = ClampedConv(block._depthwise_conv)
            block._swish = nn.Identity()

    def trunk(self, x: Tensor) -> Tensor:
        net = self.net
        x = net._stem_relu(net._bn0(net._conv_stem(x)))
        for block in net._blocks[:-1]:
            x = block(x)
        return x

    def tail(self, h: Tensor) -> Tensor:
        net = self.net
        x = F.relu6(net._bn1(net._conv_head(net._blocks[-1](h))))
        return net._fc(net._dropout(_pool(self.tap("conv_head", x))))
