"""The same photographs and the same split at another size, and what is refused."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from drstudy.core import paths, records
from drstudy.data import audit, division, duplicates, images, sources, splits
from drstudy.papers.transfer import params

BASE = "01_data_audit"
FIRST = f"results/demo/{BASE}"

pytestmark = pytest.mark.filterwarnings("ignore::drstudy.data.splits.SplitWarning")


@pytest.fixture(autouse=True)
def folders(own_folders):
    return own_folders


def audited(variant: str = "", found: pd.DataFrame | None = None, **values) -> records.Record:
    """As notebook 01 does it, without its figures; ``found`` stands for the pairs of duplicates."""
    small = {"n_patients": 12, "phantom_size": 64, "image_size": 64, "workers": 1, "near_duplicate_bits": 16}
    p = params.DataAudit(profile="demo", variant=variant, **small | values)
    run = records.start(p)
    source = sources.of(p)
    store = images.build(source.manifest, p.image_size, p.workers, p.max_megapixels)
    manifest = audit.usable(source.manifest, store)
    pairs, split = division.of(p, source, store, run)
    pairs = duplicates.annotate(pairs if found is None else found, manifest, split)
    splits.check(split, pairs)
    audit.save(run, manifest, audit.quarantine(source, store), audit.table(store), pairs, split, store)
    run.finish()
    return records.load(run.folder)


def test_a_split_is_drawn_where_none_is_named():
    first = audited()
    table = sources.load(
        "phantom", next((paths.data() / "phantom").glob("12x64-*/labels.csv")).parent
    ).manifest
    expected = splits.make(table, (0.6, 0.15, 0.25), 0)
    found = pd.read_csv(first.path("split.csv"))
    assert list(found["split"]) == list(expected["split"])
    assert not first.data["inputs"]


def test_another_size_has_the_same_split_to_the_byte_and_its_own_pixels():
    first = audited()
    second = audited("96px", phantom_size=96, image_size=96, split_from=FIRST)
    assert second.folder == first.folder / "96px"
    for name in ("split.csv", "duplicates.csv"):
        assert second.path(name).read_bytes() == first.path(name).read_bytes()
    seen = [pd.read_csv(one.path("manifest.csv")).filter(like="lesion_") for one in (first, second)]
    pd.testing.assert_frame_equal(*seen)
    sizes = [json.loads(one.path("images.json").read_text())["image_size"] for one in (first, second)]
    assert sizes == [64, 96]
    assert list(second.data["inputs"]) == [paths.show(first.folder / "run.json")]
    # another seed of the split would have given another one
    assert splits.make(
        pd.read_csv(first.path("manifest.csv"), dtype={"patient_id": str}).astype({"grade": "Int64"}),
        (0.6, 0.15, 0.25),
        99,
    )["split"].tolist() != list(pd.read_csv(first.path("split.csv"))["split"])


def test_duplicates_keep_patients_together_as_they_did_there():
    """The other audit knew a pair of two patients; here nobody looks for it again."""
    first = audited()
    split = pd.read_csv(first.path("split.csv"), dtype=str)
    trained = split[split["split"] == "train"].drop_duplicates("patient_id")["image_id"]
    pair = [trained.iloc[0], trained.iloc[1], 3, 0.95, "near"]
    audited(found=pd.DataFrame([pair], columns=list(duplicates.COLUMNS)))
    second = pd.read_csv(audited("96px", phantom_size=96, split_from=FIRST).path("duplicates.csv"))
    assert second[list(duplicates.COLUMNS)].to_numpy().tolist() == [pair]
    assert second[["same_patient", "same_split"]].to_numpy().tolist() == [[False, True]]


def test_a_variant_is_no_output_of_the_result_above_it():
    audited()
    audited("96px", phantom_size=96, split_from=FIRST)
    again = audited()
    assert not [name for name in again.data["outputs"] if name.startswith("96px")]
    assert "split.csv" in again.data["outputs"]
    assert {record.name for record in records.find("demo")} == {BASE, f"{BASE}/96px"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_patients": 13}, "2 photographs of this audit are not in results/demo/01_data_audit, '"),
        ({"n_patients": 11}, "2 photographs of results/demo/01_data_audit are not here, '"),
        ({"seed": 5}, "have another patient or grade in results/demo/01_data_audit"),
        ({"split_by": "image"}, "SPLIT_BY is 'image' here and 'patient' in results/demo"),
        ({"fractions": (0.5, 0.25, 0.25)}, r"FRACTIONS is \[0.5, 0.25, 0.25\] here and \[0.6"),
    ],
)
def test_the_split_of_other_photographs_is_refused(values, message):
    audited()
    with pytest.raises(splits.SplitError, match=message):
        audited("other", split_from=FIRST, **values)


def test_a_photograph_that_was_split_and_cannot_be_read_here_is_refused():
    audited()
    folder = sources.prepare_phantom(params.DataAudit(n_patients=12, phantom_size=96))
    broken = sorted((folder / "images").iterdir())[3]
    broken.write_bytes(b"no picture")
    with pytest.raises(splits.SplitError, match=f"1 photographs .* are quarantined here, '{broken.stem}'"):
        audited("96px", data_root=str(folder), split_from=FIRST)


def test_an_unfinished_audit_is_named():
    with pytest.raises(records.RecordError, match="results/demo/01_data_audit has no finished run"):
        audited("96px", split_from=FIRST)
