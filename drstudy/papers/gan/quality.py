"""How near are generated photographs to real ones: distances of sets, with a floor and a dose-response that say what a number means.

Every set is compared with the same reference, real photographs that the generator has never seen, in the feature space of each encoder. All
comparisons take the same number of pictures, because these measures depend on it. The floor is the training photographs, whose patients the
reference does not have: no set can be expected to be nearer. The doses are the same training photographs blurred, noised, or with eyes of grade 2
or more replaced by eyes without disease. A measure that does not rise with its dose says nothing about generated pictures either.

``kd`` is the kernel distance of Binkowski et al. 2018 (squared MMD of a cubic kernel) and ``fd`` the Frechet distance of Heusel et al. 2017, both by
torch-fidelity, as are ``precision`` and ``recall`` (Kynkaanniemi et al. 2019). ``density`` and ``coverage`` (Naeem et al. 2020) are computed here.
All encoders are others than the published ones, so none of the numbers can be compared with a published FID or KID (``docs/sources.md``, G2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset as TorchDataset

from drstudy.models import compat
from drstudy.papers.gan import pictures
from drstudy.papers.gan.encoders import Encoder
from drstudy.papers.gan.pictures import Pictures

EXTRACTOR = "drstudy-pooled"
"""Name under which the feature extractor of this study is registered in torch-fidelity."""

NEIGHBOURS = 3
"""Neighbours of precision and recall, as published."""

NEIGHBOURS_OF_DENSITY = 5
"""Neighbours of density and coverage, as published."""

BLURS = (0.5, 1.0, 2.0)
"""Standard deviations of the blurred sets, pixels of the generator's size."""

NOISES = (4.0, 12.0, 36.0)
"""Standard deviations of the noised sets, grey levels."""

SWAPS = (0.25, 0.5, 1.0)
"""Shares of the eyes of grade 2 or more that are replaced by eyes of grade 0."""

FLOOR = "real, other patients"
"""Name of the set that is the floor."""

MEASURES: Mapping[str, str] = {
    "kd": "kernel distance",
    "fd": "Frechet distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
"""Measure to its name. Distances are better if small, the others if large."""


@dataclass(frozen=True)
class Setting:
    """How sets are compared.

    Attributes:
        pictures: Pictures of each set and of the reference in one comparison; 0 takes half of the smallest set.
        subset: Pictures in a subset of the kernel distance, at most ``pictures``; 0 takes half of ``pictures``.
        subsets: Number of subsets, over which the kernel distance is averaged.
        draws: Number of comparisons, each with other pictures of both sets.
        seed: Seed of the draws.
    """

    pictures: int = 0
    subset: int = 0
    subsets: int = 20
    draws: int = 5
    seed: int = 0


class _Vectors(TorchDataset):
    """Features (N, D) as the data set that torch-fidelity wants."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = torch.from_numpy(np.asarray(features, np.float64))

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, item: int) -> torch.Tensor:
        return self.features[item]


def _fidelity():
    """torch-fidelity, with this study's feature extractor registered.

    The pictures of a set are encoded once by :class:`drstudy.papers.gan.encoders.Encoder` and compared many times, so the extractor hands on
    the features that it is given.
    """
    assert compat.torchvision  # torch-fidelity imports torchvision, which must be imported through compat
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    if EXTRACTOR not in FEATURE_EXTRACTORS_REGISTRY:

        class PooledFeatures(FeatureExtractorBase):
            def __init__(self, name, features_list, **_):
                super().__init__(name, features_list)

            @staticmethod
            def get_provided_features_list():
                return ("pooled",)

            @staticmethod
            def get_default_feature_layer_for_metric(metric):
                return "pooled"

            @staticmethod
            def can_be_compiled():
                return False

            def forward(self, features):
                return (features,)

        torch_fidelity.register_feature_extractor(EXTRACTOR, PooledFeatures)
    return torch_fidelity


def distances(
    generated: np.ndarray, reference: np.ndarray, subset: int, subsets: int, seed: int
) -> dict[str, float]:
    """All measures of one set against one reference.

    Args:
        generated: (N, D) features of the set that is judged.
        reference: (M, D) features of real photographs.
        subset: Pictures per subset of the kernel distance, at most N and M.
        subsets: Number of subsets.
        seed: Seed of the subsets.

    Returns:
        :data:`MEASURES`. ``kd`` may be slightly negative where sets are alike, since its estimate is unbiased.

    Raises:
        ValueError: If the shapes do not fit, a feature is not finite, a set has no more pictures than :data:`NEIGHBOURS_OF_DENSITY`, or the subset
            is larger than a set or below 2.
    """
    _check(generated, reference, subset)
    fidelity = _fidelity()
    shared = {
        "feature_extractor": EXTRACTOR,
        "cuda": False,
        "cache": False,
        "verbose": False,
        "save_cpu_ram": True,
        "batch_size": max(len(generated), len(reference)),
    }
    found = fidelity.calculate_metrics(
        input1=_Vectors(generated),
        input2=_Vectors(reference),
        kid=True,
        prc=True,
        kid_subset_size=subset,
        kid_subsets=subsets,
        prc_neighborhood=NEIGHBOURS,
        rng_seed=seed,
        **shared,
    )
    first, second = _shared_space(generated, reference)
    frechet = fidelity.calculate_metrics(input1=_Vectors(first), input2=_Vectors(second), fid=True, **shared)
    density, coverage = density_coverage(generated, reference)
    return {
        "kd": found["kernel_inception_distance_mean"],
        "fd": frechet["frechet_inception_distance"],
        "precision": found["precision"],
        "recall": found["recall"],
        "density": density,
        "coverage": coverage,
    }


def _check(generated: np.ndarray, reference: np.ndarray, subset: int) -> None:
    if generated.ndim != 2 or reference.ndim != 2 or generated.shape[1] != reference.shape[1]:
        raise ValueError(
            f"Two sets of features (N, D) and (M, D) are needed, but their shapes are {generated.shape} and {reference.shape}."
        )
    if not (np.isfinite(generated).all() and np.isfinite(reference).all()):
        raise ValueError("A feature is not finite. Look at the encoder and at its precision.")
    fewest = min(len(generated), len(reference))
    if fewest <= NEIGHBOURS_OF_DENSITY:
        raise ValueError(
            f"A set has {fewest} pictures; more than {NEIGHBOURS_OF_DENSITY} are needed for its neighbours. Generate more, or give the split a larger share."
        )
    if not 2 <= subset <= fewest:
        raise ValueError(
            f"The subset of the kernel distance has {subset} pictures; it must have at least 2 and at most {fewest}, the smaller set."
        )


def _shared_space(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in an orthonormal basis of the space that they span together.

    Such a rotation leaves means, covariances and so the Frechet distance unchanged. With fewer pictures than features the covariances
    become small, and their product has its eigenvalues in a twentieth of the time.
    """
    both = np.concatenate([first, second]).astype(np.float64)
    if len(both) >= both.shape[1]:
        return both[: len(first)], both[len(first) :]
    _, _, basis = np.linalg.svd(both, full_matrices=False)
    turned = both @ basis.T
    return turned[: len(first)], turned[len(first) :]


def density_coverage(
    generated: np.ndarray, reference: np.ndarray, neighbours: int = NEIGHBOURS_OF_DENSITY
) -> tuple[float, float]:
    """Density and coverage of a set (Naeem et al. 2020, equations 4 and 5).

    Around each reference picture lies a ball that reaches to its ``neighbours``-th nearest reference picture. Density is the mean number of balls
    in which a generated picture lies, over ``neighbours``; it is about 1 for like sets and may exceed 1. Coverage is the share of balls
    with at least one generated picture.

    Args:
        generated, reference: (N, D) and (M, D).
        neighbours: At least 1 and below M.
    """
    generated, reference = (torch.from_numpy(np.asarray(one, np.float64)) for one in (generated, reference))
    exact = "donot_use_mm_for_euclid_dist"
    among = torch.cdist(reference, reference, compute_mode=exact)
    radius = among.kthvalue(neighbours + 1, dim=1).values  # the first neighbour is the picture itself
    inside = torch.cdist(generated, reference, compute_mode=exact) <= radius
    density = inside.double().sum(dim=1).mean() / neighbours
    return density.item(), inside.any(dim=0).double().mean().item()


def sets(
    train: Pictures, generated: Mapping[str, Pictures], seed: int, most: int = 0
) -> dict[str, tuple[str, float, Pictures]]:
    """All sets that are compared with the reference.

    Args:
        train: Real training photographs at the generator's size.
        generated: Name to generated pictures of the same size. Of these, as many of each grade are taken as ``train`` has.
        seed: Seed of all draws.
        most: Number of pictures in a set at most, since each must be encoded; 0 takes all of ``train``.

    Returns:
        Name to kind (``floor``, ``blurred``, ``noised``, ``grades mixed``, ``generated``), dose, and pictures. Mixed grades are left out where there is no eye of
        grade 0 or none of grade 2 or more.

    Raises:
        ValueError: If generated pictures have another size or lack a grade of ``train``, or a name stands for another set already.
    """
    random = np.random.default_rng(seed)
    train = train.take(np.sort(random.permutation(len(train))[: most or None]))
    found: dict[str, tuple[str, float, Pictures]] = {FLOOR: ("floor", 0.0, train)}
    for dose in BLURS:
        found[f"blurred, {dose:g} px"] = ("blurred", dose, _changed(train, _blurred(train.images, dose)))
    for dose in NOISES:
        noisy = pictures.noised(train.images, dose, random)
        found[f"noised, {dose:g} levels"] = ("noised", dose, _changed(train, noisy))
    healthy, ill = np.flatnonzero(train.grades == 0), np.flatnonzero(train.grades >= 2)
    for dose in SWAPS if len(healthy) and len(ill) else ():
        chosen = random.choice(ill, max(1, round(dose * len(ill))), replace=False)
        places = np.arange(len(train))
        places[chosen] = random.choice(healthy, len(chosen))
        found[f"{dose:.0%} of grades 2 to 4 replaced"] = ("grades mixed", dose, train.take(places))
    for name, some in generated.items():
        if some.size != train.size:
            raise ValueError(
                f"The set {name!r} has pictures of {some.size} pixels and the real photographs {train.size}; compare pictures of one size."
            )
        if name in found:
            raise ValueError(f"Generated pictures cannot be named {name!r}: another set has this name.")
        places = pictures.by_counts(some.grades, train.counts, np.random.default_rng(seed))
        found[name] = ("generated", 0.0, some.take(places))
    return found


def _changed(before: Pictures, images: np.ndarray) -> Pictures:
    return Pictures(images, before.grades, before.patients)


def _blurred(images: np.ndarray, deviation: float) -> np.ndarray:
    import cv2

    return np.stack([cv2.GaussianBlur(image, (0, 0), deviation) for image in images])


def table(
    reference: Pictures,
    compared: Mapping[str, tuple[str, float, Pictures]],
    encoders: Sequence[Encoder],
    setting: Setting,
) -> pd.DataFrame:
    """Every measure of every set in every feature space.

    Each draw takes other pictures of the reference and of the set, without replacement, the same number of both. A bootstrap with replacement
    would not do: copies of a picture change kernel sums and neighbours.

    Args:
        reference: Real photographs that no generator has seen, at the size of the sets.
        compared: Result of :func:`sets`.
        encoders: Feature spaces.
        setting: Numbers of pictures and draws.

    Returns:
        ``set, kind, dose, encoder, measure, metric, value, lo, hi, pictures, subset``: ``metric`` is the measure with the encoder, such as
        ``kd_lite0``; ``value`` is the mean over the draws and ``lo, hi`` the least and greatest value. This range is no confidence interval.

    Raises:
        ValueError: As :func:`distances`; also if there are fewer pictures than the setting needs.
    """
    smallest = min(len(reference), *(len(some) for _, _, some in compared.values()))
    number = setting.pictures or smallest // 2
    if number > smallest:
        raise ValueError(f"{number} pictures are to be compared, but the smallest set has {smallest}.")
    subset = setting.subset or number // 2
    rows = []
    for encoder in encoders:
        real = encoder.features(reference)
        for place, (name, (kind, dose, some)) in enumerate(compared.items()):
            features, drawn = encoder.features(some), []
            for draw in range(setting.draws):
                own, other = (np.random.default_rng([setting.seed, draw, who]) for who in (0, 1))
                few = real[own.permutation(len(real))[:number]]
                many = features[other.permutation(len(features))[:number]]
                drawn.append(distances(many, few, subset, setting.subsets, setting.seed + draw))
            for measure in MEASURES:
                values = np.array([one[measure] for one in drawn])
                about = {"set": name, "kind": kind, "dose": dose, "encoder": encoder.name, "measure": measure}
                about |= {"metric": f"{measure}_{encoder.name}", "value": values.mean()}
                rows.append(about | {"lo": values.min(), "hi": values.max(), "order": place})
    found = pd.DataFrame(rows).sort_values(["order"], kind="stable").drop(columns="order")
    return found.assign(pictures=number, subset=subset).reset_index(drop=True)


def responses(found: pd.DataFrame) -> pd.DataFrame:
    """Whether each measure answers to each kind of dose: its rank correlation with the dose, the floor being dose 0.

    Args:
        found: Result of :func:`table`.

    Returns:
        ``metric, kind, rank_correlation, answers``: 1 if it rises with every dose. Distances should rise and the other measures fall; ``answers`` is
        ``yes`` if the correlation is at least 0.9 in the right direction, and else ``no``.
    """
    from scipy.stats import spearmanr

    rows = []
    for (metric, measure), part in found.groupby(["metric", "measure"], sort=False):
        floor = part[part["kind"] == "floor"]
        for kind in [kind for kind in dict.fromkeys(part["kind"]) if kind not in ("floor", "generated")]:
            doses = pd.concat([floor, part[part["kind"] == kind]])
            flat = doses["value"].nunique() == 1
            rank = 0.0 if flat else float(spearmanr(doses["dose"], doses["value"]).statistic)
            right = rank if measure in ("kd", "fd") else -rank
            rows.append(
                {
                    "metric": metric,
                    "kind": kind,
                    "rank_correlation": rank,
                    "answers": "yes" if right >= 0.9 else "no",
                }
            )
    return pd.DataFrame(rows, columns=["metric", "kind", "rank_correlation", "answers"])
