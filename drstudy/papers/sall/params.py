"""Parameters of notebook 13: DR and AMD learnt together from labels of one disease per photograph (Ju et al. 2021)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from drstudy.core.params import Computing, Positive, each_once
from drstudy.training.recipe import Training

DISEASES = ("dr", "amd")
"""Diabetic retinopathy and age-related macular degeneration, in the order of all tables."""

Disease = Literal["dr", "amd"]
Weight = Annotated[float, Field(ge=0, le=100)]
Rate = Annotated[float, Field(gt=0, le=10)]


class Setting(NamedTuple):
    """One way to train, as a change of the common recipe.

    Attributes:
        title: Name in tables and figures.
        kind: ``baseline``, ``method``, ``option``, ``control`` or ``reference``.
        soft: Where the soft labels come from: see :data:`drstudy.papers.sall.teachers.SOURCES`; empty is none.
        changes: Fields of :class:`SallRecipe` that differ.
    """

    title: str
    kind: str
    soft: str
    changes: dict[str, Any]


FEATURE, DOMAIN, RIVAL = {"feature_weight": 1.0}, {"adversary": "domain"}, {"adversary": "teacher"}

SETTINGS: dict[str, Setting] = {
    "single": Setting("single task", "baseline", "", {}),
    "hard": Setting("hard labels, two heads", "baseline", "", {}),
    "soft": Setting("soft labels", "method", "teacher", {}),
    "feature": Setting("soft + feature term", "method", "teacher", FEATURE),
    "adversarial": Setting("soft + domain adversary", "method", "teacher", DOMAIN),
    "rival": Setting("soft + teacher-student adversary", "method", "teacher", RIVAL),
    "full": Setting("full (soft + feature + domain adversary)", "method", "teacher", FEATURE | DOMAIN),
    "weighted": Setting("soft, weighted by confidence", "option", "teacher", {"weighted": True}),
    "mutual": Setting("two students teach each other", "option", "", {"mutual": True}),
    "released": Setting(
        "soft, losses as released",
        "option",
        "teacher",
        {"soft_weight": 1.0, "squared": False, "own_temperature": None},
    ),
    "random": Setting("soft, teacher of random weights", "control", "random", {}),
    "shuffled": Setting("soft, teacher of shuffled labels", "control", "shuffled", {}),
    "constant": Setting("soft, the teacher's mean for every photograph", "control", "mean", {}),
    "smoothing": Setting(
        "hard labels smoothed to the teacher's entropy", "control", "", {"smoothings": None}
    ),
    "self": Setting("soft labels of the own disease only", "control", "own", {"soft_on": "known"}),
    "oracle": Setting("hard labels of both diseases (hidden truth)", "reference", "", {}),
}
"""All settings by name. A change of ``None`` is filled in: ``own_temperature`` by the temperature, ``smoothings`` by the amounts that
give hard labels the entropy of the teachers' probabilities at T = 1. ``oracle`` reads the hidden truth and is no method: it shows how much there is to gain."""

FULL = "full"
"""The setting that the ledger's claims are about; named before any run."""

FRACTIONED = ("single", "hard", "soft", "full")
"""Settings that are trained on fractions of the labels."""

MAPPED = ("single", "hard", "soft", "full")
"""Settings whose maps are measured."""


class SallRecipe(Training):
    """Training of one student on pooled features of the frozen trunk; made by :class:`Sall`, never by hand.

    Attributes:
        heads: Diseases that the student learns.
        classes: Number of classes of each of :data:`DISEASES`.
        width: Width of the shared encoder.
        dropout: Dropout before each head; 0.5 in the release (``docs/sources.md``, C2).
        steps: Optimiser steps in an epoch, the same for each setting and each fraction of the labels.
        soft_weight: Weight of a soft label; that of a hard label is 1.
        soft_on: ``unknown``: soft labels stand in for labels that a photograph does not show. ``known``: they are added to those that it
            shows (self-distillation, a control).
        temperature: T of the soft labels and of the student's logits that are compared with them.
        squared: Whether the soft term has the factor T².
        own_temperature: T of the logits under hard labels, in training and in prediction; 1, or T in the release.
        smoothings: Label smoothing of each of :data:`DISEASES`.
        weighted: Whether a soft label counts by the teacher's confidence; see :func:`drstudy.papers.sall.losses.confidence`.
        mutual: Whether a second student learns beside the first and each is the other's teacher.
        feature_weight: Weight of the term that matches the teacher's features; 0 is none.
        adversary: ``none``, ``domain`` (gradient reversal) or ``teacher`` (a discriminator with an optimiser of its own).
        adversary_weight: Greatest weight of the adversarial term; it rises from 0.
        adversary_learning_rate: Rate of Adam for the discriminator of ``teacher``.
    """

    notebook: ClassVar[str] = "13_sall"
    sampler: Literal["none"] = "none"
    select_by: Literal["loss", "last"] = "loss"

    heads: tuple[Disease, ...] = DISEASES
    classes: tuple[Annotated[int, Field(ge=2, le=5)], Annotated[int, Field(ge=2, le=5)]] = (5, 4)
    width: Positive = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    steps: Positive = 20
    soft_weight: Weight = 0.5
    soft_on: Literal["unknown", "known"] = "unknown"
    temperature: Annotated[float, Field(ge=1, le=100)] = 3.0
    squared: bool = True
    own_temperature: Annotated[float, Field(ge=1, le=100)] = 1.0
    smoothings: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.0, 0.0)
    weighted: bool = False
    mutual: bool = False
    feature_weight: Weight = 0.0
    adversary: Literal["none", "domain", "teacher"] = "none"
    adversary_weight: Weight = 0.1
    adversary_learning_rate: Rate = 1e-3

    def smoothing(self, disease: str) -> float:
        """Label smoothing of a disease."""
        return dict(zip(DISEASES, self.smoothings))[disease]

    def outputs(self) -> dict[str, int]:
        """Number of classes of each head, by disease."""
        return {name: dict(zip(DISEASES, self.classes))[name] for name in self.heads}


class Sall(Computing):
    """Notebook 13: two diseases from labels of one disease per photograph (``docs/sources.md``, C).

    Attributes:
        audit: Result folder of notebook 01 whose manifest has a label of both diseases.
        eyes: Result folder of notebook 01 with the eyes of the main study, on which one student is tested too.
        dr_label, amd_label: Columns of that manifest; an AMD column of yes and no has two classes.
        classes: Number of classes of DR and of AMD.
        backbone, weights, input_size, views: Frozen network whose pooled features are stored, and number of augmented views per photograph.
        width, dropout, epochs, steps, batch_size, learning_rate, weight_decay: Student, and its training with Adam.
        temperature, soft_weight, feature_weight, adversary_weight, adversary_learning_rate: See :class:`SallRecipe`.
        settings: Names of :data:`SETTINGS` that are trained; ``single`` and ``full`` must be among them.
        seeds: Number of seeds; the networks of one seed share their starting weights and the teachers of that seed.
        folds: Folds over patients for the teachers' predictions on photographs that they learn from.
        fractions: Shares of the labelled patients for the settings of :data:`FRACTIONED`; 1 must be among them.
        bins: Bins of the calibration error.
        maps: Whether maps are measured on masks; the photographs need some.
        map_seeds: Number of seeds whose maps are measured; their scores are averaged by eye.
        resamples: Number of resamples of the bootstrap over patients.
    """

    notebook: ClassVar[str] = "13_sall"
    TRAINS: ClassVar[bool] = True
    SHOWS: ClassVar[frozenset[str]] = frozenset({"bins", "maps", "map_seeds", "resamples", "settings"})
    OUTSIDE: ClassVar[frozenset[str]] = frozenset({"weights"})

    audit: str = "results/smoke/01_data_audit/amd"
    eyes: str = "results/smoke/01_data_audit"
    dr_label: str = "grade"
    amd_label: str = "amd_grade"
    classes: tuple[Annotated[int, Field(ge=2, le=5)], Annotated[int, Field(ge=2, le=5)]] = (5, 4)
    backbone: str = "efficientnet_lite0"
    weights: str = "bundled"
    input_size: Annotated[int, Field(ge=32, le=2048)] = 96
    views: Positive = 1
    width: Positive = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    epochs: Positive = 3
    steps: Positive = 8
    batch_size: Annotated[int, Field(ge=2, le=100_000)] = 16
    learning_rate: Rate = 1e-2
    weight_decay: Weight = 0.0
    temperature: Annotated[float, Field(ge=1, le=100)] = 3.0
    soft_weight: Weight = 0.5
    feature_weight: Weight = 1.0
    adversary_weight: Weight = 0.1
    adversary_learning_rate: Rate = 1e-3
    settings: tuple[str, ...] = tuple(SETTINGS)
    seeds: Annotated[int, Field(ge=1, le=100)] = 2
    folds: Annotated[int, Field(ge=2, le=20)] = 2
    fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.5, 1.0)
    bins: Annotated[int, Field(ge=2, le=100)] = 15
    maps: bool = True
    map_seeds: Annotated[int, Field(ge=1, le=100)] = 1
    resamples: Positive = 200

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in SETTINGS]:
            raise ValueError(f"{unknown[0]!r} is no setting; there are {', '.join(SETTINGS)}")
        if missing := [name for name in ("single", FULL) if name not in value]:
            raise ValueError(
                f"{missing[0]!r} is missing: every gain is measured against 'single', and claims are about {FULL!r}"
            )
        return each_once(value)

    @field_validator("fractions")
    @classmethod
    def _with_all_labels(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if 1.0 not in value:
            raise ValueError("1.0 must be among the fractions: it is what the others are compared with")
        return tuple(sorted(each_once(value)))

    @model_validator(mode="after")
    def _seeds_have_maps(self) -> Self:
        if self.map_seeds > self.seeds:
            raise ValueError(f"MAP_SEEDS is {self.map_seeds}, but there are only {self.seeds} SEEDS")
        return self

    def recipe(self, setting: str, seed: int, **changes: Any) -> SallRecipe:
        """The recipe of one training.

        Args:
            setting: Name of a setting; a change of ``None`` must be given, but for ``own_temperature``.
            seed: Number of the seed, from 0; it is added to :attr:`seed`.
            changes: Fields over those of the setting, such as ``heads``.
        """
        own = {*SallRecipe.model_fields} & {*type(self).model_fields} - {"variant", "feature_weight", "seed"}
        given = {name: value for name, value in SETTINGS[setting].changes.items() if value is not None}
        if "feature_weight" in given:
            given["feature_weight"] = self.feature_weight
        if "own_temperature" in SETTINGS[setting].changes:
            given["own_temperature"] = self.temperature
        values = self.model_dump(include=own) | {"seed": self.seed + seed}
        return SallRecipe(**values | given | changes)
