"""The recipe of one training of a GAN, as the loop and the processes of a training take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from drstudy.core.names import N_GRADES
from drstudy.core.params import Positive
from drstudy.training.recipe import Training

if TYPE_CHECKING:
    from drstudy.papers.gan.networks import Shape

POLICIES = ("colour", "translation", "cutout")
"""Augmentations of what the critic sees, in the order in which they are applied."""

Rate = Annotated[float, Field(gt=0, le=10)]
Policies = tuple[Literal["colour", "translation", "cutout"], ...]
Side = Literal[16, 32, 64, 128, 256]

UNCONDITIONAL = 0


class GanRecipe(Training):
    """One training. Made by the parameters of the notebook, never by hand, but for tests.

    Attributes:
        loss: ``hinge`` (with spectral norm) or ``cwgan_gp`` (with a gradient penalty).
        input_size: Side of the photographs, pixels.
        width, latent: See :class:`drstudy.papers.gan.networks.Shape`.
        grades: 5, or 0 for an unconditional GAN.
        epochs, steps: An *epoch* here is ``steps`` steps of the generator, after which the loop writes a checkpoint and measures.
        critic_steps: Steps of the critic for each step of the generator; each takes a new batch of photographs.
        penalty: Weight of the gradient penalty; of ``cwgan_gp`` only.
        learning_rate, critic_rate, betas: Adam. The main paper's code has betas (0, 0.99) (``docs/sources.md``, A4 and A7).
        augmentation: What the critic sees is augmented by these; see :mod:`drstudy.papers.gan.augmentation`.
        average: Weight of the past in the moving average of the generator, once enough steps were taken.
        sides: ``left`` mirrors right eyes, so that all have the disc on one side; ``both`` shows each eye as it is and mirrored.
        start: File with the weights from which both networks start; empty starts from random ones. They count by their content.
        frozen_blocks: Number of the critic's first blocks that do not learn.
        kept_pictures: Pictures for each grade that are kept at each of the moments of :data:`drstudy.papers.gan.training.MOMENTS`.
        processes: Number of processes that train it together.
    """

    notebook: ClassVar[str] = "15_gan_oversampling"
    made_by: ClassVar[str] = "drstudy.papers.gan.processes:task"
    SHOWS: ClassVar[frozenset[str]] = frozenset({"processes"})
    UNTRAINED: ClassVar[frozenset[str]] = frozenset({"start"})

    backbone: Literal["gan"] = "gan"
    weights: Literal["none"] = "none"
    feature_store: Literal[False] = False
    select_by: Literal["last"] = "last"
    sampler: Literal["paper", "inverse", "sqrt", "none"] = "inverse"
    views: Literal[1, 2] = 2
    input_size: Side = 32
    learning_rate: Rate = 4e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.0, 0.99)
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 8

    sides: Literal["left", "both"] = "both"
    loss: Literal["hinge", "cwgan_gp"] = "hinge"
    width: Annotated[int, Field(ge=2, le=256)] = 8
    latent: Annotated[int, Field(ge=1, le=1024)] = 64
    grades: Literal[0, 5] = N_GRADES
    steps: Positive = 5
    critic_steps: Annotated[int, Field(ge=1, le=50)] = 1
    penalty: Annotated[float, Field(ge=0, le=1000)] = 10.0
    critic_rate: Rate = 4e-4
    augmentation: Policies = POLICIES
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    start: str = ""
    frozen_blocks: Annotated[int, Field(ge=0, le=8)] = 0
    kept_pictures: Annotated[int, Field(ge=1, le=32)] = 3
    processes: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.frozen_blocks and not self.start:
            raise ValueError(
                "FROZEN_BLOCKS above 0 would freeze random layers: it needs START, the pretrained networks"
            )
        if self.views != (1 if self.sides == "left" else 2):
            raise ValueError(
                "VIEWS must be 1 with SIDES 'left', and 2 with SIDES 'both' (as stored, and mirrored)"
            )
        return self

    @property
    def shape(self) -> Shape:
        """Of both networks."""
        from drstudy.papers.gan.networks import Shape

        return Shape(self.input_size, self.width, self.latent, self.grades)

    @property
    def spectral(self) -> bool:
        """Whether the critic has spectral norm."""
        return self.loss == "hinge"
