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
    ("figure", "by_grade", "Real and generated pictures of each grade, at the size of the GAN."),
    (
        "table",
        "survival_by_grade",
        "Share of the eyes of a grade in which a lesion that defines it is still visible at a size, with 95 % intervals over patients. A grade is generable where that holds for half of its eyes.",
    ),
    ("figure", "survival", "Share of visible lesions by kind and size."),
    (
        "figure",
        "over_training",
        "Rows are grades, columns are moments of the training. The noise is the same in all columns.",
    ),
    (
        "figure",
        "between_grades",
        "Rows are noise vectors; the grade goes from 0 to 4. Only the grade changes along a row.",
    ),
    (
        "table",
        "trainings_display",
        "One row per GAN. Energy is a distance to held-out photographs (lower is better); a diversity of 1 is that of held-out photographs. Both are on pictures of "
        "16 x 16 pixels. The status is decided by rules that were fixed beforehand.",
    ),
    ("figure", "learning", "Critic's scores, energy distance and diversity over the training."),
    (
        "figure",
        "distances",
        "Distances to photographs of other patients, with EfficientNet-Lite0 (not FID). The floor is real photographs; ranges are over draws of pictures.",
    ),
    (
        "table",
        "memorisation",
        "Pictures that are nearer to a training photograph than chance explains, beside planted copies, which the test must find.",
    ),
    (
        "figure",
        "nearest_pairs",
        "The generated pictures that are nearest to a training photograph, beside it.",
    ),
    (
        "figure",
        "agreement",
        "How often a grading network predicts the requested grade; real photographs at the same size are the upper reference.",
    ),
    (
        "table",
        "agreement_display",
        "The same numbers, and whether the lesions that define a grade are visible at the GAN's size. The last row is the quadratic weighted kappa on the held-out "
        "photographs' mix of grades, for both.",
    ),
    (
        "table",
        "arms_display",
        "One row per arm, the mean over seeds with 95 % intervals over patients. All arms train the same classifier for the same number of steps.",
    ),
    (
        "figure",
        "arms",
        "Differences to no oversampling, with 95 % intervals over patients; ticks are the range over seeds.",
    ),
    (
        "table",
        "real_or_generated",
        "AUC of a classifier that separates generated from real pictures. At 0.5 they cannot be separated.",
    ),
)

SECTIONS = (
    Section(
        NAME,
        "Oversampling with generated photographs",
        "The main paper announces a GAN by transfer learning and a conditional GAN built from it. Both are built here. Every detail that the announcement leaves open is a "
        "choice of this study. The section also measures whether their pictures help.",
        _SHOWN,
        columns={
            "survival_by_grade/size": ("size, px", "Side of the picture."),
            "unexplained": ("eyes left out", "Eyes whose masks have no lesion that explains their grade."),
            "survival_by_grade/value": (
                "share with a visible lesion",
                "Share of the eyes in which a lesion that defines the grade is visible.",
            ),
            "generable": (
                "generable?",
                "Whether a lesion that defines the grade is visible in at least half of its eyes at this size.",
            ),
            "energy": ("energy distance", "Distance to held-out photographs. Lower is better."),
            "diversity": ("diversity", "1 is that of held-out photographs."),
            "space": ("compared in", "Pixels, or features of a network."),
            "flagged": ("flagged", "Pictures that are nearer to a training photograph than chance explains."),
            "memorisation/share": ("share flagged", "Share of the pictures, 0 to 1."),
            "by_chance": ("share by chance", "Share that is flagged if no picture is a copy."),
            "as_near": (
                "as near as a noised copy",
                "Pictures that are as near to a training photograph as a slightly noised copy of one.",
            ),
            "auc": (
                "probability of being nearer",
                "Probability that a generated picture is nearer to training photographs than a held-out one; 0.5 is no difference.",
            ),
            "arms_display/Unnamed: 0": (
                "arm",
                "How the rare grades are oversampled. sd: standard deviation over seeds.",
            ),
            "real_or_generated/value": (
                "AUC",
                "AUC of a classifier that separates them from real pictures; 0.5 is chance.",
            ),
        },
    ),
)

FIGURES = (
    Shown("gan_quiz.jpg", NAME, "figures/quiz.png"),
    Shown("gan_trainings.csv", NAME, "tables/trainings_display.csv"),
    Shown("gan_arms.csv", NAME, "tables/arms_display.csv"),
)
