"""Age-related macular degeneration (AMD): which signs an eye of a given grade has, where they are, and how they are painted.

Sizes in micrometres are turned into disc diameters (DD) by ``DISC_DIAMETER_UM``. What the grades mean is in ``grading``; the numbers of
signs in an eye and their looks are choices of this study, after the descriptions in ``docs/sources.md``, C4.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from . import planning
from .anatomy import Eye
from .camera import soften
from .grading import (
    DISC_DIAMETER_UM,
    LARGE_UM,
    SMALL_UM,
    SUBRETINAL,
    amd_grade_from_lesions,
    drusen_size,
)
from .lesions import Lesion, LesionMaker, blob
from .painting import BLOOD, Painter, blend, covered, noise, tessellation

SMALL_DRUSEN_UM = (32.0, 0.97 * SMALL_UM)
"""Diameters of the small drusen that are drawn, um."""

LARGE_DRUSEN_UM = (1.08 * LARGE_UM, 360.0)
"""Diameters of the large drusen that are drawn, um. Medium ones are not drawn, so that the grades 1 and 2 are apart."""

PIGMENT_CLUMP = (0.85, 0.95, 0.95)
"""Attenuation (R, G, B) of clumped pigment, which is black where melanin in its layer is brown."""

MACULA_DD = 2.0
"""Radius of the macula about the fovea, DD (3000 um)."""


def sized_blob(
    rng: np.random.Generator, at: np.ndarray, diameter: float, rough: float, stretch: float = 1.0, n: int = 16
) -> np.ndarray:
    """Returns an irregular outline (n, 2) about ``at`` with the area of a circle of this diameter (DD)."""
    outline = blob(rng, np.zeros(2), 1.0, rough, stretch, rng.uniform(0, 3.1), n)
    x, y = outline.T
    area = 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
    return at + outline * (0.5 * diameter * math.sqrt(math.pi / area))


class AmdMaker(LesionMaker):
    """Makes the signs of AMD of one eye; see ``sample_amd``."""

    def drusen(self, count: int, sizes_um: tuple[float, float], foci: np.ndarray, spread: float) -> None:
        """Yellow-white deposits about some foci in the macula; large ones are soft and run together."""
        rng = self.rng
        for _ in range(count):
            share = rng.beta(1.2, 2.0)
            diameter = float(sizes_um[0] + (sizes_um[1] - sizes_um[0]) * share)
            size = diameter / DISC_DIAMETER_UM
            at = self.placer.place(
                0.5 * size,
                near=foci[int(rng.integers(len(foci)))],
                spread=spread,
                fovea=(0.0, MACULA_DD),
                disc=(0.72, 99),
                free=False,
                tries=6,
            )
            if at is None:
                continue
            kind = drusen_size(diameter)
            soft = kind == "large"
            self.add(
                "DRUSEN",
                kind,
                at,
                0.5 * size,
                self.contrast * (rng.uniform(0.52, 0.80) if soft else rng.uniform(0.55, 0.8)),
                blobs=[sized_blob(rng, at, size, 0.10 if soft else 0.05, rng.uniform(0.88, 1.14))],
            )

    def foci(self, count: int) -> np.ndarray:
        """Centres of clusters of drusen, (count, 2), about the fovea."""
        return self.eye.fovea + self.rng.normal(0, 0.42, (count, 2))

    def pigment(self, clumps: int, patches: int) -> None:
        """Pigment changes: dark clumps of retinal pigment (``hyper``), and paler patches without it (``hypo``)."""
        rng = self.rng
        for kind, count in (("hypo", patches), ("hyper", clumps)):
            for _ in range(count):
                radius = float(rng.uniform(0.025, 0.075) if kind == "hyper" else rng.uniform(0.06, 0.16))
                at = self.placer.place(
                    radius,
                    near=self.eye.fovea,
                    spread=0.42,
                    fovea=(0.0, 1.3),
                    disc=(0.75, 99),
                    free=False,
                    tries=8,
                )
                if at is None:
                    continue
                parts = 1 if kind == "hypo" else int(rng.integers(1, 4))
                blobs = [
                    blob(
                        rng,
                        at + rng.normal(0, 0.7 * radius, 2) * (part > 0),
                        radius * rng.uniform(0.6, 1.0),
                        0.22 if kind == "hyper" else 0.15,
                        rng.uniform(0.75, 1.35),
                        rng.uniform(0, 3.1),
                    )
                    for part in range(parts)
                ]
                self.add("PIGMENT", kind, at, radius, self.contrast * rng.uniform(0.55, 0.85), blobs=blobs)

    def atrophy(self) -> bool:
        """Geographic atrophy: a sharply bordered pale area with lobes, often with smaller ones beside it."""
        rng = self.rng
        radius = float(rng.uniform(0.28, 0.62))
        at = self.placer.place(
            0.8 * radius,
            near=self.eye.fovea,
            spread=0.3,
            fovea=(0.0, 1.3),
            disc=(0.75 + 0.4 * radius, 99),
            free=False,
            tries=40,
        )
        if at is None:
            return False
        blobs = [blob(rng, at, radius, 0.13, rng.uniform(0.85, 1.2), rng.uniform(0, 3.1), 40)]
        for _ in range(int(rng.integers(2, 5))):
            turn = rng.uniform(0, 2 * math.pi)
            lobe = at + radius * rng.uniform(0.6, 1.0) * np.array([math.cos(turn), math.sin(turn)])
            blobs.append(blob(rng, lobe, radius * rng.uniform(0.25, 0.5), 0.15, n=28))
        for _ in range(int(rng.integers(0, 4))):
            turn, size = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.12, 0.28)
            place = at + radius * rng.uniform(1.5, 2.0) * np.array([math.cos(turn), math.sin(turn)])
            if self.eye.inside(place, size) and np.hypot(*(place - self.eye.disc)) > 0.7 + size:
                blobs.append(blob(rng, place, size, 0.15, n=24))
        self.add("GA", "", at, radius, min(1.0, 0.45 + 0.5 * self.contrast), blobs=blobs)
        self.placer.hide(at, 0.95 * radius)
        return True

    def neovascularisation(self) -> bool:
        """A choroidal neovascularisation: the membrane, mostly with fluid, blood and exudates at its edge."""
        rng = self.rng
        radius = float(rng.uniform(0.26, 0.52))
        at = self.placer.place(
            radius,
            near=self.eye.fovea,
            spread=0.3,
            fovea=(0.0, 1.2),
            disc=(0.8 + radius, 99),
            free=False,
            tries=40,
        )
        if at is None:
            return False
        blobs = [blob(rng, at, radius, 0.12, rng.uniform(0.85, 1.2), rng.uniform(0, 3.1), 28)]
        for _ in range(int(rng.integers(1, 4))):
            turn = rng.uniform(0, 2 * math.pi)
            lobe = at + 0.8 * radius * np.array([math.cos(turn), math.sin(turn)])
            blobs.append(blob(rng, lobe, radius * rng.uniform(0.3, 0.5), 0.14))
        self.add("CNV", "", at, radius, min(1.0, self.contrast * rng.uniform(0.65, 0.9)), blobs=blobs)
        signs = rng.random(3) < (0.75, 0.85, 0.65)
        if signs[0]:
            dome = at + rng.normal(0, 0.15 * radius, 2)
            reach = radius * float(rng.uniform(1.45, 1.9))
            outline = blob(rng, dome, reach, 0.05, rng.uniform(0.9, 1.12), rng.uniform(0, 3.1), 28)
            self.add("SRF", "", dome, reach, self.contrast * rng.uniform(0.6, 0.9), blobs=[outline])
        if signs[1]:
            self._blood(at, radius)
        if signs[2]:
            self._deposits(at, radius)
        self.placer.hide(at, 1.1 * radius)
        return True

    def _blood(self, at: np.ndarray, radius: float) -> None:
        """Subretinal haemorrhage: crescents of blood along the edge of the membrane, below the vessels of the retina."""
        rng = self.rng
        start = rng.uniform(0, 2 * math.pi)
        for _ in range(int(rng.integers(1, 3))):
            arc, thick = rng.uniform(0.4, 2.2), radius * float(rng.uniform(0.28, 0.55))
            reach, blobs = radius * float(rng.uniform(0.95, 1.15)) + 0.5 * thick, []
            for turn in start + np.arange(0, arc, 0.35):
                along = np.array([math.cos(turn), math.sin(turn)])
                where = at + along * reach * rng.normal(1, 0.05)
                if self.eye.inside(where, 0.1) and np.hypot(*(where - self.eye.disc)) > 0.72 + thick:
                    size = thick * rng.uniform(0.7, 1.2)
                    blobs.append(blob(rng, where, size, 0.16, rng.uniform(1.1, 1.5), turn + math.pi / 2, 24))
            if blobs:
                centre = blobs[len(blobs) // 2].mean(0)
                strength = self.contrast * rng.uniform(0.75, 1.05)
                self.add("HE", SUBRETINAL, centre, max(thick, 0.5 * arc * reach), strength, blobs=blobs)
            start += arc + rng.uniform(0.6, 1.6)

    def _deposits(self, at: np.ndarray, radius: float) -> None:
        """Hard exudates along an arc outside the membrane, where its fluid ends."""
        rng = self.rng
        start, arc = rng.uniform(0, 2 * math.pi), rng.uniform(1.2, 4.5)
        reach, blobs = radius * float(rng.uniform(1.35, 1.9)), []
        for _ in range(int(rng.integers(10, 46))):
            turn = start + arc * rng.random()
            where = at + reach * rng.normal(1, 0.09) * np.array([math.cos(turn), math.sin(turn)])
            size = float(np.clip(rng.lognormal(math.log(0.014), 0.45), 0.006, 0.05))
            if self.eye.inside(where, size + 0.02) and np.hypot(*(where - self.eye.disc)) > 0.62:
                blobs.append(blob(rng, where, size, 0.18, rng.uniform(0.8, 1.3), rng.uniform(0, 3.1), 10))
        if blobs:
            middle = blobs[0].mean(0)
            self.add("EX", SUBRETINAL, middle, reach, self.contrast * rng.uniform(0.7, 1.1), blobs=blobs)


def _sample(maker: AmdMaker, grade: int, atrophy: bool) -> None:
    rng = maker.rng
    if grade == 3:
        maker.neovascularisation()
    if atrophy:
        maker.atrophy()
    foci = maker.foci(int(rng.integers(2, 5)))
    if grade == 1:
        maker.drusen(int(rng.integers(18, 64)), SMALL_DRUSEN_UM, foci, 0.36)
        return
    maker.drusen(int(rng.integers(6, 30)), SMALL_DRUSEN_UM, foci, 0.55)
    if grade == 2 or rng.random() < 0.6:
        most = 34 if grade == 2 else 14
        maker.drusen(int(rng.integers(5 if grade == 2 else 2, most)), LARGE_DRUSEN_UM, foci, 0.26)
    signs = rng.random(2) < ((0.6, 0.45) if grade == 2 else (0.4, 0.25))
    maker.pigment(*(int(rng.integers(1, 6)) if sign else 0 for sign in signs))


def sample_amd(
    seeds: np.random.SeedSequence, eye: Eye, grade: int, atrophy: bool, hardness: float, lesions: list[Lesion]
) -> list[Lesion]:
    """Draws the signs of AMD of one eye so that the rule of ``amd_grade_from_lesions`` gives exactly the wanted grade.

    Args:
        seeds: the source of randomness of this eye's AMD.
        eye: the geometry.
        grade: the grade of AMD, 0 to 3.
        atrophy: whether with geographic atrophy; only for grades 2 and 3.
        hardness: 0 to 1; scales contrasts only.
        lesions: what the eye has of diabetic retinopathy; no sign of AMD is put behind a pre-retinal haemorrhage.

    Returns:
        The signs, none for grade 0.

    Raises:
        RuntimeError: 40 draws did not give the grade.
    """
    if grade == 0:
        return []
    for child in seeds.spawn(40):
        maker = AmdMaker(np.random.Generator(np.random.PCG64(child)), eye, hardness)
        for one in lesions:
            if one.code == "PRH":
                maker.placer.hide(np.array([one.x, one.y]), one.radius + 0.12)
        _sample(maker, grade, atrophy)
        if amd_grade_from_lesions(maker.lesions) == grade and atrophy == any(
            one.code == "GA" for one in maker.lesions
        ):
            return maker.lesions
    raise RuntimeError(
        f"no signs of AMD of grade {grade} fit this field of view; please report the configuration"
    )


def _group(lesions: list[Lesion], code: str, kind: str | None = None) -> list[Lesion]:
    return [one for one in lesions if one.code == code and kind in (None, one.kind)]


def _atrophic(image: np.ndarray, alpha: np.ndarray, choroid: np.ndarray, gain: np.ndarray) -> None:
    """Paints geographic atrophy in place: the pigment is gone, and the vessels of the choroid show on pale ground."""
    blend(image, 0.62 * alpha, np.array([1.0, 0.80, 0.52]) * gain)
    vessels = alpha * np.clip(choroid + 0.15, 0, 0.75)
    image *= cv2.exp(-cv2.merge([np.ascontiguousarray(k * vessels, np.float32) for k in (0.10, 0.62, 0.75)]))


def _neovascular(
    image: np.ndarray, painter: Painter, lesions: list[Lesion], gain: np.ndarray, uneven: np.ndarray
) -> dict[str, np.ndarray]:
    """Paints fluid, membrane and the depth of subretinal blood in place; returns the masks of the first two."""
    masks, scale = {}, painter.scale
    if fluid := _group(lesions, "SRF"):
        opacity, masks["SRF"], _ = covered(painter, fluid)
        dome = soften(opacity, 0.03 * scale)
        blend(image, 0.34 * dome, np.array([0.72, 0.58, 0.42]) * gain)
        rim = np.clip(dome - soften(dome, 0.07 * scale), 0, 1)
        image *= np.exp(-0.5 * rim)[..., None]
    if membrane := _group(lesions, "CNV"):
        opacity, masks["CNV"], _ = covered(painter, membrane)
        grey = soften(opacity, 0.040 * scale) * np.clip(0.85 + 0.18 * uneven, 0.5, 1.15)
        blend(image, 0.78 * grey, np.array([0.50, 0.47, 0.30]) * gain)
    if blood := _group(lesions, "HE", SUBRETINAL):
        deep = soften(covered(painter, blood)[0], 0.02 * scale)
        image *= cv2.exp(-cv2.merge([np.ascontiguousarray(0.22 * c * deep, np.float32) for c in BLOOD]))
    return masks


def paint_amd(
    config: planning.PhantomConfig,
    key: tuple[int, int],
    image: np.ndarray,
    painter: Painter,
    eye: Eye,
    lesions: list[Lesion],
    gain: np.ndarray,
) -> dict[str, np.ndarray]:
    """Paints what lies below the retina into the image in place, before vessels, haemorrhages and exudates.

    Args:
        config, key: the configuration, and patient and side.
        image: float32 (size, size, 3), the fundus without lesions.
        painter, eye: the pixel grid and the geometry.
        lesions: all lesions of the eye.
        gain: colour balance of the camera, (3,).

    Returns:
        The masks (bool) of DRUSEN, PIGMENT, CNV, SRF and GA that the eye has.
    """
    masks: dict[str, np.ndarray] = {}
    scale, size = painter.scale, painter.size
    rng = planning.stream(config, planning.STREAM_AMD, *key, 1)
    uneven = noise(rng, 40, size)
    if atrophic := _group(lesions, "GA"):
        opacity, masks["GA"], _ = covered(painter, atrophic)
        _atrophic(image, soften(opacity, 0.006 * scale), tessellation(rng, eye, size), gain)
    for kind, depth, edge in (("small", 0.80, 0.004), ("large", 0.72, 0.018)):
        if group := _group(lesions, "DRUSEN", kind):
            opacity, mask, _ = covered(painter, group)
            masks["DRUSEN"] = mask | masks.get("DRUSEN", False)
            blend(image, depth * soften(opacity, edge * scale), np.array([1.06, 0.88, 0.52]) * gain)
    masks |= _neovascular(image, painter, lesions, gain, uneven)
    if pale := _group(lesions, "PIGMENT", "hypo"):
        opacity, masks["PIGMENT"], _ = covered(painter, pale)
        blend(image, 0.34 * soften(opacity, 0.015 * scale), np.array([0.98, 0.72, 0.46]) * gain)
    if dark := _group(lesions, "PIGMENT", "hyper"):
        opacity, mask, _ = covered(painter, dark)
        masks["PIGMENT"] = mask | masks.get("PIGMENT", False)
        melanin = 1.9 * soften(opacity, 0.008 * scale)
        image *= cv2.exp(-cv2.merge([np.ascontiguousarray(c * melanin, np.float32) for c in PIGMENT_CLUMP]))
    return masks
