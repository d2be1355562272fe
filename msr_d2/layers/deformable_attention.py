"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, Eq. 3) in plain torch.

A sample is a weighted sum of four cells of a feature map, so the operator is, for each query, a
weighted sum of rows of a table, map by map; see :mod:`msr_d2.layers.bilinear_samples`. Nothing is
compiled, and samples are never stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .bilinear_samples import Level, Samples, bags, scalar_products, transposed_bags

# Samples that are worked on at once, in whole frames: bounds the temporary memory. A GPU needs more
# at once to be busy.
_CPU_SAMPLES, _GPU_SAMPLES = 1 << 20, 1 << 24


def multi_scale_deformable_attention(
    value: torch.Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    locations: torch.Tensor,
    weights: torch.Tensor,
    frames_per_step: int = 0,
) -> torch.Tensor:
    """Weighted sum of bilinear samples of several feature maps, for each query and head.

    Samples outside of a map count as zero; coordinates are those of ``grid_sample`` with
    ``align_corners=False``. Runs in float32 or float64. Saves its inputs for the backward pass and
    nothing else.

    Args:
        value: (F, S, M, D) values of F frames, M heads and D channels of each; S are the cells of
            all maps, row by row, map after map.
        spatial_shapes: (height, width) of each of the V maps, V = number of levels.
        locations: (F, Q, M, V, P, 2) sampling points (x, y) of Q queries, P of each map; 0 and 1
            are the borders of a map.
        weights: (F, Q, M, V, P) weight of each sample.
        frames_per_step: frames to work on at once; 0 chooses by the number of samples and the
            device. Frames are independent, so the result does not depend on it.

    Returns:
        (F, Q, M * D), of the type of `value`.

    Raises:
        ValueError: if the shapes contradict each other.
    """
    shapes = tuple((int(height), int(width)) for height, width in spatial_shapes)
    _check_shapes(value, shapes, locations, weights)
    wide = torch.promote_types(value.dtype, torch.float32)
    if frames_per_step < 1:
        samples = _GPU_SAMPLES if value.is_cuda else _CPU_SAMPLES
        frames_per_step = max(1, samples // max(1, math.prod(weights.shape[1:])))
    output = _DeformableAttention.apply(
        value.to(wide), shapes, locations.to(wide), weights.to(wide), frames_per_step
    )
    return output.to(value.dtype)


def _check_shapes(value, shapes, locations, weights) -> None:
    sizes = (tuple(value.shape), tuple(locations.shape), tuple(weights.shape))
    found = "value {}, locations {}, weights {}".format(*sizes)
    if value.dim() != 4 or locations.dim() != 6 or weights.dim() != 5:
        raise ValueError(
            "deformable attention needs value (F, S, M, D), locations (F, Q, M, V, P, 2) and "
            f"weights (F, Q, M, V, P), but got {found}"
        )
    cells = sum(height * width for height, width in shapes)
    if value.shape[1] != cells:
        raise ValueError(
            f"the maps {shapes} have {cells} cells, but value has {value.shape[1]} ({found})"
        )
    frames, _, heads, _ = value.shape
    expected = (frames, locations.shape[1], heads, len(shapes), locations.shape[4])
    if tuple(weights.shape) != expected or tuple(locations.shape) != (*expected, 2):
        raise ValueError(
            f"deformable attention got {found}, which do not agree on frames, queries, heads, "
            f"levels ({len(shapes)} maps were given) or points"
        )


class _DeformableAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, shapes, locations, weights, frames_per_step):
        ctx.save_for_backward(value, locations, weights)
        ctx.shapes, ctx.frames_per_step = shapes, frames_per_step
        frames, _, heads, channels = value.shape
        output = value.new_zeros((frames, locations.shape[1], heads, channels))
        for step, level in _steps(frames, frames_per_step, shapes):
            samples = Samples(level, locations[step], weights[step])
            added = bags(level.table(value[step]), samples.rows, samples.weights)
            output[step] += added.view_as(output[step])
        return output.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        value, locations, weights = ctx.saved_tensors
        frames, _, heads, channels = value.shape
        grad_output = grad_output.reshape(frames, -1, heads, channels)
        grad_value, grad_locations, grad_weights = (
            torch.empty_like(tensor) for tensor in ctx.saved_tensors
        )
        for step, level in _steps(frames, ctx.frames_per_step, ctx.shapes):
            samples = Samples(level, locations[step], weights[step])
            grad = grad_output[step].reshape(-1, channels)
            products = scalar_products(level.table(value[step]), samples.rows, grad)
            by_location, by_weight = samples.gradients(products)
            grad_locations[step, ..., level.index, :, :] = by_location
            grad_weights[step, ..., level.index, :] = by_weight
            if ctx.needs_input_grad[0]:
                part = level.cells(grad_value[step])
                table_rows = part.shape[0] * part.shape[1] * heads
                part.copy_(transposed_bags(grad, samples, table_rows).view_as(part))
        return grad_value, None, grad_locations, grad_weights, None


def _steps(frames: int, size: int, shapes) -> Iterator[tuple[slice, Level]]:
    """Frames of a step and one map, in turn: a sample's tensors exist for one of them at a time."""
    for first in range(0, frames, size):
        start = 0
        for index, (height, width) in enumerate(shapes):
            yield slice(first, first + size), Level(index, start, height, width)
            start += height * width


class MSDeformAttn(nn.Module):
    """Deformable attention with its projections; parameters named as in Deformable DETR."""

    def __init__(self, d_model: int = 256, n_levels: int = 3, n_heads: int = 8, n_points: int = 4):
        """
        Args:
            d_model: channels C of queries and values.
            n_levels: feature maps V.
            n_heads: attention heads M; must divide `d_model`.
            n_points: samples P of each query, head and map.

        Raises:
            ValueError: if the heads do not divide the channels.
        """
        super().__init__()
        if d_model % n_heads:
            raise ValueError(
                f"deformable attention cannot share {d_model} channels among {n_heads} heads: "
                "choose a number of heads that divides the channels"
            )
        self.n_levels, self.n_heads, self.n_points = n_levels, n_heads, n_points
        samples = n_heads * n_levels * n_points
        self.sampling_offsets = nn.Linear(d_model, samples * 2)
        self.attention_weights = nn.Linear(d_model, samples)
        self.value_proj = nn.Linear(d_model, d_model)
        self.output_proj = nn.Linear(d_model, d_model)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with one direction for each head, point p at distance p, and equal weights."""
        angles = torch.arange(self.n_heads, dtype=torch.float32) * (2 * math.pi / self.n_heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.n_points + 1, dtype=torch.float32)
        offsets = directions[:, None, None] * distances[:, None]
        offsets = offsets.expand(-1, self.n_levels, -1, -1).reshape(-1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: torch.Tensor,
        reference: torch.Tensor,
        tokens: torch.Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
    ) -> torch.Tensor:
        """Let each query sample the maps around its reference point.

        Args:
            query: (F, Q, C), with positions.
            reference: (Q, 2) points (x, y) relative to the size of the frame.
            tokens: (F, S, C), the maps to sample.
            spatial_shapes: (height, width) of each map.

        Returns:
            (F, Q, C).
        """
        frames, queries, _ = query.shape
        lead = (frames, queries, self.n_heads)
        value = self.value_proj(tokens).unflatten(-1, (self.n_heads, -1))
        offsets = self.sampling_offsets(query).view(*lead, self.n_levels, self.n_points, 2)
        weights = self.attention_weights(query).view(*lead, -1).softmax(-1)
        # Filled on the device: a tensor made of a list would have to wait for it.
        sizes = [
            offsets.new_full((1,), n) for height, width in spatial_shapes for n in (width, height)
        ]
        sizes = torch.cat(sizes).view(-1, 1, 2)
        locations = reference[:, None, None, None] + offsets / sizes
        sampled = multi_scale_deformable_attention(
            value, spatial_shapes, locations, weights.view(locations.shape[:-1])
        )
        return self.output_proj(sampled)
