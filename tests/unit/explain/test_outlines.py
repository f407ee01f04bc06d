"""Outlines of maps and masks whose shape is known."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from drstudy.core import paths
from drstudy.data import decoding, images, sources
from drstudy.data.images import Crop
from drstudy.explain.measures import coco, outlines, scores
from drstudy.explain.measures.outlines import borders, fill, polygon, regions
from drstudy.show import outlines as drawings
from drstudy.show import style

SIZE = 64


def disc(x, y, radius, size=SIZE):
    rows, columns = np.indices((size, size))
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


FOV = disc(31.5, 31.5, 30)


def cut(*maps, probabilities=None, thresholds=None, fov=FOV, **options):
    maps = np.stack([np.asarray(one, np.float32) for one in maps])
    probabilities = [0.9] * len(maps) if probabilities is None else probabilities
    thresholds = [0.5] * len(maps) if thresholds is None else thresholds
    return regions(maps, probabilities, thresholds, fov, **options)


# --- regions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [0.5, 0.95, "otsu"])
def test_a_map_equal_to_a_mask_is_outlined_as_that_mask(how):
    mask = disc(20, 40, 6)
    found = cut(3.7 * mask, cut=how)
    assert found.status == ("outlined",)
    np.testing.assert_array_equal(found.masks[0], mask)


def test_two_blobs_are_two_outlines_with_their_own_areas():
    small, large = disc(20, 20, 3), disc(44, 40, 6)
    found = cut(small | large)
    traced = outlines.trace(found, ["HE"], [0.9])
    assert sorted(one.area for one in traced) == sorted([small.sum(), large.sum()])
    assert {(one.label, one.score) for one in traced} == {("HE", 0.9)}


def test_blobs_that_touch_at_a_corner_are_one():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20:25, 20:25] = mask[25:30, 25:30] = True
    assert [area for area, _ in borders(mask)] == [50]
    mask[25:30, 25:30] = False
    mask[26:31, 26:31] = True
    assert [area for area, _ in borders(mask)] == [25, 25]


def test_a_shifted_map_gives_the_shifted_outline():
    found = [cut(disc(20 + shift, 30, 5)).masks[0] for shift in (0, 7)]
    np.testing.assert_array_equal(np.roll(found[0], 7, axis=1), found[1])


def test_a_small_map_is_brought_up_with_pixel_centres_in_place():
    low = np.zeros((8, 8))
    low[2, 5] = 1
    found = cut(low, smallest=0).masks[0]
    rows, columns = np.nonzero(found)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == (2.5 * 8, 5.5 * 8)


@pytest.mark.parametrize(
    ("map_", "probability", "status"),
    [
        (np.zeros((8, 8)), 0.9, "no heat"),
        (np.full((7, 7), 0.3), 0.9, "flat"),
        (np.where(FOV, 0, 5), 0.9, "no heat"),
        (np.linspace(9, 10, 64).reshape(8, 8), 0.9, "flat"),
        (disc(20, 40, 6), 0.49, "not predicted"),
        (disc(20, 40, 6), 0.5, "outlined"),
    ],
    ids=["zero", "flat", "heat outside only", "whole field", "not predicted", "at the threshold"],
)
def test_no_outline_without_lesion_or_contrast(map_, probability, status):
    found = cut(map_, probabilities=[probability])
    assert found.status == (status,)
    assert found.masks.any() == (status == "outlined")
    assert bool(outlines.trace(found, ["HE"], [probability])) == (status == "outlined")


def test_otsu_does_not_part_a_flat_map_either():
    assert cut(np.full((7, 7), 0.3), cut="otsu").status == ("flat",)


def test_heat_outside_the_field_sets_no_scale_and_has_no_outline():
    lesion = disc(20, 40, 6)
    found = cut(lesion + 100.0 * ~FOV)
    np.testing.assert_array_equal(found.masks[0], lesion)


def test_the_smallest_outline_is_a_circle_in_disc_diameters():
    diameter, _ = scores.disc_diameter(None, FOV)
    heat, smallest = np.zeros((SIZE, SIZE)), 0.5
    least = np.pi / 4 * (smallest * diameter) ** 2
    below, above = int(np.floor(least)), int(np.ceil(least))
    assert above == below + 1
    heat[20, 10 : 10 + below] = 1
    heat[40, 10 : 10 + above] = 1
    found = cut(heat, smallest=smallest)
    assert found.masks[0].sum() == above
    assert found.masks[0][40].any()
    heat[40] = 0
    assert cut(heat, smallest=smallest).status == ("too small",)
    assert cut(heat, smallest=0).masks[0].sum() == below


def test_each_label_has_its_own_cut_and_one_that_is_unknown_outlines_nothing():
    ramp = np.where(FOV, np.arange(SIZE)[None], 0)
    found = cut(ramp, ramp, ramp, cut=[0.5, 0.9, np.nan], smallest=0)
    assert found.status == ("outlined", "outlined", "no cut")
    highest = ramp.max()
    np.testing.assert_array_equal(found.masks[0], ramp >= 0.5 * highest)
    np.testing.assert_array_equal(found.masks[1], ramp >= 0.9 * highest)
    assert not found.masks[2].any()


def test_pixels_at_the_cut_belong_to_the_region():
    found = cut(np.where(disc(30, 30, 4), 1.0, np.where(disc(30, 30, 8), 0.5, 0.25)), cut=0.5)
    np.testing.assert_array_equal(found.masks[0], disc(30, 30, 8))


def test_regions_are_those_whose_dice_is_reported():
    random = np.random.default_rng(0)
    heat = cv2.GaussianBlur(random.random((SIZE, SIZE)).astype(np.float32), (0, 0), 4)
    heat, mask = heat - heat.min(), disc(25, 35, 9)
    expected = scores.Ranked(heat[None, FOV]).scores(mask[FOV].astype(np.float32))
    for how, name in (("otsu", "dice_otsu"), (0.5, "dice_fixed")):
        found = outlines.agreement(cut(heat, cut=how, smallest=0), ["HE"], {"FOV": FOV, "HE": mask})
        assert found["dice"].item() == pytest.approx(expected[name][0], abs=1e-12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"maps": -np.ones((1, 8, 8))}, "after the ReLU"),
        ({"maps": np.full((1, 8, 8), np.nan)}, "finite"),
        ({"maps": np.ones((8, 8))}, "labels, h, w"),
        ({"probabilities": [2.5]}, "not logits"),
        ({"probabilities": [np.nan]}, "not logits"),
        ({"thresholds": [0.5, 0.5]}, "one of each"),
        ({"fov": np.zeros((SIZE, SIZE), bool)}, "not empty"),
        ({"fov": FOV.astype(float)}, "bool"),
        ({"cut": "best"}, "otsu"),
        ({"cut": 0.0}, "between 0 and 1"),
        ({"cut": 1.0}, "between 0 and 1"),
        ({"cut": 50}, "between 0 and 1"),
        ({"cut": [0.5, 0.5]}, "one for each"),
    ],
)
def test_what_cannot_be_outlined_is_an_error(changed, message):
    given = {"maps": np.ones((1, 8, 8)), "probabilities": [0.9], "thresholds": [0.5], "fov": FOV, "cut": 0.5}
    with pytest.raises(ValueError, match=message):
        regions(**given | changed)


# --- the fitted cut -------------------------------------------------------------------------------


def test_the_fitted_cut_is_that_of_the_eyes_which_have_and_show_the_lesion():
    heat = np.where(disc(30, 30, 6), 1.0, np.where(disc(30, 30, 12), 0.42, 0.0))
    wide, narrow = {"FOV": FOV, "HE": disc(30, 30, 12)}, {"FOV": FOV, "HE": disc(30, 30, 6)}
    eyes = {
        "a": wide,
        "b": narrow,
        "c": narrow,
        "none": {"FOV": FOV, "HE": np.zeros_like(FOV)},
        "unknown": {"FOV": FOV},
    }

    def fit(names, predicted, *, maps=None):
        maps = np.stack([heat[None]] * len(names)) if maps is None else maps
        return outlines.fit_fractions(maps, ["HE"], names, eyes.get, np.array(predicted)[:, None]).iloc[0]

    found = fit(["a"], [True])
    assert (found["eyes"], found["fraction"], found["dice"]) == (1, pytest.approx(0.05), 1)
    assert fit(["b"], [True])["fraction"] == pytest.approx(0.45)
    both = fit(["a", "b", "c", "none", "unknown"], [True] * 5)
    assert (both["eyes"], both["fraction"]) == (3, pytest.approx(0.45))
    not_shown = fit(["a", "b", "c"], [True, False, False])
    assert (not_shown["eyes"], not_shown["fraction"]) == (1, pytest.approx(0.05))
    nobody = fit(["none"], [True])
    assert nobody["eyes"] == 0
    assert np.isnan(nobody["fraction"])
    assert fit(["a"], [True], maps=np.zeros((1, 1, 8, 8)))["eyes"] == 0
    with pytest.raises(ValueError, match="must begin with"):
        fit(["a", "b"], [True])


# --- agreement ------------------------------------------------------------------------------------


def test_outlines_and_lesions_are_counted_both_ways():
    masks = {"FOV": FOV, "HE": disc(18, 20, 3) | disc(40, 20, 3) | disc(40, 45, 3), "EX": np.zeros_like(FOV)}
    heat = disc(18, 20, 4) | disc(20, 45, 4)
    found = outlines.agreement(
        cut(heat, heat, heat, heat, probabilities=[0.9, 0.9, 0.9, 0.1]), ["HE", "EX", "SE", "HE"], masks
    )
    he, ex, se, missed = found.to_dict("records")
    assert (he["outlines"], he["outlines_right"], he["lesions"], he["lesions_touched"]) == (2, 1, 3, 1)
    shared = disc(18, 20, 3).sum()
    assert he["dice"] == pytest.approx(2 * shared / (heat.sum() + masks["HE"].sum()))
    assert he["iou"] == pytest.approx(shared / (heat | masks["HE"]).sum())
    assert he["area"] == pytest.approx(heat.sum() / FOV.sum())
    assert (ex["present"], ex["outlines"], ex["outlines_right"], ex["lesions"]) == (False, 2, 0, 0)
    assert np.isnan(ex["dice"])
    assert pd.isna(se["present"])
    assert pd.isna(se["lesions"])
    assert pd.isna(se["outlines_right"])
    assert (missed["present"], missed["status"], missed["dice"], missed["outlines"]) == (
        True,
        "not predicted",
        0,
        0,
    )


# --- polygons -------------------------------------------------------------------------------------


def area_of(points):
    x, y = np.asarray(points).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_polygons_give_the_very_mask_back(density):
    """Noise has holes, islands in holes, and regions that touch themselves at corners."""
    for seed in range(20):
        mask = np.random.default_rng(seed).random((24, 24)) < density
        found = borders(mask)
        assert sum(area for area, _ in found) == mask.sum()
        np.testing.assert_array_equal(fill([polygon(rings) for _, rings in found], 24, 24), mask)


def test_a_ring_has_a_border_and_a_hole_and_its_polygon_leaves_the_hole_out():
    mask = disc(30, 30, 12) & ~disc(30, 30, 5)
    ((area, rings),) = borders(mask)
    assert area == mask.sum()
    assert len(rings) == 2
    assert area_of(rings[0]) == pytest.approx(disc(30, 30, 12).sum() - 0.5)
    points = polygon(rings)
    assert area_of(points) == pytest.approx(area_of(rings[0]) - area_of(rings[1]))
    filled = fill([points], SIZE, SIZE)
    assert not filled[30, 30]
    np.testing.assert_array_equal(filled, mask)


def test_an_island_in_a_hole_is_its_own_outline():
    mask = (disc(30, 30, 14) & ~disc(30, 30, 9)) | disc(30, 30, 4)
    found = borders(mask)
    assert [len(rings) for _, rings in found] == [2, 1]
    np.testing.assert_array_equal(fill([polygon(rings) for _, rings in found], SIZE, SIZE), mask)


def test_straight_sides_have_no_vertices_between():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[10:20, 30:50] = True
    ((_, rings),) = borders(mask)
    points = polygon(rings)
    assert len(points) == 8
    assert area_of(points) == 200 - 0.5
    assert (points.min(0).tolist(), points.max(0).tolist()) == ([30, 10], [50, 20])


def test_a_region_at_the_edge_of_the_picture_is_closed():
    mask = np.zeros((8, 8), bool)
    mask[:3, 5:] = True
    ((_, rings),) = borders(mask)
    np.testing.assert_array_equal(fill([polygon(rings)], 8, 8), mask)
    assert rings[0].max() == 8


# --- COCO -----------------------------------------------------------------------------------------


def store(crop=None, size=SIZE, names=("a", "b")):
    crop = crop or Crop(0, 0, size, size, size)
    images = np.full((len(names), size, size, 3), 90, np.uint8)
    index = pd.DataFrame({"image_id": names, "path": [f"data/eyes/{name}.jpeg" for name in names]})
    return SimpleNamespace(
        image_size=size, images=images, index=index, crop=lambda name: crop, row=list(names).index
    )


def box_outline(x, y, width, height, label="HE", score=0.75):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + height, x : x + width] = True
    ((area, rings),) = borders(mask)
    return outlines.Outline(label, score, area, rings)


def test_coco_geometry_of_a_box():
    document = coco.document({"a": [], "b": [box_outline(10, 20, 6, 4)]}, ["MA", "HE"], store())
    assert [(one["id"], one["image_id"], one["width"], one["height"]) for one in document["images"]] == [
        (1, "a", SIZE, SIZE),
        (2, "b", SIZE, SIZE),
    ]
    assert [(one["id"], one["name"]) for one in document["categories"]] == [(1, "MA"), (2, "HE")]
    (one,) = document["annotations"]
    assert (one["image_id"], one["category_id"], one["iscrowd"], one["score"]) == (2, 2, 0, 0.75)
    assert one["bbox"] == [10, 20, 6, 4]
    assert one["area"] == 24
    corners = {tuple(point) for point in np.reshape(one["segmentation"][0], (-1, 2))}
    assert corners == {
        *((10.5, 20), (15.5, 20), (16, 20.5), (16, 23.5)),
        *((15.5, 24), (10.5, 24), (10, 23.5), (10, 20.5)),
    }


def test_coco_on_the_photograph_by_hand():
    crop = Crop(x0=100, y0=-30, side=SIZE * 10, width=900, height=590)
    document = coco.document({"a": [box_outline(10, 20, 6, 4)]}, ["HE"], store(crop, names=["a"]))
    source = coco.to_source(json.loads(json.dumps(document)))
    (image,), (one,) = source["images"], source["annotations"]
    assert (image["width"], image["height"], image["file_name"]) == (900, 590, "data/eyes/a.jpeg")
    assert one["bbox"] == [200, 170, 60, 40]
    assert one["area"] == 2400
    assert "crop" in document["images"][0], "the document given is left as it was"
    edge = coco.on_photograph(np.array([[0.0, 0.0], [64.0, 64.0]]), crop, SIZE)
    assert edge.tolist() == [[100, 0], [740, 590]], "what lies beyond the photograph is brought to its edge"


@pytest.mark.parametrize(
    "crop", [Crop(13, 7, 341, 400, 360), Crop(-20, 31, 700, 660, 800), Crop(5, 5, 50, 60, 60)]
)
def test_polygons_on_the_photograph_cut_as_the_store_cuts_give_the_mask_back(crop):
    """No pixel is lost where the photograph is finer than the study's image; where it is coarser (the last crop),
    none beyond those that touch the border of the region."""
    mask = disc(22, 25, 8) & ~disc(22, 25, 3) | disc(40, 38, 6)
    eye = [outlines.Outline("HE", 0.5, area, rings) for area, rings in borders(mask)]
    document = coco.document({"a": eye}, ["HE"], store(crop, names=["a"]))
    on_photograph = coco.masks_in(coco.to_source(document))["a", "HE"]
    assert on_photograph.shape == (crop.height, crop.width)
    back = crop.cut(on_photograph.astype(np.float32), SIZE) >= 0.5
    if crop.side >= SIZE:
        np.testing.assert_array_equal(back, mask)
    else:
        square = np.ones((3, 3), np.uint8)
        border = (cv2.dilate(mask.astype(np.uint8), square) > 0) & (
            cv2.erode(mask.astype(np.uint8), square) == 0
        )
        assert not ((back != mask) & ~border).any()


def test_files_hold_what_was_outlined_and_nothing_of_an_earlier_run(tmp_path):
    from PIL import Image

    heat = disc(20, 20, 5) & ~disc(20, 20, 2) | disc(45, 40, 7)
    found = cut(heat, disc(30, 45, 4), probabilities=[0.8, 0.7])
    eyes = {"a": outlines.trace(found, ["HE", "EX"], [0.8, 0.7]), "b": []}
    stale = tmp_path / "masks/b_EX.png"
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    document = drawings.export(tmp_path, eyes, ["HE", "EX"], store())
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert written == [
        *("images/a.png", "images/b.png", "masks/a_EX.png", "masks/a_HE.png"),
        *("outlines.json", "outlines_source.json", "overlays/a.png", "overlays/b.png"),
    ]
    assert json.loads((tmp_path / "outlines.json").read_text()) == document
    assert {name: (tmp_path / one["file_name"]).exists() for name, one in zip("ab", document["images"])} == {
        "a": True,
        "b": True,
    }
    for label, mask in zip(("HE", "EX"), found.masks):
        np.testing.assert_array_equal(coco.masks_in(document)["a", label], mask)
        with Image.open(tmp_path / f"masks/a_{label}.png") as picture:
            assert picture.mode == "1"
            np.testing.assert_array_equal(np.asarray(picture), mask)
    plain, drawn = (np.asarray(Image.open(tmp_path / f"overlays/{name}.png")) for name in "ba")
    assert plain.shape == drawn.shape == (704, 704, 3)
    assert (plain == 90).all()
    green = np.array(drawings.rgb("EX"))
    there = np.argwhere((drawn == green).all(2)) / 11
    assert len(there), "EX is drawn in its colour"
    assert there.min(0)[1] >= 30 - 4 - 8, "its line lies where the region is, its name above"


def test_a_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    drawings.export(tmp_path, {"a": []}, ["HE"], store())
    before = (tmp_path / "outlines.json").read_text()
    monkeypatch.setattr(drawings.json, "dumps", lambda content: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drawings.export(tmp_path, {"a": [box_outline(10, 20, 6, 4)]}, ["HE"], store())
    assert (tmp_path / "outlines.json").read_text() == before
    assert not list(tmp_path.glob(".outlines*"))
    assert paths.sha256(tmp_path / "outlines.json")


SEEN_BY = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Machado et al. 2009, on linear RGB."""


@pytest.mark.parametrize("eyes", ["all cones", *SEEN_BY])
def test_colours_of_the_default_labels_differ_for_every_kind_of_eye(eyes):
    """From each other and from retina (an orange), by 20 in CIELAB, where 2 can just be told apart side by side."""
    from skimage.color import rgb2lab

    tones = (
        np.array([drawings.rgb(label) for label in ("MA", "HE", "EX", "SE", "NV")] + [(180, 88, 46)]) / 255
    )
    linear = np.where(tones <= 0.04045, tones / 12.92, ((tones + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(SEEN_BY.get(eyes, np.eye(3))).T, 0, 1)
    seen = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)[np.triu_indices(6, 1)]
    assert apart.min() >= 20


def test_an_outline_finds_back_to_a_photograph_that_the_decoder_shrank():
    """A bright square in a round field at a known place of a large JPEG, outlined in the study's image: its edges are
    found to half of a shrunk pixel, by which the store may cut beside, and half of a study pixel."""
    height, width, box = 1500, 2000, (1205, 603, 240, 160)
    rows, columns = np.indices((height, width))
    photograph = np.zeros((height, width, 3), np.uint8)
    photograph[(columns - 1030) ** 2 + (rows - 741) ** 2 <= 690**2] = (150, 70, 30)
    x, y, w, h = box
    photograph[y : y + h, x : x + w] = (240, 230, 140)
    _, content = cv2.imencode(".jpeg", photograph[..., ::-1])
    image, record = images.prepare(content.tobytes(), ".jpeg", 224, 100)
    assert record["reduce"] > 1
    crop = Crop(*(record[name] for name in ("x0", "y0", "side", "width", "height")))
    ((_, rings),) = borders(image[..., 1] > 150)
    found = coco.on_photograph(rings[0], crop, 224)
    bound = record["reduce"] / 2 + crop.side / 224 / 2
    np.testing.assert_allclose(found.min(0), (x, y), atol=bound)
    np.testing.assert_allclose(found.max(0), (x + w, y + h), atol=bound)


@pytest.mark.real
def test_outlines_of_real_discs_lie_on_the_masks_of_their_photographs(tmp_path):
    """Centres agree to half a pixel of the photograph; coordinates of pixel centres taken for edges would be out by half
    a pixel of the study's image, 1.4 of the photograph's."""
    folder = "../shared/data/idrid_mini"
    if not paths.resolve(folder).is_dir():
        pytest.skip(f"{folder} is absent: it holds real photographs, which are not part of the project")
    manifest = sources.load("idrid", folder).manifest.iloc[:3]
    store = images.build(manifest, 224, workers=1, folder=tmp_path)
    for _, row in manifest.iterrows():
        cover = images.load_masks(row, store.crop(row["image_id"]), ["DISC"], 224, coverage=True)["DISC"]
        rings = [
            coco.on_photograph(polygon(one), store.crop(row["image_id"]), 224)
            for _, one in borders(cover >= 0.5)
        ]
        content = decoding.read_bytes(paths.resolve(row["mask_DISC"]))
        true = decoding.pixels(content, decoding.header(content, ".tif", np.inf)).max(axis=2) > 0
        found = fill(rings, *true.shape)
        np.testing.assert_allclose(np.argwhere(found).mean(0), np.argwhere(true).mean(0), atol=0.5)
        assert found.sum() == pytest.approx(true.sum(), rel=0.03)


def test_a_page_shows_truth_and_outlines_of_every_case_and_says_where_there_is_none():
    from drstudy.papers.lesions import figures

    heat, masks = disc(20, 40, 6), {"FOV": FOV, "HE": disc(20, 40, 5), "EX": disc(45, 20, 3)}
    eyes = [cut(heat, heat, probabilities=p) for p in ([0.9, 0.2], [0.2, 0.2])]
    found = [outlines.trace(eye, ["HE", "EX"], [0.9, 0.2]) for eye in eyes]
    cases = pd.DataFrame(
        {
            "case": ["best", "missed"],
            "image_id": ["a", "b"],
            "label": ["HE", "HE"],
            "probability": [0.9, 0.2],
            "dice": [0.8, 0.0],
            "status": ["outlined", "not predicted"],
        }
    )
    page = figures.outlined(
        cases, [np.full((SIZE, SIZE, 3), 90, np.uint8)] * 2, [masks] * 2, found, ["HE", "EX"]
    )
    lines = [len(axis.lines) for axis in page.axes]
    assert lines == [0, 2, 1, 0, 2, 0]
    (predicted,) = page.axes[2].lines
    assert predicted.get_color() == style.LESIONS["HE"].colour
    assert predicted.get_xdata().mean() == pytest.approx(20, abs=0.1), (
        "pictures are drawn around pixel centres"
    )
    assert [text.get_text() for text in page.axes[5].texts] == ["no outline of HE: not predicted"]
    assert [text.get_text() for text in page.legends[0].get_texts()] == [
        "HE: haemorrhage",
        "EX: hard exudate",
    ]
    assert figures.outlined(cases.iloc[:0], [], [], [], ["HE"]).axes
