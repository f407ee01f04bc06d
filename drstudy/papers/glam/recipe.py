"""The recipe of GLAM as released, and of its corrected form (Liu et al. 2021; ``docs/sources.md``, D)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from drstudy.core.params import Positive, Share
from drstudy.training.recipe import Training

Stride = Literal[4, 8, 16, 32]
Rate = Annotated[float, Field(gt=0, le=10)]
Part = Annotated[float, Field(gt=0, le=1)]

RELEASED: dict[str, Any] = {
    "patches": 1,
    "upsampling": "nearest",
    "closing": "last",
    "overlap": "overwrite",
    "border": "misplaced",
    "fusion": "released",
    "flat": "first",
    "least_contrast": 0.0,
    "fill": "minimum",
    "grey": "released",
}
"""Value of each oddity in the release (``docs/sources.md``, D2 and D5)."""

FIXED: dict[str, Any] = {
    "patches": 4,
    "upsampling": "bilinear",
    "closing": "all",
    "overlap": "mean",
    "border": "in place",
    "fusion": "fixed",
    "flat": "none",
    "least_contrast": 0.01,
    "fill": "edge",
    "grey": "fixed",
}
"""Value of each oddity that this study holds to be right (``docs/sources.md``, D6)."""

STAGES = ("global", "local", "joint")
"""The three trainings, in this order."""

LATER = (
    *("local_epochs", "local_batch_size", "local_learning_rate"),
    *("joint_epochs", "joint_batch_size", "joint_learning_rate"),
)
"""Fields that :meth:`GlamRecipe.stage` turns into ``epochs``, ``batch_size`` and ``learning_rate`` of a stage."""

WITHOUT = {
    "global": (
        "patches",
        "crop_share",
        "local_share",
        "beta_local",
        "flat",
        "least_contrast",
        "fill",
        "local_blocks",
    ),
    "local": ("share", "beta"),
    "joint": (),
}
"""Fields that decide nothing in a stage. They are set back to their defaults there, so that another value trains nothing anew. (What the
frozen global network of the stage ``local`` is counts by its weights.)"""


class GlamRecipe(Training):
    """The three trainings of GLAM: the global network, the local one on its patches, then both (``docs/sources.md``, D3).

    No training code was released. Rates, epochs, the weights of the L1 terms and K in training are choices of this study. The defaults
    of all oddities are the values of the release, :data:`RELEASED`; ``GlamRecipe(labels=..., **FIXED)`` is the corrected system.

    Attributes:
        labels: Names of the targets (``Dataset.with_targets``), one class of the maps each; 1, 0, or NaN where unknown.
        channels: Channels of the global network's input: 1 (grey, as released) or 3 (colour photographs, the default; a choice).
        width: Factor of the widths of both networks; 1 as released.
        local_blocks: Basic blocks in each stage of the local network; (3, 4, 6, 3) as released.
        share: Share t of the positions of a map whose mean is its score; 3 % as released.
        patches: Number K of patches per image; 1 at inference in the release, unknown in training.
        crop_share: Side of a crop as a share of ``input_size``. The release crops 512 of 2944 x 1920 pixels; a quarter is a choice.
        local_share: Share q of the positions of all patches together whose mean is the local score; 30 % as released.
        beta, beta_local: Weights of the L1 terms of the global map and of the patches' maps.
        l1: ``mean`` or ``sum`` over positions in the L1 terms, which changes what a weight means (D3).
        upsampling: ``nearest`` (released) or ``bilinear``.
        closing: ``last`` (released): the saliency heads of stages 3 and 4 read raw sums. ``all``: norm and ReLU come before every head.
        overlap: ``overwrite`` (released) or ``mean`` where patches overlap.
        border: ``misplaced`` (released) or ``in place``: patches that cross the border.
        fusion: ``released`` or ``fixed``: half of the global map or all of it outside the patches.
        flat: ``first`` or ``none``: whether a map without contrast proposes a patch.
        least_contrast: Range of a class map up to which it proposes nothing.
        fill: ``minimum`` (released) or ``edge``: what stands beyond the border in a crop.
        grey: ``released`` or ``fixed`` weights of red, green and blue; only for ``channels`` 1.
        epochs, batch_size, learning_rate: Of the global network, with Adam.
        local_epochs, local_batch_size, local_learning_rate: Of the local network.
        joint_epochs, joint_batch_size, joint_learning_rate: Of both together.
        select_by: ``auc`` (mean over the labels), ``loss``, ``last``, or the name of a measure by masks that the training is given.
    """

    notebook: ClassVar[str] = "14_glam"
    SHOWS: ClassVar[frozenset[str]] = frozenset({"overlap", "border", "fusion"})
    """They decide the final map alone. If a measure of that map chooses the epoch, the task adds them to its identity."""

    backbone: str = "glam_released"
    weights: Literal["none"] = "none"
    sampler: Literal["paper", "inverse", "sqrt", "none"] = "none"
    views: Annotated[int, Field(ge=0, le=1000)] = 0
    feature_store: Literal[False] = False
    select_by: str = "auc"

    labels: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1, max_length=20)
    channels: Literal[1, 3] = 3
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    local_blocks: tuple[Positive, Positive, Positive, Positive] = (3, 4, 6, 3)
    share: Part = 0.03
    patches: Annotated[int, Field(ge=1, le=100)] = 1
    crop_share: Part = 0.25
    local_share: Part = 0.3
    beta: Annotated[float, Field(ge=0, le=1000)] = 1e-4
    beta_local: Annotated[float, Field(ge=0, le=1000)] = 1e-4
    l1: Literal["mean", "sum"] = "mean"
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    closing: Literal["last", "all"] = "last"
    overlap: Literal["overwrite", "mean"] = "overwrite"
    border: Literal["misplaced", "in place"] = "misplaced"
    fusion: Literal["released", "fixed"] = "released"
    flat: Literal["first", "none"] = "first"
    least_contrast: Share = 0.0
    fill: Literal["minimum", "edge"] = "minimum"
    grey: Literal["released", "fixed"] = "released"
    local_epochs: Positive = 3
    local_batch_size: Positive = 8
    local_learning_rate: Rate = 1e-4
    joint_epochs: Positive = 3
    joint_batch_size: Positive = 8
    joint_learning_rate: Rate = 1e-5

    @field_validator("labels")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"a label stands twice in {', '.join(value)}")
        return value

    @model_validator(mode="after")
    def _contrast_has_an_effect(self) -> Self:
        if self.least_contrast and self.flat == "first":
            raise ValueError(
                "LEAST_CONTRAST above 0 with FLAT 'first' would propose the first window of every map without contrast. Set FLAT to 'none' "
                "or LEAST_CONTRAST to 0"
            )
        return self

    @property
    def crop(self) -> int:
        """Side of a crop, pixels."""
        return max(1, round(self.crop_share * self.input_size))

    def stage(self, name: str) -> Self:
        """The recipe of one of :data:`STAGES`, as the loop takes it.

        ``epochs``, ``batch_size`` and ``learning_rate`` are those of the stage; fields that decide nothing in it have their defaults.

        Raises:
            ValueError: If there is no such stage.
        """
        if name not in STAGES:
            raise ValueError(f"There is no stage {name!r}; there are {', '.join(STAGES)}.")
        own = ("epochs", "batch_size", "learning_rate")
        given = {field: getattr(self, field if name == "global" else f"{name}_{field}") for field in own}
        unused = {field: type(self).model_fields[field].default for field in (*LATER, *WITHOUT[name])}
        return type(self)(**self.model_dump() | unused | given)


class HeadSpec(BaseModel):
    """What one head of the fundus form reads, and how its map becomes a score (``docs/sources.md``, D6).

    Attributes:
        strides: Strides of the features; the finest is the grid of the map.
        share: Share of the lit positions whose mean evidence is the score of a label; 1 is plain mean pooling.
        kind: ``pointwise`` (1x1 layers), ``local`` (and a depthwise 3x3 at the end) or ``decoder`` (a 3x3 layer at each stride).
        sparsity: Weight of the mean absolute evidence, as in Sparse BagNet; 0 is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    strides: tuple[Stride, ...] = Field(min_length=1)
    share: Part = 0.01
    kind: Literal["pointwise", "local", "decoder"] = "pointwise"
    sparsity: Annotated[float, Field(ge=0, le=1000)] = 0.0


class FundusRecipe(Training):
    """One training of heads on a frozen backbone: which heads, from which targets. Made by the notebook's parameters, never by hand.

    Attributes:
        codes: Labels in the order of the outputs.
        strides, hidden: Strides of the features that are cached, and width of the heads.
        group: Name of the training: ``saliency``, ``local``, ``refined`` or ``masks``.
        heads: Names of the heads that learn.
        specs: All heads by name.
        heaviest: Greatest weight of a positive label; the least is one over it.
        least_area: Share of the field of view from which a mask makes a label.
        patches, patch_share, local_share: Of ``local``: number K of patches, their side as a share of the picture's, and share q of their
            positions that make the local score.
        exclusive: Whether evidence for a label is reduced by that for labels that imply it; see
            :func:`drstudy.papers.glam.evidence.exclusive`.
    """

    notebook: ClassVar[str] = "14_glam"
    SHOWS: ClassVar[frozenset[str]] = frozenset()
    sampler: Literal["paper", "inverse", "sqrt", "none"] = "none"
    select_by: Literal["loss", "last"] = "last"

    codes: tuple[str, ...]
    strides: tuple[Stride, ...]
    hidden: Positive
    group: Literal["saliency", "local", "refined", "masks"]
    heads: tuple[str, ...]
    specs: dict[str, HeadSpec]
    heaviest: Annotated[float, Field(ge=1, le=1e6)] = 10.0
    least_area: Annotated[float, Field(ge=0, lt=1)] = 0.0
    patches: Positive = 4
    patch_share: Part = 0.25
    local_share: Part = 0.1
    exclusive: bool = True
