"""From a trained model and frames to tracks, in bounded memory.

Frames go through backbone and pixel decoder in chunks. Queries are selected before any mask is
upsampled, and masks become run lengths frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_util
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances

from ..layers.run_lengths import text_rle


@dataclass(frozen=True)
class Selection:
    """The best (query, class) pairs of a clip.

    Attributes:
        scores: (n,) class probabilities, descending.
        labels: (n,) classes.
        queries: (n,) indices of queries; a query may occur with several classes.
    """

    scores: torch.Tensor
    labels: torch.Tensor
    queries: torch.Tensor


def chunks(length: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover ``range(length)``; 0 stands for one slice of all."""
    step = size or max(length, 1)
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def windows(length: int, size: int, overlap: int) -> list[slice]:
    """Slices of `size` frames; neighbours share `overlap` frames, the last two perhaps more.

    Raises:
        ValueError: unless ``0 < overlap < size``.
    """
    if not 0 < overlap < size:
        raise ValueError(
            f"MODEL.MASK_FREE.TEST.WINDOW_OVERLAP is {overlap} and WINDOW_FRAMES {size}: the "
            "overlap must be at least 1 and smaller than the window"
        )
    if length <= size:
        return [slice(0, length)]
    starts = list(range(0, length - size, size - overlap)) + [length - size]
    return [slice(start, start + size) for start in starts]


def select(class_logits: torch.Tensor, top_k: int) -> Selection:
    """The `top_k` best pairs of query and class.

    Args:
        class_logits: (Q, K + 1); the last class is "no object".
        top_k: at most so many.
    """
    probabilities = class_logits.float().softmax(-1)[:, :-1]
    scores, index = probabilities.flatten().topk(min(top_k, probabilities.numel()))
    num_classes = probabilities.shape[1]
    queries = torch.div(index, num_classes, rounding_mode="floor")
    return Selection(scores, index % num_classes, queries)


def resize_masks(
    logits: torch.Tensor,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
) -> torch.Tensor:
    """Mask logits at the size of the original frames.

    Two bilinear steps, to the padded input and, after the padding is cut off, to the output: the
    published numbers were made so, and one step gives other masks.

    Args:
        logits: (n, h, w) of one frame.
        padded_size, image_size, output_size: (height, width) of the network's input with padding,
            without it, and of the result.

    Returns:
        (n, height, width) logits.
    """
    resized = F.interpolate(logits[None].float(), padded_size, mode="bilinear", align_corners=False)
    resized = resized[:, :, : image_size[0], : image_size[1]]
    return F.interpolate(resized, output_size, mode="bilinear", align_corners=False)[0]


def encode_masks(masks: torch.Tensor) -> list[dict | None]:
    """Compressed run lengths of masks (n, H, W) bool; None for a mask without a pixel."""
    arrays = masks.to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    rles = mask_util.encode(np.asfortranarray(arrays))
    visible = arrays.any(axis=(0, 1))
    return [text_rle(rle) if seen else None for rle, seen in zip(rles, visible)]


def image_instances(
    selection: Selection, logits: torch.Tensor, output_size: tuple[int, int]
) -> Instances:
    """Detections in a single image.

    The score is the class probability times the mean probability of the mask's pixels, as in the
    image models of the family; video scores have no such factor.

    Args:
        selection: n pairs of query and class.
        logits: (n, H, W) of their masks at `output_size`.
        output_size: (H, W).
    """
    masks = logits > 0
    area = masks.flatten(1).sum(1).clamp(min=1)
    quality = (logits.sigmoid() * masks).flatten(1).sum(1) / area
    instances = Instances(output_size)
    instances.pred_masks = masks
    instances.scores = selection.scores * quality
    instances.pred_classes = selection.labels
    instances.pred_boxes = Boxes(tight_boxes(masks))
    order = instances.scores.argsort(descending=True)
    return instances[order]


def tight_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Boxes (n, 4) xyxy in pixels around masks (n, H, W) bool, on their device; 0 for empty ones.

    detectron2's ``BitMasks.get_bounding_boxes`` loops over the masks and answers on the CPU.
    """
    sides = []
    for occupied in (masks.any(1), masks.any(2)):  # columns, rows
        place = torch.arange(occupied.shape[1], device=masks.device)
        low = torch.where(occupied, place, occupied.shape[1]).amin(1)
        sides.append((low, torch.where(occupied, place, -1).amax(1) + 1))
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], dim=1).float() * masks.any(2).any(1)[:, None]


def unique_queries(queries: torch.Tensor) -> tuple[torch.Tensor, Sequence[int]]:
    """Each selected query once, and for every entry of `queries` its place among them."""
    unique, inverse = queries.unique(return_inverse=True)
    return unique, inverse.tolist()
