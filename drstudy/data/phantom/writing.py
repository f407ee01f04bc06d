"""Phantom studies on disk, and the contact sheet."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from . import planning
from .grading import AMD_CODES, LESION_CODES
from .planning import PhantomConfig, plan
from .rendering import render

FORMAT = 1
"""Raised whenever the same configuration gives other bytes than before."""

MASK_COLOURS = {
    "MA": (0, 255, 255),
    "HE": (95, 135, 255),
    "EX": (255, 235, 0),
    "SE": (255, 255, 255),
    "VB": (205, 160, 255),
    "IRMA": (0, 215, 150),
    "NV": (120, 255, 0),
    "PRH": (255, 0, 255),
    "LASER": (190, 190, 190),
    "DRUSEN": (255, 180, 215),
}
"""Outline colour (RGB) of each lesion on a contact sheet."""

AMD_MASK_COLOURS = {
    "PIGMENT": (120, 170, 255),
    "CNV": (120, 255, 0),
    "SRF": (0, 255, 255),
    "GA": (255, 255, 255),
}
"""The same for lesions that only a phantom with AMD has."""


POOL_PIXELS = 24 * 384**2
"""Below this amount of work starting processes costs more than it saves."""


def _replace_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that no reader ever sees a part of it, also where writing fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _valid_jpeg(path: Path, size: int) -> bool:
    try:
        with Image.open(path) as image:
            if image.size != (size, size):
                return False
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            return file.read() == b"\xff\xd9"
    except OSError:
        return False


def _valid_png(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(-8, os.SEEK_END)
            return head == b"\x89PNG\r\n\x1a\n" and file.read(4) == b"IEND"
    except OSError:
        return False


def _kept(root: Path, image_id: str, size: int) -> list[str] | None:
    """Returns the mask codes of an eye that is already complete on disk, else None."""
    try:
        codes = json.loads((root / "eyes" / f"{image_id}.json").read_text(encoding="utf-8"))["masks"]
    except (OSError, ValueError, KeyError):
        return None
    if not _valid_jpeg(root / "images" / f"{image_id}.jpeg", size):
        return None
    return codes if all(_valid_png(root / "masks" / f"{image_id}_{code}.png") for code in codes) else None


def _write_eye(config: PhantomConfig, root: Path, index: int) -> list[str]:
    """Renders and writes one eye unless it is there; returns the codes of its nonempty masks."""
    image_id = planning.image_id_of(index)
    if (codes := _kept(root, image_id, config.size)) is not None:
        return codes
    phantom = render(config, index)
    codes = [code for code, mask in phantom.masks.items() if mask.any()]
    for code in codes:
        mask = Image.fromarray(phantom.masks[code].astype(np.uint8) * 255).convert(
            "1", dither=Image.Dither.NONE
        )
        _replace_bytes(root / "masks" / f"{image_id}_{code}.png", _encode(mask, "PNG"))
    jpeg = _encode(Image.fromarray(phantom.image), "JPEG", quality=92, subsampling=0)
    _replace_bytes(root / "images" / f"{image_id}.jpeg", jpeg)
    record = {
        "image_id": image_id,
        "masks": codes,
        "disc_diameter_px": round(phantom.disc_diameter_px, 3),
        "disc_xy": [round(v, 2) for v in phantom.disc_xy],
        "fovea_xy": [round(v, 2) for v in phantom.fovea_xy],
        "lesions": phantom.lesions.round(3).to_dict("records"),
    }
    _replace_bytes(root / "eyes" / f"{image_id}.json", json.dumps(record).encode())
    return codes


def _start_worker() -> None:
    cv2.setNumThreads(1)


def _write_eyes(config: PhantomConfig, root: Path, indices: list[int]) -> list[tuple[int, list[str]]]:
    return [(index, _write_eye(config, root, index)) for index in indices]


def _settle(config: PhantomConfig, root: Path) -> bool:
    """Claims ``root`` for ``config``; returns whether it is already complete.

    Raises:
        ValueError: the folder holds another study, or something else.
    """
    wanted = {"format": FORMAT, "config": config.to_dict()}
    for name in ("phantom.json", ".phantom-unfinished.json"):
        path = root / name
        if not path.exists():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            there = found["config"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path} is damaged: delete {root} (or give another root) and write again"
            ) from None
        if found.get("format") != FORMAT:
            raise ValueError(
                f"{root} was built by another version of the phantom (format {found.get('format')}, now "
                f"{FORMAT}): delete it or give another root"
            )
        names = dict.fromkeys([*wanted["config"], *there])
        pairs = [(name, there.get(name), wanted["config"].get(name)) for name in names]
        differs = [f"{name} is {found!r}, wanted {other!r}" for name, found, other in pairs if found != other]
        if differs:
            raise ValueError(
                f"{root} holds a phantom study with another configuration ({'; '.join(differs)}): "
                "give another root, delete this one, or use its configuration"
            )
        return name == "phantom.json"
    if root.exists() and any(path.is_file() for path in root.rglob("*")):
        raise ValueError(f"{root} is not empty and holds no phantom study: give a new or empty folder")
    root.mkdir(parents=True, exist_ok=True)
    _replace_bytes(root / ".phantom-unfinished.json", json.dumps(wanted).encode())
    return False


def write(
    config: PhantomConfig,
    root: str | os.PathLike,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes a phantom study to disk; goes on where an interrupted call stopped.

    Layout: ``images/<image_id>.jpeg`` (quality 92, no chroma subsampling); ``masks/<image_id>_<CODE>.png`` (1
    bit, only for codes present in the eye); ``eyes/<image_id>.json`` (lesions with places and sizes, disc and
    fovea, written last for each eye); ``labels.csv`` with ``image_id, patient_id, eye, grade`` (as recorded),
    ``true_grade, gradable``, with AMD ``amd_grade``, and ``lesion_<CODE>`` (0 or 1); ``phantom.json`` (the configuration), written
    last of all: a folder that has it is complete. Each file appears whole or not at all.

    Args:
        config: the configuration.
        root: the folder; it must be new, empty, or hold this same study.
        workers: number of processes; 1 works in this process, as do very small studies.
        progress: called as ``progress(done, total)`` with numbers of eyes.

    Returns:
        The folder.

    Raises:
        ValueError: ``root`` holds another study or other files, or ``workers`` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    root = Path(root)
    _settle(config, root)
    for folder in ("images", "masks", "eyes"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    total = planning.n_eyes(config)
    codes: dict[int, list[str]] = {}
    todo = []
    for index in range(total):
        kept = _kept(root, planning.image_id_of(index), config.size)
        if kept is None:
            todo.append(index)
        else:
            codes[index] = kept
    if progress and codes:
        progress(len(codes), total)

    def done(results: list[tuple[int, list[str]]]) -> None:
        codes.update(results)
        if progress:
            progress(len(codes), total)

    if workers > 1 and len(todo) * config.size**2 > POOL_PIXELS:
        batch = max(1, min(8, len(todo) // (4 * workers)))
        batches = [todo[i : i + batch] for i in range(0, len(todo), batch)]
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
                for future in as_completed([pool.submit(_write_eyes, config, root, one) for one in batches]):
                    done(future.result())
        except BrokenProcessPool:
            warnings.warn(
                "worker processes could not run; going on in this process", RuntimeWarning, stacklevel=2
            )
    for index in todo:
        if index not in codes:
            done([(index, _write_eye(config, root, index))])

    table = plan(config)
    labels = table[["image_id", "patient_id", "eye"]].copy()
    labels["grade"] = table["label"]
    labels["true_grade"] = table["grade"]
    labels["gradable"] = table["gradable"].astype(int)
    if config.amd is not None:
        labels["amd_grade"] = table["amd_grade"]
    for code in (*LESION_CODES, *(AMD_CODES if config.amd is not None else ())):
        labels[f"lesion_{code}"] = [int(code in codes[index]) for index in range(total)]
    _replace_bytes(root / "labels.csv", labels.to_csv(index=False, lineterminator="\n").encode())
    final = json.dumps({"format": FORMAT, "config": config.to_dict()}, indent=1) + "\n"
    _replace_bytes(root / "phantom.json", final.encode())
    (root / ".phantom-unfinished.json").unlink(missing_ok=True)
    return root


def _outlined(image: np.ndarray, masks: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the image with the outline of each lesion mask in its colour."""
    out = image.copy()
    colours = MASK_COLOURS | AMD_MASK_COLOURS
    for code in reversed([code for code in colours if code in masks]):
        if masks[code].any():
            contours, _ = cv2.findContours(
                cv2.dilate(masks[code].astype(np.uint8), np.ones((3, 3), np.uint8)),
                cv2.RETR_LIST,
                cv2.CHAIN_APPROX_NONE,
            )
            cv2.drawContours(out, contours, -1, colours[code], 1)
    return out


def _one_gradable_eye_each(config: PhantomConfig) -> pd.DataFrame:
    """One gradable eye of each patient, rows of the plan."""
    table = plan(config)
    return table[table["gradable"]].groupby("patient_id").sample(1, random_state=0).sort_index()


def _without_and_with_outlines(config: PhantomConfig, index: int, side: int) -> list[np.ndarray]:
    """A photograph, and the same with its lesions outlined, both ``side`` pixels wide."""
    phantom = render(config, index)
    pictures = [phantom.image, _outlined(phantom.image, phantom.masks)]
    if side == config.size:
        return pictures
    return [cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in pictures]


def _finished(
    sheet: np.ndarray,
    colours: Mapping[str, tuple[int, int, int]],
    scale: float,
    baseline: int,
    path: str | os.PathLike | None,
) -> np.ndarray:
    """The sheet with the codes of the lesions, each in its colour, along a line of pixels; saved as PNG if there is a path."""
    font, at = cv2.FONT_HERSHEY_SIMPLEX, 6
    for code, colour in colours.items():
        cv2.putText(sheet, code, (at, baseline), font, scale, colour, 1, cv2.LINE_AA)
        at += int(cv2.getTextSize(code + "   ", font, scale, 1)[0][0])
    if path is not None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace_bytes(path, _encode(Image.fromarray(sheet), "PNG", optimize=True))
    return sheet


def contact_sheet(
    config: PhantomConfig, path: str | os.PathLike | None, per_grade: int = 2, thumbnail: int | None = None
) -> np.ndarray:
    """Draws examples of every grade, each above the same photograph with its lesions outlined.

    Args:
        config: the configuration; only gradable eyes of different patients are shown. Where it has too few
            eyes of a grade, the study is continued with further patients.
        path: where to save the sheet as PNG, or None.
        per_grade: photographs per grade.
        thumbnail: side of a photograph in pixels; by default ``config.size``.

    Returns:
        The sheet, uint8 RGB (height, width, 3): two rows per photograph, grades 0 to 4 from left to right.
    """
    side = thumbnail or config.size
    wide = replace(config, n_patients=max(config.n_patients, 60 * per_grade))
    table = _one_gradable_eye_each(wide)
    header, legend, gap = max(22, side // 12), max(22, side // 12), 4
    height = header + per_grade * (2 * side + 2 * gap) + legend
    sheet = np.full((height, 5 * side + 4 * gap, 3), 18, np.uint8)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, side / 520
    names = ("0 none", "1 mild", "2 moderate", "3 severe", "4 proliferative")
    for grade in range(5):
        left = grade * (side + gap)
        cv2.putText(
            sheet,
            f"grade {names[grade]}",
            (left + 6, int(0.72 * header)),
            font,
            scale,
            (235, 235, 235),
            1,
            cv2.LINE_AA,
        )
        for row, index in enumerate(table.index[table["grade"] == grade][:per_grade]):
            for k, picture in enumerate(_without_and_with_outlines(wide, int(index), side)):
                top = header + row * (2 * side + 2 * gap) + k * (side + gap)
                sheet[top : top + side, left : left + side] = picture
    return _finished(sheet, MASK_COLOURS, scale, height - int(0.3 * legend), path)


AMD_ROWS = {
    "amd 0  no AMD": "grade == 0 and amd_grade == 0",
    "amd 1  small drusen": "grade == 0 and amd_grade == 1",
    "amd 2  large drusen": "grade == 0 and amd_grade == 2",
    "amd 3  CNV": "grade == 0 and amd_grade == 3",
    "DR 2 or more and AMD": "grade >= 2 and amd_grade >= 2",
}
"""Rows of :func:`amd_sheet`: title, and which eyes are in it."""


def amd_sheet(
    config: PhantomConfig, path: str | os.PathLike | None, pairs: int = 3, thumbnail: int | None = None
) -> np.ndarray:
    """Draws examples of every grade of AMD and of both diseases, each beside the same photograph with its lesions outlined.

    Args:
        config: the configuration, with AMD; only gradable eyes of different patients are shown. Where it has too few eyes, the
            study is continued with further patients.
        path: where to save the sheet, or None.
        pairs: eyes in a row.
        thumbnail: side of a photograph in pixels; by default ``config.size``.

    Returns:
        The sheet, uint8 RGB (height, width, 3): the rows of ``AMD_ROWS`` from top to bottom; a place for which the study has no
        eye stays dark.

    Raises:
        ValueError: the configuration is without AMD.
    """
    if config.amd is None:
        raise ValueError("this phantom is without AMD: give amd the shares of eyes that have it")
    side = thumbnail or config.size
    wide = replace(config, n_patients=max(config.n_patients, 100 * pairs))
    table = _one_gradable_eye_each(wide)
    header, gap = max(22, side // 12), 4
    sheet = np.full(
        (len(AMD_ROWS) * (header + side) + header, 2 * pairs * (side + gap) - gap, 3), 18, np.uint8
    )
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, side / 520
    for row, (title, rule) in enumerate(AMD_ROWS.items()):
        top = row * (header + side)
        place = (6, top + int(0.72 * header))
        cv2.putText(sheet, title, place, font, scale, (235, 235, 235), 1, cv2.LINE_AA)
        for pair, index in enumerate(table.query(rule).index[:pairs]):
            for k, picture in enumerate(_without_and_with_outlines(wide, int(index), side)):
                left = (2 * pair + k) * (side + gap)
                sheet[top + header : top + header + side, left : left + side] = picture
    return _finished(sheet, MASK_COLOURS | AMD_MASK_COLOURS, scale, len(sheet) - int(0.3 * header), path)


__all__ = ["AMD_MASK_COLOURS", "MASK_COLOURS", "amd_sheet", "contact_sheet", "write"]
