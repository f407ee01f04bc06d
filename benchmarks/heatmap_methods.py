"""Seconds of heatmaps as measurements: every method, faithfulness, sanity checks and finer maps, with one JSON line per backbone.

Class activation maps are made for all images. Work that needs one pass of the network for each step of a curve or each stage of a cascade is done for
``measured`` of them, drawn evenly; the line states the number. Times depend neither on the weights, so these are random, nor on the content of the images.
"""

from __future__ import annotations

import argparse
import json
import os
import time

BUDGET = 300.0
BACKBONES = ("efficientnet_lite0", "densenet121")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: about a minute")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument(
        "--precision", default="auto", help="of forward passes; what is differentiated is fp32"
    )
    parser.add_argument("--images", type=int, help="images with maps (default 200, quick 8)")
    parser.add_argument(
        "--measured", type=int, help="of these, with faithfulness and sanity (default 40, quick 4)"
    )
    parser.add_argument("--steps", type=int, help="points of a curve (default 4, quick 2)")
    parser.add_argument("--size", type=int, default=224, help="side of the input, pixels (default 224)")
    parser.add_argument("--whole", action="store_true", help="only what counts towards the whole")
    given = parser.parse_args()
    for name, default, quick in (("images", 200, 8), ("measured", 40, 4), ("steps", 4, 2)):
        if getattr(given, name) is None:
            setattr(given, name, quick if given.quick else default)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    for backbone in given.backbones:
        print(json.dumps(timed(backbone, given)), flush=True)


def timed(backbone: str, given: argparse.Namespace) -> dict:
    """One line: sizes, seconds of each part, and of the whole without Score-CAM."""
    import torch

    from drstudy.core import devices
    from drstudy.explain.checks import faithfulness, sanity
    from drstudy.explain.methods import finer, methods
    from drstudy.models import nets

    compute = devices.setup("cpu", given.precision, given.threads)
    net = nets.build(backbone, seed=0)
    net.freeze()
    net.eval().to(memory_format=torch.channels_last)
    noise = torch.rand(given.images, 3, 14, 14)
    x = torch.nn.functional.interpolate(noise, size=given.size, mode="bicubic")
    few = x[: given.measured]
    seconds: dict[str, float] = {}

    def run(name, call, *args, **kwargs):
        began = time.perf_counter()
        with compute.autocast():
            found = call(*args, **kwargs)
        seconds[name] = round(time.perf_counter() - began, 2)
        return found

    maps = run("class activation maps", methods.explain_many, net, x, methods.FAST)
    target = maps.target[: given.measured]
    chosen = {name: raw[: given.measured] for name, raw in maps.raw.items()}
    del chosen["hires_cam"]  # under a linear head it is grad_cam
    chosen["random"] = faithfulness.random_maps(given.measured)
    for part, options in (
        ("insertion and deletion", {"road_shares": ()}),
        ("road", {"baselines": (), "road_shares": (0.1, 0.3)}),
    ):
        run(part, faithfulness.measure, net, few, chosen, target, steps=given.steps, **options)
    run("cascade", sanity.cascade, net, few, "grad_cam", target)
    run("equivariance", sanity.equivariance, net, few, "grad_cam", target)
    whole = round(sum(seconds.values()), 1)
    if not given.whole:
        for method in methods.PIXEL_METHODS:
            run(method, methods.explain, net, few, method, target, steps=8)
        for way in finer.WAYS:
            run(f"finer: {way}", finer.finer, net, few, way, "grad_cam", target)
        run("score_cam, one image", methods.explain, net, x[:1], "score_cam", target[:1], batch_size=32)
    return {
        "name": f"heatmap_methods {backbone}",
        "ours": whole,
        "other": BUDGET,
        "ratio": round(BUDGET / whole, 3),
        "unit": "s, against a budget of five minutes for 200 images on two cores",
        "same_result": None,
        "compute": str(compute),
        **{key: getattr(given, key) for key in ("images", "measured", "steps", "size")},
        "seconds": seconds,
        "load": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    main()
