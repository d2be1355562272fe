"""Consistency of mask logits between cells that look alike: one pass, only logits are saved.

For two cells with logits x and y of "this cell belongs to the object", the loss is minus the log
of the probability that both get the same label (arXiv 2303.15904, Eq. 3):

    -log(p q + (1 - p)(1 - q)) = sp(x) + sp(y) - sp(x + y),    sp = softplus, p = sigmoid(x)

with the derivatives sigmoid(x) - sigmoid(x + y) and sigmoid(y) - sigmoid(x + y). Neighbours are
never materialised for autograd; the backward pass computes them again.

Letters: L supervised outputs, N instances, T frames, h x w mask grid, E neighbours, K matches,
M pairs of frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Elements of a temporary tensor: on a CPU it should stay in the cache, on a GPU fill the device.
_CPU_ELEMENTS, _GPU_ELEMENTS = 2**17, 2**24


class Window(NamedTuple):
    """Some instances and a rectangle of the grid outside of which they have no weight."""

    instances: slice
    rows: slice
    columns: slice


class FrameMatches(NamedTuple):
    """Matches of one pair of frames: cell p of ``second`` with up to K cells of ``first``."""

    first: int
    second: int
    index: torch.Tensor  # (K, h, w) int64, flat cell index in the first frame, or -1: no cell
    valid: torch.Tensor  # (K, h, w) bool


def neighbour_offsets(size: int, dilation: int) -> list[tuple[int, int]]:
    """(dy, dx) of the size^2 - 1 neighbours, row by row; entries e and -1 - e are opposite."""
    reach = range(-(size // 2), size // 2 + 1)
    return [(dy * dilation, dx * dilation) for dy in reach for dx in reach if dy or dx]


def object_windows(rows: torch.Tensor, columns: torch.Tensor, margin: int) -> list[Window]:
    """Where instances have weight: one window each on a CPU, one for all on a GPU.

    A GPU is better off with the whole grid than with many small kernels and a wait for the extents.

    Args:
        rows: (N, h) bool, rows in which an instance has weight.
        columns: (N, w) bool.
        margin: cells to add on each side.
    """
    if rows.is_cuda:
        return [Window(slice(None), slice(0, rows.shape[1]), slice(0, columns.shape[1]))]
    extents = zip(_extents(rows, margin), _extents(columns, margin))
    return [
        Window(slice(n, n + 1), slice(*vertical), slice(*horizontal))
        for n, (vertical, horizontal) in enumerate(extents)
        if vertical[0] < vertical[1] and horizontal[0] < horizontal[1]
    ]


def shifted_consistency(
    logits: torch.Tensor,
    edges: torch.Tensor,
    box_rows: torch.Tensor,
    box_columns: torch.Tensor,
    size: int,
    dilation: int,
) -> torch.Tensor:
    """Sum of the loss over the edges within each frame, weighted with the filled boxes.

    An edge whose neighbour lies outside of the grid adds nothing.

    Args:
        logits: (L, N, T, h, w) float32 or float64.
        edges: (T, E, h, w) bool, edge of cell p to its neighbour e as :func:`neighbour_offsets`
            orders them.
        box_rows: (N, T, h) weight of each row in [0, 1]; the weight of an edge of cell p is
            row weight times column weight of p.
        box_columns: (N, T, w).
        size: neighbourhood, an odd number of cells.
        dilation: distance of adjacent neighbours in cells.

    Returns:
        (L,).
    """
    windows = object_windows((box_rows > 0).any(1), (box_columns > 0).any(1), size // 2 * dilation)
    offsets = neighbour_offsets(size, dilation)
    return _Shifted.apply(logits, edges, box_rows, box_columns, offsets, windows)


def matched_consistency(
    logits: torch.Tensor, matches: Sequence[FrameMatches], region: torch.Tensor
) -> torch.Tensor:
    """Sum of the loss over the matches of each pair of frames whose centre lies in the region.

    A valid match without a cell (index -1) adds nothing.

    Args:
        logits: (L, N, T, h, w) float32 or float64.
        matches: M pairs of frames with fields as in :class:`FrameMatches`.
        region: (N, h, w) bool, the cells of the second frame that count, of each instance.

    Returns:
        (L, M).
    """
    windows = object_windows(region.any(2), region.any(1), 0)
    return _Matched.apply(logits, matches, region, windows)


class _Shifted(torch.autograd.Function):
    """Neighbours at fixed offsets. Each edge is seen from both ends, and worked out once."""

    @staticmethod
    def forward(ctx, logits, edges, box_rows, box_columns, offsets, windows):
        ctx.save_for_backward(logits)
        ctx.targets = edges, box_rows, box_columns, offsets, windows
        total = logits.new_zeros(len(logits))
        for window, outputs in _pieces(logits, windows):
            x = _cut(logits, window, outputs)
            single = F.softplus(x)
            for here, there, weight in _edge_weights(*ctx.targets[:4], window):
                both = F.softplus(x[here] + x[there])
                loss = (single[here] + single[there]).sub_(both).mul_(weight)
                total[outputs] += loss.flatten(1).sum(1)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total):
        (logits,) = ctx.saved_tensors
        *targets, windows = ctx.targets
        grad = torch.zeros_like(logits)
        for window, outputs in _pieces(logits, windows):
            x = _cut(logits, window, outputs)
            weights, piece = torch.zeros_like(x[0]), torch.zeros_like(x)
            for here, there, weight in _edge_weights(*targets, window):
                both = torch.sigmoid(x[here] + x[there]).mul_(weight)
                piece[here].sub_(both)
                piece[there].sub_(both)
                weights[here].add_(weight)
                weights[there].add_(weight)
            piece.addcmul_(torch.sigmoid(x), weights[None])
            _cut(grad, window, outputs).copy_(piece * _column(grad_total[outputs], x))
        return grad, None, None, None, None, None


class _Matched(torch.autograd.Function):
    """Neighbours at any place of another frame, gathered by their index."""

    @staticmethod
    def forward(ctx, logits, matches, region, windows):
        ctx.save_for_backward(logits)
        ctx.targets = matches, region, windows
        total = logits.new_zeros(len(logits), len(matches))
        for window, outputs in _pieces(logits[:, :, 0], windows, _most_matches(matches)):
            for m, pair in enumerate(matches):
                index, weight = _match_weights(pair, region, window, logits.dtype)
                x, y = _centres_and_matches(logits, pair, index, window, outputs)
                loss = (F.softplus(x)[:, :, None] + F.softplus(y)).sub_(
                    F.softplus(x[:, :, None] + y)
                )
                total[outputs, m] += loss.mul_(weight).flatten(1).sum(1)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total):
        (logits,) = ctx.saved_tensors
        matches, region, windows = ctx.targets
        grad = torch.zeros_like(logits)
        for window, outputs in _pieces(logits[:, :, 0], windows, _most_matches(matches)):
            for m, pair in enumerate(matches):
                index, weight = _match_weights(pair, region, window, logits.dtype)
                x, y = _centres_and_matches(logits, pair, index, window, outputs)
                both, scale = torch.sigmoid(x[:, :, None] + y), _column(grad_total[outputs, m], y)
                weight = weight * scale
                grad_x = (torch.sigmoid(x)[:, :, None] - both).mul_(weight).sum(2)
                grad_y = (torch.sigmoid(y) - both).mul_(weight)
                centres = grad[outputs, window.instances, pair.second, window.rows, window.columns]
                centres += grad_x.view(centres.shape)
                _accumulate(grad[outputs, window.instances, pair.first], index, grad_y)
        return grad, None, None, None


def _pieces(
    logits: torch.Tensor, windows: list[Window], factor: int = 1
) -> Iterator[tuple[Window, slice]]:
    """Windows, and slices of the outputs so that tensors of `factor` times the cells stay small."""
    limit = _GPU_ELEMENTS if logits.is_cuda else _CPU_ELEMENTS
    for window in windows:
        elements = _cut(logits[:1], window, slice(None)).numel() * factor
        step = max(1, limit // max(elements, 1))
        for start in range(0, len(logits), step):
            yield window, slice(start, start + step)


def _cut(tensor: torch.Tensor, window: Window, outputs: slice) -> torch.Tensor:
    """The part of (L, N, ..., h, w) in a window, a view."""
    return tensor[outputs, window.instances][..., window.rows, window.columns]


def _column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(L,) in a shape that multiplies (L, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _edge_weights(edges, box_rows, box_columns, offsets, window):
    """For half of the offsets: slices of both ends and the summed weight of both directions."""
    rows = box_rows[window.instances, :, window.rows]
    box = rows[..., None] * box_columns[window.instances, :, None, window.columns]
    edges = edges[..., window.rows, window.columns]
    height, width = box.shape[-2:]
    for e, (dy, dx) in enumerate(offsets[: len(offsets) // 2]):
        here = (..., _overlap(dy, height), _overlap(dx, width))
        there = (..., _overlap(-dy, height), _overlap(-dx, width))
        forth = box[here] * edges[:, e][here]
        weight = forth.addcmul_(box[there], edges[:, -1 - e][there].to(box.dtype))
        yield here, there, weight


def _overlap(shift: int, length: int) -> slice:
    """The i in 0..length-1 for which i + shift lies there too."""
    return slice(max(0, -shift), max(0, length - max(0, shift)))


def _most_matches(matches: Sequence[FrameMatches]) -> int:
    return max((len(pair.index) for pair in matches), default=1)


def _match_weights(pair, region, window, dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (K, c) of the matches of the c cells of a window and their weights (n, K, c)."""
    index = pair.index[:, window.rows, window.columns].flatten(1)
    valid = pair.valid[:, window.rows, window.columns].flatten(1) & (index >= 0)
    inside = region[window.instances, window.rows, window.columns].flatten(1)
    return index.clamp(min=0), (inside[:, None] & valid).to(dtype)


def _centres_and_matches(logits, pair, index, window, outputs):
    """Logits (l, n, c) of the cells of a window and (l, n, K, c) of their matches."""
    logits = logits[outputs, window.instances]
    centres = logits[:, :, pair.second, window.rows, window.columns]
    return centres.flatten(2), logits[:, :, pair.first].flatten(2)[:, :, index]


def _accumulate(target: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> None:
    """target[:, :, index] += values in place, alike in each run also where an index repeats.

    Args:
        target: (l, n, h, w) view.
        index: (K, c).
        values: (l, n, K, c).
    """
    rows = target.shape[0] * target.shape[1]
    values, index = values.reshape(rows, -1), index.flatten()
    sums = values.new_zeros(rows, target.shape[-2] * target.shape[-1])
    if sums.is_cuda:
        # Sorts the indices; the additions of scatter_add_ have no fixed order on a GPU.
        sums = sums.t().contiguous().index_put_((index,), values.t(), accumulate=True).t()
    else:
        sums.scatter_add_(1, index.expand(rows, -1), values)
    target += sums.view(target.shape)


def _extents(used: torch.Tensor, margin: int) -> list[tuple[int, int]]:
    """First and one past the last used entry of each row of (N, S) bool, with a margin."""
    length = used.shape[1]
    place = torch.arange(length, device=used.device)
    first = torch.where(used, place, length).amin(1) - margin
    stop = torch.where(used, place, -margin - 1).amax(1) + 1 + margin
    limits = zip(first.clamp(min=0).tolist(), stop.clamp(max=length).tolist())
    return list(limits)
