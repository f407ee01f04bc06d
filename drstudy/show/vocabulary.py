"""The words of the report's tables: column to heading and meaning, code to name, term to explanation.

What one paper alone has, its :class:`drstudy.papers.base.Section` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from drstudy.explain.measures import aggregate, comparison
from drstudy.show import style, tables

DASH = "–"
"""What stands where there is no number."""


class Term(NamedTuple):
    """A heading and what it means; an empty heading keeps the column's name, in words."""

    heading: str = ""
    explains: str = ""


TERMS: Mapping[str, Term] = {
    "run": Term("network", "Backbone and training seed."),
    "label": Term("network", "Network, with the weights that it started from."),
    "backbone": Term("network", "Backbone of the network."),
    "reference": Term("compared with", "The network that is subtracted."),
    "metric": Term("measure", "What is measured."),
    "n": Term("number", ""),
    "bca": Term(
        "BCa interval", "Bias-corrected and accelerated bootstrap interval of the same resamples, 95 %."
    ),
    "resamples": Term("resamples", "Number of bootstrap resamples over patients."),
    "seeds": Term("seeds", "Number of trainings with different random seeds."),
    "mean": Term("mean over seeds", ""),
    "std": Term("standard deviation over seeds", ""),
    "seed_sd": Term("standard deviation over seeds", "Spread of the number over training seeds."),
    "over seeds": Term(
        "standard deviation over seeds", "Spread over trainings; the test patients are the same."
    ),
    "over patients": Term(
        "standard deviation over patients", "Spread over resampled test patients; the network is the same."
    ),
    "p_images": Term(
        "p, eyes taken as independent",
        "p-value that takes all eyes as independent (DeLong's test for AUC, McNemar's for shares). It is too small where two eyes are of one patient.",
    ),
    "p_patients": Term("p, patients resampled", "p-value of the bootstrap over patients."),
    "p_patients_holm": Term(
        "p, patients resampled, adjusted",
        "The same p-value, adjusted by Holm's method for the number of networks that are compared.",
    ),
    "p": Term("p", "p-value."),
    "temperature": Term(
        "temperature",
        "Number by which the network's outputs are divided so that its probabilities fit the validation split. Above 1, the network was overconfident.",
    ),
    "as trained": Term("as trained", "Probabilities as the network gives them."),
    "scaled": Term(
        "temperature scaled",
        "Probabilities after temperature scaling, which is fitted on the validation split.",
    ),
    "if_calibrated": Term(
        "expected if calibrated",
        "The calibration error that chance alone gives to a perfectly calibrated network on these eyes.",
    ),
    "wanted": Term(
        "wanted specificity", "The specificity for which the threshold was chosen on the validation split."
    ),
    "threshold": Term("threshold", "Eyes with this probability or a higher one are predicted referable."),
    "on_validation": Term(
        "on validation", "The same measure on the validation split, where the threshold was chosen."
    ),
    "share": Term("share", "Share of all, 0 to 1."),
    "share_from_here": Term(
        "share of this grade or above", "Share of images with this grade or a higher one, 0 to 1."
    ),
    "dice": Term("Dice", "Overlap of the outline and the true lesion: 1 is perfect, 0 is none."),
    "false_alarms": Term("false alarms", "Eyes without the lesion in which something is outlined."),
    "area": Term("area, share of the field", "Share of the field of view that is outlined."),
    "present": Term("eyes with the lesion", ""),
    "absent": Term("eyes without the lesion", ""),
    "outlined": Term("of these outlined", "Eyes with the lesion in which something is outlined."),
    "largest_gap": Term("largest gap, grades", "Largest difference over all eyes, in grades."),
    "largest_gap_to_prediction": Term("largest gap to the prediction, grades", ""),
    "parameters_total": Term("parameters", "Number of weights of the network."),
    "parameters_trainable": Term("parameters trained", "Number of weights that training may change."),
    "copy": Term("exact copies", "Test rows of which an exact copy is among the training rows."),
    "duplicate": Term("near duplicates", "Test rows of which a near duplicate is among the training rows."),
    "fellow": Term("fellow eyes", "Test rows of which the patient's other eye is among the training rows."),
    "printed": Term("printed by the paper", "The number that the paper prints."),
    "id": Term("identifier", ""),
}
"""Column to its heading and meaning."""

MEASURES: Mapping[str, str] = {
    **comparison.METRICS,
    **aggregate.NAMES,
    **tables.SUMMARY,
    **tables.RECALLS,
    "auc": "AUC",
    "ap": "average precision",
    "f1": "F1",
    "brier": "Brier score, five grades",
    "ece": "calibration error",
    "ece_adaptive": "calibration error, bins of equal counts",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
}
"""Code of a measure to its name."""

OF_MEASURES = ("metric", "measure", "measured", "score", "quantity")
"""Columns whose cells are codes of measures."""

REGIONS: Mapping[str, str] = {
    "lesion": "all lesions",
    "disc": "optic disc",
    "vessel": "vessels",
    "elsewhere": "elsewhere in the field",
}
"""Code of a region to its name, in columns ``region``."""

NAMES: Mapping[str, str] = {
    **style.BACKBONE_NAMES,
    **style.METHOD_NAMES,
    "cwgan_gp": "Wasserstein with gradient penalty",
    "True": "yes",
    "False": "no",
    "-": DASH,
}
"""Any other cell that is a code, to what is shown."""

CONCEPTS: tuple[tuple[str, str], ...] = (
    (
        r"\bQWK\b|\bkappa\b",
        "Quadratic weighted kappa: agreement with the reference grades. 1 is perfect, 0 is chance.",
    ),
    (r"\bAUC\b", "Area under the ROC curve: 1 is perfect, 0.5 is chance."),
    (r"\bmacro\b", "Mean over the grades or labels, each with equal weight."),
    (r"\bsensitivity\b|\brecall\b", "Share of the eyes with the condition that are predicted to have it."),
    (r"\bspecificity\b", "Share of the eyes without the condition that are predicted not to have it."),
    (r"\breferable\b|grade ≥ 2", "Referable: grade 2 or more."),
    (r"balanced accuracy", "Mean of the recalls of all grades."),
    (r"\bNLL\b|negative log likelihood", "Negative log likelihood of the reference grade. Lower is better."),
    (
        r"calibration error",
        "Mean distance between predicted probability and observed share. Lower is better.",
    ),
    (r"\bBrier\b", "Mean squared error of the probabilities. Lower is better."),
    (r"energy inside|heat on lesions", "Share of a map's heat that lies on the lesion."),
    (r"pointing game", "Share of eyes whose hottest point lies on the lesion."),
    (
        r"average precision",
        "Area under the curve of precision by recall, pixel by pixel for maps. 1 is perfect.",
    ),
    (r"\bDice\b|\bIoU\b", "Overlap with the true lesion after a cut: 1 is perfect, 0 is none."),
    (r"patch precision", "Share of the hottest patches that touch a lesion."),
    (r"\brandom\b", "Random: a map of smoothed noise, which depends on neither the network nor the eye."),
    (r"\bcentre\b", "Centre: a map that is hot in the middle, whatever the eye."),
    (r"\bintensity\b", "Intensity: the brightness of the photograph as a map."),
    (r"\bvessels\b", "Vessels: the vessels of the photograph as a map."),
    (r"\bchance\b", "Chance: the value that a uniform map would get."),
    (r"\bpoints\b", "Percentage points."),
    (r"\bSSIM\b", "Structural similarity of two maps: 1 is equal."),
    (r"rank correlation", "Spearman's correlation of two maps: 1 is the same order, 0 is none."),
    (r"\bp\b", "p-values below 0.05 are unlikely if there is no difference."),
    (r"\boracle\b", "Oracle: the best cut on the eye itself, which is not known in practice."),
    (r"\bOtsu", "Otsu: a cut from the map's histogram alone."),
    (r"validation cut|validation-best", "The cut was chosen on other eyes."),
)
"""Words of a heading to a sentence about them."""
