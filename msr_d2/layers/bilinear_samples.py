"""Bilinear samples of feature maps as weighted sums of rows of a table, and their gradients.

``embedding_bag`` adds the rows without storing them. Sorted by row, the gradient of the table is
such a sum too: of the queries that sampled each row. No addition depends on the order of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F


class Level(NamedTuple):
    """One map: where its cells start among all cells, and its size."""

    index: int
    start: int
    height: int
    width: int

    def cells(self, value: torch.Tensor) -> torch.Tensor:
        """The part (f, height * width, M, D) of all cells (f, S, M, D), as a view."""
        return value[:, self.start : self.start + self.height * self.width]

    def table(self, value: torch.Tensor) -> torch.Tensor:
        """The same as rows, (f * height * width * M, D)."""
        return self.cells(value).reshape(-1, value.shape[-1])


class Axis(NamedTuple):
    """The two neighbours of each sample along one axis of a map, each (f, Q, M, P).

    A neighbour outside of the map has weight and slope zero and the index of the border.
    """

    size: int
    index: tuple[torch.Tensor, torch.Tensor]
    weight: tuple[torch.Tensor, torch.Tensor]
    inside: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, locations: torch.Tensor, size: int) -> Axis:
        """Neighbours of locations, where 0 and 1 are the borders of `size` cells."""
        position = locations * size - 0.5
        low = position.floor()
        fraction = position - low
        # Far outside is as good as just outside, and fits into an integer.
        low = low.clamp(-2, size).int()
        inside = ((low >= 0) & (low < size), (low >= -1) & (low < size - 1))
        weight = ((1 - fraction) * inside[0], fraction * inside[1])
        index = (low.clamp(0, size - 1), (low + 1).clamp(0, size - 1))
        return cls(size, index, weight, inside)

    def slope(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Derivative by the location of :meth:`interpolate`."""
        return (high * self.inside[1] - low * self.inside[0]) * self.size

    def interpolate(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Value between those of the two neighbours."""
        return low * self.weight[0] + high * self.weight[1]


class Samples:
    """The samples of one map: their four corners as rows of its table, and their weights.

    `rows` and `weights` are (f * Q * M, 4 * P): top left, top right, bottom left, bottom right.
    """

    def __init__(self, level: Level, locations: torch.Tensor, weights: torch.Tensor):
        """
        Args:
            level: the map.
            locations, weights: (f, Q, M, V, P, 2) and (f, Q, M, V, P), of all V maps.
        """
        locations, self.scale = locations[..., level.index, :, :], weights[..., level.index, :]
        self.x = Axis.of(locations[..., 0], level.width)
        self.y = Axis.of(locations[..., 1], level.height)
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

    def gradients(self, products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the locations (f, Q, M, P, 2) and of the weights (f, Q, M, P).

        Args:
            products: of each corner, see :func:`scalar_products`.
        """
        shape = (*self.scale.shape[:3], 4, self.scale.shape[3])
        top_left, top_right, bottom_left, bottom_right = products.view(shape).unbind(-2)
        top = self.x.interpolate(top_left, top_right)
        bottom = self.x.interpolate(bottom_left, bottom_right)
        left = self.y.interpolate(top_left, bottom_left)
        right = self.y.interpolate(top_right, bottom_right)
        slopes = (self.x.slope(left, right), self.y.slope(top, bottom))
        by_location = torch.stack([slope * self.scale for slope in slopes], -1)
        return by_location, self.y.interpolate(top, bottom)


def _corners(*values: torch.Tensor) -> torch.Tensor:
    return torch.stack(values, -2).flatten(0, 2).flatten(1)


def bags(table: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sum of the rows of each query and head: (f * Q * M, D)."""
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")


@torch.enable_grad()
def scalar_products(table: torch.Tensor, rows: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Scalar product of each row with the gradient (f * Q * M, D) of its query: shape of `rows`."""
    ones = torch.ones_like(rows, dtype=table.dtype).requires_grad_()
    return torch.autograd.grad(bags(table.detach(), rows, ones), ones, grad)[0]


def transposed_bags(grad: torch.Tensor, samples: Samples, table_rows: int) -> torch.Tensor:
    """Gradient of a table, (table_rows, D): for each row the queries that sampled it.

    Sorting the samples by row turns the scattered additions into bags once more.
    """
    ordered, order = samples.rows.reshape(-1).sort()
    starts = torch.arange(table_rows, dtype=torch.int32, device=grad.device)
    starts = torch.searchsorted(ordered, starts, out_int32=True)
    queries = torch.div(order, samples.rows.shape[1], rounding_mode="floor").int()
    weights = samples.weights.reshape(-1)[order]
    return F.embedding_bag(queries, grad, starts, per_sample_weights=weights, mode="sum")
