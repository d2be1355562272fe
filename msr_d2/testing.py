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


def tiny_vis_cfg(opts: list | None = None) -> CfgNode:
    """A MaskFreeVIS that trains a step on the CPU in a fraction of a second.

    A narrow R-50 (32, 64, 128, 256 channels), 2 encoder and 3 decoder layers of 32 channels, 5
    queries, 3 classes, clips of 3 frames of 64 x 96 pixels.

    Args:
        opts: further keys and values, ``[key, value, ...]``.
    """
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "MaskFreeVIS"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.SAMPLING_FRAME_NUM, cfg.INPUT.SAMPLING_FRAME_RANGE = 3, 3
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (64,), 96
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 96
    cfg.INPUT.IMAGE_SIZE = 64
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = "ADAMW", 1e-3, 0.05
    cfg.MODEL.MASK_FREE.TEMPORAL.WARMUP_ITERS = 0  # a first step shows every loss
    _tiny_resnet(cfg)
    _tiny_mask_former(cfg)
    cfg.merge_from_list(opts or [])
    return cfg


def _tiny_resnet(cfg: CfgNode) -> None:
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_resnet_backbone", 0
    resnet = cfg.MODEL.RESNETS
    resnet.DEPTH, resnet.NORM, resnet.STRIDE_IN_1X1 = 50, "BN", False
    resnet.STEM_OUT_CHANNELS, resnet.WIDTH_PER_GROUP, resnet.RES2_OUT_CHANNELS = 8, 8, 32
    resnet.OUT_FEATURES = ["res2", "res3", "res4", "res5"]


def _tiny_mask_former(cfg: CfgNode) -> None:
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME, head.NUM_CLASSES, head.NORM = "MaskFormerHead", 3, "GN"
    head.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    head.CONVS_DIM = head.MASK_DIM = 32  # GroupNorm has 32 groups
    head.TRANSFORMER_ENC_LAYERS, head.TRANSFORMER_ENC_DIM_FEEDFORWARD = 2, 64
    former = cfg.MODEL.MASK_FORMER
    former.HIDDEN_DIM, former.NHEADS, former.DIM_FEEDFORWARD = 32, 4, 64
    former.DEC_LAYERS, former.NUM_OBJECT_QUERIES, former.TRAIN_NUM_POINTS = 4, 5, 64


def tiny_clips(
    supervision: str = "box", num_clips: int = 2, num_frames: int = 3, seed: int = 0
) -> list[dict]:
    """Training clips of 64 x 96 pixels: a rectangle and, in even clips, an ellipse that move.

    The ellipse is absent from the last frame, where a clip has more than one. Objects have a
    colour of their own; classes are 0 to 2.

    Args:
        supervision: "mask" gives the instances gt_masks, "box" does not.
        num_clips: number of items.
        num_frames: T, frames of each.
        seed: of colours, positions and velocities.

    Returns:
        items as the clip mapper makes them.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_tiny_clip(index, supervision, num_frames, generator) for index in range(num_clips)]


def tiny_images(supervision: str = "box", num_images: int = 2, seed: int = 0) -> list[dict]:
    """Training items of single images, as the image mapper makes them; see `tiny_clips`."""
    images = []
    for clip in tiny_clips(supervision, num_images, 1, seed):
        (image,), (instances,) = clip["image"], clip["instances"]
        instances.remove("gt_ids")
        kept = {key: clip[key] for key in ("supervision", "source", "height", "width")}
        images.append(
            {"image": image, "instances": instances, "image_id": clip["video_id"], **kept}
        )
    return images


def _tiny_clip(index: int, supervision: str, num_frames: int, generator: torch.Generator) -> dict:
    masks = _moving_shapes(num_frames, generator)[: 2 - index % 2]  # (N, T, 64, 96)
    if len(masks) > 1 and num_frames > 1:
        masks[1, -1] = False
    colors = torch.randint(0, 256, (len(masks), 3), generator=generator)
    noise = torch.randint(100, 110, (num_frames, 3, 64, 96), generator=generator)
    frames = noise.to(torch.uint8)
    for mask, color in zip(masks, colors):
        frames = torch.where(mask[:, None], color.to(torch.uint8)[:, None, None], frames)
    classes = torch.randint(0, 3, (len(masks),), generator=generator)
    return {
        "image": list(frames),
        "instances": [_tiny_frame(masks[:, t], classes, supervision) for t in range(num_frames)],
        "supervision": supervision,
        "source": "tiny_clips",
        "height": 64,
        "width": 96,
        "video_id": index,
        "length": num_frames,
        "file_names": [f"{index}/{t:05d}.jpg" for t in range(num_frames)],
        "frame_indices": list(range(num_frames)),
    }


def _moving_shapes(num_frames: int, generator: torch.Generator) -> torch.Tensor:
    """Masks (2, T, 64, 96) of a rectangle and an ellipse that move by a few pixels a frame."""
    y = torch.arange(64)[:, None] + 0.5
    x = torch.arange(96)[None, :] + 0.5
    masks = torch.zeros(2, num_frames, 64, 96, dtype=torch.bool)
    for row, center_x in enumerate((28, 68)):
        step_x, step_y = torch.randint(-3, 4, (2,), generator=generator).tolist()
        half_w, half_h = torch.randint(8, 17, (2,), generator=generator).tolist()
        for t in range(num_frames):
            shift = min(t, 4)  # far enough from the border of the image
            dx = (x - center_x - shift * step_x).abs() / half_w
            dy = (y - 32 - shift * step_y).abs() / half_h
            masks[row, t] = torch.maximum(dx, dy) <= 1 if row == 0 else dx**2 + dy**2 <= 1
    return masks


def _tiny_frame(masks: torch.Tensor, classes: torch.Tensor, supervision: str) -> Instances:
    """Instances of one frame from its masks (N, 64, 96); empty ones are absent."""
    instances = Instances((64, 96))
    instances.gt_boxes = BitMasks(masks).get_bounding_boxes()
    instances.gt_classes = classes.clone()
    present = masks.flatten(1).any(1)
    instances.gt_ids = torch.where(present, torch.arange(len(masks)), torch.tensor(-1))
    if supervision == "mask":
        instances.gt_masks = BitMasks(masks)
    return instances
