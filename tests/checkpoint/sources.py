"""Checkpoints of other code bases, made for tests without using the converter.

`*_names` list a model's weights from the architecture; `to_*` are the inverse of the conversion.
"""

from __future__ import annotations

import re

import torch

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def _resnet(prefix: str, depth: int, stages=(1, 2, 3, 4), blocks_prefix: str | None = None) -> dict:
    """Names and shapes of a ResNet of torchvision's naming, which both code bases use."""
    shapes = {}
    for stage in stages:
        width, inputs = 64 * 2 ** (stage - 1), 64 if stage == 1 else 128 * 2 ** (stage - 1)
        for block in range(BLOCKS[depth][stage - 1]):
            name = f"{prefix}layer{stage}.{block}."
            outputs = 4 * width
            shapes[f"{name}conv1.weight"] = (width, inputs, 1, 1)
            shapes[f"{name}conv2.weight"] = (width, width, 3, 3)
            shapes[f"{name}conv3.weight"] = (outputs, width, 1, 1)
            norms = {"bn1": width, "bn2": width, "bn3": outputs}
            if block == 0:
                shapes[f"{name}downsample.0.weight"] = (outputs, inputs, 1, 1)
                norms["downsample.1"] = outputs
            for norm, channels in norms.items():
                shapes.update(_batch_norm(f"{name}{norm}", channels))
            inputs = outputs
    return shapes


def _batch_norm(name: str, channels: int) -> dict:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (channels,) for kind in kinds}


def _layer(name: str, *shape: int, outputs: int | None = None) -> dict:
    return {f"{name}.weight": shape, f"{name}.bias": (outputs or shape[0],)}


def maskscoring_rcnn_names(depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official R-50 or R-101 FPN model (80 classes and background)."""
    shapes = {"backbone.body.stem.conv1.weight": (64, 3, 7, 7)}
    shapes.update(_batch_norm("backbone.body.stem.bn1", 64))
    shapes.update(_resnet("backbone.body.", depth))
    for level, channels in enumerate((256, 512, 1024, 2048), start=1):
        shapes.update(_layer(f"backbone.fpn.fpn_inner{level}", 256, channels, 1, 1))
        shapes.update(_layer(f"backbone.fpn.fpn_layer{level}", 256, 256, 3, 3))
    for level in range(5):
        shapes[f"rpn.anchor_generator.cell_anchors.{level}"] = (3, 4)
    shapes.update(_layer("rpn.head.conv", 256, 256, 3, 3))
    shapes.update(_layer("rpn.head.cls_logits", 3, 256, 1, 1))
    shapes.update(_layer("rpn.head.bbox_pred", 12, 256, 1, 1))
    shapes.update(_layer("roi_heads.box.feature_extractor.fc6", 1024, 12544))
    shapes.update(_layer("roi_heads.box.feature_extractor.fc7", 1024, 1024))
    shapes.update(_layer("roi_heads.box.predictor.cls_score", 81, 1024))
    shapes.update(_layer("roi_heads.box.predictor.bbox_pred", 324, 1024))
    for k in range(1, 5):
        shapes.update(_layer(f"roi_heads.mask.feature_extractor.mask_fcn{k}", 256, 256, 3, 3))
        inputs = 257 if k == 1 else 256
        name = f"roi_heads.maskiou.feature_extractor.maskiou_fcn{k}"
        shapes.update(_layer(name, 256, inputs, 3, 3))
    shapes.update(_layer("roi_heads.mask.predictor.conv5_mask", 256, 256, 2, 2))
    shapes.update(_layer("roi_heads.mask.predictor.mask_fcn_logits", 81, 256, 1, 1))
    shapes.update(_layer("roi_heads.maskiou.feature_extractor.maskiou_fc1", 1024, 12544))
    shapes.update(_layer("roi_heads.maskiou.feature_extractor.maskiou_fc2", 1024, 1024))
    shapes.update(_layer("roi_heads.maskiou.predictor.maskiou", 81, 1024))
    return shapes


def mmdet_names(depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of mmdetection's ms_rcnn R-50 or R-101 FPN model (80 classes)."""
    shapes = {"backbone.conv1.weight": (64, 3, 7, 7), **_batch_norm("backbone.bn1", 64)}
    shapes.update(_resnet("backbone.", depth))
    shapes = {
        **shapes,
        **{
            re.sub("running_var$", "num_batches_tracked", name): ()
            for name in shapes
            if name.endswith("running_var")
        },
    }
    for level, channels in enumerate((256, 512, 1024, 2048)):
        shapes.update(_layer(f"neck.lateral_convs.{level}.conv", 256, channels, 1, 1))
        shapes.update(_layer(f"neck.fpn_convs.{level}.conv", 256, 256, 3, 3))
    shapes.update(_layer("rpn_head.rpn_conv", 256, 256, 3, 3))
    shapes.update(_layer("rpn_head.rpn_cls", 3, 256, 1, 1))
    shapes.update(_layer("rpn_head.rpn_reg", 12, 256, 1, 1))
    shapes.update(_layer("roi_head.bbox_head.shared_fcs.0", 1024, 12544))
    shapes.update(_layer("roi_head.bbox_head.shared_fcs.1", 1024, 1024))
    shapes.update(_layer("roi_head.bbox_head.fc_cls", 81, 1024))
    shapes.update(_layer("roi_head.bbox_head.fc_reg", 320, 1024))
    for k in range(4):
        shapes.update(_layer(f"roi_head.mask_head.convs.{k}.conv", 256, 256, 3, 3))
        inputs = 257 if k == 0 else 256
        shapes.update(_layer(f"roi_head.mask_iou_head.convs.{k}", 256, inputs, 3, 3))
    shapes.update(_layer("roi_head.mask_head.upsample", 256, 256, 2, 2))
    shapes.update(_layer("roi_head.mask_head.conv_logits", 80, 256, 1, 1))
    shapes.update(_layer("roi_head.mask_iou_head.fcs.0", 1024, 12544))
    shapes.update(_layer("roi_head.mask_iou_head.fcs.1", 1024, 1024))
    shapes.update(_layer("roi_head.mask_iou_head.fc_mask_iou", 80, 1024))
    return shapes


# (pattern in detectron2, name in the source); a function gets the match.
_STAGE = r"backbone\.(?:bottom_up\.)?res([2-5])\."
_INVERSE = {
    "maskscoring_rcnn": [
        (r"backbone\.(?:bottom_up\.)?stem\.conv1\.norm\.", "backbone.body.stem.bn1."),
        (r"backbone\.(?:bottom_up\.)?stem\.conv1\.", "backbone.body.stem.conv1."),
        (_STAGE, lambda m: f"backbone.body.layer{int(m[1]) - 1}."),
        (r"backbone\.fpn_lateral(\d)", lambda m: f"backbone.fpn.fpn_inner{int(m[1]) - 1}"),
        (r"backbone\.fpn_output(\d)", lambda m: f"backbone.fpn.fpn_layer{int(m[1]) - 1}"),
        (r"proposal_generator\.rpn_head\.conv\.", "rpn.head.conv."),
        (r"proposal_generator\.rpn_head\.objectness_logits\.", "rpn.head.cls_logits."),
        (r"proposal_generator\.rpn_head\.anchor_deltas\.", "rpn.head.bbox_pred."),
        (r"roi_heads\.res5\.", "roi_heads.box.feature_extractor.head.layer4."),
        (r"roi_heads\.box_head\.fc1\.", "roi_heads.box.feature_extractor.fc6."),
        (r"roi_heads\.box_head\.fc2\.", "roi_heads.box.feature_extractor.fc7."),
        (r"roi_heads\.box_predictor\.", "roi_heads.box.predictor."),
        (r"roi_heads\.mask_head\.mask_fcn", "roi_heads.mask.feature_extractor.mask_fcn"),
        (r"roi_heads\.mask_head\.deconv\.", "roi_heads.mask.predictor.conv5_mask."),
        (r"roi_heads\.mask_head\.predictor\.", "roi_heads.mask.predictor.mask_fcn_logits."),
        (r"roi_heads\.maskiou_head\.maskiou\.", "roi_heads.maskiou.predictor.maskiou."),
        (r"roi_heads\.maskiou_head\.", "roi_heads.maskiou.feature_extractor."),
    ],
    "mmdet": [
        (r"backbone\.(?:bottom_up\.)?stem\.conv1\.norm\.", "backbone.bn1."),
        (r"backbone\.(?:bottom_up\.)?stem\.conv1\.", "backbone.conv1."),
        (_STAGE, lambda m: f"backbone.layer{int(m[1]) - 1}."),
        (r"backbone\.fpn_lateral(\d)", lambda m: f"neck.lateral_convs.{int(m[1]) - 2}.conv"),
        (r"backbone\.fpn_output(\d)", lambda m: f"neck.fpn_convs.{int(m[1]) - 2}.conv"),
        (r"proposal_generator\.rpn_head\.conv\.", "rpn_head.rpn_conv."),
        (r"proposal_generator\.rpn_head\.objectness_logits\.", "rpn_head.rpn_cls."),
        (r"proposal_generator\.rpn_head\.anchor_deltas\.", "rpn_head.rpn_reg."),
        (r"roi_heads\.res5\.", "roi_head.shared_head.layer4."),
        (
            r"roi_heads\.box_head\.fc(\d)",
            lambda m: f"roi_head.bbox_head.shared_fcs.{int(m[1]) - 1}",
        ),
        (r"roi_heads\.box_predictor\.cls_score\.", "roi_head.bbox_head.fc_cls."),
        (r"roi_heads\.box_predictor\.bbox_pred\.", "roi_head.bbox_head.fc_reg."),
        (
            r"roi_heads\.mask_head\.mask_fcn(\d)",
            lambda m: f"roi_head.mask_head.convs.{int(m[1]) - 1}.conv",
        ),
        (r"roi_heads\.mask_head\.deconv\.", "roi_head.mask_head.upsample."),
        (r"roi_heads\.mask_head\.predictor\.", "roi_head.mask_head.conv_logits."),
        (
            r"roi_heads\.maskiou_head\.maskiou_fcn(\d)",
            lambda m: f"roi_head.mask_iou_head.convs.{int(m[1]) - 1}",
        ),
        (
            r"roi_heads\.maskiou_head\.maskiou_fc(\d)",
            lambda m: f"roi_head.mask_iou_head.fcs.{int(m[1]) - 1}",
        ),
        (r"roi_heads\.maskiou_head\.maskiou\.", "roi_head.mask_iou_head.fc_mask_iou."),
    ],
}
_INVERSE_BLOCK = [
    (r"shortcut\.norm\.", "downsample.1."),
    (r"shortcut\.", "downsample.0."),
    (r"conv(\d)\.norm\.", r"bn\1."),
]


def source_name(name: str, source: str) -> str:
    """The name in a source of a weight of detectron2."""
    for pattern, replacement in _INVERSE[source]:
        renamed, found = re.subn("^" + pattern, replacement, name)
        if found:
            break
    else:
        raise AssertionError(f"{name} has no name in {source}")
    if "layer" in renamed and "fpn" not in renamed:
        for pattern, replacement in _INVERSE_BLOCK:
            renamed = re.sub(pattern, replacement, renamed)
    return renamed


def to_source(state: dict, source: str, num_sizes: int = 1, seed: int = 0) -> dict:
    """The checkpoint that a source would have for the weights `state` of detectron2."""
    generator = torch.Generator().manual_seed(seed)
    return {
        source_name(name, source): _to_layout(name, weight, source, num_sizes, generator)
        for name, weight in state.items()
        if not name.endswith("num_batches_tracked")
    }


def _to_layout(name, weight, source, num_sizes, generator):
    if ".objectness_logits." in name:
        return _ratio_major(weight, num_sizes, 1)
    if ".anchor_deltas." in name:
        return _ratio_major(weight, num_sizes, 4)
    if source == "mmdet":
        return weight
    if ".cls_score." in name:
        return weight.roll(1, dims=0)  # background from the last row to the first
    if ".bbox_pred." in name:
        return _with_background(weight, 4, generator)
    if ".mask_head.predictor." in name or ".maskiou_head.maskiou." in name:
        return _with_background(weight, 1, generator)
    if name.endswith("running_var"):
        return (weight.double() + 1e-5).float()
    return weight


def _with_background(weight, rows, generator):
    background = torch.rand(rows, *weight.shape[1:], generator=generator)
    return torch.cat([background, weight])


def _ratio_major(weight, num_sizes, values):
    anchors = weight.split(values)  # in detectron2's order: size * num_ratios + ratio
    num_ratios = len(anchors) // num_sizes
    order = [s * num_ratios + r for r in range(num_ratios) for s in range(num_sizes)]
    return torch.cat([anchors[index] for index in order])
