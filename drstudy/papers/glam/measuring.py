"""What notebook 14 measures: scores of labels, cuts on validation eyes, maps on other eyes, experts' votes, outlines.

Maps of the heads and blind maps are measured on all eyes, a batch at a time. Maps of other notebooks' networks cost a backward pass, so they
can be limited to some eyes (``CHECKED``); every comparison is made on the eyes that both maps have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from drstudy.core import records
from drstudy.core.devices import Compute
from drstudy.core.records import Record
from drstudy.data import votes as votes_data
from drstudy.data.dataset import Dataset
from drstudy.explain.measures import baselines, fine, grid, lesion_maps, localisation, outlines, votes
from drstudy.explain.methods import cam
from drstudy.papers.glam import compared, evidence, fundus_training, maps, tables
from drstudy.papers.glam.params import Glam
from drstudy.papers.glam.training import Trained
from drstudy.training import prediction

CANDIDATES = (*maps.SCALES.values(), maps.MEAN, maps.GLOBAL, maps.LOCAL, maps.REFINED, maps.FUNDUS)
"""Maps among which masks or labels of validation eyes choose. None of them learnt from a mask."""

CUT_COLUMNS = ["map", "region", "cut", "dice", "eyes"]


@dataclass
class Bench:
    """What every measurement needs.

    Attributes:
        trained, p, data, compute: Networks, parameters, photographs, device.
        masks_of: Reader of masks.
        graded: The network of five grades whose maps are compared.
        regressed: Record of notebook 11, or ``None``.
        grid, without_disc: Where maps are measured, with and without the optic disc.
    """

    trained: Trained
    p: Glam
    data: Dataset
    compute: Compute
    masks_of: Callable[[str], localisation.Masks]
    graded: object
    regressed: Record | None = None

    def __post_init__(self) -> None:
        self.grid = grid.Grid(self.masks_of, self.p.regions, self.p.grid)
        self.without_disc = grid.Grid(self.masks_of, self.p.regions, self.p.grid, without_disc=True)
        self._others: dict[tuple[str, ...], tuple[list[str], grid.MapsOf]] = {}
        table = self.data.table
        self.patients: dict[str, str] = dict(zip(table["image_id"], table["patient_id"]))

    def reader(self, eyes: pd.DataFrame, only: Sequence[str] = (), blind: bool = False) -> maps.Reader:
        """Maps of the heads, and on demand the blind ones."""
        side, found = (self.p.grid, self.p.grid), None
        if blind:
            found = baselines.beside(self.data.images, eyes["row"].to_numpy(), [side], self.p.seed)
        return maps.Reader(
            self.trained,
            self.p,
            self.data,
            self.compute,
            eyes,
            blind=found,
            masks_of=self.masks_of,
            only=tuple(only),
        )

    def others(self, eyes: pd.DataFrame) -> tuple[list[str], grid.MapsOf]:
        """Some of the eyes (``CHECKED``), and the maps that other notebooks' networks give for them. They cost backward passes and are
        small, so they are computed once for the same eyes."""
        asked = tuple(eyes["image_id"])
        if asked not in self._others:
            self._others[asked] = self._explained(eyes)
        return self._others[asked]

    def _explained(self, eyes: pd.DataFrame) -> tuple[list[str], grid.MapsOf]:
        some = cam.choose_images(eyes, self.p.checked, self.p.seed)
        found = maps.of_grades(self.graded, self.data, some, self.compute)
        if self.regressed is not None:
            found |= maps.of_score(self.regressed, self.p.backbone, self.data, some, self.compute)
        ids = some["image_id"].tolist()
        return ids, grid.maps_of({name: reduced(one, self.p.grid) for name, one in found.items()}, ids)


def reduced(heat: np.ndarray, side: int) -> np.ndarray:
    """Maps (N, h, w) with at most ``side`` cells per side."""
    return evidence.reduced(torch.from_numpy(np.asarray(heat, np.float32))[:, None], side)[:, 0].numpy()


# --- scores of labels ---------------------------------------------------------------------------------


def shares(p: Glam) -> dict[str, float]:
    """Share of the field whose mean evidence is the score of a label, by map: that of its training; ``ALL_SHARE`` for combined maps."""
    own = {name: p.specs[head].share for head, name in maps.SCALES.items()}
    own |= {maps.COARSE: p.specs["coarse"].share, maps.BAG: p.specs["bag"].share}
    return own


@torch.inference_mode()
def label_scores(bench: Bench, eyes: pd.DataFrame) -> pd.DataFrame:
    """The score of each label of every map of the heads, as a probability.

    Args:
        bench: Networks, photographs, device.
        eyes: ``image_id, patient_id, split, grade, row``.

    Returns:
        ``map``, ``image_id, patient_id, split, grade``, and ``p_<CODE>``, 0..1: the sigmoid of the mean of the highest evidence.
    """
    trained, p, parts = bench.trained, bench.p, {}
    own, net = shares(p), bench.trained.net
    rows = eyes["row"].to_numpy()
    for _, h in prediction.in_batches(
        net.trunk, net, bench.data.images, rows, p.input_size, bench.compute, maps.BATCH
    ):
        features, lit = net.unpack(h.float())
        for name, z in maps.of_features(trained, p, features, lit).items():
            inside = evidence.inside(lit, z.shape[-1])
            found = fundus_training.score(z, inside, own.get(name, p.all_share))
            parts.setdefault(name, []).append(found.sigmoid().cpu().numpy())
    about = eyes[["image_id", "patient_id", "split", "grade"]].reset_index(drop=True)
    columns = [f"p_{code}" for code in p.codes]
    tables = [
        about.assign(map=name, **dict(zip(columns, np.concatenate(found).T))) for name, found in parts.items()
    ]
    return pd.concat(tables, ignore_index=True)[["map", *about.columns, *columns]]


# --- cuts and measures --------------------------------------------------------------------------------


def fit_cuts(bench: Bench, eyes: pd.DataFrame) -> fine.Cuts:
    """Cuts of every map and region, on validation eyes."""
    own = fine.fit_cuts(eyes["image_id"].tolist(), bench.reader(eyes, blind=True), bench.grid, bench.patients)
    ids, others = bench.others(eyes)
    beside = fine.fit_cuts(ids, others, bench.grid, bench.patients)
    return fine.Cuts(pd.concat([own.table, beside.table], ignore_index=True), own.patients)


def load_cuts(record: Record, audit: Record) -> fine.Cuts:
    """The cuts of an earlier run, with the patients whose eyes were used to fit them, as far as they can be among those of an audit.

    Patients of other photographs are other people, even if they have the same identifier, as in phantoms of two seeds.

    Args:
        record: The earlier run.
        audit: Audit of the photographs that are measured now.
    """
    table = pd.read_csv(record.path("tables/cuts.csv"), dtype={"map": str})
    patients = pd.read_csv(record.path("tables/cut_patients.csv"), dtype=str)["patient_id"]
    same = _photographed(records.load(record.params["AUDIT"])) == _photographed(audit)
    return fine.Cuts(table, frozenset(patients if same else ()))


def _photographed(audit: Record) -> tuple[object, ...]:
    """What says whose photographs an audit has: the data set; of a phantom all but the number of patients and the size, since a smaller
    phantom is the beginning of a larger one, and the same eye at any size."""
    of_phantom = ("SEED", "DISTRIBUTION", "DIFFICULTY") if audit.params["SOURCE"] == "phantom" else ()
    return tuple(str(audit.params[name]) for name in ("SOURCE", "DATA_ROOT", *of_phantom))


def complete(cuts: fine.Cuts, names: Sequence[str], regions: Sequence[str]) -> fine.Cuts:
    """The same cuts, NaN for maps that had no part in them, such as RAM where the earlier run had no network of notebook 11."""
    known = set(map(tuple, cuts.table[["map", "region"]].to_numpy()))
    lacking = [
        {"map": name, "region": region, "eyes": 0}
        for name in names
        for region in regions
        if (name, region) not in known
    ]
    if not lacking:
        return cuts
    table = pd.concat([cuts.table, pd.DataFrame(lacking)], ignore_index=True)
    return replace(cuts, table=table.reindex(columns=CUT_COLUMNS))


def measure(
    bench: Bench, eyes: pd.DataFrame, cuts: fine.Cuts | None
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Every map on every eye: rows of eyes, rows of single lesions (:func:`drstudy.explain.measures.fine.measure`), names of maps."""
    ids, others = bench.others(eyes)
    reader, every = bench.reader(eyes, blind=True), eyes["image_id"].tolist()
    found, names = [], []
    for some, maps_of in ((every, reader), (ids, others)):
        own = list(maps_of(some[0]))
        at = complete(cuts, own, bench.p.regions) if cuts else None
        found.append(fine.measure(some, maps_of, bench.grid, bench.patients, at, maps.kinds(own)))
        names += own
    tables = (pd.concat(parts, ignore_index=True) for parts in zip(*found))
    return (*tables, names)


def measure_without_disc(
    bench: Bench, eyes: pd.DataFrame, cuts: fine.Cuts, only: Sequence[str]
) -> pd.DataFrame:
    """Rows of eyes for a few maps, with the cells of the optic disc taken out of the field."""
    known = [name for name in only if name not in (maps.DISEASE, maps.GRADE)]
    ids, others = bench.others(eyes)
    parts = []
    for some, maps_of in ((eyes["image_id"].tolist(), bench.reader(eyes, only=known)), (ids, others)):
        own = list(maps_of(some[0]))
        at = complete(cuts, own, bench.p.regions)
        table, _ = fine.measure(some, maps_of, bench.without_disc, bench.patients, at, maps.kinds(own))
        parts.append(table[table["map"].isin(only)])
    return pd.concat(parts, ignore_index=True)


def average_precision(bench: Bench, eyes: pd.DataFrame, only: Sequence[str]) -> pd.DataFrame:
    """Mean average precision of some maps by region: ``map, region, eyes, ap``. For choosing a map by masks."""
    table, _ = fine.measure(
        eyes["image_id"].tolist(),
        bench.reader(eyes, only=only),
        bench.grid,
        bench.patients,
        kinds=maps.kinds(only),
    )
    there = table[table["present"].astype(bool)]
    found = there.groupby(["map", "region"], sort=False)["aupr"].agg(["count", "mean"]).reset_index()
    return found.rename(columns={"count": "eyes", "mean": "ap"})


def validation_scores(
    bench: Bench, eyes: pd.DataFrame, labels: pd.DataFrame, names: Sequence[str]
) -> pd.DataFrame:
    """Validation scores of each map; see :func:`drstudy.papers.glam.compared.validation_scores`."""
    said = label_scores(bench, eyes)
    scored = tables.label_scores(
        said[said["map"].isin(names)], labels, bench.p.codes, resamples=1, seed=bench.p.seed
    )
    return compared.validation_scores(average_precision(bench, eyes, names), scored)


def measure_votes(bench: Bench, audit: Record, eyes: pd.DataFrame) -> pd.DataFrame | None:
    """Every map against the regions of at least 1, 2, ... experts; ``None`` if the audit's source has no votes."""
    try:
        votes_of = votes_data.reader(audit, bench.p.codes)
    except votes_data.VotesError:
        return None
    ids, others = bench.others(eyes)
    parts = []
    for some, maps_of in ((eyes["image_id"].tolist(), bench.reader(eyes, blind=True)), (ids, others)):
        kinds = maps.kinds(list(maps_of(some[0])))
        parts.append(
            votes.measure(some, maps_of, votes_of, bench.p.regions, bench.p.grid, bench.patients, kinds=kinds)
        )
    return pd.concat(parts, ignore_index=True)


# --- the proposed map -----------------------------------------------------------------------------------


def proposed(names: Sequence[str]) -> str:
    """The map that this study proposes; the global map where there is no refined one."""
    return maps.FUNDUS if maps.FUNDUS in names else maps.GLOBAL


def headline_maps(names: Sequence[str]) -> list[str]:
    """Maps of the short table: the proposed one, its rivals, the upper bound, and the blind maps."""
    wanted = (proposed(names), maps.GLOBAL, maps.COARSE, maps.BAG, maps.DISEASE, maps.RAM)
    return [name for name in (*dict.fromkeys(wanted), maps.SUPERVISED, *baselines.NAMES) if name in names]


def keep(bench: Bench, eyes: pd.DataFrame, cuts: fine.Cuts, name: str, path: Path) -> lesion_maps.LesionMaps:
    """Compute the proposed map of all eyes and write it; see :func:`drstudy.explain.measures.lesion_maps.save`."""
    reader, labels = bench.reader(eyes, only=[name]), outlined_labels(bench.p)
    found = np.stack(
        [reader(image_id)[name][: len(labels)].astype(np.float16) for image_id in eyes["image_id"]]
    )
    at = cuts.of([name], labels)[0]
    return lesion_maps.save(path, found, eyes["image_id"].tolist(), labels, at)


def outlined_labels(p: Glam) -> tuple[str, ...]:
    """Names of what is outlined: the codes, or all lesions together where the label is the grade."""
    return p.regions[: len(p.codes)]


def outline(
    kept: lesion_maps.LesionMaps, image_ids: Sequence[str], said: pd.DataFrame, bench: Bench
) -> tuple[dict[str, list[outlines.Outline]], pd.DataFrame]:
    """Outlines at the validation cut, and how they agree with the masks.

    Args:
        kept: Result of :func:`keep`.
        image_ids: Eyes to outline.
        said: ``image_id`` and ``p_<CODE>``, the scores that the outlines carry.
        bench: Masks and parameters.

    Returns:
        image_id to outlines; rows of :func:`drstudy.explain.measures.outlines.agreement` with ``image_id``.
    """
    labels = list(kept.codes)
    by_image = said.set_index("image_id")[[f"p_{code}" for code in bench.p.codes]]
    traced, found = {}, []
    for image_id in image_ids:
        masks = dict(bench.masks_of(image_id))
        named = localisation.regions(masks)
        masks |= {label: named.get(label) for label in labels}
        score = by_image.loc[image_id].to_numpy(float)
        traced[image_id], agreed = lesion_maps.outline(
            kept, image_id, labels, score, np.zeros(len(labels)), masks
        )
        found.append(agreed.assign(image_id=image_id))
    return traced, pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def pictures(image_ids: Sequence[str], bench: Bench) -> Mapping[str, tuple[np.ndarray, Mapping]]:
    """image_id to its photograph (S, S, 3) uint8 and its masks, for figures."""
    rows = bench.data.table.set_index("image_id")["row"]
    return {
        name: (np.asarray(bench.data.images[rows[name]]), bench.masks_of(name))
        for name in dict.fromkeys(image_ids)
    }
