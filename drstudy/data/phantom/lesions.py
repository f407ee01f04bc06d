"""Lesions: which ones an eye of a given grade has, where they are and what shape they have.

Lengths are in disc diameters (DD, about 1500 um) in the field frame of ``anatomy``. A lesion knows its own
outlines, so that the picture and the mask are painted from the same geometry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .anatomy import VEIN, Eye, Vessel
from .grading import QUADRANTS, grade_from_lesions


@dataclass
class Lesion:
    """One lesion.

    Attributes:
        code, kind: its code and subtype (``dot``, ``blot``, ``flame``, ``cluster``, ``ring``, ``disc``, ...).
        quadrant: ``ST``, ``SN``, ``IT`` or ``IN``.
        x, y: centre in DD, field frame.
        radius: radius of a circle of about the same extent, DD.
        strength: opacity of the lesion before the camera, 0 to 1.
        blobs: filled outlines, each (n, 2) in DD.
        strands: open curves (n, 2) in DD, each with its full width in DD.
        vessel, first, last, phase, amplitude: for VB, the beaded stretch of a vein and its beads.
        fibrosis: for NV, opacity of the whitish tissue that grows with the vessels.
    """

    code: str
    kind: str
    quadrant: str
    x: float
    y: float
    radius: float
    strength: float
    blobs: list[np.ndarray] = field(default_factory=list)
    strands: list[tuple[np.ndarray, float]] = field(default_factory=list)
    vessel: Vessel | None = None
    first: int = 0
    last: int = 0
    phase: float = 0.0
    amplitude: float = 0.0
    fibrosis: float = 0.0


def blob(
    rng: np.random.Generator,
    centre: np.ndarray,
    radius: float,
    rough: float,
    stretch: float = 1.0,
    turn: float = 0.0,
    n: int = 18,
) -> np.ndarray:
    """Returns an irregular closed outline (n, 2): a circle whose radius is modulated by a few harmonics."""
    angle = np.arange(n) * (2 * np.pi / n)
    wave = np.zeros(n)
    for k in (2, 3, 4, 5):
        wave += rng.normal(0, rough / k**0.7) * np.cos(k * angle + rng.uniform(0, 6.3))
    r = radius * np.clip(1 + wave, 0.35, 1.8)
    x, y = r * np.cos(angle) * stretch, r * np.sin(angle) / stretch
    cos, sin = math.cos(turn), math.sin(turn)
    return np.column_stack([centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y])


class Placer:
    """Finds places for lesions: within the field, off the disc, off the vessels and not behind a pre-retinal
    bleeding."""

    GRID = 192

    def __init__(self, rng: np.random.Generator, eye: Eye):
        self.rng, self.eye = rng, eye
        self.busy = np.zeros((self.GRID, self.GRID), bool)
        cell = 2 * eye.half / self.GRID
        for vessel in eye.vessels:
            if vessel.radius[0] < 0.009:
                continue
            self._mark(vessel.points)
            if vessel.radius[0] > 1.2 * cell / 2:
                for shift in ((cell, 0), (-cell, 0), (0, cell), (0, -cell)):
                    self._mark(vessel.points[vessel.radius > 0.016] + shift)
        self.hidden = np.zeros_like(self.busy)

    def _cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = ((points + self.eye.half) * (self.GRID / (2 * self.eye.half))).astype(int)
        at = np.clip(at, 0, self.GRID - 1)
        return at[..., 1], at[..., 0]

    def _mark(self, points: np.ndarray) -> None:
        self.busy[self._cells(points)] = True

    def smallest_quadrant(self) -> float:
        """Returns the share of the field that its smallest quadrant has."""
        axis = (np.arange(24) + 0.5) * (2 * self.eye.half / 24) - self.eye.half
        points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        names = [self.eye.quadrant(point) for point in points[self.eye.inside(points)]]
        return min(names.count(quadrant) for quadrant in QUADRANTS) / max(1, len(names))

    def hide(self, centre: np.ndarray, radius: float) -> None:
        """Keeps other lesions out of a circle."""
        axis = (np.arange(self.GRID) + 0.5) * (2 * self.eye.half / self.GRID) - self.eye.half
        self.hidden |= (axis[None] - centre[0]) ** 2 + (axis[:, None] - centre[1]) ** 2 < radius**2

    def place(
        self,
        margin: float,
        quadrant: str | None = None,
        near: np.ndarray | None = None,
        spread: float = 1.0,
        fovea: tuple[float, float] = (0.22, 99.0),
        disc: tuple[float, float] = (0.68, 99.0),
        free: bool = True,
        tries: int = 12,
    ) -> np.ndarray | None:
        """Returns a random place (2,), or None if none was found.

        Args:
            margin: distance to the edge of the field, DD.
            quadrant: restricts to a quadrant.
            near, spread: draws from a normal distribution about ``near`` instead of over the whole field.
            fovea, disc: least and greatest distance to the fovea and the disc, DD.
            free: off the larger vessels.
            tries: rounds of 24 candidates.
        """
        eye = self.eye
        for _ in range(tries):
            if near is None:
                points = self.rng.uniform(-1, 1, (24, 2)) * eye.fov_radius + eye.fov_centre
            else:
                points = near + self.rng.normal(0, spread, (24, 2))
            to_fovea = np.hypot(*(points - eye.fovea).T)
            to_disc = np.hypot(*(points - eye.disc).T)
            good = eye.inside(points, margin + 0.06)
            good &= (
                (to_fovea > fovea[0])
                & (to_fovea < fovea[1])
                & (to_disc > disc[0] + margin)
                & (to_disc < disc[1])
            )
            good &= ~self.hidden[self._cells(points)]
            if free:
                good &= ~self.busy[self._cells(points)]
            for i in np.flatnonzero(good):
                if quadrant is None or eye.quadrant(points[i]) == quadrant:
                    return points[i]
        return None


class LesionMaker:
    """Makes the lesions of one eye; see ``sample_lesions``."""

    def __init__(self, rng: np.random.Generator, eye: Eye, hardness: float):
        self.rng, self.eye = rng, eye
        self.placer = Placer(rng, eye)
        self.contrast = 1.30 - 0.80 * hardness
        self.lesions: list[Lesion] = []
        weights = rng.dirichlet(np.full(4, 2.0))
        self.weights = dict(zip(QUADRANTS, weights, strict=True))

    def add(self, code: str, kind: str, at: np.ndarray, radius: float, strength: float, **shape) -> None:
        """Adds one lesion."""
        self.lesions.append(
            Lesion(
                code,
                kind,
                self.eye.quadrant(at),
                float(at[0]),
                float(at[1]),
                float(radius),
                float(np.clip(strength, 0.03, 1.0)),
                **shape,
            )
        )

    def some_quadrant(self) -> str:
        """Draws a quadrant; an eye prefers some."""
        return QUADRANTS[int(self.rng.choice(4, p=list(self.weights.values())))]

    def microaneurysms(self, count: int) -> None:
        """Red dots, 20 to 70 um in radius, mostly in the posterior pole, some in groups."""
        rng, near = self.rng, None
        for _ in range(count):
            radius = float(np.clip(rng.lognormal(math.log(0.020), 0.28), 0.010, 0.036))
            if near is None or rng.random() < 0.6:
                focus = self.eye.fovea if rng.random() < 0.65 else None
                at = self.placer.place(radius, near=focus, spread=1.15)
            else:
                at = self.placer.place(radius, near=near, spread=0.25)
            if at is None:
                at = self.placer.place(radius, free=False, tries=60)
            if at is None:
                continue
            near = at
            self.add(
                "MA",
                "",
                at,
                radius,
                self.contrast * rng.uniform(0.65, 1.1),
                blobs=[blob(rng, at, radius, 0.05, n=12)],
            )

    def haemorrhage(self, kind: str, quadrant: str | None) -> bool:
        """One intraretinal haemorrhage: ``dot``, ``blot`` (irregular) or ``flame`` (along the nerve
        fibres)."""
        rng = self.rng
        radius = {
            "dot": rng.uniform(0.026, 0.045),
            "blot": 0.04 + rng.gamma(1.5, 0.02),
            "flame": rng.uniform(0.07, 0.2),
        }[kind]
        radius = min(float(radius), 0.22)
        near, spread, disc = None, 1.0, (0.62, 99.0)
        if kind == "flame":
            near, spread = self.eye.disc, 1.7
        at = self.placer.place(radius, quadrant, near, spread, disc=disc, tries=14)
        if at is None:
            at = self.placer.place(radius, quadrant, disc=disc, free=False, tries=60)
        if at is None:
            return False
        strength = self.contrast * rng.uniform(0.55, 1.2)
        if kind == "flame":
            along = self.eye.fibre_direction(at)
            turn = math.atan2(along[1], along[0])
            across = np.array([-along[1], along[0]])
            blobs = []
            for _ in range(int(rng.integers(2, 6))):
                centre = at + across * rng.normal(0, 0.16 * radius) + along * rng.normal(0, 0.22 * radius)
                blobs.append(
                    blob(
                        rng,
                        centre,
                        radius * rng.uniform(0.25, 0.45),
                        0.06,
                        rng.uniform(1.6, 2.3),
                        turn + rng.normal(0, 0.06),
                    )
                )
        else:
            blobs = [
                blob(
                    rng,
                    at,
                    radius,
                    0.06 if kind == "dot" else 0.17,
                    rng.uniform(0.9, 1.15),
                    rng.uniform(0, 3.1),
                )
            ]
            if kind == "blot" and rng.random() < 0.45:
                blobs.append(
                    blob(rng, at + rng.normal(0, 0.75 * radius, 2), radius * rng.uniform(0.4, 0.75), 0.15)
                )
        self.add("HE", kind, at, radius, strength, blobs=blobs)
        return True

    def haemorrhages(self, count: int, limit: int | None = 20) -> None:
        """Several haemorrhages; with ``limit`` at least one quadrant keeps at most that many."""
        rng = self.rng
        mix = rng.dirichlet((2.5, 2.0, 0.9))
        per = dict.fromkeys(QUADRANTS, 0)
        for _ in range(count):
            quadrant = self.some_quadrant()
            if limit is not None and per[quadrant] >= limit:
                continue
            if self.haemorrhage(
                ("dot", "blot", "flame")[int(rng.choice(3, p=mix))], quadrant if rng.random() < 0.9 else None
            ):
                per[self.lesions[-1].quadrant] += 1

    def exudates(self, groups: int) -> None:
        """Hard exudates: sharp yellow deposits in clusters, or circinate rings about a leak."""
        rng = self.rng
        for _ in range(groups):
            ring = rng.random() < 0.22
            extent = float(
                rng.uniform(0.25, 0.6) if ring else np.clip(rng.lognormal(math.log(0.16), 0.6), 0.03, 0.6)
            )
            at = self.placer.place(
                min(extent, 0.3),
                near=self.eye.fovea,
                spread=1.0,
                fovea=(0.1, 99),
                disc=(0.75, 99),
                free=False,
                tries=40,
            )
            if at is None:
                continue
            count = int(np.clip(rng.poisson(6 + 75 * extent * rng.uniform(0.3, 1.0)), 2, 60))
            start, arc = rng.uniform(0, 6.3), rng.uniform(3.0, 6.3)
            blobs = []
            lump = at + rng.normal(0, 0.3 * extent, (4, 2))
            for _ in range(count):
                if ring:
                    turn = start + arc * rng.random()
                    where = at + extent * rng.normal(1, 0.1) * np.array([math.cos(turn), math.sin(turn)])
                else:
                    where = lump[int(rng.integers(4))] + rng.normal(0, 0.28 * extent, 2)
                radius = float(np.clip(rng.lognormal(math.log(0.013), 0.5), 0.005, 0.06))
                if not self.eye.inside(where, radius + 0.02) or np.hypot(*(where - self.eye.disc)) < 0.62:
                    continue
                blobs.append(blob(rng, where, radius, 0.18, rng.uniform(0.8, 1.3), rng.uniform(0, 3.1), n=10))
            if blobs:
                self.add(
                    "EX",
                    "ring" if ring else "cluster",
                    at,
                    extent,
                    self.contrast * rng.uniform(0.7, 1.15),
                    blobs=blobs,
                )

    def soft_exudates(self, count: int) -> None:
        """Cotton-wool spots: fluffy white patches of 0.15 to 0.35 DD along the arcades."""
        rng = self.rng
        for _ in range(count):
            radius = rng.uniform(0.075, 0.16)
            at = self.placer.place(
                radius,
                near=self.eye.disc,
                spread=1.6,
                disc=(0.75, 3.6),
                fovea=(0.7, 99),
                free=False,
                tries=60,
            )
            if at is None:
                continue
            along = self.eye.fibre_direction(at)
            turn = math.atan2(along[1], along[0]) + math.pi / 2
            blobs = []
            for _ in range(int(rng.integers(3, 6))):
                blobs.append(
                    blob(
                        rng,
                        at + rng.normal(0, 0.35 * radius, 2),
                        radius * rng.uniform(0.45, 0.75),
                        0.14,
                        rng.uniform(1.0, 1.35),
                        turn,
                    )
                )
            self.add("SE", "", at, radius, self.contrast * rng.uniform(0.55, 0.95), blobs=blobs)

    def beading(self, quadrants: int) -> int:
        """Venous beading in up to so many quadrants; returns in how many it was possible."""
        rng, eye = self.rng, self.eye
        long = int(0.55 / 0.07)
        found: dict[str, list[tuple[Vessel, int]]] = {}
        for vessel in eye.vessels:
            if vessel.kind != VEIN or vessel.depth > 1:
                continue
            for i in range(3, len(vessel.points) - long - 1, 3):
                part = vessel.points[i : i + long]
                if vessel.radius[i + long] < 0.016 or np.hypot(*(part - eye.disc).T).min() < 0.75:
                    continue
                names = {eye.quadrant(p) for p in part[::3]}
                if (
                    len(names) == 1
                    and eye.inside(part, 0.1).all()
                    and not self.placer.hidden[self.placer._cells(part)].any()
                ):
                    found.setdefault(names.pop(), []).append((vessel, i))
        chosen = [QUADRANTS[i] for i in rng.permutation(4) if QUADRANTS[i] in found][:quadrants]
        if len(chosen) < quadrants:
            return 0
        for quadrant in chosen:
            vessel, i = found[quadrant][int(rng.integers(len(found[quadrant])))]
            centre = vessel.points[i + long // 2]
            self.add(
                "VB", "", centre, 0.28, 1.0, vessel=vessel, first=i, last=i + long,
                phase=rng.uniform(0, 6.3), amplitude=float(rng.uniform(0.42, 0.6) * (1.15 - 0.5 * (1 -
                self.contrast))),
            )  # fmt: skip
        return len(chosen)

    def _walk(
        self, start: np.ndarray, heading: float, length: float, wild: float, centre: np.ndarray, radius: float
    ) -> np.ndarray:
        """Returns a tortuous curve that stays within a circle."""
        rng = self.rng
        step = 0.022
        points, place, turn, curl = [start], start, 0.0, 0.4 * wild * rng.normal()
        for _ in range(max(4, int(length / step))):
            turn = 0.8 * turn + wild * rng.normal()
            heading += turn + curl
            away = place - centre
            if away @ away > (0.8 * radius) ** 2:  # turn back
                inward = math.atan2(-away[1], -away[0])
                heading += 0.5 * math.sin(inward - heading)
            place = place + step * np.array([math.cos(heading), math.sin(heading)])
            points.append(place)
        return np.array(points)

    def irma(self, kind: str) -> bool:
        """Intraretinal microvascular abnormality: a patch of tortuous fine vessels, ``prominent`` or
        ``mild``."""
        rng = self.rng
        radius = rng.uniform(0.16, 0.32) if kind == "prominent" else rng.uniform(0.08, 0.13)
        at = self.placer.place(radius, disc=(0.9, 99), fovea=(0.9, 99), free=False, tries=60)
        if at is None:
            return False
        strands = []
        for _ in range(int(rng.integers(4, 8)) if kind == "prominent" else 2):
            start = at + rng.normal(0, 0.3 * radius, 2)
            curve = self._walk(start, rng.uniform(0, 6.3), radius * rng.uniform(1.2, 2.4), 0.20, at, radius)
            strands.append(
                (
                    curve,
                    float(rng.uniform(0.013, 0.022) if kind == "prominent" else rng.uniform(0.012, 0.018)),
                )
            )
        self.add("IRMA", kind, at, radius, self.contrast * rng.uniform(0.65, 0.95), strands=strands)
        return True

    def new_vessels(self, kind: str) -> bool:
        """Neovascularisation: a lacy net of fine vessels, at the ``disc`` or ``elsewhere``."""
        rng, eye = self.rng, self.eye
        radius = float(rng.uniform(0.32, 0.78))
        if kind == "disc":
            turn = rng.uniform(0, 6.3)
            hub = eye.disc + 0.35 * np.array([math.cos(turn), math.sin(turn)])
            if not eye.inside(hub, 0.32):
                return False
            radius = min(radius, 0.5)
        else:
            found = self.placer.place(
                radius + 0.05, disc=(1.0 + radius, 99), fovea=(1.1 + radius, 99), free=False, tries=60
            )
            if found is None:
                radius = 0.25
                found = self.placer.place(radius, disc=(0.9, 99), fovea=(0.8, 99), free=False, tries=120)
            if found is None:
                return False
            hub = found
        strands = []
        side = rng.uniform(0, 6.3)
        for _ in range(int(7 + 17 * radius)):
            heading = side + rng.normal(0, 1.2)
            start = hub + rng.normal(0, 0.12 * radius, 2)
            strands.append(
                (
                    self._walk(start, heading, radius * rng.uniform(0.9, 2.2), 0.23, hub, radius),
                    float(rng.uniform(0.009, 0.017)),
                )
            )
        strands = [(curve[eye.inside(curve, 0.03)], width) for curve, width in strands]
        strands = [(curve, width) for curve, width in strands if len(curve) > 3]
        if not strands:
            return False
        fibrosis = float(rng.uniform(0.1, 0.4)) if rng.random() < 0.4 else 0.0
        self.add(
            "NV", kind, hub, radius, self.contrast * rng.uniform(0.7, 1.0), strands=strands, fibrosis=fibrosis
        )
        return True

    def preretinal(self) -> bool:
        """Pre-retinal haemorrhage: a boat with a level surface, or a round puddle; hides what lies behind
        it."""
        rng = self.rng
        width = rng.uniform(0.35, 0.9)
        at = self.placer.place(0.6 * width, disc=(0.8, 99), fovea=(0.5, 99), free=False, tries=60)
        if at is None:
            return False
        angle = np.arange(40) * (2 * np.pi / 40)
        depth = width * rng.uniform(0.5, 0.9)
        level = rng.uniform(0.06, 0.22) if rng.random() < 0.75 else 0.9  # a level surface, or a round puddle
        x, y = np.cos(angle) * width, np.sin(angle)
        y = np.where(
            y > 0,
            depth * np.maximum(y, 0) ** 0.85 * (1 + 0.05 * np.sin(3 * angle + rng.uniform(0, 6))),
            level * depth * y,
        )
        outline = np.column_stack([x, y]) - (0, 0.3 * depth)
        turn = rng.normal(0, 0.15)
        outline = (
            outline @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) + at
        )
        outline = outline[self.eye.inside(outline, 0.02)]
        if len(outline) < 12:
            return False
        self.add(
            "PRH",
            "boat" if level < 0.5 else "puddle",
            at,
            width,
            min(1.0, 0.35 + 0.75 * self.contrast),
            blobs=[outline],
        )
        self.placer.hide(at, width + 0.12)
        return True

    def drusen(self, count: int) -> None:
        """Drusen: soft yellow dots in the macula."""
        rng = self.rng
        centre = self.eye.fovea + rng.normal(0, 0.3, 2)
        for _ in range(count):
            radius = float(np.clip(rng.lognormal(math.log(0.02), 0.4), 0.009, 0.06))
            at = self.placer.place(
                radius, near=centre, spread=0.6, fovea=(0.05, 1.8), disc=(0.75, 99), free=False, tries=3
            )
            if at is not None:
                self.add(
                    "DRUSEN",
                    "",
                    at,
                    radius,
                    0.75 * self.contrast * rng.uniform(0.5, 1.0),
                    blobs=[blob(rng, at, radius, 0.08, n=12)],
                )

    def laser(self, dense: bool) -> None:
        """Laser scars: rows of round pale or pigmented spots outside the arcades, or a few small ones in the
        macula."""
        rng, eye = self.rng, self.eye
        if not dense and rng.random() < 0.5:
            for _ in range(int(rng.integers(5, 16))):
                at = self.placer.place(
                    0.05, near=eye.fovea, spread=0.7, fovea=(0.45, 1.6), disc=(0.8, 99), free=False, tries=4
                )
                if at is not None:
                    self.add(
                        "LASER", "focal", at, 0.04, 0.5, blobs=[blob(rng, at, rng.uniform(0.03, 0.05), 0.08)]
                    )
            if any(one.code == "LASER" for one in self.lesions):
                return
        pitch = rng.uniform(0.34, 0.5)
        turn, keep, pigment = rng.uniform(0, 1.5), rng.uniform(0.5, 0.95), rng.uniform(0.1, 0.7)
        sector = rng.uniform(0, 6.3) if rng.random() < 0.3 else None
        steps = np.arange(-12, 13) * pitch
        grid = np.stack(np.meshgrid(steps, steps * 0.87), -1)
        grid[1::2, :, 0] += pitch / 2
        grid = grid.reshape(-1, 2) @ np.array(
            [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
        )
        grid = grid + rng.normal(0, 0.14 * pitch, grid.shape)
        clear = rng.uniform(1.7, 2.1)
        good = (
            eye.inside(grid, 0.2)
            & (np.hypot(*(grid - eye.fovea).T) > clear)
            & (np.hypot(*(grid - eye.disc).T) > 1.05)
        )
        good &= ~self.placer.hidden[self.placer._cells(grid)] & (rng.random(len(grid)) < keep)
        if sector is not None:
            away = grid - eye.fovea
            good &= np.cos(np.arctan2(away[:, 1], away[:, 0]) - sector) > 0.2
        level = rng.uniform(0.35, 0.85)
        for at in grid[good]:
            radius = float(rng.uniform(0.075, 0.15))
            kind = "pigmented" if rng.random() < pigment else "pale"
            self.add(
                "LASER",
                kind,
                at,
                radius,
                level * rng.uniform(0.6, 1.1),
                blobs=[blob(rng, at, radius, 0.1, rng.uniform(0.85, 1.2), rng.uniform(0, 3))],
            )


def _sample(maker: LesionMaker, grade: int, treated: bool) -> None:
    rng = maker.rng
    if grade == 4:
        wanted = rng.random(3) < (0.5, 0.8, 0.5)
        if not wanted.any():
            wanted[1] = True
        if wanted[2]:
            maker.preretinal()
        if wanted[0]:
            maker.new_vessels("disc")
        if wanted[1]:
            for _ in range(int(rng.integers(2, 6))):
                maker.new_vessels("elsewhere")
        if not any(one.code in ("NV", "PRH") for one in maker.lesions):
            _ = maker.new_vessels("elsewhere") or maker.preretinal()
        busy = rng.uniform(0.0, 1.0) * (0.55 if treated else 1.0)
    else:
        busy = rng.random()
    if grade == 3:
        chosen = rng.random(3) < (0.4, 0.4, 0.55)
        if not chosen.any():
            chosen[int(rng.integers(3))] = True
        done = False
        if chosen[1]:
            done |= maker.beading(int(rng.integers(2, 4))) > 0
        if chosen[2] or (chosen[1] and not done):
            for _ in range(int(rng.integers(1, 4))):
                done |= maker.irma("prominent")
        if not done or (chosen[0] and maker.placer.smallest_quadrant() > 0.10):
            for quadrant in QUADRANTS:
                count, missed = 0, 0
                target = int(rng.integers(21, 30))
                while count < target and missed < 60:
                    ok = maker.haemorrhage(
                        ("dot", "blot", "flame")[int(rng.choice(3, p=(0.62, 0.28, 0.1)))], quadrant
                    )
                    count, missed = count + ok, missed + (not ok)
        else:
            maker.haemorrhages(int(rng.uniform(12, 60)))
    if grade == 1:
        maker.microaneurysms(int(np.clip(2 + rng.geometric(0.14), 3, 24)))
    elif grade >= 2:
        maker.microaneurysms(int((3 + 24 * busy**1.4) * (1.0 if grade == 2 else 1.25)))
    if grade == 2:
        signs = rng.random(5) < (0.9, 0.22 + 0.5 * busy, 0.08 + 0.3 * busy, 0.06, 0.08)
        if not signs[:2].any():
            signs[0] = True
        if signs[0]:
            maker.haemorrhages(int(2 + 34 * busy**1.2 * rng.uniform(0.4, 1.2)))
        if signs[1]:
            maker.exudates(int(1 + 6 * busy * rng.random()))
        if signs[2]:
            maker.soft_exudates(int(rng.integers(1, 4)))
        if signs[3]:
            maker.beading(1)
        if signs[4]:
            maker.irma("mild")
        tries = 0
        while tries < 20 and not any(one.code in ("HE", "EX", "SE", "VB", "IRMA") for one in maker.lesions):
            maker.haemorrhage("dot", None)
            tries += 1
    elif grade >= 3:
        if grade == 4:
            maker.haemorrhages(int(2 + 38 * busy**1.3))
            if rng.random() < 0.2:
                maker.irma("prominent")
            if rng.random() < 0.2:
                maker.beading(2)
        if rng.random() < 0.2 + 0.5 * busy:
            maker.exudates(int(1 + 7 * busy * rng.random()))
        if rng.random() < 0.2 + 0.35 * busy:
            maker.soft_exudates(int(rng.integers(1, 6)))
    if rng.random() < 0.13:
        maker.drusen(int(rng.integers(3, 32)))
    if treated:
        maker.laser(dense=grade == 4 or rng.random() < 0.5)


def sample_lesions(
    seeds: np.random.SeedSequence, eye: Eye, grade: int, treated: bool, hardness: float
) -> list[Lesion]:
    """Draws the lesions of one eye so that the ICDR rule gives exactly the wanted grade.

    Args:
        seeds: the source of randomness of this eye's lesions.
        eye: the geometry.
        grade: the grade, 0 to 4.
        treated: whether to add laser scars.
        hardness: 0 to 1; scales contrasts only, so that the same eye has the same lesions at every
            hardness.

    Returns:
        The lesions.

    Raises:
        RuntimeError: 40 draws did not give the grade (not seen in practice: it would be a fault of this
        module).
    """
    for child in seeds.spawn(40):
        maker = LesionMaker(np.random.Generator(np.random.PCG64(child)), eye, hardness)
        _sample(maker, grade, treated)
        if grade_from_lesions(maker.lesions) == grade and (
            not treated or any(one.code == "LASER" for one in maker.lesions)
        ):
            return maker.lesions
    raise RuntimeError(
        f"no lesion set of grade {grade} fits this field of view; please report the configuration"
    )
