"""Parameters of notebook 15: a conditional GAN, and the use of its pictures."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from drstudy.core.params import Computing, Positive
from drstudy.papers.gan.recipe import POLICIES, GanRecipe, Policies, Rate, Side

PRETRAINING, TRANSFER, FROZEN, SCRATCH, RIVAL = (
    "pretraining",
    "transfer",
    "frozen layers",
    "no transfer",
    "other loss",
)
"""Trainings: unconditional; conditional from its weights, without and with frozen layers of the critic; conditional from random weights,
with the same and with the other loss."""

Epochs = Annotated[int, Field(ge=0, le=100_000)]
"""Epochs of a training that may be left out."""

OTHER = {"hinge": "cwgan_gp", "cwgan_gp": "hinge"}


class Gan(Computing):
    """Notebook 15.

    Attributes:
        audit: Result folder of notebook 01, with photographs of at least ``size`` pixels.
        pretrained: Result folder of this notebook, from whose unconditional GAN the conditional ones start (that of phantom eyes, for real
            photographs); empty pretrains on the photographs of ``audit``.
        size, width, latent: Side of the pictures, channels of the finest maps, length of the noise.
        loss, critic_steps, penalty: Loss of all GANs but one; steps of the critic for each step of the generator, and weight of the gradient
            penalty, of ``cwgan_gp``. Hinge takes one step of the critic.
        sides: ``left`` lets the GANs learn left eyes, with right ones mirrored, and mirrors half of the pictures that are used; ``both`` shows
            them each eye as it is and mirrored.
        learning_rate, critic_rate, betas, average, batch_size, sampler, augmentation: See :class:`drstudy.papers.gan.recipe.GanRecipe`.
        steps: Steps of the generator that count as one epoch.
        pretraining_epochs, epochs: Of the unconditional GAN, and of each conditional one.
        frozen_blocks: First blocks of the critic that do not learn in one of the GANs; 0 leaves that GAN out.
        scratch: Whether a conditional GAN from random weights is trained, for comparison.
        rival_epochs: Epochs of a conditional GAN with the other loss, from random weights; 0 leaves it out.
        processes: Processes that train each GAN together, one per GPU (on a CPU only to test it).
        shown: Pictures of each grade in the figures.
        model: Result folder of notebook 03: the network that grades the generated pictures.
        encoder_size: Side at which the bundled EfficientNet-Lite0 reads pictures, pixels.
        surviving: Eyes whose lesions are measured at the sizes of generated pictures; 0 is all of the training split.
        compared: Pictures of a set, at most, in the comparisons of quality; 0 is all.
        head_steps, head_rate, head_seeds: Steps and learning rate (Adam) of each classifier, and number of seeds for each arm.
        augmented_views: Augmented views of each rare photograph, for the arm with classical augmentation.
        resamples: Number of resamples of the bootstrap over patients.
    """

    notebook: ClassVar[str] = "15_gan_oversampling"
    TRAINS: ClassVar[bool] = True
    FED_BY: ClassVar[tuple[str, ...]] = ("AUDIT", "PRETRAINED")
    SHOWS: ClassVar[frozenset[str]] = frozenset(
        {
            *("processes", "shown", "model", "encoder_size", "surviving", "compared"),
            *("head_steps", "head_rate", "head_seeds", "augmented_views", "resamples"),
        }
    )
    audit: str = "results/smoke/01_data_audit"
    pretrained: str = ""
    size: Side = 32
    width: Annotated[int, Field(ge=2, le=256)] = 4
    latent: Annotated[int, Field(ge=1, le=1024)] = 16
    sides: Literal["left", "both"] = "left"
    loss: Literal["hinge", "cwgan_gp"] = "hinge"
    critic_steps: Annotated[int, Field(ge=1, le=50)] = 5
    penalty: Annotated[float, Field(ge=0, le=1000)] = 10.0
    learning_rate: Rate = 1e-3
    critic_rate: Rate = 1e-3
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.0, 0.99)
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    augmentation: Policies = POLICIES
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 8
    sampler: Literal["paper", "inverse", "sqrt", "none"] = "inverse"
    steps: Positive = 5
    pretraining_epochs: Positive = 4
    epochs: Positive = 4
    frozen_blocks: Annotated[int, Field(ge=0, le=8)] = 1
    scratch: bool = True
    rival_epochs: Epochs = 2
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    shown: Annotated[int, Field(ge=1, le=32)] = 6
    model: str = "results/smoke/03_fine_tuning/efficientnet_lite0-seed0"
    encoder_size: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = 96
    surviving: Annotated[int, Field(ge=0, le=10_000_000)] = 20
    compared: Annotated[int, Field(ge=0, le=10_000_000)] = 24
    head_steps: Positive = 50
    head_rate: Rate = 1e-3
    head_seeds: Annotated[int, Field(ge=1, le=100)] = 2
    augmented_views: Annotated[int, Field(ge=1, le=100)] = 1
    resamples: Positive = 200

    def trainings(self) -> tuple[str, ...]:
        """Names of the GANs that are trained, in their order."""
        wanted = {
            PRETRAINING: not self.pretrained,
            TRANSFER: True,
            FROZEN: self.frozen_blocks > 0,
            SCRATCH: self.scratch,
            RIVAL: self.rival_epochs > 0,
        }
        return tuple(name for name, there in wanted.items() if there)

    def recipe(self, name: str, start: str = "") -> GanRecipe:
        """The recipe of one of :meth:`trainings`.

        Args:
            name: Of the training.
            start: File with the unconditional networks, for those trainings that start from them.
        """
        loss = OTHER[self.loss] if name == RIVAL else self.loss
        epochs = {PRETRAINING: self.pretraining_epochs, RIVAL: self.rival_epochs}.get(name, self.epochs)
        own = {*Computing.model_fields, *self.SHARED}
        given: dict[str, Any] = self.model_dump(include=own)
        return GanRecipe(
            **given | {"variant": name.replace(" ", "_")},
            input_size=self.size,
            views=1 if self.sides == "left" else 2,
            loss=loss,
            critic_steps=self.critic_steps if loss == "cwgan_gp" else 1,
            epochs=epochs,
            grades=0 if name == PRETRAINING else 5,
            start=start if name in (TRANSFER, FROZEN) else "",
            frozen_blocks=self.frozen_blocks if name == FROZEN else 0,
        )

    SHARED: ClassVar[tuple[str, ...]] = (
        *("audit", "sides", "width", "latent", "penalty", "learning_rate", "critic_rate", "betas", "average"),
        *("augmentation", "batch_size", "sampler", "steps", "processes"),
    )
    """Fields that all recipes take as they are."""
