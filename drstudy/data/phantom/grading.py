"""Grades as rules on lesions: the International Clinical Diabetic Retinopathy severity scale, and four grades of AMD.

Source of the first: Wilkinson CP, Ferris FL, Klein RE, et al. Proposed international clinical diabetic retinopathy and
diabetic macular edema disease severity scales. Ophthalmology 2003; 110(9): 1677-1682.
doi:10.1016/S0161-6420(03)00475-5

The second has the classes of ``docs/sources.md``, C2, and the sizes of drusen of J4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

LESION_CODES = ("MA", "HE", "EX", "SE", "VB", "IRMA", "NV", "PRH", "LASER", "DRUSEN")
"""Lesions of the phantom: microaneurysm, intraretinal haemorrhage, hard exudate, soft exudate (cotton-wool
spot), venous beading, intraretinal microvascular abnormality, neovascularisation, pre-retinal haemorrhage,
laser scar, drusen."""

AMD_CODES = ("PIGMENT", "CNV", "SRF", "GA")
"""Lesions that only a phantom with AMD has, beside drusen: pigment change (clumps and pale patches), membrane of a choroidal
neovascularisation, subretinal fluid, geographic atrophy."""

SUBRETINAL = "subretinal"
"""``kind`` of haemorrhages and exudates of a CNV lesion. They have the codes, colours and masks of those of diabetic retinopathy."""

DISC_DIAMETER_UM = 1500.0
"""One disc diameter in micrometres (``docs/sources.md``, C4)."""

SMALL_UM, LARGE_UM = 63.0, 125.0
"""Drusen below the first diameter are small, from the second on large, and between them medium (``docs/sources.md``, C4)."""

ANATOMY_CODES = ("VESSEL", "DISC", "FOVEA", "FOV")
"""Normal structures of the phantom: retinal vessels, optic disc, fovea, field of view."""

QUADRANTS = ("ST", "SN", "IT", "IN")
"""Superior-temporal, superior-nasal, inferior-temporal, inferior-nasal."""

HAEMORRHAGES_PER_QUADRANT = 20
"""The 4 of the 4-2-1 rule asks for *more than* this many intraretinal haemorrhages in each of four
quadrants."""


def _field(lesion: Any, name: str) -> str:
    value = lesion.get(name, "") if isinstance(lesion, Mapping) else getattr(lesion, name, "")
    return "" if value is None else str(value)


def _rows(lesions: pd.DataFrame | Iterable[Any], *names: str) -> list[dict[str, str]]:
    """The lesions as mappings with these fields; a field that a lesion lacks is empty.

    Raises:
        ValueError: an unknown code.
    """
    each = lesions.to_dict("records") if isinstance(lesions, pd.DataFrame) else lesions
    rows = [{name: _field(one, name) for name in names} for one in each]
    known = (*LESION_CODES, *AMD_CODES)
    if unknown := {row["code"] for row in rows} - set(known):
        raise ValueError(f"unknown lesion code {sorted(unknown)}: use one of {', '.join(known)}")
    return rows


def grade_from_lesions(lesions: pd.DataFrame | Iterable[Any]) -> int:
    """Returns the International Clinical DR grade that a set of lesions implies.

    The rule (Wilkinson et al. 2003), from the top:

    * 4, proliferative: neovascularisation (NV) or a pre-retinal haemorrhage (PRH).
    * 3, severe: any of the 4-2-1 rule: more than 20 intraretinal haemorrhages (HE) in each of four quadrants;
      definite venous beading (VB) in at least two quadrants; prominent IRMA in at least one.
    * 2, moderate: more than microaneurysms, less than severe (any HE, EX, SE, VB or IRMA).
    * 1, mild: microaneurysms (MA) only.
    * 0: none of these.

    Laser scars (LASER), drusen (DRUSEN) and the other signs of AMD never change the grade, nor do haemorrhages and exudates
    of the kind :data:`SUBRETINAL`. Every VB counts as definite. An IRMA whose ``kind`` is ``"mild"`` is not prominent; any
    other IRMA is.

    Args:
        lesions: a DataFrame with the columns ``code``, ``quadrant`` and (for IRMA) ``kind``, one row a
            lesion; or an iterable of mappings or objects with these fields. Quadrants: ``ST``, ``SN``,
            ``IT``, ``IN``.

    Returns:
        The grade, 0 to 4.

    Raises:
        ValueError: an unknown code, or an HE, VB or IRMA without a valid quadrant.
    """
    rows = [
        (one["code"], one["quadrant"], one["kind"])
        for one in _rows(lesions, "code", "quadrant", "kind")
        if one["kind"] != SUBRETINAL
    ]
    codes = {code for code, _, _ in rows}
    haemorrhages = dict.fromkeys(QUADRANTS, 0)
    beaded: set[str] = set()
    prominent_irma = False
    for code, quadrant, kind in rows:
        if code not in ("HE", "VB", "IRMA"):
            continue
        if quadrant not in haemorrhages:
            raise ValueError(f"{code} has quadrant {quadrant!r}: use one of {', '.join(QUADRANTS)}")
        if code == "HE":
            haemorrhages[quadrant] += 1
        elif code == "VB":
            beaded.add(quadrant)
        else:
            prominent_irma |= kind != "mild"
    if codes & {"NV", "PRH"}:
        return 4
    if min(haemorrhages.values()) > HAEMORRHAGES_PER_QUADRANT or len(beaded) >= 2 or prominent_irma:
        return 3
    if codes & {"HE", "EX", "SE", "VB", "IRMA"}:
        return 2
    return 1 if "MA" in codes else 0


def drusen_size(diameter_um: float) -> str:
    """Size class of a druse: ``small`` (below 63 um), ``medium``, or ``large`` (125 um or more).

    Raises:
        ValueError: the diameter is not above 0.
    """
    if not diameter_um > 0:
        raise ValueError(f"the diameter of a druse must be above 0 um, got {diameter_um}")
    return "small" if diameter_um < SMALL_UM else "large" if diameter_um >= LARGE_UM else "medium"


def amd_grade_from_lesions(lesions: pd.DataFrame | Iterable[Any]) -> int:
    """Returns the grade of AMD that a set of lesions implies.

    The classes are those of ``docs/sources.md``, C2; where these leave a case open, the rule is ours. From the top:

    * 3, CNV: a membrane (CNV), subretinal fluid (SRF) or a haemorrhage of the kind :data:`SUBRETINAL`, which may hide the membrane.
    * 2, large drusen: a druse (DRUSEN) of 125 um or more, or geographic atrophy (GA; ours, since no class is named after it and it
      is a later stage than small drusen).
    * 1, small drusen: any druse, or a pigment change (PIGMENT) alone (ours: both are early AMD in C4).
    * 0: none of these. Exudates (EX) never change the grade.

    Args:
        lesions: as in :func:`grade_from_lesions`, with ``code``, ``kind`` and, for drusen, ``radius_dd`` (or ``radius``), the radius
            in disc diameters of 1500 um.

    Returns:
        The grade, 0 to 3.

    Raises:
        ValueError: an unknown code, or a druse without a radius.
    """
    rows = _rows(lesions, "code", "kind", "radius_dd", "radius")
    codes = {row["code"] for row in rows}
    if codes & {"CNV", "SRF"} or any(row["code"] == "HE" and row["kind"] == SUBRETINAL for row in rows):
        return 3
    sizes = set()
    for row in rows:
        if row["code"] == "DRUSEN":
            radius = row["radius_dd"] or row["radius"]
            if not radius:
                raise ValueError("a druse has no radius: give radius_dd, in disc diameters")
            sizes.add(drusen_size(2 * float(radius) * DISC_DIAMETER_UM))
    if "large" in sizes or "GA" in codes:
        return 2
    return 1 if sizes or "PIGMENT" in codes else 0
