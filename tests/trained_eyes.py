"""A finished audit and a finished fine-tuning of a small untrained network, for tests of what explains photographs. They describe no eye."""

from __future__ import annotations

import numpy as np
import pandas as pd
from fabricated import eyes, graded
from photographs import encoded, photograph
from untrained import network

from drstudy.core import records
from drstudy.data import audit as audits
from drstudy.data import images, manifest, splits
from drstudy.papers.transfer import params
from drstudy.training import prediction

SIZE = 96
VARIANT = "efficientnet_lite0-seed0"
MODEL = f"results/smoke/03_fine_tuning/{VARIANT}"
PATIENTS = 8


def audit(folder, source: str = "eyepacs") -> records.Record:
    """Sixteen drawn eyes with their image store; the lower left of each has a bright square, which is its mask of hard exudates."""
    p = params.DataAudit(source=source, image_size=SIZE)
    run = records.start(p)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for place in range(2 * PATIENTS):
        name = f"{place // 2:02d}_{('left', 'right')[place % 2]}"
        picture = photograph(place, 240)
        mask = np.zeros((240, 240), np.uint8)
        mask[150:180, 60:90] = 255
        picture[mask > 0] = (240, 230, 160)
        (folder / f"{name}.png").write_bytes(encoded(picture, "PNG"))
        (folder / f"{name}_EX.png").write_bytes(encoded(mask, "PNG"))
        rows.append(
            {
                "image_id": name,
                "path": str(folder / f"{name}.png"),
                "patient_id": name[:2],
                "eye": name[3:],
                "grade": place // 2 % 5,
                "source": source,
                "mask_EX": str(folder / f"{name}_EX.png"),
            }
        )
    table = manifest.build(rows)
    store = images.build(table, SIZE, workers=1)
    split = table[["image_id", "patient_id", "grade"]].copy()
    split["split"] = [
        ("train", "train", "validation", "test")[int(name[:2]) % 4] for name in split["image_id"]
    ]
    pairs = pd.DataFrame(columns=["image_id_a", "image_id_b", "kind"])
    audits.save(run, table, store.problems, audits.table(store), pairs, split, store)
    splits.check(splits.read(run.path("split.csv")), pairs)
    run.finish()
    return records.load(run.folder)


def trained(**changes) -> records.Record:
    """A finished result of notebook 03 with an untrained network, and validation predictions that a temperature can be fitted on."""
    p = params.FineTuning(**changes)
    run = records.start(p)
    net = network(p.backbone)
    prediction.save(net, run.path("model.safetensors"), p.input_size)
    test = graded(eyes(30, seed=3), 2, 5)
    validation = test.assign(split="validation", image_id=test["image_id"] + "_v")
    prediction.write(pd.concat([test, validation]), run.path("predictions.csv"))
    run.metric(weights_used="bundled", qwk=0.41, qwk_lo=0.2, qwk_hi=0.6)
    run.finish()
    return records.load(run.folder)
