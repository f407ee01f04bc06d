"""Seconds per pass of the folded frozen trunk, with and without torch.compile, and the time that compiling takes."""

from __future__ import annotations

import os
import time
from functools import partial

from side_by_side import alternate, options, report


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        batch=(16, 16, "images a pass"),
        size=(224, 96, "side of the input, pixels"),
        repeats=(9, 5, "measurements"),
    )
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    import torch

    from drstudy.core import devices
    from drstudy.models import folding, nets

    compute = devices.setup("cpu", "auto", given.threads, 0)
    x = torch.randn(given.batch, 3, given.size, given.size).contiguous(memory_format=torch.channels_last)
    for backbone in ("efficientnet_lite0", "densenet121")[: 1 if given.quick else 2]:
        net = nets.build(backbone)
        net.freeze()
        plain = folding.folded(net, given.size, compute.dtype).trunk
        compiled = torch.compile(plain, options={"freezing": True})

        def passed(trunk) -> torch.Tensor:
            with torch.no_grad(), compute.autocast():
                return trunk(x)

        began = time.perf_counter()
        passed(compiled)
        first = time.perf_counter() - began
        sides = {"compiled": partial(passed, compiled), "plain": partial(passed, plain)}
        seconds, results = alternate(sides, given.repeats)
        gap = (results["compiled"].float() - results["plain"].float()).abs().max() / results[
            "plain"
        ].abs().max()
        gained = (seconds["plain"] - seconds["compiled"]) / given.batch
        report(
            f"compile_trunk {backbone}",
            1000 * seconds["compiled"] / given.batch,
            1000 * seconds["plain"] / given.batch,
            "ms an image",
            bool(gap < 0.05),  # bf16 keeps 8 bits, and there are a hundred layers
            greatest_relative_difference=float(gap),
            compiling=first,
            images_from_which_it_pays=round(first / gained) if gained > 0 else None,
            precision=compute.precision,
        )


if __name__ == "__main__":
    main()
