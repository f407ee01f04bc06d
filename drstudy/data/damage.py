"""Damage that an image decoder passes over: data that are cut, overwritten or do not match their checksum.

Decoders are lenient. They fill what is missing with grey and go on. A photograph that is grey in part is no photograph, so each sign of
damage is a finding here: either the file is refused (:class:`BadImage`), or the sign is harmless and becomes a remark.
"""

from __future__ import annotations

import re
import zlib

import cv2
import numpy as np

Remark = tuple[str, str]
"""A problem and what was done about it."""

HARMLESS = ("adobe", "icc", "invalid sos parameters", "unknown jfif")
"""Parts of warnings of the JPEG decoder that do not concern the pixels."""
LONGEST_ZEROS = 256
"""Zero bytes in a row inside the coded data of a JPEG from which they are a hole; shorter runs occur in intact files."""
GREY = 128
"""Level of all channels that a JPEG decoder gives to blocks without data."""
MOST_GREY = 0.02
"""Share of the picture, at its lower end, from which such blocks count as missing data."""


class BadImage(ValueError):
    """A file that cannot be used; the message is the problem as the quarantine names it."""


def of_warning(message: str, content: bytes) -> Remark:
    """Judge a warning of the strict JPEG decoder.

    Args:
        message: What the decoder says.
        content: The whole file.

    Returns:
        A remark if the warning does not concern the pixels, or if the decoder does not know this kind of file.

    Raises:
        BadImage: If coded data are missing or overwritten.
    """
    text = message.strip().rstrip(".")
    low = text.lower()
    if any(word in low for word in HARMLESS):
        return f"the JPEG decoder warns ({text})", "used: the warning does not concern the pixels"
    extra = re.search(r"(\d+) extraneous bytes before marker 0xd9", low)
    if extra:
        before = content[: content.rfind(b"\xff\xd9")]
        if len(before) - len(before.rstrip(b"\0")) >= int(extra[1]):
            return f"padding before its end ({extra[1]} zero bytes)", "used: the picture is whole"
    if "premature end of jpeg file" in low:
        raise BadImage(f"truncated file ({text})")
    if "corrupt" in low or "premature" in low or "bogus" in low or "inconsistent" in low:
        raise BadImage(f"damaged JPEG data ({text})")
    return f"the strict JPEG decoder cannot read it ({text})", "used: read by another decoder"


def check_scan(content: bytes) -> None:
    """Refuse a JPEG whose coded data have a hole of zero bytes that its Huffman tables do not explain.

    A picture with large black areas may code them as zero bits, if its tables were made for it: then the code of zeros means *nothing changes*. With other
    tables such a run would be noise.

    Args:
        content: The whole file.

    Raises:
        BadImage: If there is such a hole.
    """
    start = content.find(b"\xff\xda")
    place = content.find(bytes(LONGEST_ZEROS), start) if start >= 0 else -1
    if place < 0 or _zeros_mean_nothing(content[:start]):
        return
    end = place
    while end < len(content) and content[end] == 0:
        end += 1
    marker = content.rfind(b"\xff\xd9")
    if 0 <= marker < place or end == marker or end == len(content):
        return  # after the picture, or padding at its end, of which the decoder warns
    raise BadImage(f"damaged JPEG data (a hole of {end - place} zero bytes)")


def _zeros_mean_nothing(head: bytes) -> bool:
    """Whether the code of all zeros is *no difference* or *end of block* in every Huffman table before the first scan."""
    place, first = 2, []
    while place + 4 <= len(head) and head[place] == 0xFF:
        kind, size = head[place + 1], int.from_bytes(head[place + 2 : place + 4])
        if kind == 0xC4:
            table = head[place + 4 : place + 2 + size]
            while len(table) > 17:
                count = sum(table[1:17])
                first.append(table[17])
                table = table[17 + count :]
        place += 2 + size
    return bool(first) and all(symbol == 0 for symbol in first)


def check_fill(pixels: np.ndarray) -> None:
    """Refuse a decoded JPEG that ends in the decoder's own grey.

    A grey background is no damage: it is above the picture as well as below it.

    Args:
        pixels: (h, w, 3) uint8 RGB.

    Raises:
        BadImage: If the rows at the lower end are all :data:`GREY`, and those at the upper end are not.
    """
    height = len(pixels)
    rows = max(1, round(MOST_GREY * height))
    if not _is_fill(pixels[-rows:]) or _is_fill(pixels[:rows]):
        return
    filled = rows
    while filled + rows <= height and _is_fill(pixels[-filled - rows : height - filled]):
        filled += rows
    raise BadImage(f"the lower {filled / height:.0%} of the picture is the decoder's grey: data are missing")


def _is_fill(part: np.ndarray) -> bool:
    low, high, *_ = cv2.minMaxLoc(np.ascontiguousarray(part).reshape(len(part), -1))
    return low >= GREY - 1 and high <= GREY + 1


def check_chunks(content: bytes) -> None:
    """Compare the checksums of the parts of a PNG that make its pixels, which the decoder does not.

    Args:
        content: The whole file.

    Raises:
        BadImage: If a part is cut or does not match its checksum.
    """
    place = 8
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4])
        kind = content[place + 4 : place + 8]
        end = place + 12 + size
        if end > len(content):
            raise BadImage(f"truncated file (PNG part {kind!r} is cut)")
        told = int.from_bytes(content[end - 4 : end])
        if kind[:1].isupper() and zlib.crc32(content[place + 4 : end - 4]) != told:
            raise BadImage(f"damaged PNG data (part {kind.decode('latin-1')!r} does not match its checksum)")
        if kind == b"IEND":
            return
        place = end
    raise BadImage("truncated file (PNG without its end)")


def jpeg_parts(
    content: bytes, tables: bytes, offsets: tuple[int, ...], sizes: tuple[int, ...]
) -> list[bytes]:
    """The JPEG streams inside a TIFF, each with the tables that they share.

    Args:
        content: The whole file.
        tables: Content of the tag ``JPEGTables``; may be empty.
        offsets, sizes: Place and length of each strip or tile.
    """
    shared = tables[:-2] if tables.startswith(b"\xff\xd8") else b"\xff\xd8"
    return [shared + content[place + 2 : place + size] for place, size in zip(offsets, sizes)]


def significant_bits(content: bytes) -> int:
    """Bits per channel that a 16-bit PNG says it uses (its part ``sBIT``); 0 if it does not say."""
    place = content.find(b"sBIT", 0, 4096)
    if place < 8:
        return 0
    size = int.from_bytes(content[place - 4 : place])
    bits = set(content[place + 4 : place + 4 + min(size, 3)])
    return bits.pop() if len(bits) == 1 else 0


def marks(content: bytes) -> str:
    """What a file is that is no picture of an accepted format, by its first bytes; empty if that is not known."""
    known = (
        (b"%!PS", "a PostScript program"),
        (b"\xc5\xd0\xd3\xc6", "a PostScript program"),
        (b"%PDF", "a PDF document"),
        (b"8BPS", "a Photoshop file"),
        (b"DDS ", "a DDS texture"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
        (b"<", "a web page or XML file"),
    )
    if content[128:132] == b"DICM":
        return "a DICOM file; export it as PNG or JPEG first"
    return next((what for mark, what in known if content.startswith(mark)), "")
