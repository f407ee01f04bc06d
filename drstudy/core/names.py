"""Names and codes that several floors use: grades, parts of a split, lesions, anatomy. They are defined here only.

A mask of a structure is in the column ``mask_<CODE>`` of a manifest, its presence in ``lesion_<CODE>``.
"""

from __future__ import annotations

GRADES = (0, 1, 2, 3, 4)
"""Grades of the International Clinical Diabetic Retinopathy scale."""

N_GRADES = len(GRADES)

GRADE_NAMES = ("no DR", "mild NPDR", "moderate NPDR", "severe NPDR", "PDR")
"""The name of each grade; NPDR is non-proliferative and PDR proliferative diabetic retinopathy."""

PROBABILITIES = [f"p{grade}" for grade in GRADES]
"""Columns of ``predictions.csv`` with the probability of each grade."""

SPLITS = ("train", "validation", "test")
"""The parts of a split, in the order of its fractions."""

LESIONS = ("MA", "HE", "EX", "SE", "VB", "IRMA", "NV", "PRH")
"""Codes of the signs of diabetic retinopathy."""

OTHER_FINDINGS = ("LASER", "DRUSEN")
"""Codes of what is measured beside the signs of the disease and does not count as one of them."""

AMD_GRADES = (0, 1, 2, 3)
"""Grades of age-related macular degeneration (AMD): the classes of ``docs/sources.md``, C2."""

AMD_NAMES = ("no AMD", "small drusen", "large drusen", "CNV")
"""The name of each grade of AMD; CNV is choroidal neovascularisation."""

AMD_SIGNS = ("DRUSEN", "PIGMENT", "CNV", "SRF", "GA")
"""Codes of the signs of AMD. Haemorrhages and exudates, which a CNV lesion has too, are ``HE`` and ``EX`` as in diabetic retinopathy."""

AMD_COLUMNS = ("amd_grade", "amd")
"""Columns of a manifest and of a split: the grade of AMD, and whether there is AMD at all (0 or 1). Sources have both, one or neither."""

STRUCTURES = ("VESSEL", "DISC", "FOVEA")
"""Codes of the anatomy."""

FIELD = "FOV"
"""Code of the field of view."""

NAMES = {
    "MA": "microaneurysm",
    "HE": "haemorrhage",
    "EX": "hard exudate",
    "SE": "soft exudate",
    "VB": "venous beading",
    "IRMA": "IRMA",
    "NV": "new vessels",
    "PRH": "pre-retinal haemorrhage",
    "LASER": "laser scar",
    "DRUSEN": "drusen",
    "PIGMENT": "pigment change",
    "CNV": "choroidal neovascularisation",
    "SRF": "subretinal fluid",
    "GA": "geographic atrophy",
    "VESSEL": "vessel",
    "DISC": "optic disc",
    "FOVEA": "fovea",
    "FOV": "field of view",
}
"""Code to the name that figures and tables print. IRMA is an intraretinal microvascular abnormality."""
