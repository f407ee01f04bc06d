"""Batch norms whose statistics are of the whole batch, where several processes hold a part of it each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from drstudy.models.nets import GradingNet


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
    """
    inside, paths = (net.net, net.trainable) if isinstance(net, GradingNet) else (net, ("",))
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
