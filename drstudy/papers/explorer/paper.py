"""A question of this study: one eye at a time, looked at through the systems of all papers (notebook 23)."""

from __future__ import annotations

from collections.abc import Sequence

from drstudy.papers.base import TRAINING, Notebook, Paper, Profile, Section, Stage, System
from drstudy.papers.explorer import params

NAME = params.Explorer.notebook


def across(profile: Profile, systems: Sequence[System], planned: Sequence[Stage]) -> list[Stage]:
    """One stage, after all stages that have predictions or maps of a system; none in a profile that fine-tunes no network.

    Args:
        profile: The profile.
        systems: Systems of all papers.
        planned: Stages of the papers that have systems, as far as the study that is asked for has them.
    """
    folders = tuple(stage.folder for stage in planned if any(_is_of(system, stage) for system in systems))
    if not any(stage.notebook == TRAINING for stage in planned):
        return []
    own = {"AUDIT": profile.audit, "RESULTS": list(folders)}
    needs = tuple(dict.fromkeys((*folders, profile.audit)))
    return [Stage(params.Explorer, profile.name, overrides=own, needs=needs)]


def _is_of(system: System, stage: Stage) -> bool:
    """Whether a stage makes the predictions or the maps of a system."""
    return stage.notebook in (system.notebook, system.maps_notebook) and system.is_variant(stage.variant)


SECTIONS = (
    Section(
        NAME,
        "One eye at a time",
        "Single eyes with the maps and predictions of the systems. The notebook has menus for all eyes, systems and maps.",
        (
            (
                "figure",
                "eye",
                "Photograph with the lesions that readers outlined; the map; regions of the map above the cut; probabilities.",
            ),
            ("figure", "beside", "The same eye through two systems."),
            ("figure", "worst", "Eyes that the first system grades worst, the worst first."),
            (
                "figure",
                "worst_maps",
                "Eyes in which the map of the first system finds the outlined lesions worst, the worst first.",
            ),
        ),
        order=95,
    ),
)

PAPER = Paper(
    id="explorer",
    citation="this study",
    question="What do the systems predict for a single eye, and where are they wrong?",
    notebooks=(Notebook(params.Explorer),),
    across=across,
    sections=SECTIONS,
)
