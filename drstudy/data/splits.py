"""Train, validation and test: stratified by grade, grouped by patient, seeded; and what a split by image
would leak."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pandas as pd

from drstudy.core import paths
from drstudy.core.names import AMD_COLUMNS, AMD_GRADES, GRADES, SPLITS

FINEST = 40
"""A share of a split is met to the nearest fraction with at most this denominator (and at most the number of
groups)."""


MOST_TRIES = 20
TRIED_GROUPS = 5000
"""Of a small data set several shuffles are made and the one whose grades come nearest to the wanted shares is
kept: at most 20, and fewer the more groups there are (5000 groups and more: one, which is near enough
then)."""


UNGRADED = "ungraded"
"""Where images without a grade stand, if others have one: in no part, so that no network learns or is tested on them."""


class LeakError(ValueError):
    """A patient, or a duplicate of an image, stands on two sides of a split."""


class SplitError(ValueError):
    """A split that cannot be made."""


class SplitWarning(UserWarning):
    """A split that lacks a grade."""


def make(
    manifest: pd.DataFrame,
    fractions: Sequence[float],
    seed: int,
    by: str = "patient",
    duplicates: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Split the labelled images: those with a grade or, where the manifest says something of AMD, with a label of AMD. Unlabelled ones are
    in no part (:data:`UNGRADED`), or all ``test`` if no image has a label.

    Labelled images of a patient who has an unlabelled one are all ``test``, since the unlabelled one may be looked at like a test image.

    Strata are the grades; where AMD is known, the pairs of grade and AMD.

    First test, then validation is taken out of what remains, each by scikit-learn's ``StratifiedGroupKFold``.

    Args:
        manifest: See :mod:`drstudy.data.manifest`.
        fractions: Shares of train, validation and test; they sum to 1.
        seed: Same seed, same manifest: same split.
        by: ``"patient"`` keeps all images of a patient, and of patients that share a duplicate, on one side;
            ``"image"`` splits image by image, as the paper did. It leaks, and is there to measure how much.
        duplicates: Pairs ``image_id_a, image_id_b``; used by ``"patient"`` only.

    Returns:
        ``image_id, patient_id, grade, split``, and those of ``amd_grade, amd`` that the manifest has, in the manifest's order.

    Raises:
        SplitError: If there are fewer groups than splits, or an argument is wrong.
    """
    if by not in ("patient", "image"):
        raise SplitError(f"SPLIT_BY is {by!r}; it must be 'patient' or 'image'.")
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise SplitError(f"FRACTIONS are {tuple(fractions)}; three shares that sum to 1 are needed.")
    said = [name for name in AMD_COLUMNS if name in manifest]
    result = manifest[["image_id", "patient_id", "grade", *said]].reset_index(drop=True)
    unlabelled = result[["grade", *said]].isna().all(axis=1)
    groups = join(result, duplicates) if by == "patient" else pd.Series(np.arange(len(result)))
    result["split"] = "train"
    fixed = groups.isin(set(groups[unlabelled]))
    result.loc[fixed, "split"] = "test"
    free = result.index[~fixed]
    if len(free):
        wanted = sum(share > 0 for share in fractions)
        if groups[free].nunique() < wanted:
            raise SplitError(
                f"{groups[free].nunique()} patient(s), those who share a duplicate counted as one, cannot be "
                f"split into {wanted} parts: more images are needed."
            )
        test = _take(result.loc[free], groups[free], fractions[2], seed)
        rest = free.difference(test)
        share = fractions[1] / (fractions[0] + fractions[1]) if fractions[2] < 1 else 0.0
        validation = _take(result.loc[rest], groups[rest], share, seed + 1)
        result.loc[test, "split"] = "test"
        result.loc[validation, "split"] = "validation"
        result.loc[unlabelled, "split"] = UNGRADED
    result = result[["image_id", "patient_id", "grade", "split", *said]]
    for line in gaps(result, fractions):
        warnings.warn(line, SplitWarning, stacklevel=2)
    return result


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read ``split.csv`` back: ``image_id, patient_id, grade, split``, and ``amd_grade, amd`` if it has them.

    Raises:
        SplitError: If it is no split: a column is missing, an image stands twice, or a grade or part is unknown.
    """
    whole = {name: "Int64" for name in ("grade", *AMD_COLUMNS)}
    split = paths.read_csv(path, text=("image_id", "patient_id", "split"), **whole)
    where = paths.show(path)
    if missing := {"image_id", "patient_id", "grade", "split"} - set(split):
        raise SplitError(f"{where} has no column {', '.join(sorted(missing))}.")
    if split["image_id"].duplicated().any():
        twice = split.loc[split["image_id"].duplicated(), "image_id"].iloc[0]
        raise SplitError(f"{where} has {twice!r} more than once.")
    for name, allowed in (("grade", GRADES), ("amd_grade", AMD_GRADES), ("amd", (0, 1))):
        if name in split and (odd := set(split[name].dropna()) - set(allowed)):
            raise SplitError(f"{where} has the {name} {min(odd)}, outside {allowed[0]} to {allowed[-1]}.")
    if odd := set(split["split"]) - {*SPLITS, UNGRADED}:
        raise SplitError(
            f"{where} has the part {sorted(odd)[0]!r}; there are {', '.join(SPLITS)} and {UNGRADED}."
        )
    return split


def _take(frame: pd.DataFrame, groups: pd.Series, share: float, seed: int) -> pd.Index:
    """Rows of about this share, whole groups, with the grades' proportions."""
    from sklearn.model_selection import StratifiedGroupKFold

    n_groups = groups.nunique()
    if not n_groups:
        return frame.index
    fraction = Fraction(share).limit_denominator(min(FINEST, n_groups))
    if share > 0 and fraction == 0:
        fraction = Fraction(1, n_groups)
    if fraction in (0, 1):
        return frame.index if fraction else frame.index[:0]
    grades, kinds = strata_of(frame)
    wanted = share * np.bincount(grades, minlength=kinds)
    # the library wants as many images of some grade as there are folds; with fewer nothing can be spread
    # evenly
    strata = grades if fraction.denominator <= np.bincount(grades).max() else np.zeros_like(grades)
    best, least = None, np.inf
    for attempt in range(max(1, min(MOST_TRIES, TRIED_GROUPS // n_groups))):
        folds = StratifiedGroupKFold(
            fraction.denominator, shuffle=True, random_state=(seed + attempt) % 2**32
        )
        with warnings.catch_warnings():
            # a grade with fewer images than folds; `gaps` says so in the study's own terms
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            held = [fold for _, fold in folds.split(strata, strata, groups.to_numpy())]
        taken = np.concatenate(held[: fraction.numerator])
        counts = np.bincount(grades[taken], minlength=kinds)
        off = ((counts - wanted) ** 2 / np.maximum(wanted, 1)).sum() + (
            counts.sum() - wanted.sum()
        ) ** 2 / max(1, wanted.sum())
        if off < least:
            best, least = taken, off
    return frame.index[np.sort(best)]


def strata_of(frame: pd.DataFrame) -> tuple[np.ndarray, int]:
    """The stratum of each image, and how many there are: its grade, or the pair of grade and AMD where the frame has columns of AMD."""
    if frame["grade"].notna().all() and not any(name in frame for name in AMD_COLUMNS):
        return frame["grade"].astype(int).to_numpy(), len(GRADES)
    pairs = frame[["grade", *(name for name in AMD_COLUMNS if name in frame)]].astype("Int64").fillna(-1)
    codes, found = pd.factorize(pd.MultiIndex.from_frame(pairs), sort=True)
    return codes, len(found)


def join(frame: pd.DataFrame, duplicates: pd.DataFrame | None = None) -> pd.Series:
    """One group number per image: patients, joined where they share a duplicate (connected components).

    Args:
        frame: ``image_id, patient_id``.
        duplicates: Pairs ``image_id_a, image_id_b``.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    codes, patients = pd.factorize(frame["patient_id"])
    if duplicates is None or duplicates.empty:
        return pd.Series(codes, index=frame.index)
    of_image = pd.Series(codes, index=frame["image_id"])
    known = duplicates["image_id_a"].isin(of_image.index) & duplicates["image_id_b"].isin(of_image.index)
    a, b = (of_image[duplicates.loc[known, f"image_id_{side}"]].to_numpy() for side in "ab")
    edges = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(len(patients), len(patients)))
    return pd.Series(connected_components(edges, directed=False)[1][codes], index=frame.index)


def gaps(split: pd.DataFrame, fractions: Sequence[float] = (1, 1, 1)) -> list[str]:
    """A sentence for each grade, or label of AMD, that the data have but a split lacks."""
    tables = {"grade": balance(split)}
    tables |= {name: balance(split, name) for name in AMD_COLUMNS if name in split}
    return [
        f"The {name} split has no image of {column} {label} (the data have {counts[label].sum()}): nothing "
        "can be measured for it there."
        for column, counts in tables.items()
        for name, share in zip(SPLITS, fractions)
        if share > 0
        for label in counts
        if counts[label].sum() and counts.loc[name, label] == 0
    ]


LABELS = {"grade": GRADES, "amd_grade": AMD_GRADES, "amd": (0, 1)}
"""Columns of labels that a split may have, and their values."""


def balance(split: pd.DataFrame, column: str = "grade") -> pd.DataFrame:
    """Images by split (rows train, validation, test) and grade (columns 0 to 4), or another label of :data:`LABELS`."""
    known = split[split[column].notna()]
    table = pd.crosstab(known["split"], known[column].astype(int))
    return table.reindex(index=list(SPLITS), columns=list(LABELS[column]), fill_value=0)


def describe(split: pd.DataFrame, fractions: Sequence[float], by: str) -> str:
    """Two sentences or more on a split: what it leaks, and which grades a part lacks."""
    if split[[name for name in LABELS if name in split]].isna().all(axis=None):
        return "No image has a grade, so there is nothing to train on: all are test images."
    lines = [
        f"Split by {by}: {leaked(split):.0%} of the test images have another image of their patient in train."
    ]
    return "\n".join(lines + (gaps(split, fractions) or ["Every part has every grade that the data have."]))


def check(split: pd.DataFrame, duplicates: pd.DataFrame | None = None) -> None:
    """Refuse a split that leaks.

    Raises:
        LeakError: Naming how many patients or duplicate pairs stand on two sides, and the first of them.
    """
    split = split.assign(split=split["split"].replace(UNGRADED, "test"))
    sides = split.groupby("patient_id")["split"].nunique()
    torn = sides.index[sides > 1]
    if len(torn):
        raise LeakError(
            f"{len(torn)} patient(s) have images on two sides of the split, such as {torn[0]!r}. Use "
            "SPLIT_BY 'patient'."
        )
    if duplicates is None or duplicates.empty:
        return
    pairs = across(split, duplicates)
    if len(pairs):
        first = pairs.iloc[0]
        raise LeakError(
            f"{len(pairs)} duplicate pair(s) stand on two sides of the split, such as "
            f"{first['image_id_a']!r} and {first['image_id_b']!r}. Make the split with these duplicates."
        )


def across(split: pd.DataFrame, duplicates: pd.DataFrame) -> pd.DataFrame:
    """The duplicate pairs whose images stand on two sides."""
    side = split.set_index("image_id")["split"]
    a, b = duplicates["image_id_a"].map(side), duplicates["image_id_b"].map(side)
    return duplicates[a.notna() & b.notna() & (a != b)]


def leaked(split: pd.DataFrame) -> float:
    """Share of the test images of which another image of the same patient is in train; NaN without test
    images."""
    trained = set(split.loc[split["split"] == "train", "patient_id"])
    test = split[split["split"] == "test"]
    return float(test["patient_id"].isin(trained).mean()) if len(test) else float("nan")


def describe_leak(leak: dict[str, float]) -> str:
    """A sentence on what :func:`leak` found."""
    if np.isnan(leak["expected"]):
        return "There are too few graded images to split."
    return (
        f"Split image by image, {leak['expected']:.1%} of the test images are expected to have another "
        "image of "
        f"their patient in train ({leak['simulated_lo']:.1%} to {leak['simulated_hi']:.1%} in random splits)."
    )


def leak(manifest: pd.DataFrame, fractions: Sequence[float], seed: int, draws: int = 200) -> dict[str, float]:
    """What a split by image leaks: share of test images with another image of their patient in train.

    Args:
        manifest: Its graded images are split.
        fractions: Shares of train, validation and test.
        seed: Seed of the simulated splits.
        draws: Number of simulated splits.

    Returns:
        ``expected`` for a random split, exact: an image with ``m`` others of its patient escapes with the
            probability that none of them is among the train images; ``simulated``, ``simulated_lo``,
            ``simulated_hi``: mean and central 95 % of random splits; ``stratified``: of the split that
            :func:`make` makes by image.
    """
    from scipy.stats import hypergeom

    graded = manifest[manifest["grade"].notna()]
    n = len(graded)
    nothing = {
        name: float("nan") for name in ("expected", "simulated", "simulated_lo", "simulated_hi", "stratified")
    }
    n_test = round(n * fractions[2])
    n_train = round(n * fractions[0])
    if n < 3 or not n_test or not n_train:
        return nothing
    codes, patients = pd.factorize(graded["patient_id"])
    others = np.bincount(codes)[codes] - 1
    # few numbers of fellow images occur, and the time for each grows with the number of images
    sizes, which = np.unique(others, return_inverse=True)
    expected = 1 - hypergeom.pmf(0, n - 1, sizes, n_train)[which].mean()
    rng = np.random.default_rng(seed)
    shares = np.empty(draws)
    for draw in range(draws):
        order = rng.permutation(n)
        trained = np.zeros(len(patients), dtype=bool)
        trained[codes[order[:n_train]]] = True
        shares[draw] = trained[codes[order[n - n_test :]]].mean()
    low, high = np.quantile(shares, [0.025, 0.975])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SplitWarning)
        by_image = make(graded, fractions, seed, by="image")
    return {
        "expected": float(expected),
        "simulated": float(shares.mean()),
        "simulated_lo": float(low),
        "simulated_hi": float(high),
        "stratified": leaked(by_image),
    }
