"""Has the generator copied its training photographs? Nearest neighbours, with planted copies as a positive control.

The nearest training photograph alone says little: a blurred picture is near to everything. So each picture is measured twice, by its distance to
the nearest training photograph and by that to the nearest held-out photograph of another patient, and the ratio of the two counts. (For a
picture without a patient a held-out patient is left out by lot, so that all pictures are compared with equally many.) Held-out
photographs give the ratios that arise without copying. A picture is flagged if its ratio is below that of every held-out photograph. If generated
pictures were like held-out ones, one in (held-out + 1) would be flagged by chance, because its ratio is then as likely as any to be the smallest.
A picture that is as near to a training photograph as a slightly noised copy is counted as well (``as_near``), unless held-out photographs are as near.

A test that finds nothing means something only if it would have found a copy. Copies of training photographs (exact, mirrored, slightly noised) are
therefore planted among the pictures. If not all of them are flagged, the result is ``not tested`` for that kind of copy. Published diagnostics often fail
this control (``docs/sources.md``, G3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from drstudy.evaluation import multilabel, statistics
from drstudy.papers.gan import pictures
from drstudy.papers.gan.encoders import Encoder
from drstudy.papers.gan.pictures import Pictures

GENERATED, HELD_OUT = "generated", "held out"

NOISE = 6.0
"""Standard deviation of the planted noise, grey levels."""

PLANTED = 12
"""Training photographs of which copies are planted."""

PAIRS = 12
"""Pairs that are shown."""

SUSPECTED = 0.01
"""Probability by chance of the number of flagged pictures, below which copies are suspected."""

SPACES = ("pixels", "features")

MIRRORED: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "pixels": ((), (2,), (1,), (1, 2)),
    "features": ((), (2,)),
}
"""Axes of the array of pictures that are mirrored before the nearest one is searched, in each space. In features each mirroring is another pass of
the encoder, so only left and right are exchanged."""

COLUMNS = ["space", "kind", "picture", "to_train", "train", "to_held_out", "ratio", "flagged"]


@dataclass(frozen=True)
class Found:
    """The result of :func:`check`.

    Attributes:
        pictures: One row per space and picture with :data:`COLUMNS`: ``picture`` is its place in its set, ``train`` that of the nearest training photograph,
            ``ratio`` the distance to it over the distance to the nearest held-out photograph.
        summary: One row per space and kind: ``pictures, flagged, share, by_chance, p, verdict``; for generated pictures also ``as_near``, and ``auc,
            auc_lo, auc_hi``, the probability that a generated picture has a smaller ratio than a held-out one; its interval resamples pictures and patients while the
            photographs that they are compared with stay the same, and is NaN with too few pictures or patients.
        planted: Kind to the planted copies.
    """

    pictures: pd.DataFrame
    summary: pd.DataFrame
    planted: dict[str, Pictures]


def copies(train: Pictures, seed: int, count: int = PLANTED) -> dict[str, Pictures]:
    """Copies of training photographs: ``planted, exact``, ``planted, mirrored`` and ``planted, noised``.

    Args:
        train: Training photographs.
        seed: Seed of the choice and the noise.
        count: Number of photographs, at most all.
    """
    random = np.random.default_rng(seed)
    chosen = train.take(random.permutation(len(train))[:count])
    noisy = pictures.noised(chosen.images, NOISE, random)
    changed = {"exact": chosen.images, "mirrored": chosen.images[:, :, ::-1].copy(), "noised": noisy}
    return {
        f"planted, {kind}": Pictures(images, chosen.grades, chosen.patients)
        for kind, images in changed.items()
    }


def nearest(
    queries: np.ndarray, bank: np.ndarray, forbidden: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest vector of a bank for each query.

    Args:
        queries: (V, N, D): N queries in V mirrored versions; the nearest of all versions counts.
        bank: (M, D).
        forbidden: (N, M) bool, pairs that do not count (photographs of the same patient).

    Returns:
        Euclidean distance over the root of D, (N,) float64, and place in the bank, (N,) int64. The distance is infinite where every pair is forbidden.
    """
    known = torch.from_numpy(np.asarray(bank, np.float32))
    best = None
    for version in queries:
        asked = torch.from_numpy(np.asarray(version, np.float32))
        apart = torch.cdist(asked, known, compute_mode="donot_use_mm_for_euclid_dist")
        best = apart if best is None else torch.minimum(best, apart)
    if forbidden is not None:
        best = best.masked_fill(torch.from_numpy(forbidden), float("inf"))
    distance, place = best.min(dim=1)
    return distance.double().numpy() / np.sqrt(bank.shape[1]), place.numpy()


def check(
    train: Pictures,
    held_out: Pictures,
    generated: Pictures,
    encoder: Encoder,
    resamples: int,
    seed: int,
) -> Found:
    """Look for copies of training photographs among generated pictures, in pixels and in features.

    Args:
        train: The photographs that the generator has learnt from, as it saw them.
        held_out: Real photographs of other patients, of the same size.
        generated: Generated pictures of the same size.
        encoder: Feature space.
        resamples, seed: Number of resamples of the patient bootstrap, and seed of it and of the planted copies.

    Raises:
        ValueError: If sizes differ, a patient is both in the training and in the held-out photographs, or the held-out photographs are of one patient.
    """
    _check(train, held_out, generated)
    planted, random = copies(train, seed), np.random.default_rng([seed, 1])
    asked = {HELD_OUT: held_out, GENERATED: generated} | planted
    parts = []
    for space in SPACES:
        banks = [_vectors(some, space, encoder, ((),))[0] for some in (train, held_out)]
        for kind, some in asked.items():
            versions = _vectors(some, space, encoder, MIRRORED[space])
            left_out = some.patients if kind == HELD_OUT else random.choice(held_out.patients, len(some))
            own = left_out[:, None] == held_out.patients[None]
            to_train, place = nearest(versions, banks[0])
            to_held_out, _ = nearest(versions, banks[1], own)
            about = {"space": space, "kind": kind, "picture": np.arange(len(some)), "patient": some.patients}
            near = {"to_train": to_train, "train": place, "to_held_out": to_held_out}
            parts.append(pd.DataFrame(about | near))
    found = pd.concat(parts, ignore_index=True)
    found["ratio"] = _ratio(found["to_train"].to_numpy(), found["to_held_out"].to_numpy())
    least = found[found["kind"] == HELD_OUT].groupby("space")["ratio"].min()
    found["flagged"] = (found["ratio"] < found["space"].map(least)) & (found["kind"] != HELD_OUT)
    return Found(found[COLUMNS], _summary(found, resamples, seed), planted)


def _check(train: Pictures, held_out: Pictures, generated: Pictures) -> None:
    if not train.size == held_out.size == generated.size:
        raise ValueError(
            f"Training, held-out and generated pictures have {train.size}, {held_out.size} and {generated.size} pixels; they must be of one size."
        )
    both = np.intersect1d(train.patients, held_out.patients)
    if len(both):
        raise ValueError(
            f"{len(both)} patients are both in the training and in the held-out photographs, such as {both[0]!r}; held-out photographs must be of others."
        )
    if len(np.unique(held_out.patients)) < 2:
        raise ValueError(
            "All held-out photographs are of one patient. Photographs of at least two are needed, since one is compared with those of others."
        )


def _ratio(to_train: np.ndarray, to_held_out: np.ndarray) -> np.ndarray:
    """0 where a training photograph is met exactly, also if a held-out one is."""
    return np.divide(to_train, to_held_out, out=np.zeros(len(to_train)), where=to_train > 0)


def _vectors(
    some: Pictures, space: str, encoder: Encoder, mirrored: tuple[tuple[int, ...], ...]
) -> np.ndarray:
    """(V, N, D) float32: the pictures in each mirrored version, as pixels (grey levels) or features."""
    versions = [
        np.ascontiguousarray(np.flip(some.images, axes)) if axes else some.images for axes in mirrored
    ]
    if space == "pixels":
        return np.stack([one.reshape(len(one), -1).astype(np.float32) for one in versions])
    return np.stack([encoder.features(one) for one in versions])


def _summary(found: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    rows = []
    for (space, kind), part in found.groupby(["space", "kind"], sort=False):
        real = found[(found["space"] == space) & (found["kind"] == HELD_OUT)]
        if kind == HELD_OUT:
            continue
        count, flagged = len(part), int(part["flagged"].sum())
        row = {"space": space, "kind": kind, "pictures": count, "flagged": flagged, "share": flagged / count}
        row |= {"by_chance": 1 / (len(real) + 1), "p": chance(flagged, count, len(real))}
        if kind == GENERATED:
            both = pd.concat([part, real])
            score = -both["ratio"].to_numpy()
            weights = statistics.image_weights(both["patient"], resamples, seed)
            label = (both["kind"] == GENERATED).to_numpy()
            drawn = multilabel.measures(label, score, label, weights)["auc"]
            enough = all(statistics.enough_patients(some["patient"]) for some in (part, real))
            ends = statistics.from_weights(drawn, enough)
            row["as_near"] = _as_near(found[found["space"] == space], part, real)
            row |= {"auc": ends["value"], "auc_lo": ends["lo"], "auc_hi": ends["hi"], "verdict": ""}
        else:
            row["verdict"] = "caught" if flagged == count else "not caught"
        rows.append(row)
    table = pd.DataFrame(rows)
    caught = (
        table[table["kind"] != GENERATED]
        .groupby("space")["verdict"]
        .agg(lambda some: (some == "caught").all())
    )
    for place, row in table[table["kind"] == GENERATED].iterrows():
        table.loc[place, "verdict"] = _verdict(row, bool(caught[row["space"]]))
    return table


def chance(flagged: int, pictures: int, held_out: int) -> float:
    """Probability that at least so many of the pictures are flagged if they are like held-out photographs.

    Of all orders of the ratios, each as likely as any other, it is the share in which the ``flagged`` smallest are of pictures.

    Args:
        flagged: Number of pictures with a ratio below that of every held-out photograph.
        pictures, held_out: Numbers of both.
    """
    return float(np.prod([(pictures - i) / (pictures + held_out - i) for i in range(flagged)]))


def _as_near(found: pd.DataFrame, generated: pd.DataFrame, real: pd.DataFrame) -> float:
    """Number of generated pictures as near to a training photograph as a noised copy; NaN where a held-out photograph is as near."""
    limit = found.loc[found["kind"] == "planted, noised", "to_train"].max()
    return np.nan if real["to_train"].min() <= limit else float((generated["to_train"] <= limit).sum())


def _verdict(row: pd.Series, control: bool) -> str:
    """What the counts of generated pictures say, given whether the positive control was caught."""
    if not control:
        return "not tested: planted copies were missed"
    if row["as_near"] > 0 or row["p"] < SUSPECTED:
        return "copies suspected"
    return "no copies found"


def closest(found: Found, space: str = "pixels", pairs: int = PAIRS) -> pd.DataFrame:
    """The generated pictures with the smallest ratio, nearest first, with their training photographs.

    Args:
        found: Result of :func:`check`.
        space: One of :data:`SPACES`.
        pairs: Number of rows.

    Raises:
        KeyError: If there is no such space.
    """
    if space not in SPACES:
        raise KeyError(f"There is no space {space!r}; there are {', '.join(SPACES)}.")
    rows = found.pictures[(found.pictures["space"] == space) & (found.pictures["kind"] == GENERATED)]
    return rows.sort_values(["ratio", "picture"]).head(pairs).reset_index(drop=True)


def findings(found: Found) -> list[str]:
    """One sentence per space, with the control; computed, never typed."""
    sentences = []
    for space, part in found.summary.groupby("space", sort=False):
        (row,) = part[part["kind"] == GENERATED].to_dict("records")
        planted = part[part["kind"] != GENERATED]
        control = ", ".join(
            f"{one['kind'].removeprefix('planted, ')} {one['flagged']} of {one['pictures']}"
            for one in planted.to_dict("records")
        )
        sentences.append(
            f"In {space}, {row['flagged']} of {row['pictures']} generated pictures are nearer to a training photograph, relative to held-out ones, than any held-out "
            f"photograph is ({row['pictures'] * row['by_chance']:.1f} expected by chance, p = {row['p']:.2g}); planted copies that were flagged: {control}. Verdict: {row['verdict']}."
        )
    return sentences
