"""Weakly supervised lesion maps: GLAM, Liu et al. 2021 (notebook 14)."""

from __future__ import annotations

from drstudy.papers.base import Notebook, Paper, Profile, Stage
from drstudy.papers.glam import params, sections

NAME = params.Glam.notebook
REGRESSION = "11_ram"
"""Notebook whose regression network has maps to compare with."""


def stages(profile: Profile) -> list[Stage]:
    """One stage, which trains its networks, or takes those of the profile ``models_from``."""
    taken = f"results/{profile.models_from}/{NAME}" if profile.models_from else ""
    regressed = f"results/{profile.name}/{REGRESSION}" if profile.runs(REGRESSION) else ""
    own = {"AUDIT": profile.fine_audit, "MODEL": profile.network, "TRAINED": taken, "SCORE_MODEL": regressed}
    needs = tuple(filter(None, (profile.fine_audit, profile.network, regressed, taken)))
    return [Stage(params.Glam, profile.name, overrides=own, needs=needs)]


PAPER = Paper(
    id="glam",
    citation="Liu et al. 2021",
    question="Can labels of whole photographs teach a network to outline each lesion?",
    notebooks=(Notebook(params.Glam, whole_machine=True),),
    stages=stages,
    needs=("lesion_labels",),
    sections=sections.SECTIONS,
    figures=sections.FIGURES,
)
