"""One file to RGB pixels: whatever its mode, depth or rotation, and a plain reason where that cannot be
done."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

REDUCTIONS = (8, 4, 2, 1)
"""Scales at which a JPEG can be decoded without reading all of its detail: 1/8, 1/4, 1/2 and full size."""

SUFFIXES = {
    "JPEG": (".jpeg", ".jpg"),
    "MPO": (".jpeg", ".jpg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
}
KINDS = {"L": "greyscale", "1": "black and white", "P": "palette", "RGBA": "RGB with transparency"}
"""Modes as the quarantine names them; others by Pillow's name."""
TWELVE_BITS = 4095
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 0x0102
SWAPS_SIDES = (5, 6, 7, 8)


class BadImage(ValueError):
    """A file that cannot be used; the message is the problem as the quarantine names it."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before it is decoded.

    Attributes:
        width, height: Pixels, after EXIF rotation.
        format: As Pillow names it (``JPEG``, ``PNG``, ...).
        mode: As Pillow names it (``RGB``, ``L``, ``CMYK``, ...).
        bits: Bits of a channel: 1, 8 or 16.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        file_bytes: Size of the file.
        notes: What a reader should know although the file is used, as (problem, action) pairs.
    """

    width: int
    height: int
    format: str
    mode: str
    bits: int
    orientation: int
    file_bytes: int
    notes: tuple[tuple[str, str], ...]


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes.

    Raises:
        BadImage: If it is missing, unreadable or empty.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise BadImage(f"cannot be opened ({error.strerror})") from None
    if not content:
        raise BadImage("empty file")
    return content


def header(content: bytes, suffix: str, max_megapixels: float) -> Header:
    """Read what the file says of itself; nothing is decoded yet.

    Args:
        content: The whole file.
        suffix: Suffix of its name, such as ``.jpeg``; another format inside is noted, not refused.
        max_megapixels: More is refused as a possible decompression bomb.

    Raises:
        BadImage: If it is no image, too large, or of a mode that is no photograph.
    """
    with _opened(content) as image:
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            raise BadImage(
                f"{width}x{height} is {width * height / 1e6:.0f} megapixels, more than MAX_MEGAPIXELS "
                f"{max_megapixels:g}"
            )
        bits = _bits(image, content)
        if image.mode in ("I", "F") and bits > 16:
            raise BadImage(f"{bits} bits a channel (mode {image.mode}) is not a photograph's format")
        try:
            orientation = int(image.getexif().get(ORIENTATION, 1))
        except Exception:  # a broken EXIF block raises all kinds of errors; the picture itself is unhurt
            orientation = 1
        if orientation not in range(1, 9):
            orientation = 1
        notes = []
        if image.format in SUFFIXES and suffix.lower() not in SUFFIXES[image.format]:
            notes.append((f"a {image.format} file named {suffix}", f"used: read as {image.format}"))
        if image.mode != "RGB" and bits != 16:
            kind = KINDS.get(image.mode, f"mode {image.mode}")
            notes.append((f"{kind}, not RGB", f"used: converted {kind} to RGB"))
        if bits == 16:
            notes.append(("16 bits a channel", "used: scaled to 8 bits"))
        if orientation != 1:
            notes.append((f"EXIF orientation {orientation}", "used: turned upright"))
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            notes.append((f"{image.n_frames} pictures in one file", "used: the first"))
        if orientation in SWAPS_SIDES:
            width, height = height, width
        return Header(width, height, image.format, image.mode, bits, orientation, len(content), tuple(notes))


def reduction(head: Header, at_least: float) -> int:
    """The strongest reduction (1, 2, 4 or 8) at which the shorter side still has ``at_least`` pixels; JPEG
    only."""
    if head.format not in ("JPEG", "MPO"):
        return 1
    return next((scale for scale in REDUCTIONS if min(head.width, head.height) // scale >= at_least), 1)


def pixels(content: bytes, head: Header, reduce: int = 1) -> np.ndarray:
    """Decode to uint8 (height, width, 3) RGB, upright.

    Args:
        content: The whole file.
        head: Result of :func:`header`.
        reduce: 1, 2, 4 or 8: each pixel then stands for ``reduce`` x ``reduce`` of the file (the JPEG
            decoder's own scaling).

    Raises:
        BadImage: If the file breaks off or cannot be decoded.
    """
    if head.bits == 16:
        return _sixteen_bits(content, head)
    if head.format == "JPEG" and head.mode == "RGB" and head.orientation == 1:
        # libjpeg-turbo as Pillow has it, without Pillow's copies; what it refuses, Pillow names
        with contextlib.suppress(ValueError):
            return simplejpeg.decode_jpeg(
                content,
                "RGB",
                min_height=max(1, head.height // reduce),
                min_width=max(1, head.width // reduce),
                min_factor=reduce,
            )
    with _opened(content) as image:
        if reduce > 1:
            image.draft(None, (max(1, image.width // reduce), max(1, image.height // reduce)))
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError) as error:
            reason = "truncated file" if "truncated" in str(error).lower() else "cannot be decoded"
            raise BadImage(f"{reason} ({error})") from None
        return np.asarray(_upright(_rgb(image), head.orientation))


def sha256(content: bytes | np.ndarray) -> str:
    return hashlib.sha256(content).hexdigest()


def _opened(content: bytes) -> Image.Image:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # `header` has the study's own limit
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise BadImage("not an image, or its beginning is damaged") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadImage(f"cannot be opened as an image ({error})") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _bits(image: Image.Image, content: bytes) -> int:
    if image.format == "PNG" and len(content) > 24:
        return content[24]  # IHDR: bit depth
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    if image.mode.startswith("I;16"):
        return 16
    return 32 if image.mode in ("I", "F") else 1 if image.mode == "1" else 8


def _sixteen_bits(content: bytes, head: Header) -> np.ndarray:
    array = cv2.imdecode(
        np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if array is None or array.dtype != np.uint16:
        raise BadImage("cannot be decoded as a 16-bit image")
    # many cameras put 12 bits into 16: then 4095 is white
    white = TWELVE_BITS if array.max(initial=0) <= TWELVE_BITS else 65535
    array = np.round(array * (255.0 / white)).astype(np.uint8)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    elif array.shape[2] == 4:
        array = np.round(array[:, :, 2::-1] * (array[:, :, 3:] / 255.0)).astype(np.uint8)
    else:
        array = array[:, :, 2::-1] if array.shape[2] == 3 else np.repeat(array[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(np.asarray(_upright(Image.fromarray(array), head.orientation)))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    if orientation == 1:
        return image
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[orientation]
    return image.transpose(method)
