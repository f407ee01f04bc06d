"""Networks that turn a photograph into a vector: the pooled features right before the head.

Two encoders look at every set of pictures. ``lite0`` is EfficientNet-Lite0 with the ImageNet weights that its package brings; it has never
been trained on photographs of the retina. ``graded`` is the network of notebook 03, which has learnt the grades. Distances in these spaces are
named after the encoder (``kd_lite0``, ``fd_lite0``). None of them is the published FID or KID, which use Inception-v3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from drstudy.core.devices import Compute
from drstudy.models import nets
from drstudy.models.folding import folded
from drstudy.models.nets import GradingNet
from drstudy.papers.gan.pictures import Pictures
from drstudy.training import prediction

BUNDLED = "efficientnet_lite0"
INPUT_SIZE = 224
"""Side of the input for which the bundled weights were published, pixels."""


@dataclass(frozen=True)
class Encoder:
    """A frozen network and the size at which it looks at pictures.

    Attributes:
        name: Ending of the metrics that are computed from it.
        net: The network, with the batch norms of its trunk folded (:func:`drstudy.models.folding.folded`), which takes half of the time.
        input_size: Side of the input, pixels. Pictures of another size are resized.
        compute: Device and precision.
    """

    name: str
    net: GradingNet
    input_size: int
    compute: Compute

    def features(self, pictures: Pictures | np.ndarray) -> np.ndarray:
        """Pooled features of the last convolutional layer.

        Args:
            pictures: N pictures, or their (N, S, S, 3) uint8 array.

        Returns:
            (N, D) float32.

        Raises:
            FloatingPointError: If a feature is not finite.
        """
        images = pictures.images if isinstance(pictures, Pictures) else pictures
        found = self.layers(images, np.arange(len(images)))
        features = np.concatenate([layer.mean((2, 3)).cpu().numpy() for layer in found])
        if not np.isfinite(features).all():
            raise FloatingPointError(
                f"The encoder {self.name} gave features that are not finite. Use PRECISION 'fp32', or look at its weights."
            )
        return features

    def layers(self, images: np.ndarray, rows: np.ndarray) -> Iterator[Tensor]:
        """The last convolutional layer, (B, D, h, w) float32 on the device, in batches.

        Args:
            images: (M, S, S, 3) uint8.
            rows: Which of them, in which order.
        """
        name = list(self.net.cam_layers)[-1]

        def forward(x: Tensor) -> Tensor:
            with self.net.record(name) as kept:
                self.net(x)
            return kept[name].float()

        for _, layer in prediction.in_batches(forward, self.net, images, rows, self.input_size, self.compute):
            yield layer


def bundled(compute: Compute, input_size: int = INPUT_SIZE) -> Encoder:
    """EfficientNet-Lite0 with its bundled ImageNet weights, named ``lite0``.

    Args:
        compute: Device and precision.
        input_size: Side of the input, pixels, a multiple of 32. A smaller one is faster; a result is comparable only with results of the same size.

    Raises:
        ValueError: If the size is no multiple of 32.
        drstudy.models.weights.WeightsError: If the weights cannot be loaded.
    """
    net = nets.build(BUNDLED, weights="bundled")
    return _frozen("lite0", net, input_size, compute)


def graded(net: GradingNet, compute: Compute) -> Encoder:
    """A network that has learnt the grades, named ``graded``; its input size is that of its training.

    Args:
        net: Result of :func:`drstudy.training.prediction.load`.
        compute: Device and precision.
    """
    return _frozen("graded", net, net.input_size, compute)


def _frozen(name: str, net: GradingNet, input_size: int, compute: Compute) -> Encoder:
    if input_size % net.stride_multiple:
        raise ValueError(
            f"The encoder {name} looks at pictures of {input_size} pixels, but {net.backbone} needs a multiple of {net.stride_multiple}."
        )
    net.to(compute.device).eval().requires_grad_(False)
    return Encoder(name, folded(net, input_size, compute.dtype), input_size, compute)
