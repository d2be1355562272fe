"""What the images of a clip say about its cells: colour edges and matches between frames.

Worked out once per clip and shared by all instances and all supervised outputs; the official code
repeats it for each of them.

Letters: T frames, H x W padded frame, h x w mask grid (stride 4), E colour neighbours, K matches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..layers.color import rgb_to_lab
from ..layers.mask_consistency import PairMatches, neighbour_offsets
from ..layers.patch_matching import nearest_patches
from .box_settings import TUBES, PairwiseSettings, TemporalSettings, check_choice
from .filled_boxes import grid_size


@dataclass(frozen=True)
class ClipAffinities:
    """What the images of a clip say about its cells, for all instances and outputs.

    Attributes:
        edges: (T, E, h, w) bool, neighbours of similar colour; None if they were not asked for.
        matches: pairs of frames with the matches of their cells; empty for a single frame.
    """

    edges: torch.Tensor | None
    matches: list[PairMatches]


@torch.no_grad()
def clip_affinities(
    frames: torch.Tensor,
    valid: torch.Tensor,
    stride: int,
    pairwise: PairwiseSettings | None,
    temporal: TemporalSettings | None,
    lab_swap_channels: bool = False,
    outside_is_black: bool = False,
) -> ClipAffinities:
    """Colour edges within the frames of a clip and matches between them.

    Args:
        frames: (T, 3, H, W) RGB in 0..255, padded with 0.
        valid: (T, 2) height and width of the frames without padding, or (T, h, w) bool.
        stride: pixels per cell of the mask grid.
        pairwise: settings of the edges; None: no edges.
        temporal: settings of the matches; None: no matches.
        lab_swap_channels: official: LAB of images with red and blue swapped.
        outside_is_black: official: padding is black like a part of the image, and so is what lies
            outside of the grid. Otherwise neither has edges or matches.

    Raises:
        ValueError: if the frame size is no multiple of the stride.
    """
    grid = grid_size(frames.shape[-2:], stride)
    valid = valid.to(frames.device)
    if valid.shape[1:] != grid:
        valid = valid_cells(valid, grid, stride)
    colors = F.avg_pool2d(frames.float(), stride).to(torch.uint8)
    lab = rgb_to_lab(colors.flip(-3) if lab_swap_channels else colors)
    inside = torch.ones_like(valid) if outside_is_black else valid
    edges, matches = None, []
    if pairwise is not None:
        edges = color_edges(lab, inside, pairwise, outside_is_black)
        if pairwise.padding_gate and len(frames) == 1:
            edges = padding_gate(edges, valid)
    if temporal is not None:
        features = lab if temporal.color == "lab" else colors.float()
        matches = match_frames(features, inside, temporal, outside_is_black)
    return ClipAffinities(edges, matches)


def valid_cells(sizes: torch.Tensor, grid: tuple[int, int], stride: int) -> torch.Tensor:
    """(T, h, w) bool: cells without any padding, from the sizes (T, 2) of the frames."""
    rows = (torch.arange(grid[0], device=sizes.device) + 1) * stride <= sizes[:, :1]
    columns = (torch.arange(grid[1], device=sizes.device) + 1) * stride <= sizes[:, 1:]
    return rows[:, :, None] & columns[:, None]


def color_edges(
    lab: torch.Tensor,
    valid: torch.Tensor,
    settings: PairwiseSettings,
    outside_is_black: bool = False,
) -> torch.Tensor:
    """Neighbours whose colours are similar (arXiv 2012.02310, Eq. 4).

    Args:
        lab: (T, 3, h, w).
        valid: (T, h, w) bool, cells that can have edges.
        settings: neighbourhood and threshold.
        outside_is_black: official: cells outside of the grid are neighbours with LAB 0.

    Returns:
        (T, E, h, w) bool in the order of :func:`msr_d2.layers.mask_consistency.neighbour_offsets`.
    """
    height, width = lab.shape[-2:]
    margin = settings.size // 2 * settings.dilation
    padded, usable = F.pad(lab, [margin] * 4), F.pad(valid, [margin] * 4, value=outside_is_black)
    edges = []
    for dy, dx in neighbour_offsets(settings.size, settings.dilation):
        rows = slice(margin + dy, margin + dy + height)
        columns = slice(margin + dx, margin + dx + width)
        distance = (lab - padded[..., rows, columns]).square().sum(1).sqrt()
        similar = torch.exp(-settings.theta * distance) >= settings.color_threshold
        edges.append(similar & valid & usable[..., rows, columns])
    return torch.stack(edges, dim=1)


def padding_gate(edges: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Drop all edges unless padding covers more than 25 and less than 75 % of the canvas.

    An oddity of the official training on single images.

    Args:
        edges: (T, E, h, w) bool.
        valid: (T, h, w) bool, cells without padding.
    """
    share = valid.float().mean((1, 2))
    return edges & ((share > 0.25) & (share < 0.75))[:, None, None, None]


def frame_pairs(frames: int, tube: str) -> list[tuple[int, int]]:
    """(first, second) frames that are matched; centres lie in the second.

    Args:
        frames: T.
        tube: "cyclic": (0, 1), (1, 2), ..., (T - 1, 0), Eq. 4 of the paper; "all": each i < j once;
            "dense": each pair both ways.

    Raises:
        ValueError: for another tube.
    """
    check_choice("MODEL.MASK_FREE.TEMPORAL.TUBE", tube, TUBES)
    if frames < 2:
        return []
    if tube == "cyclic":
        return [(t, (t + 1) % frames) for t in range(frames)]
    both = [(i, j) for i in range(frames) for j in range(frames) if i != j]
    return both if tube == "dense" else [(i, j) for i, j in both if i < j]


def match_frames(
    colors: torch.Tensor,
    valid: torch.Tensor,
    settings: TemporalSettings,
    outside_is_black: bool = False,
) -> list[PairMatches]:
    """Temporal KNN matching (arXiv 2303.15904, Sec. 3.2, Eq. 1) of all pairs of frames of a clip.

    Args:
        colors: (T, 3, h, w) LAB, or RGB in 0..255.
        valid: (T, h, w) bool, cells that can be matched.
        settings: candidates, threshold and pairs.
        outside_is_black: official: candidates outside of the grid are patches of zeros.
    """
    pairs = frame_pairs(len(colors), settings.tube)
    if not pairs:
        return []
    if settings.threshold == "distance":
        colors = colors / (100 if settings.color == "lab" else 255)
    # Patches that reach into padding see the same there as beyond the border of the grid: zeros.
    colors = colors * valid[:, None]
    # Stacked and not indexed: a tensor of numbers would make the host wait for the device.
    first, second = zip(*pairs)
    distance, index = nearest_patches(
        torch.stack([colors[i] for i in first]),
        torch.stack([colors[i] for i in second]),
        settings.offsets,
        torch.stack([valid[i] for i in first]),
        settings.patch_size,
        settings.top_k,
        settings.metric,
        outside_is_black=outside_is_black,
    )
    if settings.threshold == "distance":
        near = distance < settings.distance
    else:
        near = torch.exp(-0.5 * distance) >= settings.similarity
    near &= torch.stack([valid[i] for i in second])[:, None]
    return [PairMatches(*pair, i, n) for pair, i, n in zip(pairs, index, near)]
