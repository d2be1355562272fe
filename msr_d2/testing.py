"""Small configs and inputs for tests, ours and those of projects that build on msr_d2."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from .config import get_cfg

ROI_HEADS = {
    "fpn": "MaskScoringROIHeads",
    "cascade": "CascadeMaskScoringROIHeads",
    "c4": "Res5MaskScoringROIHeads",
}


def tiny_cfg(variant: str = "fpn", num_classes: int = 3, opts: list | None = None) -> CfgNode:
    """A Mask Scoring R-CNN that trains a step on the CPU in a fraction of a second.

    Args:
        variant: "fpn", "cascade" or "c4".
        num_classes: number of classes.
        opts: further keys and values, ``[key, value, ...]``.
    """
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = cfg.MODEL.MASKIOU_ON = True
    cfg.MODEL.ROI_HEADS.NAME = ROI_HEADS[variant]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = "BN", 0  # nothing is pretrained here
    cfg.MODEL.PIXEL_STD = [57.375, 57.12, 58.395]
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 50
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    cfg.MODEL.ROI_MASKIOU_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_MASKIOU_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.TEST.DETECTIONS_PER_IMAGE = 10
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (64,), 96
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 96
    cfg.DATALOADER.NUM_WORKERS = 0
    (_tiny_c4 if variant == "c4" else _tiny_fpn)(cfg)
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = variant == "cascade"
    cfg.merge_from_list(opts or [])
    return cfg


def _tiny_fpn(cfg: CfgNode) -> None:
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14


def _tiny_c4(cfg: CfgNode) -> None:
    cfg.MODEL.RESNETS.DEPTH = 50
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 32
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    cfg.MODEL.RPN.IN_FEATURES = ["res4"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32, 64]]
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 14
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 0


def rectangle_instances(
    rectangles: list[tuple[int, int, int, int]],
    classes: list[int],
    image_size: tuple[int, int] = (64, 96),
    masks: str = "polygon",
) -> Instances:
    """Ground truth whose masks are whole rectangles.

    Args:
        rectangles: (x1, y1, x2, y2) of each object, in pixels.
        classes: class of each object.
        image_size: (height, width).
        masks: "polygon" for ``PolygonMasks``, "bitmask" for ``BitMasks``.
    """
    instances = Instances(image_size)
    instances.gt_boxes = Boxes(torch.tensor(rectangles, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if masks == "bitmask":
        bits = torch.zeros(len(rectangles), *image_size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(bits, rectangles):
            mask[y1:y2, x1:x2] = True
        instances.gt_masks = BitMasks(bits)
    else:
        polygons = [[np.array([a, b, c, b, c, d, a, d], float)] for a, b, c, d in rectangles]
        instances.gt_masks = PolygonMasks(polygons)
    return instances


def tiny_batch(masks: str = "polygon", seed: int = 0) -> list[dict]:
    """Two training items of 64 x 96 pixels with two and one objects of three classes."""
    generator = torch.Generator().manual_seed(seed)
    objects = [([(8, 8, 40, 40), (48, 16, 88, 56)], [0, 2]), ([(20, 10, 70, 50)], [1])]
    return [
        {
            "image": (torch.rand(3, 64, 96, generator=generator) * 255).to(torch.uint8),
            "instances": rectangle_instances(rectangles, classes, masks=masks),
            "height": 64,
            "width": 96,
            "image_id": index,
        }
        for index, (rectangles, classes) in enumerate(objects)
    ]
