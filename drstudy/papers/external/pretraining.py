"""Whether a network that learnt to grade synthetic eyes is a better start for real ones than the same network from ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from drstudy.core import records
from drstudy.papers.external import crossed, recipes, tables
from drstudy.papers.external.cohorts import POOLED, Cohort
from drstudy.papers.external.crossed import Bench
from drstudy.training import prediction

if TYPE_CHECKING:
    from drstudy.core.devices import Compute
    from drstudy.papers.external.params import External

SYNTHETIC, IMAGENET, BOTH = "synthetic eyes", "ImageNet", "both"
"""What the frozen network learnt from; the last averages the similarities of the two networks."""


def compare(
    p: External, bench: Bench, sets: Sequence[Cohort], run: records.Run, compute: Compute
) -> pd.DataFrame:
    """Scores on real eyes of heads on the two networks, and their paired differences, by number of training photographs.

    The input of both is of the size at which the network learnt from synthetic eyes. Heads learn from the sets of this profile.

    Args:
        p: Parameters; ``pretrained`` names the result with the network.
        bench: Images and folds.
        sets: The sets.
        run: Notes the network as an input.
        compute: Device and precision.

    Returns:
        Long: ``photographs`` (for training), ``what`` (the score of each start, or a difference to ImageNet), ``test, metric, value, lo,
        hi, n_valid``.

    Raises:
        drstudy.core.records.RecordError: If the network is not there.
    """
    record = records.upstream(p.pretrained, run)
    learnt = prediction.load(record)
    learnt.to(compute.device)
    plain = recipes.networks([learnt.backbone], p.weights, p.seed, compute)[learnt.backbone]
    found = {IMAGENET: plain, SYNTHETIC: learnt}
    steps = {name: recipes.Recipe((name,)) for name in found} | {BOTH: recipes.Recipe(tuple(found))}
    mine = [one for one in sets if one.own]
    kernels = recipes.kernels(steps, found, mine, learnt.input_size, compute)
    table = bench.table[bench.table["own"]].reset_index(drop=True)
    own = replace(bench, table=table, recipes=steps, kernels=kernels)
    training = POOLED if len(mine) > 1 else mine[0].name
    rows = []
    for size in (p.sizes[0], p.sizes[len(p.sizes) // 2], 0):
        photographs = size or len(own.rows(training)) * (p.folds - 1) // p.folds
        tested = {name: crossed.train(own, training, [name], size, p.seed).predictions for name in steps}
        for name, frame in tested.items():
            draws = tables.drawn({name: frame}, p.resamples, p.seed)
            score = tables.matrix(draws).query("mix == 'own'").drop(columns=["mix", "training"])
            rows.append(score.assign(photographs=photographs, what=name))
            if name != IMAGENET:
                change = tables.differences(frame, tested[IMAGENET], p.resamples, p.seed)
                rows.append(change.assign(photographs=photographs, what=f"{name} minus {IMAGENET}"))
    columns = ["photographs", "what", "test", "metric", "value", "lo", "hi", "n_valid"]
    whole = pd.concat(rows, ignore_index=True)
    return whole[whole["metric"].isin(("qwk", "auc_ge2"))][columns].reset_index(drop=True)
