"""Weakly supervised lesion maps: GLAM, Liu et al. 2021 (notebook 14)."""

from __future__ import annotations

from pathlib import Path

from drstudy.papers.base import FINE, Claimed, Notebook, Paper, Profile, Stage, System
from drstudy.papers.glam import params, sections

NAME = params.Glam.notebook
REGRESSION = "11_ram"
"""Notebook whose regression network has maps to compare with."""


LESION_LABELS = "lesion_labels"
BY_GRADE = {"CODES": [params.REFERABLE], "LABELS": "grade", "MASK_EPOCHS": 0}
"""Parameters for photographs that come with grades only: one label, referable DR, and no upper bound from masks."""


def stages(profile: Profile) -> list[Stage]:
    """One stage, which trains its networks, or takes those of the profile ``models_from``.

    A profile whose photographs have no lesion labels learns from grades. Such a profile has the stage only if it has the audit
    :data:`drstudy.papers.base.FINE`, since photographs of the size that a grading network needs show no small lesion.
    """
    graded = LESION_LABELS not in profile.data
    if graded and FINE not in profile.audits:
        return []
    taken = f"results/{profile.models_from}/{NAME}" if profile.models_from else ""
    regressed = f"results/{profile.name}/{REGRESSION}" if profile.runs(REGRESSION) else ""
    own = {"AUDIT": profile.fine_audit, "MODEL": profile.network, "TRAINED": taken, "SCORE_MODEL": regressed}
    own |= BY_GRADE if graded else {}
    needs = tuple(filter(None, (profile.fine_audit, profile.network, regressed, taken)))
    return [Stage(params.Glam, profile.name, overrides=own, needs=needs)]


SYSTEM = System(
    id="glam",
    name="Lesion maps, GLAM for the fundus (ours)",
    notebook=NAME,
    claimed=Claimed(
        says="Liu et al. 2021: Dice 39.6 % higher than that of existing methods (benign lesions, mammograms)",
        claim="glam_dice_benign",
    ),
)

PAPER = Paper(
    id="glam",
    citation="Liu et al. 2021",
    question="Can labels of whole photographs teach a network to outline each lesion?",
    notebooks=(Notebook(params.Glam),),
    stages=stages,
    sections=sections.SECTIONS,
    figures=sections.FIGURES,
    claims=Path(__file__).with_name("claims.yaml"),
    systems=(SYSTEM,),
)
