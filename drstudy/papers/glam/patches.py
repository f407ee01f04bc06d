"""From a coarse map to patches and back (Liu et al. 2021; ``docs/sources.md``, D2 and D5): pooling, proposals, crops, the pasted map.

Two kinds of coordinates occur. *Cells* count positions of a saliency map, *pixels* those of the image. All corners are upper-left
corners, (row, column), int64. A patch that was not proposed has the cells (-1, -1); :func:`to_pixels` moves it wholly out of the image,
so that :func:`crop` gives only filling and :func:`paste` puts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Upsampling = Literal["nearest", "bilinear"]
NOT_PROPOSED = -1


def top_mean(maps: Tensor, share: float, valid: Tensor | None = None) -> Tensor:
    """Mean over the greatest ``share`` of the positions of each map (``docs/sources.md``, D2: image score and local score).

    The number of positions is ``share`` times all (valid) positions, rounded to a whole number, at least 1: 662 of 22,080 at 3 %.

    Args:
        maps: (B, C, h, w), any float dtype.
        share: Above 0, at most 1.
        valid: (B, 1, h, w) or (B, C, h, w) bool; positions outside, such as those beyond the field of view, do not count.

    Returns:
        (B, C) float32; NaN where a map has no valid position. The gradient goes to the positions that were averaged.

    Raises:
        ValueError: If ``share`` is out of range, or ``valid`` does not have the shape of the maps.
    """
    if not 0 < share <= 1:
        raise ValueError(f"The share of positions is {share}; it must be above 0 and at most 1.")
    flat = maps.float().flatten(2)
    if valid is None:
        return flat.topk(_count(share, flat.shape[2]), 2).values.mean(2)
    inside = _inside(maps, valid).flatten(2)
    counts = [[_count(share, number) if number else 0 for number in row] for row in inside.sum(2).tolist()]
    count = torch.tensor(counts, device=maps.device)
    highest = flat.masked_fill(~inside, -torch.inf).topk(max(1, *map(max, counts)), 2).values
    kept = torch.arange(highest.shape[2], device=maps.device) < count[..., None]
    mean = highest.masked_fill(~kept, 0).sum(2) / count.clamp(min=1)
    return torch.where(count > 0, mean, torch.nan)


def _count(share: float, positions: int) -> int:
    return max(1, round(share * positions))


def _inside(maps: Tensor, valid: Tensor) -> Tensor:
    wanted = (maps.shape[0], *maps.shape[2:])
    if (valid.shape[0], *valid.shape[2:]) != wanted or valid.shape[1] not in (1, maps.shape[1]):
        raise ValueError(
            f"The valid positions have the shape {tuple(valid.shape)}, the maps {tuple(maps.shape)}. Give one mask per image, or one per "
            "image and class, of the same height and width."
        )
    return valid.bool().expand(maps.shape)


def enlarge(maps: Tensor, size: tuple[int, int], upsampling: Upsampling) -> Tensor:
    """(N, C, h, w) to (N, C, *size): ``nearest`` as released (``docs/sources.md``, D5) or ``bilinear``.

    Raises:
        ValueError: If ``upsampling`` is neither.
    """
    if upsampling not in ("nearest", "bilinear"):
        raise ValueError(f"UPSAMPLING is {upsampling!r}; it must be 'nearest' or 'bilinear'.")
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    corners = {"align_corners": False} if upsampling == "bilinear" else {}
    return F.interpolate(maps, size=size, mode=upsampling, **corners)


# --- proposals ---------------------------------------------------------------------------------------


@torch.no_grad()
def propose(
    saliency: Tensor,
    count: int,
    window: int | tuple[int, int],
    flat: Literal["first", "none"] = "first",
    least: float = 0.0,
) -> Tensor:
    """Windows of high saliency, found greedily (``docs/sources.md``, D2: patches).

    Each class map is scaled to its own minimum and maximum, and the classes are added. The window with the highest mean is taken and set
    to zero, ``count`` times. Of equal windows the first in reading order is taken. Scaling has the effect that a patch is proposed on
    every image, however low its saliency (D5); ``least`` with ``flat`` set to ``none`` prevents this.

    Args:
        saliency: (B, C, h, w), at least 0. Set positions that must not be proposed to 0.
        count: Number of windows per image, at least 1.
        window: Height and width of a window, cells; one number for both.
        flat: What happens if nothing is left to be proposed, as on flat maps. ``first`` gives the first window. ``none`` marks the patch
            as not proposed.
        least: A class map whose range (maximum minus minimum) is at most this counts as flat and adds nothing. The released code would
            divide by zero at a range of 0 (D5).

    Returns:
        (B, count, 2) int64, cells.

    Raises:
        ValueError: If the window is empty or larger than the map, ``count`` is below 1, or ``flat`` is neither.
    """
    height, width = (window, window) if isinstance(window, int) else window
    rows, columns = saliency.shape[-2:]
    if not (1 <= height <= rows and 1 <= width <= columns):
        raise ValueError(
            f"A window of {height} x {width} cells does not fit a map of {rows} x {columns}. Choose another crop or input size."
        )
    if count < 1:
        raise ValueError(f"The number of patches is {count}; it must be 1 or more.")
    if flat not in ("first", "none"):
        raise ValueError(f"FLAT is {flat!r}; it must be 'first' or 'none'.")
    values = saliency.float()
    lowest, highest = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    extent = highest - lowest
    scaled = torch.where(extent > least, (values - lowest) / extent.clamp(min=1e-30), 0.0)
    left = scaled.sum(1, keepdim=True)
    found = []
    for _ in range(count):
        # along the columns, then along the rows: h + w sums for each cell instead of h * w
        means = F.avg_pool2d(F.avg_pool2d(left, (height, 1), stride=1), (1, width), stride=1)[:, 0]
        best, at = means.flatten(1).max(1)
        corner = torch.stack([at // means.shape[2], at % means.shape[2]], 1)
        left = left.masked_fill(covered(corner[:, None], (height, width), (rows, columns)), 0)
        found.append(corner if flat == "first" else torch.where(best[:, None] > 0, corner, NOT_PROPOSED))
    return torch.stack(found, 1)


def covered(corners: Tensor, window: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Cells of proposed windows, (B, 1, *grid) bool.

    Args:
        corners: (B, K, 2) upper-left cells; a window that was not proposed covers nothing.
        window: Height and width of a window, cells.
        grid: Height and width of the map, cells.
    """
    there = proposed(corners)[..., None]
    inside = []
    for axis, (length, cells) in enumerate(zip(window, grid)):
        place, start = torch.arange(cells, device=corners.device), corners[..., axis, None]
        inside.append((place >= start) & (place < start + length) & there)
    rows, columns = inside
    return (rows[..., :, None] & columns[..., None, :]).any(1, keepdim=True)


def proposed(corners: Tensor) -> Tensor:
    """Which patches were proposed: (B, K, 2) cells to (B, K) bool."""
    return (corners != NOT_PROPOSED).any(2)


def window_of(crop: int, grid: tuple[int, int], image: tuple[int, int]) -> tuple[int, int]:
    """Height and width in cells of a crop of so many pixels, rounded: 512 pixels of 2944 x 1920 are 32 cells of 184 x 120.

    Args:
        crop: Side of the crop, pixels.
        grid: Height and width of the map, cells.
        image: Height and width of the image, pixels.
    """
    return round(crop * grid[0] / image[0]), round(crop * grid[1] / image[1])


def to_pixels(corners: Tensor, grid: tuple[int, int], image: tuple[int, int], crop: int) -> Tensor:
    """Corners in cells (B, K, 2) as corners in pixels, rounded down; patches that were not proposed lie wholly outside.

    Args:
        corners: From :func:`propose`.
        grid: Height and width of the map, cells.
        image: Height and width of the image, pixels.
        crop: Side of a crop, pixels.
    """
    scaled = corners * corners.new_tensor(image)
    pixels = torch.div(scaled, corners.new_tensor(grid), rounding_mode="floor")
    return torch.where(proposed(corners)[..., None], pixels, -crop)


# --- crops and the pasted map --------------------------------------------------------------------------


def crop(x: Tensor, corners: Tensor, size: int, fill: Literal["minimum", "edge"] = "minimum") -> Tensor:
    """Square patches of images (``docs/sources.md``, D2: crops).

    Args:
        x: (B, C, H, W).
        corners: (B, K, 2) int64, pixels; they may lie outside.
        size: Side of a patch, pixels.
        fill: What stands where a patch leaves the image: ``minimum``, the lowest value of the image in each channel, as released; or
            ``edge``, the nearest pixel.

    Returns:
        (B, K, C, size, size), of the dtype of ``x``. Corners have no gradient.

    Raises:
        ValueError: If ``fill`` is neither.
    """
    if fill not in ("minimum", "edge"):
        raise ValueError(f"FILL is {fill!r}; it must be 'minimum' or 'edge'.")
    steps = torch.arange(size, device=x.device)
    rows, columns = corners[..., :1] + steps, corners[..., 1:] + steps
    height, width = x.shape[-2:]
    image = torch.arange(len(x), device=x.device)[:, None, None, None]
    down, across = rows.clamp(0, height - 1)[..., None], columns.clamp(0, width - 1)[..., None, :]
    patches = x[image, :, down, across].movedim(-1, 2)
    if fill == "edge":
        return patches
    there = ((rows >= 0) & (rows < height))[..., None] & ((columns >= 0) & (columns < width))[..., None, :]
    lowest = x.amin((2, 3))[:, None, :, None, None]
    return torch.where(there[:, :, None], patches, lowest)


def paste(
    patch_maps: Tensor,
    corners: Tensor,
    side: int,
    canvas: tuple[int, int],
    overlap: Literal["overwrite", "mean"] = "overwrite",
    misplace: bool = False,
    upsampling: Upsampling = "nearest",
) -> tuple[Tensor, Tensor]:
    """The maps of the patches at their places on a canvas of zeros (``docs/sources.md``, D2: local map).

    Args:
        patch_maps: (B, K, C, h, w), resized to ``side`` first.
        corners: (B, K, 2) int64, pixels.
        side: Side of a crop, pixels.
        canvas: Height and width of the canvas, pixels.
        overlap: ``overwrite``, as released: the last patch wins. ``mean``: the patches are averaged.
        misplace: Of a patch that crosses the border, only a part fits on the canvas. True takes, as the released code, the part at the
            bottom right of the patch, which is wrong at the right and bottom border (D5). False takes the part that belongs there.
        upsampling: See :func:`enlarge`.

    Returns:
        The canvas (B, C, H, W) float32, with gradients to the patch maps, and where a patch covers it, (B, 1, H, W) bool.

    Raises:
        ValueError: If ``overlap`` or ``upsampling`` has another value.
    """
    if overlap not in ("overwrite", "mean"):
        raise ValueError(f"OVERLAP is {overlap!r}; it must be 'overwrite' or 'mean'.")
    images, count, classes = patch_maps.shape[:3]
    large = enlarge(patch_maps.float().flatten(0, 1), (side, side), upsampling).unflatten(0, (images, count))
    whole = large.new_zeros(images, classes, *canvas)
    times = large.new_zeros(images, 1, *canvas)
    for image, patch, there, part in _visible(corners, side, canvas, misplace):
        if overlap == "mean":
            whole[image, :, *there] += large[image, patch, :, *part]
        else:
            whole[image, :, *there] = large[image, patch, :, *part]
        times[image, :, *there] += 1
    return (whole / times.clamp(min=1) if overlap == "mean" else whole), times > 0


def _visible(
    corners: Tensor, side: int, canvas: tuple[int, int], misplace: bool
) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
    """Image, patch, slices of the canvas, and the slices of the patch that go there, for each patch that touches the canvas."""
    for image, patches in enumerate(corners.tolist()):
        for patch, corner in enumerate(patches):
            there, part = [], []
            for start, length in zip(corner, canvas):
                low, high = max(start, 0), min(start + side, length)
                first = side - (high - low) if misplace else low - start
                there.append(slice(low, high))
                part.append(slice(first, first + high - low))
            if all(some.stop > some.start for some in there):
                yield image, patch, tuple(there), tuple(part)


def fuse(
    global_: Tensor, local: Tensor, covered: Tensor, how: Literal["released", "fixed"] = "released"
) -> Tensor:
    """The final map of the global and the local map (``docs/sources.md``, D2: final map).

    Args:
        global_: (B, C, H, W), the global map at the size of the canvas.
        local: (B, C, H, W), the canvas of :func:`paste`.
        covered: (B, 1, H, W) bool.
        how: ``released``: the mean of both everywhere, so that half of the global map is left outside the patches. ``fixed``: the mean
            inside the patches, the global map outside.

    Raises:
        ValueError: If ``how`` is neither.
    """
    if how not in ("released", "fixed"):
        raise ValueError(f"FUSION is {how!r}; it must be 'released' or 'fixed'.")
    mean = (local + global_) / 2
    return mean if how == "released" else torch.where(covered, mean, global_)
