"""What is refused as no fundus photograph, and why; what passes is the crop of the audit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from photographs import BROKEN, EYE, encoded, photograph, scaled

from drstudy.data import audit, decoding, images
from drstudy.data.photograph import LARGEST_FILLED, REMEDIES, WORDS, Refused, filled, judge, read

RANDOM = np.random.default_rng(0)


def landscape(dark_ground: bool = False) -> np.ndarray:
    """Blue sky over green ground, with noise: bright to its corners, but for a dark ground."""
    y = np.mgrid[:300, :400][0]
    sky, ground = np.array([120, 170, 230]), np.array([70, 120, 50]) // (10 if dark_ground else 1)
    picture = np.where((y < 150)[..., None], sky, ground) + RANDOM.normal(0, 10, (300, 400, 3))
    return picture.clip(0, 255).astype(np.uint8)


def page() -> np.ndarray:
    """Dark letters on white paper."""
    picture = np.full((300, 220, 3), 245, np.uint8)
    for row in range(30, 280, 20):
        picture[row : row + 4, 20:200] = 30
    return picture


def triangle() -> np.ndarray:
    """A bright triangle on black: a field of no camera."""
    picture = np.zeros((300, 300, 3), np.uint8)
    cv2.fillPoly(picture, [np.array([[150, 20], [280, 280], [20, 280]])], (190, 100, 50))
    return picture


REFUSED = {
    "noise": (RANDOM.integers(0, 256, (300, 320, 3)).astype(np.uint8), "field of view not found"),
    "landscape": (landscape(), "field of view not found"),
    "landscape over dark ground": (landscape(True), "field of view not found"),
    "page": (page(), "field of view not found"),
    "triangle": (triangle(), "field of view not found.*is no disc"),
    "grey": (np.full((300, 300, 3), 90, np.uint8), "field of view not found"),
    "cropped inside the field": (EYE[90:210, 90:210], "field of view not found"),
    "black": (np.zeros((300, 300, 3), np.uint8), "too dark: all black"),
    "dim": (scaled(EYE, 0.15), r"too dark \(mean brightness.*: 1\d.*at least 30 is needed"),
    "glaring": (scaled(EYE, 6.0), r"overexposed \(share.*at most 0.12 is needed"),
    "blurred": (cv2.GaussianBlur(EYE, (0, 0), 8), r"blurred or hazy \(fine detail.*at least 1 is needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_is_refused_with_its_reason_and_a_remedy(tmp_path, name):
    picture, reason = REFUSED[name]
    file = tmp_path / "picture.png"
    file.write_bytes(encoded(picture, "PNG"))
    with pytest.raises(Refused, match=reason) as refusal:
        read(file, 128, 120)
    kinds = [problem.kind for problem in refusal.value.problems]
    assert refusal.value.remedy == " ".join(REMEDIES[kind] for kind in kinds)


@pytest.mark.parametrize("name", [name for name in BROKEN if "black" not in name])
def test_a_file_that_cannot_be_decoded_is_refused(tmp_path, name):
    content, reason = BROKEN[name]
    file = tmp_path / "broken.jpg"
    file.write_bytes(content)
    with pytest.raises(Refused, match=f"cannot be read: .*({reason})") as refusal:
        read(file, 128, 50)
    assert refusal.value.measured == {}
    assert refusal.value.remedy == REMEDIES["cannot be read"]


@pytest.mark.parametrize("name", [None, "missing.jpg"])
def test_no_file_is_refused(tmp_path, name):
    with pytest.raises(Refused, match=r"cannot be read: (is not a file|cannot be opened)"):
        read(tmp_path / name if name else tmp_path, 128, 120)


def test_a_fundus_photograph_passes_as_the_crop_of_the_audit(tmp_path):
    """The same bytes as in the image store of a data set."""
    file = tmp_path / "1_left.jpg"
    file.write_bytes(encoded(photograph(4, 400, 520)))
    found = read(file, 96, 120)
    kept, facts = images.prepare(decoding.read_bytes(file), ".jpg", 96, 120)
    assert np.array_equal(found.image, kept)
    assert (found.crop.width, found.crop.height, found.facts["sharpness"]) == (520, 400, facts["sharpness"])
    assert found.remarks == []
    assert filled(found.facts) == pytest.approx(np.pi / 4, abs=0.02)


def test_every_flag_of_the_audit_refuses_at_its_threshold():
    """At the threshold a photograph passes, beyond it not, as in the audit; no threshold is kept twice."""
    good = {"brightness": 90, "dark_share": 0, "white_share": 0, "sharpness": 4, "field_share": 0.785}
    good |= {"field_x0": 0, "field_x1": 100, "field_y0": 0, "field_y1": 100, "width": 100, "height": 100}
    good |= {"notes": []}
    assert judge(good) == []
    assert set(WORDS) == set(audit.FLAGS)
    assert set(REMEDIES) >= set(audit.FLAGS)
    for flag, (column, side, threshold) in audit.FLAGS.items():
        beyond = np.nextafter(threshold, -np.inf if side == "below" else np.inf)
        assert judge(good | {column: threshold}) == []
        [problem] = judge(good | {column: beyond})
        assert problem.kind == flag
    assert judge(good | {"field_share": LARGEST_FILLED}) == []
    [problem] = judge(good | {"field_share": LARGEST_FILLED + 1e-6, "brightness": 3})
    assert problem.kind == "field of view not found", "what is measured in no field says nothing"


def test_a_remark_of_the_audit_stands_in_the_reason(tmp_path):
    """A bright flat surround without a disc."""
    picture = np.full((300, 300, 3), 200, np.uint8)
    picture[100:220, 60:240] = (30, 60, 200)
    file = tmp_path / "a.png"
    file.write_bytes(encoded(picture, "PNG"))
    with pytest.raises(Refused, match="the corners are bright and flat") as refusal:
        read(file, 128, 120)
    assert refusal.value.measured["width"] == 300


@pytest.mark.real
def test_few_real_photographs_are_refused_and_each_that_is_has_a_flag(shared_data):
    """A photograph that the audit accepts without a flag has a field of view here too."""
    files = sorted((shared_data / "eyepacs_mini").rglob("*.jpeg"))[::6]
    reasons = []
    for file in files:
        try:
            read(file, 224, 120)
        except Refused as refusal:
            reasons.append(refusal.problems[0].kind)
    assert len(files) > 90
    assert len(reasons) <= 0.06 * len(files)
    assert "field of view not found" not in reasons
