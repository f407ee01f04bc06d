"""A frozen trunk with its batch norms folded into the convolutions before them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from drstudy.models.base import GradingNet


@torch.no_grad()
def folded(net: GradingNet, size: int, dtype: torch.dtype = torch.float32) -> GradingNet:
    """A copy of the network in which each batch norm of the trunk is folded into the convolution before it. It makes fewer
    passes over memory.

    The copy is exact up to rounding while the statistics of the norms are fixed (``frozen_bn: eval``, or inference). It is not
    for training the trunk.

    Args:
        net: The network, which is not changed; the copy shares all tensors that stay the same.
        size: Side of an input, pixels.
        dtype: Type of the trunk's convolutions; for a lower precision than float32 run it inside autocast, which then need not
            convert them for each batch.

    Returns:
        A copy in evaluation mode whose :meth:`GradingNet.trunk` gives the same output.

    Raises:
        RuntimeError: If the output would differ, as in a network that uses the output of a convolution twice.
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
