"""A procedural fundus photograph with exact masks: the *fundus phantom*.

The phantom lets every notebook run without a download, and gives what real photographs rarely have: a mask
for each kind of lesion, and a grade that follows from the lesions by the International Clinical DR scale. It
is a test object,
not a substitute for patients: a number measured on it says that the method works, not how well it grades
    people.
"""

from .grading import ANATOMY_CODES, LESION_CODES, QUADRANTS, grade_from_lesions
from .planning import DISTRIBUTIONS, PhantomConfig, plan
from .rendering import Phantom, render
from .writing import contact_sheet, write

__all__ = [
    "ANATOMY_CODES",
    "DISTRIBUTIONS",
    "LESION_CODES",
    "QUADRANTS",
    "Phantom",
    "PhantomConfig",
    "contact_sheet",
    "grade_from_lesions",
    "plan",
    "render",
    "write",
]
