"""Parameters of notebook 12: lesion types as labels of whole photographs (Jiang et al. 2020)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from drstudy.core.params import Computing, Positive, Share
from drstudy.training.recipe import Training


class LesionRecipe(Training):
    """One network with one sigmoid output per lesion, as :mod:`drstudy.papers.lesions.training` trains it; made by :class:`Lesions`, never by hand.

    Attributes:
        codes: Lesions in the order of the outputs.
        loss: ``bce``, ``focal`` or ``asymmetric``; see :func:`drstudy.papers.lesions.training.loss`.
        heaviest: Greatest weight of a positive label; the least is one over it.
        gamma: Of ``focal``.
    """

    notebook: ClassVar[str] = "12_lesions"
    codes: tuple[str, ...]
    loss: Literal["bce", "focal", "asymmetric"] = "bce"
    heaviest: Annotated[float, Field(ge=1, le=1e6)] = 10.0
    gamma: Annotated[float, Field(ge=0, le=100)] = 2.0
    select_by: Literal["auc", "loss", "last"] = "loss"


class Lesions(Computing):
    """Notebook 12: lesions as labels of a whole photograph, and a map for each (``docs/sources.md``, B).

    Attributes:
        audit: Result folder of notebook 01: photographs, split, lesion masks.
        model: Result folder of notebook 03: the network of five grades whose maps and decisions are compared.
        trained: Result folder of this notebook, whose networks and thresholds are looked at on ``audit``; empty trains them.
        subset: ``test``, ``validation``, ``train`` or ``all``: on which photographs of ``audit`` everything is measured.
        codes: The lesions that are labels.
        labels: ``masks``: present where the mask covers ``least_area``; ``manifest``: as the source says (``lesion_<CODE>``); or a CSV
            with ``image_id`` and a column a code of 0, 1 or nothing (not annotated). See :func:`drstudy.data.labels.read`.
        least_area: Share of the field of view from which a mask makes a label; 2e-5 is about one pixel at 256 px.
        backbone, weights, input_size, epochs, batch_size, learning_rate, views: Of the network that starts from published weights.
        network: A network that learns all its layers from random weights, beside it: a ResNet with a last stage at stride 1;
            empty is none. ``net_size, net_epochs, net_batch_size, net_learning_rate`` are its.
        loss, heaviest, gamma, select_by: See :class:`LesionRecipe`.
        decision: How lesions make one decision: ``max`` or ``noisy_or``; both are shown, this one is recorded.
        specificity: Wanted of the decisions on validation. 94.4 % is what the paper prints.
        lesion_maps: Result folder with finer maps of the same lesions and photographs (notebook 14), which are then outlined too; empty
            is none.
        max_images: Eyes with maps, drawn evenly over the grades; 0 is all.
        resamples: Of the patient bootstrap.
    """

    notebook: ClassVar[str] = "12_lesions"
    TRAINS: ClassVar[bool] = True
    SHOWS: ClassVar[frozenset[str]] = frozenset(
        {"model", "subset", "lesion_maps", "decision", "specificity", "max_images", "resamples"}
    )
    audit: str = "results/smoke/01_data_audit"
    model: str = "results/smoke/03_fine_tuning/efficientnet_lite0-seed0"
    trained: str = ""
    subset: Literal["train", "validation", "test", "all"] = "test"
    codes: tuple[Annotated[str, Field(pattern=r"^[A-Z]+$")], ...] = Field(
        default=("MA", "HE", "EX", "SE", "NV"), min_length=1, max_length=20
    )
    OUTSIDE: ClassVar[frozenset[str]] = frozenset({"labels", "weights"})
    labels: str = "masks"
    least_area: Annotated[float, Field(gt=0, lt=1)] = 2e-5
    backbone: str = "efficientnet_lite0"
    weights: str = "bundled"
    input_size: Annotated[int, Field(ge=32, le=2048)] = 96
    epochs: Positive = 3
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    views: Positive = 1
    network: Literal["", "resnet18_stride1", "resnet34_stride1", "resnet50_stride1"] = "resnet18_stride1"
    net_size: Annotated[int, Field(ge=32, le=2048)] = 64
    net_epochs: Positive = 1
    net_batch_size: Positive = 16
    net_learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    loss: Literal["bce", "focal", "asymmetric"] = "bce"
    heaviest: Annotated[float, Field(ge=1, le=1e6)] = 10.0
    gamma: Annotated[float, Field(ge=0, le=100)] = 2.0
    select_by: Literal["auc", "loss", "last"] = "loss"
    decision: Literal["max", "noisy_or"] = "max"
    specificity: Share = 0.944
    lesion_maps: str = ""
    max_images: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    resamples: Positive = 200

    @field_validator("codes")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"a lesion stands twice in {', '.join(value)}")
        return value

    @model_validator(mode="after")
    def _two_networks(self) -> Lesions:
        if self.backbone == self.network:
            raise ValueError(
                f"BACKBONE and NETWORK are both {self.backbone!r}: results are stored by name, so set NETWORK to '' or to another network"
            )
        return self

    def recipe(self) -> LesionRecipe:
        """Of the network that starts from published weights, through the feature store."""
        own = ("backbone", "weights", "input_size", "epochs", "batch_size", "learning_rate", "views")
        return LesionRecipe(**self._shared() | {name: getattr(self, name) for name in own})

    def net_recipe(self) -> LesionRecipe:
        """Of the network from random weights: a fresh view at every draw, as no layer stands still."""
        return LesionRecipe(
            **self._shared(),
            backbone=self.network,
            weights="none",
            input_size=self.net_size,
            epochs=self.net_epochs,
            batch_size=self.net_batch_size,
            learning_rate=self.net_learning_rate,
            views=0,
            feature_store=False,
        )

    def _shared(self) -> dict[str, Any]:
        own = {*Computing.model_fields, "audit", "codes", "loss", "heaviest", "gamma", "select_by"} - {
            "variant"
        }
        return self.model_dump(include=own) | {"sampler": "none"}
