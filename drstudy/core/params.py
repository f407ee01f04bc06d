"""Checked parameters: one class a notebook, used right after papermill has injected.

Papermill only warns of an unknown name and turns a YAML ``1e-4`` into a string (its documented behaviour); here the
first is an error that names the nearest field and the second is read as a number. In the notebooks and in
``params/<profile>/*.yaml`` the names are UPPER_CASE, in Python they are attributes in lower case.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from drstudy.core import paths

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Settings = dict[str, Any]
Variant = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$")]


class ParameterError(ValueError):
    """A parameter has an unknown name, a wrong type, or a value out of range."""


class Parameters(BaseModel):
    """What every notebook takes.

    Attributes:
        profile: Name of the profile; results go to ``results/<profile>/``.
        variant: Sub-folder of the result where a notebook runs more than once (backbone and seed), else empty.
        seed: Seed of everything random in this notebook.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    notebook: ClassVar[str] = ""

    profile: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")] = "smoke"
    variant: Variant = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @classmethod
    def names(cls) -> list[str]:
        """The names as notebooks write them."""
        return [name.upper() for name in cls.model_fields]

    @classmethod
    def check(cls, namespace: Mapping[str, Any]) -> Self:
        """Build the parameters from a notebook's ``globals()`` (or any mapping with UPPER_CASE names).

        Raises:
            ParameterError: Naming each field that is unknown, of a wrong type or out of range, and what to write instead.
        """
        given = {
            name: value
            for name, value in namespace.items()
            if name.isupper() and not name.startswith("_") and not isinstance(value, types.ModuleType | type)
        }
        problems = [_unknown(name, cls.names()) for name in given if name not in cls.names()]
        known = {name.lower(): value for name, value in given.items() if name in cls.names()}
        try:
            parameters = cls(**known)
        except ValidationError as error:
            problems += [_explain(item) for item in error.errors()]
        if problems:
            where = f"notebook {cls.notebook}" if cls.notebook else cls.__name__
            raise ParameterError(f"Parameters of {where}:\n" + "\n".join(f"  - {line}" for line in problems))
        return parameters

    @property
    def folder(self) -> Path:
        """Where this notebook's result goes: ``results/<profile>/<notebook>[/<variant>]``."""
        return paths.results() / self.profile / self.notebook / self.variant

    def upper(self) -> dict[str, Any]:
        """As JSON-ready UPPER_CASE names: what ``run.json`` records and papermill takes."""
        return {name.upper(): value for name, value in self.model_dump(mode="json").items()}


class Computing(Parameters):
    """For notebooks that run a network.

    Attributes:
        device, precision, threads: See :func:`drstudy.core.devices.setup`.
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    threads: Annotated[int, Field(ge=0)] = 0


class PaperAudit(Parameters):
    """Notebook 00: nothing to set; it computes from what the papers print."""

    notebook: ClassVar[str] = "00_paper_audit"


class DataAudit(Parameters):
    """Notebook 01.

    Attributes:
        source: Layout of the data: phantom, eyepacs, aptos, idrid or folder.
        data_root: Folder of the data set; for the phantom, empty means a folder under ``data/`` named by what makes it.
        image_size: Side of the square field-of-view crops in the image store, pixels.
        split_by: ``patient`` keeps both eyes on one side; ``image`` is the paper's and leaks (only to measure that).
        fractions: Shares of train, validation and test.
        near_duplicate_bits: Greatest Hamming distance of two 64-bit perceptual hashes that counts as near duplicate.
        max_megapixels: Larger files are quarantined as possible decompression bombs.
        workers: Processes that decode; 0 is one a core.
        n_patients, phantom_size, distribution, difficulty, label_noise: See :class:`drstudy.data.phantom.PhantomConfig`.
    """

    notebook: ClassVar[str] = "01_data_audit"
    source: Literal["phantom", "eyepacs", "aptos", "idrid", "folder"] = "phantom"
    data_root: str = ""
    image_size: Annotated[int, Field(ge=32, le=2048)] = 128
    split_by: Literal["patient", "image"] = "patient"
    fractions: tuple[Share, Share, Share] = (0.6, 0.15, 0.25)
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = 6
    max_megapixels: Annotated[float, Field(gt=0)] = 120.0
    workers: Annotated[int, Field(ge=0)] = 0
    n_patients: Positive = 40
    phantom_size: Annotated[int, Field(ge=64, le=2048)] = 256
    distribution: str = "mild"
    difficulty: Share = 0.5
    label_noise: Share = 0.0

    @field_validator("fractions")
    @classmethod
    def _sums_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1) > 1e-6:
            raise ValueError(f"train, validation and test must sum to 1, not {sum(value):g}")
        return value


class Training(Computing):
    """The recipe of fine-tuning (*spec* A2 to A4), each oddity of the paper beside what we hold to be right.

    Attributes:
        audit: Result folder of notebook 01: images, split.
        backbone: Name in :mod:`drstudy.models.nets`.
        weights: ``imagenet``, ``imagenet-if-reachable``, ``bundled``, ``none`` or a path.
        head: ``paper`` (seven linear layers), ``single`` (one) or ``mlp``.
        frozen_bn: ``eval`` keeps the statistics of frozen batch norms; ``track`` lets them drift as the paper's code does.
        sampler: ``paper`` (weights 0.1, 1, 0.5, 3, 4), ``inverse``, ``sqrt`` or ``none``.
        epochs, batch_size, learning_rate, betas: Of Adam. The paper: 100, 256, 1e-4, (0, 0.99).
        label_smoothing, weight_decay: Both 0 in the paper.
        views: Augmented views an image has (K of the feature store); 0 draws a fresh one each time. Why 2: notebook 21, and
            ``params/README.md`` with what it measured.
        feature_store: Cache the frozen trunk's output for all views.
        input_size: Side of the network's input, pixels. The paper: 224.
        compile: Hand the frozen trunk to ``torch.compile``: half a minute or more at first (a C++ compiler is needed), then faster;
            it pays for thousands of images.
        select_by: Which validation number chooses the epoch: ``qwk`` or ``loss``; ``last`` keeps the last epoch (the paper states
            no choice).
        without_pretraining: UPPER_CASE settings of :data:`SHORTENED` that hold instead of the above where the network starts from
            random weights, whether these were asked for or nothing else could be had; see :meth:`shortened`. Such a network has
            little to show for a long training.
    """

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
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    views: Annotated[int, Field(ge=0, le=1000)] = 2
    feature_store: bool = True
    input_size: Annotated[int, Field(ge=32, le=2048)] = 96
    compile: bool = False
    select_by: Literal["qwk", "loss", "last"] = "qwk"
    without_pretraining: Settings = {}

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
                problems = [_explain(item) for item in error.errors()]
            else:  # as numbers, where YAML handed over text
                object.__setattr__(self, "without_pretraining", {name: short[name.lower()] for name in given})
        if problems:
            raise ValueError("WITHOUT_PRETRAINING: " + "; ".join(problems))
        return self

    def shortened(self) -> Self:
        """The recipe of a network without pretraining: this one with the settings of ``without_pretraining`` in their places.

        Raises:
            pydantic.ValidationError: If they are no recipe; checked parameters have been asked already.
        """
        short = {name.lower(): value for name, value in self.without_pretraining.items()}
        return type(self)(**self.model_dump() | short | {"without_pretraining": {}})


class Oversampling(Training):
    """Notebook 02: the recipe of the short fine-tunes, one a sampler.

    Attributes:
        samplers: Those compared; they take the place of ``sampler``.
        leak_folds, leak_epochs: Of the networks that show what a leak is worth; see :mod:`drstudy.papers.transfer.leaks`.
        resamples: Of the patient bootstrap.
    """

    notebook: ClassVar[str] = "02_oversampling"
    select_by: Literal["qwk", "loss", "last"] = "last"
    samplers: tuple[Literal["paper", "inverse", "sqrt", "none"], ...] = ("none", "sqrt", "inverse", "paper")
    leak_folds: Annotated[int, Field(ge=2, le=20)] = 3
    leak_epochs: Positive = 3
    resamples: Positive = 200


class FineTuning(Training):
    """Notebook 03: one backbone, one seed.

    Attributes:
        resamples: Of the patient bootstrap.
        keep_features: Keep the feature store after the run (it is large, and made again when needed).
        processes: That train the network together, one a GPU (on a CPU only to test it); each step's batch is divided among them.
    """

    notebook: ClassVar[str] = "03_fine_tuning"
    variant: Variant = "efficientnet_lite0-seed0"
    resamples: Positive = 200
    keep_features: bool = False
    processes: Positive = 1


class BackboneComparison(Parameters):
    """Notebook 04.

    Attributes:
        runs: Result folders of notebook 03, one a backbone and seed.
        ablations: Result folders of notebook 03: the paper's recipe first, then with one setting changed each; may be none.
        heatmaps: Result folders of notebook 05, for what the layer of the maps is worth; may be none.
        leaks: Result folder of notebook 02, for what the split is worth; may be empty.
        resamples: Of the patient bootstrap, shared by all backbones.
    """

    notebook: ClassVar[str] = "04_backbone_comparison"
    runs: tuple[str, ...] = Field(
        default=(
            "results/smoke/03_fine_tuning/efficientnet_lite0-seed0",
            "results/smoke/03_fine_tuning/densenet121-seed0",
        ),
        min_length=1,
    )
    ablations: tuple[str, ...] = ()
    heatmaps: tuple[str, ...] = ()
    leaks: str = ""
    resamples: Positive = 200


class Reliability(Parameters):
    """Notebook 06.

    Attributes:
        runs: Result folders of notebook 03, one a backbone and seed.
        cut: What is to be referred: this grade or more.
        specificities: For which thresholds are chosen on validation.
        bins: Of the reliability curve and the calibration error.
        resamples: Of the patient bootstrap, shared by all runs.
    """

    notebook: ClassVar[str] = "06_reliability"
    runs: tuple[str, ...] = Field(
        default=(
            "results/smoke/03_fine_tuning/efficientnet_lite0-seed0",
            "results/smoke/03_fine_tuning/densenet121-seed0",
        ),
        min_length=1,
    )
    cut: Annotated[int, Field(ge=1, le=4)] = 2
    specificities: tuple[Share, ...] = Field(default=(0.9, 0.95), min_length=1)
    bins: Annotated[int, Field(ge=2, le=100)] = 15
    resamples: Positive = 200


class HeatmapAnalysis(Computing):
    """Notebook 05.

    Attributes:
        model: Result folder of notebook 03: the network that is explained.
        others: Result folders of notebook 03 with the same backbone and other seeds, if any: whose maps should be alike.
        audit: Result folder of notebook 01: the images that it is explained on (they may be another source's).
        subset: ``test``, ``validation``, ``train`` or ``all`` images of that split.
        max_images: At most so many, drawn evenly over the grades; 0 is all.
        layers: Where the maps are taken; empty is the backbone's candidates (DenseNet121: ``denselayer16``,
            ``denseblock4``, ``norm5_relu``; *spec* A6).
        target: Which class a map explains: ``predicted`` (the paper's) or ``grade`` (the true one).
        tolerance: Of the pointing game, disc diameters.
        checked: Eyes on which several methods are compared; at most so many, with lesions, drawn evenly over the grades.
        checks: Backbones that also get the costly part: pixel-level and finer maps, faithfulness, sanity checks (a network is
            trained on shuffled labels).
        resamples: Of the patient bootstrap.
    """

    notebook: ClassVar[str] = "05_heatmap_analysis"
    variant: Variant = "densenet121-seed0"
    model: str = "results/smoke/03_fine_tuning/densenet121-seed0"
    others: tuple[str, ...] = ()
    audit: str = "results/smoke/01_data_audit"
    subset: Literal["train", "validation", "test", "all"] = "test"
    max_images: Annotated[int, Field(ge=0)] = 0
    layers: tuple[str, ...] = ()
    target: Literal["predicted", "grade"] = "predicted"
    tolerance: Annotated[float, Field(ge=0, le=2)] = 0.25
    checked: Positive = 6
    checks: tuple[str, ...] = ("densenet121", "efficientnet_lite0")
    resamples: Positive = 200


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
    colour_noise: Annotated[float, Field(ge=0)] = 0.5
    biases: Literal["untied", "tied"] = "untied"
    batch_norm: bool = True


class Ram(Computing):
    """Notebook 11: networks that regress the grade, and their maps (*spec* E).

    Attributes:
        audit: Result folder of notebook 01.
        model: Result folder of notebook 03: the classification network whose Grad-CAM the maps are compared with.
        networks: Of the paper, trained from random weights: names in :mod:`drstudy.papers.ram.layers`.
        backbone: A pretrained network with a regression head, trained beside them; empty is none.
        weights: Of the backbone; as in notebook 03.
        sizes: Sides of the photographs, in this order; a network of the paper goes from each to the next with its weights.
        sampler, balance_ratio, momentum, weight_decay, drops: Of all, and of the paper's networks (*spec* E4).
        net_epochs, net_learning_rates: One a size; 0 epochs leave out that size.
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
    net_epochs: tuple[Annotated[int, Field(ge=0)], ...] = (1, 1)
    net_learning_rates: tuple[Annotated[float, Field(gt=0, le=10)], ...] = (1e-3, 1e-3)
    net_batch_size: Positive = 16
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    drops: tuple[Share, ...] = (0.6, 0.88)
    augmentation: Literal["paper", "fixed"] = "fixed"
    colour_noise: Annotated[float, Field(ge=0)] = 0.5
    biases: Literal["untied", "tied"] = "untied"
    batch_norm: bool = True
    epochs: Positive = 3
    batch_size: Positive = 32
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    views: Positive = 1
    select_by: Literal["qwk", "loss", "last"] = "qwk"
    tta: bool = False
    max_images: Annotated[int, Field(ge=0)] = 0
    timed_size: Literal[128, 256, 512] = 128
    timed_images: Positive = 8
    timed_rounds: Annotated[int, Field(ge=0)] = 4
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
        names = (
            "profile",
            "seed",
            "device",
            "precision",
            "threads",
            "audit",
            "sampler",
            "balance_ratio",
            "select_by",
        )
        return {name: getattr(self, name) for name in names} | {"input_size": size}

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


class LesionRecipe(Training):
    """One network with a sigmoid a lesion, as :mod:`drstudy.papers.lesions.training` trains it; made by :class:`Lesions`, never by hand.

    Attributes:
        codes: Lesions in the order of the outputs.
        loss: ``bce``, ``focal`` or ``asymmetric``; see :func:`drstudy.papers.lesions.training.loss`.
        heaviest: Greatest weight of a positive label; the least is one over it.
        gamma: Of ``focal``.
    """

    notebook: ClassVar[str] = "12_lesions"
    codes: tuple[str, ...]
    loss: Literal["bce", "focal", "asymmetric"] = "bce"
    heaviest: Annotated[float, Field(ge=1)] = 10.0
    gamma: Annotated[float, Field(ge=0)] = 2.0
    select_by: Literal["loss", "last"] = "loss"


class Lesions(Computing):
    """Notebook 12: lesions as labels of a whole photograph, and a map for each (*spec* B).

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
        max_images: Eyes with maps, drawn evenly over the grades; 0 is all.
        resamples: Of the patient bootstrap.
    """

    notebook: ClassVar[str] = "12_lesions"
    audit: str = "results/smoke/01_data_audit"
    model: str = "results/smoke/03_fine_tuning/efficientnet_lite0-seed0"
    trained: str = ""
    subset: Literal["train", "validation", "test", "all"] = "test"
    codes: tuple[Annotated[str, Field(pattern=r"^[A-Z]+$")], ...] = Field(
        default=("MA", "HE", "EX", "SE", "NV"), min_length=1, max_length=20
    )
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
    heaviest: Annotated[float, Field(ge=1)] = 10.0
    gamma: Annotated[float, Field(ge=0)] = 2.0
    select_by: Literal["loss", "last"] = "loss"
    decision: Literal["max", "noisy_or"] = "max"
    specificity: Share = 0.944
    max_images: Annotated[int, Field(ge=0)] = 0
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
                f"BACKBONE and NETWORK are both {self.backbone!r}: results go by name; set NETWORK to '' or another"
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
        names = (
            "profile",
            "seed",
            "device",
            "precision",
            "threads",
            "audit",
            "codes",
            "loss",
            "heaviest",
            "gamma",
            "select_by",
        )
        return {name: getattr(self, name) for name in names} | {"sampler": "none"}


class ViewsStudy(Training):
    """Notebook 21: how many augmented views are enough.

    Attributes:
        views_compared: Those compared; they take the place of ``views``. 0 is a fresh view at every draw, and must be among them.
        repeats: Networks trained with each, with seeds one apart; their scores are averaged.
        feature_store: Always; fresh views do without.
        resamples: Of the patient bootstrap.
    """

    notebook: ClassVar[str] = "21_views"
    feature_store: Literal[True] = True
    select_by: Literal["qwk", "loss", "last"] = "last"
    views_compared: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = (1, 2, 0)
    repeats: Positive = 2
    resamples: Positive = 200

    @field_validator("views_compared")
    @classmethod
    def _rise_and_end_fresh(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        fixed = value[:-1]
        if not fixed or value[-1] != 0 or 0 in fixed or list(fixed) != sorted(set(fixed)):
            raise ValueError("numbers of views must rise, and end with 0 for fresh ones, as in (1, 2, 4, 0)")
        return value


BY_NOTEBOOK: dict[str, type[Parameters]] = {
    cls.notebook: cls
    for cls in (
        PaperAudit,
        DataAudit,
        Oversampling,
        FineTuning,
        BackboneComparison,
        HeatmapAnalysis,
        Reliability,
        Ram,
        Lesions,
        ViewsStudy,
    )
}

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
"""What ``WITHOUT_PRETRAINING`` may set: how a network is trained. What the network is (backbone, head, weights) and where it runs is
settled before it is known whether weights could be had."""

SHORT, FULL = "without_pretraining", "full"
"""The metric ``recipe`` of a record: whether the settings of ``WITHOUT_PRETRAINING`` held."""

PAPER: dict[str, Any] = {
    "weights": "imagenet",
    "head": "paper",
    "frozen_bn": "track",
    "sampler": "paper",
    "epochs": 100,
    "batch_size": 256,
    "learning_rate": 1e-4,
    "betas": (0.0, 0.99),
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "views": 0,
    "input_size": 224,
}
"""The recipe that the main paper prints, or implies (*spec* A2 to A4); ``frozen_bn: track`` is what its printed code does."""


def paper_recipe() -> dict[str, Any]:
    """:data:`PAPER` as UPPER_CASE parameters of notebook 03, with what follows from it: the trunk of ``track`` cannot be
    cached, the last epoch is kept, as the paper states no choice, and no shorter recipe takes its place."""
    recipe = {
        name.upper(): list(value) if isinstance(value, tuple) else value for name, value in PAPER.items()
    }
    return recipe | {"FEATURE_STORE": False, "SELECT_BY": "last", "WITHOUT_PRETRAINING": {}}


def deviations(parameters: Training | Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where a recipe differs from the paper's: ``{name: (here, paper)}``, so that no table mixes the two without a label."""
    given = (
        parameters.model_dump()
        if isinstance(parameters, BaseModel)
        else {k.lower(): v for k, v in parameters.items()}
    )
    here = {name: tuple(given[name]) if isinstance(given[name], list) else given[name] for name in PAPER}
    return {name: (here[name], PAPER[name]) for name in PAPER if here[name] != PAPER[name]}


def from_files(notebook: str, files: list[Path], overrides: Mapping[str, Any] | None = None) -> Parameters:
    """Merge flat YAML files (later wins) and overrides, and check them before any kernel starts.

    Raises:
        KeyError: If there is no such notebook, with the names that exist.
        ParameterError: As :meth:`Parameters.check`; also if a file is not a flat mapping, but for parameters that are mappings
            themselves (``WITHOUT_PRETRAINING``), which are taken whole.
    """
    if notebook not in BY_NOTEBOOK:
        raise KeyError(f"There is no notebook {notebook!r}; there are {', '.join(BY_NOTEBOOK)}.")
    merged: dict[str, Any] = {}
    fields = BY_NOTEBOOK[notebook].model_fields.items()
    mappings = {name.upper() for name, field in fields if field.annotation == Settings}
    for file in files:
        content = yaml.safe_load(file.read_text()) or {}
        if not isinstance(content, dict) or any(
            isinstance(value, dict) and name not in mappings for name, value in content.items()
        ):
            but = f"; only {', '.join(sorted(mappings))} holds settings itself" if mappings else ""
            raise ParameterError(f"{paths.show(file)} must be a flat mapping of NAME: value{but}.")
        _upper_case(content, paths.show(file))
        merged.update(content)
    _upper_case(overrides or {}, "Parameters given directly")
    merged.update(overrides or {})
    return BY_NOTEBOOK[notebook].check(merged)


def _upper_case(names: Iterable[Any], where: str) -> None:
    lower = [str(name) for name in names if not str(name).isupper()]
    if lower:
        raise ParameterError(f"{where}: names are written in UPPER CASE, not {', '.join(lower)}.")


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
    return f"{name} is not a parameter of this notebook; {hint}"


def _not_shortened(name: str, known: list[str]) -> str:
    may = f"it may set {', '.join(SHORTENED)}"
    if name in known:
        return f"{name} cannot differ between networks with and without pretraining; {may}."
    near = difflib.get_close_matches(name.upper(), SHORTENED, n=1)
    return f"{name} is not a setting of it; " + (f"did you mean {near[0]}?" if near else f"{may}.")


def _explain(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"]).upper()
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{name} = {error['input']!r}: {message}" if name else message
