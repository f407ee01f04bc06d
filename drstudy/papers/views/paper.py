"""A question of this study: how many stored augmented views are enough (notebook 21)."""

from __future__ import annotations

from drstudy.papers.base import Notebook, Paper, Profile, Section, Shown, Stage
from drstudy.papers.views import params

NAME = params.ViewsStudy.notebook


def stages(profile: Profile) -> list[Stage]:
    """One stage."""
    return [
        Stage(params.ViewsStudy, profile.name, overrides={"AUDIT": profile.audit}, needs=(profile.audit,))
    ]


SECTIONS = (
    Section(
        params.ViewsStudy.notebook,
        "How many views",
        "A few stored augmented views per image, compared with a fresh view at every draw. Scores are on the validation split after the last epoch.",
        (
            (
                "figure",
                "metric_by_views",
                "Scores by number of stored views, and paired differences to fresh views.",
            ),
            (
                "table",
                "differences",
                "Scores with K stored views minus those with fresh views, with 95 % intervals over patients. If an interval contains 0, the data do not show a difference.",
            ),
        ),
        order=90,
    ),
)

PAPER = Paper(
    id="views",
    citation="this study",
    question="How many stored augmented views per photograph are as good as a fresh view at every draw?",
    notebooks=(Notebook(params.ViewsStudy),),
    stages=stages,
    sections=SECTIONS,
    figures=(Shown("views.csv", NAME, "tables/differences.csv"),),
)
