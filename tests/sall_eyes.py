"""Fabricated pooled features of eyes with two diseases, for the tests of the SALL-style study. They describe no photograph."""

from __future__ import annotations

import types

import numpy as np
import pandas as pd
import torch

from drstudy.core.devices import Compute
from drstudy.data.dataset import Dataset
from drstudy.papers.sall.feed import Pooled

CPU = Compute("cpu", "fp32")


def truth(patients: int = 60, seed: int = 0) -> pd.DataFrame:
    """``image_id, patient_id, split, dr, amd``: two eyes per patient; a third has DR, a third AMD, some both, the others neither."""
    random = np.random.default_rng(seed)
    kind = np.arange(patients) % 6  # 0, 1: DR; 2, 3: AMD; 4: both; 5: neither
    rows = []
    for one in range(patients):
        split = ("train", "train", "train", "validation", "test")[(one // 6) % 5]
        for eye in ("l", "r"):
            dr = random.integers(1, 5) if kind[one] in (0, 1, 4) and random.random() < 0.8 else 0
            amd = random.integers(1, 4) if kind[one] in (2, 3, 4) and random.random() < 0.8 else 0
            rows.append((f"{one:03d}{eye}", f"p{one:03d}", split, float(dr), float(amd)))
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "split", "dr", "amd"])


def feed(table: pd.DataFrame, p, channels: int = 12, noise: float = 0.6, seed: int = 0) -> Pooled:
    """Pooled features in which two channels show DR, two show AMD and the others nothing."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 1, (len(table), channels))
    values[:, 0] = table["dr"] + noise * values[:, 0]
    values[:, 1] = (table["dr"] > 0) * 2 + noise * values[:, 1]
    values[:, 2] = table["amd"] + noise * values[:, 2]
    values[:, 3] = (table["amd"] > 0) * 2 + noise * values[:, 3]
    values = torch.tensor(values, dtype=torch.float32)
    order = table.assign(row=np.arange(len(table)), grade=pd.array(table["dr"].astype(int), dtype="Int64"))
    data = Dataset(
        np.zeros((len(table), 1, 1, 3), np.uint8), order.drop(columns=["dr", "amd"]), "fabricated", ()
    )
    made = Pooled.__new__(Pooled)
    made.data, made.p, made.compute = data, p, CPU
    made.net = types.SimpleNamespace(weights_used="fabricated")
    made.train = data.part("train")
    made.clean = pd.concat([data.part("validation"), data.part("test")], ignore_index=True)
    made.values = values[made.train["row"].to_numpy(copy=True)][:, None].repeat(1, p.views, 1)
    made.still = values[made.clean["row"].to_numpy(copy=True)]
    made.mean, made.spread = torch.zeros(channels), torch.ones(channels)
    made.weights, made.seconds, made.seconds_prepare = "fabricated", 0.0, 0.0
    return made
