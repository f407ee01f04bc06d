"""Cameras: how a fundus becomes a photograph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Camera:
    """One model of fundus camera, as set up in one clinic.

    Attributes:
        name: shown in the plan.
        share: share of patients photographed with it.
        fov_dd: diameter of the field of view in disc diameters (about 7 for 45 degrees).
        scale: diameter of the field over the side of the image; above 1 the sides are cropped.
        cut: half height of the visible band over the field's radius; 1 leaves the circle whole.
        notch: mark at the edge of the field: ``""``, ``"triangle"``, ``"square"`` or ``"bump"``.
        gain: colour balance (R, G, B).
        gamma: tone curve; above 1 darkens the mid-tones.
        vignette: loss of light at the edge of the field, 0 to 1.
        rim, rim_colour: strength and colour of the glow along the edge.
        blur: optical blur, standard deviation in DD.
        noise: sensor noise, standard deviation in grey levels at the size of the image.
        border: grey level of the black border.
        off_centre: standard deviation of the field's offset over its radius.
        dust: expected number of dust specks, at the same place in every photograph of this camera.
    """

    name: str
    share: float
    fov_dd: float
    scale: float
    cut: float
    notch: str
    gain: tuple[float, float, float]
    gamma: float
    vignette: float
    rim: float
    rim_colour: tuple[float, float, float]
    blur: float
    noise: float
    border: float
    off_centre: float
    dust: float


CAMERAS = (
    Camera(
        "A45-full",
        0.22,
        7.0,
        0.965,
        1.0,
        "triangle",
        (1.0, 0.98, 0.95),
        1.0,
        0.30,
        0.10,
        (0.9, 0.75, 0.5),
        0.012,
        2.2,
        2.0,
        0.008,
        2,
    ),
    Camera(
        "B45-band",
        0.22,
        7.2,
        1.04,
        0.84,
        "bump",
        (0.96, 1.03, 1.16),
        0.95,
        0.45,
        0.6,
        (0.42, 0.66, 0.66),
        0.016,
        2.6,
        4.0,
        0.012,
        4,
    ),
    Camera(
        "C45-crop",
        0.20,
        6.9,
        1.14,
        1.0,
        "",
        (1.04, 0.92, 0.72),
        1.08,
        0.55,
        0.0,
        (1, 1, 1),
        0.013,
        3.0,
        1.0,
        0.02,
        3,
    ),
    Camera(
        "D50-full",
        0.14,
        7.8,
        0.94,
        1.0,
        "bump",
        (0.92, 1.0, 1.22),
        1.05,
        0.25,
        0.16,
        (0.52, 0.70, 0.80),
        0.010,
        2.0,
        3.0,
        0.01,
        2,
    ),
    Camera(
        "E45-hand",
        0.12,
        6.6,
        1.0,
        1.0,
        "",
        (1.0, 0.97, 0.82),
        1.0,
        0.60,
        0.55,
        (0.95, 0.62, 0.30),
        0.024,
        4.2,
        6.0,
        0.04,
        6,
    ),
    Camera(
        "F40-wide",
        0.10,
        6.3,
        1.06,
        0.93,
        "square",
        (1.05, 0.95, 1.0),
        0.9,
        0.20,
        0.05,
        (1, 0.9, 0.9),
        0.011,
        2.4,
        1.5,
        0.01,
        1,
    ),
)
"""The cameras of the phantom clinic."""


VEILS = ((0.80, 0.70, 0.58), (0.74, 0.70, 0.66), (0.58, 0.62, 0.66), (0.66, 0.72, 0.62))
"""Colours of the veil that cataract and stray light lay over a photograph."""


@dataclass
class Capture:
    """What differs from one photograph to the next: all drawn before anything is painted.

    ``haze``, ``blobs`` and ``glare`` are lists of soft spots (x, y, radius, strength) in units of the field's
    radius.
    """

    exposure: float
    tilt: np.ndarray
    warmth: np.ndarray
    blur: float
    noise: float
    veil: float
    veil_colour: np.ndarray
    haze: list[tuple[float, float, float, float]]
    shadows: list[tuple[float, float, float, float]]
    glare: list[tuple[float, float, float, float, int]]
    crescent: tuple[float, float] | None


def _spots(
    rng: np.random.Generator,
    count: int,
    reach: float,
    radius: tuple[float, float],
    strength: tuple[float, float],
) -> list:
    out = []
    for _ in range(count):
        turn, away = rng.uniform(0, 2 * math.pi), reach * math.sqrt(rng.random())
        out.append(
            (away * math.cos(turn), away * math.sin(turn), rng.uniform(*radius), rng.uniform(*strength))
        )
    return out


def draw_capture(rng: np.random.Generator, camera: Camera, hardness: float, gradable: bool) -> Capture:
    """Draws how one photograph was taken: exposure, focus, haze, shadows, reflections."""
    poor = 0.35 + 1.3 * hardness
    bad = rng.random(4) < 0.4
    bad[int(rng.integers(4))] = True
    gradable_bad = np.zeros(4, bool) if gradable else bad
    exposure = float(np.exp(rng.normal(-0.12 * hardness, 0.12 + 0.26 * hardness)))
    if gradable_bad[0]:
        exposure *= float(rng.choice([rng.uniform(0.22, 0.4), rng.uniform(1.8, 2.6)]))
    blur = camera.blur * float(np.exp(rng.normal(0.0, 0.3 * poor)))
    if gradable_bad[1]:
        blur += rng.uniform(0.09, 0.22)
    veil = float(np.clip(rng.gamma(1.3, 0.045 * poor), 0, 0.38))
    if gradable_bad[2]:
        veil = rng.uniform(0.6, 0.82)
    shadows = _spots(rng, int(rng.poisson(0.55 * poor)), 0.6, (0.25, 0.6), (0.12, 0.45))
    if gradable_bad[3]:
        shadows += _spots(rng, 4, 0.7, (0.35, 0.7), (0.6, 0.95))
    glare = []
    for x, y, radius, strength in _spots(
        rng, int(rng.poisson(0.5 * poor)), 0.8, (0.010, 0.045), (0.08, 0.32)
    ):
        glare.append((x, y, radius, strength, int(rng.integers(3))))
    return Capture(
        exposure=exposure,
        tilt=rng.normal(0, 0.10, 2),
        warmth=np.exp(rng.normal(0, [0.03, 0.045, 0.11])),
        blur=float(blur),
        noise=camera.noise * float(rng.uniform(0.7, 1.3)) * (0.6 + 0.8 * hardness),
        veil=veil,
        veil_colour=np.array(VEILS[int(rng.integers(len(VEILS)))]) * rng.uniform(0.9, 1.1, 3),
        haze=_spots(rng, int(rng.poisson(0.8 * poor)), 0.9, (0.25, 0.6), (0.05, 0.28)),
        shadows=shadows,
        glare=glare,
        crescent=(float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.25, 0.9)))
        if rng.random() < 0.14 * poor
        else None,
    )


def draw_dust(rng: np.random.Generator, camera: Camera) -> list[tuple[float, float, float, float, bool]]:
    """Draws the dust of a camera: (x, y, radius, strength, dark?), in units of the field's radius."""
    return [
        (*spot, bool(rng.random() < 0.6))
        for spot in _spots(rng, int(rng.poisson(camera.dust)), 0.9, (0.006, 0.022), (0.08, 0.3))
    ]


def soften(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur whose cost does not grow with ``sigma`` (wide blurs work on a reduced image).

    Args:
        image: float32, (h, w) or (h, w, c).
        sigma: standard deviation in pixels.
    """
    if sigma < 0.25:
        return image
    factor = int(sigma // 2.0)
    if factor < 2:
        return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    height, width = image.shape[:2]
    small = cv2.resize(
        image, (max(2, width // factor), max(2, height // factor)), interpolation=cv2.INTER_AREA
    )
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def spot_map(x: np.ndarray, y: np.ndarray, spots: list[tuple[float, float, float, float]]) -> np.ndarray:
    """Returns the sum of Gaussian spots on a grid (units of the field's radius), float32."""
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for sx, sy, radius, strength, *_ in spots:
        total += strength * np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / (2 * (0.6 * radius) ** 2))
    return total


def add_disc(
    image: np.ndarray,
    centre: tuple[float, float],
    radius: float,
    colour: np.ndarray,
    alpha: float,
    edge: float,
) -> None:
    """Blends a soft-edged disc into ``image`` (float32, h, w, 3) in place, touching only its surroundings.

    Args:
        centre: x, y in pixels.
        radius, edge: radius and width of the soft edge, pixels.
        colour: RGB, 0 to 1.
        alpha: opacity in the middle.
    """
    size = image.shape[0]
    reach = radius + 2 * edge + 1
    x0, x1 = max(0, int(centre[0] - reach)), min(size, int(centre[0] + reach) + 2)
    y0, y1 = max(0, int(centre[1] - reach)), min(size, int(centre[1] + reach) + 2)
    if x0 >= x1 or y0 >= y1:
        return
    gx = np.arange(x0, x1, dtype=np.float32) + 0.5 - centre[0]
    gy = np.arange(y0, y1, dtype=np.float32) + 0.5 - centre[1]
    away = np.sqrt(gx[None, :] ** 2 + gy[:, None] ** 2)
    weight = (alpha * np.clip((radius - away) / max(edge, 0.5) + 0.5, 0, 1)).astype(np.float32)[..., None]
    part = image[y0:y1, x0:x1]
    part += weight * (np.asarray(colour, np.float32) - part)


def fov_alpha(camera: Camera, size: int, half: float, centre: np.ndarray, radius: float) -> np.ndarray:
    """Returns the field of view as coverage 0 to 1, float32 (size, size), with the camera's notch.

    Args:
        camera: the camera (its cut and notch).
        size: side of the image in pixels.
        half: half of the image's side in DD.
        centre, radius: the illuminated circle in DD, origin in the image's centre.
    """
    scale = size / (2 * half)
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / scale - half).astype(np.float32)
    dx, dy = axis[None, :] - np.float32(centre[0]), axis[:, None] - np.float32(centre[1])
    away = np.sqrt(dx * dx + dy * dy)
    alpha = np.clip((radius - away) * scale + 0.5, 0, 1)
    if camera.notch:
        turn = -0.78
        tangent = -math.sin(turn) * dx + math.cos(turn) * dy
        outward = math.cos(turn) * dx + math.sin(turn) * dy - radius
        width = 0.05 * radius
        if camera.notch == "triangle":
            shape = np.minimum(width - outward, 1.6 * width - np.abs(tangent) - 0.6 * outward)
        elif camera.notch == "square":
            shape = np.minimum(width - outward, width - np.abs(tangent))
        else:
            shape = width - np.sqrt(tangent**2 + (outward - 0.1 * width) ** 2)
        shape = np.where(outward > -0.1 * radius, shape, -1.0)
        alpha = np.maximum(alpha, np.clip(shape * scale + 0.5, 0, 1))
    if camera.cut < 1.0:
        alpha = alpha * np.clip((camera.cut * radius - np.abs(dy)) * scale * 0.5 + 0.5, 0, 1)
    return np.ascontiguousarray(alpha, dtype=np.float32)
