"""A procedural fundus photograph with exact masks: the *fundus phantom*.

The phantom lets every notebook run without a download, and gives what real photographs rarely have: a mask
for each kind of lesion, and a grade that follows from the lesions by the International Clinical DR scale. On
request some of its eyes have age-related macular degeneration (``amd``), whose grade follows from the lesions too. It is a
test object, not a substitute for patients: a number measured on it says that the method works, not how well it grades
people.
"""

from .grading import (
    AMD_CODES,
    ANATOMY_CODES,
    DISC_DIAMETER_UM,
    LESION_CODES,
    QUADRANTS,
    SUBRETINAL,
    amd_grade_from_lesions,
    drusen_size,
    grade_from_lesions,
)
from .planning import DISEASES, DISTRIBUTIONS, PhantomConfig, plan
from .rendering import Phantom, render
from .writing import amd_sheet, contact_sheet, write

__all__ = [
    "AMD_CODES",
    "ANATOMY_CODES",
    "DISC_DIAMETER_UM",
    "DISEASES",
    "DISTRIBUTIONS",
    "LESION_CODES",
    "QUADRANTS",
    "SUBRETINAL",
    "Phantom",
    "PhantomConfig",
    "amd_grade_from_lesions",
    "amd_sheet",
    "contact_sheet",
    "drusen_size",
    "grade_from_lesions",
    "plan",
    "render",
    "write",
]
