"""What deformable attention costs in training: sums of table rows against stacked samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..layers.deformable_attention import multi_scale_deformable_attention
from .box_losses import saved_mebibytes
from .deformable_attention_reference import stacked_deformable_attention
from .timing import compare

HEADER = [
    "deformable attention, forward and backward",
    "stacked ms",
    "ours ms",
    "ratio",
    "stacked saves MiB",
    "ours saves MiB",
    "ratio",
]
STRIDES = (32, 16, 8)


@dataclass
class AttentionInputs:
    """What one encoder layer gives to the operator: each cell of the maps is a query.

    Attributes:
        value, locations, weights: see ``multi_scale_deformable_attention``.
        spatial_shapes: (height, width) of the maps.
        grad: gradient of the result, (F, S, M * D).
    """

    value: torch.Tensor
    spatial_shapes: list[tuple[int, int]]
    locations: torch.Tensor
    weights: torch.Tensor
    grad: torch.Tensor

    @property
    def arguments(self) -> tuple:
        return self.value, self.spatial_shapes, self.locations, self.weights

    def step(self, function: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Forward and backward pass; returns the gradients of value, locations and weights."""
        leaves = (self.value, self.locations, self.weights)
        return torch.autograd.grad(function(*self.arguments), leaves, self.grad)


def make_inputs(
    frames: int = 5,
    size: tuple[int, int] = (384, 640),
    heads: int = 8,
    channels: int = 256,
    points: int = 4,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> AttentionInputs:
    """Random values and, within some cells around each query, random locations."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(size[0] // stride, size[1] // stride) for stride in STRIDES]
    cells = sum(height * width for height, width in shapes)
    centres = torch.cat([_centres(shape) for shape in shapes])[:, None, None, None]
    samples = (frames, cells, heads, len(shapes), points)
    offsets = torch.randn(*samples, 2, generator=generator) * 2
    locations = centres + offsets / torch.tensor([(w, h) for h, w in shapes])[:, None]
    value = torch.randn(frames, cells, heads, channels // heads, generator=generator)
    weights = torch.randn(samples, generator=generator).flatten(3).softmax(-1).view(samples)
    grad = torch.randn(frames, cells, channels, generator=generator)
    leaves = [x.to(device).requires_grad_() for x in (value, locations, weights)]
    return AttentionInputs(leaves[0], shapes, *leaves[1:], grad.to(device))


def _centres(shape: tuple[int, int]) -> torch.Tensor:
    y, x = ((torch.arange(n) + 0.5) / n for n in shape)
    return torch.cartesian_prod(y, x).flip(1)


def rows(
    frames: tuple[int, ...] = (1, 5),
    repeats: int = 5,
    device: torch.device | str = "cpu",
    progress: Callable[[], object] = lambda: None,
    **sizes,
) -> list[list[str]]:
    """Lines of a table under :data:`HEADER`: medians of one run for each number of frames.

    Args:
        sizes: of :func:`make_inputs`.
    """
    device, table = torch.device(device), []
    ways = {"stacked": stacked_deformable_attention, "ours": multi_scale_deformable_attention}
    for count in frames:
        inputs = make_inputs(count, device=device, **sizes)
        steps = {name: lambda way=way: inputs.step(way) for name, way in ways.items()}  # noqa: B023
        seconds = compare(steps, repeats, device, progress)
        saved = {
            name: saved_mebibytes(lambda way=way: way(*inputs.arguments))  # noqa: B023
            for name, way in ways.items()
        }
        height, width = (side * STRIDES[0] for side in inputs.spatial_shapes[0])
        heads, channels = inputs.value.shape[2], inputs.grad.shape[-1]
        table.append(
            [
                f"{count} frames of {height}x{width}, {heads} heads, {channels} channels",
                f"{seconds['stacked'] * 1e3:.0f}",
                f"{seconds['ours'] * 1e3:.0f}",
                f"{seconds['stacked'] / seconds['ours']:.1f}",
                f"{saved['stacked']:.0f}",
                f"{saved['ours']:.0f}",
                f"{saved['stacked'] / saved['ours']:.1f}",
            ]
        )
    return table
