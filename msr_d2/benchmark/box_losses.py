"""What the box losses cost, against their equations by dense unfolding: time and saved memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from ..layers.color import rgb_to_lab
from ..layers.mask_consistency import PairMatches
from ..mask_free_vis import losses
from ..mask_free_vis.affinities import color_edges, frame_pairs, match_frames
from ..mask_free_vis.box_settings import GRID, PairwiseSettings, TemporalSettings
from ..mask_free_vis.filled_boxes import clip_boxes
from . import box_losses_reference as reference
from .timing import compare

HEADER = ["loss", "direct ms", "ours ms", "faster", "direct MiB", "ours MiB", "smaller"]

# The paper's candidates, and the official code's.
TEMPORAL_FORMS = {
    "TK-loss, R = 5": TemporalSettings(),
    "TK-loss, 9 candidates": TemporalSettings(candidates=GRID, threshold="similarity"),
}

STRIDE = 4


class LossInputs:
    """A clip of a moving texture with noise, random boxes, and logits of L outputs.

    Letters: L outputs, N instances, T frames, h x w mask grid.
    """

    def __init__(
        self,
        instances: int,
        device: torch.device,
        temporal: TemporalSettings,
        frames: int = 5,
        grid: tuple[int, int] = (120, 216),
        outputs: int = 10,
    ):
        random = torch.Generator().manual_seed(0)
        size = (grid[0] * STRIDE, grid[1] * STRIDE)
        self.frames = moving_texture(frames, size, random).to(device)
        self.valid = torch.ones(frames, *grid, dtype=torch.bool, device=device)
        boxes = _random_boxes(instances, frames, size, random).to(device)
        present = torch.ones(instances, frames, dtype=torch.bool, device=device)
        self.boxes = clip_boxes(boxes, present, size, STRIDE)
        self.region, self.filled = self.boxes.union(), self.boxes.filled()
        self.pairwise, self.temporal = PairwiseSettings(), temporal
        self.outside_is_black = temporal.candidates == GRID
        noise = torch.randn(outputs, instances, frames, *grid, generator=random)
        self.logits = (noise * 4).to(device).requires_grad_()

    def first(self, outputs: int) -> LossInputs:
        """The same clip with the logits of fewer outputs."""
        part = copy.copy(self)
        part.logits = self.logits.detach()[:outputs].clone().requires_grad_()
        return part


def matched(inputs: LossInputs) -> list[PairMatches]:
    """The matches of the clip, from its frames."""
    settings = inputs.temporal, inputs.outside_is_black
    return match_frames(_colors(inputs), inputs.valid, *settings)


def temporal_losses(inputs: LossInputs, matches: list[PairMatches]) -> torch.Tensor:
    """The TK-loss of all outputs (L,)."""
    return losses.temporal_knn_patch_loss(inputs.logits, matches, inputs.region)


def direct_pair_loss(inputs: LossInputs, pair: tuple[int, int]) -> torch.Tensor:
    """What one pair of frames adds to the TK-loss of one output, by dense unfolding."""
    scale = 100 if inputs.temporal.threshold == "distance" else 1
    valid = None if inputs.outside_is_black else inputs.valid
    settings = (inputs.filled, valid, inputs.temporal)
    colors = _colors(inputs) / scale
    return reference.frame_pair_loss(inputs.logits[0], colors, *settings, pair)


def found_edges(inputs: LossInputs) -> torch.Tensor:
    """The colour edges of the clip, from its frames."""
    return color_edges(_colors(inputs), inputs.valid, inputs.pairwise)


def pairwise_losses(inputs: LossInputs, edges: torch.Tensor) -> torch.Tensor:
    """The pairwise loss of all outputs (L,)."""
    return losses.pairwise_color_loss(inputs.logits, edges, inputs.boxes)


def direct_pairwise_loss(inputs: LossInputs) -> torch.Tensor:
    """The pairwise loss of one output by dense unfolding, edges included."""
    settings = (inputs.filled, inputs.valid, inputs.pairwise)
    return reference.pairwise_color_loss(inputs.logits[0], _colors(inputs), *settings)


def saved_mebibytes(function: Callable[[], object]) -> float:
    """Memory that autograd holds after `function` for the backward pass; each storage once."""
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    return sum(storages.values()) / 2**20


def rows(
    outputs: Sequence[int] = (1, 10),
    repeats: int = 2,
    instances: Sequence[int] = (4, 20),
    device: torch.device | str = "cpu",
    progress: Callable[[], object] = lambda: None,
    frames: int = 5,
    grid: tuple[int, int] = (120, 216),
) -> list[list[str]]:
    """Lines of a table under :data:`HEADER`, for each number of supervised outputs.

    Time is forward and backward. Ours finds the edges and matches once per clip; the direct form
    does it for each output, and so one output is timed and multiplied. Memory is what autograd
    saves; to ours the edges or matches are added, which are held meanwhile.
    """
    device, table = torch.device(device), []
    for count in instances:
        for name, settings in TEMPORAL_FORMS.items():
            inputs = LossInputs(count, device, settings, frames, grid, max(outputs))
            pairs = frame_pairs(frames, settings.tube)
            direct = [lambda x=inputs, pair=pair: direct_pair_loss(x, pair) for pair in pairs]
            ways = _ways(inputs, outputs, matched, temporal_losses)
            table += _compared(f"{name}, {count} instances", ways, direct, repeats, progress)
        ways = _ways(inputs, outputs, found_edges, pairwise_losses)
        direct = [lambda x=inputs: direct_pairwise_loss(x)]
        table += _compared(f"pairwise, {count} instances", ways, direct, repeats, progress)
    return table


def _ways(inputs: LossInputs, outputs: Sequence[int], find: Callable, loss: Callable) -> dict:
    """Our work by number of outputs: inputs, how targets are found, and the loss they give."""
    return {count: (inputs.first(count), find, loss) for count in outputs}


def _compared(name: str, ways: dict, direct: list[Callable], repeats: int, progress) -> list:
    """Lines for each number of outputs; the parts of the direct form have a backward pass each."""

    def direct_step() -> None:
        for part in direct:
            part().backward()

    def our_step(inputs: LossInputs, find: Callable, loss: Callable) -> None:
        inputs.logits.grad = None
        loss(inputs, find(inputs)).sum().backward()

    steps = {"direct": direct_step}
    steps.update({count: (lambda way=way: our_step(*way)) for count, way in ways.items()})
    device = next(iter(ways.values()))[0].logits.device
    seconds = compare(steps, repeats, device, progress)
    direct_memory = sum(saved_mebibytes(part) for part in direct)
    table = []
    for count, (inputs, find, loss) in ways.items():
        targets = find(inputs)
        memory = saved_mebibytes(lambda f=loss, x=inputs, y=targets: f(x, y)) + _mebibytes(targets)
        times = seconds["direct"] * count, seconds[count]
        table.append(_row(f"{name}, {count} outputs", times, (direct_memory * count, memory)))
    return table


def _row(name: str, seconds: tuple[float, float], memory: tuple[float, float]) -> list[str]:
    return [
        name,
        f"{seconds[0] * 1e3:.0f}",
        f"{seconds[1] * 1e3:.0f}",
        f"{seconds[0] / seconds[1]:.1f}",
        f"{memory[0]:.0f}",
        f"{memory[1]:.1f}",
        f"{memory[0] / memory[1]:.0f}",
    ]


def _colors(inputs: LossInputs) -> torch.Tensor:
    """(T, 3, h, w) LAB of the pooled frames."""
    return rgb_to_lab(F.avg_pool2d(inputs.frames.float(), STRIDE))


def _mebibytes(targets: torch.Tensor | list[PairMatches]) -> float:
    """Memory of edges or matches."""
    tensors = [targets] if isinstance(targets, torch.Tensor) else []
    if not tensors:
        tensors = [tensor for pair in targets for tensor in (pair.index, pair.valid)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20


def moving_texture(
    frames: int, size: tuple[int, int], random: torch.Generator, speed: int = 4, noise: float = 2.0
) -> torch.Tensor:
    """(T, 3, H, W) uint8: smooth colours that move `speed` pixels a frame, with noise."""
    height, width = size
    wide = (height, width + speed * frames)
    coarse = 64 + 128 * torch.rand(1, 3, height // 96 + 2, wide[1] // 96 + 2, generator=random)
    texture = F.interpolate(coarse, wide, mode="bicubic", align_corners=False)[0]
    clip = torch.stack([texture[..., t * speed : t * speed + width] for t in range(frames)])
    clip = clip + noise * torch.randn(clip.shape, generator=random)
    return clip.clamp(0, 255).to(torch.uint8)


def _random_boxes(
    instances: int, frames: int, size: tuple[int, int], random: torch.Generator
) -> torch.Tensor:
    """(N, T, 4) boxes that move a little; sides are 0.2 to 0.6 of the frame's."""
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    sides = (0.2 + 0.4 * torch.rand(instances, 1, 2, generator=random)) * extent
    corner = torch.rand(instances, 1, 2, generator=random) * (extent - sides)
    drift = torch.arange(frames)[None, :, None] * 4.0
    low = corner + drift.clamp(max=float(extent.min()))
    return torch.cat([low, low + sides], dim=2)
