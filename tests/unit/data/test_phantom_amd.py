"""AMD in the phantom: the rule, sizes in micrometres, exact masks, shares of eyes, and a default phantom that stays what it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from drstudy.core import names
from drstudy.data import sources
from drstudy.data.phantom import (
    AMD_CODES,
    ANATOMY_CODES,
    DISC_DIAMETER_UM,
    DISEASES,
    LESION_CODES,
    SUBRETINAL,
    PhantomConfig,
    amd_grade_from_lesions,
    amd_sheet,
    contact_sheet,
    drusen_size,
    grade_from_lesions,
    plan,
    render,
    write,
)
from drstudy.data.phantom.amd import LARGE_DRUSEN_UM, SMALL_DRUSEN_UM, sized_blob
from drstudy.data.sources import phantom as phantom_source
from drstudy.papers.transfer import params

SHARES = (0.4, 0.3, 0.1, 0.2)
ALL_AMD = (0.0, 1.0, 0.0, 0.0)
STUDY = PhantomConfig(n_patients=60, size=64, amd=SHARES, amd_atrophy=0.5, ungradable=0.0)


def one(code: str, kind: str = "", um: float | None = None) -> dict:
    """A lesion; ``um`` is its diameter."""
    found = {"code": code, "kind": kind, "quadrant": "ST"}
    return found if um is None else found | {"radius_dd": um / 2 / 1500}


# ---- the rule --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lesions", "dr", "amd"),
    [
        ([], 0, 0),
        ([one("MA"), one("HE"), one("EX", "ring"), one("LASER")], 2, 0),
        ([one("DRUSEN", um=40)], 0, 1),
        ([one("DRUSEN", um=124.9)] * 9, 0, 1),
        ([one("PIGMENT", "hyper")], 0, 1),
        ([one("DRUSEN", um=40), one("DRUSEN", um=125)], 0, 2),
        ([one("GA")], 0, 2),
        ([one("CNV")], 0, 3),
        ([one("SRF")], 0, 3),
        ([one("HE", SUBRETINAL)], 0, 3),
        ([one("EX", SUBRETINAL)], 0, 0),
        ([one("CNV"), one("HE", SUBRETINAL), one("EX", SUBRETINAL), one("DRUSEN", um=300)], 0, 3),
        ([one("HE", "blot"), one("DRUSEN", um=200)], 2, 2),
        ([one("NV"), one("CNV"), one("HE", SUBRETINAL)], 4, 3),
        ([one("HE", SUBRETINAL)] * 100 + [one("MA")], 1, 3),
    ],
)
def test_grades_follow_from_the_signs(lesions, dr, amd):
    assert grade_from_lesions(lesions) == dr
    assert amd_grade_from_lesions(lesions) == amd
    frame = pd.DataFrame(lesions, columns=["code", "kind", "quadrant", "radius_dd"])
    assert amd_grade_from_lesions(frame) == amd


@pytest.mark.parametrize(
    ("um", "size"), [(1, "small"), (62.9, "small"), (63, "medium"), (124.9, "medium"), (125, "large")]
)
def test_sizes_of_drusen(um, size):
    assert drusen_size(um) == size


def test_bad_lesions_are_refused():
    with pytest.raises(ValueError, match=r"unknown lesion code \['DRUSE'\]"):
        amd_grade_from_lesions([one("DRUSE", um=50)])
    with pytest.raises(ValueError, match="a druse has no radius"):
        amd_grade_from_lesions([one("DRUSEN")])
    with pytest.raises(ValueError, match="must be above 0 um"):
        drusen_size(0)


def test_codes_are_those_of_the_project():
    assert {*names.AMD_SIGNS} == {*AMD_CODES, "DRUSEN"}
    assert {*AMD_CODES} <= {*names.NAMES}
    assert len(names.AMD_NAMES) == len(names.AMD_GRADES)


# ---- the plan --------------------------------------------------------------------------------------------


def test_shares_of_diseases_and_grades():
    config = replace(STUDY, n_patients=1500, amd_grades=(0.5, 0.3, 0.2))
    table = plan(config)
    dr, amd = table["grade"] > 0, table["amd_grade"] > 0
    found = [(dr & ~amd).mean(), (~dr & amd).mean(), (dr & amd).mean(), (~dr & ~amd).mean()]
    assert len(DISEASES) == 4
    n = len(table) / 2  # the two eyes of a patient are not independent
    assert np.abs(np.subtract(found, SHARES)).max() < 4 * np.sqrt(0.25 / n)
    grades = table.loc[amd, "amd_grade"].value_counts(normalize=True).sort_index()
    assert grades.to_numpy() == pytest.approx([0.5, 0.3, 0.2], abs=0.06)
    assert table.loc[table["atrophy"], "amd_grade"].min() == 2
    assert table.loc[table["amd_grade"] >= 2, "atrophy"].mean() == pytest.approx(0.5, abs=0.1)
    assert (table["label"] == table["grade"]).all()
    pairs = table.assign(amd=amd, dr=dr).groupby("patient_id")[["amd", "dr"]].nunique()
    assert (pairs == 2).any(axis=1).any(), "the eyes of some patients have different diseases"
    assert (pairs == 1).all(axis=1).mean() > 0.7
    pd.testing.assert_frame_equal(table.head(40), plan(replace(config, n_patients=20)))


@pytest.mark.parametrize("place", range(4))
def test_a_share_of_one_is_every_eye(place):
    table = plan(replace(STUDY, amd=tuple(float(number == place) for number in range(4))))
    assert ((table["grade"] > 0) == (place in (0, 2))).all()
    assert ((table["amd_grade"] > 0) == (place in (1, 2))).all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"amd": (1, 1, 1)},
            ValueError,
            r"amd must be 4 finite numbers >= 0, not all 0 \(the shares of eyes",
        ),
        ({"amd": (0, 0, 0, 0)}, ValueError, "not all 0"),
        ({"amd": (1, -1, 1, 1)}, ValueError, "finite numbers >= 0"),
        ({"amd": "half"}, TypeError, "amd must be 4 numbers"),
        ({"amd_grades": (1, 1)}, ValueError, "amd_grades must be 3 finite numbers"),
        ({"amd_atrophy": 1.5}, ValueError, "amd_atrophy is a share from 0 to 1"),
        ({"distribution": (1, 0, 0, 0, 0)}, ValueError, "distribution has no grade above 0"),
        ({"amd": None}, ValueError, "only where amd gives shares of eyes"),
    ],
)
def test_bad_configurations_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        replace(STUDY, **changes)


def test_a_configuration_survives_json():
    assert PhantomConfig.from_dict(json.loads(json.dumps(STUDY.to_dict()))) == STUDY


# ---- photographs and masks -------------------------------------------------------------------------------


def test_signs_masks_and_grades_agree():
    seen = set()
    for index, row in plan(STUDY).head(60).iterrows():
        phantom = render(STUDY, index)
        codes = set(phantom.lesions["code"])
        assert set(phantom.masks) == {*LESION_CODES, *AMD_CODES, *ANATOMY_CODES}
        assert phantom.grade == row["grade"] == grade_from_lesions(phantom.lesions)
        assert phantom.amd_grade == row["amd_grade"] == amd_grade_from_lesions(phantom.lesions)
        assert ("GA" in codes) == row["atrophy"]
        for code in (*LESION_CODES, *AMD_CODES):
            assert phantom.masks[code].any() == (code in codes), code
            assert not (phantom.masks[code] & ~phantom.masks["FOV"]).any()
        if not row["amd_grade"]:
            assert not codes & {*names.AMD_SIGNS}
        seen |= {(code, kind) for code, kind in zip(phantom.lesions["code"], phantom.lesions["kind"])}
    assert {("HE", SUBRETINAL), ("EX", SUBRETINAL), ("PIGMENT", "hyper"), ("PIGMENT", "hypo")} <= seen
    assert {code for code, _ in seen} >= {*names.AMD_SIGNS}
    assert {kind for code, kind in seen if code == "DRUSEN"} == {"small", "large"}


def test_drusen_have_their_size_in_micrometres_and_lie_in_the_macula():
    config = replace(STUDY, amd=ALL_AMD, amd_grades=(1, 1, 0), size=1024, n_patients=2, amd_atrophy=0.0)
    found = []
    for index in range(4):
        phantom = render(config, index)
        drusen = phantom.lesions[phantom.lesions["code"] == "DRUSEN"]
        um = 2 * drusen["radius_dd"] * DISC_DIAMETER_UM
        found += list(zip(um, drusen["kind"]))
        # one disc diameter of 1500 um in pixels; the disc that is drawn is 0.98 to 1.08 of it high
        pixels = phantom.disc_diameter_px
        away = np.hypot(drusen["x"] - phantom.fovea_xy[0], drusen["y"] - phantom.fovea_xy[1]) / pixels
        assert away.max() < 2.1
        number, _, boxes, _ = cv2.connectedComponentsWithStats(phantom.masks["DRUSEN"].astype(np.uint8))
        alone = [
            row
            for row in drusen.itertuples()
            if np.hypot(drusen["x"] - row.x, drusen["y"] - row.y).nsmallest(2).iloc[-1] > 0.35 * pixels
        ]
        assert number > 1
        for row in alone:
            label = cv2.connectedComponents(phantom.masks["DRUSEN"].astype(np.uint8))[1][
                int(row.y), int(row.x)
            ]
            area = boxes[label, cv2.CC_STAT_AREA]
            drawn_um = 2 * np.sqrt(area / np.pi) / pixels * DISC_DIAMETER_UM
            # 8 % for the height of the disc, and a pixel of about 10 um on each side
            assert abs(drawn_um - 2 * row.radius_dd * DISC_DIAMETER_UM) < 0.09 * drawn_um + 20
    for um, kind in found:
        low, high = SMALL_DRUSEN_UM if kind == "small" else LARGE_DRUSEN_UM
        assert low <= um <= high
        assert drusen_size(um) == kind
    assert {kind for _, kind in found} == {"small", "large"}


def test_an_outline_has_the_area_of_its_diameter():
    rng = np.random.default_rng(0)
    for diameter in (0.03, 0.2):
        x, y = sized_blob(rng, np.array([1.0, -2.0]), diameter, 0.2, 1.2).T
        area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        assert area == pytest.approx(np.pi * diameter**2 / 4, rel=1e-9)


@pytest.mark.parametrize("code", [*names.AMD_SIGNS, "HE", "EX"])
def test_masks_of_amd_are_where_the_paint_is(code):
    """Without its signs of one code the same photograph differs at the mask, and only there."""
    config = PhantomConfig(
        n_patients=40, size=256, difficulty=0.0, ungradable=0.0, seed=5, amd=ALL_AMD, amd_grades=(0, 1, 4), amd_atrophy=0.5
    )  # fmt: skip
    for index in range(2 * config.n_patients):
        if code not in set(render(replace(config, size=64), index).lesions["code"]):
            continue
        phantom, bare = render(config, index), render(config, index, without=(code,))
        assert not bare.masks[code].any()
        change = np.abs(phantom.image.astype(int) - bare.image).max(2)
        mask = phantom.masks[code]
        # 5 px: the optical blur and the soft edges of the signs; 9 px for fluid, the softest (sigma 0.08 disc diameters, 2.6 px here)
        side = 19 if code == "SRF" else 11
        near = (
            cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0
        )
        assert change[~near].max(initial=0) <= 3, "paint without mask"
        assert np.median(change[mask]) >= 3, "mask without paint"
        for other in {*LESION_CODES, *AMD_CODES, *ANATOMY_CODES} - {code}:
            assert np.array_equal(phantom.masks[other], bare.masks[other])
        return
    pytest.fail(f"no eye with {code}")


def test_a_phantom_without_amd_has_no_code_of_it():
    config = PhantomConfig(n_patients=2, size=64)
    assert render(config, 0).amd_grade is None
    assert not {*AMD_CODES} & {*render(config, 0).masks}
    with pytest.raises(ValueError, match="unknown lesion code"):
        render(config, 0, without=("CNV",))
    assert "amd_grade" not in plan(config)


# ---- the default phantom is what it was -------------------------------------------------------------------

BEFORE = {
    "default": (
        {"n_patients": 4, "size": 96},
        "ccfa6c0af0eb62fc3f2c4d9232cdb07b4bf14a264bb036ae1dcd9c5c491a2377",
        "fda4d35c5060d9a82a6479448ea5ac53f0c7045e13b1936922ab5e93b603c0b3",
        {"09fcfcde29971d770c36c664db6ad8ee8d0ffe2c568dfb5327c4ae9439a301fa"},
    ),
    "hard": (
        {
            "n_patients": 3,
            "size": 160,
            "difficulty": 1.0,
            "laser": 0.8,
            "seed": 7,
            "distribution": (1, 1, 1, 1, 1),
            "ungradable": 0.2,
        },
        "77132650208b819ebebc4b6521dc2c78708079b3e969fe9c0fab4dde7b7dbf70",
        "d7d334e608ff787ef852ceca1230a92915af1c3223abe59d27869c95c78f4fc4",
        {
            "f97699e90c1148f8f90a0f6cc32a2307eae22a6a655ad20216f4180444e65bf0",
            "c5151e9228b67dac46ba1d3f841e1f37ac6ee9cb4623cc06b5b8a5ca0b93e2fa",  # processors without AVX
        },
    ),
    "eyepacs": (
        {"n_patients": 4, "size": 72, "distribution": "eyepacs", "label_noise": 0.3, "seed": 3},
        "3b4827b6d657c233579caf6c44a5c389b9b5c447fdebe42efe28b8717735dc9d",
        "c8f8a4b56028312eb6c7d5d9813644ce3da61ba336eef22136dddfee8ded66e6",
        {"26f79d5b5ae7c554848266f4aed27e7c044f33cfe8fd088687c47e9cda21223f"},
    ),
}
"""Configuration, and digests of masks and grades, of labels.csv with phantom.json, and of the pixels, as the code gave them before there was any
AMD. The pixels were measured on four kinds of processor (``tests/processors.py``: native, avx512, avx2, sse4)."""


@pytest.mark.parametrize("study", BEFORE)
def test_the_default_phantom_is_byte_identical_to_the_one_before_amd(study, tmp_path):
    given, masks, labels, pixels = BEFORE[study]
    config = PhantomConfig(**given)
    seen, drawn = hashlib.sha256(), hashlib.sha256()
    for index in range(2 * config.n_patients):
        phantom = render(config, index)
        seen.update(phantom.image.tobytes())
        for code in (*LESION_CODES, *ANATOMY_CODES):
            drawn.update(np.packbits(phantom.masks[code]).tobytes())
        facts = [phantom.grade, phantom.label, phantom.gradable, len(phantom.lesions), phantom.image_id]
        drawn.update(json.dumps([*facts, sorted(phantom.lesions["code"])]).encode())
    assert drawn.hexdigest() == masks
    assert seen.hexdigest() in pixels
    root = write(config, tmp_path / "study", workers=1)
    both = (root / "labels.csv").read_bytes() + (root / "phantom.json").read_bytes()
    assert hashlib.sha256(both).hexdigest() == labels


def test_the_folder_of_the_default_phantom_has_the_name_that_it_had():
    p = params.DataAudit()
    assert not {"amd", "amd_grades", "amd_atrophy"} & {*phantom_source.config_of(p.model_dump()).to_dict()}
    older = {name: value for name, value in p.model_dump().items() if not name.startswith("amd")}
    assert phantom_source.config_of(older) == phantom_source.config_of(p.model_dump())


# ---- files -----------------------------------------------------------------------------------------------


def test_a_study_with_amd_on_disk_becomes_a_manifest(tmp_path):
    config = replace(STUDY, n_patients=6, label_noise=0.3)
    root = write(config, tmp_path / "study", workers=1)
    table, manifest = plan(config), sources.load("phantom", root).manifest
    assert list(manifest["image_id"]) == list(table["image_id"])
    assert list(manifest["amd_grade"]) == list(table["amd_grade"])
    assert list(manifest["amd"]) == list((table["amd_grade"] > 0).astype(int))
    assert list(manifest["grade"]) == list(table["label"])
    for row in manifest.itertuples():
        phantom = render(config, row.image_id)
        for code in names.AMD_SIGNS:
            assert getattr(row, f"lesion_{code}") == phantom.masks[code].any()
            assert bool(getattr(row, f"mask_{code}", "")) == phantom.masks[code].any()
    with pytest.raises(ValueError, match="another configuration"):
        write(PhantomConfig(n_patients=6, size=64, label_noise=0.3, ungradable=0.0), root, workers=1)


def test_sheets(tmp_path):
    sheet = amd_sheet(replace(STUDY, size=64), tmp_path / "sheet.png", pairs=1)
    assert sheet.shape[1] == 2 * 64 + 4
    assert (tmp_path / "sheet.png").is_file()
    with pytest.raises(ValueError, match="without AMD"):
        amd_sheet(PhantomConfig(n_patients=2, size=64), None)
    assert contact_sheet(replace(STUDY, size=64), None, per_grade=1).ndim == 3
