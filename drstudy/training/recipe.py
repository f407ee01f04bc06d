"""The recipe of a training: how a network starts, what is drawn for it, and how long and how fast it learns."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from drstudy.core.params import Computing, Positive, Settings, explain
from drstudy.core.records import FULL, SHORT

__all__ = ["FULL", "SHORT", "SHORTENED", "Training"]

SHORTENED = (
    *(
        "EPOCHS",
        "VIEWS",
        "SAMPLER",
        "BATCH_SIZE",
        "LEARNING_RATE",
        "BETAS",
        "WEIGHT_DECAY",
        "LABEL_SMOOTHING",
    ),
    *("SELECT_BY", "FEATURE_STORE", "COMPILE", "INPUT_SIZE"),
)
"""Settings that ``WITHOUT_PRETRAINING`` may replace: those of the training. Backbone, head, weights and device are settled before it is
known whether weights are available."""


class Training(Computing):
    """The recipe of fine-tuning (``docs/sources.md``, A2 to A4), each oddity of the paper beside what we hold to be right.

    Attributes:
        audit: Result folder of notebook 01, with images and split.
        backbone: Name of the backbone in :mod:`drstudy.models.nets`.
        weights: ``imagenet``, ``imagenet-if-reachable``, ``bundled``, ``none`` or a path.
        head: ``paper`` (seven linear layers), ``single`` (one) or ``mlp``.
        frozen_bn: ``eval`` keeps the statistics of frozen batch norms; ``track`` lets them drift as the paper's code does.
        sampler: ``paper`` (weights 0.1, 1, 0.5, 3, 4), ``inverse``, ``sqrt`` or ``none``.
        epochs, batch_size, learning_rate, betas: Settings of the training with Adam. The paper: 100, 256, 1e-4, (0, 0.99).
        label_smoothing, weight_decay: Settings of the loss and of Adam, both 0 in the paper.
        views: Number of augmented views per image (K of the feature store); 0 draws a fresh view each time. Notebook 21 and
            ``params/README.md`` give the reason for 2.
        feature_store: Whether to cache the frozen trunk's output for all views.
        input_size: Side of the network's input, pixels. The paper: 224.
        compile: Whether to compile the frozen trunk with ``torch.compile``. It needs a C++ compiler and time at the start, and pays for
            thousands of images.
        select_by: Validation metric that chooses the epoch, ``qwk`` or ``loss``; ``last`` keeps the last epoch (the paper states no
            choice).
        without_pretraining: UPPER_CASE settings, among :data:`SHORTENED`, that replace those above if the network starts from random
            weights, requested or because no others were available; see :meth:`shortened`. A long training gains such a network little.
    """

    UNTRAINED: ClassVar[frozenset[str]] = frozenset(
        {"audit", "weights", "device", "precision", "without_pretraining"}
    )
    """Fields that are not part of a training's recipe. Data, starting weights, device and precision enter the identity of a training by
    their content. Subclasses name their own fields in addition. All other fields except :attr:`SHOWS` decide what is learnt."""

    OUTSIDE: ClassVar[frozenset[str]] = frozenset({"weights"})

    audit: str = "results/smoke/01_data_audit"
    backbone: str = "efficientnet_lite0"
    weights: str = "bundled"
    head: Literal["paper", "single", "mlp"] = "single"
    frozen_bn: Literal["eval", "track"] = "eval"
    sampler: Literal["paper", "inverse", "sqrt", "none"] = "paper"
    epochs: Positive = 3
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    views: Annotated[int, Field(ge=0, le=1000)] = 2
    feature_store: bool = True
    input_size: Annotated[int, Field(ge=32, le=2048)] = 96
    compile: bool = False
    select_by: Literal["qwk", "loss", "last"] = "qwk"
    without_pretraining: Settings = Field(default_factory=dict)

    @model_validator(mode="after")
    def _store_is_exact(self) -> Self:
        if self.feature_store and self.frozen_bn == "track":
            raise ValueError(
                "FEATURE_STORE with FROZEN_BN 'track' would not be exact: the frozen layers' statistics move while training, "
                "so their output cannot be cached. Set FEATURE_STORE to False or FROZEN_BN to 'eval'"
            )
        if self.feature_store and self.views == 0:
            raise ValueError(
                "VIEWS 0 draws fresh views each epoch, which cannot be cached. Set FEATURE_STORE to False or VIEWS to 1 or more"
            )
        return self

    @model_validator(mode="after")
    def _short_recipe_is_one(self) -> Self:
        given = self.without_pretraining
        problems = [_not_shortened(str(name), self.names()) for name in given if name not in SHORTENED]
        if not problems and given:
            try:
                short = self.shortened().model_dump(mode="json")
            except ValidationError as error:
                problems = [explain(item) for item in error.errors()]
            else:  # as numbers, where YAML handed over text
                object.__setattr__(self, "without_pretraining", {name: short[name.lower()] for name in given})
        if problems:
            raise ValueError("WITHOUT_PRETRAINING: " + "; ".join(problems))
        return self

    def trained_by(self) -> dict[str, Any]:
        """JSON-ready fields of this recipe that decide what is learnt."""
        left_out = set().union(
            *({*vars(kind).get("UNTRAINED", ()), *vars(kind).get("SHOWS", ())} for kind in type(self).__mro__)
        )
        return self.model_dump(mode="json", exclude=left_out)

    def shortened(self) -> Self:
        """The recipe of a network without pretraining: this one with the settings of ``without_pretraining``.

        Raises:
            pydantic.ValidationError: If the result is not a valid recipe. It cannot happen for parameters that were checked.
        """
        short = {name.lower(): value for name, value in self.without_pretraining.items()}
        return type(self)(**self.model_dump() | short | {"without_pretraining": {}})


def _not_shortened(name: str, known: list[str]) -> str:
    may = f"it may set {', '.join(SHORTENED)}"
    if name in known:
        return f"{name} cannot differ between networks with and without pretraining; {may}."
    near = difflib.get_close_matches(name.upper(), SHORTENED, n=1)
    return f"{name} is not a setting of it; " + (f"did you mean {near[0]}?" if near else f"{may}.")
