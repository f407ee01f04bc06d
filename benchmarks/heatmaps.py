"""Grad-CAM maps of a whole split: against the packages grad-cam and medcam (M3d-CAM), same network, same layers, float32.

`one layer` is the layer right before pooling, where a closed form needs no gradient. `three layers` are the candidates of the paper
(DenseNet121), which ours takes from one pass. The packages get the network as it is loaded and the same batches; ours also gives the
prediction, in the same pass. Maps are compared after the packages' own scaling (each map by its maximum, enlarged to the input).
"""

from __future__ import annotations

import os

import numpy as np
from side_by_side import alternate, options, report

SIZE = 224


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        images=(16, 16, "images"),
        batch=(16, 8, "images a pass"),
        repeats=(5, 5, "measurements"),
    )
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(given.threads)
    import torch

    from drstudy.core import devices
    from drstudy.data import phantom
    from drstudy.explain.methods import cam
    from drstudy.models import nets, norms
    from drstudy.training import transforms

    compute = devices.setup("cpu", "fp32", given.threads, 0)
    config = phantom.PhantomConfig(n_patients=given.images // 2, size=SIZE, seed=5)
    images = np.stack([phantom.render(config, i).image for i in range(given.images)])
    ids = [str(i) for i in range(given.images)]
    batches = [slice(i, i + given.batch) for i in range(0, given.images, given.batch)]

    for backbone, weights in (("densenet121", "none"), ("efficientnet_lite0", "bundled")):
        net = nets.build(backbone, "single", weights, 0).eval()
        net.to(memory_format=torch.channels_last)
        if weights == "none":
            x = [transforms.to_input(images[:16], SIZE, net.mean, net.std)]
            norms.calibrate(net, lambda x=x: iter(x))
            net.eval()
        chosen = {"one layer": list(net.cam_layers)[-1:]}
        if len(net.cam_layers) > 1:
            chosen["three layers"] = list(net.cam_layers)
        for name, layers in chosen.items():

            def ours(net=net, layers=layers) -> dict[str, np.ndarray]:
                explained = cam.explain_images(
                    net, images, ids, SIZE, compute, layers=layers, batch_size=given.batch
                )
                return {layer: explained.maps(layer) for layer in layers}

            sides = {
                "ours": ours,
                "grad-cam": lambda net=net, layers=layers: grad_cam(net, images, batches, layers),
            }
            if name == "one layer":
                sides["medcam"] = lambda net=net, layers=layers: medcam(net, images, layers)
            seconds, results = alternate(sides, given.repeats)
            for other in list(sides)[1:]:
                gap = difference(results["ours"], results[other], other)
                report(
                    f"heatmaps {backbone}, {name}, against {other}",
                    1000 * seconds["ours"] / given.images,
                    1000 * seconds[other] / given.images,
                    "ms an image",
                    gap < 1e-5,
                    greatest_difference=gap,
                    images=given.images,
                )


def with_modules(net):
    """The network with a module where a map is taken: the ReLU before pooling is a function in DenseNet, which no hook sees."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net
            self.taps = torch.nn.ModuleDict({layer: torch.nn.Identity() for layer in net.cam_layers})

        def forward(self, x):
            net.tap = lambda layer, activation: (
                self.taps[layer](activation) if layer in self.taps else activation
            )
            try:
                return net(x)
            finally:
                del net.tap

    return Whole()


def grad_cam(net, images, batches, layers) -> dict[str, np.ndarray]:
    from pytorch_grad_cam import GradCAM

    from drstudy.models import compat  # noqa: F401
    from drstudy.training import transforms

    whole, found = with_modules(net), {}
    for layer in layers:
        explainer = GradCAM(whole, [whole.taps[layer]])
        found[layer] = np.concatenate(
            [explainer(transforms.to_input(images[b], SIZE, net.mean, net.std), None) for b in batches]
        )
        explainer.activations_and_grads.release()
    return found


def medcam(net, images, layers) -> dict[str, np.ndarray]:
    from medcam import medcam as package

    from drstudy.training import transforms

    found = {}
    for layer in layers:
        injected = package.inject(with_modules(net), layer=f"taps.{layer}", return_attention=True)
        each = range(len(images))  # it explains the predicted class in batches of one only
        parts = [injected(transforms.to_input(images[i : i + 1], SIZE, net.mean, net.std))[1] for i in each]
        found[layer] = np.concatenate([np.asarray(part.detach())[:, 0] for part in parts])
    return found


def difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], package: str) -> float:
    """Greatest difference of the maps as the package scales and enlarges them."""
    import torch
    from pytorch_grad_cam.utils.image import scale_cam_image

    gaps = []
    for layer, maps in ours.items():
        if package == "grad-cam":
            mine = scale_cam_image(maps, (SIZE, SIZE))
            mine = scale_cam_image(np.maximum(mine[:, None], 0).mean(1))
        else:
            mine = torch.nn.functional.interpolate(
                torch.from_numpy(maps)[:, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False
            )[:, 0].numpy()
        gaps.append(np.abs(_scaled(mine) - _scaled(theirs[layer])).max())
    return float(max(gaps))


def _scaled(maps: np.ndarray) -> np.ndarray:
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)


if __name__ == "__main__":
    main()
