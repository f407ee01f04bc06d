"""What the report and the README show of notebook 14."""

from __future__ import annotations

from drstudy.papers.base import Section, Shown
from drstudy.papers.glam.params import Glam

NAME = Glam.notebook

_SHOWN = (
    (
        "figure",
        "maps",
        "Photograph, map, outlines at the cut of validation eyes and true lesions, enlarged around the largest lesion. For each lesion the eye of "
        "median Dice is shown.",
    ),
    (
        "table",
        "headline",
        "Rows are maps, columns are lesions; higher is better. Means over test eyes with the lesion, with 95 % intervals over patients. All maps "
        "except those of the U-Net were learnt from labels of whole photographs. Random, centre, intensity and vessels are baselines that ignore the network.",
    ),
    (
        "figure",
        "localisation",
        "Scores of all maps. Dotted lines are the lesion's share of the area, which a uniform map gets.",
    ),
    (
        "table",
        "ratio_display",
        "Average precision of the proposed map divided by that of notebook 05's Grad-CAM on the same eyes. Above 1 the proposed map is better.",
    ),
    (
        "table",
        "share_display",
        "Average precision of the proposed map divided by that of a decoder that learnt from masks, with the same features and eyes. 1 is equally good.",
    ),
    (
        "table",
        "all_lesions",
        "All lesions together: share of single lesions that the cut map touches, by diameter; false regions per eye; share of the field that is marked "
        "on eyes without any lesion (lower is better).",
    ),
    (
        "table",
        "choices_display",
        "GLAM chooses its networks by validation masks. Rows are rules of choice; the difference is to the map that was fixed before.",
    ),
    (
        "table",
        "label_scores_display",
        "AUC of each label on test photographs, by the map whose highest evidence is the score.",
    ),
    (
        "table",
        "votes_display",
        "DIARETDB1: the proposed map against the regions that at least a given number of four experts marked, and an expert's own marks as the upper limit.",
    ),
    (
        "table",
        "released",
        "Average precision of the system as released and of its corrected form, trained from random weights.",
    ),
    ("table", "networks", "What each network learnt from, its size and its epochs."),
    ("figure", "learning", "Validation loss and AUC of all trainings."),
    ("figure", "outlines", "Best, median and worst eye of each lesion by Dice, chosen by this rule."),
)

SECTIONS = (
    Section(
        NAME,
        "Outlines from labels of photographs",
        "GLAM (Liu et al. 2021) learns from labels of whole images where lesions are. Here are its form for the fundus, a choice of this study, and "
        "the system as released.",
        _SHOWN,
    ),
)

HEADLINE, RANKED = "tables/headline.csv", ("average precision", "pointing game")

FIGURES = (
    Shown("glam_maps.jpg", NAME, "figures/maps.png"),
    Shown("glam_localisation.csv", NAME, HEADLINE),
    Shown("glam_fresh.csv", NAME, HEADLINE, rows=RANKED, profile="demo_fresh"),
    Shown("glam_idrid.csv", NAME, HEADLINE, profile="idrid_mini_phantom"),
    Shown("glam_diaretdb1.csv", NAME, HEADLINE, rows=("pointing game",), profile="diaretdb1_mini_phantom"),
)
