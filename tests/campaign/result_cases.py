"""Finished results that were edited, cut, swapped, made noise or deleted after their run, and sources that changed since."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from cases import Case
from photographs import encoded, eyepacs, folder_of, photograph

from drstudy.core import paths, records
from drstudy.data import dataset, images, splits
from drstudy.papers.transfer import params
from drstudy.study import digests, integrity, plan, reasons

SIZE = 64


def made(folder: Path, finish_digest: bool = True) -> records.Record:
    """A finished notebook 01 of eight photographs, below ``DRSTUDY_RESULTS``, as its files are."""
    table = folder_of(
        folder / "set",
        {
            f"{n}_{e}.jpeg": encoded(photograph(3 * n + k, 96))
            for n in range(4)
            for k, e in enumerate(("left", "right"))
        },
    )
    table["patient_id"] = table["image_id"].str.partition("_")[0]
    table["grade"] = pd.array([n % 5 for n in range(len(table))], dtype="Int64")
    store = images.build(table, SIZE, 1)
    run = records.start(params.DataAudit())
    split = table[["image_id", "patient_id", "grade"]].assign(split="train")
    split.loc[split["patient_id"] == "3", "split"] = "test"
    split.loc[split["patient_id"] == "2", "split"] = "validation"
    for name, frame in (("manifest", table), ("split", split)):
        paths.write_csv(frame, run.path(f"{name}.csv"))
    paths.write_csv(pd.DataFrame(columns=["image_id_a", "image_id_b", "kind"]), run.path("duplicates.csv"))
    run.table(pd.DataFrame({"name": ["qwk"], "value": [0.5]}), "summary")
    where = {"store": paths.show(store.folder), "image_size": SIZE, "sha256": store.info["sha256"]}
    records.write_json(where, run.path("images.json"))
    run.metric(n_images=8, qwk=0.5)
    stage = plan.stage("01", "smoke")
    os.environ[records.MADE_BY] = json.dumps(digests.made_by(stage))
    try:
        run.finish()
    finally:
        del os.environ[records.MADE_BY]
    assert reasons.own(stage) == []
    dataset.load(records.load(run.folder))
    return records.load(run.folder)


def found(folder: Path, damage: Callable[[records.Record, Path], None], by: str) -> tuple[str, str]:
    """What notices damage: ``next`` (the next stage), ``plan`` (``drstudy reproduce``), or ``deep`` (``drstudy verify --deep``)."""
    record = made(folder)
    store = paths.resolve(json.loads((record.folder / "images.json").read_text())["store"])
    damage(record, store)
    if by == "plan":
        why = reasons.own(plan.stage("01", "smoke"))
        return ("refused" if why else "used"), "; ".join(why)
    if by == "deep":
        lines = integrity.compare("smoke")
        return ("refused" if lines else "used"), "; ".join(lines)
    try:
        again = records.load(record.folder)
        dataset.load(again)
        again.check()
    except (records.RecordError, splits.SplitError, splits.LeakError, ValueError) as error:
        return "refused", str(error)
    return "used", ""


def edit(name: str, old: str, new: str):
    def change(record: records.Record, _: Path) -> None:
        file = record.folder / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return change


def write(name: str, content: bytes | None, keep: float = 0.0):
    """Put other bytes in the place of a file; with ``keep`` its first part only; without content it is deleted."""

    def change(record: records.Record, _: Path) -> None:
        file = record.folder / name
        if keep:
            file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
        elif content is None:
            file.unlink()
        else:
            file.write_bytes(content)

    return change


def of_record(**fields):
    def change(record: records.Record, _: Path) -> None:
        data = json.loads((record.folder / "run.json").read_text())
        for name, value in fields.items():
            if value is None:
                data.pop(name)
            else:
                data[name] = value
        (record.folder / "run.json").write_text(json.dumps(data))

    return change


def noise(same_time: bool):
    def change(_: records.Record, store: Path) -> None:
        status = (store / "images.npy").stat()
        array = np.load(store / "images.npy", mmap_mode="r+")
        array[4:] = np.random.default_rng(0).integers(0, 255, array[4:].shape, np.uint8)
        array.flush()
        times = (status.st_atime_ns, status.st_mtime_ns + (0 if same_time else 10**9))
        os.utime(store / "images.npy", ns=times)

    return change


def swapped(_: records.Record, store: Path) -> None:
    index = pd.read_csv(store / "index.csv")
    index["image_id"] = index["image_id"].to_numpy()[::-1]
    index.to_csv(store / "index.csv", index=False)


def of_store(name: str, content: bytes | None):
    def change(_: records.Record, store: Path) -> None:
        if content is None:
            (store / name).unlink()
        else:
            (store / name).write_bytes(content)

    return change


def pickled(_: records.Record, store: Path) -> None:
    np.save(store / "images.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def shorter(_: records.Record, store: Path) -> None:
    np.save(store / "images.npy", np.load(store / "images.npy")[:5])


def cut(_: records.Record, store: Path) -> None:
    content = (store / "images.npy").read_bytes()
    (store / "images.npy").write_bytes(content[: len(content) // 2])


DAMAGE = {
    "run.json cut": (write("run.json", None, 0.5), "run.json"),
    "run.json empty": (write("run.json", b""), "run.json"),
    "run.json deleted": (write("run.json", None), "finished"),
    "run.json is binary": (write("run.json", bytes(range(256))), "run.json"),
    "run.json says failed": (of_record(status="failed"), ""),
    "run.json without metrics": (of_record(metrics=None), "metrics"),
    "run.json without a profile": (of_record(profile=None), "profile"),
    "run.json of another profile": (of_record(profile="demo", digest=None), "demo"),
    "run.json of another notebook": (
        of_record(notebook="04_backbone_comparison", digest=None),
        "04_backbone",
    ),
    "run.json of another variant": (of_record(variant="x", digest=None), "x"),
    "a metric edited": (edit("run.json", '"qwk": 0.5', '"qwk": 0.99'), "edited"),
    "a parameter edited": (edit("run.json", '"IMAGE_SIZE": 128', '"IMAGE_SIZE": 256'), "edited"),
    "split.csv: a grade changed": (edit("split.csv", "0_left,0,0", "0_left,0,4"), "split.csv"),
    "split.csv: a row twice": (
        edit("split.csv", "0_left,0,0,train", "0_left,0,0,train\n0_left,0,0,train"),
        "split.csv",
    ),
    "split.csv cut": (write("split.csv", None, 0.5), "split.csv"),
    "split.csv empty": (write("split.csv", b""), "split.csv"),
    "split.csv deleted": (write("split.csv", None), "split.csv"),
    "duplicates.csv emptied": (write("duplicates.csv", b""), "duplicates.csv"),
    "manifest.csv edited": (edit("manifest.csv", "0_left", "9_left"), "manifest.csv"),
    "images.json names another store": (edit("images.json", "data/images/", "data/images/x"), "images.json"),
    "a table edited": (edit("tables/summary.csv", "0.5", "0.9"), "summary.csv"),
    "index.csv swapped": (swapped, "index.csv"),
    "measures.csv emptied": (of_store("measures.csv", b""), "measures.csv"),
    "problems.csv deleted": (of_store("problems.csv", None), "problems.csv"),
    "half of the pixels made noise": (noise(same_time=False), "images.npy"),
    "images.npy cut": (cut, "images.npy"),
    "images.npy is a pickle": (pickled, "images.npy"),
    "images.npy of fewer images": (shorter, "images.npy"),
    "images.npy deleted": (of_store("images.npy", None), "images.npy"),
    "store.json empty": (of_store("store.json", b""), "store.json"),
    "store.json is a list": (of_store("store.json", b"[]"), "store.json"),
    "store.json deleted": (of_store("store.json", None), "store"),
    "the whole store deleted": (lambda _, store: shutil.rmtree(store), "store"),
}


def _sources() -> list[Case]:
    """Files outside the project that change after a run."""

    def since(change: Callable[[Path], None]):
        def run(folder: Path) -> tuple[str, str]:
            from drstudy.study import outside

            eyepacs(folder, 4, 64)
            asked = params.DataAudit(source="eyepacs", data_root=str(folder))
            before = outside.of(asked)
            assert outside.changes(before, outside.of(asked)) == []
            change(folder)
            said = outside.changes(json.loads(json.dumps(before)), outside.of(asked))
            return ("noted" if said else "used"), "; ".join(said)

        return run

    def grade(folder: Path) -> None:
        file = folder / "trainLabels.csv"
        file.write_text(file.read_text().replace("0_left,0", "0_left,4"))

    def more(folder: Path) -> None:
        for n in range(20):
            (folder / "train" / f"9{n}_left.jpeg").write_bytes(b"x")

    def other(folder: Path) -> None:
        (folder / "train" / "0_left.jpeg").write_bytes(encoded(photograph(9, 70)))

    def touched(folder: Path) -> None:
        os.utime(folder / "train" / "0_left.jpeg", (1, 1))

    group = "sources that change after a run"
    return [
        Case(group, "a grade is corrected", "noted", since(grade), ("trainLabels.csv changed",)),
        Case(group, "20 photographs are added", "noted", since(more), ("train has 28 files, it had 8",)),
        Case(
            group,
            "a photograph is deleted",
            "noted",
            since(lambda f: (f / "train/0_left.jpeg").unlink()),
            ("train has 7",),
        ),
        Case(group, "a photograph is replaced", "noted", since(other), ("files in train changed",)),
        Case(group, "a photograph has another time", "noted", since(touched), ("files in train changed",)),
        Case(
            group,
            "a second table is added",
            "noted",
            since(lambda f: (f / "more.csv").write_text("a")),
            ("more.csv is new",),
        ),
        Case(
            group,
            "the label table is deleted",
            "noted",
            since(lambda f: (f / "trainLabels.csv").unlink()),
            ("trainLabels.csv is gone",),
        ),
        Case(group, "nothing", "used", since(lambda _: None)),
        Case(group, "a hidden file is added", "used", since(lambda f: (f / ".DS_Store").write_text("x"))),
    ]


def cases() -> list[Case]:
    by = [("next", "results changed, seen by the next stage"), ("plan", "results changed, seen by reproduce")]
    found_cases = [
        Case(
            group,
            name,
            "refused",
            lambda folder, d=damage, w=which: found(folder, d, w),
            (says,) if which == "next" else (),
        )
        for which, group in by
        for name, (damage, says) in DAMAGE.items()
    ]
    deep = Case(
        "results changed, seen by verify --deep",
        "pixels made noise, with the old time of the file",
        "refused",
        lambda folder: found(folder, noise(same_time=True), "deep"),
        ("4 of 8 crops",),
    )
    return [*found_cases, deep, *_sources()]
