"""Parts of single benchmarks that would fail or mislead unnoticed, at the smallest sizes; most scripts are too slow to run here as a whole."""

from __future__ import annotations

import json
import subprocess
import sys

import nbformat
import numpy as np
import pytest

from drstudy.core import paths

FOLDER = paths.root() / "benchmarks"


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def test_the_costliest_cells_are_named_by_section_and_first_line(tmp_path):
    import stages

    def code(source: str, seconds: float | None):
        cell = nbformat.v4.new_code_cell(source)
        cell.metadata["papermill"] = {"duration": seconds}
        return cell

    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\nText."),
        code("# a comment\nquick()", 0.5),
        nbformat.v4.new_markdown_cell("Before\n## Training\n\nText."),
        code("slow = 1\nmore()", 20.26),
        nbformat.v4.new_markdown_cell("Text without a heading."),
        code("# only a comment", None),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "executed.ipynb")
    assert stages.costliest({"03": tmp_path}) == [
        ("03", 20.3, "Training: slow = 1"),
        ("03", 0.5, "Title: quick()"),
        ("03", 0.0, "Training: # only a comment"),
    ]


def test_a_table_has_columns_of_equal_width():
    import stages

    assert stages.table(["stage", "s"], [("a", 1.25), ("longer", 20.0)]) == (
        "stage   s\na       1.2\nlonger  20.0"
    )


def test_the_plain_loop_of_the_gan_learns_what_ours_learns():
    import gan
    import torch
    from device_speed import photographs

    from drstudy.core import devices
    from drstudy.papers.gan import params

    threads = torch.get_num_threads()
    compute = devices.setup("cpu", "fp32", 1, 0)
    try:
        p = params.Gan(
            size=16,
            width=4,
            latent=gan.LATENT,
            sides="both",
            loss="cwgan_gp",
            critic_steps=1,
            augmentation=(),
            batch_size=8,
            steps=3,
        )
        recipe, data = p.recipe(params.SCRATCH), photographs(20)
        ours, plain = gan.Ours(recipe, data, compute), gan.Plain(recipe, data, compute)
        losses = np.array(ours()), np.array(plain())
    finally:
        torch.set_num_threads(threads)
    assert losses[0].shape == (3, 2)
    assert len(np.unique(losses[0])) == 6, "each step has losses of its own"
    # rounding, which Adam without momentum makes larger with each step
    np.testing.assert_allclose(losses[0], losses[1], rtol=gan.CLOSE, atol=gan.CLOSE)
    means = zip(ours.task.average.parameters(), plain.average.parameters())
    gaps = torch.cat([(one - other).abs().flatten() for one, other in means])
    assert gaps.median() < 1e-5, "the moving averages are of the same networks"


def test_maps_of_lesions_equal_a_plain_reading_of_the_network(monkeypatch):
    import glam
    import torch

    monkeypatch.setattr(glam, "DISTINCT", 2)
    threads = torch.get_num_threads()
    try:
        reader, plain, _, _, eyes, _ = glam.prepared(1, 1)
        gap, spread = glam.difference(reader(), plain, eyes)
    finally:
        torch.set_num_threads(threads)
    assert gap <= glam.NOISE
    assert spread > 100 * glam.NOISE


@pytest.mark.slow
def test_students_learn_the_same_from_stored_features_and_from_the_whole_network():
    sizes = ("--patients=20", "--epochs=1", "--steps=2", "--repeats=1", "--size=64")
    done = subprocess.run(
        [sys.executable, str(FOLDER / "sall.py"), "--quick", *sizes], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["same_result"] is True
    assert line["trainings"] == 5 * (2 * (1 + 3) + 7), "teachers with three folds, and seven settings"


def test_small_photographs_have_the_layout_of_the_kaggle_set(tmp_path, monkeypatch):
    import scaling

    monkeypatch.setattr(scaling, "DISTINCT", 2)
    scaling.photographs(tmp_path, 4)
    lines = (tmp_path / "all" / "trainLabels.csv").read_text(encoding="utf-8").splitlines()
    names = [line.split(",")[0] for line in lines[1:]]
    assert lines[0] == "image,level"
    assert names == [f"{patient}_{eye}" for patient in (1, 2, 3, 4) for eye in ("left", "right")]
    files = {file.stem: file.read_bytes() for file in (tmp_path / "all" / "train").iterdir()}
    assert sorted(files) == sorted(names)
    assert len(set(files.values())) == 8, "another orientation of the same eye is another photograph"
