"""A question of this study: what holds on photographs of another camera (notebook 22)."""

from __future__ import annotations

from drstudy.papers.base import BUNDLED, TRAINING, Notebook, Paper, Profile, Section, Shown, Stage
from drstudy.papers.external import params

NAME = params.External.notebook

SHOWN = "real_mini"
"""The profile whose results the pages show."""


def stages(profile: Profile) -> list[Stage]:
    """One stage, on this profile's photographs and those of the profiles ``sets_from``."""
    audit, others = profile.fine_audit, profile.other_audits
    start = f"results/{others[0].split('/')[1]}/{TRAINING}/{BUNDLED}-seed0" if others else ""
    tuned = profile.network if profile.runs(TRAINING) and not profile.models_from else ""
    own = {"AUDIT": audit, "OTHERS": list(others), "PRETRAINED": start, "FINE_TUNED": tuned}
    needs = tuple(filter(None, (audit, *others, start, tuned)))
    return [Stage(params.External, profile.name, overrides=own, needs=needs)]


SECTIONS = (
    Section(
        NAME,
        "Other photographs",
        "Heads on frozen networks, trained on one set of photographs and tested on another, by cross-validation over patients.",
        (
            (
                "table",
                "sets",
                "The sets of photographs. A set that could not be read is named with the reason.",
            ),
            (
                "figure",
                "matrix",
                "Rows are training sets, columns are test sets, at each test set's own mix of grades. A darker cell is better. 95 % intervals over "
                "patients.",
            ),
            ("table", "matrix_own", "The same numbers. Higher is better, but for the calibration error."),
            (
                "table",
                "matrix_common",
                "The same scores with all test sets weighted to one mix of grades, so that prevalence does not differ between columns.",
            ),
            (
                "figure",
                "shifts",
                "Change from a training set's own eyes to those of another set: in total, by the mix of grades, and by all the rest.",
            ),
            (
                "figure",
                "ablation",
                "What each step of the recipe brings, trained on all sets of this profile together.",
            ),
            (
                "table",
                "steps",
                "Paired differences of each recipe to the one before it. If the interval contains 0, these patients do not show a difference.",
            ),
            (
                "table",
                "fine_tuned_display",
                "A network that was fine-tuned by the fixed recipe, and the recipe that validation chose, on the test eyes of the former. Differences are "
                "paired. The fine-tuned network learnt from fewer photographs, since its split keeps more for validation and test.",
            ),
            (
                "table",
                "pretraining",
                "A network that learnt from synthetic eyes minus the same network from ImageNet, the same heads and photographs.",
            ),
            (
                "figure",
                "curve",
                "Scores by number of training photographs, and a power law. The band shows the uncertainty of the fit, not of the law.",
            ),
            ("table", "curve_display", "The same numbers, measured and extrapolated."),
        ),
        order=85,
    ),
)

PAPER = Paper(
    id="external",
    citation="this study",
    question="How well do networks grade photographs from a camera and clinic that they were not trained on?",
    notebooks=(Notebook(params.External),),
    stages=stages,
    sections=SECTIONS,
    figures=(
        Shown("external_matrix.csv", NAME, "tables/matrix_own.csv", profile=SHOWN),
        Shown("external_recipes.csv", NAME, "tables/ablation_scores.csv", profile=SHOWN),
        Shown("external_steps.csv", NAME, "tables/steps.csv", profile=SHOWN),
        Shown("external_fine_tuned.csv", NAME, "tables/fine_tuned_display.csv", profile=SHOWN),
        Shown("external_curve.csv", NAME, "tables/curve_display.csv", profile=SHOWN),
        Shown("external_curve.png", NAME, "figures/curve.png", profile=SHOWN),
    ),
)
