"""Sources: from a data set as it is distributed to the manifest, with every file or line that had to be left
out.

Each layout has a module. Nothing is decoded here; the pictures themselves are judged where they are read
(:mod:`drstudy.data.images`).
"""

from drstudy.data.sources.base import MOST_LOST, Source, SourceError, check_losses, read_grade
from drstudy.data.sources.load import LAYOUTS, load, of
from drstudy.data.sources.phantom import prepare_phantom

__all__ = [
    "LAYOUTS",
    "MOST_LOST",
    "Source",
    "SourceError",
    "check_losses",
    "load",
    "of",
    "prepare_phantom",
    "read_grade",
]
