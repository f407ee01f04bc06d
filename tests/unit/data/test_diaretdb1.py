"""Votes of experts: which pixels belong to a lesion at which threshold, what an absent file means, what cannot be used."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from photographs import encoded, photograph
from PIL import Image

from drstudy.core import paths
from drstudy.data import images, labels, manifest, sources, votes
from drstudy.explain.measures import localisation
from drstudy.papers.transfer import params

SIDE = 64
REAL = "../shared/data/diaretdb1_mini"
NESTED = (48, 32, 16, 8)
"""Sides of the squares that at least one, two, three and four experts marked."""


def squares(experts: int = 4) -> np.ndarray:
    """Nested squares around the middle, 60 x the number of experts."""
    found = np.zeros((SIDE, SIDE), np.uint8)
    for side in NESTED[:experts]:
        low = (SIDE - side) // 2
        found[low : low + side, low : low + side] += 60
    return found


def write(root, kind: str, name: str, array: np.ndarray) -> None:
    folder = root / "votes" / kind
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / f"{name}.png")


@pytest.fixture
def data(tmp_path):
    """Three photographs; HE: four experts in a, two in b, a file without a mark in c. MA: a only. EX, SE, OD: no folder."""
    (tmp_path / "images").mkdir()
    for number, name in enumerate("abc"):
        picture = photograph(number, SIDE, centre=(SIDE // 2, SIDE // 2), radius=SIDE // 2 - 2)
        (tmp_path / "images" / f"{name}.jpg").write_bytes(encoded(picture))
    for name, experts in (("a", 4), ("b", 2), ("c", 0)):
        write(tmp_path, "HE", name, squares(experts))
    write(tmp_path, "MA", "a", squares(3))
    return tmp_path


def audited(root, least: int, size: int = SIDE) -> SimpleNamespace:
    """As notebook 01 leaves it, read back from disk."""
    table = sources.load("diaretdb1", root, votes=least).manifest
    table.to_csv(root / "manifest.csv", index=False)
    table.assign(split="test")[["image_id", "patient_id", "grade", "split"]].to_csv(
        root / "split.csv", index=False
    )
    store = images.build(table, size, 1, folder=root / "stores")
    (root / "images.json").write_text(json.dumps({"store": str(store.folder)}))
    return SimpleNamespace(path=lambda name: root / name)


def untouched(root) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted((root / "votes").rglob("*.png"))}


@pytest.mark.parametrize(
    ("least", "he", "ma"),
    [(1, [1, 1, 0], [1, 0, 0]), (3, [1, 0, 0], [1, 0, 0]), (4, [1, 0, 0], [0, 0, 0])],
)
def test_presence_follows_from_the_pixels_at_the_threshold(data, least, he, ma):
    source = sources.load("diaretdb1", data, votes=least)
    table = source.manifest
    assert source.problems.empty
    assert list(table["lesion_HE"]) == he
    assert list(table["lesion_MA"]) == ma
    assert list(table["mask_MA"].str[-11:]) == ["votes/MA/a.png"[-11:], "", ""]
    assert (table["mask_values"] == 60 * least).all()
    assert "lesion_EX" not in table, "no folder, so not annotated"
    assert table["grade"].isna().all()
    assert list(table["patient_id"]) == list("abc")
    assert "no folder of votes for EX, SE, OD" in source.notes[-1]
    assert f"at least {least} of 4" in source.notes[1]
    assert f"HE {sum(he)}" in source.notes[2]


@pytest.mark.parametrize("least", [1, 2, 3, 4])
def test_masks_have_the_pixels_of_so_many_experts_and_files_stay_as_they_are(data, least):
    before = untouched(data)
    audit = audited(data, least)
    row = manifest.read(data / "manifest.csv").iloc[0]
    whole = images.Crop(0, 0, SIDE, SIDE, SIDE)
    share = images.load_masks(row, whole, ["HE"], SIDE, coverage=True)["HE"]
    np.testing.assert_array_equal(share, squares() >= 60 * least)
    masks = labels.mask_reader(audit, ("HE", "MA", "EX"))("a")
    crop = labels.store_of(audit).crop("a")
    # the next threshold has less than half of this area; the edges of a bilinear enlargement are right to a twentieth
    area = NESTED[least - 1] ** 2 * (SIDE / crop.side) ** 2
    assert masks.masks["HE"].sum() == pytest.approx(area, rel=0.05)
    assert masks.status == {"HE": "measured", "MA": "measured", "EX": "not annotated"}
    assert masks.masks["EX"] is None
    assert labels.mask_reader(audit, ("MA",))("b").status == {"MA": "absent"}
    found = labels.read(audit, ("HE", "MA"), "masks", 1e-6)
    assert list(found["HE"]) == [1, int(least <= 2), 0]
    assert list(found["HE"]) == list(labels.read(audit, ("HE",), "manifest", 0)["HE"])
    assert untouched(data) == before


def test_the_votes_themselves_do_not_depend_on_the_threshold(data):
    first, second = (votes.reader(audited(data, least), ("HE", "MA", "SE")) for least in (1, 4))
    for name in "abc":
        one, other = first(name), second(name)
        for code in ("HE", "MA", "FOV"):
            np.testing.assert_array_equal(one[code], other[code])
        assert one["SE"] is None
    found = first("a")
    assert found["HE"].dtype == np.uint8
    assert found["FOV"].dtype == bool
    assert (found["HE"].max(), first("b")["HE"].max(), first("c")["HE"].max()) == (4, 2, 0)
    assert not first("b")["MA"].any(), "no file, so nobody marked it"


def test_votes_are_the_masks_at_every_threshold_and_size(data):
    for size in (SIDE, 32, 128):
        for least in (1, 2, 3, 4):
            audit = audited(data, least, size)
            masks, read = localisation.masks_of(audit)("a"), votes.reader(audit, ("HE",))("a")
            np.testing.assert_array_equal(read["HE"] >= least, masks["HE"] >= 0.5)
            np.testing.assert_array_equal(read["FOV"], masks["FOV"])


def test_other_sources_have_no_votes(data):
    audit = audited(data, 3)
    table = manifest.read(data / "manifest.csv").assign(source="idrid")
    table.to_csv(data / "manifest.csv", index=False)
    with pytest.raises(votes.VotesError, match="of idrid, which has no votes"):
        votes.reader(audit, ("HE",))


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (
            np.where(squares() == 60, 61, squares()).astype(np.uint8),
            "votes with the value 61: it must be one of 0, 60, 120",
        ),
        (np.full((SIDE, SIDE), 255, np.uint8), "votes with the value 255"),
        (squares()[:, :60], "votes of 60x64 pixels for a photograph of 64x64"),
        (np.stack([squares(), squares(), 0 * squares()], axis=2), "votes in colour"),
    ],
)
def test_votes_that_cannot_be_used_cost_the_photograph(data, array, problem):
    write(data, "HE", "b", np.ascontiguousarray(array))
    source = sources.load("diaretdb1", data, votes=3)
    assert list(source.manifest["image_id"]) == ["a", "c"], "b would have no HE, which is not known"
    (row,) = source.problems.to_dict("records")
    assert row["file"].endswith("votes/HE/b.png")
    assert row["problem"].startswith(problem)
    assert row["problem"].endswith("its photograph is left out")
    assert row["action"] == "excluded"


def test_a_file_that_is_no_picture_costs_the_photograph_too(data):
    (data / "votes" / "HE" / "b.png").write_bytes(b"no picture")
    source = sources.load("diaretdb1", data, votes=3)
    assert list(source.manifest["image_id"]) == ["a", "c"]
    assert source.problems["file"].str.endswith("HE/b.png").all()


def test_votes_without_a_photograph_and_unknown_kinds_are_named(data):
    write(data, "HE", "z", squares())
    write(data, "XY", "a", squares())
    source = sources.load("diaretdb1", data, votes=3)
    told = [(row.file[-14:], row.problem, row.action) for row in source.problems.itertuples()]
    assert told == [
        (str(data / "votes/XY")[-14:], "votes for an unknown kind of lesion", "ignored"),
        (str(data / "votes/HE/z.png")[-14:], "votes without a photograph of this name", "ignored"),
    ]
    assert len(source.manifest) == 3


def test_a_folder_of_another_layout_is_refused(tmp_path, data):
    with pytest.raises(sources.SourceError, match="VOTES is 5; 4 experts"):
        sources.load("diaretdb1", data, votes=5)
    (tmp_path / "other" / "images").mkdir(parents=True)
    with pytest.raises(sources.SourceError, match=r"votes is missing\. DIARETDB1 has images"):
        sources.load("diaretdb1", tmp_path / "other")
    (data / "images").rename(data / "pictures")
    with pytest.raises(sources.SourceError, match=r"images is missing\. DIARETDB1 has images"):
        sources.load("diaretdb1", data)


def test_notebook_01_passes_the_threshold_on(data):
    p = params.DataAudit(source="diaretdb1", data_root=str(data), votes=1)
    assert list(sources.of(p).manifest["lesion_HE"]) == [1, 1, 0]
    assert params.DataAudit().votes == 3
    with pytest.raises(ValueError, match="votes"):
        params.DataAudit(votes=5)


def test_a_mask_value_must_be_one_that_a_pixel_can_have():
    row = {"image_id": "a", "path": "a.png", "source": "test", "mask_HE": "m.png"}
    table = manifest.build([row | {"mask_values": "180"}])
    assert table["mask_values"].tolist() == [180]
    assert table["mask_HE"].tolist() == ["m.png"]
    with pytest.raises(manifest.ManifestError, match="mask_values"):
        manifest.build([row | {"mask_values": 0}])


@pytest.mark.real
def test_sixty_real_photographs(tmp_path):
    if not paths.resolve(REAL).is_dir():
        pytest.skip(f"{REAL} is absent: it holds real photographs, which are not part of the project")
    source = sources.load("diaretdb1", REAL, votes=3)
    table = source.manifest
    assert source.problems.empty
    assert len(table) == 60
    present = {code: int(table[f"lesion_{code}"].sum()) for code in ("MA", "HE", "EX", "SE")}
    assert present == {"MA": 31, "HE": 29, "EX": 27, "SE": 15}
    some = table[::6].reset_index(drop=True)
    store = images.build(some, 512, 1, folder=tmp_path / "stores")
    some.to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "images.json").write_text(json.dumps({"store": str(store.folder)}))
    audit = SimpleNamespace(path=lambda name: tmp_path / name)
    read, masks_of = votes.reader(audit, ("EX", "DISC")), localisation.masks_of(audit)
    brighter = []
    for name in some["image_id"]:
        found, masks = read(name), masks_of(name)
        green = np.asarray(store.images[store.row(name)])[..., 1].astype(float)
        np.testing.assert_array_equal(found["EX"] >= 3, masks["EX"] >= 0.5)
        for code in ("EX", "DISC"):
            marked = found[code] >= 3
            assert (marked & found["FOV"]).sum() >= 0.98 * marked.sum()
        disc = found["DISC"] >= 3
        if disc.any():
            brighter.append(green[disc].mean() - green[found["FOV"]].mean())
            size = np.sqrt(disc.sum() / found["FOV"].sum())
            assert 0.1 < size < 0.2, "a disc is about a seventh of the field wide"
    assert len(brighter) > 6
    assert np.mean(brighter) > 5, "the disc is brighter than the rest of the field"
