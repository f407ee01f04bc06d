"""Bad label files, names, layouts, identities and masks, each on a set of a few small photographs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from cases import Case
from photographs import encoded, photograph
from PIL import Image

from drstudy.data import sources
from drstudy.data.manifest import EXCLUDED, ManifestError

SMALL = encoded(photograph(0, 64))
IDS = [f"{patient}_{eye}" for patient in range(3) for eye in ("left", "right")]
LEVELS = {name: place % 5 for place, name in enumerate(IDS)}
PLAIN = "image,level\n" + "".join(f"{name},{level}\n" for name, level in LEVELS.items())


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(SMALL)


def loaded(
    source: str, root: Path, right: dict[str, int | None] | None = None, patients: int = 0, **options
) -> tuple[str, str]:
    """The outcome of reading a set; ``right`` is what the manifest must say, ``patients`` how many there must be."""
    try:
        read = sources.load(source, root, **{"most_lost": 0.5, **options})
    except (sources.SourceError, ManifestError) as error:
        return "refused", str(error)
    rows = [": ".join(row[:2]) + f" ({row[2]})" for row in read.problems.to_numpy()]
    said = "; ".join([*rows, *read.notes])
    if right is not None:
        found = {
            row["image_id"]: None
            if row["grade"] is None or row["grade"] != row["grade"]
            else int(row["grade"])
            for row in read.manifest.astype({"grade": object}).replace({np.nan: None}).to_dict("records")
        }
        assert found == right, f"read {found}, not {right}; {said}"
    if patients:
        assert read.manifest["patient_id"].nunique() == patients, sorted(set(read.manifest["patient_id"]))
    if (read.problems["action"] == EXCLUDED).any():
        return "excluded", said
    return ("noted" if len(read.problems) else "used"), said


def kaggle(
    text: str | bytes, right: dict[str, int] | None = None, files: list[str] | None = None, **options
) -> Callable[[Path], tuple[str, str]]:
    def run(folder: Path) -> tuple[str, str]:
        touch(folder, *(f"train/{name}" for name in files or [f"{name}.jpeg" for name in IDS]))
        (folder / "trainLabels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return loaded("eyepacs", folder, right, **options)

    return run


def changed(old: str, new: str) -> str:
    assert old in PLAIN
    return PLAIN.replace(old, new)


def without(*names: str) -> dict[str, int]:
    return {name: level for name, level in LEVELS.items() if name not in names}


TABLES = {
    "plain": (PLAIN, "used", LEVELS, ""),
    "byte-order mark": ("\ufeff" + PLAIN, "noted", LEVELS, "byte-order mark"),
    "UTF-16": (PLAIN.encode("utf-16"), "noted", LEVELS, "UTF-16"),
    "UTF-16 with half a letter": (PLAIN.encode("utf-16")[:-1], "refused", None, "trainLabels.csv"),
    "UTF-8 mark before Latin-1": (
        b"\xef\xbb\xbf" + PLAIN.encode() + b"\xe9",
        "refused",
        None,
        "trainLabels.csv",
    ),
    "binary": (bytes(range(256)) * 20, "refused", None, "trainLabels.csv"),
    "zero bytes at the end": (PLAIN.encode() + bytes(500), "refused", None, "zero bytes"),
    "empty": ("", "refused", None, "holds no rows"),
    "only a heading": ("image,level\n", "refused", None, "holds no rows"),
    "semicolons": (PLAIN.replace(",", ";"), "noted", LEVELS, "separated"),
    "tabs": (PLAIN.replace(",", "\t"), "noted", LEVELS, "separated"),
    "bars": (PLAIN.replace(",", "|"), "noted", LEVELS, "separated"),
    "Windows line ends": (PLAIN.replace("\n", "\r\n"), "used", LEVELS, ""),
    "old Macintosh line ends": (PLAIN.replace("\n", "\r"), "used", LEVELS, ""),
    "blank lines": (PLAIN.replace("\n", "\n\n"), "used", LEVELS, ""),
    "uneven trailing commas": (
        PLAIN.replace("image,level", "image,level,,,")
        .replace("0_left,0", "0_left,0,,,,,,")
        .replace("1_left,2", "1_left,2,"),
        "used",
        LEVELS,
        "",
    ),
    "a stray quotation mark": (changed("0_right,1", '"0_right,1'), "noted", LEVELS, "line 3"),
    "a stray quotation mark in the last line": (changed("2_right,0", '2_right,"0'), "used", LEVELS, ""),
    "a line with too few cells": (changed("1_left,2", "1_left"), "excluded", without("1_left"), "line 4"),
    "a line with too many cells": (
        changed("1_left,2", "1_left,2,7"),
        "excluded",
        without("1_left"),
        "line 4",
    ),
    "the heading is missing": (PLAIN.removeprefix("image,level\n"), "refused", None, "has no column image"),
    "columns in the other order": (
        "level,image\n" + "".join(f"{level},{name}\n" for name, level in LEVELS.items()),
        "used",
        LEVELS,
        "",
    ),
    "two columns named level": (
        "image,level,level\n" + "".join(f"{name},{level},{4 - level}\n" for name, level in LEVELS.items()),
        "refused",
        None,
        "level more than once",
    ),
    "two other columns of one name": (
        "image,level,x,x\n" + "".join(f"{name},{level},1,2\n" for name, level in LEVELS.items()),
        "used",
        LEVELS,
        "",
    ),
    "a cell of 200,000 letters": (
        "image,level,remark\n"
        + "".join(
            f"{name},{level},{'a' * 200_000 if level == 1 else ''}\n" for name, level in LEVELS.items()
        ),
        "used",
        LEVELS,
        "",
    ),
    "grade 0_2": (changed("1_left,2", "1_left,0_2"), "excluded", without("1_left"), "0_2"),
    "grade of full-width digits": (
        changed("1_left,2", "1_left,２"),
        "excluded",
        without("1_left"),
        "not a number",
    ),
    "grade 5": (changed("1_left,2", "1_left,5"), "excluded", without("1_left"), "outside 0 to 4"),
    "grade -1": (changed("1_left,2", "1_left,-1"), "excluded", without("1_left"), "outside 0 to 4"),
    "grade 2.5": (changed("1_left,2", "1_left,2.5"), "excluded", without("1_left"), "whole number"),
    "grade 2,5 in quotation marks": (
        changed("1_left,2", '1_left,"2,5"'),
        "excluded",
        without("1_left"),
        "not a number",
    ),
    "grade missing": (changed("1_left,2", "1_left,"), "excluded", without("1_left"), "label missing"),
    "grade NaN": (changed("1_left,2", "1_left,NaN"), "excluded", without("1_left"), "label missing"),
    "grade in words": (changed("1_left,2", "1_left,moderate"), "excluded", without("1_left"), "not a number"),
    "grade 1e400": (changed("1_left,2", "1_left,1e400"), "excluded", without("1_left"), "whole number"),
    "grade 2.0": (changed("1_left,2", "1_left,2.0"), "used", LEVELS, ""),
    "name missing": (changed("1_left,2", ",2"), "excluded", without("1_left"), "without an image name"),
    "row twice": (PLAIN + "1_left,2\n", "noted", LEVELS, "same label"),
    "row twice with two grades": (PLAIN + "1_left,3\n", "excluded", without("1_left"), "different labels"),
    "a row without a file": (PLAIN + "9_left,1\n", "excluded", LEVELS, "missing file"),
    "most rows lost": (
        "image,level\n" + "".join(f"{name},9\n" for name in IDS),
        "refused",
        None,
        "MOST_LOST",
    ),
    "a label that points outside": (
        changed("1_left,2", "../other/1_left.jpeg,2"),
        "excluded",
        without("1_left"),
        "missing file",
    ),
    "a label with a path of another disk": (
        changed("1_left,2", "/elsewhere/1_left.jpeg,2"),
        "excluded",
        without("1_left"),
        "missing file",
    ),
    "a label in another folder": (
        changed("1_left,2", "test/1_left.jpeg,2"),
        "excluded",
        without("1_left"),
        "missing file",
    ),
    "a label with its folder": (changed("1_left,2", "train/1_left.jpeg,2"), "used", LEVELS, ""),
    "a label with the folder of Windows": (changed("1_left,2", "train\\1_left.jpeg,2"), "used", LEVELS, ""),
    "a label with another suffix": (changed("1_left,2", "1_left.png,2"), "noted", LEVELS, "1_left.png"),
    "a label in capitals": (changed("1_left,2", "1_LEFT.JPEG,2"), "used", LEVELS, ""),
}


def _files(names: list[str], text: str = PLAIN, right=LEVELS, **options):
    return kaggle(text, right, names, **options)


def _names() -> list[Case]:
    plain = [f"{name}.jpeg" for name in IDS]
    accented = {f"é{place}": place for place in range(3)}

    def decomposed(folder: Path) -> tuple[str, str]:
        import unicodedata

        touch(folder, *(f"{unicodedata.normalize('NFD', name)}.jpeg" for name in accented))
        (folder / "labels.csv").write_text(
            "image,grade\n" + "".join(f"{n},{g}\n" for n, g in accented.items())
        )
        outcome, said = loaded("folder", folder, patients=3)
        return outcome, said

    def latin(folder: Path) -> tuple[str, str]:
        touch(folder, *(f"{name}.jpeg" for name in IDS))
        (folder / "1_left.jpeg").rename(folder / os.fsdecode(b"\xe9.jpeg"))
        (folder / "labels.csv").write_text(PLAIN)
        return loaded("folder", folder, without("1_left"))

    def per_patient(folder: Path) -> tuple[str, str]:
        touch(folder, *(f"P{n:03}/{eye}.jpg" for n in range(3) for eye in ("left", "right")))
        rows = [f"P{n:03}/{eye}.jpg,{n}" for n in range(3) for eye in ("left", "right")]
        (folder / "labels.csv").write_text("\n".join(["image,grade", *rows]))
        right = {f"P{n:03}_{eye}": n for n in range(3) for eye in ("left", "right")}
        return loaded("folder", folder, right, patients=3)

    def backslash(folder: Path) -> tuple[str, str]:
        touch(folder, "sub\\1_left.jpeg", "sub\\1_right.jpeg")
        (folder / "labels.csv").write_text("image,grade\nsub\\1_left.jpeg,2\nsub\\1_right.jpeg,0\n")
        return loaded("folder", folder, patients=1)

    def linked(folder: Path) -> tuple[str, str]:
        touch(folder, *(f"elsewhere/{name}.jpeg" for name in IDS))
        root = folder / "set"
        root.mkdir()
        (root / "train").symlink_to("../elsewhere")
        (root / "trainLabels.csv").write_text(PLAIN)
        return loaded("eyepacs", root, LEVELS)

    def circle(folder: Path) -> tuple[str, str]:
        touch(folder, *(f"train/{name}.jpeg" for name in IDS))
        (folder / "train" / "again").symlink_to("..")
        (folder / "trainLabels.csv").write_text(PLAIN)
        return loaded("eyepacs", folder, LEVELS)

    def capitals(folder: Path) -> tuple[str, str]:
        touch(folder, *(f"TRAIN/{name.upper()}.JPG" for name in IDS))
        (folder / "TRAINLABELS.CSV").write_text(PLAIN)
        return loaded("eyepacs", folder, {name.upper(): level for name, level in LEVELS.items()}, patients=3)

    def called_na(folder: Path) -> tuple[str, str]:
        touch(folder, "NA_left.jpeg", "NA_right.jpeg", "1_left.jpeg", "1_right.jpeg")
        (folder / "labels.csv").write_text("image,grade\nNA_left,2\nNA_right,0\n1_left,1\n1_right,1\n")
        return loaded("folder", folder, {"NA_left": 2, "NA_right": 0, "1_left": 1, "1_right": 1}, patients=2)

    group = "names"
    return [
        Case(
            group,
            "a second file for one label",
            "excluded",
            _files([*plain, "1_left.png"], right=without("1_left")),
            ("2 files fit",),
        ),
        Case(group, "a hidden file", "used", _files([*plain, "._1_left.jpeg"])),
        Case(group, "a file without a label", "excluded", _files([*plain, "9_left.jpeg"]), ("no label",)),
        Case(group, "capital suffixes", "used", _files([f"{name}.JPEG" for name in IDS])),
        Case(group, "decomposed letters on disk", "used", decomposed),
        Case(group, "a Latin-1 file name", "excluded", latin, ("UTF-8",)),
        Case(group, "the same stem in each patient's folder", "used", per_patient),
        Case(group, "a backslash in a file's name", "used", backslash),
        Case(group, "a part that is a link", "used", linked),
        Case(group, "a link in a circle", "used", circle),
        Case(group, "everything in capitals", "used", capitals),
        Case(group, "a patient called NA", "used", called_na),
    ]


def _folder(
    rows: list[str], files: list[str], right=None, head: str = "image,grade", patients: int = 0, **options
):
    def run(folder: Path) -> tuple[str, str]:
        touch(folder, *files)
        (folder / "labels.csv").write_text("\n".join([head, *rows]) + "\n")
        return loaded("folder", folder, right, patients, **options)

    return run


def _identities() -> list[Case]:
    turned = [f"{n}_{eye}_{turn}" for n in (10, 11) for eye in ("left", "right") for turn in (0, 90, "mir")]
    schemes = {
        "10_left_90": (turned, 2),
        "P7-OD": ([f"P{n}-{eye}" for n in (7, 8) for eye in ("OD", "OS")], 2),
        "left_10": ([f"{eye}_{n}" for n in (7, 8) for eye in ("left", "right")], 2),
        "10left": ([f"{n}{eye}" for n in (7, 8) for eye in ("left", "right")], 2),
        "0007 L": ([f"{n:04} {eye}" for n in (7, 8) for eye in "LR"], 2),
        "image_001": ([f"image_{n:03}" for n in range(4)], 4),
        "a0b1": ([f"{n:x}f{n:x}" for n in range(4, 9)], 5),
    }
    group = "identities"
    found = [
        Case(
            group,
            f"names like {name}",
            "used",
            _folder(
                [f"{n},{p % 5}" for p, n in enumerate(names)], [f"{n}.jpg" for n in names], patients=count
            ),
        )
        for name, (names, count) in schemes.items()
    ]
    stems = ["10_a", "10_b", "11_a", "11_b", "12_a", "12_b"]
    rows, files = [f"{n},{p % 5}" for p, n in enumerate(stems)], [f"{n}.jpg" for n in stems]
    copies = ["10_left", "10_right", "11_left", "10", "10_copy"]
    more = [f"{n},{p % 5}" for p, n in enumerate(copies)], [f"{n}.jpg" for n in copies]
    blank = ["1_left.jpg,1,2", "1_right.jpg,,0", "2_left.jpg,2,1"]
    sides = ["1_left.jpg,1,right,2", "1_right.jpg,1,left,0"]
    both = ["1_left.jpg", "1_right.jpg"]
    return [
        *found,
        Case(group, "names that share a stem", "refused", _folder(rows, files), ("PATIENT_PATTERN", "10_a")),
        Case(
            group,
            "names that share a stem, with a pattern",
            "used",
            _folder(rows, files, patients=3, pattern=r"(?P<patient>\d+)_.*"),
        ),
        Case(
            group,
            "names that share a stem, said to be independent",
            "used",
            _folder(rows, files, patients=6, pattern="(?P<patient>.+)"),
        ),
        Case(
            group,
            "a pattern that does not fit",
            "refused",
            _folder(rows, files, pattern=r"(?P<patient>\d+)"),
            ("do not match PATIENT_PATTERN",),
        ),
        Case(group, "a copy beside its patient", "refused", _folder(*more), ("10_copy",)),
        Case(
            group,
            "a blank patient in the table",
            "noted",
            _folder(blank, [*both, "2_left.jpg"], head="image,patient_id,grade", patients=2),
            ("from the name",),
        ),
        Case(
            group,
            "an eye that contradicts the name",
            "noted",
            _folder(sides, both, head="image,patient_id,eye,grade"),
            ("contradict",),
        ),
        Case(
            group,
            "an eye that is neither",
            "noted",
            _folder(
                ["1_left.jpg,1,both,2", "2_left.jpg,2,left,1"],
                ["1_left.jpg", "2_left.jpg"],
                head="image,patient_id,eye,grade",
            ),
            ("neither left nor right",),
        ),
    ]


CLASSES = {
    "APTOS names": ["No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"],
    "Healthy, Mild DR, ...": ["Healthy", "Mild DR", "Moderate DR", "Severe DR", "Proliferate DR"],
    "Mild_NPDR, ...": ["Normal", "Mild_NPDR", "Moderate_NPDR", "Severe_NPDR", "PDR"],
    "mild nonproliferative, ...": [
        "No Retinopathy",
        "mild nonproliferative",
        "Moderate Nonproliferative DR",
        "severe non-proliferative diabetic retinopathy",
        "proliferative diabetic retinopathy",
    ],
    "numbers": ["0", "1", "2", "3", "4"],
    "numbers and names": ["0 - No DR", "1 - Mild", "2 - Moderate", "3 - Severe", "4 - Proliferative DR"],
    "grade_0, ...": [f"grade_{grade}" for grade in range(5)],
    "Class 0, ...": [f"Class {grade}" for grade in range(5)],
}


def _classes() -> list[Case]:
    def named(names: list[str], right: bool = True, **options):
        def run(folder: Path) -> tuple[str, str]:
            touch(folder, *(f"{name}/{chr(97 + place)}.png" for place, name in enumerate(names)))
            return loaded("folder", folder, {chr(97 + p): p for p in range(5)} if right else None, **options)

        return run

    group = "grade folders"
    five = CLASSES["numbers"]
    return [
        *(Case(group, name, "used", named(names)) for name, names in CLASSES.items()),
        Case(
            group,
            "an unknown class",
            "refused",
            named([*five, "Ungradable"], False),
            ("Ungradable", "IGNORE"),
        ),
        Case(
            group,
            "an unknown class that is ignored",
            "noted",
            named([*five, "Ungradable"], ignored=["Ungradable"]),
            ("IGNORE",),
        ),
        Case(
            group,
            "a number and a name that contradict",
            "refused",
            named(["0_Severe", "1", "2", "3", "4"], False),
            ("0_Severe",),
        ),
        Case(group, "no grade at all", "refused", named(["cats", "dogs"], False), ("neither a label file",)),
        Case(group, "DR and no DR only", "refused", named(["DR", "No DR"], False), ("DR",)),
    ]


def _layouts() -> list[Case]:
    def beside(name: str, content: bytes):
        def run(folder: Path) -> tuple[str, str]:
            touch(folder, *(f"{n}.jpeg" for n in IDS))
            (folder / "labels.csv").write_text(PLAIN)
            (folder / name).write_bytes(content)
            return loaded("folder", folder, LEVELS)

        return run

    def messidor(folder: Path) -> tuple[str, str]:
        touch(folder, *(f"IM{n:04}.jpg" for n in range(4)))
        rows = [f"IM{n:04}.jpg,{n},0,1" for n in range(4)]
        (folder / "m.csv").write_text(
            "\n".join(["image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable", *rows])
        )
        return loaded("folder", folder, {f"IM{n:04}": n for n in range(4)})

    def unknown_columns(folder: Path) -> tuple[str, str]:
        touch(folder, "a.jpg")
        (folder / "m.csv").write_text("picture,severity\na,1\n")
        return loaded("folder", folder)

    def packed(folder: Path) -> tuple[str, str]:
        (folder / "trainLabels.csv").write_text(PLAIN)
        (folder / "train.zip.001").write_bytes(b"PK")
        return loaded("eyepacs", folder)

    def nothing(folder: Path) -> tuple[str, str]:
        return loaded("eyepacs", folder)

    def unlabelled(folder: Path) -> tuple[str, str]:
        touch(folder, *(f"train/{name}.jpeg" for name in IDS))
        return loaded("eyepacs", folder)

    def two_tables(folder: Path) -> tuple[str, str]:
        (folder / "copy.csv").write_text(PLAIN)
        return beside("none.txt", b"")(folder)

    def phantom(text: str):
        def run(folder: Path) -> tuple[str, str]:
            touch(folder, *(f"images/{name}.jpg" for name in IDS))
            (folder / "labels.csv").write_text(text)
            return loaded("phantom", folder)

        return run

    columns = "image_id,patient_id,eye,grade,gradable\n"
    rows_ = [f"{name},{name[0]},{name[2:]},{level}," for name, level in LEVELS.items()]
    group = "layouts"
    return [
        Case(
            group,
            "a phantom without columns",
            "refused",
            phantom("image_id,grade\n0_left,1\n"),
            ("patient_id",),
        ),
        Case(
            group,
            "a phantom with texts for numbers",
            "refused",
            phantom(columns + "\n".join(f"{row}yes" for row in rows_)),
            ("gradable",),
        ),
        Case(
            group,
            "a phantom with half numbers",
            "refused",
            phantom(columns + "\n".join(f"{row}0.5" for row in rows_)),
            ("gradable",),
        ),
        Case(group, "a phantom as it is", "used", phantom(columns + "\n".join(f"{row}1" for row in rows_))),
        Case(group, "a hidden table", "used", beside("._labels.csv", bytes(100))),
        Case(group, "an empty second table", "noted", beside("notes.csv", b""), ("notes.csv",)),
        Case(group, "a binary second table", "noted", beside("notes.csv", b"\xff\xfe\0\0\0"), ("notes.csv",)),
        Case(group, "a table of something else", "used", beside("cameras.csv", b"camera,year\nx,2001\n")),
        Case(group, "two label tables", "refused", two_tables, ("2 label files",)),
        Case(group, "the columns of Messidor-2", "used", messidor),
        Case(group, "unknown columns", "refused", unknown_columns, ("picture, severity",)),
        Case(group, "not unpacked", "refused", packed, ("train.zip.001",)),
        Case(group, "an empty folder", "refused", nothing, ("trainLabels.csv",)),
        Case(group, "no label file", "refused", unlabelled, ("trainLabels.csv",)),
    ]


def spots(dtype=np.uint8, value: int = 255, background: int = 0) -> np.ndarray:
    mask = np.full((64, 64), background, dtype)
    mask[20:28, 30:40] = value
    return mask


def _png(array: np.ndarray) -> bytes:
    ok, content = cv2.imencode(".png", array)
    assert ok
    return content.tobytes()


def _masks() -> list[Case]:
    """IDRiD's segmentation with two photographs; the mask of the first one is bad."""

    def idrid(content: bytes | None, suffix: str, present: int | None, area: int | None = None):
        def run(folder: Path) -> tuple[str, str]:
            base = folder / "A. Segmentation"
            touch(base / "1. Original Images/a. Training Set", "IDRiD_01.jpg", "IDRiD_02.jpg")
            truths = base / "2. All Segmentation Groundtruths/a. Training Set/1. Microaneurysms"
            truths.mkdir(parents=True)
            (truths / "IDRiD_02_MA.tif").write_bytes(encoded(Image.fromarray(spots()), "TIFF"))
            if content is not None:
                (truths / f"IDRiD_01_MA{suffix}").write_bytes(content)
            outcome, said = loaded("idrid", folder)
            row = sources.load("idrid", folder).manifest.iloc[0]
            found = None if pd.isna(row["lesion_MA"]) else int(row["lesion_MA"])
            assert found == present, f"presence {found}, not {present}; {said}"
            if area is not None:
                from drstudy.data import decoding, masks

                inside = masks.inside(content, decoding.header(content, suffix, np.inf))
                assert abs(int(inside.sum()) - area) <= 0.3 * area, inside.sum()
            return outcome, said

        return run

    def no_folder(folder: Path) -> tuple[str, str]:
        touch(folder / "A. Segmentation/1. Original Images", "IDRiD_01.jpg")
        outcome, said = loaded("idrid", folder)
        row = sources.load("idrid", folder).manifest.iloc[0]
        assert all(str(row[f"lesion_{code}"]) == "<NA>" for code in ("MA", "HE", "EX", "SE"))
        return outcome, said

    rng = np.random.default_rng(0)
    good, noise = spots(), rng.integers(0, 255, (64, 64), np.uint8)
    disc = cv2.circle(np.zeros((512, 512), np.uint8), (211, 243), 37, 255, -1)
    smeared = encoded(Image.fromarray(disc), "JPEG", quality=60)
    group = "masks"
    return [
        Case(group, "16 bits with value 1", "used", idrid(_png(spots(np.uint16, 1)), ".png", 1, 80)),
        Case(group, "16 bits with value 65535", "used", idrid(_png(spots(np.uint16, 65535)), ".png", 1, 80)),
        Case(group, "8 bits with value 1", "used", idrid(_png(spots(value=1)), ".png", 1, 80)),
        Case(group, "saved as BMP", "used", idrid(encoded(Image.fromarray(good), "BMP"), ".bmp", 1, 80)),
        Case(group, "saved as JPEG", "noted", idrid(smeared, ".jpg", 1, 4300), ("smeared",)),
        Case(
            group,
            "smeared by JPEG, then saved as PNG",
            "noted",
            idrid(_png(cv2.imdecode(np.frombuffer(smeared, np.uint8), 0)), ".png", 1, 4300),
            ("smeared",),
        ),
        Case(
            group, "all black", "noted", idrid(_png(np.zeros((64, 64), np.uint8)), ".png", 0), ("all black",)
        ),
        Case(
            group,
            "all white",
            "noted",
            idrid(_png(np.full((64, 64), 255, np.uint8)), ".png", None),
            ("not annotated",),
        ),
        Case(
            group,
            "white background",
            "noted",
            idrid(_png(spots(value=0, background=255)), ".png", 1, 80),
            ("white background",),
        ),
        Case(group, "a photograph in its place", "noted", idrid(SMALL, ".jpg", None), ("not annotated",)),
        Case(group, "noise", "noted", idrid(_png(noise), ".png", None), ("no mask",)),
        Case(
            group,
            "of another shape",
            "noted",
            idrid(_png(np.zeros((64, 100), np.uint8)), ".png", None),
            ("proportions",),
        ),
        Case(
            group,
            "three classes",
            "noted",
            idrid(_png(good // 255 + (good.T // 255) * 2), ".png", 1),
            ("levels",),
        ),
        Case(group, "empty file", "noted", idrid(b"", ".tif", None), ("empty file",)),
        Case(
            group,
            "cut",
            "noted",
            idrid(encoded(Image.fromarray(noise), "TIFF")[:900], ".tif", None),
            ("not annotated",),
        ),
        Case(group, "none for one photograph", "noted", idrid(None, "", None), ("not annotated",)),
        Case(group, "the folder is missing", "noted", no_folder, ("no lesion is annotated",)),
    ]


def cases() -> list[Case]:
    tables = [
        Case("label tables", name, expected, kaggle(text, right), (says,))
        for name, (text, expected, right, says) in TABLES.items()
    ]
    return [*tables, *_names(), *_identities(), *_classes(), *_layouts(), *_masks()]
