"""Parameters of the main study's notebooks (00 to 06), and the recipe that its paper (Nian & Jin 2025) prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from drstudy.core.params import Computing, Parameters, Positive, Share, Variant, each_once, identity_pattern
from drstudy.training.recipe import Training


class PaperAudit(Parameters):
    """Notebook 00: nothing to set; it computes from what the papers print."""

    notebook: ClassVar[str] = "00_paper_audit"


class DataAudit(Parameters):
    """Notebook 01.

    Attributes:
        source: Layout of the data: phantom, eyepacs, aptos, idrid, diaretdb1, odir, folder or pooled.
        data_root: Folder of the data set; for the phantom, empty means a folder under ``data/`` named by what makes it; for pooled, the parts
            as ``source:folder + source:folder``.
        votes: Number of experts, of four, who must have marked a pixel for it to belong to a lesion; diaretdb1 only.
        patient_pattern: Regular expression for the name of an image without its suffix, with a group ``patient`` and perhaps
            ``eye``; empty means the known schemes, such as ``12_left``.
        ignore: Files and folders directly below ``data_root`` that are left out.
        most_lost: Greatest share of the rows and files that may be left out; above it the audit refuses the data.
        image_size: Side of the square field-of-view crops in the image store, pixels.
        split_by: ``patient`` keeps both eyes on one side; ``image`` is the paper's and leaks (only to measure that).
        fractions: Shares of train, validation and test.
        split_from: Result folder of another audit of the same photographs, such as at another size, whose split and duplicates
            are taken; empty means that a split is drawn. ``split_by`` and ``fractions`` must be those of that audit.
        near_duplicate_bits: Greatest Hamming distance of two 64-bit perceptual hashes that counts as near duplicate.
        max_megapixels: Larger files are quarantined as possible decompression bombs.
        workers: Processes that decode; 0 is one per core.
        n_patients, phantom_size, distribution, difficulty, label_noise: See :class:`drstudy.data.phantom.PhantomConfig`.
        amd_shares: Shares of the phantom's eyes with DR only, AMD only, both, neither; empty is a phantom without AMD, of which
            nothing is recorded.
        amd_distribution: Among its eyes with AMD, shares of the grades 1 (small drusen), 2 (large drusen) and 3 (CNV).
        amd_atrophy: Among those of grade 2 or more, share with geographic atrophy.
    """

    notebook: ClassVar[str] = "01_data_audit"
    OUTSIDE: ClassVar[frozenset[str]] = frozenset({"data_root"})
    source: Literal["phantom", "eyepacs", "aptos", "idrid", "diaretdb1", "odir", "folder", "pooled"] = (
        "phantom"
    )
    data_root: str = ""
    votes: Annotated[int, Field(ge=1, le=4)] = 3
    patient_pattern: str = ""
    ignore: tuple[str, ...] = ()
    most_lost: Share = 0.2
    image_size: Annotated[int, Field(ge=32, le=2048)] = 128
    split_by: Literal["patient", "image"] = "patient"
    fractions: tuple[Share, Share, Share] = (0.6, 0.15, 0.25)
    split_from: str = ""
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = 6
    max_megapixels: Annotated[float, Field(gt=0, le=10_000)] = 120.0
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    n_patients: Positive = 40
    phantom_size: Annotated[int, Field(ge=64, le=2048)] = 256
    distribution: Literal["mild", "eyepacs"] = "mild"
    difficulty: Share = 0.5
    label_noise: Share = 0.0
    amd_shares: tuple[Share, ...] = ()
    amd_distribution: tuple[Share, Share, Share] = (0.34, 0.33, 0.33)
    amd_atrophy: Share = 0.15

    def places(self, name: str) -> list[str]:
        """As of every notebook; of pooled data the folder of each part."""
        found = super().places(name)
        if name != "DATA_ROOT" or self.source != "pooled":
            return found
        from drstudy.data.sources import pooled

        return [place for value in found for place in pooled.folders(value)]

    @field_validator("patient_pattern")
    @classmethod
    def _has_a_patient(cls, value: str) -> str:
        return identity_pattern(value)

    @field_validator("fractions")
    @classmethod
    def _sums_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1) > 1e-6:
            raise ValueError(f"train, validation and test must sum to 1, not {sum(value):g}")
        return value

    @field_validator("amd_shares")
    @classmethod
    def _four_or_none(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and (len(value) != 4 or abs(sum(value) - 1) > 1e-6):
            raise ValueError(
                f"DR only, AMD only, both and neither are four shares that sum to 1, or none; not {list(value)}"
            )
        return value

    @field_validator("amd_distribution")
    @classmethod
    def _amd_sums_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1) > 1e-6:
            raise ValueError(f"grades 1, 2 and 3 of AMD must sum to 1, not {sum(value):g}")
        return value


class Oversampling(Training):
    """Notebook 02: the recipe of the short fine-tunes, one a sampler.

    Attributes:
        samplers: Those compared; they take the place of ``sampler``.
        leak_folds, leak_epochs: Of the networks that show how much a leak raises a score; see :mod:`drstudy.papers.transfer.leaks`.
        resamples: Of the patient bootstrap.
    """

    notebook: ClassVar[str] = "02_oversampling"
    select_by: Literal["qwk", "loss", "last"] = "last"
    TRAINS: ClassVar[bool] = True
    SHOWS: ClassVar[frozenset[str]] = frozenset({"resamples"})
    UNTRAINED: ClassVar[frozenset[str]] = frozenset({"samplers", "leak_folds", "leak_epochs"})
    samplers: tuple[Literal["paper", "inverse", "sqrt", "none"], ...] = Field(
        default=("none", "sqrt", "inverse", "paper"), min_length=1
    )
    leak_folds: Annotated[int, Field(ge=2, le=20)] = 3
    leak_epochs: Positive = 3
    resamples: Positive = 200
    _samplers_once = field_validator("samplers")(each_once)


class FineTuning(Training):
    """Notebook 03: one backbone, one seed.

    Attributes:
        resamples: Of the patient bootstrap.
        keep_features: Keep the feature store after the run (it is large, and made again when needed).
        processes: That train the network together, one per GPU (on a CPU only to test it); each step's batch is divided among them.
    """

    notebook: ClassVar[str] = "03_fine_tuning"
    TRAINS: ClassVar[bool] = True
    SHOWS: ClassVar[frozenset[str]] = frozenset({"resamples", "keep_features", "processes"})
    made_by: ClassVar[str] = "drstudy.papers.transfer.training:task"
    variant: Variant = "efficientnet_lite0-seed0"
    resamples: Positive = 200
    keep_features: bool = False
    processes: Annotated[int, Field(ge=1, le=64)] = 1


class BackboneComparison(Parameters):
    """Notebook 04.

    Attributes:
        runs: Result folders of notebook 03, one per backbone and seed.
        ablations: Result folders of notebook 03: the paper's recipe first, then with one setting changed each; may be none.
        heatmaps: Result folders of notebook 05, for the ablation of the layer of the maps; may be none.
        leaks: Result folder of notebook 02, for the ablation of the split; may be empty.
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
    _results_once = field_validator("runs", "ablations", "heatmaps")(each_once)


class Reliability(Parameters):
    """Notebook 06.

    Attributes:
        runs: Result folders of notebook 03, one per backbone and seed.
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
    _results_once = field_validator("runs")(each_once)


class HeatmapAnalysis(Computing):
    """Notebook 05.

    Attributes:
        model: Result folder of notebook 03: the network that is explained.
        others: Result folders of notebook 03 with the same backbone and other seeds, if any: whose maps should be alike.
        audit: Result folder of notebook 01: the images that it is explained on (they may be another source's).
        subset: ``test``, ``validation``, ``train`` or ``all`` images of that split.
        max_images: At most so many, drawn evenly over the grades; 0 is all.
        layers: Where the maps are taken; empty is the backbone's candidates (DenseNet121: ``denselayer16``,
            ``denseblock4``, ``norm5_relu``; ``docs/sources.md``, A6).
        target: Which class a map explains: ``predicted`` (the paper's) or ``grade`` (the true one).
        tolerance: Of the pointing game, disc diameters.
        checked: Eyes on which several methods are compared; at most so many, with lesions, drawn evenly over the grades.
        checks: Backbones that also get the costly part: pixel-level and finer maps, faithfulness, sanity checks (a network is
            trained on shuffled labels).
        lesion_maps: Result folder with maps of single lesions of the same photographs, which are then compared among the finer maps; empty
            is none.
        resamples: Of the patient bootstrap.
    """

    notebook: ClassVar[str] = "05_heatmap_analysis"
    TRAINS: ClassVar[bool] = True
    SHOWS: ClassVar[frozenset[str]] = frozenset(
        {
            "others",
            "audit",
            "subset",
            "max_images",
            "layers",
            "target",
            "tolerance",
            "checked",
            "lesion_maps",
            "resamples",
        }
    )
    FED_BY: ClassVar[tuple[str, ...]] = ("MODEL",)
    variant: Variant = "densenet121-seed0"
    model: str = "results/smoke/03_fine_tuning/densenet121-seed0"
    others: tuple[str, ...] = ()
    audit: str = "results/smoke/01_data_audit"
    subset: Literal["train", "validation", "test", "all"] = "test"
    max_images: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    layers: tuple[str, ...] = ()
    target: Literal["predicted", "grade"] = "predicted"
    tolerance: Annotated[float, Field(ge=0, le=2)] = 0.25
    checked: Positive = 6
    checks: tuple[str, ...] = ("densenet121", "efficientnet_lite0")
    lesion_maps: str = ""
    resamples: Positive = 200


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
"""The recipe that the main paper prints, or implies (``docs/sources.md``, A2 to A4); ``frozen_bn: track`` is what its
printed code implies; the training loop is not printed."""


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
