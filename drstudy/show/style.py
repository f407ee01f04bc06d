"""The theme, and all colours, names and labels of the study: one colour per backbone, sampler, grade, lesion, split and map, everywhere.

Every figure is drawn within :func:`theme`, which is seaborn's style ``ticks`` with the sizes of this study. No figure has colours of its own.

The colours are safe for colour-blind readers. Grades run from light to dark along one ordered palette. Backbones take fixed
colours of the Okabe-Ito set. Lesions take light colours, because their outlines lie on photographs and on heat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from drstudy.core import records
from drstudy.core.names import NAMES

if TYPE_CHECKING:
    from drstudy.core.records import Record

# --- theme ----------------------------------------------------------------------------------------

TEXT, SMALL = 10, 9
"""Sizes of text, points: of labels and ticks, and of legends and notes."""

SMALLEST = 8
"""Size of text inside the cells of a matrix, points."""

_SIZES = {
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "axes.titlesize": TEXT + 1,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "lines.linewidth": 1.5,
    "lines.markersize": 6,
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.8,
    "patch.linewidth": 0.8,
}
_LOOK = {
    "font.sans-serif": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.solid_capstyle": "butt",
    "legend.frameon": False,
}


@contextmanager
def theme() -> Iterator[None]:
    """The one theme of all figures: a context, or a decorator of a function that draws. Settings outside stay as they are.

    The font comes with matplotlib, so figures look the same on every machine. Lines have flat ends, so an interval ends at its limits.
    """
    import matplotlib as mpl
    import seaborn as sns

    ticks = {
        name: size
        for axis in ("xtick", "ytick")
        for name, size in {f"{axis}.major.width": 0.8, f"{axis}.major.size": 3.5}.items()
    }
    context = sns.plotting_context("notebook", rc=_SIZES | ticks)
    with mpl.rc_context(sns.axes_style("ticks", rc=_LOOK) | context | _LOOK):
        yield


# --- general --------------------------------------------------------------------------------------

INK = "#262626"
"""Marks that belong to no series: limits, expected values, whole ranges, values that a paper prints."""

NEUTRAL = "#6f6f6f"
"""Chance lines, baselines, and whatever is neither a backbone nor a grade."""

ACCENT = "#332288"
"""Points of maps that have no colour of their own."""

CHANCE_COLOUR = "#D55E00"
"""Marks of chance beside points or bars."""

SERIES_COLOURS = ("#9E9E9E", "#56B4E9", "#E69F00", "#332288", "#117733", "#882255")
"""Colours of series that have none of their own, in order."""

SHARES_MAP, COUNTS_MAP, RISING_MAP = "Blues", "Greys", "cividis"
"""Colour maps of shares with white as 0, of counts, and of quantities that begin at 0."""

SIGNED_MAP = "PuOr_r"
"""Colour map of quantities with a middle: purple below, white at the middle, orange above."""

LEGEND_ON_PHOTOGRAPHS = {"facecolor": "#5a4a42", "labelcolor": "white", "frameon": True}
"""A legend of outlines, whose light colours need a dark ground."""

# --- grades and splits ----------------------------------------------------------------------------

GRADE_COLOURS = ("#fbc127", "#f0703a", "#c03a76", "#7e2482", "#2a115c")
"""One colour per grade, 0 to 4. Luminance falls from each to the next, so the order survives colour blindness and grey."""

SPLIT_COLOURS = {"train": "#0072B2", "validation": "#E69F00", "test": "#009E73"}

SHIFT_COLOURS = {"total": "#332288", "prevalence": "#E69F00", "rest": "#009E73"}
"""Parts of the change of a score from one set of photographs to another."""

SPLIT_BY_COLOURS = {"image": "#D55E00", "patient": "#0072B2"}
"""A split by image leaks, a split by patient does not."""

# --- backbones and networks -----------------------------------------------------------------------

BACKBONE_NAMES = {
    "densenet121": "DenseNet121",
    "resnet101": "ResNet101",
    "vgg16": "VGG16",
} | {f"efficientnet_lite{n}": f"EfficientNet-Lite{n}" for n in range(3)}
BACKBONE_NAMES |= {
    f"resnet{depth}_stride1": f"ResNet{depth}, last stage at stride 1" for depth in (18, 34, 50)
}

BACKBONE_COLOURS = {
    "densenet121": "#0072B2",
    "resnet101": "#D55E00",
    "vgg16": "#009E73",
    "efficientnet_lite0": "#CC79A7",
    "efficientnet_lite1": "#E69F00",
    "efficientnet_lite2": "#56B4E9",
}
"""Colours of the six backbones of the main study."""

NETWORK_COLOURS = {
    "ram_net5": "#332288",
    "baseline_net5": "#9E9E9E",
    "ram_net4": "#117733",
    "baseline_net4": "#6f6f6f",
}
"""Colours of the networks that other papers define themselves."""

SPARE_COLOURS = ("#000000", "#8C6D31", "#882255", "#332288")
"""Colours of any other network."""

NO_PRETRAINING = "no pretraining"
"""Label of a network that started from random weights."""

WEIGHTS_NAMES = {"none": NO_PRETRAINING, "imagenet": "ImageNet", "bundled": "ImageNet, bundled"}


def backbone_colour(name: str) -> str:
    """The colour of a backbone or network, the same in every figure and every run.

    A name without a colour of its own is given one of :data:`SPARE_COLOURS` by its letters, so two such names may share one.
    """
    own = BACKBONE_COLOURS.get(name) or NETWORK_COLOURS.get(name)
    return own or SPARE_COLOURS[sum(name.encode()) % len(SPARE_COLOURS)]


def backbone_label(name: str, weights_used: str, recipe: str = records.FULL) -> str:
    """A backbone with the weights that it really started from: ``DenseNet121 (no pretraining)``.

    Args:
        name: As in :mod:`drstudy.models.nets`; a name that has no printed form stays as it is.
        weights_used: As in a record: ``none``, ``imagenet``, ``bundled``, or a path, of which the file name is shown.
        recipe: As in a record: ``without_pretraining`` is added, ``DenseNet121 (no pretraining, short recipe)``.
    """
    weights = WEIGHTS_NAMES.get(weights_used) or f"weights {PurePath(weights_used).name}"
    short = ", short recipe" if recipe == records.SHORT else ""
    return f"{BACKBONE_NAMES.get(name, name)} ({weights}{short})"


def record_label(record: Record) -> str:
    """:func:`backbone_label` of the network that a notebook trained."""
    used = record.metrics["weights_used"]
    return backbone_label(record.params["BACKBONE"], used, record.metrics.get("recipe", records.FULL))


# --- systems of papers ---------------------------------------------------------------------------------

SYSTEM_COLOURS = {
    "RAM": "#8C6D31",
    "Lesion labels": "#882255",
    "Two diseases": "#00441B",
    "Lesion maps": "#332288",
    "Linear classifier": "#000000",
}
"""Colours of the systems of papers, by the beginning of their printed names. RAM has that of its map in :data:`LESION_MAP_COLOURS`."""


def system_colour(name: str) -> str:
    """The colour of a system, the same in every figure and whichever other systems stand beside it.

    A name that ends in one of :data:`BACKBONE_NAMES` with its weights, such as ``Five grades: DenseNet121 (ImageNet)``, has the colour of that
    backbone, a blind map its own (:data:`BASELINE_COLOURS`). A system of a new paper is given one of :data:`SPARE_COLOURS` by its letters, so
    two such systems may share one.

    Args:
        name: Name of the system as printed.
    """
    if name in BASELINE_COLOURS:
        return BASELINE_COLOURS[name]
    for beginning, colour in SYSTEM_COLOURS.items():
        if name.startswith(beginning):
            return colour
    network = name.rpartition(": ")[2]
    for backbone, printed in BACKBONE_NAMES.items():
        if network == printed or network.startswith(f"{printed} ("):
            return backbone_colour(backbone)
    return SPARE_COLOURS[sum(name.encode()) % len(SPARE_COLOURS)]


def system_colours(names: Sequence[str]) -> dict[str, str]:
    """:func:`system_colour` of each name, in the order given."""
    return {name: system_colour(name) for name in names}


# --- samplers -------------------------------------------------------------------------------------

SAMPLER_COLOURS = {
    "none": "#9E9E9E",
    "sqrt": "#56B4E9",
    "inverse": "#E69F00",
    "paper": "#332288",
    "annealed": "#117733",
}


PICTURE_COLOURS = {
    "reference": NEUTRAL,
    "floor": NEUTRAL,
    "sampler": "#E69F00",
    "real": "#0072B2",
    "generated": "#D55E00",
    "control": "#CC79A7",
    "blurred": "#56B4E9",
    "noised": "#117733",
    "grades mixed": "#882255",
}
"""One colour per kind of training set, or of set of pictures, where real and generated photographs are compared."""


def series_colours(labels: Sequence[str]) -> list[str]:
    """One colour per label: of :data:`SAMPLER_COLOURS` if all are samplers, else of :data:`SERIES_COLOURS` in order."""
    if set(labels) <= set(SAMPLER_COLOURS):
        return [SAMPLER_COLOURS[label] for label in labels]
    return [SERIES_COLOURS[place % len(SERIES_COLOURS)] for place in range(len(labels))]


# --- lesions --------------------------------------------------------------------------------------


class Lesion(NamedTuple):
    """Name of a structure of the eye, and colour and line of its outline."""

    name: str
    colour: str
    line: str


LESIONS = {
    "MA": Lesion(NAMES["MA"], "#5AA9FF", "solid"),
    "HE": Lesion(NAMES["HE"], "#FFFFFF", "solid"),
    "EX": Lesion(NAMES["EX"], "#2FE08A", "solid"),
    "SE": Lesion(NAMES["SE"], "#FF9EDB", "dashed"),
    "IRMA": Lesion(NAMES["IRMA"], "#7FA7FF", "dashed"),
    "VB": Lesion(NAMES["VB"], "#E69F00", "dashed"),
    "NV": Lesion(NAMES["NV"], "#F0E442", "solid"),
    "PRH": Lesion(NAMES["PRH"], "#FF8A5C", "dashed"),
    "LASER": Lesion(NAMES["LASER"], "#BEBEBE", "solid"),
    "DRUSEN": Lesion(NAMES["DRUSEN"], "#C9B26B", "solid"),
    "PIGMENT": Lesion(NAMES["PIGMENT"], "#B48CFF", "dashed"),
    "CNV": Lesion(NAMES["CNV"], "#9AE600", "solid"),
    "SRF": Lesion(NAMES["SRF"], "#33D6D6", "dotted"),
    "GA": Lesion(NAMES["GA"], "#FFE9C7", "dashed"),
    "lesion": Lesion("any lesion", "#FFB000", "solid"),
}
"""One colour per lesion. Those of the five default labels (MA, HE, EX, SE, NV) are at least 20 apart in CIELAB, from each
other and from the retina, also for colour-blind readers. Where colours are closer, lines differ, and drawings that name
lesions do so in letters too."""

DISC = Lesion(NAMES["DISC"], "#FFFFFF", "dotted")

OUTLINED = ("MA", "HE", "EX", "SE", "IRMA", "VB", "NV", "PRH")
"""Lesions that are outlined over heatmaps, in the order of the legend; the disc follows."""

# --- maps -----------------------------------------------------------------------------------------

HEAT_MAP = "inferno"
"""Colour map of heat. Its lightness rises with the value."""

PRINTED_HEAT_MAP = "jet"
"""Colour map that the source papers print."""

LAYER_COLOURS = ("#E69F00", "#56B4E9", "#555555", "#009E73")

BASELINE_COLOURS = {"random": "#6f6f6f", "centre": "#E69F00", "intensity": "#56B4E9", "vessels": "#882255"}
"""One colour per baseline map, of the Okabe-Ito and Tol sets."""

FINER_COLOUR = "#009E73"
"""Maps on a finer grid than the layer's, among others in :data:`ACCENT`."""

LESION_MAP_COLOURS = {
    "refined + global": "#D55E00",
    "refined": "#E69F00",
    "global": "#0072B2",
    "global + local": "#56B4E9",
    "strides 4, 8": "#117733",
    "strides 8, 16": "#44AA99",
    "strides 4 to 32": "#88CCAA",
    "all scales, mean": "#009E73",
    "mean pooling, stride 32": "#CC79A7",
    "small receptive field": "#882255",
    "U-Net (masks)": "#000000",
    "Grad-CAM, predicted grade": "#AA4499",
    "Grad-CAM, disease": "#332288",
    "Grad-CAM, fused layers": "#7755BB",
    "RAM": "#8C6D31",
}
"""One colour per map of lesions of notebook 14; further ones (blind maps, the system as released) are :data:`NEUTRAL`."""

CHECKED_COLOURS = ("#332288", "#D55E00", "#56B4E9")
"""Methods in a figure of a check, in order."""

METHOD_NAMES = {
    "grad_cam": "Grad-CAM",
    "grad_cam++": "Grad-CAM++",
    "hires_cam": "HiRes-CAM",
    "layer_cam": "Layer-CAM",
    "score_cam": "Score-CAM",
    "eigen_cam": "Eigen-CAM",
    "guided_backprop": "guided backprop",
    "integrated_gradients": "integrated gradients",
}


def lesion_map_colour(name: str) -> str:
    """The colour of a map of lesions, the same in every figure."""
    return LESION_MAP_COLOURS.get(name, NEUTRAL)
