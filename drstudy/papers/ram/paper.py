"""Regression activation maps: Wang & Yang 2017 (notebook 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from drstudy.papers.base import (
    Claimed,
    Interval,
    Notebook,
    OwnData,
    Paper,
    Profile,
    Section,
    Shown,
    Stage,
    System,
)
from drstudy.papers.explainable import Explainable
from drstudy.papers.ram import params

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.core.records import Record
    from drstudy.explain.one import Explainer

NAME = params.Ram.notebook


def stages(profile: Profile) -> list[Stage]:
    """One stage: all networks of the paper, beside one fine-tuned network of the main study."""
    own = {"AUDIT": profile.audit, "MODEL": profile.network}
    return [Stage(params.Ram, profile.name, overrides=own, needs=(profile.audit, profile.network))]


def measures() -> Mapping[str, Callable[[Record], Interval]]:
    """Numbers of the side-by-side timing that claims look up."""
    from drstudy.papers.ram.measures import MEASURES

    return MEASURES


def opener() -> Callable[[Record, str, Compute], Explainer]:
    """The function that opens a network of notebook 11 for ``drstudy explain``."""
    from drstudy.papers.ram.explaining import open_network

    return open_network


SECTIONS = (
    Section(
        params.Ram.notebook,
        "RAM",
        "A network that regresses the grade, and the map whose mean is its score (Wang & Yang 2017). Networks of that paper start from random "
        "weights; the pretrained backbone shows what regression and its maps can do.",
        (
            (
                "table",
                "parameters",
                "Number of parameters of RAM and of its baseline with a dense head, counted in networks that are built for 512 px, beside the printed number.",
            ),
            (
                "figure",
                "score_by_grade",
                "Scores of the test eyes by their reference grade. Dotted lines are the cuts that rounding makes.",
            ),
            (
                "table",
                "agreement_display",
                "Agreement with the reference grades on the test split, for each size of the photograph, single eyes. Cuts are fitted on the validation split.",
            ),
            ("figure", "agreement_by_size", "The same agreement, by size of the photograph."),
            (
                "table",
                "both_eyes",
                "Kappa of the single eye, which the map explains, and of a blend of both eyes, which the map does not explain.",
            ),
            (
                "table",
                "map_and_score",
                "Does the map account for the score? Largest difference between the score and the mean of the map plus the bias, in grades. It should be near 0.",
            ),
            ("figure", "maps_ram_net5", "Signed maps of RAM net-5, and their fusion as the paper prints it."),
            ("figure", "maps_efficientnet_lite0", "Signed maps of the pretrained backbone."),
            ("figure", "localisation", "Heat on lesions and the pointing game, against chance."),
            (
                "table",
                "lesion_differences",
                "Paired differences on lesions: fused maps minus maps of single sizes, and minus Grad-CAM of a classification network. Above 0 the first map is better.",
            ),
        ),
        columns={
            "parameters/value": ("found", "Counted in the network that is built here."),
            "both_eyes/value": ("QWK", "Quadratic weighted kappa: 1 is perfect, 0 is chance."),
            "size": ("size, px", "Side of the photograph."),
            "cells": ("side of the map, cells", ""),
        },
    ),
)

SYSTEM = System(
    id="ram",
    name="RAM regression, pretrained backbone (ours)",
    notebook=NAME,
    claimed=Claimed(
        says="Wang & Yang 2017: kappa 0.8412 on the private test set (blend of networks, both eyes)",
        claim="ram_kappa",
        measure="qwk",
        pretrained=False,
    ),
)

PAPER = Paper(
    id="ram",
    citation="Wang & Yang 2017",
    question="Does a network that regresses the grade through a regression activation map grade as well with fewer "
    "parameters, and does its map show lesions?",
    notebooks=(Notebook(params.Ram),),
    stages=stages,
    own_data=OwnData("eyepacs", 35126),
    sections=SECTIONS,
    figures=(
        Shown("ram_agreement.csv", NAME, "tables/agreement_display.csv"),
        Shown("ram_lesions.csv", NAME, "tables/lesion_differences.csv"),
    ),
    claims=Path(__file__).with_name("claims.yaml"),
    measures=measures,
    systems=(SYSTEM,),
    explainable=(Explainable(notebook=NAME, files="*-*.safetensors", opener=opener),),
)
