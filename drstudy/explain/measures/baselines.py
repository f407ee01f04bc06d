"""Maps that ignore the network: what any method has to beat before its maps mean anything.

Each is brought to the grid of the map that it is compared with (7 by 7 for a Grad-CAM at 224 pixels) and up again
in the same way, so that a difference is one of content and never of resolution.

- ``random``: a smooth random field, normal noise on the grid, smoothed over neighbouring cells; several draws
  an eye, whose scores are averaged.
- ``centre``: a Gaussian around the middle of the field of view, half its radius wide.
- ``intensity``: the brightness of the photograph.
- ``vessels``: the vessel mask where there is one, else :func:`vesselness` of the photograph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np

from drstudy.explain.measures.localisation import Masks

DRAWS = 4
NAMES = ("random", "centre", "intensity", "vessels")
LINES = 12
LUMINANCE = np.float32([0.299, 0.587, 0.114])


def label(name: str, grid: tuple[int, int]) -> str:
    """Name of a baseline on a grid in tables: ``centre 7x7``."""
    return f"{name} {grid[0]}x{grid[1]}"


def is_label(name: str) -> bool:
    """Whether a name in a table is that of a baseline, and not of a network's layer."""
    return name.split(" ")[0] in NAMES


def beside(
    images: np.ndarray, rows: Sequence[int], grids: Iterable[tuple[int, int]], seed: int
) -> Callable[[int, str, Masks], dict[str, np.ndarray]]:
    """The four baselines of one eye after the other, as :func:`drstudy.explain.measures.localisation.measure` asks for them.

    Args:
        images: (M, S, S, 3) uint8 RGB, at the size of the masks; may be memory-mapped.
        rows: Which of them are measured, in that order.
        grids: (h, w) of the maps that are to be compared.
        seed: Seed of the random fields; an eye's fields do not depend on the other eyes.

    Returns:
        A function from an eye's number, name and masks to its maps: :func:`label` to (h, w) float32, at least
        0; ``random#0 7x7`` to ``random#3 7x7`` for the draws.
    """
    grids = list(dict.fromkeys(tuple(grid) for grid in grids))

    def maps(number: int, image_id: str, masks: Masks) -> dict[str, np.ndarray]:
        image, fov, vessel = images[rows[number]], np.asarray(masks["FOV"], bool), masks.get("VESSEL")
        whole = {
            "centre": centre(fov),
            "intensity": np.where(fov, image @ LUMINANCE, 0),
            "vessels": vesselness(image, fov) if vessel is None else np.asarray(vessel, np.float32),
        }
        noise, found = np.random.default_rng([seed, *image_id.encode()]), {}
        for grid in grids:
            for draw in range(DRAWS):
                found[label(f"random#{draw}", grid)] = random_field(noise, grid)
            for name, picture in whole.items():
                found[label(name, grid)] = cv2.resize(
                    picture.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA
                )
        return found

    return maps


def random_field(random: np.random.Generator, grid: tuple[int, int]) -> np.ndarray:
    """(h, w) float32, 0 at its lowest point: normal noise, smoothed with a Gaussian one cell wide."""
    field = cv2.GaussianBlur(
        random.normal(size=grid).astype(np.float32), (0, 0), 1, borderType=cv2.BORDER_REFLECT
    )
    return field - field.min()


def centre(fov: np.ndarray) -> np.ndarray:
    """(S, S) float32, 1 at the middle of a field of view that is not empty."""
    rows, columns = np.nonzero(fov)
    sigma = np.sqrt(fov.sum() / np.pi) / 2
    y, x = np.indices(fov.shape, dtype=np.float32)
    return np.exp(-((y - rows.mean()) ** 2 + (x - columns.mean()) ** 2) / (2 * sigma**2))


def vesselness(image: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Dark lines of the green channel: what survives an opening with some line, but not one with a disc.

    After Zana & Klein 2001 (IEEE Trans Image Process 10:1010), without their curvature filter. Lines are a
    fifteenth of the field's diameter long, which is more than most lesions are wide; the disc is a fortieth
    of it wide, which is more than the widest vessel.

    Args:
        image: (S, S, 3) uint8 RGB.
        fov: (S, S) bool.

    Returns:
        (S, S) float32, at least 0, 0 outside and at the edge of the field.
    """
    diameter = 2 * np.sqrt(fov.sum() / np.pi)
    dark = np.where(fov, 255 - image[..., 1], 0).astype(np.uint8)
    half = max(3, round(diameter / 30))
    lines = []
    for angle in np.arange(LINES) * np.pi / LINES:
        line = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
        dx, dy = round(half * np.cos(angle)), round(half * np.sin(angle))
        cv2.line(line, (half - dx, half - dy), (half + dx, half + dy), 1)
        lines.append(cv2.morphologyEx(dark, cv2.MORPH_OPEN, line))
    width = 2 * max(2, round(diameter / 80)) + 1
    round_ = cv2.morphologyEx(
        dark, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    )
    inner = cv2.erode(fov.astype(np.uint8), np.ones((width, width), np.uint8)) > 0
    return np.where(inner, np.clip(np.max(lines, axis=0).astype(np.float32) - round_, 0, None), 0)
