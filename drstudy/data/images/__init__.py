"""The image store: field-of-view crops of a whole data set in one memory-mapped array, written once.

Each file is decoded once; what the audit measures is measured on that occasion. A killed run goes on where it was.
"""

from drstudy.data.images.crops import Crop, load_masks, prepare, shrink
from drstudy.data.images.store import ImageStore, build, open_store, release, store_key
from drstudy.data.images.writing import StoreError
from drstudy.data.measures import fov_mask

__all__ = [
    "Crop",
    "ImageStore",
    "StoreError",
    "build",
    "fov_mask",
    "load_masks",
    "open_store",
    "prepare",
    "release",
    "shrink",
    "store_key",
]
