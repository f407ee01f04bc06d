"""Figures of the data audit: they show the numbers they are given, and say so where there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from photographs import encoded, photograph

from drstudy.data import audit, duplicates, images, splits
from drstudy.data import manifest as manifests
from drstudy.show import audit as audit_figures

PARTS = (0.5, 0.25, 0.25)
pytestmark = pytest.mark.filterwarnings("ignore::drstudy.data.splits.SplitWarning")


def texts(figure) -> str:
    return " ".join(
        text.get_text() for axis in figure.axes for text in [*axis.texts, axis.title, axis.xaxis.label]
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    rows = []
    for n in range(12):
        name = f"{n // 2}_{('left', 'right')[n % 2]}"
        (root / f"{name}.jpeg").write_bytes(encoded(photograph(n % 11, 120)))
        who, _, eye = name.partition("_")
        row = {"image_id": name, "path": str(root / f"{name}.jpeg"), "patient_id": who, "eye": eye}
        rows.append({**row, "grade": n % 5, "source": "t"})
    manifest = manifests.build(rows)
    return manifest, images.build(manifest, 64, workers=1, folder=root / "stores")


def test_bars_have_the_heights_of_the_counts(small):
    manifest, _ = small
    counts = audit.class_counts(manifest)
    axis = audit_figures.class_counts(counts).axes[0]
    assert [bar.get_height() for bar in axis.patches] == counts["images"].tolist()
    split = splits.make(manifest, PARTS, 0)
    heights = [bar.get_height() for bar in audit_figures.split_balance(split).axes[0].patches]
    shares = splits.balance(split).pipe(lambda table: table.div(table.sum(axis=1), axis=0))
    assert heights == pytest.approx((100 * shares.to_numpy()).ravel())


def test_fellow_eyes_and_leak_print_their_numbers(small):
    manifest, _ = small
    fellows = audit.fellow_eyes(manifest)
    figure = audit_figures.fellow_eyes(fellows)
    assert f"{fellows.pairs} patients" in texts(figure)
    assert [
        int(text.get_text()) for text in figure.axes[0].texts
    ] == fellows.table.to_numpy().ravel().tolist()
    leak = splits.leak(manifest, PARTS, 0, draws=20)
    assert f"{100 * leak['simulated']:.0f} %" in texts(audit_figures.leak(leak, 0.0))


def test_galleries_show_the_stored_crops(small):
    manifest, store = small
    split = splits.make(manifest, PARTS, 0)
    figure = audit_figures.examples_by_grade(store, split, columns=2)
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    assert shown
    assert all(any(np.array_equal(picture, crop) for crop in store.images) for picture in shown)
    pairs = duplicates.annotate(duplicates.find(store, 6), manifest, split)
    assert len(pairs) == 1
    assert "exact, two patients" in texts(audit_figures.duplicate_pairs(store, pairs))
    audited = audit.table(store)
    assert len(audit_figures.measurements(audited).axes) == 6
    audited["flags"] = ["dark;shadow", *[""] * 11]
    assert "dark; shadow" in texts(audit_figures.worst(store, audited))


def test_without_grades_pairs_or_flags_the_figures_say_so(small):
    manifest, store = small
    blank = manifest.assign(grade=pd.array([pd.NA] * 12, dtype="Int64"))
    split = splits.make(blank, PARTS, 0)
    assert "No image has a grade" in texts(audit_figures.class_counts(audit.class_counts(blank)))
    assert "all are test" in texts(audit_figures.split_balance(split))
    assert "No patient" in texts(audit_figures.fellow_eyes(audit.fellow_eyes(blank)))
    assert "Too few" in texts(audit_figures.leak(splits.leak(blank, PARTS, 0), 0.0))
    assert "No duplicates" in texts(audit_figures.duplicate_pairs(store, duplicates.find(store, 0).iloc[:0]))
    assert "No photograph" in texts(audit_figures.worst(store, audit.table(store).assign(flags="")))
    assert len(audit_figures.examples_by_grade(store, split, columns=3).axes) == 6
