"""Parameters of notebook 11: networks that regress the grade, with regression activation maps (Wang & Yang 2017)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from drstudy.core.params import Computing, Positive, Share
from drstudy.training.recipe import Training


class RamRecipe(Training):
    """One network under regression, as :mod:`drstudy.papers.ram.training` trains it; made by :class:`Ram`, never by hand.

    Attributes:
        optimiser: ``nesterov`` (the paper's) or ``adam`` (for a pretrained backbone, whose ``learning_rate`` and ``betas`` it takes).
        momentum, drops: Of ``nesterov``; ``drops`` are shares of the epochs after which the rate falls to a tenth.
        balance_ratio: Of the annealed sampler: 1 stays balanced, 0 is at the final weights from the second epoch.
        augmentation: ``paper`` or ``fixed``; see :func:`drstudy.papers.ram.training.view`. A pretrained backbone takes the study's own.
        colour_noise: Standard deviation of the noise along the principal colours.
        biases, batch_norm: See :func:`drstudy.papers.ram.model.build`.
    """

    notebook: ClassVar[str] = "11_ram"
    sampler: Literal["annealed", "paper", "inverse", "sqrt", "none"] = "annealed"
    optimiser: Literal["nesterov", "adam"] = "nesterov"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    drops: tuple[Share, ...] = (0.6, 0.88)
    balance_ratio: Share = 0.975
    augmentation: Literal["paper", "fixed"] = "fixed"
    colour_noise: Annotated[float, Field(ge=0, le=100)] = 0.5
    biases: Literal["untied", "tied"] = "untied"
    batch_norm: bool = True


class Ram(Computing):
    """Notebook 11: networks that regress the grade, and their maps (``docs/sources.md``, E).

    Attributes:
        audit: Result folder of notebook 01.
        model: Result folder of notebook 03: the classification network whose Grad-CAM the maps are compared with.
        networks: Of the paper, trained from random weights: names in :mod:`drstudy.papers.ram.layers`.
        backbone: A pretrained network with a regression head, trained beside them; empty is none.
        weights: Of the backbone; as in notebook 03.
        sizes: Sides of the photographs, in this order; a network of the paper goes from each to the next with its weights.
        sampler, balance_ratio, momentum, weight_decay, drops: Of all, and of the paper's networks (``docs/sources.md``, E4).
        net_epochs, net_learning_rates: One per size; 0 epochs leave out that size.
        net_batch_size: Of the paper's networks.
        augmentation, colour_noise, biases, batch_norm: See :class:`RamRecipe`.
        epochs, batch_size, learning_rate, views: Of the backbone, with the study's feature store and augmentations.
        select_by: As in notebook 03.
        tta: Average maps and scores over the four flips of a photograph.
        max_images: Test eyes with maps, drawn evenly over the grades; 0 is all.
        timed_size, timed_images, timed_rounds: Of the side-by-side timing of RAM and baseline; 0 rounds leave it out.
        resamples: Of the patient bootstrap.
    """

    notebook: ClassVar[str] = "11_ram"
    TRAINS: ClassVar[bool] = True
    SHOWS: ClassVar[frozenset[str]] = frozenset(
        {"model", "tta", "max_images", "timed_size", "timed_images", "timed_rounds", "resamples"}
    )
    OUTSIDE: ClassVar[frozenset[str]] = frozenset({"weights"})
    audit: str = "results/smoke/01_data_audit"
    model: str = "results/smoke/03_fine_tuning/efficientnet_lite0-seed0"
    networks: tuple[Literal["ram_net5", "baseline_net5", "ram_net4", "baseline_net4", "ram_visual5"], ...] = (
        "ram_net5",
        "baseline_net5",
    )
    backbone: str = "efficientnet_lite0"
    weights: str = "bundled"
    sizes: tuple[Literal[128, 256, 512], ...] = Field(default=(128, 256), min_length=1)
    sampler: Literal["annealed", "paper", "inverse", "sqrt", "none"] = "annealed"
    balance_ratio: Share = 0.975
    net_epochs: tuple[Annotated[int, Field(ge=0, le=100_000)], ...] = (1, 1)
    net_learning_rates: tuple[Annotated[float, Field(gt=0, le=10)], ...] = (1e-3, 1e-3)
    net_batch_size: Positive = 16
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 5e-4
    drops: tuple[Share, ...] = (0.6, 0.88)
    augmentation: Literal["paper", "fixed"] = "fixed"
    colour_noise: Annotated[float, Field(ge=0, le=100)] = 0.5
    biases: Literal["untied", "tied"] = "untied"
    batch_norm: bool = True
    epochs: Positive = 3
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    views: Positive = 1
    select_by: Literal["qwk", "loss", "last"] = "qwk"
    tta: bool = False
    max_images: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    timed_size: Literal[128, 256, 512] = 128
    timed_images: Positive = 8
    timed_rounds: Annotated[int, Field(ge=0, le=10_000)] = 4
    resamples: Positive = 200

    @model_validator(mode="after")
    def _one_a_size(self) -> Self:
        if not len(self.sizes) == len(self.net_epochs) == len(self.net_learning_rates):
            raise ValueError(
                f"SIZES has {len(self.sizes)} entries; NET_EPOCHS and NET_LEARNING_RATES need as many, not "
                f"{len(self.net_epochs)} and {len(self.net_learning_rates)}"
            )
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"SIZES must rise, since weights go from each to the next: {list(self.sizes)}")
        return self

    def _shared(self, size: int) -> dict[str, Any]:
        own = {*Computing.model_fields, "audit", "sampler", "balance_ratio", "select_by"} - {"variant"}
        return self.model_dump(include=own) | {"input_size": size}

    def net_recipe(self, network: str, size: int) -> RamRecipe:
        """The recipe of a network of the paper at a size."""
        at = self.sizes.index(size)
        names = ("momentum", "weight_decay", "drops", "augmentation", "colour_noise", "biases", "batch_norm")
        return RamRecipe(
            **self._shared(size) | {name: getattr(self, name) for name in names},
            backbone=network,
            weights="none",
            epochs=self.net_epochs[at],
            learning_rate=self.net_learning_rates[at],
            batch_size=self.net_batch_size,
            views=0,
            feature_store=False,
        )

    def backbone_recipe(self, size: int) -> RamRecipe:
        """The recipe of the pretrained backbone at a size."""
        names = ("backbone", "weights", "epochs", "batch_size", "learning_rate", "views")
        return RamRecipe(
            **self._shared(size) | {name: getattr(self, name) for name in names}, optimiser="adam"
        )
