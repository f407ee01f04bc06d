"""Where things are in one eye: field of view, disc, fovea, quadrants and the vessel tree.

All lengths are in disc diameters (DD, about 1.5 mm). Two frames are used. In the *anatomy frame* every eye is
a right
eye: the disc is at the origin, x points nasally, y points down. In the *field frame* the origin is the centre
of the photograph, x points right and y down, as in the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .camera import Camera

STEP = 0.07
"""Distance between two points of a vessel's centre line, DD."""

ARTERY, VEIN = 0, 1


@dataclass
class Vessel:
    """One unbranched vessel: centre line (n, 2) in DD, radius (n,) in DD, kind (ARTERY or VEIN), branching
    depth."""

    points: np.ndarray
    radius: np.ndarray
    kind: int
    depth: int


@dataclass
class Eye:
    """The geometry of one photographed eye, in the field frame (DD); independent of the image size.

    Attributes:
        half: half of the image's side, DD.
        fov_centre, fov_radius: the illuminated circle.
        fov_cut: half height of the horizontal band to which a camera may cut the circle.
        disc, disc_axes, disc_angle: centre, half axes (DD) and rotation (degrees) of the optic disc.
        cup, cup_centre: cup-to-disc ratio and centre of the cup.
        fovea: centre of the fovea.
        nasal: +1 where nasal is to the right of the picture (right eyes), else -1.
        vessels: the retinal vessels, mother vessels first.
    """

    half: float
    fov_centre: np.ndarray
    fov_radius: float
    fov_cut: float
    disc: np.ndarray
    disc_axes: tuple[float, float]
    disc_angle: float
    cup: float
    cup_centre: np.ndarray
    fovea: np.ndarray
    nasal: int
    vessels: list[Vessel] = field(default_factory=list)

    def inside(self, points: np.ndarray, margin: float | np.ndarray = 0.0) -> np.ndarray:
        """Returns which points (..., 2) lie in the field of view, at least ``margin`` DD from its edge."""
        points = np.asarray(points, float)
        away = points - self.fov_centre
        return (
            (np.hypot(away[..., 0], away[..., 1]) < self.fov_radius - margin)
            & (np.abs(away[..., 1]) < self.fov_cut - margin)
            & (np.abs(points).max(-1) < self.half - margin)
        )

    def quadrant(self, point: np.ndarray) -> str:
        """Returns the quadrant of a point: ``ST``, ``SN``, ``IT`` or ``IN``.

        The quadrants meet half way between disc and fovea, the centre of a standard 45 degree field, and
        their axes follow the line from the disc to the fovea (a choice of this study: one field, not seven).
        """
        axis = self.fovea - self.disc
        axis = axis / np.hypot(*axis)
        away = np.asarray(point) - 0.5 * (self.disc + self.fovea)
        temporal = away @ axis > 0
        up = np.array([axis[1], -axis[0]]) * (
            1 if axis[0] > 0 else -1
        )  # perpendicular, pointing up the picture
        return ("S" if away @ up > 0 else "I") + ("T" if temporal else "N")

    def fibre_direction(self, point: np.ndarray) -> np.ndarray:
        """Returns the unit direction of the nerve fibres at a point: out of the disc and round the fovea."""
        a, b = np.asarray(point) - self.disc, np.asarray(point) - self.fovea
        flow = a / (a @ a + 0.05) + 0.55 * b / (b @ b + 0.05)
        return flow / (np.hypot(*flow) + 1e-9)


def _curve(knots: np.ndarray) -> np.ndarray:
    """Returns a Catmull-Rom curve through knots (k, 2), resampled every ``STEP`` DD."""
    ends = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    parts = []
    for p0, p1, p2, p3 in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        parts.append(
            0.5
            * (
                2 * p1
                + (p2 - p0) * t
                + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                + (3 * p1 - p0 - 3 * p2 + p3) * t**3
            )
        )
    fine = np.vstack([*parts, knots[-1:]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(fine, axis=0).T))])
    at = np.arange(0.0, along[-1], STEP)
    return np.column_stack([np.interp(at, along, fine[:, 0]), np.interp(at, along, fine[:, 1])])


def _wiggle(rng: np.random.Generator, points: np.ndarray, amount: float) -> np.ndarray:
    """Moves a curve sideways by smooth noise: the tortuosity of a vessel."""
    at = np.arange(len(points)) * STEP
    waves = rng.uniform(0.45, 1.9, 5)
    shift = (
        np.sin(2 * np.pi * at[:, None] / waves + rng.uniform(0, 6.3, 5)) * waves**1.2 * rng.normal(0, 1, 5)
    ).sum(1)
    along = np.gradient(points, axis=0)
    along /= np.hypot(*along.T)[:, None] + 1e-9
    grow = np.clip(at / 0.8, 0, 1)
    return points + (amount * shift * grow)[:, None] * np.column_stack([-along[:, 1], along[:, 0]])


_ARCADE = np.array(
    [(0.03, -0.02), (0.0, -0.42), (-0.38, -1.08), (-1.3, -1.78), (-2.7, -2.0), (-4.1, -1.55), (-5.6, -0.7)]
)
_NASAL = np.array([(0.05, -0.03), (0.2, -0.42), (0.72, -1.15), (1.55, -2.0), (2.7, -3.0), (4.2, -4.3)])
_SIDE = np.array([(0.06, -0.02), (0.55, -0.12), (1.4, -0.25), (2.6, -0.55), (4.0, -0.9)])
_MACULAR = np.array([(-0.02, -0.08), (-0.5, -0.26), (-1.05, -0.42), (-1.7, -0.3), (-2.1, -0.12)])


def _trunks(rng: np.random.Generator, fovea: np.ndarray, tortuosity: float) -> list[Vessel]:
    """Returns the vessels that leave the disc (anatomy frame)."""
    out = []
    spread = rng.normal(1.0, 0.11, 2)
    for kind in (ARTERY, VEIN):
        scale = (1.0 if kind == VEIN else 0.77) * rng.normal(1.0, 0.06)
        for name, knots, radius in (
            ("arcade", _ARCADE, 0.039),
            ("nasal", _NASAL, 0.029),
            ("side", _SIDE, 0.017),
            ("macular", _MACULAR, 0.011),
        ):
            for flip in (1.0, -1.0):
                if name in ("side", "macular") and rng.random() < 0.35:
                    continue
                path = knots * (1.0, flip)
                path[:, 1] *= spread[0 if flip > 0 else 1]
                far = np.clip(np.arange(len(path)) / 3.0, 0, 1)[:, None]
                sway = far * (rng.normal(0, 0.10, path.shape).cumsum(0) + rng.normal(0, 0.07, path.shape))
                side = (0.13 if kind == VEIN else -0.09) * rng.normal(1, 0.6)
                path = path + sway + far * np.array([0.0, -flip * side])
                path[0] += rng.normal(0, 0.03, 2)
                path[1] += rng.normal((0.05 if kind == ARTERY else -0.05, 0.0), (0.05, 0.03))
                path[2:, 1] += fovea[1] * np.clip(-path[2:, 0] / 2.5, 0, 1)  # arches round this fovea
                points = _wiggle(rng, _curve(path), 0.009 * tortuosity * (1.0 if kind == VEIN else 0.7))
                own = radius * scale * rng.normal(1, 0.1)
                taper = np.linspace(1.0, 0.42, len(points))
                out.append(Vessel(points, own * taper, kind, 0))
    return out


def _branches(
    rng: np.random.Generator,
    mothers: list[Vessel],
    fovea: np.ndarray,
    depth: int,
    spacing: float,
    tortuosity: float,
    taken: np.ndarray,
) -> list[Vessel]:
    """Grows one generation of branches; all branches of a generation are grown together, step by step.

    Vessels of one kind do not cross: a branch ends where it meets another of its kind.
    """
    starts, headings, radii, kinds, reaches = [], [], [], [], []
    for mother in mothers:
        length = len(mother.points) * STEP
        first = 0.6 if depth == 1 else 0.2
        at = first + np.cumsum(rng.uniform(0.5, 1.5, 40) * spacing)
        at = at[at < length - 0.1]
        side = 1 if rng.random() < 0.5 else -1
        major = depth == 1 and mother.radius[0] > 0.024  # the great vessels fork once near the disc
        for k, where in enumerate(at):
            i = int(where / STEP)
            if not 0 < i < len(mother.points) - 1:
                continue
            along = mother.points[i + 1] - mother.points[i - 1]
            to_fovea = fovea - mother.points[i]
            inner = 1 if along[0] * to_fovea[1] - along[1] * to_fovea[0] > 0 else -1
            side = -side if rng.random() < 0.8 else side
            ratio = rng.uniform(0.4, 0.72) if depth == 1 else rng.uniform(0.5, 0.8)
            angle = rng.uniform(0.5, 1.1)
            reach = rng.uniform(0.5, 1.25)
            if major and k == 0:
                side, ratio, angle, reach = -inner, rng.uniform(0.68, 0.85), rng.uniform(0.35, 0.7), 1.6
            elif side == inner and rng.random() < 0.3:
                continue
            starts.append(mother.points[i])
            headings.append(math.atan2(along[1], along[0]) + side * angle)
            radii.append(mother.radius[i] * ratio)
            kinds.append(mother.kind)
            reaches.append(reach)
    if not starts:
        return []
    place, heading, radius = np.array(starts), np.array(headings), np.maximum(np.array(radii), 0.0042)
    kind = np.array(kinds)
    count = len(place)
    reach = np.array(reaches) * np.clip(radius / 0.016, 0.25, 1.7) * 2.0
    steps = int(4.6 / STEP)
    to_fovea = fovea - place
    distance = np.hypot(*to_fovea.T)
    lean = np.cos(heading) * to_fovea[:, 0] + np.sin(heading) * to_fovea[:, 1]
    inward = (lean > 0.1 * distance) & (distance < 3.0)
    outward = place - np.array([fovea[0] * 0.45, fovea[1] * 0.5])
    path = np.empty((steps + 1, count, 2))
    path[0] = place
    turn = np.zeros(count)
    alive = np.full(count, steps)
    noise = rng.normal(0, 1, (steps, count)) * (0.055 * tortuosity * np.where(inward, 0.85, 1.0))
    own = np.arange(count) + 1 + 10_000 * depth
    live = np.arange(count)
    for step in range(steps):
        here = place[live]
        goal = np.where(inward[live, None], fovea - here, outward[live])
        swing = np.arctan2(goal[:, 1], goal[:, 0]) - heading[live]
        swing = (swing + np.pi) % (2 * np.pi) - np.pi
        turn[live] = 0.72 * turn[live] + noise[step, live]
        heading[live] += turn[live] + 0.055 * np.clip(swing, -1.0, 1.0)
        here = here + STEP * np.column_stack([np.cos(heading[live]), np.sin(heading[live])])
        place[live] = path[step + 1, live] = here
        row, column = _cell(here)
        found = taken[kind[live], row, column]
        meets = (found != 0) & (found != own[live]) & (step > 2)
        near = np.hypot(*(here - fovea).T) < 0.34
        home = (np.hypot(*here.T) < 0.6) & (step > 4)
        stop = meets | near | home | ((step + 1) * STEP > reach[live])
        alive[live[stop]] = step
        live, row, column = live[~stop], row[~stop], column[~stop]
        taken[kind[live], row, column] = own[live]
        if not len(live):
            break
    out = []
    for i in range(count):
        n = int(alive[i]) + 1
        if n >= 5:
            out.append(Vessel(path[:n, i], radius[i] * np.linspace(1.0, 0.5, n), kinds[i], depth))
    return out


_CELL, _REACH = 0.085, 7.0


def _cell(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns row and column of points in the grid that keeps vessels of one kind apart (anatomy frame)."""
    at = np.clip((points + _REACH) / _CELL, 0, 2 * _REACH / _CELL - 1).astype(int)
    return at[:, 1], at[:, 0]


def make_eye(rng: np.random.Generator, patient: np.random.Generator, camera: Camera, eye: str) -> Eye:
    """Builds the geometry of one eye as one camera frames it.

    Args:
        rng: the generator of this eye.
        patient: the generator of the patient, in the same state for both eyes: what the eyes share.
        camera: the camera.
        eye: ``left`` or ``right``.

    Returns:
        The geometry, in the field frame.
    """
    gap = patient.uniform(2.35, 2.7)
    sag = patient.uniform(0.12, 0.42)
    tortuosity = float(np.clip(patient.lognormal(0.0, 0.28), 0.5, 1.9))
    vertical = patient.uniform(0.49, 0.54)
    cup = float(np.clip(patient.normal(0.42, 0.13), 0.12, 0.75))
    density = patient.uniform(0.85, 1.2)

    fovea = np.array([-gap, sag + rng.normal(0, 0.05)])
    vessels = _trunks(rng, fovea, tortuosity)
    mothers = vessels
    taken = np.zeros((2, int(2 * _REACH / _CELL), int(2 * _REACH / _CELL)), np.int32)
    for number, vessel in enumerate(vessels):
        taken[(vessel.kind, *_cell(vessel.points))] = number + 1
    for depth, spacing in ((1, 0.55), (2, 0.5), (3, 0.45)):
        mothers = _branches(rng, mothers, fovea, depth, spacing * density, tortuosity, taken)
        vessels = vessels + mothers

    fov_dd = camera.fov_dd * rng.normal(1.0, 0.03)
    half = fov_dd / 2 / camera.scale
    kind = rng.random()
    if kind < 0.89:  # centred between fovea and disc, as protocols ask
        centre = np.array([-gap * rng.uniform(0.6, 1.0), fovea[1] * 0.6])
    elif kind < 0.95:  # disc in the centre
        centre = np.array([rng.normal(-0.3, 0.3), 0.0])
    else:
        centre = np.array([-gap + rng.normal(-0.7, 0.4), fovea[1]])
    centre = centre + rng.normal(0, (0.08, 0.22))
    turn = rng.normal(0, 0.07)
    nasal = 1 if eye == "right" else -1
    cos, sin = math.cos(turn), math.sin(turn)
    spin = np.array([[cos, sin], [-sin, cos]]) * (nasal, 1.0)

    def to_field(points: np.ndarray) -> np.ndarray:
        return (np.asarray(points) - centre) @ spin

    seen = []
    for vessel in vessels:
        vessel.points = to_field(vessel.points)
        if (np.abs(vessel.points).max(1) < half + 0.1).any():
            seen.append(vessel)
    off = rng.normal(0, camera.off_centre * fov_dd / 2, 2)
    return Eye(
        half=half,
        fov_centre=off,
        fov_radius=fov_dd / 2,
        fov_cut=camera.cut * fov_dd / 2,
        disc=to_field(np.zeros(2)),
        disc_axes=(float(vertical * rng.uniform(0.86, 0.97)), float(vertical)),
        disc_angle=float(nasal * rng.normal(8, 6)),
        cup=cup,
        cup_centre=to_field(np.array([-0.04, 0.0]) + rng.normal(0, 0.02, 2)),
        fovea=to_field(fovea),
        nasal=nasal,
        vessels=seen,
    )
