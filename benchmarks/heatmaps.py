"""Grad-CAM maps of a whole split: against the packages grad-cam and medcam (M3d-CAM), same network, same layers.

`one layer` is the layer right before pooling, where a closed form needs no gradient. `three layers` are the candidates of the paper
(DenseNet121), which ours takes from one pass. The packages get the network as it is loaded and the same batches, in float32; ours also gives the
prediction, in the same pass. Maps are compared after the packages' own scaling (each map by its maximum, enlarged to the input).

The limit is the forward pass of the same network with folded norms, in the same batches, on photographs that are already normalised: no map, no
input, no bookkeeping. `share of limit` is the limit divided by ours; where the limit is nearer than the wanted ratio, 0.85 is wanted instead.

`bf16 trunk` has the trunk in bfloat16, the tail and the maps in float32 (only where the processor has units for it). Its maps are compared with
those that float32 gives for the same class, before the ReLU: rank correlation over the cells of each map (mean and lowest), and greatest
difference relative to the map's range. They count as the same from a lowest correlation of 0.999 and up to a difference of 1 %.

With one thread the processor's time is measured, which other programs on the machine disturb less.
"""

from __future__ import annotations

import time

import numpy as np
from side_by_side import alternate, options, report, set_threads

SIZE = 224
RANKS_AGREE, LEVELS_AGREE = 0.999, 0.01
"""Lowest rank correlation and greatest difference, relative to the range of a map, with which maps of lower precision count as the same."""


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        images=(64, 16, "images"),
        others=(16, 16, "images for the packages, whose time per image does not depend on their number"),
        batch=(16, 8, "images a pass"),
        repeats=(5, 5, "measurements"),
    )
    set_threads(given.threads)
    import torch

    from drstudy.core import devices
    from drstudy.data import phantom
    from drstudy.models import nets, norms
    from drstudy.training import transforms

    compute = devices.setup("cpu", "fp32", given.threads, 0)
    has_bf16 = devices.setup("cpu", "auto", given.threads, 0).precision == "bf16"
    config = phantom.PhantomConfig(n_patients=given.images // 2, size=SIZE, seed=5)
    images = np.stack([phantom.render(config, i).image for i in range(given.images)])
    few = images[: given.others]

    for backbone, weights in (("densenet121", "none"), ("efficientnet_lite0", "bundled")):
        net = nets.build(backbone, "single", weights, 0).eval()
        net.to(memory_format=torch.channels_last)
        if weights == "none":
            x = [transforms.to_input(images[:16], SIZE, net.mean, net.std)]
            norms.calibrate(net, lambda x=x: iter(x))
            net.eval()
        last = list(net.cam_layers)[-1:]
        clock = time.process_time if given.threads == 1 else time.perf_counter
        sides = {
            "ours": ours(net, images, last, compute, given.batch),
            "grad-cam": lambda net=net, last=last: grad_cam(net, few, given.batch, last),
            "medcam": lambda net=net, last=last: medcam(net, few, last),
            "limit": forward_only(net, images, compute, given.batch),
        }
        reduced = devices.Compute("cpu", "bf16")
        if has_bf16:
            sides["ours, bf16"] = ours(net, images, last, reduced, given.batch)
            sides["limit, bf16"] = forward_only(net, images, reduced, given.batch)
        seconds, results = alternate(sides, given.repeats, clock)
        counts = {name: given.others if name in ("grad-cam", "medcam") else given.images for name in sides}
        each = {name: 1000 * seconds[name] / counts[name] for name in sides}
        for other in ("grad-cam", "medcam"):
            tell(f"{backbone}, one layer", other, each, results, given.images)
        if has_bf16:
            agreed = agreement(*same_class(net, images, last, (reduced, compute), given.batch))
            tell_reduced(f"{backbone}, one layer, bf16 trunk", agreed, each, given.images)
        if len(net.cam_layers) > 1:
            layers = list(net.cam_layers)
            sides = {
                "ours": ours(net, few, layers, compute, given.batch),
                "grad-cam": lambda net=net, layers=layers: grad_cam(net, few, given.batch, layers),
                "limit": forward_only(net, few, compute, given.batch),
            }
            seconds, results = alternate(sides, given.repeats, clock)
            each = {name: 1000 * value / given.others for name, value in seconds.items()}
            tell(f"{backbone}, three layers", "grad-cam", each, results, given.others)


def ours(net, images, layers, compute, batch):
    """A function that returns the maps of each layer, (N, h, w), at least 0."""
    from drstudy.explain.methods import cam

    ids = [str(i) for i in range(len(images))]

    def explain() -> dict[str, np.ndarray]:
        explained = cam.explain_images(net, images, ids, SIZE, compute, layers=layers, batch_size=batch)
        return {layer: explained.maps(layer) for layer in layers}

    return explain


def forward_only(net, images, compute, batch):
    """A function that does nothing but the forward pass, of the fastest form of the network that we have."""
    import torch

    from drstudy.models import folding
    from drstudy.training import transforms

    folded = folding.folded(net, SIZE, compute.dtype)
    ready = [
        compute.put(transforms.to_input(some, SIZE, net.mean, net.std)) for some in in_batches(images, batch)
    ]

    @torch.inference_mode()
    def forward() -> None:
        with compute.autocast():
            for x in ready:
                folded(x)

    return forward


def tell(name: str, other: str, each: dict[str, float], results: dict, images: int) -> None:
    """Report one comparison in float32, from milliseconds an image of each side."""
    gap = difference(results["ours"], results[other], other)
    report(
        f"heatmaps {name}, against {other}",
        each["ours"],
        each[other],
        "ms an image",
        gap < 1e-5,
        greatest_difference=gap,
        images=images,
        limit=each["limit"],
        share_of_limit=each["limit"] / each["ours"],
    )


def same_class(net, images, layers, computes, batch) -> list[np.ndarray]:
    """Signed maps (N, h, w) under each of some precisions, of the class that the last of them predicts."""
    from drstudy.explain.methods import cam

    ids, target, found = [str(i) for i in range(len(images))], None, []
    for compute in reversed(computes):
        explained = cam.explain_images(
            net, images, ids, SIZE, compute, target=target, layers=layers, batch_size=batch
        )
        target = explained.target
        found.append(explained.raw[layers[0]])
    return found[::-1]


def tell_reduced(name: str, agreed: tuple[float, float, float], each: dict[str, float], images: int) -> None:
    """Report the comparison with a trunk in lower precision, and how well its maps agree with those of float32."""
    mean, lowest, gap = agreed
    report(
        f"heatmaps {name}, against grad-cam",
        each["ours, bf16"],
        each["grad-cam"],
        "ms an image",
        lowest >= RANKS_AGREE and gap <= LEVELS_AGREE,
        rank_correlation_mean=mean,
        rank_correlation_lowest=lowest,
        greatest_difference_of_range=gap,
        images=images,
        limit=each["limit, bf16"],
        share_of_limit=each["limit, bf16"] / each["ours, bf16"],
    )


def agreement(found: np.ndarray, exact: np.ndarray) -> tuple[float, float, float]:
    """Mean and lowest rank correlation of two sets of maps (N, h, w), and their greatest difference relative to the range of the exact map.

    A map that is the same everywhere has no ranks; it counts only for the difference.
    """
    from scipy.stats import spearmanr

    ranks, gaps = [], []
    for mine, theirs in zip(found, exact):
        span = np.ptp(theirs)
        if span > 0:
            ranks.append(spearmanr(mine.ravel(), theirs.ravel()).statistic)
        gaps.append(np.abs(mine - theirs).max() / (span or 1.0))
    return float(np.mean(ranks)), float(np.min(ranks)), float(np.max(gaps))


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


def in_batches(images: np.ndarray, batch: int) -> list[np.ndarray]:
    return [images[start : start + batch] for start in range(0, len(images), batch)]


def grad_cam(net, images, batch, layers) -> dict[str, np.ndarray]:
    from pytorch_grad_cam import GradCAM

    from drstudy.models import compat  # noqa: F401
    from drstudy.training import transforms

    whole, found = with_modules(net), {}
    for layer in layers:
        explainer = GradCAM(whole, [whole.taps[layer]])
        found[layer] = np.concatenate(
            [
                explainer(transforms.to_input(some, SIZE, net.mean, net.std), None)
                for some in in_batches(images, batch)
            ]
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
        maps = maps[: len(theirs[layer])]
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
