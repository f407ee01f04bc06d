"""Train here, test there: every training set against every test set, by cross-validation over patients.

All images are divided into folds once. A training set without one fold is learnt from, and all sets' images of that fold are tested. So
every image of every set is predicted once for each training set, by heads that saw neither the image nor its patient, and all training
sets of one name have nearly one size, whichever set they are tested on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from drstudy.papers.external import learner
from drstudy.papers.external.cohorts import POOLED, Cohort
from drstudy.papers.external.learner import Chosen
from drstudy.papers.external.recipes import Recipe

SEED_STEP = 1000
"""Between the seeds of subsets that differ in size, repetition or fold."""


@dataclass(frozen=True)
class Bench:
    """All images of all sets, their folds, and the similarities of each recipe.

    Attributes:
        table: One row per image: ``set, image_id, patient_id, grade, group, own, fold``.
        recipes: The recipes, by name, in the order in which they build on each other.
        kernels: Name of a recipe to its (N, N) similarities.
        specificity: Wanted on validation for the decision "grade 2 or more".
    """

    table: pd.DataFrame
    recipes: Mapping[str, Recipe]
    kernels: Mapping[str, np.ndarray]
    specificity: float = 0.9

    @property
    def sets(self) -> list[str]:
        """Names of the sets, in order."""
        return list(self.table["set"].unique())

    @property
    def trainings(self) -> list[str]:
        """Names of the training sets: each set, and :data:`POOLED` if this profile has more than one."""
        own = self.table.loc[self.table["own"], "set"].unique()
        return [*self.sets, POOLED] if len(own) > 1 else self.sets

    def rows(self, training: str) -> np.ndarray:
        """Positions of the images of a training set."""
        of = self.table["own"] if training == POOLED else self.table["set"] == training
        if not of.any():
            raise KeyError(f"There is no training set {training!r}; there are {', '.join(self.trainings)}.")
        return np.flatnonzero(of)


def bench_table(sets: Sequence[Cohort], number: int, seed: int) -> pd.DataFrame:
    """The images of all sets with their folds, as :class:`Bench` wants them.

    Raises:
        drstudy.papers.external.learner.FoldError: If a set has fewer patients than folds.
    """
    frames = []
    for one in sets:
        table = one.table[["image_id", "patient_id", "grade"]].copy()
        prefix = "own" if one.own else one.name
        table["group"] = f"{prefix}-" + one.table["group"].astype(str)
        frames.append(table.assign(set=one.name, own=one.own))
    whole = pd.concat(frames, ignore_index=True)
    arrays = (whole[name].to_numpy() for name in ("set", "group", "grade"))
    return whole.assign(fold=learner.folds(*arrays, number, seed))


@dataclass(frozen=True)
class Trained:
    """One training set by one way to choose the recipe.

    Attributes:
        predictions: Test predictions of every image, from the fold in which it was held out.
        chosen: Fold to the recipe that was taken and what validation chose.
        criteria: One row per fold and recipe: ``fold, recipe, criterion`` on validation.
        each: Name of a recipe to the test predictions by this recipe alone, if they were asked for.
    """

    predictions: pd.DataFrame
    chosen: dict[int, tuple[str, Chosen]]
    criteria: pd.DataFrame
    each: dict[str, pd.DataFrame] = field(default_factory=dict)


def train(
    bench: Bench,
    training: str,
    recipes: Sequence[str] | Mapping[int, str],
    size: int = 0,
    seed: int = 0,
    each: bool = False,
) -> Trained:
    """Cross-validate one training set.

    Args:
        bench: Images and similarities.
        training: Of :attr:`Bench.trainings`.
        recipes: Names of the recipes among which validation chooses, in each fold by itself. Or fold to the name of the recipe that is
            taken there, which is no choice.
        size: Number of training photographs, drawn by patient; 0 takes all.
        seed: Seed of that draw.
        each: Whether each recipe is tested by itself as well.
    """
    parts, chosen, criteria = [], {}, []
    alone: dict[str, list[pd.DataFrame]] = {}
    for fold in sorted(bench.table["fold"].unique()):
        rows = subset(bench, training, fold, size, seed)
        names = [recipes[fold]] if isinstance(recipes, Mapping) else list(recipes)
        table = bench.table.iloc[rows]
        scores = {name: _inner(bench, name, rows) for name in names}
        reached = {name: learner.best_ridge(one, table)[1] for name, one in scores.items()}
        criteria += [{"fold": fold, "recipe": name, "criterion": value} for name, value in reached.items()]
        best = max(reached, key=reached.get)
        test = np.flatnonzero(bench.table["fold"] == fold)
        for name in names if each else [best]:
            decision = learner.choose(scores[name], table, bench.specificity)
            alone.setdefault(name, []).append(_tested(bench, name, rows, test, decision))
            if name == best:
                chosen[int(fold)] = (best, decision)
                parts.append(alone[name][-1])
    joined = {name: pd.concat(frames, ignore_index=True) for name, frames in alone.items() if each}
    return Trained(pd.concat(parts, ignore_index=True), chosen, pd.DataFrame(criteria), joined)


def subset(bench: Bench, training: str, fold: int, size: int = 0, seed: int = 0) -> np.ndarray:
    """Positions of the training images without a fold; with a size, of patients drawn until there are so many images.

    The patients are drawn in one order for each seed, so a larger subset contains the smaller ones.
    """
    rows = bench.rows(training)
    rows = rows[bench.table["fold"].to_numpy()[rows] != fold]
    if not size or size >= len(rows):
        return rows
    groups = bench.table["group"].to_numpy()[rows]
    order = np.random.default_rng([seed, int(fold)]).permutation(np.unique(groups))
    counts = pd.Series(groups).value_counts().reindex(order).cumsum()
    taken = set(counts.index[counts <= size])
    return rows[np.isin(groups, list(taken))]


def _inner(bench: Bench, name: str, rows: np.ndarray) -> np.ndarray:
    """Validation scores of a recipe, from the training images alone."""
    gram = bench.kernels[name][np.ix_(rows, rows)]
    return learner.inner_scores(gram, bench.table.iloc[rows], bench.recipes[name].head)


def _tested(bench: Bench, name: str, rows: np.ndarray, test: np.ndarray, chosen: Chosen) -> pd.DataFrame:
    """Predictions of the test images by one head on all training images."""
    full, grade = bench.kernels[name], bench.table["grade"].to_numpy(int)[rows]
    across, strength = full[np.ix_(test, rows)], [learner.RIDGES[chosen.ridge]]
    scores = learner.ridge(full[np.ix_(rows, rows)], grade, across, bench.recipes[name].head, strength)
    return learner.decided(bench.table.iloc[test], scores[0], chosen)


def curve(
    bench: Bench, training: str, recipes: Mapping[int, str], sizes: Sequence[int], repeats: int, seed: int
) -> dict[int, list[pd.DataFrame]]:
    """Test predictions by number of training photographs.

    Args:
        bench: Images and similarities.
        training: The training set that is thinned, of :attr:`Bench.trainings`.
        recipes: Fold to the name of its recipe, such as the one that validation chose there with all photographs.
        sizes: Numbers of photographs, rising; one above the number there is is left out, and all of them are the last size.
        repeats: Draws of the training patients for each size; all photographs are one draw.
        seed: Seed of the draws.

    Returns:
        Size to the predictions of each draw.
    """
    folds = bench.table["fold"].unique()
    whole = int(np.mean([len(subset(bench, training, fold)) for fold in folds]))
    found = {}
    for size in [*(one for one in sizes if one < 0.9 * whole), whole]:
        draws = 1 if size == whole else repeats
        found[size] = [
            train(bench, training, recipes, 0 if size == whole else size, seed + SEED_STEP * draw).predictions
            for draw in range(draws)
        ]
    return found
