"""From large JPEGs to the image store: against torchvision's ImageFolder with Resize, and against decoding alone.

Ours also finds the field of view, crops, measures quality and hashes each photograph for the audit; the others do not. The limit is
libjpeg-turbo's reduced decode of the same files (simplejpeg), at the scale that ours decodes, with nothing else done.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from side_by_side import alternate, options, report, set_threads

WIDTH, HEIGHT = 3000, 2000


def photographs(folder: Path, files: int, distinct: int) -> pd.DataFrame:
    """Phantom eyes of 2000 px, with lesions, on 3000 x 2000 px black, JPEG quality 90; ``files`` names for ``distinct`` pictures."""
    from PIL import Image

    from drstudy.data import manifest, phantom

    config = phantom.PhantomConfig(n_patients=distinct, size=HEIGHT, seed=3, distribution=(0, 0, 1, 1, 1))
    folder.mkdir()
    paths = []
    for number in range(files):
        path = folder / f"eye{number:05}.jpeg"
        if number < distinct:
            picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            picture[:, (WIDTH - HEIGHT) // 2 : (WIDTH + HEIGHT) // 2] = phantom.render(config, number).image
            Image.fromarray(picture).save(path, quality=90)
        else:
            os.link(paths[number % distinct], path)
        paths.append(path)
    rows = [
        {"image_id": p.stem, "path": str(p), "patient_id": p.stem, "eye": "", "grade": 2, "source": "phantom"}
        for p in paths
    ]
    return manifest.build(rows)


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        files=(96, 32, "JPEG files"),
        distinct=(24, 8, "distinct pictures among them"),
        size=(512, 512, "side of the result, pixels"),
        repeats=(5, 5, "measurements"),
        many=(768, 0, "files for one process against two; 0 leaves that out"),
    )
    set_threads(given.threads)
    import simplejpeg
    import torch

    from drstudy.data import images
    from drstudy.models.compat import torchvision

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        manifest = photographs(scratch / "all", max(given.files, given.many), given.distinct)
        some = manifest.iloc[: given.files]
        (scratch / "folder").mkdir()
        (scratch / "folder" / "2").mkdir()
        for path in some["path"]:
            os.link(path, scratch / "folder" / "2" / Path(path).name)
        usual = torchvision.datasets.ImageFolder(
            scratch / "folder", torchvision.transforms.Resize(given.size)
        )
        count = iter(range(10**6))

        def store(frame: pd.DataFrame, workers: int) -> images.ImageStore:
            return images.build(frame, given.size, workers, folder=scratch / f"store{next(count)}")

        def resized() -> np.ndarray:
            out = np.empty((len(usual), given.size, given.size * WIDTH // HEIGHT, 3), np.uint8)
            for row in range(len(usual)):
                out[row] = np.asarray(usual[row][0])
            return out

        reduce = int(store(some.iloc[:1], 1).index["reduce"].iloc[0])

        def decoded() -> None:
            for path in some["path"]:
                content = Path(path).read_bytes()
                simplejpeg.decode_jpeg(
                    content, "RGB", min_height=HEIGHT // reduce, min_width=WIDTH // reduce, min_factor=reduce
                )

        seconds, results = alternate(
            {"ours": lambda: store(some, 1), "other": resized, "limit": decoded}, given.repeats
        )
        each = {name: 1000 * value / len(some) for name, value in seconds.items()}
        same = difference(results["ours"], results["other"])
        report(
            "prepare_images",
            each["ours"],
            each["other"],
            "ms an image, one process",
            same < 2.0,
            mean_difference_levels=same,
            limit=each["limit"],
            share_of_limit=each["limit"] / each["ours"],
            reduced_decode=f"1/{reduce}",
            files=len(some),
            megabytes_each=sum(Path(p).stat().st_size for p in some["path"]) / len(some) / 1e6,
        )
        if given.many:
            seconds, results = alternate(
                {"one": lambda: store(manifest, 1), "two": lambda: store(manifest, 2)}, given.repeats
            )
            report(
                "prepare_images_two_processes",
                1000 * seconds["two"] / len(manifest),
                1000 * seconds["one"] / len(manifest),
                "ms an image, two processes against one",
                results["one"].info == results["two"].info,
                files=len(manifest),
            )


def difference(store, resized: np.ndarray) -> float:
    """Mean absolute difference (levels of 255) inside the square that ours cut out, brought to the other's scale."""
    import cv2

    differences = []
    for row in range(0, len(resized), max(1, len(resized) // 16)):
        crop = store.crop(store.index["image_id"].iloc[row])
        cut = crop.cut(resized[row], store.image_size, cv2.INTER_LINEAR).astype(float)
        differences.append(np.abs(cut - store.images[row]).mean())
    return float(np.mean(differences))


if __name__ == "__main__":
    main()
