"""Deformable attention by stacked samples: what the fast form is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def stacked_deformable_attention(
    value: torch.Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    locations: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """All samples of all maps by ``grid_sample``, stacked, then weighted and added.

    Arguments and result as those of
    :func:`msr_d2.layers.deformable_attention.multi_scale_deformable_attention`.
    """
    frames, _, heads, channels = value.shape
    queries = locations.shape[1]
    sizes = [height * width for height, width in spatial_shapes]
    samples = []
    for level, (part, shape) in enumerate(zip(value.split(sizes, dim=1), spatial_shapes)):
        image = part.permute(0, 2, 3, 1).reshape(frames * heads, channels, *shape)
        grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
        samples.append(F.grid_sample(image, grid, mode="bilinear", align_corners=False))
    stacked = torch.stack(samples, dim=-2).flatten(-2)
    per_sample = weights.transpose(1, 2).reshape(frames * heads, 1, queries, -1)
    output = (stacked * per_sample).sum(-1)
    return output.view(frames, heads * channels, queries).transpose(1, 2)
