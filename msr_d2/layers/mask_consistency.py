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

from .precision import at_least_float32

# Elements of a temporary tensor: on a CPU it should stay in the cache, on a GPU fill the device.
_CPU_ELEMENTS, _GPU_ELEMENTS = 2**17, 2**24


class Window(NamedTuple):
    """Some instances and a rectangle of the grid outside of which they have no weight."""

    instances: slice
    rows: slice
    columns: slice


class PairMatches(NamedTuple):
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
    if _on_gpu(rows):
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
        logits: (L, N, T, h, w); half precision is saved as it is, and worked on in float32.
        edges: (T, E, h, w) bool, edge of cell p to its neighbour e as :func:`neighbour_offsets`
            orders them.
        box_rows: (N, T, h) weight of each row in [0, 1]; the weight of an edge of cell p is
            row weight times column weight of p.
        box_columns: (N, T, w); both in the type of the sum.
        size: neighbourhood, an odd number of cells.
        dilation: distance of adjacent neighbours in cells.

    Returns:
        (L,) in float32 at least.
    """
    windows = object_windows((box_rows > 0).any(1), (box_columns > 0).any(1), size // 2 * dilation)
    offsets = neighbour_offsets(size, dilation)
    return _Shifted.apply(logits, edges, box_rows, box_columns, offsets, windows)


def matched_consistency(
    logits: torch.Tensor, matches: Sequence[PairMatches], region: torch.Tensor
) -> torch.Tensor:
    """Sum of the loss over the matches of each pair of frames whose centre lies in the region.

    A valid match without a cell (index -1) adds nothing.

    Args:
        logits: (L, N, T, h, w); half precision is saved as it is, and worked on in float32.
        matches: M pairs of frames with fields as in :class:`PairMatches`.
        region: (N, h, w) bool, the cells of the second frame that count, of each instance.

    Returns:
        (L, M) in float32 at least.
    """
    return _Matched.apply(logits, matches, region)


class _Shifted(torch.autograd.Function):
    """Neighbours at fixed offsets. Each edge is seen from both ends, and worked out once."""

    @staticmethod
    def forward(ctx, logits, edges, box_rows, box_columns, offsets, windows):
        ctx.save_for_backward(logits)
        ctx.targets = edges, box_rows, box_columns, offsets, windows
        total = logits.new_zeros(len(logits), dtype=_wide(logits))
        for window, outputs in _pieces(logits, windows):
            x = at_least_float32(_cut(logits, window, outputs))
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
        grad = torch.zeros(logits.shape, dtype=logits.dtype, device=logits.device)
        for window, outputs in _pieces(logits, windows):
            x = at_least_float32(_cut(logits, window, outputs))
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
    def forward(ctx, logits, matches, region):
        ctx.save_for_backward(logits)
        ctx.targets = matches, region
        total = logits.new_zeros(len(logits), len(matches), dtype=_wide(logits))
        for m, piece in _match_pieces(logits, matches, region):
            x, y = _centres_and_matches(logits, matches[m], piece)
            loss = (F.softplus(x) + F.softplus(y)).sub_(F.softplus(x + y)).mul_(piece.weight)
            total[piece.outputs, m] += loss.flatten(1).sum(1)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total):
        (logits,) = ctx.saved_tensors
        matches, region = ctx.targets
        grad = torch.zeros(logits.shape, dtype=_wide(logits), device=logits.device)
        cells = grad.view(*grad.shape[:3], grad.shape[3] * grad.shape[4])
        for m, piece in _match_pieces(logits, matches, region):
            x, y = _centres_and_matches(logits, matches[m], piece)
            both = torch.sigmoid(x + y)
            weight = piece.weight * _column(grad_total[piece.outputs, m], y)
            grad_x = (torch.sigmoid(x) - both).mul_(weight).sum(2)
            grad_y = (torch.sigmoid(y) - both).mul_(weight)
            part = cells[piece.outputs, piece.instances]
            part[:, :, matches[m].second, piece.cells] += grad_x  # each cell once
            _accumulate(part[:, :, matches[m].first], piece.index, grad_y)
        return grad.to(logits.dtype), None, None


class _MatchPiece(NamedTuple):
    """Matches of some outputs and instances, of c cells."""

    outputs: slice
    instances: slice
    cells: slice | torch.Tensor  # (c,)
    index: torch.Tensor  # (K, c)
    weight: torch.Tensor  # (n, K, c)


def _match_pieces(logits, matches, region) -> Iterator[tuple[int, _MatchPiece]]:
    """Number of the pair, and pieces with a limited number of elements.

    On a CPU each instance is on its own, with those cells only that have matches. A GPU would have
    to wait for their number, and takes all cells of all instances.
    """
    whole, limit = _on_gpu(logits), _most_elements(logits)
    every = [slice(None)] if whole else [slice(n, n + 1) for n in range(len(region))]
    for m, pair in enumerate(matches):
        index, valid = pair.index.flatten(1), pair.valid.flatten(1)
        matched, own = valid.any(0), torch.arange(index.shape[1], device=index.device)
        for instances in every:
            inside, cells = region[instances].flatten(1), slice(None)
            if not whole:
                cells = (inside.any(0) & matched).nonzero()[:, 0]
            near = index[:, cells]
            weight = (inside[:, None, cells] & valid[:, cells] & (near >= 0)).to(_wide(logits))
            # Zeros of matches without a cell are spread: a GPU adds up those of one cell in turn.
            near = torch.where(near < 0, own[cells], near)
            for outputs in _slices(len(logits), limit // max(weight.numel(), 1)):
                yield m, _MatchPiece(outputs, instances, cells, near, weight)


def _pieces(logits: torch.Tensor, windows: list[Window]) -> Iterator[tuple[Window, slice]]:
    """Windows, and slices of the outputs so that temporary tensors stay small."""
    for window in windows:
        elements = _cut(logits[:1], window, slice(None)).numel()
        for outputs in _slices(len(logits), _most_elements(logits) // max(elements, 1)):
            yield window, outputs


def _wide(logits: torch.Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda


def _most_elements(tensor: torch.Tensor) -> int:
    return _GPU_ELEMENTS if _on_gpu(tensor) else _CPU_ELEMENTS


def _slices(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, max(step, 1)):
        yield slice(start, start + max(step, 1))


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


def _centres_and_matches(logits, pair, piece) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (l, n, 1, c) of the cells of a piece and (l, n, K, c) of their matches."""
    logits = logits[piece.outputs, piece.instances].flatten(3)
    centres = logits[:, :, pair.second, None, piece.cells]
    matches = logits[:, :, pair.first][..., piece.index]
    return at_least_float32(centres), at_least_float32(matches)


def _accumulate(target: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> None:
    """target[:, :, index] += values in place, alike in each run also where an index repeats.

    Args:
        target: (l, n, h * w) view.
        index: (K, c).
        values: (l, n, K, c).
    """
    count, instances, cells = target.shape
    values, index = values.flatten(2), index.flatten()
    if not _on_gpu(target):
        target.scatter_add_(2, index.expand(count, instances, -1), values)
        return
    # Sorts the indices; the additions of scatter_add_ have no fixed order on a GPU.
    sums = values.new_zeros(cells, count * instances)
    sums.index_put_((index,), values.flatten(0, 1).t(), accumulate=True)
    target += sums.t().view(target.shape)


def _extents(used: torch.Tensor, margin: int) -> list[tuple[int, int]]:
    """First and one past the last used entry of each row of (N, S) bool, with a margin."""
    length = used.shape[1]
    place = torch.arange(length, device=used.device)
    first = torch.where(used, place, length).amin(1) - margin
    stop = torch.where(used, place, -margin - 1).amax(1) + 1 + margin
    limits = zip(first.clamp(min=0).tolist(), stop.clamp(max=length).tolist())
    return list(limits)
