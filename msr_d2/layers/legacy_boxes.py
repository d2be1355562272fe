"""Box conventions of maskrcnn-benchmark, the code base of the official Mask Scoring R-CNN.

There a box (x1, y1, x2, y2) names its first and its last pixel, so that its width is x2 - x1 + 1.
Everything here speaks of *continuous* boxes as detectron2 does: the legacy box above is the
continuous box (x1, y1, x2 + 1, y2 + 1). With that reading encoding, decoding, area, IoU and NMS of
both code bases are the same; the functions of this file are what still differs.

Shape shorthand:
    N: number of boxes
    M: side length of a predicted mask (28)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F


def legacy_cell_anchors(
    stride: int, sizes: Sequence[float], aspect_ratios: Sequence[float]
) -> torch.Tensor:
    """Anchors of one feature map cell, as Detectron quantises and places them.

    Width and height are rounded to whole pixels in a box of the size of one stride, and then
    scaled up; the centre is the centre of the first cell instead of its corner.

    Args:
        stride: stride of the feature map in pixels.
        sizes: square root of the anchor areas in pixels.
        aspect_ratios: height / width.

    Returns:
        (len(sizes) * len(aspect_ratios), 4) continuous boxes, all ratios of the first size first.
    """
    anchors = []
    for size in sizes:
        for ratio in aspect_ratios:
            width = round(math.sqrt(stride * stride / ratio))
            height = round(width * ratio)
            half_w, half_h = 0.5 * width * size / stride, 0.5 * height * size / stride
            center = 0.5 * stride
            anchors.append([center - half_w, center - half_h, center + half_w, center + half_h])
    return torch.tensor(anchors, dtype=torch.float32)


def clip_legacy_boxes(boxes: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """Clip boxes so that first and last pixel lie in the image: no box becomes empty.

    Args:
        boxes: (..., 4) continuous boxes.
        image_size: height and width in pixels.

    Returns:
        The clipped boxes; boxes with an infinite or undefined coordinate are returned as they are,
        so that the checks for diverged training still see them.
    """
    height, width = image_size
    low = boxes.new_tensor([0, 0, 1, 1])
    high = boxes.new_tensor([width - 1, height - 1, width, height])
    clipped = torch.minimum(torch.maximum(boxes, low), high)
    return torch.where(torch.isfinite(boxes).all(dim=-1, keepdim=True), clipped, boxes)


def rescale_legacy_boxes(boxes: torch.Tensor, scale_x: float, scale_y: float) -> torch.Tensor:
    """Scale boxes to another image size: the index of the last pixel is what is multiplied.

    Args:
        boxes: (..., 4) continuous boxes.
        scale_x, scale_y: new width / old width, new height / old height.
    """
    scale = boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
    return last_pixel_boxes(boxes) * scale + boxes.new_tensor([0, 0, 1, 1])


def last_pixel_boxes(boxes: torch.Tensor) -> torch.Tensor:
    """(..., 4) continuous boxes as legacy boxes (x1, y1, x2 - 1, y2 - 1)."""
    return boxes - boxes.new_tensor([0, 0, 1, 1])


def legacy_levels(
    boxes: torch.Tensor,
    min_level: int,
    max_level: int,
    canonical_size: float = 224,
    canonical_level: int = 4,
) -> torch.Tensor:
    """The pyramid level of each box (Eqn. 1 of the FPN paper, with the epsilon 1e-6).

    Args:
        boxes: (N, 4) continuous boxes.
        min_level, max_level: levels that exist.
        canonical_size: side in pixels of the box that belongs to `canonical_level`.

    Returns:
        (N,) int64, counted from `min_level`.
    """
    sizes = torch.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    levels = torch.floor(canonical_level + torch.log2(sizes / canonical_size + 1e-6))
    return levels.clamp(min=min_level, max=max_level).to(torch.int64) - min_level


def paste_legacy_masks(
    masks: torch.Tensor,
    boxes: torch.Tensor,
    image_size: tuple[int, int],
    threshold: float = 0.5,
    padding: int = 1,
) -> torch.Tensor:
    """Paste predicted masks into the image as Detectron did, on whole pixels.

    A mask gets a border of zeros, its box is enlarged accordingly and truncated to whole pixels,
    and the mask is resized bilinearly to that many pixels.

    Args:
        masks: (N, M, M) probabilities.
        boxes: (N, 4) continuous boxes.
        image_size: height and width in pixels.
        threshold: a pixel belongs to the mask when its probability is larger.
        padding: width of the border in cells.

    Returns:
        (N, height, width) bool.
    """
    pasted = torch.zeros((len(masks), *image_size), dtype=torch.bool, device=masks.device)
    if len(masks) == 0:
        return pasted
    padded = F.pad(masks.float(), (padding,) * 4)
    enlarged = _enlarge(last_pixel_boxes(boxes), padded.shape[-1] / masks.shape[-1])
    for canvas, mask, box in zip(pasted, padded, enlarged.to(torch.int32).tolist()):
        _paste_one(canvas, mask, box, threshold)
    return pasted


def _enlarge(boxes: torch.Tensor, factor: float) -> torch.Tensor:
    center = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    half = 0.5 * factor * (boxes[:, 2:] - boxes[:, :2])
    return torch.cat([center - half, center + half], dim=1)


def _paste_one(canvas: torch.Tensor, mask: torch.Tensor, box: list[int], threshold: float) -> None:
    x1, y1, x2, y2 = box  # first and last pixel
    size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
    resized = F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)
    height, width = canvas.shape
    left, right = max(x1, 0), min(x1 + size[1], width)
    top, bottom = max(y1, 0), min(y1 + size[0], height)
    if left < right and top < bottom:
        visible = resized[0, 0, top - y1 : bottom - y1, left - x1 : right - x1]
        canvas[top:bottom, left:right] = visible > threshold


def legacy_resize_shape(height: int, width: int, short_side: int, max_side: int) -> tuple[int, int]:
    """Size of an image whose shorter side becomes `short_side`, fractions cut off.

    Args:
        height, width: of the image in pixels.
        short_side: wanted length of the shorter side.
        max_side: the longer side may not exceed it; if it would, the shorter side shrinks.

    Returns:
        New height and new width.
    """
    shorter, longer = min(height, width), max(height, width)
    if longer / shorter * short_side > max_side:
        short_side = round(max_side * shorter / longer)
    if shorter == short_side:
        return height, width
    if width < height:
        return int(short_side * height / width), short_side
    return short_side, int(short_side * width / height)
