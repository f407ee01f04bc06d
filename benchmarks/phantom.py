"""Growth of the phantom's cost with its size: images and masks of 384 and 1024 px, on one core.

`ours` is the time of the larger size for as many pixels as the smaller size has. A ratio of 1 is linear growth; above 1, growth is slower than linear.
"""

from __future__ import annotations

import numpy as np
from side_by_side import alternate, options, report, set_threads


def main() -> None:
    given = options(
        __doc__.splitlines()[0],
        images=(16, 6, "images of each size"),
        small=(384, 384, "side, pixels"),
        large=(1024, 1024, "side, pixels"),
        repeats=(5, 5, "measurements"),
    )
    set_threads(given.threads)
    import cv2

    from drstudy.data import phantom

    cv2.setNumThreads(given.threads)

    def rendered(size: int) -> np.ndarray:
        """Share of the picture that each structure covers, in each image."""
        config = phantom.PhantomConfig(n_patients=-(-given.images // 2), size=size, seed=2)
        eyes = [phantom.render(config, i) for i in range(given.images)]
        return np.array([[mask.mean() for mask in eye.masks.values()] for eye in eyes])

    seconds, shares = alternate(
        {"small": lambda: rendered(given.small), "large": lambda: rendered(given.large)}, given.repeats
    )
    pixels = (given.large / given.small) ** 2
    gap = np.abs(shares["large"] - shares["small"]).max()
    report(
        "phantom",
        1000 * seconds["large"] / given.images / pixels,
        1000 * seconds["small"] / given.images,
        f"ms for {given.small} x {given.small} px",
        bool(gap < 0.01),  # the same eye: shares of the picture differ by what the rims of masks cover
        greatest_difference_of_mask_shares=float(gap),
        images_a_second_and_core_small=given.images / seconds["small"],
        images_a_second_and_core_large=given.images / seconds["large"],
        time_ratio=seconds["large"] / seconds["small"],
        pixel_ratio=pixels,
    )


if __name__ == "__main__":
    main()
