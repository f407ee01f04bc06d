"""Both eyes of a patient in one score: the paper's last step, of which the single eye's map explains nothing (docs/sources.md, E4, E6.3).

The pooled features of an eye, of its fellow, and which of the two is on the right go through a small maxout network, fitted on the training
patients. Its kappa stands in the paper's results; a map of one eye cannot show what it does, so the two are named apart everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from drstudy.core.devices import Compute
from drstudy.core.names import SPLITS
from drstudy.data.dataset import Dataset
from drstudy.models.nets import GradingNet
from drstudy.papers.ram.model import Maxout
from drstudy.training import prediction

UNITS, EPOCHS, BATCH = 32, 100, 128
ROUNDING = 1e-5
"""A feature whose spread over the training eyes is below this share of the largest feature is constant but for rounding.

Divided by its spread, rounding would become a feature like any other, and another one on each processor.
"""
RATE, DROPS = 5e-4, (60, 80, 90)
L1, L2 = 2e-5, 5e-3
"""Of the paper's pipeline: two layers of 32 maxout units, Adam whose rate falls to a tenth after these epochs, L1 on the first layer and L2
on all weights (docs/sources.md, E4)."""

FLIPS = ((), (-1,), (-2,), (-1, -2))


class Blend(nn.Module):
    """Features of two eyes (N, D) to a score (N,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second, self.last = (
            nn.Linear(width, 2 * UNITS),
            nn.Linear(UNITS, 2 * UNITS),
            nn.Linear(UNITS, 1),
        )
        self.maxout = Maxout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.maxout(self.second(self.maxout(self.first(x)))))[:, 0]

    def penalty(self) -> torch.Tensor:
        layers = (self.first, self.second, self.last)
        return L1 * self.first.weight.abs().sum() + L2 * sum(layer.weight.square().sum() for layer in layers)


def pooled(net: GradingNet, images: np.ndarray, rows: np.ndarray, compute: Compute, tta: bool) -> np.ndarray:
    """What the linear unit of a network sees of each eye: (N, C) float32; with ``tta`` mean and spread over the four flips, (N, 2 C).

    The paper takes 50 random views for that.
    """
    layer = list(net.cam_layers)[-1]

    def forward(x: torch.Tensor) -> torch.Tensor:
        views = []
        for axes in FLIPS if tta else FLIPS[:1]:
            with net.record(layer) as activations:
                net(x.flip(axes))
            views.append(activations[layer].float().mean((2, 3)))
        return torch.stack(views)

    found = []
    for _, stacked in prediction.in_batches(forward, net, images, rows, net.input_size, compute, 64):
        parts = [stacked.mean(0), stacked.std(0)] if tta else [stacked.mean(0)]
        found.append(torch.cat(parts, 1).cpu().numpy())
    return np.concatenate(found)


def pairs(table: pd.DataFrame) -> np.ndarray:
    """Place of the fellow eye of each row, (N,); an eye without one is its own."""
    fellow = np.arange(len(table))
    for places in table.groupby("patient_id").indices.values():
        if len(places) == 2:
            fellow[places] = places[::-1]
    return fellow


def scores(
    net: GradingNet, data: Dataset, right: Mapping[str, bool], compute: Compute, tta: bool, seed: int
) -> pd.DataFrame:
    """Fit the blend on the training patients, and score the eyes of validation and test with it.

    Args:
        net: Under regression; its pooled features are taken as they are.
        data: Images and split.
        right: Whether an image_id is a right eye.
        compute: Device and precision of the features; the blend itself is fitted in float32 on the CPU.
        tta: As in :func:`pooled`.
        seed: Seed of the blend's weights and batches.

    Returns:
        ``image_id, patient_id, split, grade, score``.
    """
    table = data.part("all")
    own = pooled(net, data.images, table["row"].to_numpy(), compute, tta)
    flag = table["image_id"].map(right).to_numpy(np.float32)[:, None]
    train = (table["split"] == SPLITS[0]).to_numpy(copy=True)  # writable, or torch warns
    x = np.hstack([own, own[pairs(table)], flag])
    middle, spread = x[train].mean(0), x[train].std(0)
    constant = spread <= ROUNDING * np.maximum(np.abs(middle), np.abs(x[train]).max())
    x = torch.from_numpy(((x - middle) / np.where(constant, 1, spread)).astype(np.float32))
    blend = _fit(x[train], torch.from_numpy(table.loc[train, "grade"].to_numpy(np.float32, copy=True)), seed)
    with torch.no_grad():
        said = blend(x).double().numpy()
    rest = table.loc[~train, ["image_id", "patient_id", "split", "grade"]]
    return rest.assign(score=said[~train]).reset_index(drop=True)


def _fit(x: torch.Tensor, grade: torch.Tensor, seed: int) -> Blend:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blend = Blend(x.shape[1])
        optimiser = torch.optim.Adam(blend.parameters(), RATE)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, DROPS)
        for _ in range(EPOCHS):
            for part in torch.randperm(len(x)).split(BATCH):
                optimiser.zero_grad()
                (F.mse_loss(blend(x[part]), grade[part]) + blend.penalty()).backward()
                optimiser.step()
            schedule.step()
    return blend.eval()
