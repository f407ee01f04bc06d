"""From geometry to pixels: one photograph and its masks.

Light that passes blood or pigment is attenuated (Beer-Lambert, one exponent a channel), so vessels,
haemorrhages and microaneurysms take the right dark red on any background; exudates, scars and the disc are
blended in as reflecting layers. Geometry is drawn on a grid of 2 to 4 times the resolution and averaged down;
smooth layers are computed on coarser grids. Cost is linear in the number of pixels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from . import planning
from .amd import paint_amd, sample_amd
from .anatomy import ARTERY, STEP, Eye, Vessel, make_eye
from .camera import CAMERAS, Camera, Capture, add_disc, draw_capture, draw_dust, fov_alpha, soften, spot_map
from .grading import (
    AMD_CODES,
    ANATOMY_CODES,
    LESION_CODES,
    QUADRANTS,
    amd_grade_from_lesions,
    grade_from_lesions,
)
from .lesions import Lesion, sample_lesions
from .painting import (
    BLOOD,
    BLOOD_ARTERY,
    CHOROID,
    MASK_COVERAGE,
    MELANIN,
    SOFT_OPACITY,
    Painter,
    blend,
    covered,
    grid,
    mask_of,
    net,
    noise,
    tessellation,
)
from .planning import PhantomConfig

BEAD_SPACING = 0.15
"""Distance from bead to bead of a beaded vein, DD."""

LESION_COLUMNS = ("code", "kind", "quadrant", "x", "y", "radius_dd", "strength")


@dataclass
class Phantom:
    """One photograph with everything that is known about it.

    Attributes:
        image: uint8 (size, size, 3), RGB.
        masks: one bool (size, size) for each of LESION_CODES and ANATOMY_CODES, with AMD also for each of AMD_CODES; all
            False where there is none. VESSEL holds the normal vessels and beaded veins, not NV or IRMA. Lesions and anatomy lie
            within FOV.
        lesions: one row per lesion: ``code``, ``kind``, ``quadrant`` (ST, SN, IT, IN), ``x``, ``y`` (pixels,
            centre), ``radius_dd`` (DD), ``strength`` (opacity before the camera, 0 to 1).
        grade: the International Clinical DR grade that follows from the lesions, 0 to 4.
        label: the recorded grade (differs from ``grade`` only under label noise).
        gradable: False for a photograph that is too poor.
        disc_diameter_px: vertical disc diameter, about 1 DD, in pixels.
        image_id, patient_id, eye, camera: as in the plan.
        disc_xy, fovea_xy: centres in pixels; they may lie outside the picture.
        amd_grade: the grade of AMD that follows from the lesions, 0 to 3; None in a study without AMD.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]
    lesions: pd.DataFrame
    grade: int
    label: int
    gradable: bool
    disc_diameter_px: float
    image_id: str
    patient_id: str
    eye: str
    camera: str
    disc_xy: tuple[float, float]
    fovea_xy: tuple[float, float]
    amd_grade: int | None = None


def _thickness(radius: np.ndarray, scale: float) -> np.ndarray:
    """Returns the drawn thickness in fine pixels (integer, at least 1) of radii in DD."""
    return np.maximum(1, np.round(2 * radius * scale)).astype(int)


def _runs(thick: np.ndarray, ends: np.ndarray) -> list[tuple[int, int, int]]:
    """Splits curves, joined end to end, into stretches of equal thickness.

    Args:
        thick: thickness of every point.
        ends: for each curve, the index after its last point.

    Returns:
        (first, last, thickness) for each stretch; last is included and shared with the next stretch.
    """
    cuts = np.union1d(np.flatnonzero(np.diff(thick)) + 1, ends[:-1])
    starts = np.concatenate([[0], cuts]).astype(int)
    stops = np.concatenate([cuts, [ends[-1] - 1]]).astype(int)
    final = np.isin(stops, ends[:-1])  # a curve does not run on into the next one
    stops = stops - final
    widths = thick[starts]
    keep = stops > starts
    return list(zip(starts[keep].tolist(), stops[keep].tolist(), widths[keep].tolist(), strict=True))


def _bead(bead: Lesion) -> tuple[np.ndarray, np.ndarray]:
    """Returns centre line and radius of a beaded stretch of a vein, finely sampled."""
    stretch = slice(bead.first, bead.last + 1)
    points, radius = bead.vessel.points[stretch], bead.vessel.radius[stretch]
    whole = np.arange(len(points))
    at = np.linspace(0, len(points) - 1, 4 * (len(points) - 1) + 1)
    wave = 1.06 + bead.amplitude * np.sin(2 * np.pi * at * STEP / BEAD_SPACING + bead.phase)
    fine = np.column_stack([np.interp(at, whole, points[:, 0]), np.interp(at, whole, points[:, 1])])
    return fine, np.interp(at, whole, radius) * wave


def _pieces(vessel: Vessel, beads: list[Lesion]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns centre lines and radii that make up a vessel: itself, or its beaded and plain stretches."""
    own = sorted((bead for bead in beads if bead.vessel is vessel), key=lambda bead: bead.first)
    pieces, start = [], 0
    for bead in own:
        if bead.first > start:
            pieces.append((vessel.points[start : bead.first + 1], vessel.radius[start : bead.first + 1]))
        pieces.append(_bead(bead))
        start = bead.last
    if start < len(vessel.points) - 1:
        pieces.append((vessel.points[start:], vessel.radius[start:]))
    return pieces


def paint_vessels(
    painter: Painter, eye: Eye, beads: list[Lesion]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws the vessel tree.

    Returns:
        Optical density of the arteries and of the veins, light reflex (all float32, 0 to about 1), coverage
        (0 to 1).
    """
    fine = painter.scale * painter.ss
    out = {}
    outline = painter.canvas()
    reflex = painter.canvas()
    for kind in (0, 1):
        groups: dict[int, list[np.ndarray]] = {}
        pieces = [piece for vessel in eye.vessels if vessel.kind == kind for piece in _pieces(vessel, beads)]
        if pieces:
            fixed = painter.fixed(np.concatenate([points for points, _ in pieces]))
            ends = np.cumsum([len(points) for points, _ in pieces])
            thick = _thickness(np.concatenate([radius for _, radius in pieces]), fine)
            for first, last, width in _runs(thick, ends):
                groups.setdefault(width, []).append(fixed[first : last + 1])
        canvas = painter.canvas()
        for share, level in ((1.0, 0.55), (0.74, 0.84), (0.44, 1.0)):
            for thick in sorted(groups):
                if share < 1.0 and thick < 3:
                    continue
                dense = min(1.0, 0.42 + 0.58 * thick / (0.075 * fine))
                level_here = level if thick >= 3 else 0.8
                cv2.polylines(
                    canvas,
                    groups[thick],
                    False,
                    int(255 * dense * level_here),
                    max(1, round(thick * share)),
                    cv2.LINE_8,
                    4,
                )
                if share == 1.0:
                    cv2.polylines(outline, groups[thick], False, 255, thick, cv2.LINE_8, 4)
                elif share < 0.5 and thick >= 0.035 * fine:
                    cv2.polylines(
                        reflex,
                        groups[thick],
                        False,
                        255 if kind == ARTERY else 90,
                        max(1, round(0.24 * thick)),
                        cv2.LINE_8,
                        4,
                    )
        out[kind] = painter.down(canvas)
    return out[0], out[1], painter.down(reflex), painter.down(outline)


@dataclass
class _Look:
    """What the two eyes of a patient share in colour and texture."""

    pigment: float
    tessellated: float
    youth: float
    macula: float
    disc_pallor: float
    crescent: float
    vessels: float


def _draw_look(rng: np.random.Generator) -> _Look:
    return _Look(
        pigment=float(rng.beta(1.6, 1.8)),
        tessellated=float(np.clip(rng.gamma(1.1, 0.30), 0, 0.9)),
        youth=float(np.clip(rng.normal(0.25, 0.3), 0, 1)),
        macula=float(np.clip(rng.lognormal(-0.05, 0.42), 0.4, 2.2)),
        disc_pallor=float(rng.uniform(0, 1)),
        crescent=float(max(0.0, rng.normal(-0.1, 0.5))),
        vessels=float(rng.uniform(0.58, 1.0)),
    )


def _ellipse(
    eye: Eye, grow: float, x: np.ndarray, y: np.ndarray, shift: tuple[float, float] = (0, 0)
) -> np.ndarray:
    """Returns the signed distance (DD, about) to the disc's outline scaled by ``grow``; positive inside."""
    turn = math.radians(eye.disc_angle)
    dx, dy = x - np.float32(eye.disc[0] + shift[0]), y - np.float32(eye.disc[1] + shift[1])
    u, v = math.cos(turn) * dx + math.sin(turn) * dy, -math.sin(turn) * dx + math.cos(turn) * dy
    a, b = eye.disc_axes[0] * grow, eye.disc_axes[1] * grow
    return ((1 - np.sqrt((u / a) ** 2 + (v / b) ** 2)) * min(a, b)).astype(np.float32)


def _background(
    config: PhantomConfig, key: tuple[int, int], eye: Eye, look: _Look, camera: Camera, capture: Capture
) -> np.ndarray:
    """Returns the fundus without disc, vessels and lesions, float32 (size, size, 3), about 0 to 1."""
    rng = planning.stream(config, planning.STREAM_TEXTURE, *key)
    size = config.size
    low = max(48, size // 4)
    x, y = grid(low, eye.half)
    light, dark = np.array([0.90, 0.53, 0.33]), np.array([0.56, 0.31, 0.155])
    base = (light * (1 - look.pigment) + dark * look.pigment).astype(np.float32)
    base = base * np.asarray(camera.gain, np.float32) * capture.warmth.astype(np.float32)
    melanin = 0.13 * noise(rng, 4, low) + 0.04 * noise(rng, 12, low) + 0.025 * noise(rng, 40, low)
    fx, fy = x - np.float32(eye.fovea[0]), y - np.float32(eye.fovea[1])
    r2 = fx * fx + fy * fy
    depth = np.float32(look.macula)
    melanin = melanin + depth * (0.40 * np.exp(-r2 / 1.0) + 0.26 * np.exp(-r2 / 0.06))
    dx, dy = x - np.float32(eye.disc[0]), y - np.float32(eye.disc[1])
    d2 = dx * dx + dy * dy
    melanin = melanin - 0.20 * np.exp(-d2 / 1.6) - np.float32(0.05)
    if look.crescent > 0.05:
        side = np.float32(-eye.nasal)
        edge = _ellipse(eye, 1.06, x, y, (0.085 * float(side), 0))
        ring = np.clip(edge / 0.05 + 0.5, 0, 1)
        sign = 1.2 if look.pigment > 0.55 and look.crescent < 0.5 else -0.9
        melanin = melanin + ring * np.float32(min(0.4, look.crescent)) * sign
    xanth = depth * np.exp(-r2 / 0.18)
    layers = [base[c] * np.exp(-(melanin * MELANIN[c] + xanth * (0.0, 0.05, 0.28)[c])) for c in range(3)]
    image = cv2.resize(
        cv2.merge([np.ascontiguousarray(layer, np.float32) for layer in layers]),
        (size, size),
        interpolation=cv2.INTER_CUBIC,
    )

    middle = max(64, size // 2)
    grain = 0.035 * noise(rng, 128, middle) + 0.03 * noise(rng, 70, middle)
    bands = tessellation(rng, eye, middle)
    mx, my = grid(middle, eye.half)
    far = 1 - 0.8 * np.exp(
        -((mx - np.float32(eye.fovea[0])) ** 2 + (my - np.float32(eye.fovea[1])) ** 2) / 1.6
    )
    patchy = np.clip(
        0.75 + 0.45 * cv2.resize(noise(rng, 5, 48), (middle, middle), interpolation=cv2.INTER_LINEAR),
        0.1,
        1.6,
    )
    bands = np.float32(0.34 * (0.10 + look.tessellated)) * bands * far * patchy
    if look.youth > 0.1:  # nerve-fibre sheen: fine bright striae running out of the disc
        angle = np.arctan2(my - np.float32(eye.disc[1]), mx - np.float32(eye.disc[0]))
        away = np.sqrt((mx - np.float32(eye.disc[0])) ** 2 + (my - np.float32(eye.disc[1])) ** 2)
        line = rng.standard_normal(256).astype(np.float32)
        line = np.convolve(np.tile(line, 3), np.ones(3) / 2, "same")[256:512].astype(np.float32)
        striae = line[((angle / (2 * np.pi) + 0.5) * 256).astype(int) % 256]
        reach = np.exp(-((away - 1.0) ** 2) / 0.9) * (np.abs(np.sin(angle)) * 0.8 + 0.2)
        grain = grain - np.float32(0.24 * look.youth) * reach * (1 + 0.45 * striae)
    texture = cv2.merge(
        [np.ascontiguousarray(grain * MELANIN[c] - bands * CHOROID[c], np.float32) for c in range(3)]
    )
    texture = cv2.resize(texture, (size, size), interpolation=cv2.INTER_LINEAR)
    texture += (np.float32(0.022) * noise(rng, 320, size, cubic=False))[..., None] * MELANIN
    return image * cv2.exp(-texture)


def _shade(eye: Eye, camera: Camera, capture: Capture, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns illumination (size, size, 1) and veil (size, size, 3): the picture becomes ``image * light +
    veil``."""
    low = max(48, size // 4)
    x, y = grid(low, eye.half / eye.fov_radius)
    x = x - np.float32(eye.fov_centre[0] / eye.fov_radius)
    y = y - np.float32(eye.fov_centre[1] / eye.fov_radius)
    r2 = x * x + y * y
    light = 1 - camera.vignette * np.clip(r2, 0, 1.4) ** 1.6
    light = light * np.exp(capture.tilt[0] * x + capture.tilt[1] * y)
    light = light * np.clip(1 - spot_map(x, y, capture.shadows), 0.03, 1) * capture.exposure
    veil = capture.veil + spot_map(x, y, capture.haze)
    glow = camera.rim * np.clip((np.sqrt(r2) - 0.76) / 0.26, 0, 1.1) ** 2
    if capture.crescent:
        turn, strength = capture.crescent
        lean = x * math.cos(turn) + y * math.sin(turn)
        glow = glow + strength * np.clip((lean - 0.45) / 0.55, 0, 1) ** 2
    veil = np.clip(veil, 0, 0.9).astype(np.float32)
    rim = np.asarray(camera.rim_colour, np.float32)
    light_low = np.ascontiguousarray(light * (1 - veil) * (1 - 0.6 * np.clip(glow, 0, 1)), dtype=np.float32)
    strength = float(min(capture.exposure, 1.5)) * np.clip(light / capture.exposure, 0.0, 1.2)
    colour = [
        np.ascontiguousarray(
            veil * strength * capture.veil_colour[c] * 0.8
            + 0.75 * glow * rim[c] * min(capture.exposure, 1.2),
            np.float32,
        )
        for c in range(3)
    ]
    full = (size, size)
    return (
        cv2.resize(light_low, full, interpolation=cv2.INTER_CUBIC)[..., None],
        cv2.resize(cv2.merge(colour), full, interpolation=cv2.INTER_CUBIC),
    )


def _paint(
    config: PhantomConfig,
    key: tuple[int, int],
    eye: Eye,
    lesions: list[Lesion],
    camera: Camera,
    gradable: bool,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Paints the photograph and its masks."""
    size = config.size
    look = _draw_look(planning.stream(config, planning.STREAM_LOOK, key[0], 1))
    capture = draw_capture(
        planning.stream(config, planning.STREAM_CAPTURE, *key), camera, config.hardness, gradable
    )
    painter = Painter(size, eye.half)
    scale = painter.scale
    by_code: dict[str, list[Lesion]] = {
        code: [one for one in lesions if one.code == code] for code in LESION_CODES
    }
    masks: dict[str, np.ndarray] = {}
    gain = np.asarray(camera.gain, np.float32) * capture.warmth.astype(np.float32)

    image = _background(config, key, eye, look, camera, capture)
    if config.amd is not None:
        masks |= paint_amd(config, key, image, painter, eye, lesions, gain)
    elif by_code["DRUSEN"]:
        opacity, masks["DRUSEN"], _ = covered(painter, by_code["DRUSEN"])
        blend(image, 0.55 * soften(opacity, 0.008 * scale), np.array([0.98, 0.80, 0.45]) * gain)
    if by_code["LASER"]:
        groups = [
            [one for one in by_code["LASER"] if one.kind == kind] for kind in ("pale", "focal", "pigmented")
        ]
        masks["LASER"] = np.zeros((size, size), bool)
        for kind, group in zip(("pale", "focal", "pigmented"), groups, strict=True):
            if not group:
                continue
            opacity, mask, _ = covered(painter, group)
            masks["LASER"] |= mask
            opacity = soften(opacity, 0.014 * scale)
            core = soften(opacity, 0.045 * scale)
            if kind == "pigmented":
                blend(image, 0.40 * opacity, np.array([0.78, 0.66, 0.46]) * gain)
                blend(
                    image, np.clip(1.3 * core - 0.15, 0, 0.8) * opacity, np.array([0.17, 0.15, 0.15]) * gain
                )
            else:
                blend(image, 0.62 * opacity, np.array([0.88, 0.76, 0.52]) * gain)
                ring = np.clip(opacity - core, 0, 1)
                image *= np.exp(-0.9 * ring)[..., None]

    x, y = grid(size, eye.half)
    disc_edge = _ellipse(eye, 1.0, x, y)
    soft = 0.035
    disc = np.clip(disc_edge / soft + 0.5, 0, 1)
    masks["DISC"] = disc_edge >= 0
    rim_colour = (
        np.array([1.06, 0.71, 0.40]) * (1 - look.disc_pallor)
        + np.array([1.08, 0.86, 0.58]) * look.disc_pallor
    )
    brightness = 1.0 - 0.12 * look.pigment
    blend(image, 0.96 * disc, rim_colour * brightness * gain)
    cup_edge = _ellipse(eye, max(eye.cup, 0.1), x, y, tuple(eye.cup_centre - eye.disc))
    blend(
        image,
        0.8 * np.clip(cup_edge / 0.15 + 0.5, 0, 1) * disc,
        np.array([1.32, 1.18, 0.86]) * brightness * gain,
    )

    artery, vein, reflex, cover = paint_vessels(painter, eye, by_code["VB"])
    masks["VESSEL"] = cover >= MASK_COVERAGE
    if by_code["EX"]:
        opacity, masks["EX"], _ = covered(painter, by_code["EX"])
        blend(
            image,
            0.92 * soften(opacity, 0.004 * scale) * (1 - 0.6 * vein),
            np.array([1.04, 0.92, 0.55]) * gain,
        )
    thick = np.float32(look.vessels)
    density = [thick * (0.62 * BLOOD_ARTERY[c] * artery + 0.82 * BLOOD[c] * vein) for c in range(3)]
    for code in ("HE", "MA"):
        if by_code[code]:
            opacity, masks[code], _ = covered(painter, by_code[code])
            opacity = soften(opacity, (0.016 if code == "HE" else 0.005) * scale)
            if code == "HE":  # clots are denser in places
                clot = noise(planning.stream(config, planning.STREAM_TEXTURE, *key, 1), 90, size, cubic=False)
                opacity = opacity * np.clip(0.88 + 0.22 * clot, 0.45, 1.25)
            for c in range(3):
                density[c] = density[c] + (0.95 if code == "HE" else 1.0) * BLOOD[c] * opacity
    if by_code["IRMA"]:
        strands, patch, masks["IRMA"] = net(painter, by_code["IRMA"])
        for c in range(3):
            density[c] = density[c] + BLOOD[c] * (0.66 * strands + 0.05 * patch)
    image *= cv2.exp(-cv2.merge([np.ascontiguousarray(d, np.float32) for d in density]))
    image += (0.075 * reflex)[..., None] * np.array([1.0, 0.72, 0.5], np.float32) * gain
    if by_code["SE"]:
        opacity, _, full = covered(painter, by_code["SE"])
        full = soften(full, 0.03 * scale)
        masks["SE"] = mask_of(painter, full, by_code["SE"], SOFT_OPACITY)
        blend(image, 0.85 * soften(opacity, 0.03 * scale), np.array([1.0, 0.93, 0.72]) * brightness * gain)
    if by_code["NV"]:
        strands, patch, masks["NV"] = net(painter, by_code["NV"])
        for one in by_code["NV"]:
            if one.fibrosis > 0:
                cover = net(painter, [one])[1]
                sheet = one.fibrosis * cover * soften(cover, 0.07 * scale)
                blend(image, soften(sheet, 0.02 * scale), np.array([0.92, 0.86, 0.74]) * brightness * gain)
        wash = soften(patch, 0.03 * scale)
        red = 0.80 * strands + 0.08 * wash
        image *= cv2.exp(-cv2.merge([np.ascontiguousarray(BLOOD[c] * red, np.float32) for c in range(3)]))
    if by_code["PRH"]:
        opacity, masks["PRH"], _ = covered(painter, by_code["PRH"])
        opacity = soften(opacity, 0.012 * scale)
        blend(image, 0.93 * opacity, np.array([0.42, 0.075, 0.06]) * (1.1 - 0.35 * look.pigment) * gain)
        clot = noise(planning.stream(config, planning.STREAM_TEXTURE, *key, 2), 24, size)
        image *= cv2.exp(-0.22 * opacity * clot)[..., None]
    if by_code["VB"]:
        canvas = painter.canvas()
        for one in by_code["VB"]:
            points, radius = _bead(one)
            fixed = painter.fixed(points)
            for first, last, width in _runs(_thickness(radius, scale * painter.ss), np.array([len(radius)])):
                cv2.polylines(canvas, [fixed[first : last + 1]], False, 255, width, cv2.LINE_8, 4)
        masks["VB"] = painter.down(canvas) >= MASK_COVERAGE
        for one in by_code["VB"]:  # veins below a pixel: the pixels of the centre line
            for point in one.vessel.points[one.first : one.last + 1]:
                masks["VB"][painter.pixel(*point)] = True

    # the eye's own look-alikes: small pigment spots
    rng = planning.stream(config, planning.STREAM_DUST, *key)
    for _ in range(int(rng.poisson(0.3 + 1.8 * config.hardness))):
        at = rng.uniform(-0.85, 0.85, 2) * eye.fov_radius + eye.fov_centre
        level, radius = rng.uniform(0.25, 0.6), rng.uniform(0.012, 0.04)
        colour = image[painter.pixel(*at)] * np.array([0.62, 0.55, 0.55])
        add_disc(image, tuple((at + eye.half) * scale), radius * scale, colour, level, 0.02 * scale)

    light, veil = _shade(eye, camera, capture, size)
    image *= light
    image += veil
    reach = eye.fov_radius * scale
    origin = (eye.fov_centre + eye.half) * scale
    for gx, gy, radius, strength, hue in capture.glare:
        colour = ((0.95, 0.92, 0.85), (0.70, 0.80, 0.98), (0.95, 0.85, 0.60))[hue]
        add_disc(
            image,
            (origin[0] + gx * reach, origin[1] + gy * reach),
            radius * reach,
            np.array(colour),
            strength,
            0.5 * radius * reach,
        )
    image = soften(image, capture.blur * scale)
    for gx, gy, radius, strength, dark in draw_dust(
        planning.stream(config, planning.STREAM_DUST, 10**6 + CAMERAS.index(camera)), camera
    ):
        strength = strength * (0.4 + 1.2 * config.hardness)
        place = (origin[0] + gx * reach, origin[1] + gy * reach)
        row, column = (min(size - 1, max(0, int(v))) for v in (place[1], place[0]))
        colour = image[row, column] * (0.45 if dark else 1.5) + (0 if dark else 0.08)
        add_disc(image, place, radius * reach, colour, strength, 0.6 * radius * reach)

    field = fov_alpha(camera, size, eye.half, eye.fov_centre, eye.fov_radius)
    masks["FOV"] = field >= 0.5
    np.clip(image, 0.0, 1.6, out=image)
    image = image / (1 + np.maximum(image - 0.8, 0) * 0.6)  # highlights roll off
    if camera.gamma != 1.0:
        image = cv2.pow(image, camera.gamma)
    image *= field[..., None]
    noise_rng = planning.stream(config, planning.STREAM_NOISE, *key)
    grey = noise_rng.standard_normal((size, size), dtype=np.float32)
    half = (size + 1) // 2
    chroma = cv2.resize(
        noise_rng.standard_normal((half, half, 3), dtype=np.float32),
        (size, size),
        interpolation=cv2.INTER_LINEAR,
    )
    level = np.float32(capture.noise / 255) * (0.35 + 0.65 * field)
    image += (level * grey)[..., None] + np.float32(0.7) * level[..., None] * chroma
    image += np.float32(camera.border / 255) * (1 - field)[..., None]
    out = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)

    fx, fy = x - np.float32(eye.fovea[0]), y - np.float32(eye.fovea[1])
    masks["FOVEA"] = fx * fx + fy * fy < 0.25
    empty = np.zeros((size, size), bool)
    inside = masks["FOV"]
    complete = {}
    for code in (*LESION_CODES, *(AMD_CODES if config.amd is not None else ()), *ANATOMY_CODES):
        complete[code] = masks[code] & inside if code in masks else empty.copy()
    return out, complete


@functools.lru_cache(maxsize=8)
def _plan_of(config: PhantomConfig, patient: int) -> tuple[dict[str, Any], ...]:
    return tuple(planning.plan_patient(config, patient))


def _scene(config: PhantomConfig, index: int) -> tuple[dict[str, Any], Eye, list[Lesion], Camera]:
    """Returns the plan row, geometry, lesions and camera of an eye: everything but the pixels."""
    patient, side = divmod(index, 2)
    row = _plan_of(config, patient)[side]
    camera = next(one for one in CAMERAS if one.name == row["camera"])
    eye = make_eye(
        planning.stream(config, planning.STREAM_ANATOMY, patient, side),
        planning.stream(config, planning.STREAM_LOOK, patient, 0),
        camera,
        row["eye"],
    )
    seeds = np.random.SeedSequence(config.seed, spawn_key=(planning.STREAM_LESIONS, patient, side))
    lesions = sample_lesions(seeds, eye, row["grade"], row["treated"], config.hardness)
    if config.amd is not None:
        # drusen are a sign here and not a look-alike: they come with the grade of AMD only
        lesions = [one for one in lesions if one.code != "DRUSEN"]
        own = np.random.SeedSequence(config.seed, spawn_key=(planning.STREAM_AMD, patient, side))
        lesions += sample_amd(own, eye, row["amd_grade"], row["atrophy"], config.hardness, lesions)
    return row, eye, lesions, camera


def render(config: PhantomConfig, image: int | str, *, without: tuple[str, ...] = ()) -> Phantom:
    """Renders one eye. Depends on nothing but the configuration and the eye: any order, any process, same
    bytes.

    Args:
        config: the configuration.
        image: the eye's number in the plan, 0 to 2 * n_patients - 1, or its ``image_id``.
        without: lesion codes to leave out, everything else being equal (a counterfactual photograph). The
            grade is then the grade of the lesions that remain.

    Returns:
        The photograph, its masks, lesions and grade.

    Raises:
        KeyError: there is no such eye.
        ValueError: ``without`` holds an unknown code.
    """
    known = LESION_CODES if config.amd is None else (*LESION_CODES, *AMD_CODES)
    if unknown := set(without) - set(known):
        raise ValueError(f"unknown lesion code {sorted(unknown)}: use codes from {', '.join(known)}")
    index = planning.index_of(config, image)
    row, eye, lesions, camera = _scene(config, index)
    lesions = [one for one in lesions if one.code not in without]
    pixels, masks = _paint(config, (index // 2, index % 2), eye, lesions, camera, row["gradable"])
    scale = config.size / (2 * eye.half)
    table = pd.DataFrame(
        [
            (
                one.code,
                one.kind,
                one.quadrant,
                (one.x + eye.half) * scale,
                (one.y + eye.half) * scale,
                one.radius,
                one.strength,
            )
            for one in lesions
        ],
        columns=list(LESION_COLUMNS),
    )
    grade = grade_from_lesions(lesions)
    centre = [tuple(float(v) for v in (point + eye.half) * scale) for point in (eye.disc, eye.fovea)]
    return Phantom(
        image=pixels,
        masks=masks,
        lesions=table,
        grade=grade,
        label=row["label"] if not without else grade,
        gradable=row["gradable"],
        disc_diameter_px=float(2 * eye.disc_axes[1] * scale),
        image_id=row["image_id"],
        patient_id=row["patient_id"],
        eye=row["eye"],
        camera=row["camera"],
        disc_xy=centre[0],
        fovea_xy=centre[1],
        amd_grade=None if config.amd is None else amd_grade_from_lesions(lesions),
    )


__all__ = ["QUADRANTS", "Phantom", "render"]
