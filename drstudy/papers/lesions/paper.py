"""Lesion types as labels of whole photographs: Jiang et al. 2020 (notebook 12)."""

from __future__ import annotations

from pathlib import Path

from drstudy.papers.base import Claimed, Notebook, Paper, Profile, Section, Shown, Stage, System
from drstudy.papers.lesions import params

NAME = params.Lesions.notebook
FINER = "14_glam"
"""Notebook whose maps of single lesions are outlined beside this one's, where a profile runs it."""


def stages(profile: Profile) -> list[Stage]:
    """One stage, which trains its networks, or takes those of the profile ``models_from``."""
    taken = f"results/{profile.models_from}/{NAME}" if profile.models_from else ""
    finer = f"results/{profile.name}/{FINER}" if profile.runs(FINER) else ""
    own = {"AUDIT": profile.audit, "MODEL": profile.network, "TRAINED": taken, "LESION_MAPS": finer}
    needs = tuple(filter(None, (profile.audit, profile.network, taken, finer)))
    return [Stage(params.Lesions, profile.name, overrides=own, needs=needs)]


SECTIONS = (
    Section(
        params.Lesions.notebook,
        "Lesions as labels",
        "A network that learns which lesions a photograph has, and a map for each (Jiang et al. 2020, of which only the abstract is public: "
        "labels, loss, thresholds and the rule from lesions to a diagnosis are choices of this study).",
        (
            (
                "table",
                "label_scores_display",
                "Thresholds were fitted on validation photographs of the data set that the networks learnt on. AUC within: among eyes of grade 2 or more, where severity reveals less.",
            ),
            (
                "figure",
                "label_scores",
                "AUC and average precision by label, with 95 % intervals; ticks are chance.",
            ),
            (
                "figure",
                "co_occurrence",
                "Share of the eyes with the lesion of the row that also have the lesion of the column.",
            ),
            (
                "table",
                "decisions_display",
                "Any DR from all lesions, referable DR from those beyond microaneurysms; thresholds for a wanted specificity on validation. The "
                "paper prints 93.9 % and 94.4 % for a decision that it does not name.",
            ),
            ("figure", "decisions", "The same decisions. Hollow marks are what the paper prints."),
            (
                "figure",
                "beyond_chance",
                "Score of each lesion's map on its own masks minus that of four baselines that ignore the network.",
            ),
            (
                "table",
                "minus_grades_display",
                "Map of each lesion minus the map of a network of five grades on the same eyes, in percentage points with 95 % intervals.",
            ),
            (
                "figure",
                "attention",
                "Which lesion does the map of each lesion lie on? Rows are maps, columns are masks.",
            ),
            (
                "table",
                "outlined",
                "Outlines for each map and cut: eyes whose lesion is outlined, false alarms, and overlap (Dice). Lesion maps are those of notebook 14, where it ran.",
            ),
            (
                "figure",
                "outlines",
                "Outlines in eyes with right and wrong predictions. A stated rule chose the eyes.",
            ),
        ),
        columns={
            "label": (
                "lesion",
                "Microaneurysms (MA), haemorrhages (HE), hard exudates (EX), soft exudates (SE), new vessels (NV).",
            ),
            "label_scores_display/of": ("of eyes", "All test eyes."),
            "AUC within": (
                "AUC among grade 2 or more",
                "Among eyes of grade 2 or more, where severity reveals less.",
            ),
            "with": ("eyes with the condition", ""),
            "without": ("eyes without the condition", ""),
            "minus_grades_display/map": ("map of", "The lesion whose map it is."),
            "on": ("measured on", "The lesion whose mask it is."),
            "less": ("compared with", "The map that is subtracted."),
        },
    ),
)

SYSTEM = System(
    id="lesions",
    name="Lesion labels, Jiang-style (ours)",
    notebook=NAME,
    claimed=Claimed(
        says="Jiang et al. 2020: sensitivity 93.9 %, specificity 94.4 % for DR classification",
        claim="lesions_dr_classification",
    ),
)

PAPER = Paper(
    id="lesions",
    citation="Jiang et al. 2020",
    question="Do labels of lesion types, without any outline, teach a network to find each lesion in a photograph?",
    notebooks=(Notebook(params.Lesions),),
    stages=stages,
    needs=("lesion_labels",),
    sections=SECTIONS,
    figures=(
        Shown("lesion_scores.csv", NAME, "tables/label_scores_display.csv"),
        Shown("lesion_decisions.csv", NAME, "tables/decisions_display.csv"),
        Shown("lesion_maps.csv", NAME, "tables/minus_grades_display.csv"),
        Shown("lesion_attention.png", NAME, "figures/attention.png"),
        Shown("lesion_outlines.jpg", NAME, "figures/outlines.png"),
    ),
    claims=Path(__file__).with_name("claims.yaml"),
    systems=(SYSTEM,),
)
