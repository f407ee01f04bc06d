"""A finished notebook 11 with untrained networks, for tests of what explains photographs by a regressed grade. They describe no eye."""

from __future__ import annotations

import numpy as np
import pandas as pd
from untrained import network

from drstudy.core import records
from drstudy.core.devices import Compute
from drstudy.data import dataset
from drstudy.evaluation import common
from drstudy.explain.measures import common_maps
from drstudy.models import nets
from drstudy.papers.ram import model, params, system, training
from drstudy.training import prediction

RAM = "results/smoke/11_ram"
CPU = Compute("cpu", "fp32")
OFFSET = 2.0
"""Is added to the bias of every head, so that scores lie among the grades."""


def networks() -> dict[tuple[str, int], nets.GradingNet]:
    """A network of the paper, its baseline and a backbone, each with one output, by name and size."""
    made = {(name, 128): model.build(name, 128, seed=1) for name in ("ram_net5", "baseline_net5")}
    made["efficientnet_lite0", 128] = network("efficientnet_lite0", outputs=1)
    for (name, size), net in made.items():
        net.input_size = size
        if name != "baseline_net5":
            net.net.get_submodule(net.head_path).bias.data += OFFSET
        net.eval()
    return made


def regressed(**changes) -> records.Record:
    """The result, of the audit that :func:`trained_eyes.audit` made; scores and maps are those of the networks."""
    p = params.Ram(sizes=(128,), net_epochs=(1,), net_learning_rates=(1e-3,), **changes)
    run = records.start(p)
    data = dataset.load(records.upstream(p.audit, run))
    eyes = data.part("validation")
    both = common.eyes(data.part("test"), eyes)
    trained = []
    for (name, size), net in networks().items():
        outputs = prediction.logits(net, data.images, both["row"].to_numpy(), size, CPU)[:, 0]
        scores = both[["image_id", "patient_id", "split", "grade"]].assign(score=outputs.astype(float))
        scores.insert(0, "network", name)
        scores.insert(1, "size", size)
        trained.append(training.Trained(name, size, net, None, scores))
    training.save(trained, run.folder)
    prediction.write(
        pd.concat([one.scores for one in trained], ignore_index=True), run.path("predictions.csv")
    )
    one = system.chosen(trained, p.backbone)
    common_maps.save(run.path(common_maps.FILE), system.maps(one, data, both, CPU, p.tta), both)
    kappa = {f"qwk_{name}_{size}{end}": value for name, size in networks() for end, value in KAPPA.items()}
    run.metric(weights_used="bundled", **kappa)
    run.finish()
    return records.load(run.folder)


KAPPA = {"": 0.31, "_lo": 0.12, "_hi": 0.48}


def stored_score(record: records.Record, network: str, image_id: str) -> float:
    """The score of an eye in the predictions of a result."""
    table = pd.read_csv(record.path("predictions.csv"), dtype={"image_id": str})
    row = table[(table["network"] == network) & (table["image_id"] == image_id)]
    return float(np.asarray(row["score"])[0])
