"""The comparisons on photographs from files: with lesion masks, and on the optional real photographs, which have none."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import photographs
import pytest
from pictures_made import Blocks

from drstudy.core import paths
from drstudy.data import images, manifest, sources
from drstudy.data.dataset import Dataset
from drstudy.papers.gan import memorisation, pictures, quality, survival

SETS = {"eyepacs": "../shared/data/eyepacs_mini", "folder": "../shared/data/dr600_mini"}


def opened(table: pd.DataFrame, split: list[str], folder, size: int):
    """An audit and a data set of a manifest, without running the audit."""
    store = images.build(table, size, 1, folder=folder / "stores")
    table.to_csv(folder / "manifest.csv", index=False)
    (folder / "images.json").write_text(json.dumps({"store": str(store.folder)}))
    audit = SimpleNamespace(path=lambda name: folder / name)
    rows = table[["image_id", "patient_id", "grade"]].assign(split=split)
    place = pd.Series(store.index["row"].to_numpy(), index=store.index["image_id"])
    rows = rows.assign(row=place.loc[rows["image_id"]].to_numpy())
    return audit, Dataset(store.images, rows.reset_index(drop=True), "real")


def test_lesions_are_measured_from_their_masks(tmp_path):
    """One eye with a dark square of 8 x 8 of 128 pixels as haemorrhage, one with a microaneurysm of 2 x 2, one healthy."""
    rows = []
    for name, grade, code, side in (("a", 2, "HE", 8), ("b", 1, "MA", 2), ("c", 0, "", 0)):
        eye = photographs.photograph(3, 128)
        row = {"image_id": name, "path": str(tmp_path / f"{name}.png"), "source": "s", "grade": grade}
        if code:
            mask = np.zeros((128, 128), np.uint8)
            mask[60 : 60 + side, 80 : 80 + side] = 255
            eye[mask > 0] = (90, 20, 10)
            cv2.imwrite(str(tmp_path / f"{name}_{code}.png"), mask)
            row[f"mask_{code}"] = str(tmp_path / f"{name}_{code}.png")
        cv2.imwrite(row["path"], eye[..., ::-1])
        rows.append(row)
    audit, data = opened(manifest.build(rows), ["train"] * 3, tmp_path, 128)
    assert survival.measurable(audit)
    found = survival.lesions(audit, data, sizes=(32, 128, 256))
    assert set(found["size"]) == {32, 128}  # the stored photographs have 128 pixels
    assert set(found["image_id"]) == {"a", "b"}
    whole = found[found["size"] == 128].set_index("code")
    scale = data.images.shape[1] / 118  # about: the field of view is cut out and enlarged to 128 pixels
    assert whole.loc["HE", "diameter_px"] == pytest.approx(2 * np.sqrt(64 / np.pi) * scale, rel=0.1)
    assert whole.loc["HE", "visible"]
    small = found[found["size"] == 32].set_index("code")
    assert small.loc["MA", "diameter_px"] == pytest.approx(whole.loc["MA", "diameter_px"] / 4, rel=1e-5)
    assert not small.loc["MA", "visible"]
    grades = survival.by_grade(found, 20, 0, sizes=(32, 128, 256)).set_index(["grade", "size"])["generable"]
    assert grades[1, 32] == "no"
    assert grades[2, 128] == "yes"
    assert grades[2, 256] == "not measurable"
    with pytest.raises(ValueError, match="SIZES has 0"):
        survival.lesions(audit, data, sizes=(0,))


@pytest.mark.real
@pytest.mark.parametrize("source", SETS)
def test_real_photographs_without_masks(source, tmp_path):
    if not paths.resolve(SETS[source]).is_dir():
        pytest.skip(f"{SETS[source]} is absent: it holds real photographs, which are not part of the project")
    table = sources.load(source, SETS[source]).manifest
    patients = table["patient_id"].drop_duplicates().iloc[:30]
    table = table[table["patient_id"].isin(patients)].reset_index(drop=True)
    known = {name: "train" if place < 15 else "test" for place, name in enumerate(patients)}
    audit, data = opened(table, [known[name] for name in table["patient_id"]], tmp_path, 96)
    assert not survival.measurable(audit)
    lesions = survival.lesions(audit, data)
    assert lesions.empty
    (said,) = survival.findings(survival.by_grade(lesions, 20, 0))
    assert "not measurable" in said
    train, test = (pictures.real(data, split, 64) for split in ("train", "test"))
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in train.images])
    made = pictures.generated(blurred[:, :, ::-1].copy(), train.grades)
    distances = quality.table(
        test, quality.sets(train, {"made": made}, 0), [Blocks()], quality.Setting(draws=2, subsets=3)
    )
    assert np.isfinite(distances["value"]).all()
    found = memorisation.check(train, test, made, Blocks(), 20, 0)
    planted = found.summary[found.summary["kind"] == "planted, exact"]
    assert (planted["verdict"] == "caught").all()
