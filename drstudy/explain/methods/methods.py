r"""Heatmaps of ten methods behind one call, unscaled and signed, for any class and any layer.

What such a map says: where the *network's* evidence for a class lies, by one definition of evidence. It does not say that there
is a lesion, nor that the evidence is a good one; :mod:`drstudy.explain.checks.faithfulness` asks whether the network needs
what the map marks, :mod:`drstudy.explain.checks.sanity` whether the map depends on what was learnt at all.

The formulas of Grad-CAM++, HiRes-CAM, Layer-CAM, Score-CAM and Eigen-CAM are those of the ``grad-cam`` package; the activations and
gradients they are given are ours, of one exact batched pass. So none of the package's habits reaches a result: its list of
targets may be shorter than the batch without a word, its ``with`` block swallows an ``IndexError``, it leaves the
network in evaluation mode with ``.grad`` filled and hooks in place, and it scales each map to its own maximum.

With activations :math:`A`, class score (logit) :math:`y` and :math:`g = \partial y / \partial A`:

================== ================================================================= ==========================
``cam``            :math:`\sum_k w_k A_k / hw`, no gradient; linear heads only        Zhou et al. 2016
``grad_cam``       :math:`\sum_k \overline{g_k} A_k`                                  Selvaraju et al. 2017
``grad_cam++``     :math:`\sum_k A_k \sum_{ij} \alpha_{kij} \max(g_{kij}, 0)`         Chattopadhyay et al. 2018
``hires_cam``      :math:`\sum_k g_k A_k`                                             Draelos & Carin 2020
``layer_cam``      :math:`\sum_k \max(g_k, 0) A_k`                                    Jiang et al. 2021
``score_cam``      :math:`\sum_k \mathrm{softmax}_k(y(x \cdot \hat A_k)) A_k`         Wang et al. 2020
``eigen_cam``      first principal component of the positions of :math:`A`            Muhammad & Yeasin 2020
``guided_backprop`` gradient of the input, negative ones dropped at each rectifier    Springenberg et al. 2015
``integrated_gradients`` :math:`(x - b) \int_0^1 \partial y (b + t (x - b)) dt`       Sundararajan et al. 2017
================== ================================================================= ==========================

Three things to know. Where a linear head follows the layer and global mean pooling, gradients are equal at
all positions, so ``cam``, ``grad_cam`` and ``hires_cam`` are one map. The sign of a principal
component is arbitrary; the package's rule turns it so that its largest value is positive. Pixel-level maps are
summed over the colour channels, signed, so that integrated gradients keep their completeness.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from drstudy.explain.methods import cam
from drstudy.models import compat, heads  # noqa: F401  (compat: before grad-cam, which imports torchvision)

import pytorch_grad_cam as package  # isort: skip
from pytorch_grad_cam import score_cam  # isort: skip
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # isort: skip
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction  # isort: skip

if TYPE_CHECKING:
    from drstudy.models.nets import GradingNet

CAM_METHODS = ("grad_cam", "grad_cam++", "hires_cam", "layer_cam", "eigen_cam", "score_cam")
"""At the resolution of a layer. ``eigen_cam`` knows no class: it shows what varies most in the layer."""

PIXEL_METHODS = ("guided_backprop", "integrated_gradients")
"""At the resolution of the input."""

FAST = tuple(method for method in CAM_METHODS if method != "score_cam")
"""What one pass gives together. Score-CAM needs one pass of the network for each channel of the layer."""

METHODS = ("cam", *CAM_METHODS, *PIXEL_METHODS)

BASELINES = ("blur", "mean", "black")

BLUR = 1 / 16
"""Standard deviation of the blurred baseline, share of the side: what is smaller than a disc is gone."""


@dataclass(frozen=True)
class Explanations:
    """Maps of the same eyes by several methods.

    Attributes:
        raw: Method to (N, h, w) float32, signed and unscaled; h and w are the layer's or, at pixel level, the input's.
        logits: (N, K) float32.
        target: (N,) int64, the explained class.
        layer: Where the class activation maps were taken.
    """

    raw: dict[str, np.ndarray]
    logits: np.ndarray
    target: np.ndarray
    layer: str

    def maps(self, method: str) -> np.ndarray:
        """(N, h, w) float32, at least 0: the evidence for the target."""
        return evidence(self.raw[method])


def evidence(raw: np.ndarray) -> np.ndarray:
    """The positive part, which is what these methods show: evidence *for* the class."""
    return np.maximum(raw, 0)


def explain(
    net: GradingNet,
    x: Tensor,
    method: str = "grad_cam",
    target: np.ndarray | Tensor | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 16,
    steps: int = 16,
    baseline: str = "blur",
) -> np.ndarray:
    """Maps of many eyes by one method; see :func:`explain_many`.

    Returns:
        (N, h, w) float32, signed and unscaled. :func:`evidence` is its positive part, ``cam.display`` the version for the eye.
    """
    found = explain_many(
        net, x, (method,), target, layer, batch_size=batch_size, steps=steps, baseline=baseline
    )
    return found.raw[method]


def explain_many(
    net: GradingNet,
    x: Tensor,
    methods: Sequence[str] = FAST,
    target: np.ndarray | Tensor | None = None,
    layer: str | None = None,
    *,
    batch_size: int = 16,
    steps: int = 16,
    baseline: str = "blur",
) -> Explanations:
    """Maps of many eyes by several methods, which share one forward and one backward pass per batch.

    Args:
        net: A grading network. Runs in evaluation mode; mode, ``.grad`` and hooks are as before afterwards, also after errors.
        x: (N, 3, H, W) float, normalised for this network; moved to its device batch by batch.
        methods: Names from :data:`METHODS`.
        target: (N,) integer classes; ``None`` explains the predicted ones.
        layer: A name of ``net.cam_layers``, or the path of any module of ``net.net`` that runs once and gives
            (N, C, h, w); ``None`` is the last of ``net.cam_layers``, right before pooling.
        batch_size: Eyes (Score-CAM: masked copies, integrated gradients: points of the path) at a time.
        steps: Points of the path of integrated gradients (Gauss-Legendre).
        baseline: Where that path begins; see :func:`baseline_of`. ``black`` cannot give evidence to dark lesions on a black
            reference: what equals the baseline gets none.

    Raises:
        KeyError: If a layer or method is unknown.
        ValueError: If there is not one class in range for each image; if a method is not defined for this network.
    """
    methods = [methods] if isinstance(methods, str) else list(methods)
    if unknown := [method for method in methods if method not in METHODS]:
        raise KeyError(f"There is no method {unknown[0]!r} for maps; there are {', '.join(METHODS)}.")
    if target is not None and len(target) != len(x):
        raise ValueError(f"There are {len(target)} targets for {len(x)} images; give one for each.")
    layer = layer or list(net.cam_layers)[-1]
    device = next(net.parameters()).device
    parts: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    logits, targets = [], []
    for begin in range(0, len(x), batch_size):
        batch = x[begin : begin + batch_size].to(device)
        wanted = None if target is None else torch.as_tensor(target[begin : begin + batch_size]).to(device)
        with cam.evaluating(net):
            found = gradients(net, batch, wanted, (layer,))
            for method in methods:
                raw = _map(net, batch, method, found, layer, batch_size, steps, baseline)
                parts[method].append(np.asarray(raw, dtype=np.float32))
        logits.append(found.logits.cpu().numpy())
        targets.append(found.target.cpu().numpy())
    raws = {method: np.concatenate(part) for method, part in parts.items()}
    return Explanations(raws, np.concatenate(logits), np.concatenate(targets), layer)


@dataclass(frozen=True)
class Gradients:
    """What gradient-based maps are made of, for one batch.

    Attributes:
        activations, gradients: Layer to (N, C, h, w) float32; gradients of each eye's own target score.
        logits: (N, K) float32.
        target: (N,) int64.
    """

    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    logits: Tensor
    target: Tensor


def gradients(net: GradingNet, x: Tensor, target: Tensor | None, layers: Sequence[str]) -> Gradients:
    """Activations and gradients at several layers from one pass forward and one back.

    As in :func:`drstudy.explain.methods.cam.grad_cam`, the gradient of the sum of all scores holds each eye's own. If all layers
    are in the tail the trunk runs without a graph (and in the caller's autocast); what is differentiated is float32.

    Args:
        net, x, target: As in :func:`explain_many`, one batch, on the network's device.
        layers: Names of ``net.cam_layers`` or module paths.
    """
    with cam.evaluating(net), torch.enable_grad(), _recorded(net, layers) as box:
        if all(layer in net.cam_layers for layer in layers):
            with torch.no_grad():
                h = net.trunk(x)
            with torch.autocast(x.device.type, enabled=False):
                logits = net.tail(h.to(torch.float32, copy=True).requires_grad_())
        else:
            with torch.autocast(x.device.type, enabled=False):
                logits = net(x.to(torch.float32, copy=True).requires_grad_())
        target = logits.argmax(1) if target is None else cam.checked_target(target, logits)
        if absent := [layer for layer in layers if layer not in box]:
            raise ValueError(
                f"The module {absent[0]!r} of {net.backbone} is not called as a whole when the network runs; "
                "name one of its children."
            )
        activations = [box[layer] for layer in layers]
        found = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), activations)
    return Gradients(
        {layer: activation.detach() for layer, activation in zip(layers, activations)},
        dict(zip(layers, found)),
        logits.detach(),
        target,
    )


def baseline_of(x: Tensor, kind: str, net: GradingNet) -> Tensor:
    """An image of the same shape without the information to be explained.

    Args:
        x: (N, 3, H, W), normalised.
        kind: ``blur`` (Gaussian of standard deviation :data:`BLUR` times the side: lesions vanish, the eye stays),
            ``mean`` (each image's own mean colour everywhere) or ``black``.
        net: Whose normalisation says what black is.
    """
    if kind == "blur":
        from scipy.ndimage import gaussian_filter

        sigma = BLUR * x.shape[-1]
        blurred = gaussian_filter(x.detach().cpu().numpy(), (0, 0, sigma, sigma), mode="nearest")
        return torch.from_numpy(blurred).to(x)
    if kind == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x)
    if kind == "black":
        black = -torch.tensor(net.mean) / torch.tensor(net.std)
        return black.to(x)[None, :, None, None].expand_as(x)
    raise ValueError(f"There is no baseline {kind!r}; there are {', '.join(BASELINES)}.")


def _map(
    net: GradingNet,
    x: Tensor,
    method: str,
    found: Gradients,
    layer: str,
    batch_size: int,
    steps: int,
    baseline: str,
) -> np.ndarray | Tensor:
    """(N, h, w), signed, of one batch."""
    if method == "guided_backprop":
        return _guided_backprop(net, x, found.target)
    if method == "integrated_gradients":
        return _integrated_gradients(net, x, found.target, baseline_of(x, baseline, net), steps, batch_size)
    activation, gradient = found.activations[layer].float(), found.gradients[layer].float()
    if method == "cam":
        return _cam(net, activation, found, layer)
    if method == "grad_cam":
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), activation).cpu()
    activation, gradient = activation.cpu().numpy(), gradient.cpu().numpy()
    if method == "eigen_cam":
        return get_2d_projection_with_sign_correction(_rotated(activation))
    if method == "score_cam":
        return _score_cam(net, x, found.target, activation, batch_size)
    formula = {
        "grad_cam++": package.GradCAMPlusPlus,
        "hires_cam": package.HiResCAM,
        "layer_cam": package.LayerCAM,
    }[method]
    return formula(net, []).get_cam_image(None, None, None, activation, gradient, False)


def _rotated(activation: np.ndarray) -> np.ndarray:
    """The same positions in as few channels as there are positions: a rotation, which leaves principal components alone."""
    n, channels, height, width = activation.shape
    if channels <= height * width:
        return activation
    return np.linalg.qr(activation.reshape(n, channels, -1), mode="r").reshape(n, -1, height, width)


def _cam(net: GradingNet, activation: Tensor, found: Gradients, layer: str) -> Tensor:
    """Class activation map from the weights of the head; checked by what makes it one: mean(CAM) + bias is the score."""
    problem = (
        f"cam is defined where one affine map follows mean pooling; {net.backbone} at {layer!r} is not so"
    )
    try:
        weight, bias = heads.collapsed(net.net.get_submodule(net.head_path))
    except ValueError as error:
        raise ValueError(f"{problem} ({error}) Use 'grad_cam'.") from error
    if weight.shape[1] != activation.shape[1]:
        raise ValueError(
            f"{problem}: {activation.shape[1]} channels, {weight.shape[1]} inputs. Use 'grad_cam'."
        )
    weight, bias = weight.to(activation)[found.target], bias.to(activation)[found.target]
    with torch.autocast(activation.device.type, enabled=False):
        maps = torch.einsum("nc,nchw->nhw", weight, activation)
    score = found.logits.gather(1, found.target[:, None])[:, 0]
    if not torch.allclose(maps.mean((1, 2)) + bias, score, rtol=1e-3, atol=1e-3):
        raise ValueError(f"{problem}: mean(CAM) + bias is not the score. Use 'grad_cam'.")
    return (maps / maps[0].numel()).cpu()


def _score_cam(
    net: GradingNet, x: Tensor, target: Tensor, activation: np.ndarray, batch_size: int
) -> np.ndarray:
    """The package's, one eye at a time (it holds a masked copy of the eye for each channel) and without its progress bars."""
    explainer = package.ScoreCAM(net, [])
    explainer.batch_size = batch_size
    quiet = types.SimpleNamespace(tqdm=iter)
    with mock.patch.object(score_cam, "tqdm", quiet):
        maps = [
            explainer.get_cam_image(
                x[i : i + 1],
                None,
                [ClassifierOutputTarget(int(target[i]))],
                activation[i : i + 1],
                None,
                False,
            )
            for i in range(len(x))
        ]
    return np.concatenate(maps)


def _integrated_gradients(
    net: GradingNet, x: Tensor, target: Tensor, baseline: Tensor, steps: int, batch_size: int
) -> Tensor:
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        attribution = IntegratedGradients(net).attribute(
            x.clone(),
            baseline,
            target=target,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=max(batch_size, len(x)),
        )
    return attribution.detach().sum(1).cpu()


class _Guided(TorchFunctionMode):
    """Inside, no negative gradient passes a rectifier, be it a module or a function, in place or not.

    captum does this for ``nn.ReLU`` modules only, and without a word for no other: it would miss the last rectifier of every
    DenseNet, which is a function call, and all of EfficientNet-Lite, whose modules are ``nn.ReLU6``.
    """

    RECTIFIERS = frozenset(
        {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh}
    )
    OTHERS = frozenset({F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.sigmoid, torch.sigmoid, Tensor.sigmoid})

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = backbone

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in self.OTHERS:
            raise ValueError(
                f"Guided backprop is defined for rectifiers (ReLU, ReLU6); {self.backbone} has {func.__name__}. "
                "Use 'integrated_gradients'."
            )
        if func in self.RECTIFIERS:
            entering = args[0].clone()  # in-place rectifiers then overwrite the copy
            if entering.requires_grad:
                entering.register_hook(lambda gradient: gradient.clamp(min=0))
            args = (entering, *args[1:])
        return func(*args, **kwargs)


def _guided_backprop(net: GradingNet, x: Tensor, target: Tensor) -> Tensor:
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False), _Guided(net.backbone):
        x = x.to(torch.float32, copy=True).requires_grad_()
        score = net(x).gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, x)
    return gradient.sum(1).cpu()


@contextlib.contextmanager
def _recorded(net: GradingNet, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The activations at named layers or modules while the block runs, in the graph."""
    handles = []
    with net.record(*(layer for layer in layers if layer in net.cam_layers)) as box:
        try:
            for layer in layers:
                if layer not in net.cam_layers:
                    handles.append(_module(net, layer).register_forward_hook(_keep(net, layer, box)))
            yield box
        finally:
            for handle in handles:
                handle.remove()


def _module(net: GradingNet, layer: str) -> torch.nn.Module:
    try:
        return net.net.get_submodule(layer)
    except AttributeError as error:
        known = ", ".join(net.cam_layers)
        raise KeyError(
            f"{net.backbone} has no layer {layer!r}: neither of {known} nor the path of a module."
        ) from error


def _keep(net: GradingNet, layer: str, box: dict[str, Tensor]) -> Callable:
    def hook(_module: torch.nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        if layer in box:
            raise ValueError(
                f"{layer!r} of {net.backbone} runs more than once; name a module that runs once."
            )
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ValueError(f"{layer!r} of {net.backbone} gives no (N, C, h, w); a map needs positions.")
        box[layer] = output
        return output.clone()  # a rectifier in place then overwrites the copy

    return hook
