"""What the matching of a clip with boxes costs: closed form against sampled points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..mask_free_vis.filled_boxes import clip_boxes
from ..mask_free_vis.matching import MatchSettings, box_dice_cost, box_extents, match
from ..mask_free_vis.targets import ClipTargets
from .matching_reference import match_by_points, sampled_dice_cost
from .timing import compare

HEADER = ["matching", "by points ms", "closed form ms", "ratio", "largest difference of a cost"]
STRIDE = 4


@dataclass
class MatchingInputs:
    """Predictions of L outputs for one clip, and its boxes.

    Attributes:
        class_logits: L times (Q, K + 1).
        mask_logits: L times (Q, T, h, w), blobs of about the sizes of the boxes.
        target: boxes (N, T, 4) whose corners lie on the grid, and what belongs to them.
        filled: (N, T, H, W) float, the boxes as masks at full resolution.
    """

    class_logits: list[torch.Tensor]
    mask_logits: list[torch.Tensor]
    target: ClipTargets
    filled: torch.Tensor


def make_inputs(
    outputs: int = 1,
    queries: int = 100,
    instances: int = 4,
    frames: int = 5,
    grid: tuple[int, int] = (120, 216),
    classes: int = 40,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> MatchingInputs:
    """Random blobs and boxes."""
    generator = torch.Generator().manual_seed(seed)
    size = (grid[0] * STRIDE, grid[1] * STRIDE)
    boxes = _random_boxes((instances, frames), grid, generator) * STRIDE
    present = torch.rand(instances, frames, generator=generator) < 0.9
    present[:, 0] = True
    target = ClipTargets(
        labels=torch.randint(classes, (instances,), generator=generator).to(device),
        boxes=(boxes * present[..., None]).to(device),
        present=present.to(device),
        clip_boxes=clip_boxes(boxes.to(device), present.to(device), size, STRIDE),
    )
    filled = _ellipses(boxes / STRIDE, grid).new_zeros(instances, frames, *size)
    for n, t in present.nonzero().tolist():
        x1, y1, x2, y2 = boxes[n, t].int().tolist()
        filled[n, t, y1:y2, x1:x2] = 1
    logits = [
        _ellipses(_random_boxes((queries, frames), grid, generator), grid).to(device)
        for _ in range(outputs)
    ]
    class_logits = torch.randn(outputs, queries, classes + 1, generator=generator).to(device)
    return MatchingInputs(list(class_logits), logits, target, filled.to(device))


def _random_boxes(
    shape: tuple[int, int], grid: tuple[int, int], generator: torch.Generator
) -> torch.Tensor:
    """(*shape, 4) xyxy in whole cells, with sides of 5 to 60 % of the grid."""
    extent = torch.tensor([grid[1], grid[0]])
    side = ((0.05 + 0.55 * torch.rand(*shape, 2, generator=generator)) * extent).ceil()
    low = ((extent - side) * torch.rand(*shape, 2, generator=generator)).floor()
    return torch.cat([low, low + side], dim=-1)


def _ellipses(boxes: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(..., h, w) logits, positive in the ellipse that fits into each box (..., 4) of cells."""
    y, x = (torch.arange(count) + 0.5 for count in grid)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    radius = (boxes[..., 2:] - boxes[..., :2]) / 2
    across = ((x - centre[..., :1]) / radius[..., :1]).square()
    down = ((y - centre[..., 1:]) / radius[..., 1:]).square()
    return 5 * (1 - across[..., None, :] - down[..., None])


def largest_difference(inputs: MatchingInputs, num_points: int) -> float:
    """Largest difference between both dice costs; the one by points is random."""
    differences = []
    for logits in inputs.mask_logits:
        boxes = inputs.target.clip_boxes
        exact = box_dice_cost(*box_extents(logits), boxes, num_points)
        sampled = sampled_dice_cost(logits, inputs.filled, num_points)
        differences.append((exact - sampled).abs().max().item())
    return max(differences)


def ways(inputs: MatchingInputs, num_points: int) -> dict[str, Callable[[], object]]:
    """The two functions that are timed, by name."""
    settings = MatchSettings(num_points=num_points)
    class_logits = [logits[None] for logits in inputs.class_logits]
    mask_logits = [logits[None] for logits in inputs.mask_logits]
    labels = inputs.target.labels
    return {
        "points": lambda: match_by_points(
            inputs.class_logits, inputs.mask_logits, labels, inputs.filled, num_points
        ),
        "closed": lambda: match(class_logits, mask_logits, [inputs.target], settings),
    }


def rows(
    outputs: Sequence[int] = (1, 10),
    repeats: int = 5,
    num_points: int = 20000,
    device: torch.device | str = "cpu",
    progress: Callable[[], object] = lambda: None,
    **sizes,
) -> list[list[str]]:
    """Lines of a table under ``HEADER``: medians of one run for each number of outputs.

    Args:
        sizes: of :func:`make_inputs`.
    """
    device, table = torch.device(device), []
    for count in outputs:
        inputs = make_inputs(count, device=device, **sizes)
        seconds = compare(ways(inputs, num_points), repeats, device, progress)
        queries, frames, height, width = inputs.mask_logits[0].shape
        name = f"{count} x {queries} queries, {len(inputs.target.labels)} objects"
        table.append(
            [
                f"{name}, {frames} frames of {height}x{width}",
                f"{seconds['points'] * 1e3:.0f}",
                f"{seconds['closed'] * 1e3:.0f}",
                f"{seconds['points'] / seconds['closed']:.1f}",
                f"{largest_difference(inputs, num_points):.4f}",
            ]
        )
    return table
