"""Training targets of the MaskIoU head (arXiv 1903.00241, Sec. 3.3).

Shape shorthand:
    N: number of positive RoIs
    K: number of foreground classes
    G: number of ground-truth objects of one image
    M: side length of the predicted mask (28)

Boxes are (x1, y1, x2, y2) and areas are counted in pixels of the network's input image.
"""

from __future__ import annotations

import math

import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from .heads import select_class

TARGET_MODES = ("gt_class", "all", "positive")


def mask_areas(masks: PolygonMasks | BitMasks) -> torch.Tensor:
    """Area of each whole ground-truth mask in pixels, (G,) float32 on the CPU or the masks' device.

    Raises:
        TypeError: for masks that are neither ``PolygonMasks`` nor ``BitMasks``.
    """
    if isinstance(masks, PolygonMasks):
        return masks.area().float().reshape(-1)
    if isinstance(masks, BitMasks):
        # One by one: on the CPU more than ten times as fast as a sum over the flattened masks.
        areas = [mask.count_nonzero() for mask in masks.tensor]
        return torch.stack(areas).float() if areas else masks.tensor.new_zeros(0, dtype=torch.float)
    raise TypeError(f"ground-truth masks must be PolygonMasks or BitMasks, not {type(masks)}")


def rasterize_masks(
    masks: PolygonMasks | BitMasks, boxes: Boxes, side: int, device: torch.device
) -> torch.Tensor:
    """Ground truth inside each box on a grid of side x side: (N, side, side) bool on ``device``."""
    if len(boxes) == 0:
        return torch.zeros(0, side, side, dtype=torch.bool, device=device)
    return masks.crop_and_resize(boxes.tensor, side).to(device=device) > 0.5


class RasterizedMasks:
    """Masks that are rasterised already; ``mask_rcnn_loss`` takes them as ``gt_masks``.

    The mask loss and the MaskIoU target need the same raster, and making it is the dear part.
    """

    def __init__(self, raster: torch.Tensor):
        self.raster = raster

    def __len__(self) -> int:
        return len(self.raster)

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """The stored raster, (N, M, M) bool."""
        assert self.raster.shape == (len(boxes), mask_size, mask_size)
        return self.raster


class ImageTargets:
    """All ground truth of an image, carried by each of its proposals through their selection."""

    def __init__(self, targets: Instances, num_proposals: int):
        self.targets = targets
        self.num_proposals = num_proposals

    def __len__(self) -> int:
        return self.num_proposals

    def __getitem__(self, item) -> ImageTargets:
        index = item.cpu() if isinstance(item, torch.Tensor) else item
        return ImageTargets(self.targets, torch.arange(self.num_proposals)[index].numel())


def logit(probability: float) -> float:
    """Logit of a probability; exactly 0 for 0.5.

    Raises:
        ValueError: unless 0 < probability < 1.
    """
    if not 0 < probability < 1:
        raise ValueError(
            f"MODEL.ROI_MASKIOU_HEAD.MASK_THRESHOLD is {probability}: it is a probability and must "
            "lie between 0 and 1"
        )
    return math.log(probability / (1 - probability))


@torch.no_grad()
def mask_iou_targets(
    mask_logits: torch.Tensor,
    gt_masks: torch.Tensor,
    boxes: torch.Tensor,
    gt_areas: torch.Tensor,
    threshold: float = 0.0,
) -> torch.Tensor:
    """IoU of each predicted mask with its whole ground-truth mask.

    The ground truth outside of the box counts as missed: the full area in grid cells is
    ``gt_area * M^2 / box_area`` (closed form of the published ``sum(T) / ratio``), and never less
    than the cells inside the box.

    Args:
        mask_logits: (..., N, M, M) logits of the predicted masks.
        gt_masks: (..., N, M, M) bool, ground truth inside the boxes.
        boxes: (N, 4) boxes that the masks fill.
        gt_areas: (..., N) areas of the whole ground-truth masks.
        threshold: logit above which a cell is mask.

    Returns:
        (..., N) MaskIoU in [0, 1], float32. 0 for a box without area.
    """
    predicted = mask_logits > threshold
    gt_masks = gt_masks.to(torch.bool)
    cells = mask_logits.shape[-1] * mask_logits.shape[-2]
    sizes = (boxes[:, 2:] - boxes[:, :2]).float().clamp(min=0)
    box_areas = sizes[:, 0] * sizes[:, 1]
    inside = gt_masks.flatten(-2).sum(-1).float()
    full = torch.maximum(gt_areas.float() * cells / box_areas.clamp(min=1e-6), inside)
    intersection = (predicted & gt_masks).flatten(-2).sum(-1).float()
    union = predicted.flatten(-2).sum(-1).float() + full - intersection
    return intersection / union.clamp(min=1)


@torch.no_grad()
def class_ground_truth(
    targets: Instances,
    boxes: Boxes,
    matched_classes: torch.Tensor,
    matched_masks: torch.Tensor,
    matched_areas: torch.Tensor,
    num_classes: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ground truth of every class inside each RoI, for the targets #2 and #3 of Table 5.

    For the class of the matched object it is that object; for another class the object that
    covers most of the RoI (the paper does not say which).

    Args:
        targets: ground truth of one image: `gt_boxes`, `gt_classes`, `gt_masks` and
            `gt_mask_areas` (G,).
        boxes: the N positive RoIs of the image.
        matched_classes: (N,) classes of the matched objects.
        matched_masks: (N, M, M) bool rasters of the matched objects.
        matched_areas: (N,) areas of the matched objects.
        num_classes: K.

    Returns:
        (K, N, M, M) bool rasters, empty where a class is absent, and their full areas (K, N).
    """
    count, side = len(boxes), matched_masks.shape[-1]
    device = matched_masks.device
    masks = torch.zeros(num_classes, count, side, side, dtype=torch.bool, device=device)
    areas = torch.zeros(num_classes, count, device=device)
    covered = torch.zeros(num_classes, count, device=device)
    for index in range(len(targets)):
        cls = int(targets.gt_classes[index])
        near = _touching(boxes.tensor, targets.gt_boxes.tensor[index])
        repeated = targets.gt_masks[torch.full((len(near),), index)]
        raster = rasterize_masks(repeated, boxes[near], side, device)
        cells = raster.flatten(1).sum(1).float()
        better = cells > covered[cls, near]
        rois = near[better]
        masks[cls, rois], covered[cls, rois] = raster[better], cells[better]
        areas[cls, rois] = targets.gt_mask_areas[index].to(device)
    rois = torch.arange(count, device=device)
    masks[matched_classes, rois] = matched_masks
    areas[matched_classes, rois] = matched_areas.to(device)
    return masks, areas


def _touching(boxes: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Indices of the boxes (N, 4) that come within a pixel of one box (4,)."""
    low = torch.maximum(boxes[:, :2], box[:2] - 1)
    high = torch.minimum(boxes[:, 2:], box[2:] + 1)
    return (high > low).all(dim=1).nonzero()[:, 0]


def selected_entries(targets: torch.Tensor, present: torch.Tensor, mode: str, tau: float):
    """Entries of the (K, N) class-wise targets that are trained, for one mode of Table 5.

    Args:
        targets: (K, N) MaskIoU of each class.
        present: (K, N) bool, whether the RoI holds an object of the class.
        mode: "all" trains absent classes too, towards 0; "positive" only the present ones.
        tau: present classes count from ``target > tau`` on (Table 6).
    """
    selected = present & (targets > tau)
    return selected | ~present if mode == "all" else selected


def gt_class_targets(
    mask_logits: torch.Tensor,
    gt_masks: torch.Tensor,
    boxes: torch.Tensor,
    gt_areas: torch.Tensor,
    gt_classes: torch.Tensor,
    threshold: float = 0.0,
) -> torch.Tensor:
    """:func:`mask_iou_targets` of the ground-truth class's mask, (N,); target #1 of Table 5."""
    logits = select_class(mask_logits, gt_classes)
    return mask_iou_targets(logits, gt_masks, boxes, gt_areas, threshold)
