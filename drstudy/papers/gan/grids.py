"""Pictures of generated eyes: over the training, between grades, and mixed with real ones."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drstudy.core.names import GRADE_NAMES, GRADES
from drstudy.papers.gan.pictures import Pictures
from drstudy.show import figures, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 0.72
"""Side of a picture in a grid, inches."""

MOST_WIDTH = 12.0
"""Widest grid, inches."""


def over_training(album: np.ndarray, epochs: Sequence[int], steps: int) -> Figure:
    """The same noise at several moments of the training: one row per grade, one group of columns per moment.

    Args:
        album: (moments, 5, pictures, S, S, 3) uint8.
        epochs: Epoch of each moment.
        steps: Steps of the generator in an epoch.
    """
    count, pictures = len(album), album.shape[2]
    figure, axes = grid(len(GRADES), count, pictures, 1)
    for line, grade in zip(axes, GRADES):
        for axis, page in zip(line, album[:, grade]):
            axis.imshow(np.concatenate(list(page), 1))
    for axis, epoch in zip(axes[0], epochs):
        axis.set_title(f"{epoch * steps} steps", fontsize=9)
    _name_rows(axes)
    return figure


def by_grade(sources: Mapping[str, Pictures], each: int) -> Figure:
    """Pictures of several sources side by side: one row per grade, one group of columns per source.

    Args:
        sources: Title to pictures.
        each: Pictures of each grade; fewer where there are not so many.
    """
    figure, axes = grid(len(GRADES), len(sources), each, 1)
    for column, (title, some) in enumerate(sources.items()):
        for axis, grade in zip(axes[:, column], GRADES):
            few = some.images[some.grades == grade][:each]
            if len(few):
                axis.imshow(_padded(np.concatenate(list(few), 1), each))
        axes[0, column].set_title(title, fontsize=10)
    _name_rows(axes)
    return figure


def between_grades(pictures: np.ndarray, grades: Sequence[float]) -> Figure:
    """One row per eye (the same noise), one column per grade or mixture of two neighbouring grades.

    Args:
        pictures: (eyes, moments, S, S, 3) uint8.
        grades: Grade of each moment.
    """
    figure, axes = grid(len(pictures), len(grades), 1, 1)
    for line, eye in zip(axes, pictures):
        for axis, picture in zip(line, eye):
            axis.imshow(picture)
    for axis, grade in zip(axes[0], grades):
        axis.set_title(f"grade {grade:.0f}" if float(grade).is_integer() else "between", fontsize=8)
    return figure


def quiz(real: Pictures, generated: Pictures, each: int, seed: int) -> tuple[Figure, pd.DataFrame]:
    """Real and generated pictures in random order, numbered and not labelled; the answers are in the table.

    Args:
        real, generated: Pictures of one size.
        each: Pictures of each kind for each grade, fewer where there are not so many. Both kinds get the same number.
        seed: Seed of the choice and the order.

    Returns:
        The figure, and one row per picture: ``picture`` (its number), ``grade`` (of the photograph, or requested), ``answer`` (real or generated).
    """
    rng = np.random.default_rng(seed)
    rows, shown = [], []
    for grade in GRADES:
        places = [np.flatnonzero(some.grades == grade) for some in (real, generated)]
        count = min(each, *map(len, places))
        for some, where, answer in zip((real, generated), places, ("real", "generated")):
            for place in rng.permutation(where)[:count]:
                rows.append({"grade": grade, "answer": answer})
                shown.append(some.images[place])
    order = rng.permutation(len(rows))
    answers = pd.DataFrame(rows, columns=["grade", "answer"]).iloc[order].reset_index(drop=True)
    answers.insert(0, "picture", np.arange(1, len(answers) + 1))
    columns = max(1, min(10, len(rows)))
    figure, axes = grid(max(1, -(-len(rows) // columns)), columns, 1, 1, titles=True)
    for axis, place, number in zip(axes.flat, order, answers["picture"]):
        axis.imshow(shown[place])
        axis.set_title(str(number), fontsize=8, pad=2)
    return figure, answers


def answers_in_words(answers: pd.DataFrame) -> str:
    """The numbers of the real pictures of :func:`quiz`, in one sentence."""
    real = answers.loc[answers["answer"] == "real", "picture"]
    return f"Real: {', '.join(map(str, real))}. All others are generated."


@style.theme()
def learning(history: pd.DataFrame) -> Figure:
    """Scores of the critic, energy distance and diversity over the steps, one line per training.

    Args:
        history: Result of :func:`drstudy.papers.gan.tables.history`.
    """
    import seaborn as sns

    figure, axes = figures.new_figure(1, 3, 12, 3.4)
    names = list(dict.fromkeys(history["training"]))
    look = {"hue": "training", "hue_order": names, "palette": style.series_colours(names), "errorbar": None}
    drawn = history.assign(gap=history["critic_real"] - history["critic_fake"])
    panels = {
        "gap": "critic's score, real minus generated",
        "val_energy": "energy distance to held-out photographs",
        "val_diversity": "diversity / that of held-out photographs",
    }
    for axis, (column, title) in zip(axes[0], panels.items()):
        sns.lineplot(drawn, x="steps", y=column, ax=axis, legend=column == "gap", **look)
        axis.set(xlabel="steps of the generator", ylabel=textwrap.fill(title, 28))
    axes[0, 1].set_ylim(bottom=0)
    axes[0, 2].axhline(1, color=style.NEUTRAL, linestyle=":")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].get_legend().remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def grid(
    rows: int, columns: int, wide: float, high: float, titles: bool = False
) -> tuple[Figure, np.ndarray]:
    """A figure of pictures without axes: cells of ``wide`` by ``high`` pictures."""
    width = min(MOST_WIDTH, CELL * wide * columns + 0.8)
    height = width / (wide * columns) * high * rows * (1.25 if titles else 1.04) + 0.3
    figure, axes = figures.new_figure(rows, columns, width, height)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes


def _name_rows(axes: np.ndarray) -> None:
    for axis, name in zip(axes[:, 0], GRADE_NAMES):
        axis.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")


def _padded(strip: np.ndarray, pictures: int) -> np.ndarray:
    """A strip of pictures (S, n S, 3) filled up with white to the width of ``pictures`` of them."""
    missing = pictures * strip.shape[0] - strip.shape[1]
    return np.pad(strip, ((0, 0), (0, missing), (0, 0)), constant_values=255)
