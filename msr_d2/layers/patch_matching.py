"""Nearest patches of another frame: box-filtered differences of shifted frames, running top-K.

No patch is ever unfolded. For one offset, the distance of all patches is the difference of the
shifted frames, summed over channels and then over N x N cells. Memory is a few planes, whatever the
number of candidates.

Letters: M pairs of frames, C channels, h x w grid, N x N patch, K neighbours, R radius.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

METRICS = ("l2", "l1")

# Cells that are worked on at once: on a CPU they should stay in the cache.
_CPU_CELLS, _GPU_CELLS = 2**15, 2**22


def window_offsets(radius: int, dilation: int = 1) -> list[tuple[int, int]]:
    """(dy, dx) in a square window of (2 radius + 1)^2 candidates, from the centre outwards."""
    reach = [step * dilation for step in range(-radius, radius + 1)]
    offsets = [(dy, dx) for dy in reach for dx in reach]
    return sorted(offsets, key=lambda offset: offset[0] ** 2 + offset[1] ** 2)


@torch.no_grad()
def nearest_patches(
    first: torch.Tensor,
    second: torch.Tensor,
    offsets: Sequence[tuple[int, int]],
    usable: torch.Tensor,
    patch_size: int = 3,
    top_k: int = 5,
    metric: str = "l2",
    outside_is_black: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The K patches of the first frame that are nearest to the patch around each cell.

    Patches reach beyond the grid, where both frames are 0.

    Args:
        first: (M, C, h, w) float, the frames in which neighbours are sought.
        second: (M, C, h, w), the frames of the centres.
        offsets: candidates, cell p is compared with p + (dy, dx). Earlier ones win ties.
        usable: (M, h, w) bool, cells of the first frame that are candidates.
        patch_size: N, odd.
        top_k: K.
        metric: "l2" (Euclidean) or "l1", over the C N^2 values of a patch.
        outside_is_black: candidates that are not usable count as patches of zeros, as in the
            official code, instead of being left out.

    Returns:
        Distances (M, K, h, w) float32 in ascending order, infinite where there are fewer than K
        candidates, and flat cell indices (M, K, h, w) int64 into the first frame; -1 where the
        neighbour is not a usable cell.

    Raises:
        ValueError: for an unknown metric.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; it must be one of {', '.join(METRICS)}")
    count, _, height, width = first.shape
    reach = max((max(abs(dy), abs(dx)) for dy, dx in offsets), default=0)
    margin = patch_size // 2
    frames = (
        F.pad(first.float(), [reach + margin] * 4),
        F.pad(second.float(), [margin] * 4),
        F.pad(usable, [reach] * 4),
    )
    keys = torch.empty(count, top_k, height, width, dtype=torch.int64, device=first.device)
    for pairs, rows in _pieces(count, height, width, first.is_cuda):
        keys[pairs, :, rows] = _smallest_keys(
            [frame[pairs] for frame in frames],
            (rows, width),
            (offsets, reach, patch_size, top_k, metric, outside_is_black),
        )
    distance = (keys // len(offsets)).to(torch.int32).view(torch.float32)
    index = _cell_index(keys % len(offsets), offsets, frames[2], reach)
    index = index.masked_fill(distance.isinf(), -1)
    return (distance.sqrt() if metric == "l2" else distance), index


def _pieces(count: int, height: int, width: int, on_gpu: bool):
    """Slices of pairs and rows with a limited number of cells."""
    limit = _GPU_CELLS if on_gpu else _CPU_CELLS
    pairs = max(1, limit // max(height * width, 1))
    rows = max(1, limit // max(width, 1))
    for start in range(0, count, pairs):
        for top in range(0, height, rows):
            yield slice(start, min(start + pairs, count)), slice(top, min(top + rows, height))


def _smallest_keys(frames, area, settings) -> torch.Tensor:
    """Running top-K over the candidates: (m, K, rows, w) keys in ascending order.

    A key holds the distance and the number of the candidate in one integer: the bits of a float
    that is not negative sort like the float. So minimum and maximum sort both at once.
    """
    first, second, usable = frames
    rows, width = area
    offsets, reach, patch_size, top_k, metric, outside_is_black = settings
    top, height = rows.start, rows.stop - rows.start
    centre = second[:, :, top : rows.stop + patch_size - 1]
    missing = torch.full((), float("inf"), device=first.device)
    nothing = _keys(missing, 0, len(offsets)).expand(len(first), height, width)
    best = [nothing] * top_k
    if outside_is_black:
        missing = _patch_distance(centre, torch.zeros_like(centre), patch_size, metric)
    for number, (dy, dx) in enumerate(offsets):
        y, x = top + reach + dy, reach + dx
        other = first[:, :, y : y + centre.shape[2], x : x + centre.shape[3]]
        distance = _patch_distance(centre, other, patch_size, metric)
        inside = usable[:, y : y + height, x : x + width]
        key = _keys(torch.where(inside, distance, missing), number, len(offsets))
        for k in range(min(number + 1, top_k)):
            best[k], key = torch.minimum(best[k], key), torch.maximum(best[k], key)
    return torch.stack(best, dim=1)


def _keys(distance: torch.Tensor, number: int, total: int) -> torch.Tensor:
    """int64 that sorts by distance first and by the number of the candidate second."""
    return distance.view(torch.int32).to(torch.int64).mul_(total).add_(number)


def _patch_distance(
    first: torch.Tensor, second: torch.Tensor, patch_size: int, metric: str
) -> torch.Tensor:
    """Sum of the (squared) differences over channels and patches: (m, rows, w)."""
    difference = first - second
    difference = difference.mul_(difference) if metric == "l2" else difference.abs_()
    return _window_sum(_window_sum(difference.sum(1), 1, patch_size), 2, patch_size)


def _window_sum(values: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """Sums of `size` neighbours along a dimension, which gets shorter by size - 1."""
    length = values.shape[dim] - size + 1
    total = values.narrow(dim, 0, length).clone()
    for start in range(1, size):
        total += values.narrow(dim, start, length)
    return total


def _cell_index(number, offsets, usable, reach) -> torch.Tensor:
    """Flat cell index of candidate `number` (M, K, h, w), -1 if that cell is not usable."""
    height, width = number.shape[-2:]
    # Without a wait for the device, unlike torch.tensor(offsets, device=...).
    shifts = torch.tensor(offsets).to(number.device, non_blocking=True)[number]
    y = shifts[..., 0] + torch.arange(height, device=number.device)[:, None]
    x = shifts[..., 1] + torch.arange(width, device=number.device)
    flat = (y + reach) * usable.shape[-1] + x + reach
    inside = usable.flatten(1).gather(1, flat.flatten(1)).view(flat.shape)
    return torch.where(inside, y * width + x, -1)
