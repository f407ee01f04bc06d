"""One photograph: hostile files, the field of view, the geometry of the crop, and masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from photographs import BROKEN, EYE, encoded, folder_of, photograph
from PIL import Image

from drstudy.data import decoding, images, measures
from drstudy.data.decoding import BadImage

SIZE = 96


def prepared(content: bytes, suffix: str = ".jpeg", size: int = SIZE, max_megapixels: float = 50.0):
    return images.prepare(content, suffix, size, max_megapixels)


def rotated(orientation: int) -> bytes:
    """A file whose pixels are turned and whose EXIF says how to turn them back."""
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(EYE).transpose(undo[orientation]), exif=exif)


def sixteen(suffix: str, scale: float, grey: bool = False) -> bytes:
    array = np.round(EYE.astype(np.float64) * scale).astype(np.uint16)
    ok, content = cv2.imencode(suffix, array[:, :, 0] if grey else array[:, :, ::-1])
    assert ok
    return content.tobytes()


# --- files of every kind ---------------------------------------------------------------------------------

KINDS = {
    "png named jpeg": (encoded(EYE, "PNG"), ".jpeg", "a PNG file named .jpeg", "used: read as PNG"),
    "exif 3": (rotated(3), ".jpeg", "EXIF orientation 3", "used: turned upright"),
    "exif 6": (rotated(6), ".jpeg", "EXIF orientation 6", "used: turned upright"),
    "exif 8": (rotated(8), ".jpeg", "EXIF orientation 8", "used: turned upright"),
    "16-bit png": (sixteen(".png", 257), ".png", "16 bits a channel", "used: scaled to 8 bits"),
    "16-bit tiff": (sixteen(".tiff", 257), ".tiff", "16 bits a channel", "used: scaled to 8 bits"),
    "12 bits in 16": (
        sixteen(".png", 4095 / 255),
        ".png",
        "12 bits of a camera",
        "used: 4095 taken as white",
    ),
    "transparency": (
        encoded(Image.fromarray(EYE).convert("RGBA"), "PNG"),
        ".png",
        "RGB with transparency, not RGB",
        "used: converted RGB with transparency to RGB",
    ),
    "cmyk": (
        encoded(Image.fromarray(EYE).convert("CMYK")),
        ".jpg",
        "CMYK",
        "used: converted mode CMYK to RGB",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_unusual_files_give_the_same_crop_and_are_named(kind):
    content, suffix, problem, action = KINDS[kind]
    plain, _ = prepared(encoded(EYE, "PNG"), ".png")
    crop, record = prepared(content, suffix)
    assert len(record["notes"]) == 1
    assert problem in record["notes"][0][0]
    assert record["notes"][0][1] == action
    # lossy JPEG, CMYK and 12 bits move values by a few levels; a wrong rotation or channel order by dozens
    assert np.abs(crop.astype(int) - plain).mean() < 2.5


def test_sixteen_bit_grey_is_scaled_and_grey():
    crop, record = prepared(sixteen(".png", 257, grey=True), ".png")
    assert record["bits"] == 16
    plain, _ = prepared(encoded(EYE[:, :, 0], "PNG"), ".png")
    assert np.array_equal(crop, plain)
    assert (crop[:, :, 0] == crop[:, :, 2]).all()


def test_greyscale_and_palette_are_named():
    _, grey = prepared(encoded(Image.fromarray(EYE).convert("L")))
    assert grey["notes"] == [("greyscale, not RGB", "used: converted greyscale to RGB")]
    _, palette = prepared(encoded(Image.fromarray(EYE).convert("P"), "PNG"), ".png")
    assert palette["notes"] == [("palette, not RGB", "used: converted palette to RGB")]


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_say_why(kind, tmp_path):
    content, reason = BROKEN[kind]
    path = tmp_path / "x.jpeg"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=reason):
        prepared(decoding.read_bytes(path))


def test_missing_file_says_so(tmp_path):
    with pytest.raises(BadImage, match="cannot be opened"):
        decoding.read_bytes(tmp_path / "none.jpeg")


# --- field of view and geometry --------------------------------------------------------------------------


@pytest.mark.parametrize("brightness", [1.0, 0.12])
@pytest.mark.parametrize("centre", [(150, 150), (110, 170), (60, 150)])
def test_field_is_found_where_it_is(centre, brightness):
    picture = (photograph(2, 300, 320, centre, 95) * brightness).astype(np.uint8)
    field = measures.find_field(picture)
    expected = (max(0, centre[0] - 95), centre[1] - 95, centre[0] + 96, centre[1] + 96)
    # the rim is smoothed over 5 pixels before it is found; 3 pixels are 1.6 % of the field
    assert np.allclose((field.x0, field.y0, field.x1, field.y1), expected, atol=3)


def test_shadow_and_marks_do_not_cut_the_field():
    picture = photograph(3)
    picture[100:290, 40:150] = 0
    picture[2:8, 260:290] = 200
    whole = measures.find_field(photograph(3))
    field = measures.find_field(picture)
    assert abs(field.side - whole.side) <= 4


def test_picture_without_border_is_all_field():
    inner = np.ascontiguousarray(photograph(4, 400)[100:300, 100:300])
    field = measures.find_field(inner)
    assert (field.x0, field.y0, field.x1, field.y1, field.share) == (0, 0, 200, 200, 1.0)
    assert measures.fov_mask(inner).all()


def test_fov_mask_covers_the_disc():
    mask = measures.fov_mask(EYE)
    y, x = np.mgrid[:300, :300]
    disc = np.hypot(x - 150, y - 150) <= 0.46 * 300
    assert (mask != disc).mean() < 0.01


def test_crop_reaches_beyond_the_edges_in_black():
    picture = photograph(5, 240, 400, (200, 120), 180)
    crop, record = prepared(encoded(picture, "PNG"), ".png")
    assert record["side"] > 240
    assert record["y0"] < 0
    beyond = int(-record["y0"] / record["side"] * SIZE) - 1
    assert crop[:beyond].max() == 0
    assert crop[beyond + 3].max() > 0


def test_reduced_decoding_changes_nothing_that_is_seen(monkeypatch):
    content = encoded(photograph(6, 1600, 2100))
    fast, record = prepared(content)
    assert record["reduce"] == 4
    monkeypatch.setattr(decoding, "REDUCTIONS", (1,))
    slow, full = prepared(content)
    assert full["reduce"] == 1
    assert abs(record["side"] - full["side"]) <= 8
    # a crop shifted by 8 of 1480 source pixels is half a pixel here; vessels then differ by a few levels
    assert np.abs(fast.astype(int) - slow).mean() < 3


def test_reduced_decoding_never_goes_below_the_target():
    small = photograph(7, 2400, 2400, (900, 1300), 220)
    _, record = prepared(encoded(small), size=224)
    assert record["reduce"] == 1
    for radius in (300, 560, 1100):
        _, record = prepared(encoded(photograph(7, 2400, 2400, None, radius)), size=224)
        assert record["side"] / record["reduce"] >= measures.MEASURE_SIDE


def masked(tmp_path: Path, scale: float = 1.0) -> tuple[pd.Series, images.Crop, np.ndarray, tuple[int, int]]:
    picture = photograph(8, 800, 1000, (430, 420), 330)
    spot = (560, 300)
    cv2.circle(picture, spot, 14, (255, 255, 255), -1)
    mask = np.zeros((800, 1000), np.uint8)
    cv2.circle(mask, spot, 14, 255, -1)
    if scale != 1:
        mask = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    Image.fromarray(mask).convert("1").save(tmp_path / "eye_EX.tif")
    tiny = np.zeros((800, 1000), np.uint8)
    tiny[500, 400] = 255
    Image.fromarray(tiny).save(tmp_path / "eye_MA.png")
    manifest = folder_of(tmp_path, {"eye.jpeg": encoded(picture)})
    row = manifest.iloc[0].copy()
    row["mask_EX"], row["mask_MA"] = str(tmp_path / "eye_EX.tif"), str(tmp_path / "eye_MA.png")
    store = images.build(manifest, SIZE, workers=1, folder=tmp_path / "stores")
    return row, store.crop("eye"), np.asarray(store.images[0]), spot


def test_masks_lie_where_the_image_shows_them(tmp_path):
    row, crop, image, _ = masked(tmp_path)
    share = images.load_masks(row, crop, ["EX", "MA", "SE"], SIZE, coverage=True)
    assert set(share) == {"EX", "MA"}
    assert share["EX"].dtype == np.float32
    seen = (image.min(axis=2) > 180).astype(float)
    shift, response = cv2.phaseCorrelate(seen, (share["EX"] > 0.5).astype(float))
    assert np.hypot(*shift) < 0.5
    assert response > 0.5
    # the mask's area survives: its pixels are averaged, not sampled
    area = share["EX"].sum() * (crop.side / SIZE) ** 2
    assert area == pytest.approx((cv2.circle(np.zeros((40, 40)), (20, 20), 14, 1.0, -1)).sum(), rel=0.01)


def test_a_microaneurysm_of_one_pixel_is_not_lost(tmp_path):
    row, crop, _, _ = masked(tmp_path)
    found = images.load_masks(row, crop, ["MA"], SIZE)["MA"]
    assert found.dtype == bool
    assert 1 <= found.sum() <= 4
    y, x = np.argwhere(found).mean(axis=0)
    assert x == pytest.approx((400.5 - crop.x0) / crop.side * SIZE, abs=1)
    assert y == pytest.approx((500.5 - crop.y0) / crop.side * SIZE, abs=1)


def test_mask_at_another_scale_fits_and_of_another_shape_does_not(tmp_path):
    row, crop, image, _ = masked(tmp_path, scale=0.5)
    seen = (image.min(axis=2) > 180).astype(float)
    half = images.load_masks(row, crop, ["EX"], SIZE, coverage=True)["EX"]
    assert np.hypot(*cv2.phaseCorrelate(seen, (half > 0.5).astype(float))[0]) < 1
    Image.fromarray(np.zeros((500, 500), np.uint8)).save(tmp_path / "eye_MA.png")
    with pytest.raises(BadImage, match="500x500, not of the proportions"):
        images.load_masks(row, crop, ["MA"], SIZE)


@pytest.mark.parametrize("size", [399, 256, 201])
def test_bilinear_shrinking_is_close_to_the_mean_of_areas(size):
    """Neighbouring pixels of the result differ by 1.4 to 2.7 levels; a fifth of that is allowed."""
    square = np.ascontiguousarray(photograph(5, 400)[:400, :400])
    exact = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA).astype(float)
    allowed = np.abs(np.diff(exact, axis=0)).mean() / 5
    assert np.abs(images.shrink(square, size) - exact).mean() < allowed
    assert np.array_equal(
        images.shrink(square, 200), cv2.resize(square, (200, 200), interpolation=cv2.INTER_AREA)
    )
