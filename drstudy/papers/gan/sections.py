"""What the report and the README show of notebook 15."""

from __future__ import annotations

from drstudy.papers.base import Section, Shown
from drstudy.papers.gan.params import Gan

NAME = Gan.notebook

_SHOWN = (
    (
        "figure",
        "quiz",
        "Real and generated pictures in random order. Which are real? The next table has the answers.",
    ),
    ("table", "quiz", "Rows are the numbered pictures; the last column is the answer."),
    ("figure", "by_grade", "Real and generated pictures of each grade, at the size of the generator."),
    ("figure", "over_training", "Rows are grades; the noise is the same at all moments of the training."),
    (
        "figure",
        "between_grades",
        "Rows are noise vectors; the grade goes from 0 to 4. What changes along a row is all that the grade decides.",
    ),
    (
        "table",
        "trainings",
        "One row per GAN. Energy is a distance to held-out photographs (lower is better); a diversity of 1 is that of held-out photographs. Both are on pictures of "
        "16 x 16 pixels. The status is decided by rules that were fixed before.",
    ),
    ("figure", "learning", "Critic's scores, energy distance and diversity over the training."),
)

SECTIONS = (
    Section(
        NAME,
        "Oversampling with generated photographs",
        "The main paper announces a GAN by transfer learning and a conditional GAN built from it. Here they are, a choice of this study in every detail that the "
        "announcement leaves open, and what their pictures are worth.",
        _SHOWN,
    ),
)

FIGURES = (
    Shown("gan_quiz.jpg", NAME, "figures/quiz.png"),
    Shown("gan_trainings.csv", NAME, "tables/trainings.csv"),
)
