"""SALL-style learning of two diseases from labels of one disease per photograph: Ju et al. 2021 (notebook 13)."""

from __future__ import annotations

from pathlib import Path

from drstudy.papers.base import AMD_LABELS, Claimed, Notebook, Paper, Profile, Section, Shown, Stage, System
from drstudy.papers.sall import params

NAME = params.Sall.notebook


def stages(profile: Profile) -> list[Stage]:
    """One stage, which trains all its students and tests one of them on the eyes of the main study too."""
    own = {"AUDIT": profile.amd_audit, "EYES": profile.audit}
    return [Stage(params.Sall, profile.name, overrides=own, needs=tuple(dict.fromkeys(own.values())))]


SECTIONS = (
    Section(
        NAME,
        "Two diseases, one label per photograph",
        "SALL-style learning of diabetic retinopathy (DR) and macular degeneration (AMD): each training photograph shows the label of one "
        "disease, and a teacher of the other disease gives a soft label. The terms in feature space, the weights and the network are "
        "choices of this study, because only the abstract and a partial release are public.",
        (
            (
                "table",
                "gains_display",
                "One row per setting and disease. Gains are over single task on the same test eyes, with 95 % intervals over patients; the "
                "range over seeds is given separately. A gain above that of the controls would come from the other disease's labels. *Own collection* leaves out "
                "the eyes of the other disease's collection, as the paper's test does.",
            ),
            (
                "figure",
                "gains",
                "Gain of accuracy per setting: mean over seeds with 95 % interval over patients, and each seed.",
            ),
            (
                "table",
                "teachers_display",
                "Agreement of the teachers' soft labels with the hidden labels. Higher is better.",
            ),
            (
                "figure",
                "teacher",
                "The teachers' predictions for the other disease's photographs beside the hidden labels.",
            ),
            (
                "figure",
                "fractions",
                "Accuracy by share of the labels: mean over seeds, with 95 % intervals over patients. Below 100 % the seed also changes which patients keep their labels.",
            ),
            (
                "table",
                "calibration_display",
                "Calibration before and after temperature scaling, which is fitted on validation. Lower is better. Resampling adds chance to the errors by bins, so that their intervals lie too high.",
            ),
            (
                "figure",
                "reliability",
                "Predicted probability and observed share of correct answers, as trained.",
            ),
            (
                "table",
                "probe",
                "Area under the ROC curve of a linear probe that predicts the collection of a photograph from the student's features; 0.5 is chance.",
            ),
            (
                "table",
                "maps_display",
                "Maps on the lesions of their disease: differences on the same eyes, percentage points. Maps of DR are measured on eyes with DR, maps of AMD on eyes with drusen. "
                "An eye with both diseases mixes the signs of the two. Average precision is not measured for drusen.",
            ),
        ),
        columns={
            "probe/value": ("AUC", "AUC of a linear probe that predicts the collection; 0.5 is chance."),
            "photographs of the": ("photographs of", "Whose photographs the teacher labels."),
            "teachers_display/number": ("photographs", ""),
            "less": ("compared with", "The setting whose maps are subtracted."),
        },
    ),
)

SYSTEM = System(
    id="sall",
    name="Two diseases, SALL-style (ours)",
    notebook=NAME,
    eyes="EYES",
    claimed=Claimed(
        says="Ju et al. 2021: accuracy of DR rises by 5.91 % over single task",
        claim="sall_dr_points",
    ),
)

PAPER = Paper(
    id="sall",
    citation="Ju et al. 2021",
    question="Do labels of another disease help to grade a disease, when each photograph has a label of one disease only?",
    notebooks=(Notebook(params.Sall),),
    stages=stages,
    needs=(AMD_LABELS,),
    sections=SECTIONS,
    figures=(
        Shown("sall_gains.csv", NAME, "tables/gains_display.csv"),
        Shown("sall_teachers.csv", NAME, "tables/teachers_display.csv"),
        Shown("sall_gains.png", NAME, "figures/gains.png"),
        Shown("sall_fractions.png", NAME, "figures/fractions.png"),
    ),
    claims=Path(__file__).with_name("claims.yaml"),
    systems=(SYSTEM,),
)
