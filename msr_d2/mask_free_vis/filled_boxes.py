"""Boxes of a clip on the mask grid.

Letters: N instances, T frames, H x W padded frame, h x w mask grid (stride 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .box_settings import check_choice

BOX_EDGES = ("hard", "soft")


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
    check_choice("MODEL.MASK_FREE.BOX_EDGES", edges, BOX_EDGES)
    height, width = grid_size(size, stride)
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


def grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(h, w) of the mask grid of padded frames (H, W); a ValueError if the stride does not fit."""
    height, width = size
    if height % stride or width % stride:
        raise ValueError(
            f"the padded frames have {height} x {width} pixels, which is no multiple of the stride "
            f"{stride} of the masks: set MODEL.MASK_FORMER.SIZE_DIVISIBILITY to a multiple of it"
        )
    return height // stride, width // stride
