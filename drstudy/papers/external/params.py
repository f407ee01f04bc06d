"""Parameters of notebook 22: train on one set of photographs, test on another."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from drstudy.core.params import Computing, Positive, each_once


class External(Computing):
    """Notebook 22.

    Attributes:
        audit: Result folder of notebook 01 with this profile's photographs. The parts of pooled data are sets of their own.
        others: Result folders of notebook 01 of other profiles, such as a phantom; each is a further set.
        pretrained: Result folder of notebook 03 of another profile, whose network learnt from synthetic eyes; empty leaves that question
            out.
        fine_tuned: Result folder of notebook 03 whose network learnt from this profile's photographs; it is compared with the recipe that
            validation chooses, on its own test eyes. Empty leaves that question out.
        networks: Backbones whose frozen layers describe the photographs; the first is that of the plain probe.
        weights: ``imagenet``, ``imagenet-if-reachable``, ``bundled`` or ``none``.
        input_size: Side of the networks' input, pixels.
        mirrored: Whether the recipes have a step with mirror images, which doubles the time.
        folds: Number of folds of patients; each is tested once, and the others are for training and validation.
        specificity: Wanted on validation for the decision "grade 2 or more"; its sensitivity is reported.
        most_images: Largest number of photographs of a set; of a larger one patients are drawn. The memory grows with its square.
        sizes: Numbers of training photographs of the learning curve, rising; all that there are is added.
        repeats: Number of draws of the training patients for each size.
        predicted_sizes: Numbers of photographs to which the learning curve is extrapolated.
        resamples: Number of resamples of the bootstrap over patients.
    """

    notebook: ClassVar[str] = "22_external_validation"
    audit: str = "results/smoke/01_data_audit"
    others: tuple[str, ...] = ()
    pretrained: str = ""
    fine_tuned: str = "results/smoke/03_fine_tuning/efficientnet_lite0-seed0"
    networks: Annotated[tuple[str, ...], Field(min_length=1)] = ("efficientnet_lite0",)
    weights: Literal["imagenet", "imagenet-if-reachable", "bundled", "none"] = "bundled"
    input_size: Annotated[int, Field(ge=64, le=2048, multiple_of=32)] = 128
    mirrored: bool = False
    folds: Annotated[int, Field(ge=3, le=20)] = 3
    specificity: Annotated[float, Field(gt=0, lt=1)] = 0.8
    most_images: Annotated[int, Field(ge=20, le=20_000)] = 3000
    sizes: tuple[Annotated[int, Field(ge=5)], ...] = (12, 18, 27, 35)
    repeats: Positive = 2
    predicted_sizes: tuple[Annotated[int, Field(ge=5)], ...] = (3000, 35126)
    resamples: Positive = 200
    _others_once = field_validator("others")(each_once)
    _networks_once = field_validator("networks")(each_once)

    @field_validator("sizes", "predicted_sizes")
    @classmethod
    def _rise(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("numbers of photographs must rise, as in (100, 200, 400)")
        return value
