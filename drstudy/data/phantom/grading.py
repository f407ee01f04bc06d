"""The International Clinical Diabetic Retinopathy severity scale as a rule on lesions.

Source: Wilkinson CP, Ferris FL, Klein RE, et al. Proposed international clinical diabetic retinopathy and
diabetic macular edema disease severity scales. Ophthalmology 2003; 110(9): 1677-1682.
doi:10.1016/S0161-6420(03)00475-5
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

LESION_CODES = ("MA", "HE", "EX", "SE", "VB", "IRMA", "NV", "PRH", "LASER", "DRUSEN")
"""Lesions of the phantom: microaneurysm, intraretinal haemorrhage, hard exudate, soft exudate (cotton-wool
spot), venous beading, intraretinal microvascular abnormality, neovascularisation, pre-retinal haemorrhage,
laser scar, drusen."""

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


def grade_from_lesions(lesions: pd.DataFrame | Iterable[Any]) -> int:
    """Returns the International Clinical DR grade that a set of lesions implies.

    The rule (Wilkinson et al. 2003), from the top:

    * 4, proliferative: neovascularisation (NV) or a pre-retinal haemorrhage (PRH).
    * 3, severe: any of the 4-2-1 rule: more than 20 intraretinal haemorrhages (HE) in each of four quadrants;
      definite venous beading (VB) in at least two quadrants; prominent IRMA in at least one.
    * 2, moderate: more than microaneurysms, less than severe (any HE, EX, SE, VB or IRMA).
    * 1, mild: microaneurysms (MA) only.
    * 0: none of these.

    Laser scars (LASER) and drusen (DRUSEN) never change the grade. Every VB counts as definite. An IRMA whose
    ``kind`` is ``"mild"`` is not prominent; any other IRMA is.

    Args:
        lesions: a DataFrame with the columns ``code``, ``quadrant`` and (for IRMA) ``kind``, one row a
            lesion; or an iterable of mappings or objects with these fields. Quadrants: ``ST``, ``SN``,
            ``IT``, ``IN``.

    Returns:
        The grade, 0 to 4.

    Raises:
        ValueError: an unknown code, or an HE, VB or IRMA without a valid quadrant.
    """
    if isinstance(lesions, pd.DataFrame):
        kinds = lesions["kind"] if "kind" in lesions else [""] * len(lesions)
        rows = list(zip(lesions["code"], lesions["quadrant"], kinds, strict=True)) if len(lesions) else []
    else:
        rows = [(_field(one, "code"), _field(one, "quadrant"), _field(one, "kind")) for one in lesions]
    codes = {code for code, _, _ in rows}
    if unknown := codes - set(LESION_CODES):
        raise ValueError(f"unknown lesion code {sorted(unknown)}: use one of {', '.join(LESION_CODES)}")
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
