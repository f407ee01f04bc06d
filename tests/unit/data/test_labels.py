"""Labels of lesions: the rule that makes them, and what a mask that is not there means."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from drstudy.core import names
from drstudy.data import images, labels, manifest, phantom
from drstudy.explain.measures import localisation

CODES = ("MA", "HE", "EX")


class Audit:
    """A finished notebook 01, as far as labels need one."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return self.folder / name


@pytest.fixture
def audit(tmp_path, monkeypatch):
    """Six photographs of 100 px, filled with retina: two sources, one of which has masks.

    a: 20 px of HE, 3 of MA. b: no mask, MA said to be absent. c: of a source without masks. d: there, and nothing said.
    """
    monkeypatch.setenv("DRSTUDY_DATA", str(tmp_path / "data"))
    rows = []
    for name, source in zip("abcd", ("masked", "masked", "bare", "masked")):
        Image.fromarray(np.full((100, 100, 3), 120, np.uint8)).save(tmp_path / f"{name}.png")
        row = {"image_id": name, "path": str(tmp_path / f"{name}.png"), "source": source, "grade": 0}
        for code, pixels in {"HE": 20, "MA": 3}.items() if name == "a" else ():
            mask = np.zeros((100, 100), np.uint8)
            mask[50, 40 : 40 + pixels] = 255
            Image.fromarray(mask).save(tmp_path / f"{name}_{code}.png")
            row[f"mask_{code}"] = str(tmp_path / f"{name}_{code}.png")
        if name in "ad":
            Image.fromarray(np.full((100, 100), 255, np.uint8)).save(tmp_path / f"{name}_FOV.png")
            row["mask_FOV"] = str(tmp_path / f"{name}_FOV.png")
        row["lesion_MA"] = {"a": 1, "b": 0}.get(name, pd.NA)
        rows.append(row)
    table = manifest.build(rows)
    table.to_csv(tmp_path / "manifest.csv", index=False)
    table.assign(split="train")[["image_id", "patient_id", "grade", "split"]].to_csv(
        tmp_path / "split.csv", index=False
    )
    (tmp_path / "images.json").write_text(json.dumps({"store": str(images.build(table, 100, 1).folder)}))
    return Audit(tmp_path)


def listed(column: pd.Series) -> list:
    return [None if pd.isna(value) else int(value) for value in column]


def test_a_label_is_present_from_the_least_area_on(audit):
    """20 and 3 of 10,000 pixels; of HE d ships no mask where others of its source do; of EX, and of c, nobody knows."""
    found = labels.read(audit, CODES, "masks", 20 / 10_000)
    assert list(found["image_id"]) == list("abcd")
    assert listed(found["HE"]) == [1, 0, None, 0]
    assert listed(found["MA"]) == [0, 0, None, None], "3 pixels are below the least area"
    assert listed(found["EX"]) == [None] * 4
    assert found["area_HE"].iloc[0] == pytest.approx(20 / 10_000)
    above = labels.read(audit, CODES, "masks", 21 / 10_000)
    assert listed(above["HE"]) == [0, 0, None, 0]
    assert listed(labels.read(audit, CODES, "masks", 3 / 10_000)["MA"]) == [1, 0, None, None]


def test_labels_as_the_source_says(audit):
    found = labels.read(audit, CODES, "manifest", 0.5)
    assert listed(found["MA"]) == [1, 0, None, None]
    assert listed(found["HE"]) == [None] * 4


def test_labels_of_a_table(audit, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("image_id,MA,HE,EX\nc,1,0,\na, 0,1,1\n")
    found = labels.read(audit, CODES, str(file), 0.5)
    assert [listed(found[code]) for code in CODES] == [
        [0, None, 1, None],
        [1, None, 0, None],
        [1, None, None, None],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image_id,MA,HE\na,1,1\n", "lacks the columns EX"),
        ("image_id,MA,HE,EX\na,1,yes,0\n", "'yes' is no label"),
        ("image_id,MA,HE,EX\nz,1,1,0\n", "names none of the 4 photographs"),
        ("image_id,MA,HE,EX\na,1,1,0\na,0,1,0\n", "'a' more than once"),
        ("image_id,MA,HE,EX\na,1,1,0\na.jpeg,0,1,0\n", "'a' more than once"),
        ("", "cannot be read as a table"),
        ("image_id,MA,HE,EX\na,1,1,0\nb,1,1,0,7,8,9\n", "cannot be read as a table"),
        ("image_id,MA,HE,EX\na,1,1,0\n".encode("utf-16"), r"labels\.csv cannot be read"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(audit, tmp_path, text, said):
    (tmp_path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(labels.LabelError, match=said):
        labels.read(audit, CODES, str(tmp_path / "labels.csv"), 0.5)
    with pytest.raises(labels.LabelError, match="neither 'masks' nor 'manifest' nor a CSV"):
        labels.read(audit, CODES, "mask", 0.5)


def test_a_table_with_suffixes_is_read_and_strangers_are_told(audit, tmp_path):
    (tmp_path / "labels.csv").write_text("image_id,MA,HE,EX\na.jpeg,1,1,0\nb,0,0,0\nz,1,1,1\n")
    with pytest.warns(labels.LabelWarning, match=r"1 of 3 rows .*'z'"):
        found = labels.read(audit, CODES, str(tmp_path / "labels.csv"), 0.5)
    assert listed(found["MA"]) == [1, 0, None, None]


def test_counts_tell_absent_from_not_annotated(audit):
    found = labels.read(audit, CODES, "masks", 20 / 10_000)
    split = pd.DataFrame(
        {"image_id": list("abcd"), "patient_id": list("ppqr"), "split": ["train"] * 3 + ["test"]}
    )
    counted = labels.counts(found, split, CODES).set_index(["lesion", "split"])
    row = counted.loc[("HE", "train")]
    assert (row["images"], row["present"], row["absent"], row["not_annotated"], row["patients_present"]) == (
        3,
        1,
        1,
        1,
        1,
    )
    assert row["share"] == 0.5
    assert math.isnan(counted.loc[("EX", "test"), "share"])


# --- masks that are not there ----------------------------------------------------------------------


def test_the_status_of_a_structure_by_hand(audit):
    """HE: a has a file, and b and d are of the same source, of which nothing is said. MA: the source says it of a and b, so of d
    nothing is known. EX: nobody looked."""
    known = labels.status(manifest.read(audit.path("manifest.csv")), CODES)
    assert known["HE"].tolist() == ["measured", "absent", "not annotated", "absent"]
    assert known["MA"].tolist() == ["measured", "absent", "not annotated", "not annotated"]
    assert known["EX"].tolist() == ["not annotated"] * 4


def test_a_structure_that_is_there_but_not_outlined_is_not_absent():
    rows = [
        {"image_id": name, "path": "x", "source": "t", "mask_HE": mask, "lesion_HE": said}
        for name, mask, said in (("a", "a.png", 1), ("b", "", 1), ("c", "", 0), ("d", "", pd.NA))
    ]
    known = labels.status(manifest.build(rows), ["HE"])
    assert known["HE"].tolist() == ["measured", "not annotated", "absent", "not annotated"]


def test_areas_and_maps_are_measured_by_one_rule(audit):
    """Both callers: an area is missing exactly where maps have no mask, and 0 exactly where their mask is empty."""
    area = labels.areas(audit, list("abcd"), CODES)
    of_maps, known = (
        localisation.masks_of(audit),
        labels.status(manifest.read(audit.path("manifest.csv")), CODES),
    )
    assert set(known.to_numpy().ravel()) == {labels.MEASURED, labels.ABSENT, labels.NOT_ANNOTATED}
    for name in "abcd":
        masks = of_maps(name)
        for code in CODES:
            value, mask, status = area.loc[name, f"area_{code}"], masks[code], known.loc[name, code]
            assert math.isnan(value) == (mask is None) == (status == labels.NOT_ANNOTATED)
            if mask is not None:
                assert value == mask[masks["FOV"]].sum(dtype=float) / masks["FOV"].sum()
                assert (value == 0) == (status == labels.ABSENT)


def test_what_is_not_annotated_is_never_counted_as_absent(audit):
    found = labels.read(audit, CODES, "masks", 20 / 10_000)
    known = labels.status(manifest.read(audit.path("manifest.csv")), CODES)
    for code in CODES:
        unknown = (known[code] == labels.NOT_ANNOTATED).to_numpy()
        assert found[code].isna().to_numpy().tolist() == unknown.tolist()
        assert np.isnan(labels.as_array(found, [code])[:, 0]).tolist() == unknown.tolist()
    split = pd.DataFrame({"image_id": list("abcd"), "patient_id": list("abcd"), "split": "train"})
    counted = labels.counts(found, split, CODES).set_index("lesion")
    assert counted["not_annotated"].to_dict() == {"MA": 2, "HE": 1, "EX": 4}
    assert counted.loc["EX", "absent"] == 0
    assert localisation.regions(localisation.masks_of(audit)("c"))["lesion"] is None


def test_the_phantom_outlines_the_codes_of_the_study():
    assert {*phantom.LESION_CODES} == {*names.LESIONS, *names.OTHER_FINDINGS}
    assert {*phantom.ANATOMY_CODES} == {*names.STRUCTURES, names.FIELD}
    assert names.NAMES.keys() >= {*phantom.LESION_CODES, *phantom.ANATOMY_CODES}
    assert len(names.GRADE_NAMES) == names.N_GRADES == len(names.GRADES)
