"""The contract between the loop and everything that trains (``docs/architecture.md``).

A :class:`Task` owns named networks, named optimisers and frozen teachers. The loop hands it one
:class:`~drstudy.training.batch.Batch` after the other and asks it for its metrics after each epoch. It knows nothing else about a task. One network on cached features, several heads
with soft targets, a discriminator with an optimiser of its own, and losses on intermediate maps or on patches of the photograph all
go through the same loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from drstudy.core.devices import Compute
from drstudy.training import sampling
from drstudy.training.batch import Batch

if TYPE_CHECKING:
    from drstudy.training.features import Features
    from drstudy.training.recipe import Training

LAST = "last"
"""Value of ``SELECT_BY`` that keeps the last epoch, whatever was measured."""


class Task:
    """Networks, optimisers and teachers, and how they learn. Subclasses implement :meth:`step` and :meth:`validate`.

    Attributes:
        measures: Direction of each validation metric, by name: 1 if higher is better, -1 if lower is better. If epochs are equal in the
            metric that chooses, the others decide in this order.
        titles: Printed names of metrics, by name, if they differ: ``{"qwk": "QWK"}``.
        feed: Source of the batches.
        p: The recipe. The loop reads its fields ``epochs``, ``seed``, ``views``, ``select_by`` and, if there is one, ``processes``.
        compute: Device and precision.
        modules: Networks that learn, by name. A checkpoint holds their trainable parameters and all their buffers.
        optimisers: Optimisers, by name.
        teachers: Frozen networks, by name. They are in evaluation mode, have no gradients and are never saved; their digests are part of
            the training's identity.
        schedulers: Learning-rate schedulers, by name, saved with the optimisers. Their state must be JSON-ready.
        generators: Random generators of the task's own, by name (noise for a generator network, for example), saved with the optimisers.
        whole: Names of modules whose frozen parameters are saved as well, such as a moving average.
        scaler: Scaler of losses in fp16; it does nothing in other precisions.
    """

    measures: ClassVar[Mapping[str, int]] = {"loss": -1}
    titles: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        feed: Features,
        p: Training,
        compute: Compute,
        modules: Mapping[str, nn.Module],
        optimisers: Mapping[str, torch.optim.Optimizer],
        *,
        teachers: Mapping[str, nn.Module] | None = None,
        schedulers: Mapping[str, Any] | None = None,
        generators: Mapping[str, torch.Generator] | None = None,
        whole: Iterable[str] = (),
    ) -> None:
        self.feed, self.p, self.compute = feed, p, compute
        self.modules, self.optimisers = dict(modules), dict(optimisers)
        self.teachers, self.schedulers = dict(teachers or {}), dict(schedulers or {})
        self.generators, self.whole = dict(generators or {}), frozenset(whole)
        self.scaler = torch.amp.GradScaler(compute.device.split(":")[0], enabled=compute.precision == "fp16")
        if p.select_by not in (LAST, *self.measures):
            raise ValueError(
                f"SELECT_BY is {p.select_by!r}; {type(self).__name__} measures {', '.join(self.measures)} on validation "
                f"({LAST!r} keeps the last epoch)."
            )
        if unknown := self.whole - self.modules.keys():
            raise ValueError(
                f"whole names {', '.join(sorted(unknown))}, not among the modules {', '.join(self.modules)}."
            )
        for teacher in self.teachers.values():
            teacher.requires_grad_(False).eval()

    # --- what a subclass says ------------------------------------------------------------------------

    def start_epoch(self, epoch: int) -> None:
        """Set what changes from epoch to epoch, such as a learning rate. Epochs count from 1."""

    def draw(self, epoch: int, generator: torch.Generator) -> Tensor:
        """Positions in ``feed.train`` for one epoch, (N,) int64, in the order of training; drawn by ``p.sampler`` and the grades."""
        if self.p.sampler == "none":
            return torch.randperm(len(self.feed.train), generator=generator)
        return sampling.draw(self.p.sampler, self.feed.train["grade"].to_numpy(dtype=np.int64), generator)

    def step(self, batch: Batch) -> dict[str, float]:
        """Learn from one batch: forward pass, loss, and :meth:`update` of one or several optimisers.

        Returns:
            Mean of each loss over the whole batch (of all processes), by the name of the loss.
        """
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Value of each of :attr:`measures` on the validation split. It must be the same in every process."""
        raise NotImplementedError

    def extra(self) -> dict[str, Any]:
        """Further JSON-ready facts that decide what is learnt and stand neither in the recipe, the data nor the networks."""
        return {}

    # --- what the loop and subclasses use --------------------------------------------------------------

    def train_mode(self) -> None:
        """Set every network that learns to training mode."""
        for module in self.modules.values():
            module.train()

    def update(self, optimiser: str, loss: Tensor, terms: float) -> float:
        """Differentiate a loss and take one step of one optimiser.

        Args:
            optimiser: Name of the optimiser.
            loss: Mean loss over this process's part of the batch, a scalar.
            terms: Number of terms (images, known labels) in that mean. With several processes it is the weight of this part.

        Returns:
            The mean loss of the whole batch, which is ``loss`` itself in a training by one process.
        """
        stepping = self.optimisers[optimiser]
        stepping.zero_grad(set_to_none=True)
        processes = self.feed.share[1]
        part, mean = (loss, loss.item()) if processes == 1 else _part_of_all(loss, terms)
        self.scaler.scale(part).backward()
        if processes > 1:
            _sum_gradients(stepping)
        self.scaler.step(stepping)
        self.scaler.update()
        return mean

    def learned(self) -> dict[str, Tensor]:
        """Copies on the CPU of all that training changes, by ``<module>/<tensor>``: trainable parameters, then buffers."""
        found = {}
        for name, module in self.modules.items():
            state = module.state_dict(keep_vars=True)
            parameters = {key: q for key, q in state.items() if isinstance(q, nn.Parameter)}
            learning = {k: q for k, q in parameters.items() if q.requires_grad or name in self.whole}
            buffers = {key: tensor for key, tensor in state.items() if key not in parameters}
            for key, tensor in (learning | buffers).items():
                found[f"{name}/{key}"] = tensor.detach().cpu().clone()
        return found

    def put(self, learned: Mapping[str, Tensor]) -> None:
        """Load into the networks what :meth:`learned` returned.

        Raises:
            RuntimeError: If a tensor belongs to none of the networks' parameters or buffers.
        """
        for name, module in self.modules.items():
            own = {key.partition("/")[2]: t for key, t in learned.items() if key.partition("/")[0] == name}
            if unknown := module.load_state_dict(own, strict=False).unexpected_keys:
                raise RuntimeError(
                    f"What was saved has unknown tensors: {unknown[:3]}. Delete the folder checkpoints of the result, or data/models, and run "
                    "again."
                )

    def score(self, measured: Mapping[str, float], epoch: int) -> tuple[float, ...]:
        """Sort key of an epoch; the best epoch has the greatest. It is the metric that chooses, then the others in order."""
        if self.p.select_by == LAST:
            return (float(epoch),)
        names = [self.p.select_by, *(name for name in self.measures if name != self.p.select_by)]
        return tuple(self.measures[name] * measured[name] for name in names)


def _part_of_all(loss: Tensor, terms: float) -> tuple[Tensor, float]:
    """The loss to differentiate in this process, and the mean loss of the whole batch.

    The local loss is rescaled so that the sum of the gradients of all processes is the gradient of the mean over all terms.
    """
    sums = torch.stack([loss.detach() * terms, loss.new_tensor(terms)])
    torch.distributed.all_reduce(sums)
    whole = sums[1].clamp(min=1)
    return loss * (terms / whole), (sums[0] / whole).item()


def _sum_gradients(optimiser: torch.optim.Optimizer) -> None:
    """Replace each gradient by its sum over all processes, in one exchange. A parameter without gradient in every process keeps none."""
    learning = [q for group in optimiser.param_groups for q in group["params"] if q.requires_grad]
    there = torch.tensor([q.grad is not None for q in learning], dtype=torch.int32, device=learning[0].device)
    torch.distributed.all_reduce(there, torch.distributed.ReduceOp.MAX)
    learning = [q for q, some in zip(learning, there.tolist()) if some]
    flat = torch.cat([(torch.zeros_like(q) if q.grad is None else q.grad).reshape(-1) for q in learning])
    torch.distributed.all_reduce(flat)
    for q, part in zip(learning, flat.split([q.numel() for q in learning])):
        # laid out in memory as its parameter: fused steps go through both side by side, whatever their strides say
        q.grad = torch.empty_like(q).copy_(part.view_as(q))
