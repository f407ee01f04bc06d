"""Gain in time and cost in accuracy of bf16: the same recipe fine-tuned in fp32 and in bf16, with EfficientNet-Lite0 on phantom eyes.

Both run one epoch each, in turn, in one process. Both also need the trunk on K views, which is counted separately. Afterwards each network grades the same
held-out eyes in its own precision. The difference in quadratic weighted kappa (bf16 minus fp32) has an interval over patients. Whether bf16 is faster depends on
the processor: without units for it, it is slower. The line therefore states the kind of processor.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import tempfile
import time
from pathlib import Path

import pandas as pd
from fine_tune import SIZE, kappa_difference, phantom_files, with_rows
from side_by_side import alternate, options, report, set_threads


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        images=(256, 32, "training images"),
        test=(256, 48, "test images, for the difference in kappa"),
        epochs=(10, 5, "epochs measured"),
        batch=(32, 16, "images a step"),
        views=(4, 1, "views in the feature store"),
    )
    set_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DRSTUDY_DATA"] = scratch

        from drstudy.core import devices
        from drstudy.data import images, phantom
        from drstudy.data.dataset import Dataset
        from drstudy.papers.transfer import params
        from drstudy.training import features, grading, networks, prediction

        count = given.images + given.test
        config = phantom.PhantomConfig(n_patients=-(-count // 2), size=256, seed=11, distribution="mild")
        manifest = phantom_files(config, Path(scratch), given.images, given.test)
        with contextlib.redirect_stderr(io.StringIO()):
            store = images.build(manifest, 256, given.threads, folder=Path(scratch) / "images")
        rows = with_rows(manifest, store)
        test = rows[rows["split"] == "test"]
        rows = [rows, test.tail(1).assign(split="validation")]  # must be there; never looked at
        data = Dataset(store.images, pd.concat(rows), store.folder.name)
        recipe = params.FineTuning(
            backbone="efficientnet_lite0",
            weights="bundled",
            sampler="inverse",
            batch_size=given.batch,
            views=given.views,
            input_size=SIZE,
            learning_rate=3e-4,
            select_by="last",
        )
        sides, nets, stored = {}, {}, {}
        for precision in ("fp32", "bf16"):
            compute = devices.setup("cpu", precision, given.threads, 0)
            net = nets[precision] = networks.build(recipe, data, compute)
            with contextlib.redirect_stdout(io.StringIO()):
                cached = features.open_features(net, data, recipe, compute)
                cached.prepare()
            stored[precision] = cached.seconds
            sides[precision] = epochs(grading.Grading(net, cached, recipe, compute))
        seconds, _ = alternate(sides, given.epochs, time.process_time)
        tables, kappas = {}, {}
        for precision, net in nets.items():
            pixels = store.images[test["row"].to_numpy()]
            found = prediction.predict(net, pixels, devices.Compute("cpu", precision), SIZE)
            tables[precision] = prediction.frame(test, found)
            kappas[precision] = grading.qwk(test["grade"].to_numpy(int), found.argmax(1))
        difference = kappa_difference(tables["bf16"], tables["fp32"])
        report(
            "precision efficientnet_lite0, bf16 against fp32",
            1000 * seconds["bf16"] / given.images,
            1000 * seconds["fp32"] / given.images,
            "ms of the processor an image and epoch",
            difference["qwk_difference_lo"] <= 0 <= difference["qwk_difference_hi"],
            qwk_bf16=kappas["bf16"],
            qwk_fp32=kappas["fp32"],
            **difference,
            after_epochs=given.epochs + 1,
            images=given.images,
            test_images=len(test),
            trunk_once_bf16=stored["bf16"],
            trunk_once_fp32=stored["fp32"],
        )


def epochs(task):
    """A function that trains one more epoch at each call."""
    from drstudy.training import loop

    numbers = itertools.count(1)
    return lambda: loop.train_epoch(task, next(numbers))


if __name__ == "__main__":
    main()
