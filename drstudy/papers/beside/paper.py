"""A question of this study: all systems of the papers on the same test eyes, by the same measures (notebook 20)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from drstudy.papers.base import Notebook, Paper, Profile, Section, Shown, Stage, System
from drstudy.papers.beside import params

NAME = params.SideBySide.notebook


def across(profile: Profile, systems: Sequence[System], planned: Sequence[Stage]) -> list[Stage]:
    """One stage, after all stages of the papers that have systems; none where no system is planned.

    Args:
        profile: The profile.
        systems: Systems of all papers.
        planned: Stages of the papers that have systems, as far as the study that is asked for has them.
    """
    wanted = {system.notebook for system in systems}
    folders = [stage.folder for stage in planned]
    if profile.network not in folders or not any(stage.notebook in wanted for stage in planned):
        return []
    own = {
        "AUDIT": profile.fine_audit,
        "REFERENCE": profile.network,
        "RESULTS": folders,
        "DECLARED": digest(systems),
    }
    needs = tuple(dict.fromkeys([*folders, profile.fine_audit]))
    return [Stage(params.SideBySide, profile.name, overrides=own, needs=needs)]


def digest(systems: Sequence[System]) -> str:
    """Digest of the declarations: a changed name or claim makes the notebook run again."""
    return hashlib.sha256(repr(tuple(systems)).encode()).hexdigest()[:16]


SECTIONS = (
    Section(
        NAME,
        "All systems side by side",
        "The systems of all papers on the same test eyes, by the same measures. Intervals are over patients. Differences are paired, and their "
        "p-values are adjusted for the number of systems (Holm).",
        (
            (
                "table",
                "systems",
                "Rows are systems. What each paper claims, what was found here with 95 % intervals, whether the two can be compared (a rule "
                "over declared facts says so), and the verdict of the claims ledger.",
            ),
            ("table", "missing", "Systems, predictions or maps that have no finished result, and why."),
            (
                "table",
                "grading_display",
                "Test eyes of the reference network. Cuts for sensitivity and specificity are fixed on validation eyes. Lower is better for the "
                "calibration error and the Brier score. A dash: the system gives no grade or no probability.",
            ),
            ("figure", "grading", "The same scores with their 95 % intervals."),
            (
                "table",
                "grading_differences_display",
                "Each system minus the network in the second column, the same eyes; p is adjusted by Holm's method.",
            ),
            ("table", "apart_display", "Systems with other test eyes. They are not compared with the rest."),
            (
                "table",
                "locating_display",
                "All lesions together, on one grid and against one truth. Random, centre, intensity and vessels are baselines that ignore the networks. "
                "Higher is better.",
            ),
            ("table", "by_lesion_display", "Pixel average precision for each lesion."),
            (
                "table",
                "locating_differences_display",
                "All lesions together: each map minus that of the network in the second column, the same eyes.",
            ),
            (
                "figure",
                "critical_differences",
                "Systems in rising order of each score. A grey bar joins systems if no two of them differ at the 5 % level after adjustment for all pairs.",
            ),
        ),
        columns={
            "minus": ("compared with", "The network that is subtracted."),
            "what": ("missing", "The system, its predictions or its maps."),
            "apart_display/system": ("system", "A system with other test eyes."),
        },
        order=5,
    ),
)

PAPER = Paper(
    id="beside",
    citation="this study",
    question="Which system of which paper grades best, which finds lesions best, and at what cost, on the same test eyes?",
    notebooks=(Notebook(params.SideBySide),),
    across=across,
    sections=SECTIONS,
    figures=(
        Shown("systems.csv", NAME, "tables/systems.csv"),
        Shown("systems_grading.csv", NAME, "tables/grading_display.csv"),
        Shown("systems_locating.csv", NAME, "tables/locating_display.csv"),
        Shown("systems_order.png", NAME, "figures/critical_differences.png"),
    ),
)
