"""Statistics of batch norms: over all processes while training, and estimated from images for an untrained network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from drstudy.models.base import GradingNet


class GlobalBatchNorm(nn.BatchNorm2d):
    """``nn.SyncBatchNorm``, which is for CUDA only, on any device: mean and variance of all processes' images.

    Every process must take part in each step of training, with the same number of norms; their images may differ in number.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape and dtype; sums are float32."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        mean = all_reduce(torch.cat([values.sum((0, 2, 3)), count]))
        mean, count = mean[:-1] / mean[-1], mean[-1].item()
        values = values - mean[:, None, None]
        variance = all_reduce(values.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return (values * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronise(net: nn.Module, cuda: bool) -> None:
    """Replace the batch norms that learn; parameters and their names stay. ``nn.SyncBatchNorm`` on CUDA, else ours.

    Args:
        net: Of a :class:`~drstudy.models.nets.GradingNet` the layers that are declared to learn, of any other network all.
        cuda: Whether it runs on CUDA.

    Raises:
        ValueError: If a norm is of another kind, whose statistics would stay those of one process.
    """
    inside, paths = (net.net, net.trainable) if isinstance(net, GradingNet) else (net, ("",))
    others = [name for name, module in inside.named_modules() if isinstance(module, _BatchNorm)]
    others = [name for name in others if not isinstance(inside.get_submodule(name), nn.BatchNorm2d)]
    if others or isinstance(net, nn.BatchNorm2d):
        raise ValueError(
            f"Several processes cannot train {', '.join(others) or 'a lone batch norm'}: only norms of maps (BatchNorm2d) inside a network "
            "are made those of the whole batch. Set PROCESSES to 1."
        )
    for path in paths:
        for name, module in list(inside.get_submodule(path).named_modules(prefix=path)):
            if isinstance(module, nn.BatchNorm2d):
                if cuda:
                    made = nn.SyncBatchNorm.convert_sync_batchnorm(module)
                else:
                    made = GlobalBatchNorm(module.num_features, module.eps, module.momentum)
                    made.weight, made.bias = module.weight, module.bias
                    made.load_state_dict(module.state_dict())
                made.train(module.training)
                inside.set_submodule(name, made)


@torch.no_grad()
def calibrate(net: GradingNet, batches: Callable[[], Iterator[Tensor]]) -> None:
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
