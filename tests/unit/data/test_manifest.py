"""The manifest: one shape for all sources, and errors that name the column."""

from __future__ import annotations

import pandas as pd
import pytest

from drstudy.data import manifest


def row(image_id: str, **more) -> dict:
    return {"image_id": image_id, "path": f"data/{image_id}.jpeg", "source": "folder", **more}


def test_defaults_order_and_types():
    frame = manifest.build(
        [row("b", mask_MA="m.png", lesion_EX=1, grade=2), row("a", patient_id="7", eye="left")]
    )
    assert list(frame.columns) == [*manifest.COLUMNS, "mask_MA", "lesion_EX"]
    assert list(frame["image_id"]) == ["a", "b"]
    assert list(frame["patient_id"]) == ["7", "b"]
    assert list(frame["mask_MA"]) == ["", "m.png"]
    assert frame["grade"].dtype == "Int64"
    assert frame["grade"].isna().tolist() == [True, False]


def test_round_trip_keeps_types_and_leading_zeros(tmp_path):
    frame = manifest.build([row("007", patient_id="07", grade=3, lesion_MA=0), row("1e5", eye="right")])
    frame.to_csv(tmp_path / "manifest.csv", index=False)
    pd.testing.assert_frame_equal(manifest.read(tmp_path / "manifest.csv"), frame)


def test_an_empty_manifest_is_one():
    assert list(manifest.build([]).columns) == list(manifest.COLUMNS)


@pytest.mark.parametrize(
    ("rows", "column", "value"),
    [
        ([row("a", grade=5)], "grade", "5"),
        ([row("a"), row("a")], "image_id", "'a'"),
        ([row("a", eye="up")], "eye", "'up'"),
        ([{**row("a"), "path": ""}], "path", "''"),
        ([{**row("a"), "source": ""}], "source", "''"),
        ([row("a", lesion_MA=2)], "lesion_MA", "2"),
        ([row("a", gradable=3)], "gradable", "3"),
    ],
)
def test_errors_name_column_and_value(rows, column, value):
    with pytest.raises(manifest.ManifestError, match=rf"{column}: .*{value}"):
        manifest.build(rows)


def test_all_errors_are_told_at_once():
    with pytest.raises(manifest.ManifestError) as caught:
        manifest.build([row("a", grade=9, eye="x"), row("a")])
    assert all(name in str(caught.value) for name in ("grade", "eye", "image_id"))
