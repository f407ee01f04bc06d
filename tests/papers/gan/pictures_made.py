"""Small pictures and a stand-in for an encoder, for the tests of generated photographs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drstudy.papers.gan.pictures import Pictures

SIZE = 16


@dataclass
class Blocks:
    """An encoder without a network: the mean colours of blocks of 4 x 4 pixels over 50 grey levels, (N, 48)."""

    name: str = "blocks"

    def features(self, some) -> np.ndarray:
        images = some.images if isinstance(some, Pictures) else some
        n, size = len(images), images.shape[1]
        blocks = images.reshape(n, size // 4, 4, size // 4, 4, 3).astype(np.float32)
        return blocks.mean((2, 4)).reshape(n, -1) / 50


def eyes(count: int, seed: int, prefix: str = "p", each: int = 2) -> Pictures:
    """Pictures of low resolution made large, with some noise: each differs from all others. Two of a patient."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 200, (count, SIZE // 4, SIZE // 4, 3))
    images = np.repeat(np.repeat(coarse, 4, 1), 4, 2) + random.normal(0, 5, (count, SIZE, SIZE, 3))
    patients = np.array([f"{prefix}{number // each:03d}" for number in range(count)])
    return Pictures(images.clip(0, 255).astype(np.uint8), np.arange(count, dtype=np.int64) % 5, patients)
