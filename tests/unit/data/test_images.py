"""The image store: resuming, memory, what is left out, and the same bytes from any number of processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from photographs import BROKEN, EYE, encoded, folder_of, photograph
from resident import listed, resident_kib

from drstudy.data import decoding, images
from drstudy.data import manifest as manifests
from drstudy.data.images import writing

SIZE = 96


def test_store_keeps_the_good_and_names_the_bad(tmp_path):
    files = {f"bad_{name.replace(' ', '')}.jpeg": content for name, (content, _) in BROKEN.items()}
    good = {f"good_{seed}.jpeg": encoded(photograph(seed)) for seed in range(3)}
    manifest = folder_of(tmp_path / "set", {**files, **good, "odd.jpeg": encoded(EYE, "PNG")})
    store = images.build(manifest, SIZE, workers=1, max_megapixels=50, folder=tmp_path / "stores")
    assert list(store.index["image_id"]) == ["good_0", "good_1", "good_2", "odd"]
    assert list(store.index["row"]) == [0, 1, 2, 3]
    assert store.images.shape == (4, SIZE, SIZE, 3)
    for seed in range(3):
        crop, _ = images.prepare(good[f"good_{seed}.jpeg"], ".jpeg", SIZE, 50)
        assert np.array_equal(store.images[store.row(f"good_{seed}")], crop)
    excluded = store.problems[store.problems["action"] == "excluded"]
    assert {Path(file).name for file in excluded["file"]} == set(files)
    noted = store.problems[store.problems["action"] != "excluded"]
    assert [Path(file).name for file in noted["file"]] == ["odd.jpeg"]
    with pytest.raises(KeyError, match="bad_empty"):
        store.row("bad_empty")


def test_nothing_usable_is_an_error(tmp_path):
    manifest = folder_of(tmp_path / "set", {"a.jpeg": b"", "b.jpeg": b"words"})
    with pytest.raises(images.StoreError, match=r"None of the 2 images.*empty file"):
        images.build(manifest, SIZE, workers=1, folder=tmp_path / "stores")
    with pytest.raises(images.StoreError, match="no images"):
        images.build(manifests.build([]), SIZE, folder=tmp_path / "stores")


# --- the store -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("many")
    files = {f"eye_{n:03}.jpeg": encoded(photograph(n, 140)) for n in range(96)}
    files["eye_050.jpeg"] = b"broken"
    return folder_of(root, files)


def test_same_bytes_from_one_process_and_from_two(many, tmp_path):
    one = images.build(many, SIZE, workers=1, folder=tmp_path / "one")
    two = images.build(many, SIZE, workers=2, folder=tmp_path / "two")
    assert one.info == two.info
    pd.testing.assert_frame_equal(one.index, two.index)
    pd.testing.assert_frame_equal(one.measures, two.measures)
    pd.testing.assert_frame_equal(one.problems, two.problems)
    assert len(one.index) == 95


def test_a_finished_store_is_opened_not_made_again(many, tmp_path, monkeypatch):
    first = images.build(many, SIZE, workers=1, folder=tmp_path)
    monkeypatch.setattr(writing, "prepare", lambda *_: pytest.fail("decoded again"))
    again = images.build(many, SIZE, workers=1, folder=tmp_path)
    assert again.folder == first.folder
    pd.testing.assert_frame_equal(first.measures, again.measures)


SLOW_BUILD = """
import sys, time
import pandas as pd
from drstudy.data import images, manifest
from drstudy.data.images import writing
if __name__ == "__main__":
    plain = writing.prepare
    writing.prepare = lambda *a: (time.sleep(0.02), plain(*a))[1]
    images.build(manifest.read(sys.argv[1]), {size}, workers=1, folder=sys.argv[2])
"""


def test_a_killed_run_goes_on(many, tmp_path, monkeypatch):
    whole = images.build(many, SIZE, workers=1, folder=tmp_path / "whole")
    many.to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "slow.py").write_text(SLOW_BUILD.format(size=SIZE))
    command = [
        sys.executable,
        str(tmp_path / "slow.py"),
        str(tmp_path / "manifest.csv"),
        str(tmp_path / "cut"),
    ]
    root = Path(images.__file__).parents[3]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root)})
    journal = tmp_path / "cut" / whole.folder.name / "rows.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(images.StoreError, match="not a finished image store"):
        images.open_store(journal.parent)
    with journal.open("ab") as file:
        file.write(b'{"row": 95, "image_id": "eye_0')  # what a kill in the middle of a write leaves

    done = []
    plain = writing._do_block
    monkeypatch.setattr(
        writing, "_do_block", lambda array, block, *rest: (done.extend(block), plain(array, block, *rest))[1]
    )
    store = images.build(many, SIZE, workers=1, folder=tmp_path / "cut")
    assert 0 < len(done) < len(many)
    assert store.info == whole.info
    pd.testing.assert_frame_equal(store.measures, whole.measures)
    pd.testing.assert_frame_equal(store.problems, whole.problems)


def test_rows_that_the_disk_lost_are_done_again(many, tmp_path, monkeypatch):
    """A power cut: the journal was on disk, some pixels were not."""
    whole = images.build(many, SIZE, workers=1, folder=tmp_path / "whole")
    with monkeypatch.context() as stopped:
        stopped.setattr(writing, "_finish", lambda *_: pytest.fail("cut off", pytrace=False))
        with pytest.raises(pytest.fail.Exception, match="cut off"):
            images.build(many, SIZE, workers=1, folder=tmp_path / "cut")
    part = next((tmp_path / "cut").glob("*/images.part.npy"))
    np.load(part, mmap_mode="r+")[7:9] = 0
    seen = []
    plain = writing.prepare
    monkeypatch.setattr(writing, "prepare", lambda *a: (seen.append(a), plain(*a))[1])
    again = images.build(many, SIZE, workers=1, folder=tmp_path / "cut")
    assert len(seen) == 2
    assert again.info == whole.info
    assert np.array_equal(again.images, whole.images)


def test_memory_does_not_grow_with_the_number_of_images(many, tmp_path):
    def peak(n: int) -> float:
        tracemalloc.start()
        images.build(many.iloc[:n], SIZE, workers=1, folder=tmp_path / str(n))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(2)  # imports
    # 64 more crops are 1.8 MB, and 64 more decoded pictures 3.8 MB; their records are 0.2 MB
    assert peak(96) - peak(32) < 1e6


@listed
def test_released_pixels_leave_the_memory_and_are_read_again(many, tmp_path):
    store = images.open_store(images.build(many, 64, workers=1, folder=tmp_path).folder, deep=True)
    file = store.folder / "images.npy"
    assert resident_kib(file) <= 64  # comparing all pixels with their digests left none of them behind
    before = store.images[:].sum()
    assert resident_kib(file) > 0.9 * store.images.nbytes / 1024
    store.release()
    assert resident_kib(file) == 0
    assert store.images[:].sum() == before


def test_a_store_is_not_read_again_when_it_was_just_written(many, tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr("drstudy.data.images.store._compare", lambda store: compared.append(store.folder))
    store = images.build(many, SIZE, workers=1, folder=tmp_path)
    assert compared == []
    images.open_store(store.folder)
    assert compared == []
    os.utime(store.folder / "images.npy", ns=(0, 0))
    images.open_store(store.folder)
    assert compared == [store.folder]


def test_releasing_changes_no_array(tmp_path):
    array = np.ones((4, 4), np.uint8)
    images.release(array)
    assert array.all()
    file = tmp_path / "a.npy"
    mapped = np.lib.format.open_memmap(file, "w+", np.uint8, (4, 4))
    mapped[:] = 7
    images.release(mapped)
    mapped[0] = 8
    images.release(mapped[1:])
    assert mapped[:, 0].tolist() == np.load(file)[:, 0].tolist() == [8, 7, 7, 7]
    private = np.load(file, mmap_mode="c")
    private[:] = 9
    images.release(private)
    assert (private == 9).all()


def test_a_full_disk_is_an_error_before_anything_is_written(many, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 10**6))
    with pytest.raises(images.StoreError, match=r"needs 0\.00 GB.*DRSTUDY_DATA"):
        images.build(many, SIZE, workers=1, folder=tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


def test_another_file_another_store(many, tmp_path):
    key = images.store_key(many, SIZE, 100)
    assert images.store_key(many, SIZE, 100) == key
    assert images.store_key(many, SIZE + 1, 100) != key
    assert images.store_key(many.iloc[1:], SIZE, 100) != key
    path = Path(many["path"].iloc[0])
    os.utime(path, ns=(1, 1))
    assert images.store_key(many, SIZE, 100) != key


def test_store_of_other_or_no_content_is_refused(tmp_path):
    with pytest.raises(images.StoreError, match="Run notebook 01"):
        images.open_store(tmp_path)


def test_info_tells_the_hash_of_the_pixels(many, tmp_path):
    store = images.build(many.iloc[:4], SIZE, workers=1, folder=tmp_path)
    info = json.loads((store.folder / "store.json").read_text())
    rows = [decoding.sha256(np.ascontiguousarray(image)) for image in store.images]
    assert info["sha256"] == decoding.sha256("".join(rows).encode())
    assert info["images"] == 4
