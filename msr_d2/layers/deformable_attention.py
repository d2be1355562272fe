"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, Eq. 3) in plain torch.

A sampled value is a weighted sum of four cells of a feature map, so the whole operator is a sum of
weighted rows of one table, which is what ``embedding_bag`` computes without storing the rows. Its
gradient to the values is the same sum with the two sides exchanged. Nothing is compiled, the
samples are never stored, and all sums are deterministic on every device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Samples that are worked on at once, in whole frames; bounds the temporary memory (about 100 bytes
# for each of them in the backward pass).
SAMPLES_PER_STEP = 1 << 21


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
        frames_per_step: frames to work on at once; 0 chooses by ``SAMPLES_PER_STEP``. Frames are
            independent, so the result does not depend on it.

    Returns:
        (F, Q, M * D), of the type of `value`.

    Raises:
        ValueError: if the shapes contradict each other.
    """
    shapes = tuple((int(height), int(width)) for height, width in spatial_shapes)
    _check_shapes(value, shapes, locations, weights)
    wide = torch.promote_types(value.dtype, torch.float32)
    if frames_per_step < 1:
        frames_per_step = max(1, SAMPLES_PER_STEP // max(1, math.prod(weights.shape[1:])))
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


class _Level(NamedTuple):
    """One map: where its cells start among all cells, and its size."""

    index: int
    start: int
    height: int
    width: int

    def table(self, value: torch.Tensor) -> torch.Tensor:
        """The cells (f, S, M, D) of this map as rows, (f * height * width * M, D)."""
        return self.cells(value).reshape(-1, value.shape[-1])

    def cells(self, value: torch.Tensor) -> torch.Tensor:
        return value[:, self.start : self.start + self.height * self.width]


class _Axis(NamedTuple):
    """The two neighbours of each sample along one axis, each (f, Q, M, P).

    A neighbour outside of the map has weight and slope zero and the index of the border.
    """

    index: tuple[torch.Tensor, torch.Tensor]
    weight: tuple[torch.Tensor, torch.Tensor]
    inside: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, locations: torch.Tensor, size: int) -> _Axis:
        position = locations * size - 0.5
        low = position.floor()
        fraction = position - low
        # Far outside is as good as just outside, and fits into an integer.
        low = low.clamp(-2, size).int()
        inside = ((low >= 0) & (low < size), (low >= -1) & (low < size - 1))
        weight = ((1 - fraction) * inside[0], fraction * inside[1])
        return cls((low.clamp(0, size - 1), (low + 1).clamp(0, size - 1)), weight, inside)

    def slope(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Derivative by the position of the interpolation between two values."""
        return high * self.inside[1] - low * self.inside[0]

    def interpolate(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return low * self.weight[0] + high * self.weight[1]


class _Samples:
    """The samples of one map: their four corners as rows of its table, and their weights.

    `rows` and `weights` are (f * Q * M, 4 * P): top left, top right, bottom left, bottom right.
    """

    def __init__(self, level: _Level, locations: torch.Tensor, weights: torch.Tensor):
        locations, self.scale = locations[..., level.index, :, :], weights[..., level.index, :]
        self.x = _Axis.of(locations[..., 0], level.width)
        self.y = _Axis.of(locations[..., 1], level.height)
        frames, _, heads, _ = self.scale.shape
        frame = torch.arange(frames, dtype=torch.int32, device=locations.device)
        head = torch.arange(heads, dtype=torch.int32, device=locations.device)[:, None]
        frame = frame.view(-1, 1, 1, 1) * level.height
        top, bottom = ((row + frame) * (level.width * heads) for row in self.y.index)
        left, right = (column * heads + head for column in self.x.index)
        self.rows = _corners(top + left, top + right, bottom + left, bottom + right)
        top, bottom = (row * self.scale for row in self.y.weight)
        left, right = self.x.weight
        self.weights = _corners(top * left, top * right, bottom * left, bottom * right)

    def gradients(self, dots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of positions (f, Q, M, P, 2) in cells and of weights (f, Q, M, P).

        `dots` is the scalar product of each corner with the gradient of its query.
        """
        shape = (*self.scale.shape[:3], 4, self.scale.shape[3])
        top_left, top_right, bottom_left, bottom_right = dots.view(shape).unbind(-2)
        top, bottom = (
            self.x.interpolate(top_left, top_right),
            self.x.interpolate(bottom_left, bottom_right),
        )
        left, right = (
            self.y.interpolate(top_left, bottom_left),
            self.y.interpolate(top_right, bottom_right),
        )
        grad_x, grad_y = self.x.slope(left, right), self.y.slope(top, bottom)
        grad_position = torch.stack([grad_x * self.scale, grad_y * self.scale], -1)
        return grad_position, self.y.interpolate(top, bottom)


def _corners(*values: torch.Tensor) -> torch.Tensor:
    return torch.stack(values, -2).flatten(0, 2).flatten(1)


class _DeformableAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, shapes, locations, weights, frames_per_step):
        ctx.save_for_backward(value, locations, weights)
        ctx.shapes, ctx.frames_per_step = shapes, frames_per_step
        frames, _, heads, channels = value.shape
        output = value.new_zeros((frames, locations.shape[1], heads, channels))
        for step, level in _steps(frames, frames_per_step, shapes):
            samples = _Samples(level, locations[step], weights[step])
            added = _bags(level.table(value[step]), samples.rows, samples.weights)
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
            samples = _Samples(level, locations[step], weights[step])
            grad = grad_output[step].reshape(-1, channels)
            dots = _dots(level.table(value[step]), samples.rows, grad)
            positions, grad_weights[step, ..., level.index, :] = samples.gradients(dots)
            size = positions.new_tensor([level.width, level.height])
            grad_locations[step, ..., level.index, :, :] = positions * size
            if ctx.needs_input_grad[0]:
                part = level.cells(grad_value[step])
                table_rows = part.shape[0] * part.shape[1] * heads
                part.copy_(_transposed_bags(grad, samples, table_rows).view_as(part))
        return grad_value, None, grad_locations, grad_weights, None


def _steps(frames: int, size: int, shapes) -> Iterator[tuple[slice, _Level]]:
    """Frames of a step and one map, in turn: a sample's tensors exist for one of them at a time."""
    for first in range(0, frames, size):
        start = 0
        for index, (height, width) in enumerate(shapes):
            yield slice(first, first + size), _Level(index, start, height, width)
            start += height * width


def _bags(table: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sum of the rows of each query and head: (f * Q * M, D)."""
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")


@torch.enable_grad()
def _dots(table: torch.Tensor, rows: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Scalar product of each row with the gradient (f * Q * M, D) of its query: shape of `rows`."""
    ones = torch.ones_like(rows, dtype=table.dtype).requires_grad_()
    return torch.autograd.grad(_bags(table.detach(), rows, ones), ones, grad)[0]


def _transposed_bags(grad: torch.Tensor, samples: _Samples, table_rows: int) -> torch.Tensor:
    """Gradient of a table, (table_rows, D): for each row the queries that sampled it.

    Sorting the samples by row turns the scattered additions into bags once more.
    """
    ordered, order = samples.rows.reshape(-1).sort()
    starts = torch.arange(table_rows, dtype=torch.int32, device=grad.device)
    starts = torch.searchsorted(ordered, starts, out_int32=True)
    queries = torch.div(order, samples.rows.shape[1], rounding_mode="floor").int()
    weights = samples.weights.reshape(-1)[order]
    return F.embedding_bag(queries, grad, starts, per_sample_weights=weights, mode="sum")


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
        sizes = offsets.new_tensor([(width, height) for height, width in spatial_shapes])
        locations = reference[:, None, None, None] + offsets / sizes[:, None]
        sampled = multi_scale_deformable_attention(
            value, spatial_shapes, locations, weights.view(locations.shape[:-1])
        )
        return self.output_proj(sampled)
