"""Fabricated predictions for the tests of numbers, tables and figures. They describe no network."""

from __future__ import annotations

import nbformat
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from drstudy.core import records
from drstudy.core.params import Parameters
from drstudy.papers.base import System
from drstudy.papers.transfer import params
from drstudy.show import tables

EYEPACS_SHARES = (0.735, 0.07, 0.15, 0.025, 0.02)

NETWORKS = System(
    id="network",
    name="Five grades: {network}",
    notebook="03_fine_tuning",
    variants=r"[a-z0-9_]+-seed\d+",
    mapped_by="05_heatmap_analysis",
    predictions="predictions.csv",
)
"""The networks of notebook 03 as a system of a paper, with the maps of notebook 05."""


def eyes(patients: int = 120, seed: int = 0, shares: tuple[float, ...] = EYEPACS_SHARES) -> pd.DataFrame:
    """Test images without probabilities: patients with one eye (a tenth) or two, of like but not equal
    grades."""
    random = np.random.default_rng(seed)
    first = random.choice(5, size=patients, p=shares)
    step = random.choice([-1, 0, 1], size=patients, p=[0.1, 0.8, 0.1])
    number = np.where(random.random(patients) < 0.1, 1, 2)
    rows = [
        (f"{i:05d}_{eye}", f"{i:05d}", "test", int(grade))
        for i in range(patients)
        for eye, grade in zip(("left", "right"), (first[i], np.clip(first[i] + step[i], 0, 4)))
        if eye == "left" or number[i] == 2
    ]
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "split", "grade"])


def graded(images: pd.DataFrame, skill: float = 1.2, seed: int = 1, tied: bool = False) -> pd.DataFrame:
    """The same images with probabilities; ``tied`` rounds them to quarters, so many scores are equal."""
    random = np.random.default_rng(seed)
    seen = images["grade"].to_numpy() + random.normal(0, 2 / skill, len(images))
    logits = -0.5 * (seen[:, None] - np.arange(5)) ** 2 + random.normal(0, 0.3, (len(images), 5))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    if tied:
        p = np.round(4 * p)
    p /= p.sum(axis=1, keepdims=True)
    return images.assign(**{f"p{grade}": p[:, grade] for grade in range(5)})


def fine_tuning(
    predictions: pd.DataFrame, backbone: str, weights_used: str = "none", **changes
) -> records.Record:
    """A finished result folder of notebook 03 under ``paths.results()``, with made-up losses and costs.

    Args:
        changes: Parameters that differ from the notebook's defaults, such as ``seed``.
    """
    seed = changes.get("seed", 0)
    changes = {"variant": f"{backbone}-seed{seed}", "weights": weights_used, **changes}
    asked = params.FineTuning(backbone=backbone, **changes)
    short = weights_used == "none" and asked.without_pretraining
    recipe = asked.shortened() if short else asked
    run = records.start(asked)
    validation = predictions.assign(split="validation", image_id=predictions["image_id"] + "_v")
    pd.concat([predictions, validation]).to_csv(run.path("predictions.csv"), index=False)
    history(seed).to_csv(run.path("history.csv"), index=False)
    run.metric(parameters_total=7_000_000, parameters_trainable=1_000_000, weights_used=weights_used)
    run.metric(recipe=records.SHORT if short else records.FULL, epochs=recipe.epochs, views=recipe.views)
    run.metric(seconds_trunk=12.5, seconds_per_epoch=3.25, best_epoch=2)
    run.finish()
    return records.load(run.folder)


def history(seed: int = 0, epochs: int = 20, steps: int = 15) -> pd.DataFrame:
    """A training history as notebook 03 writes it."""
    random = np.random.default_rng(seed)
    step = np.arange(1, epochs * steps + 1)
    loss = 0.3 + 1.3 * np.exp(-step / 60) + random.normal(0, 0.12, len(step))
    last = step % steps == 0
    return pd.DataFrame(
        {
            "epoch": (step - 1) // steps + 1,
            "step": step,
            "loss": loss,
            "val_loss": np.where(last, 0.7 + 0.9 * np.exp(-step / 80), np.nan),
            "val_qwk": np.where(last, 0.6 - 0.5 * np.exp(-step / 80), np.nan),
        }
    )


def sixty_patients() -> pd.DataFrame:
    """Test images with every grade, of whom :func:`four_runs` are."""
    return eyes(60, seed=2, shares=(0.5, 0.2, 0.2, 0.07, 0.03))


def four_runs(images: pd.DataFrame) -> list[tables.ComparedRun]:
    """DenseNet121 pretrained, ResNet101 from scratch, and two seeds of EfficientNet-Lite0."""
    return tables.read_runs(
        [
            fine_tuning(graded(images, 3, 3), "densenet121", "imagenet"),
            fine_tuning(graded(images, 1, 4), "resnet101", "none", head="paper"),
            fine_tuning(graded(images, 2, 5), "efficientnet_lite0", "bundled"),
            fine_tuning(graded(images, 2, 6), "efficientnet_lite0", "bundled", seed=1),
        ]
    )


def sealed(record: records.Record) -> records.Record:
    """The same result after a test has changed files in it, as if its run had written them so."""
    data = {name: value for name, value in record.data.items() if name != "digest"}
    records.write_json(data | {"outputs": {}}, record.folder / "run.json")
    return records.load(record.folder)


def stage(
    cls: type[Parameters], shown: dict[str, pd.DataFrame], figures: dict[str, np.ndarray], **metrics
) -> None:
    """A finished stage with an executed notebook, under the folder of results of the test.

    Args:
        cls: Parameter class of the notebook.
        shown: Its tables, by name.
        figures: Its figures as (H, W, 3) pictures, uint8, by name.
        metrics: Of its record.
    """
    run = records.start(cls())
    for name, table in shown.items():
        run.table(table, name)
    for name, picture in figures.items():
        figure = Figure(figsize=(picture.shape[1] / 100, picture.shape[0] / 100), dpi=100)
        figure.figimage(picture)
        run.figure(figure, name)
    run.metric(**metrics)
    cells = [nbformat.v4.new_markdown_cell("# The notebook"), nbformat.v4.new_code_cell("SECRET_OF_CODE = 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run.path("executed.ipynb"))
    run.finish()
