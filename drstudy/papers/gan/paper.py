"""GAN oversampling: what the main paper's conclusion announces (notebook 15)."""

from __future__ import annotations

from pathlib import Path

from drstudy.papers.base import Claimed, Notebook, Paper, Profile, Stage, System
from drstudy.papers.gan import params, sections

NAME = params.Gan.notebook


def stages(profile: Profile) -> list[Stage]:
    """One stage. A profile with ``models_from`` starts its conditional GANs from the unconditional one of that profile."""
    taken = f"results/{profile.models_from}/{NAME}" if profile.models_from else ""
    own = {"AUDIT": profile.audit, "MODEL": profile.network, "PRETRAINED": taken}
    needs = tuple(filter(None, (profile.audit, profile.network, taken)))
    return [Stage(params.Gan, profile.name, overrides=own, needs=needs)]


SYSTEM = System(
    id="gan",
    name="Linear classifier, oversampled by a conditional GAN (ours)",
    notebook=NAME,
    claimed=Claimed(
        says="Nian & Jin 2025: announced, without a number",
        claim="gan_oversampling",
    ),
)

PAPER = Paper(
    id="gan",
    citation="Nian & Jin 2025, announced work",
    question="Can a conditional GAN make photographs of the rare grades, and do they help a classifier?",
    notebooks=(Notebook(params.Gan),),
    stages=stages,
    sections=sections.SECTIONS,
    figures=sections.FIGURES,
    claims=Path(__file__).with_name("claims.yaml"),
    systems=(SYSTEM,),
)
