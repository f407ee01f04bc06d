"""Parameters of notebook 14: weakly supervised lesion maps (GLAM, Liu et al. 2021) for the fundus, and as released."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from drstudy.core.params import Computing, Positive, each_once
from drstudy.papers.glam.recipe import FIXED, RELEASED, FundusRecipe, GlamRecipe, HeadSpec, Part, Rate, Stride

REFERABLE = "REFERABLE"
"""The label 'grade 2 or more', for photographs without lesion labels. It has one map, which is measured on each lesion, and on all
together."""

LESIONS = ("MA", "HE", "EX", "SE", "NV")
"""Lesions that notebook 14 knows."""

TOGETHER = "lesion"
"""Region of all lesions together; its map is the greatest of the probabilities of all labels."""

BAG_STRIDES = (8,)
"""Strides of the evidence in the manner of Sparse BagNet: a cell of EfficientNet-Lite0 sees 67 pixels at stride 8."""

Epochs = Annotated[int, Field(ge=0, le=100_000)]
"""Epochs of a training that may be left out."""


class Glam(Computing):
    """Notebook 14.

    Attributes:
        audit: Result folder of notebook 01, with photographs of at least ``input_size`` pixels.
        model: Result folder of notebook 03: the network whose Grad-CAM is compared.
        score_model: Result folder of notebook 11: the regression network whose map (RAM) is compared; empty is none.
        trained: Result folder of this notebook, whose networks and cuts are looked at on ``audit``; empty trains them.
        subset: On which photographs of ``audit`` everything is measured.
        codes: Labels: lesions, or :data:`REFERABLE` alone.
        labels: ``masks``, ``manifest`` or a CSV; see :func:`drstudy.data.labels.read`. ``grade`` goes with :data:`REFERABLE`.
        least_area: Share of the field of view from which a mask makes a label; 3e-5 is about six pixels at 512.
        backbone, weights, input_size, views, batch_size: Frozen backbone, side of the photographs, augmented views of each, step.
        hidden: Width of the heads.
        fine_share, middle_share, all_share: Share t of the positions whose mean evidence is the score: of the heads on strides 4 and 8, 8
            and 16, and all.
        sparsity: Weight of the sparsity term of the rival with a small receptive field.
        epochs, local_epochs, refined_epochs, mask_epochs: Of the four groups of :mod:`drstudy.papers.glam.fundus_training`; 0 leaves one
            out (not the first).
        learning_rate, weight_decay: AdamW, falling to 0 along a cosine.
        patches, patch_share, local_share: Number K of patches, their side as a share of the picture's, share q of their positions.
        exclusive: Whether a cell belongs to one lesion only; see :func:`drstudy.papers.glam.evidence.exclusive`.
        released_size: Side of the photographs for the system as released, which is trained from random weights; 0 leaves it out.
        released_width, released_blocks: Width of its networks as a factor, and blocks in each stage of its local network.
        released_by: ``labels`` chooses its epoch by the AUC of labels, ``masks`` by average precision on the masks of validation eyes, as
            the paper's authors did.
        released_epochs, released_rate: Epochs and learning rate of each of its three stages.
        grid: Cells per side on which everything is measured.
        checked: Eyes on which Grad-CAM and its finer forms are computed; 0 is all.
        resamples: Number of resamples of the bootstrap over patients.
    """

    notebook: ClassVar[str] = "14_glam"
    TRAINS: ClassVar[bool] = True
    SHOWS: ClassVar[frozenset[str]] = frozenset(
        {"model", "score_model", "subset", "grid", "checked", "resamples"}
    )
    OUTSIDE: ClassVar[frozenset[str]] = frozenset({"labels", "weights"})
    audit: str = "results/smoke/01_data_audit"
    model: str = "results/smoke/03_fine_tuning/efficientnet_lite0-seed0"
    score_model: str = ""
    trained: str = ""
    subset: Literal["train", "validation", "test", "all"] = "test"
    codes: tuple[Annotated[str, Field(pattern=r"^[A-Z]+$")], ...] = Field(
        default=LESIONS, min_length=1, max_length=20
    )
    labels: str = "masks"
    least_area: Annotated[float, Field(gt=0, lt=1)] = 3e-5
    backbone: str = "efficientnet_lite0"
    weights: str = "bundled"
    input_size: Annotated[int, Field(ge=64, le=2048, multiple_of=32)] = 128
    views: Positive = 1
    batch_size: Positive = 8
    hidden: Positive = 16
    fine_share: Part = 0.005
    middle_share: Part = 0.01
    all_share: Part = 0.01
    sparsity: Annotated[float, Field(ge=0, le=1000)] = 0.01
    epochs: Positive = 2
    local_epochs: Epochs = 1
    refined_epochs: Epochs = 1
    mask_epochs: Epochs = 1
    learning_rate: Rate = 4e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-4
    patches: Positive = 4
    patch_share: Part = 0.25
    local_share: Part = 0.1
    exclusive: bool = True
    released_size: Annotated[int, Field(ge=0, le=4096)] = 64
    released_width: Annotated[float, Field(gt=0, le=4)] = 0.25
    released_blocks: tuple[Positive, Positive, Positive, Positive] = (1, 1, 1, 1)
    released_by: Literal["labels", "masks"] = "labels"
    released_epochs: Positive = 1
    released_rate: Rate = 1e-3
    grid: Positive = 32
    checked: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    resamples: Positive = 200

    _codes_once = field_validator("codes")(each_once)

    @model_validator(mode="after")
    def _labels_fit(self) -> Glam:
        if REFERABLE in self.codes and len(self.codes) > 1:
            raise ValueError(
                f"{REFERABLE} must be the only label, since it comes from the grade and not from lesions"
            )
        if (self.labels == "grade") != (REFERABLE in self.codes):
            raise ValueError(f"LABELS 'grade' and CODES [{REFERABLE}] go together")
        if self.input_size // 4 > self.grid and (self.input_size // 4) % self.grid:
            raise ValueError(f"GRID is {self.grid}; it must divide INPUT_SIZE / 4 = {self.input_size // 4}")
        return self

    @property
    def regions(self) -> tuple[str, ...]:
        """Masks on which the maps are measured: the lesions of :attr:`codes` in their order, then all lesions together.

        The one map of :data:`REFERABLE` is measured on each of :data:`LESIONS`.
        """
        return (*(LESIONS if REFERABLE in self.codes else self.codes), TOGETHER)

    @property
    def specs(self) -> dict[str, HeadSpec]:
        """All heads by name."""
        every: tuple[Stride, ...] = (4, 8, 16, 32)
        found = {
            "fine": HeadSpec(strides=(4, 8), share=self.fine_share),
            "middle": HeadSpec(strides=(8, 16), share=self.middle_share),
            "all": HeadSpec(strides=every, share=self.all_share),
            "coarse": HeadSpec(strides=(32,), share=1),
            "bag": HeadSpec(strides=BAG_STRIDES, share=1, sparsity=self.sparsity),
        }
        if self.local_epochs:
            found["local"] = HeadSpec(strides=every, share=self.all_share, kind="local")
        if self.refined_epochs:
            found["refined"] = HeadSpec(strides=every, share=self.fine_share, kind="local")
        if self.mask_epochs:
            found["masks"] = HeadSpec(strides=every, share=self.fine_share, kind="decoder")
        return found

    def recipe(self, group: Literal["saliency", "local", "refined", "masks"]) -> FundusRecipe:
        """The recipe of one group of heads. ``local`` and ``refined`` do not depend on the rivals."""
        heads = ("fine", "middle", "all", "coarse", "bag") if group == "saliency" else (group,)
        epochs = {"saliency": self.epochs, "local": self.local_epochs, "refined": self.refined_epochs}
        own = (
            *Computing.model_fields,
            *("audit", "codes", "backbone", "weights", "input_size", "views", "batch_size", "hidden"),
            *("learning_rate", "weight_decay", "least_area", "exclusive"),
        )
        settings: dict[str, Any] = self.model_dump(include=set(own) - {"variant"})
        if group == "local":
            settings |= self.model_dump(include={"patches", "patch_share", "local_share"})
        return FundusRecipe(
            **settings,
            group=group,
            epochs=epochs.get(group, self.mask_epochs),
            strides=(4, 8, 16, 32),
            heads=heads,
            specs={name: self.specs[name] for name in heads},
        )

    def released(self, corrected: bool) -> GlamRecipe:
        """The recipe of the system as released, or with its oddities corrected."""
        own = {*Computing.model_fields, "audit"} - {"variant"}
        return GlamRecipe(
            **self.model_dump(include=own),
            **(FIXED if corrected else RELEASED),
            select_by="aupr" if self.released_by == "masks" else "auc",
            labels=tuple(f"lesion_{code}" for code in self.codes),
            input_size=self.released_size,
            width=self.released_width,
            local_blocks=self.released_blocks,
            batch_size=self.batch_size,
            **dict.fromkeys(("epochs", "local_epochs", "joint_epochs"), self.released_epochs),
            **dict.fromkeys(("learning_rate", "local_learning_rate"), self.released_rate),
            joint_learning_rate=self.released_rate / 10,
        )
