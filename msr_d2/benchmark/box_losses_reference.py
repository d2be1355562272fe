"""The box losses as their equations stand, by dense unfolding: oracle and baseline.

Nothing is shared: similarities, matches and masks are made again for each call, neighbours are
copied for each candidate, and autograd saves all of it. Slow, large and easy to read.

Letters: N instances, T frames, E neighbours, O candidates, C channels, h x w mask grid.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..mask_free_vis.affinities import frame_pairs
from ..mask_free_vis.box_settings import GRID, PairwiseSettings, TemporalSettings


def unfold(values: torch.Tensor, size: int, dilation: int = 1) -> torch.Tensor:
    """(B, C, h, w) to (B, C, size^2, h, w): the neighbours of each cell, 0 outside of the grid."""
    batch, channels, height, width = values.shape
    padding = size // 2 * dilation
    columns = F.unfold(values, size, dilation=dilation, padding=padding)
    return columns.view(batch, channels, size**2, height, width)


def disagreement(x: torch.Tensor, size: int, dilation: int, y: torch.Tensor) -> torch.Tensor:
    """-log P(same label) of each cell of x (B, 1, h, w) with its neighbours in y: (B, S, h, w).

    With logs of probabilities; a neighbour outside of the grid has the logs 0, hence the loss 0.
    """
    same = torch.logaddexp(
        F.logsigmoid(x)[:, :, None] + unfold(F.logsigmoid(y), size, dilation),
        F.logsigmoid(-x)[:, :, None] + unfold(F.logsigmoid(-y), size, dilation),
    )
    outside = unfold(torch.ones_like(y), size, dilation) == 0
    return -same.masked_fill(outside, 0)[:, 0]


def projection_loss(logits: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
    """Official projection loss of (N, T, h, w) logits with filled boxes; absent frames give 2."""
    probability = logits.sigmoid().flatten(0, 1)
    total = 0.0
    for mask, box in zip(probability, filled.flatten(0, 1)):
        for dim in (0, 1):
            u, v = mask.max(dim)[0], box.max(dim)[0]
            total = total + 1 - 2 * (u * v).sum() / ((u * u).sum() + (v * v).sum() + 1e-5)
    return total / max(len(probability), 1)


def color_edges(
    lab: torch.Tensor, valid: torch.Tensor | None, settings: PairwiseSettings
) -> torch.Tensor:
    """(T, E, h, w) bool from (T, 3, h, w); without `valid` the outside is black, as officially."""
    near = unfold(lab, settings.size, settings.dilation)
    distance = (near - lab[:, :, None]).norm(dim=1)
    edges = torch.exp(-settings.theta * distance) >= settings.color_threshold
    if valid is not None:
        both = unfold(valid[:, None].float(), settings.size, settings.dilation)[:, 0] > 0
        edges = edges & both & valid[:, None]
    centre = settings.size**2 // 2
    return torch.cat([edges[:, :centre], edges[:, centre + 1 :]], dim=1)


def pairwise_color_loss(
    logits: torch.Tensor,
    lab: torch.Tensor,
    filled: torch.Tensor,
    valid: torch.Tensor | None,
    settings: PairwiseSettings,
) -> torch.Tensor:
    """Pairwise loss of (N, T, h, w) logits, with edges copied for each instance."""
    edges = color_edges(lab, valid, settings)
    weight = edges[None] * filled[:, :, None]
    x = logits.flatten(0, 1)[:, None]
    loss = disagreement(x, settings.size, settings.dilation, x)
    centre = settings.size**2 // 2
    loss = torch.cat([loss[:, :centre], loss[:, centre + 1 :]], dim=1).view(weight.shape)
    return (weight * loss).sum() / weight.sum().clamp(min=1)


def frame_matches(
    first: torch.Tensor,
    second: torch.Tensor,
    valid: torch.Tensor | None,
    settings: TemporalSettings,
) -> torch.Tensor:
    """(O, h, w) bool: which candidates of `first` are matches of the cells of `second`.

    Args:
        first: (C, h, w) colours, scaled as the threshold asks.
        second: (C, h, w).
        valid: (2, h, w) bool, cells of both frames that are not padding; without it the outside is
            black, as officially.
        settings: candidates and thresholds.
    """
    size, dilation = (3, 3) if settings.candidates == GRID else (2 * settings.radius + 1, 1)
    first, second = (unfold(x[None], settings.patch_size).flatten(1, 2) for x in (first, second))
    difference = unfold(first, size, dilation)[0] - second[0][:, None]
    distance = difference.norm(p=1 if settings.metric == "l1" else 2, dim=0)
    if valid is not None:
        candidate = unfold(valid[0][None, None].float(), size, dilation)[0, 0] > 0
        distance = distance.masked_fill(~candidate | ~valid[1], float("inf"))
    kept = distance.topk(min(settings.top_k, len(distance)), dim=0, largest=False).indices
    nearest = torch.zeros_like(distance, dtype=torch.bool).scatter_(0, kept, True)
    if settings.threshold == "distance":
        return nearest & (distance < settings.distance)
    return nearest & (torch.exp(-0.5 * distance) >= settings.similarity)


def temporal_knn_patch_loss(
    logits: torch.Tensor,
    colors: torch.Tensor,
    filled: torch.Tensor,
    valid: torch.Tensor | None,
    settings: TemporalSettings,
) -> torch.Tensor:
    """TK-loss of (N, T, h, w) logits with colours (T, C, h, w), scaled as the threshold asks."""
    total = logits.sum() * 0
    for pair in frame_pairs(logits.shape[1], settings.tube):
        total = total + frame_pair_loss(logits, colors, filled, valid, settings, pair)
    return total


def frame_pair_loss(logits, colors, filled, valid, settings, pair) -> torch.Tensor:
    """The part of :func:`temporal_knn_patch_loss` that one pair (first, second) of frames adds."""
    size, dilation = (3, 3) if settings.candidates == GRID else (2 * settings.radius + 1, 1)
    i, j = pair
    both = None if valid is None else valid[[i, j]]
    matches = frame_matches(colors[i], colors[j], both, settings)
    weight = (filled.sum(1) >= 1)[:, None] & matches
    loss = disagreement(logits[:, j, None], size, dilation, logits[:, i, None])
    if settings.normalise == "matches":
        return (weight * loss).sum() / weight.sum().clamp(min=1)
    return (weight * loss).sum((1, 2, 3)).mean() / logits[0, 0].numel()


def soft_filled_boxes(
    boxes: torch.Tensor, present: torch.Tensor, size: tuple[int, int], stride: int
) -> torch.Tensor:
    """Boxes (N, T, 4) of whole pixels, filled at full size (H, W) and resized bilinearly."""
    filled = torch.zeros(*present.shape, *size)
    for n, t in present.nonzero().tolist():
        x1, y1, x2, y2 = boxes[n, t].long().tolist()
        filled[n, t, y1:y2, x1:x2] = 1
    grid = (size[0] // stride, size[1] // stride)
    return F.interpolate(filled, grid, mode="bilinear", align_corners=False)
