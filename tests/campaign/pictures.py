"""Bad pictures: damaged, of unusual modes and depths, of impossible shapes, of other formats, and no files at all."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from cases import Case
from photographs import encoded, photograph
from PIL import Image

from drstudy.data import decoding, images
from drstudy.data.decoding import BadImage

EYE = photograph(1, 300)
GOOD = encoded(EYE)
HALF = len(GOOD) // 2
SIZE = 96
SAME = 3.0
"""Greatest mean difference, in levels, of a crop from that of the undamaged picture."""


def crop_of(content: bytes, suffix: str = ".png") -> np.ndarray:
    return images.prepare(content, suffix, SIZE, 50)[0].astype(int)


def prepared(content: bytes | Path, suffix: str, like: np.ndarray | None) -> tuple[str, str]:
    """The outcome of one file, compared with the crop that it should give."""
    try:
        content = decoding.read_bytes(content) if isinstance(content, Path) else content
        crop, record = images.prepare(content, suffix, SIZE, 50)
    except BadImage as error:
        return "excluded", str(error)
    said = "; ".join(f"{problem} ({action})" for problem, action in record["notes"])
    if like is not None:
        off = np.abs(crop - like).mean()
        assert off < SAME, f"differs from the right picture by {off:.1f} levels; {said}"
    return ("noted" if said else "used"), said


def png(pixels: np.ndarray, **options) -> bytes:
    return encoded(pixels, "PNG", **options)


def deep(suffix: str, array: np.ndarray) -> bytes:
    """A file of 16 bits a channel, from RGB or RGBA."""
    order = array if array.ndim == 2 else array[..., [2, 1, 0, *range(3, array.shape[2])]]
    ok, content = cv2.imencode(suffix, order)
    assert ok
    return content.tobytes()


def part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_part(content: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more part after its header."""
    return content[:33] + part(kind, data) + content[33:]


def tiff12(array: np.ndarray) -> bytes:
    """A grey TIFF of 12 bits a sample, packed."""
    height, width = array.shape
    a, b = array.reshape(-1, 2).astype(np.uint16).T
    packed = np.stack([a >> 4, ((a & 15) << 4) | (b >> 8), b & 255], 1).astype(np.uint8).tobytes()
    fields = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(packed)),
    ]
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in fields
    )
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(packed))
        + packed
        + struct.pack("<H", len(fields))
        + entries
        + bytes(4)
    )


def saved(kind: str, **options) -> bytes:
    return encoded(Image.fromarray(EYE), kind, **options)


def broken_png(kind: bytes) -> bytes:
    """A PNG with one changed bit in a part, whose checksum is left as it was."""
    content = bytearray(png(EYE))
    content[content.index(kind) + 200 if kind == b"IDAT" else content.index(kind) + 5] ^= 4
    return bytes(content)


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"


def cut_rows(kind: str, **options) -> bytes:
    content = saved(kind, **options)
    return content[: len(content) * 2 // 3]


DARK = np.round(EYE.astype(float) * 3900 / 255).astype(np.uint16)
TWELVE = np.round(EYE.astype(float) * 4095 / 255).astype(np.uint16)
FULL = (EYE.astype(np.uint16)) * 257
OPAQUE = np.full((*EYE.shape[:2], 1), 65535, np.uint16)

DAMAGED = {
    "JPEG cut in the middle": (GOOD[:HALF], "excluded", "truncated"),
    "JPEG cut in the middle, with a valid end marker": (
        GOOD[:HALF] + b"\xff\xd9",
        "excluded",
        "damaged JPEG",
    ),
    "JPEG with 2,000 zero bytes inside": (
        GOOD[:HALF] + bytes(2000) + GOOD[HALF + 2000 :],
        "excluded",
        "2000 zero bytes",
    ),
    "JPEG with a hole of 4 KiB": (GOOD[:HALF] + bytes(4096) + GOOD[HALF + 4096 :], "excluded", "zero bytes"),
    "JPEG whose last third is zero": (
        GOOD[: 2 * HALF // 3 * 2] + bytes(len(GOOD) - 2 * HALF // 3 * 2 - 2) + b"\xff\xd9",
        "excluded",
        "",
    ),
    "JPEG whose last tenth is missing": (
        GOOD[: len(GOOD) * 9 // 10] + b"\xff\xd9",
        "excluded",
        "damaged JPEG",
    ),
    "JPEG with noise in the middle": (
        GOOD[:HALF]
        + np.random.default_rng(0).integers(0, 255, 3000, np.uint8).tobytes()
        + GOOD[HALF + 3000 :],
        "excluded",
        "",
    ),
    "progressive JPEG cut in the middle, with an end marker": (
        encoded(EYE, progressive=True)[:HALF] + b"\xff\xd9",
        "excluded",
        "damaged JPEG",
    ),
    "greyscale JPEG cut, with an end marker": (
        encoded(EYE[..., 0])[: HALF // 2] + b"\xff\xd9",
        "excluded",
        "damaged JPEG",
    ),
    "CMYK JPEG cut, with an end marker": (
        encoded(Image.fromarray(EYE).convert("CMYK"))[:HALF] + b"\xff\xd9",
        "excluded",
        "damaged JPEG",
    ),
    "JPEG with zero padding before its end": (GOOD[:-2] + bytes(40) + b"\xff\xd9", "noted", "padding"),
    "JPEG with bytes after its end": (GOOD + b"appended by a camera", "used", ""),
    "PNG cut": (png(EYE)[:-3000], "excluded", "truncated"),
    "PNG without its end": (png(EYE)[:-12], "excluded", "truncated"),
    "PNG with a changed bit in its pixels": (broken_png(b"IDAT"), "excluded", "checksum"),
    "PNG with a changed bit in its header": (broken_png(b"IHDR"), "excluded", ""),
    "TIFF cut": (cut_rows("TIFF"), "excluded", ""),
    "TIFF with LZW, cut": (cut_rows("TIFF", compression="tiff_lzw"), "excluded", ""),
    "BMP cut": (cut_rows("BMP"), "excluded", ""),
    "WebP cut": (cut_rows("WEBP"), "excluded", ""),
    "JPEG 2000 cut": (cut_rows("JPEG2000")[:2000], "excluded", ""),
    "PPM cut": (cut_rows("PPM"), "excluded", ""),
    "GIF cut": (cut_rows("GIF"), "excluded", ""),
    "empty": (b"", "excluded", "empty file"),
    "only zero bytes": (bytes(5000), "excluded", "not an image"),
    "all black": (png(np.zeros((300, 300, 3), np.uint8)), "excluded", "all black"),
}

MODES = {
    "12 bits in 16, RGB PNG": (deep(".png", TWELVE), ".png", "noted", "12 bits of a camera", EYE),
    "12 bits in 16, RGBA PNG": (
        deep(".png", np.concatenate([TWELVE, OPAQUE], 2)),
        ".png",
        "noted",
        "12 bits of a camera",
        EYE,
    ),
    "dark 16-bit RGB PNG": (deep(".png", DARK), ".png", "noted", "very dark photograph", None),
    "dark 16-bit PNG that declares 16 bits": (
        with_part(deep(".png", FULL // 3), b"sBIT", b"\x10\x10\x10"),
        ".png",
        "noted",
        "16 bits",
        EYE // 3,
    ),
    "12 bits declared by sBIT": (
        with_part(deep(".png", TWELVE), b"sBIT", b"\x0c\x0c\x0c"),
        ".png",
        "noted",
        "12 bits a channel",
        EYE,
    ),
    "16-bit RGB PNG": (deep(".png", FULL), ".png", "noted", "16 bits", EYE),
    "16-bit RGBA PNG": (deep(".png", np.concatenate([FULL, OPAQUE], 2)), ".png", "noted", "16 bits", EYE),
    "16-bit grey PNG": (deep(".png", FULL[..., 0]), ".png", "noted", "16 bits", EYE[..., :1].repeat(3, 2)),
    "16-bit RGB TIFF": (deep(".tiff", FULL), ".tiff", "noted", "16 bits", EYE),
    "12-bit grey TIFF": (
        tiff12(TWELVE[..., 0]),
        ".tif",
        "noted",
        "12 bits a channel",
        EYE[..., :1].repeat(3, 2),
    ),
    "CMYK JPEG": (encoded(Image.fromarray(EYE).convert("CMYK")), ".jpg", "noted", "CMYK", EYE),
    "greyscale JPEG": (encoded(EYE[..., 1]), ".jpg", "noted", "greyscale", EYE[..., 1:2].repeat(3, 2)),
    "palette PNG": (png(Image.fromarray(EYE).convert("P")), ".png", "noted", "palette", None),
    "opaque RGBA PNG": (png(Image.fromarray(EYE).convert("RGBA")), ".png", "noted", "transparency", EYE),
    "32-bit float TIFF": (
        encoded(Image.fromarray(EYE[..., 0].astype(np.float32)), "TIFF"),
        ".tif",
        "excluded",
        "32 bits",
        None,
    ),
    "32-bit whole-number TIFF": (
        encoded(Image.fromarray(EYE[..., 0].astype(np.int32)), "TIFF"),
        ".tif",
        "excluded",
        "32 bits",
        None,
    ),
    "two pictures in one TIFF": (
        saved("TIFF", save_all=True, append_images=[Image.fromarray(EYE[::-1])]),
        ".tif",
        "noted",
        "2 pictures",
        EYE,
    ),
    "animated GIF": (
        saved("GIF", save_all=True, append_images=[Image.fromarray(EYE[::-1])]),
        ".gif",
        "noted",
        "several pictures",
        None,
    ),
    "PNG named .jpeg": (png(EYE), ".jpeg", "noted", "PNG file named .jpeg", EYE),
    "WebP": (saved("WEBP", quality=95), ".webp", "used", "", EYE),
    "JPEG 2000": (saved("JPEG2000"), ".jp2", "used", "", EYE),
    "BMP": (saved("BMP"), ".bmp", "used", "", EYE),
}

SHAPES = {
    f"{width}x{height} pixels": (width, height)
    for width, height in (
        (1, 1),
        (2, 2),
        (7, 7),
        (16, 16),
        (31, 31),
        (40, 400),
        (1, 5000),
        (5000, 1),
        (2000, 60),
        (300, 2000),
    )
}

FORMATS = {
    "PostScript program": (eps(), "PostScript"),
    "PostScript program with a binary head": (b"\xc5\xd0\xd3\xc6" + bytes(26) + eps(), "PostScript"),
    "PDF": (b"%PDF-1.7\n1 0 obj", "PDF"),
    "Photoshop file": (b"8BPS\0\x01" + bytes(400), "Photoshop"),
    "DDS texture": (b"DDS " + bytes(200), "DDS"),
    "DICOM file": (bytes(128) + b"DICM" + bytes(300), "DICOM"),
    "ZIP archive": (b"PK\x03\x04" + bytes(100), "ZIP"),
    "gzip archive": (b"\x1f\x8b\x08" + bytes(100), "gzip"),
    "web page": (b"<html>quota exceeded</html>", "web page"),
    "SVG drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "XML"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "text": (b"no picture, only words", "not an image"),
    "SGI picture": (encoded(Image.fromarray(EYE), "SGI"), "not an image"),
    "TGA picture": (encoded(Image.fromarray(EYE), "TGA"), "not an image"),
    "icon": (encoded(Image.fromarray(EYE[:64, :64]), "ICO"), "not an image"),
    "AVIF picture": (b"\0\0\0\x20ftypavif" + bytes(200), "not an image"),
}


def cases() -> list[Case]:
    plain = crop_of(png(EYE))
    found = []
    for name, (content, expected, says) in DAMAGED.items():
        like = plain if expected != "excluded" else None

        def damaged(folder: Path, content=content, like=like) -> tuple[str, str]:
            file = folder / "x.jpeg"
            file.write_bytes(content)
            outcome, said = prepared(file, ".jpeg" if content[:2] == b"\xff\xd8" else "", like)
            return outcome, said

        found.append(Case("damaged pictures", name, expected, damaged, (says,)))
    for name, (content, suffix, expected, says, right) in MODES.items():
        like = crop_of(png(right)) if right is not None else None
        found.append(
            Case(
                "modes and depths",
                name,
                expected,
                lambda _, c=content, s=suffix, k=like: prepared(c, s, k),
                (says,),
            )
        )
    for name, (width, height) in SHAPES.items():
        pixels = np.full((height, width, 3), 120, np.uint8)
        found.append(
            Case(
                "impossible shapes",
                name,
                "excluded",
                lambda _, p=pixels: prepared(png(p), ".png", None),
                (name.split()[0],),
            )
        )
    strip = png(np.full((10, 65535, 3), 120, np.uint8))
    found.append(
        Case(
            "impossible shapes",
            "65535x10 pixels",
            "excluded",
            lambda _: prepared(strip, ".png", None),
            ("65535x10",),
        )
    )
    for name, (content, says) in FORMATS.items():
        found.append(
            Case(
                "other formats",
                f"{name} named .jpeg",
                "excluded",
                lambda _, c=content: prepared(c, ".jpeg", None),
                (says,),
            )
        )
    return [*found, *_surroundings(), *_no_files()]


def _surroundings() -> list[Case]:
    """An eye on a background that is not black must be cut to the same square as on black."""
    eye = photograph(4, 400, width=600)
    inside = eye.max(axis=2) > 0

    def on(level: int | tuple[int, int, int], quality: int = 0, offset: int = 0):
        def run(_: Path) -> tuple[str, str]:
            picture = np.where(inside[..., None], eye, np.array(level, np.uint8)).astype(np.uint8)
            content = encoded(picture, "JPEG", quality=quality) if quality else png(picture)
            _, right = images.prepare(png(eye), ".png", SIZE, 50)
            crop, record = images.prepare(content, ".jpg" if quality else ".png", SIZE, 50)
            for name in ("x0", "y0", "side"):
                assert abs(record[name] - right[name]) <= 8, (name, record[name], right[name])
            assert abs(images.fov_mask(crop).mean() - 0.785) < 0.06, images.fov_mask(crop).mean()
            said = "; ".join(f"{problem} ({action})" for problem, action in record["notes"])
            return ("noted" if said else "used"), said

        return run

    def filled(_: Path) -> tuple[str, str]:
        """Retina up to the corners has no surroundings."""
        close = photograph(5, 300, radius=400)
        _, record = images.prepare(png(close), ".png", SIZE, 50)
        assert record["side"] == 300
        return ("noted" if record["notes"] else "used"), str(record["notes"])

    def page(_: Path) -> tuple[str, str]:
        picture = np.full((400, 400, 3), 250, np.uint8)
        picture[60:300, 80:350] = photograph(6, 600, radius=900)[:240, :270]
        outcome, said = prepared(png(picture), ".png", None)
        return outcome, said

    group = "surroundings"
    return [
        Case(group, "black", "used", on(0)),
        Case(group, "dark grey", "used", on(20)),
        Case(group, "grey", "noted", on(60), ("bright",)),
        Case(group, "middle grey", "noted", on(128), ("bright",)),
        Case(group, "middle grey, JPEG", "noted", on(128, 80), ("bright",)),
        Case(group, "white", "noted", on(255), ("bright",)),
        Case(group, "white, JPEG", "noted", on(255, 85), ("bright",)),
        Case(group, "green", "noted", on((40, 200, 60)), ("bright",)),
        Case(group, "retina up to the corners", "used", filled),
        Case(group, "a rectangle on a white page", "noted", page, ("in doubt",)),
    ]


def _no_files() -> list[Case]:
    def fifo(folder: Path) -> tuple[str, str]:
        os.mkfifo(folder / "x.jpeg")
        return prepared(folder / "x.jpeg", ".jpeg", None)

    def loop(folder: Path) -> tuple[str, str]:
        (folder / "x.jpeg").symlink_to("x.jpeg")
        return prepared(folder / "x.jpeg", ".jpeg", None)

    def dangling(folder: Path) -> tuple[str, str]:
        (folder / "x.jpeg").symlink_to("nowhere.jpeg")
        return prepared(folder / "x.jpeg", ".jpeg", None)

    def directory(folder: Path) -> tuple[str, str]:
        (folder / "x.jpeg").mkdir()
        return prepared(folder / "x.jpeg", ".jpeg", None)

    def huge(folder: Path) -> tuple[str, str]:
        with (folder / "x.jpeg").open("wb") as file:
            file.truncate(3 * 2**30)  # a sparse file, which takes no space
        return prepared(folder / "x.jpeg", ".jpeg", None)

    group = "no files"
    return [
        Case(group, "named pipe", "excluded", fifo, ("not a file",)),
        Case(group, "link to itself", "excluded", loop, ("cannot be opened",)),
        Case(group, "link to nothing", "excluded", dangling, ("cannot be opened",)),
        Case(group, "folder named like a picture", "excluded", directory, ("not a file",)),
        Case(group, "sparse file of 3 GiB", "excluded", huge, ("too large",)),
    ]


MUTATED = {
    "JPEG": GOOD,
    "progressive JPEG": encoded(EYE, progressive=True),
    "CMYK JPEG": encoded(Image.fromarray(EYE).convert("CMYK")),
    "PNG": png(EYE[:150, :150]),
    "TIFF": saved("TIFF"),
    "TIFF with LZW": saved("TIFF", compression="tiff_lzw"),
    "TIFF with JPEG": saved("TIFF", compression="jpeg"),
    "TIFF of two pictures": saved("TIFF", save_all=True, append_images=[Image.fromarray(EYE)]),
    "16-bit TIFF": deep(".tiff", FULL),
    "animated GIF": saved("GIF", save_all=True, append_images=[Image.fromarray(EYE[::-1])]),
    "BMP": saved("BMP"),
    "WebP": saved("WEBP"),
    "JPEG 2000": saved("JPEG2000"),
    "PPM": saved("PPM"),
}
"""Files of which random bytes are changed."""


def mutants(content: bytes, count: int, seed: int):
    """Copies with a few changed bytes, half of them in the first kilobyte, where a header is."""
    rng = np.random.default_rng(seed)
    for turn in range(count):
        copy = bytearray(content)
        end = min(len(copy), 1024) if turn % 2 else len(copy)
        for place in rng.integers(0, end, rng.integers(1, 4)):
            copy[place] = int(rng.integers(256))
        yield bytes(copy)


def decoder_complains(content: bytes) -> bool:
    """Whether the strict JPEG decoder warns of damaged data."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(content, "RGB")
    except ValueError as warning:
        return "corrupt" in str(warning).lower() or "premature" in str(warning).lower()
    return False


def opened(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        return image.format
