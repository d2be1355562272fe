"""Targets of the box losses of a clip: filled boxes, colour edges and matches between frames.

All that depends on the images alone is worked out once per clip and shared by all instances and all
supervised outputs (arXiv 2303.15904, Sec. 3; the official code repeats it for each of them).

Letters: N instances, T frames, H x W padded frame, h x w mask grid (stride 4), E colour neighbours,
K matches of a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..layers.color import rgb_to_lab
from ..layers.mask_consistency import FrameMatches as PairMatches
from ..layers.mask_consistency import neighbour_offsets
from ..layers.patch_matching import METRICS, nearest_patches, window_offsets

GRID = "grid3x3_dil3"
CANDIDATES = ("dense", GRID)
THRESHOLDS = ("distance", "similarity")
COLORS = ("lab", "rgb")
TUBES = ("cyclic", "all", "dense")
NORMALISERS = ("matches", "hw")
BOX_EDGES = ("hard", "soft")


@dataclass(frozen=True)
class PairwiseSettings:
    """``MODEL.MASK_FREE.PAIRWISE``: which neighbours of a frame count as the same object."""

    size: int = 3
    dilation: int = 2
    color_threshold: float = 0.3
    theta: float = 0.5
    warmup_iters: int = 0
    padding_gate: bool = False

    def __post_init__(self):
        name = "MODEL.MASK_FREE.PAIRWISE"
        _check_odd(f"{name}.SIZE", self.size, least=3)
        _check_least(f"{name}.DILATION", self.dilation, 1)
        _check_least(f"{name}.THETA", self.theta, 0)
        _check_least(f"{name}.WARMUP_ITERS", self.warmup_iters, 0)
        _check_share(f"{name}.COLOR_THRESHOLD", self.color_threshold)

    @classmethod
    def from_config(cls, node) -> PairwiseSettings:
        """Read the node ``MODEL.MASK_FREE.PAIRWISE``."""
        return _from_node(cls, node)


@dataclass(frozen=True)
class TemporalSettings:
    """``MODEL.MASK_FREE.TEMPORAL``: how cells of different frames are matched.

    ``distance`` is the D of the paper, Sec. 3.2, on the Euclidean norm of the 3 N^2 colour values
    of a patch, with LAB divided by 100 (RGB by 255). D = 0.05 is 5.0 in raw LAB, next to the 5.991
    that the official rule exp(-d / 2) >= 0.05 on raw LAB comes to.
    """

    candidates: str = "dense"
    radius: int = 5
    patch_size: int = 3
    top_k: int = 5
    threshold: str = "distance"
    distance: float = 0.05
    similarity: float = 0.05
    color: str = "lab"
    metric: str = "l2"
    tube: str = "cyclic"
    normalise: str = "matches"
    warmup_iters: int = 200

    def __post_init__(self):
        name = "MODEL.MASK_FREE.TEMPORAL"
        _check_choice(f"{name}.CANDIDATES", self.candidates, CANDIDATES)
        _check_choice(f"{name}.THRESHOLD", self.threshold, THRESHOLDS)
        _check_choice(f"{name}.COLOR", self.color, COLORS)
        _check_choice(f"{name}.METRIC", self.metric, METRICS)
        _check_choice(f"{name}.TUBE", self.tube, TUBES)
        _check_choice(f"{name}.NORMALISE", self.normalise, NORMALISERS)
        _check_odd(f"{name}.PATCH_SIZE", self.patch_size, least=1)
        _check_least(f"{name}.RADIUS", self.radius, 0)
        _check_least(f"{name}.TOP_K", self.top_k, 1)
        _check_least(f"{name}.DISTANCE", self.distance, 0)
        _check_least(f"{name}.WARMUP_ITERS", self.warmup_iters, 0)
        _check_share(f"{name}.SIMILARITY", self.similarity)

    @classmethod
    def from_config(cls, node) -> TemporalSettings:
        """Read the node ``MODEL.MASK_FREE.TEMPORAL``."""
        return _from_node(cls, node)

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(dy, dx) of the candidates in cells of the mask grid."""
        return window_offsets(1, 3) if self.candidates == GRID else window_offsets(self.radius)


@dataclass(frozen=True)
class ClipBoxes:
    """Boxes of a clip on the mask grid. A filled box is the outer product of its two profiles.

    Attributes:
        x_profile: (N, T, w) in [0, 1], 0 where the instance is absent.
        y_profile: (N, T, h).
        present: (N, T) bool.
    """

    x_profile: torch.Tensor
    y_profile: torch.Tensor
    present: torch.Tensor

    def filled(self) -> torch.Tensor:
        """Filled boxes (N, T, h, w) in [0, 1]."""
        return self.y_profile[..., None] * self.x_profile[..., None, :]

    def union(self) -> torch.Tensor:
        """(N, h, w) bool: the filled boxes of all frames add up to 1 at least, as officially."""
        total = torch.einsum("nth,ntw->nhw", self.y_profile, self.x_profile)
        return total >= 1


@dataclass(frozen=True)
class ClipAffinities:
    """What the images of a clip say about its cells, for all instances and outputs.

    Attributes:
        edges: (T, E, h, w) bool, neighbours of similar colour; None if they were not asked for.
        matches: pairs of frames with the matches of their cells; empty for a single frame.
    """

    edges: torch.Tensor | None
    matches: list[PairMatches]


@dataclass
class ClipTargets:
    """Ground truth of one clip (an image is a clip of one frame).

    Attributes:
        labels: (N,) int64 class.
        boxes: (N, T, 4) xyxy in pixels of the padded frame, 0 where absent.
        present: (N, T) bool.
        supervision: "box" or "mask".
        clip_boxes: for supervision by boxes.
        affinities: for supervision by boxes.
        masks: (N, T, H, W) bool, for supervision by masks.
        is_image: whether the clip is a single image.
    """

    labels: torch.Tensor
    boxes: torch.Tensor
    present: torch.Tensor
    supervision: str = "box"
    clip_boxes: ClipBoxes | None = None
    affinities: ClipAffinities | None = None
    masks: torch.Tensor | None = None
    is_image: bool = False


@torch.no_grad()
def clip_boxes(
    boxes: torch.Tensor,
    present: torch.Tensor,
    size: tuple[int, int],
    stride: int,
    edges: str = "hard",
) -> ClipBoxes:
    """Boxes as profiles on the mask grid.

    Args:
        boxes: (N, T, 4) xyxy in pixels of the padded frame.
        present: (N, T) bool; the boxes of absent instances are not read.
        size: (H, W) of the padded frame, multiples of the stride.
        stride: pixels per cell.
        edges: "hard": the cells whose centre lies inside, at least the one that contains the centre
            of the box. "soft" (official): the box filled in whole pixels (those whose centre lies
            inside) and resized bilinearly, which gives 0, 0.25, 0.5 or 1 for a stride of 4.

    Raises:
        ValueError: for another `edges`, or a size that is no multiple of the stride.
    """
    _check_choice("MODEL.MASK_FREE.BOX_EDGES", edges, BOX_EDGES)
    height, width = _grid_size(size, stride)
    boxes = boxes.float()
    profile = _hard_profile if edges == "hard" else _soft_profile
    x = profile(boxes[..., 0], boxes[..., 2], width, stride) * present[..., None]
    y = profile(boxes[..., 1], boxes[..., 3], height, stride) * present[..., None]
    return ClipBoxes(x, y, present.to(torch.bool))


def _hard_profile(low, high, cells: int, stride: int) -> torch.Tensor:
    """(..., cells) 1 where the centre of a cell lies in [low, high]."""
    return _covered(low / stride, high / stride, cells).float()


def _soft_profile(low, high, cells: int, stride: int) -> torch.Tensor:
    """(..., cells) bilinear samples, at the centres of the cells, of the filled whole pixels."""
    pixels = _covered(low, high, cells * stride).float()
    place = torch.arange(cells, device=low.device) * stride + (stride - 1) // 2
    # The centre of a cell of even size lies between two pixels, of odd size on one.
    return (pixels[..., place] + pixels[..., place + (stride + 1) % 2]) / 2


def _covered(low, high, count: int) -> torch.Tensor:
    """(..., count) bool: i + 0.5 in [low, high], and the i that contains their middle."""
    place = torch.arange(count, device=low.device)
    inside = (place + 0.5 >= low[..., None]) & (place + 0.5 <= high[..., None])
    middle = ((low + high) / 2).floor().clamp(0, count - 1)
    return inside | (place == middle[..., None])


@torch.no_grad()
def clip_affinities(
    frames: torch.Tensor,
    valid: torch.Tensor,
    stride: int,
    pairwise: PairwiseSettings | None,
    temporal: TemporalSettings | None,
    lab_swap_channels: bool = False,
) -> ClipAffinities:
    """Colour edges within the frames of a clip and matches between them.

    With the official candidates ("grid3x3_dil3") the rules of the official code hold at borders as
    well: padding is black, and so is what lies outside of the grid. Otherwise neither has edges or
    matches.

    Args:
        frames: (T, 3, H, W) RGB in 0..255, padded with 0.
        valid: (T, 2) height and width of the frames without padding, or (T, h, w) bool.
        stride: pixels per cell of the mask grid.
        pairwise: settings of the edges; None: no edges.
        temporal: settings of the matches; None: no matches.
        lab_swap_channels: official: LAB of images with red and blue swapped.

    Raises:
        ValueError: if the frame size is no multiple of the stride.
    """
    grid = _grid_size(frames.shape[-2:], stride)
    valid = valid.to(frames.device)
    if valid.shape[1:] != grid:
        valid = valid_cells(valid, grid, stride)
    colors = F.avg_pool2d(frames.float(), stride).to(torch.uint8)
    lab = rgb_to_lab(colors.flip(-3) if lab_swap_channels else colors)
    official = temporal is not None and temporal.candidates == GRID
    inside = torch.ones_like(valid) if official else valid
    edges, matches = None, []
    if pairwise is not None:
        edges = color_edges(lab, inside, pairwise, outside_is_black=official)
        if pairwise.padding_gate and len(frames) == 1:
            edges = padding_gate(edges, valid)
    if temporal is not None:
        features = lab if temporal.color == "lab" else colors.float()
        matches = match_frames(features, inside, temporal)
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
    _check_choice("MODEL.MASK_FREE.TEMPORAL.TUBE", tube, TUBES)
    if frames < 2:
        return []
    if tube == "cyclic":
        return [(t, (t + 1) % frames) for t in range(frames)]
    both = [(i, j) for i in range(frames) for j in range(frames) if i != j]
    return both if tube == "dense" else [(i, j) for i, j in both if i < j]


def match_frames(
    colors: torch.Tensor, valid: torch.Tensor, settings: TemporalSettings
) -> list[PairMatches]:
    """Temporal KNN matching (arXiv 2303.15904, Sec. 3.2, Eq. 1) of all pairs of frames of a clip.

    Args:
        colors: (T, 3, h, w) LAB, or RGB in 0..255.
        valid: (T, h, w) bool, cells that can be matched.
        settings: candidates, threshold and pairs.
    """
    pairs = frame_pairs(len(colors), settings.tube)
    if not pairs:
        return []
    if settings.threshold == "distance":
        colors = colors / (100 if settings.color == "lab" else 255)
    # Patches that reach into padding see the same there as beyond the border of the grid: zeros.
    colors = colors * valid[:, None]
    first, second = (torch.tensor(side, device=colors.device) for side in zip(*pairs))
    distance, index = nearest_patches(
        colors[first],
        colors[second],
        settings.offsets,
        valid[first],
        settings.patch_size,
        settings.top_k,
        settings.metric,
        outside_is_black=settings.candidates == GRID,
    )
    if settings.threshold == "distance":
        near = distance < settings.distance
    else:
        near = torch.exp(-0.5 * distance) >= settings.similarity
    near &= valid[second][:, None]
    return [PairMatches(*pair, i, n) for pair, i, n in zip(pairs, index, near)]


def _grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    height, width = size
    if height % stride or width % stride:
        raise ValueError(
            f"the padded frames have {height} x {width} pixels, which is no multiple of the stride "
            f"{stride} of the masks: set MODEL.MASK_FORMER.SIZE_DIVISIBILITY to a multiple of it"
        )
    return height // stride, width // stride


def _from_node(cls, node):
    return cls(**{name: node[name.upper()] for name in cls.__dataclass_fields__})


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def _check_odd(name: str, value: int, least: int) -> None:
    if value < least or value % 2 != 1:
        raise ValueError(f"{name} is {value}; it must be an odd number of at least {least}")


def _check_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
