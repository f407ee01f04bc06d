"""The look of the study, and every figure of notebooks 02 to 04: one function each, which returns its Figure.

Colours are safe for colour-blind readers: grades go from light to dark along one ordered palette, backbones
take fixed colours of the Okabe-Ito set, everywhere the same.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRADE_NAMES = ("no DR", "mild NPDR", "moderate NPDR", "severe NPDR", "PDR")
"""Names of the grades 0 to 4 of diabetic retinopathy (N)PDR: (non-)proliferative."""

GRADE_COLOURS = ("#fbc127", "#f0703a", "#c03a76", "#7e2482", "#2a115c")
"""One colour a grade, 0 to 4; luminance falls from each to the next, so the order survives colour blindness
and grey."""

BACKBONE_NAMES = {
    "densenet121": "DenseNet121",
    "resnet101": "ResNet101",
    "vgg16": "VGG16",
    "efficientnet_lite0": "EfficientNet-Lite0",
}

_BACKBONE_COLOURS = {
    "densenet121": "#0072B2",
    "resnet101": "#D55E00",
    "vgg16": "#009E73",
    "efficientnet_lite0": "#CC79A7",
}
_OTHER_COLOURS = ("#E69F00", "#56B4E9", "#000000", "#8C6D31")
_WEIGHTS = {"none": "no pretraining", "imagenet": "ImageNet", "bundled": "ImageNet, bundled"}

NEUTRAL = "#6f6f6f"
"""Chance lines, baselines, and whatever is not a backbone or a grade."""

DPI = 72
"""Of figures inside notebooks; files are written by :meth:`drstudy.records.Run.figure` at its own
resolution."""


def backbone_colour(name: str) -> str:
    """The colour of a backbone, the same in every figure and every run.

    The four of the study have their own; any other name is given one of four spare colours by its letters, so
    two such names may share one.
    """
    return _BACKBONE_COLOURS.get(name) or _OTHER_COLOURS[sum(name.encode()) % len(_OTHER_COLOURS)]


def backbone_label(name: str, weights_used: str) -> str:
    """A backbone with the weights that it really started from: ``DenseNet121 (no pretraining)``.

    Args:
        name: As in :mod:`drstudy.models.backbones`; one without a printed name stays as it is.
        weights_used: As a record says it: ``none``, ``imagenet``, ``bundled``, or a path, of which the file
            name is shown.
    """
    weights = _WEIGHTS.get(weights_used) or f"weights {PurePath(weights_used).name}"
    return f"{BACKBONE_NAMES.get(name, name)} ({weights})"


def new_figure(rows: int = 1, columns: int = 1, width: float = 6.0, height: float = 4.0, **options):
    """A figure and its axes, sized in inches, in the study's style; a notebook shows it once, when it is
    returned.

    Args:
        options: For :func:`matplotlib.pyplot.subplots`, such as ``sharex``.

    Returns:
        The Figure and a (rows, columns) array of Axes, always two-dimensional.
    """
    import matplotlib.pyplot as plt

    style = {
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height), dpi=DPI, squeeze=False, layout="constrained", **options
        )
        plt.close(figure)
    return figure, axes
