"""Our convolutions (drstudy.models.convolutions) compared with the packages' own modules, in the same network with the same weights, in float32.

`trunk` is one pass of the folded trunk. `tail` is one training step: forward, backward, fused Adam. Both sides run in one process, on one thread.
Times are processor times, which other programs on the machine change less than wall-clock times.
"""

from __future__ import annotations

import os
import time
from unittest.mock import patch

from side_by_side import alternate, options, report

SIZE = 224


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        batch=(32, 16, "images a step"),
        repeats=(9, 5, "measurements"),
        more=(1, 0, "1 measures DenseNet121 and ResNet101 too"),
        bf16=(0, 0, "1 computes in bf16"),
    )
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    import torch

    from drstudy.core import devices
    from drstudy.models import folding
    from drstudy.models import nets as backbones
    from drstudy.models.convolutions import PointwiseConv, SameConv

    compute = devices.setup("cpu", "bf16" if given.bf16 else "fp32", given.threads, 0)
    images = torch.randn(16, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    grades = torch.arange(given.batch) % 5

    def network(backbone: str):
        net = backbones.build(backbone, weights="bundled" if backbone == "efficientnet_lite0" else "none")
        net.freeze()
        return net.to(memory_format=torch.channels_last)

    def features(trunk) -> torch.Tensor:
        with torch.no_grad(), compute.autocast():
            return trunk(images)

    def steps(net, h):
        optimiser = torch.optim.Adam([q for q in net.parameters() if q.requires_grad], 0.0, fused=True)
        net.train()

        def step() -> torch.Tensor:
            torch.manual_seed(0)  # of the dropout
            optimiser.zero_grad(set_to_none=True)
            with compute.autocast():
                outputs = net.tail(h)
            loss = torch.nn.functional.cross_entropy(outputs.float(), grades)
            loss.backward()
            optimiser.step()
            return loss.detach()

        return step

    for backbone in ("efficientnet_lite0", "densenet121", "resnet101")[: 3 if given.more else 1]:
        nets = {"ours": network(backbone)}
        with (
            patch.object(SameConv, "convert"),
            patch.object(PointwiseConv, "convert"),
            patch.object(type(nets["ours"]), "join_activations", lambda self: None),
        ):
            nets["other"] = network(backbone)
            trunks = {"other": folding.folded(nets["other"], SIZE, compute.dtype).trunk}
        trunks["ours"] = folding.folded(nets["ours"], SIZE, compute.dtype).trunk
        h = features(trunks["ours"]).to(compute.dtype)
        h = h.repeat(-(-given.batch // len(h)), 1, 1, 1)[: given.batch]
        h = h.contiguous(memory_format=torch.channels_last)
        parts = {
            "trunk": {name: lambda trunk=trunks[name]: features(trunk) for name in nets},
            "tail": {name: steps(net, h) for name, net in nets.items()},
        }
        for part, sides in parts.items():
            seconds, results = alternate(sides, given.repeats, time.process_time)
            count = len(images) if part == "trunk" else given.batch
            ours, other = results["ours"].float(), results["other"].float()
            gap = float((ours - other).abs().max() / other.abs().max())
            report(
                f"convolutions {backbone} {part}",
                1000 * seconds["ours"] / count,
                1000 * seconds["other"] / count,
                "ms of the processor an image",
                gap < (0.05 if given.bf16 else 1e-4),
                greatest_relative_difference=gap,
                precision=compute.precision,
            )


if __name__ == "__main__":
    main()
