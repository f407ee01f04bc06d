"""One file to RGB pixels: whatever its mode, depth or rotation, and a plain reason where that cannot be
done."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from drstudy.data import damage
from drstudy.data.damage import BadImage, Remark

__all__ = ["BadImage", "Header", "header", "pixels", "read_bytes", "reduction", "sha256"]

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000", "PPM", "GIF")
"""Formats that are opened, by content and not by name (an MPO is opened as a JPEG). Pillow knows more, and some of them are programs (PostScript)."""
LEAST_SIDE = 48
"""Pixels that the shorter side must have: less is no photograph of an eye."""
MOST_ELONGATED = 4.0
"""Ratio of the sides above which a picture is a strip, not a photograph."""
LARGEST_FILE = 2**31
"""Bytes above which a file is not read."""

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
COMPRESSION, JPEG_TABLES, JPEG_IN_TIFF = 0x0103, 0x015B, 7
STRIPS, TILES = (0x0111, 0x0144), (0x0117, 0x0145)
"""Tags of a TIFF: places of strips or tiles, and their lengths."""
JPEGS = ("JPEG", "MPO")
SWAPS_SIDES = (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """The header of a file, read before it is decoded.

    Attributes:
        width, height: Pixels, after EXIF rotation.
        format: As Pillow names it (``JPEG``, ``PNG``, ...).
        mode: As Pillow names it (``RGB``, ``L``, ``CMYK``, ...).
        bits: Bits of a channel: 1 to 16.
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
        BadImage: If it is missing, unreadable, empty, too large, or no file (a folder, a pipe, a link to itself).
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("is not a file (a folder, a pipe or a device)")
        if status.st_size > LARGEST_FILE:
            raise BadImage(f"{status.st_size / 2**30:.1f} GiB is too large for a photograph")
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadImage(f"cannot be opened ({error.strerror})") from None
    if not content:
        raise BadImage("empty file")
    return content


def header(content: bytes, suffix: str, max_megapixels: float) -> Header:
    """Read the header of the file; nothing is decoded yet.

    Args:
        content: The whole file.
        suffix: Suffix of its name, such as ``.jpeg``; another format inside is noted, not refused.
        max_megapixels: More is refused as a possible decompression bomb.

    Raises:
        BadImage: If it is no image, too large, or of a mode that is no photograph.
    """
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with _opened(content) as image:
            try:
                head = _describe(image, content, suffix, max_megapixels)
            except BadImage:
                raise
            except Exception as error:  # a damaged header makes a decoder fail in any way
                raise BadImage(f"its header is damaged ({_short(error)})") from None
    return replace(head, notes=(*head.notes, *_heard(heard)))


def _heard(caught: Iterable[warnings.WarningMessage]) -> list[Remark]:
    """Remarks from the warnings of Pillow's decoders.

    Raises:
        BadImage: If one says that data are missing.
    """
    said = list(
        dict.fromkeys(
            str(one.message).strip().rstrip(".") for one in caught if issubclass(one.category, UserWarning)
        )
    )
    for text in said:
        if "truncated" in text.lower():
            raise BadImage(f"truncated file ({text})")
    return [(f"the decoder warns ({text})", "used: decoded as far as it says") for text in said]


def _describe(image: Image.Image, content: bytes, suffix: str, max_megapixels: float) -> Header:
    """The header of an opened file."""
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise BadImage(
            f"{width}x{height} is {width * height / 1e6:.0f} megapixels, more than MAX_MEGAPIXELS "
            f"{max_megapixels:g}"
        )
    bits = _bits(image, content)
    if image.mode in ("I", "F") and bits > 16:
        raise BadImage(f"{bits} bits a channel (mode {image.mode}) is not a photograph's format")
    orientation = _orientation(image)
    notes = []
    if image.format in SUFFIXES and suffix.lower() not in SUFFIXES[image.format]:
        notes.append((f"a {image.format} file named {suffix}", f"used: read as {image.format}"))
    if image.mode != "RGB" and bits <= 8:
        kind = KINDS.get(image.mode, f"mode {image.mode}")
        notes.append((f"{kind}, not RGB", f"used: converted {kind} to RGB"))
    if orientation != 1:
        notes.append((f"EXIF orientation {orientation}", "used: turned upright"))
    if pictures := _pictures(image):
        notes.append((f"{pictures} pictures in one file", "used: the first"))
    if orientation in SWAPS_SIDES:
        width, height = height, width
    return Header(width, height, image.format, image.mode, bits, orientation, len(content), tuple(notes))


def _orientation(image: Image.Image) -> int:
    try:
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block raises all kinds of errors; the picture itself is unhurt
        return 1
    return orientation if orientation in range(1, 9) else 1


def _pictures(image: Image.Image) -> str:
    """How many pictures a file holds, empty for one. A GIF's are not counted, since that decodes them all."""
    if image.format == "MPO":
        return ""
    if image.format != "GIF":
        count = getattr(image, "n_frames", 1)
        return str(count) if count > 1 else ""
    try:
        image.seek(1)
    except Exception:  # no second picture, or a damaged one, which is not used
        return ""
    return "several"


def check_shape(head: Header) -> None:
    """Refuse a picture that cannot be a photograph of an eye: a few pixels, or a strip.

    Raises:
        BadImage: If it is one.
    """
    shorter, longer = sorted((head.width, head.height))
    if shorter < LEAST_SIDE:
        raise BadImage(
            f"{head.width}x{head.height} pixels are too few for a photograph (least side {LEAST_SIDE})"
        )
    if longer > MOST_ELONGATED * shorter:
        raise BadImage(f"{head.width}x{head.height} is a strip, not a photograph")


def reduction(head: Header, at_least: float) -> int:
    """The strongest reduction (1, 2, 4 or 8) at which the shorter side still has ``at_least`` pixels; JPEG
    only."""
    if head.format not in JPEGS:
        return 1
    return next((scale for scale in REDUCTIONS if min(head.width, head.height) // scale >= at_least), 1)


def pixels(content: bytes, head: Header, reduce: int = 1, remarks: list[Remark] | None = None) -> np.ndarray:
    """Decode to uint8 (height, width, 3) RGB, upright.

    Args:
        content: The whole file.
        head: Result of :func:`header`.
        reduce: 1, 2, 4 or 8: each pixel then stands for ``reduce`` x ``reduce`` of the file (the JPEG
            decoder's own scaling).
        remarks: What the decoders notice although the file is used is added here, as (problem, action) pairs.

    Raises:
        BadImage: If the file breaks off, is damaged or cannot be decoded.
    """
    noticed: list[Remark] = []
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            decoded = _decoded(content, head, reduce, noticed)
        noticed += _heard(heard)
    except BadImage:
        raise
    except Exception as error:  # decoders fail on damaged files in any way
        reason = "truncated file" if "truncated" in str(error).lower() else "cannot be decoded"
        raise BadImage(f"{reason} ({_short(error)})") from None
    if head.format in JPEGS:
        damage.check_fill(decoded)
    if remarks is not None:
        remarks += [remark for remark in noticed if remark not in remarks]
    return decoded


def _decoded(content: bytes, head: Header, reduce: int, noticed: list[Remark]) -> np.ndarray:
    if head.format == "PNG":
        damage.check_chunks(content)
    if head.bits > 8:
        return _deep(content, head, noticed)
    if head.format in JPEGS:
        damage.check_scan(content)
        plain = head.format == "JPEG" and head.mode == "RGB" and head.orientation == 1
        strict = _strict_jpeg(content, head, reduce if plain else REDUCTIONS[0], noticed)
        if plain and strict is not None:
            return strict
    with _opened(content) as image:
        if head.format == "TIFF":
            _check_jpeg_in_tiff(image, content, noticed)
        if reduce > 1:
            image.draft(None, (max(1, image.width // reduce), max(1, image.height // reduce)))
        image.load()
        return np.asarray(_upright(_rgb(image), head.orientation))


def _strict_jpeg(content: bytes, head: Header, reduce: int, noticed: list[Remark]) -> np.ndarray | None:
    """A JPEG by libjpeg-turbo, without Pillow's copies and with its warnings; ``None`` if it says more than nothing.

    Raises:
        BadImage: If it warns of damage.
    """
    colours = {"L": "GRAY", "CMYK": "CMYK"}.get(head.mode, "RGB")
    height, width = (
        (head.height, head.width) if head.orientation not in SWAPS_SIDES else (head.width, head.height)
    )
    try:
        return simplejpeg.decode_jpeg(
            content,
            colours,
            min_height=max(1, height // reduce),
            min_width=max(1, width // reduce),
            min_factor=reduce,
        )
    except ValueError as warning:
        noticed.append(damage.of_warning(str(warning), content))
        return None


def _check_jpeg_in_tiff(image: Image.Image, content: bytes, noticed: list[Remark]) -> None:
    """Look at the JPEG data of a TIFF with the strict decoder, as libtiff keeps its warnings to itself.

    Raises:
        BadImage: If they are damaged.
    """
    tags = image.tag_v2
    if tags.get(COMPRESSION) != JPEG_IN_TIFF:
        return
    offsets, sizes = (tags.get(a) or tags.get(b) or () for a, b in (STRIPS, TILES))
    for stream in damage.jpeg_parts(content, tags.get(JPEG_TABLES, b""), tuple(offsets), tuple(sizes)):
        try:
            simplejpeg.decode_jpeg(stream, "GRAY", min_factor=REDUCTIONS[0])
        except ValueError as warning:
            damage.of_warning(str(warning), stream)  # what is no damage concerns colours, which libtiff knows


def sha256(content: bytes | np.ndarray) -> str:
    return hashlib.sha256(content).hexdigest()


def _opened(content: bytes) -> Image.Image:
    Image.init()  # once: registers all formats, of which only those listed are tried
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # `header` has the study's own limit
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        what = damage.marks(content)
        raise BadImage(
            f"not an image but {what}" if what else "not an image, or its beginning is damaged"
        ) from None
    except Exception as error:  # a damaged header makes a decoder fail in any way
        raise BadImage(f"cannot be opened as an image ({_short(error)})") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _short(error: Exception) -> str:
    """An error's first line, or its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _bits(image: Image.Image, content: bytes) -> int:
    if image.format == "PNG" and len(content) > 24:
        return content[24]  # IHDR: bit depth
    if image.format == "TIFF":
        return max(int(bits) for bits in image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    if image.mode.startswith("I;16"):
        return 16
    return 32 if image.mode in ("I", "F") else 1 if image.mode == "1" else 8


def _deep(content: bytes, head: Header, noticed: list[Remark]) -> np.ndarray:
    """A picture of more than 8 bits a channel, scaled by the depth that the file declares; see :func:`_white`."""
    array = None
    if head.bits == 16:
        array = cv2.imdecode(
            np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
        )
    if array is None:
        with _opened(content) as image:
            array = np.asarray(image) if image.mode.startswith("I") else None
    if array is None or array.dtype not in (np.uint16, np.int32, np.dtype(">u2")):
        raise BadImage(f"cannot be decoded as an image of {head.bits} bits a channel")
    colours = array if array.ndim == 2 else array[:, :, :3] if array.shape[2] > 2 else array[:, :, :1]
    white = _white(content, head, int(colours.max(initial=0)), noticed)
    eight = np.round(np.minimum(colours, white) * (255.0 / white)).astype(np.uint8)
    if array.ndim == 2:
        eight = np.repeat(eight[:, :, None], 3, axis=2)
    elif array.shape[2] == 4:
        opaque = array[:, :, 3:] / max(1, int(array[:, :, 3].max(initial=0)))
        eight = np.round(eight[:, :, ::-1] * opaque).astype(np.uint8)
    else:
        eight = eight[:, :, ::-1] if array.shape[2] == 3 else np.repeat(eight, 3, axis=2)
    return np.ascontiguousarray(
        np.asarray(_upright(Image.fromarray(np.ascontiguousarray(eight)), head.orientation))
    )


def _white(content: bytes, head: Header, highest: int, noticed: list[Remark]) -> int:
    """The value that is white.

    The file says it by its depth, or (a PNG) by its part ``sBIT``. A 16-bit file that says nothing and has no value above 4095
    is taken as 12 bits, as many cameras write it, with a remark, since it could also be a very dark photograph.
    """
    declared = damage.significant_bits(content) if head.format == "PNG" else 0
    if head.bits < 16 or 8 < declared < 16:
        bits = head.bits if head.bits < 16 else declared
        noticed.append((f"{bits} bits a channel", "used: scaled to 8 bits"))
        return 2**bits - 1
    if declared == 0 and highest <= TWELVE_BITS:
        noticed.append(
            (
                f"16 bits a channel with no value above {highest}: 12 bits of a camera, or a very dark photograph",
                f"used: {TWELVE_BITS} taken as white",
            )
        )
        return TWELVE_BITS
    noticed.append(("16 bits a channel", "used: scaled to 8 bits"))
    return 65535


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
