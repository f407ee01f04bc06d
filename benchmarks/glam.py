"""Lesion maps of notebook 14 at 512 px, compared with Grad-CAM of the same backbone at 512 px: time per image, and memory for N and 2N images.

`ours` is all that a reader of the proposed map needs: photograph, folded EfficientNet-Lite0 read at strides 4 to 32, four heads, and maps of 128 x 128 cells,
one for each of five lesions and one for all. `other` is Grad-CAM of one network of five grades, one map of 16 x 16 cells, in its closed form. The backbone and
the photographs are the same. The maps are not, so the ratio is the cost of maps that are eight times as fine. Heads are not trained, since times do not depend
on their weights. Goals: five images per second on two cores, and memory that does not grow with the number of images.

Since the two sides make different maps, ``same result`` compares ours with the same network read plainly: norms not folded, one photograph at a
time. Probabilities may differ by float32 noise (at most 1e-4), and must vary within a map by more than a hundred times that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from side_by_side import alternate, options, report, set_threads

SIZE = 512
DISTINCT = 8
"""Photographs that are rendered; each is read as often as needed, so that memory is that of the maps and not of the photographs."""

NOISE = 1e-4
"""Greatest difference of probabilities that is float32 noise."""

IMPLIED = ((1,), (), (), (), ())
"""On the phantom, haemorrhages imply microaneurysms."""


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        threads=2,
        images=(24, 8, "images"),
        repeats=(5, 5, "measurements"),
    )
    set_threads(given.threads)
    from drstudy.explain.methods import cam

    ours, plain, net, data, eyes, compute = prepared(given.images, given.threads)
    rows = eyes["row"].to_numpy()
    sides = {
        "ours": lambda: read(ours(), eyes),
        "grad-cam": lambda: cam.explain_images(net, data.images, eyes["image_id"], SIZE, compute, rows),
    }
    seconds, _ = alternate(sides, given.repeats)
    began = time.process_time()
    sides["ours"]()
    processor = time.process_time() - began
    gap, spread = difference(ours(), plain, eyes)
    peaks = {number: peak(number, given.threads) for number in (given.images, 2 * given.images)}
    few, many = peaks.values()
    report(
        f"glam maps of {SIZE} px, against Grad-CAM",
        1000 * seconds["ours"] / given.images,
        1000 * seconds["grad-cam"] / given.images,
        "ms an image",
        gap <= NOISE and spread > 100 * NOISE,
        greatest_difference_from_plain_reading=gap,
        least_range_of_a_map=spread,
        images=given.images,
        threads=given.threads,
        images_a_second=given.images / seconds["ours"],
        processor_ms_an_image=1000 * processor / given.images,
        peak_mib=[round(value) for value in (few, many)],
        memory_growth_a_doubling=round(many / few - 1, 3),
        load=os.getloadavg()[0],
    )


def prepared(images: int, threads: int):
    """A function that makes a new reader of the fundus map, one that reads the network plainly, a network of grades, the photographs, the eyes, and
    the device."""
    import numpy as np
    import pandas as pd
    import torch

    from drstudy.core import devices
    from drstudy.data import phantom
    from drstudy.data.dataset import Dataset
    from drstudy.models import nets
    from drstudy.papers.glam import evidence, fundus_training, maps, training
    from drstudy.papers.glam.params import Glam
    from drstudy.training import transforms

    compute = devices.setup("cpu", "fp32", threads, 0)
    config = phantom.PhantomConfig(n_patients=DISTINCT // 2, size=SIZE, seed=5)
    photographs = np.stack([phantom.render(config, i).image for i in range(DISTINCT)])
    number = np.arange(images)
    eyes = pd.DataFrame({"image_id": number.astype(str), "row": number % DISTINCT, "split": "train"})
    data = Dataset(photographs, eyes, "benchmark")
    p = Glam(input_size=SIZE, hidden=64, grid=SIZE // 4, threads=threads)
    net = training.build(p, data, compute).requires_grad_(False)
    scales, labels = len(fundus_training.SALIENCY), len(IMPLIED)
    rules = evidence.Rules(IMPLIED, ((1 / scales,) * labels,) * scales)
    trained = training.Trained(net, rules, {}, pd.DataFrame())
    graded = nets.build("efficientnet_lite0", "single", "bundled", 0).eval()
    graded.to(memory_format=torch.channels_last)

    def reader():
        return maps.Reader(trained, p, data, compute, eyes, only=(maps.FUNDUS,))

    def plain(row: int) -> np.ndarray:
        x = transforms.to_input(photographs[row : row + 1], SIZE, net.mean, net.std)
        with torch.inference_mode():
            logits = maps.of_heads(trained, p, net.eval().trunk(x), (maps.FUNDUS,))[maps.FUNDUS]
            read = evidence.reduced(logits.sigmoid(), p.grid)[0]
        return torch.cat([read, read.amax(0, keepdim=True)]).numpy()

    return reader, plain, graded, data, eyes, compute


def difference(reader, plain, eyes) -> tuple[float, float]:
    """Greatest difference of the maps of all distinct photographs from the plain reading, and the least range of values within a map."""
    gaps, ranges = [], []
    for name, row in eyes[["image_id", "row"]].iloc[:DISTINCT].itertuples(index=False):
        [found] = reader(name).values()
        gaps.append(abs(found - plain(row)).max())
        ranges.append((found.max((1, 2)) - found.min((1, 2))).min())
    return float(max(gaps)), float(min(ranges))


def read(reader, eyes) -> float:
    """Compute the maps of all eyes, one after the other, and keep none."""
    return max(float(maps.max()) for name in eyes["image_id"] for maps in reader(name).values())


def peak(images: int, threads: int) -> float:
    """Peak memory, MiB, of a separate process that computes the maps of the given number of images."""
    command = [sys.executable, "-c", f"import glam; glam.measured({images}, {threads})"]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path[1:]])
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": path},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    return json.loads(done.stdout.splitlines()[-1])


def measured(images: int, threads: int) -> None:
    """Print the peak memory of this process after the maps of the given number of images."""
    import resource

    reader, _, _, _, eyes, _ = prepared(images, threads)
    read(reader(), eyes)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    main()
