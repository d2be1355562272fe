"""Names and layouts of weights in other code bases, and how they become detectron2's.

Sources:
    maskscoring_rcnn: the official Mask Scoring R-CNN, and maskrcnn-benchmark that it is built on
    mmdet: Mask Scoring R-CNN (`ms_rcnn`) and Mask R-CNN of mmdetection 2 and 3
    detectron2: its model zoo, and models of this project
    torchvision: ResNets trained on ImageNet, which fill the backbone only

Everything here is a pure function of names and tensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import torch

SOURCES = ("maskscoring_rcnn", "mmdet", "detectron2", "torchvision")

# FrozenBatchNorm2d of detectron2 adds it to the variance; maskrcnn-benchmark adds nothing.
BATCH_NORM_EPS = 1e-5

_DROPPED = re.compile(
    r"(.*\.)?(num_batches_tracked|pixel_mean|pixel_std|anchor_generator\.cell_anchors\.\d+)"
    r"|fc\.(weight|bias)"  # the classifier of an ImageNet model
)
_DETECTRON2_NAMES = re.compile(
    r"backbone\.(bottom_up|stem|res[2-5]|fpn_(lateral|output)[2-5])\.|proposal_generator\."
    r"|roi_heads\.(box_head|box_predictor|mask_head|maskiou_head|res5)\."
)

_PART = re.compile(
    r"backbone\.(bottom_up\.)?(stem|res[2-5])\.|proposal_generator\.\w+\.|roi_heads\.\w+\."
)

_MASKSCORING_RCNN = {
    "backbone.body.stem.conv1.": "{resnet}stem.conv1.",
    "backbone.body.stem.bn1.": "{resnet}stem.conv1.norm.",
    **{f"backbone.body.layer{s}.": f"{{resnet}}res{s + 1}." for s in range(1, 5)},
    **{f"backbone.fpn.fpn_inner{i}.": f"backbone.fpn_lateral{i + 1}." for i in range(1, 5)},
    **{f"backbone.fpn.fpn_layer{i}.": f"backbone.fpn_output{i + 1}." for i in range(1, 5)},
    "rpn.head.conv.": "proposal_generator.rpn_head.conv.",
    "rpn.head.cls_logits.": "proposal_generator.rpn_head.objectness_logits.",
    "rpn.head.bbox_pred.": "proposal_generator.rpn_head.anchor_deltas.",
    "roi_heads.box.feature_extractor.fc6.": "roi_heads.box_head.fc1.",
    "roi_heads.box.feature_extractor.fc7.": "roi_heads.box_head.fc2.",
    # Models without FPN. Their mask branch shares res5 and saves it a second time.
    "roi_heads.box.feature_extractor.head.layer4.": "roi_heads.res5.",
    "roi_heads.mask.feature_extractor.head.layer4.": "roi_heads.res5.",
    "roi_heads.box.predictor.": "roi_heads.box_predictor.",
    "roi_heads.mask.feature_extractor.mask_fcn": "roi_heads.mask_head.mask_fcn",
    "roi_heads.mask.predictor.conv5_mask.": "roi_heads.mask_head.deconv.",
    "roi_heads.mask.predictor.mask_fcn_logits.": "roi_heads.mask_head.predictor.",
    "roi_heads.maskiou.feature_extractor.": "roi_heads.maskiou_head.",
    "roi_heads.maskiou.predictor.": "roi_heads.maskiou_head.",
}

_MMDET = {
    "backbone.conv1.": "{resnet}stem.conv1.",
    "backbone.bn1.": "{resnet}stem.conv1.norm.",
    **{f"backbone.layer{s}.": f"{{resnet}}res{s + 1}." for s in range(1, 5)},
    **{f"neck.lateral_convs.{i}.conv.": f"backbone.fpn_lateral{i + 2}." for i in range(4)},
    **{f"neck.fpn_convs.{i}.conv.": f"backbone.fpn_output{i + 2}." for i in range(4)},
    "rpn_head.rpn_conv.": "proposal_generator.rpn_head.conv.",
    "rpn_head.rpn_cls.": "proposal_generator.rpn_head.objectness_logits.",
    "rpn_head.rpn_reg.": "proposal_generator.rpn_head.anchor_deltas.",
    "roi_head.shared_head.layer4.": "roi_heads.res5.",
    **{f"roi_head.bbox_head.shared_fcs.{i}.": f"roi_heads.box_head.fc{i + 1}." for i in range(10)},
    "roi_head.bbox_head.fc_cls.": "roi_heads.box_predictor.cls_score.",
    "roi_head.bbox_head.fc_reg.": "roi_heads.box_predictor.bbox_pred.",
    **{
        f"roi_head.mask_head.convs.{i}.conv.": f"roi_heads.mask_head.mask_fcn{i + 1}."
        for i in range(10)
    },
    "roi_head.mask_head.upsample.": "roi_heads.mask_head.deconv.",
    "roi_head.mask_head.conv_logits.": "roi_heads.mask_head.predictor.",
    **{
        f"roi_head.mask_iou_head.convs.{i}.": f"roi_heads.maskiou_head.maskiou_fcn{i + 1}."
        for i in range(10)
    },
    **{
        f"roi_head.mask_iou_head.fcs.{i}.": f"roi_heads.maskiou_head.maskiou_fc{i + 1}."
        for i in range(10)
    },
    "roi_head.mask_iou_head.fc_mask_iou.": "roi_heads.maskiou_head.maskiou.",
}

_TORCHVISION = {
    "conv1.": "{resnet}stem.conv1.",
    "bn1.": "{resnet}stem.conv1.norm.",
    **{f"layer{s}.": f"{{resnet}}res{s + 1}." for s in range(1, 5)},
}

_PREFIXES = {
    "maskscoring_rcnn": _MASKSCORING_RCNN,
    "mmdet": _MMDET,
    "torchvision": _TORCHVISION,
}

# Inside of a residual stage; all sources call the layers as torchvision does.
_BLOCK_NAMES = (
    (re.compile(r"(\.res[2-5]\.\d+)\.bn(\d)\."), r"\1.conv\2.norm."),
    (re.compile(r"(\.res[2-5]\.\d+)\.downsample\.0\."), r"\1.shortcut."),
    (re.compile(r"(\.res[2-5]\.\d+)\.downsample\.1\."), r"\1.shortcut.norm."),
    (re.compile(r"(\.res[2-5]\.\d+)\.conv2\.conv_offset\."), r"\1.conv2_offset."),
)


def is_dropped(key: str) -> bool:
    """Whether a weight of a source is one that no model of detectron2 needs (by its name)."""
    return _DROPPED.fullmatch(key) is not None


def model_part(name: str) -> str | None:
    """Prefix of the stage or head that a weight of detectron2 belongs to, None for the rest.

    A checkpoint and a model that both have the part should agree in all its weights.
    """
    found = _PART.match(name)
    return found and found.group()


def rename_key(key: str, source: str, resnet: str = "backbone.bottom_up.") -> str | None:
    """The name in detectron2 of a weight of another code base.

    Args:
        key: name in the source, without ``module.``.
        source: one of :data:`SOURCES`.
        resnet: prefix of the ResNet in the target model: "backbone.bottom_up." with FPN,
            "backbone." without.

    Returns:
        The new name; None if the source is not known to have such a weight.
    """
    if source == "detectron2":
        return key
    for prefix, target in _PREFIXES[source].items():
        if key.startswith(prefix):
            renamed = target.format(resnet=resnet) + key[len(prefix) :]
            for pattern, replacement in _BLOCK_NAMES:
                renamed = pattern.sub(replacement, renamed)
            return renamed
    return None


def detect_source(keys: Collection[str]) -> str:
    """Tell from the names of its weights which code base a checkpoint comes from.

    Raises:
        ValueError: if none or more than one of :data:`SOURCES` has such names.
    """
    found = [name for name in _PREFIXES if any(rename_key(key, name) for key in keys)]
    if any(_DETECTRON2_NAMES.match(key) for key in keys):
        found.append("detectron2")
    if len(found) != 1:
        reason = f"they fit {' and '.join(found)}" if found else "they fit no known code base"
        raise ValueError(
            f"cannot tell where these weights come from: {reason} (first names: "
            f"{', '.join(sorted(keys)[:3])}). {_hint(keys)}"
        )
    return found[0]


def _hint(keys: Collection[str]) -> str:
    if "conv1_w" in keys or "res2_0_branch2a_w" in keys:
        return (
            "This looks like a file of Caffe2 (an ImageNet backbone or Detectron), which "
            "detectron2 reads itself: put it into MODEL.WEIGHTS as it is"
        )
    return f"Name it with --source, one of {', '.join(SOURCES)}"


def check_mmdet_version(keys: Collection[str]) -> None:
    """Refuse checkpoints of mmdetection 1.

    Raises:
        ValueError: their heads stand in another place, put the background first and use "+1" boxes.
    """
    heads = ("bbox_head.", "mask_head.", "mask_iou_head.")
    if any(key.startswith(heads) for key in keys) and not any(
        key.startswith("roi_head.") for key in keys
    ):
        raise ValueError(
            "these are weights of mmdetection 1 (names like 'bbox_head.' without 'roi_head.'), "
            "which has other class orders and boxes; only mmdetection 2 and 3 can be converted"
        )


def transform_weight(
    name: str, weight: torch.Tensor, source: str, num_anchor_sizes: int = 1
) -> torch.Tensor:
    """Bring one weight into the layout of detectron2.

    Args:
        name: its name in detectron2.
        weight: as the source has it.
        source: one of :data:`SOURCES`.
        num_anchor_sizes: anchor sizes on each feature map: 1 with FPN, 5 in C4 models.

    Returns:
        The weight, possibly with fewer rows.
    """
    if source == "detectron2":
        return weight
    if name.startswith("proposal_generator.rpn_head.objectness_logits."):
        return size_major_anchors(weight, num_anchor_sizes, 1)
    if name.startswith("proposal_generator.rpn_head.anchor_deltas."):
        return size_major_anchors(weight, num_anchor_sizes, 4)
    if source == "maskscoring_rcnn":
        return _from_maskrcnn_benchmark(name, weight)
    return weight


def _from_maskrcnn_benchmark(name: str, weight: torch.Tensor) -> torch.Tensor:
    if name.startswith("roi_heads.box_predictor.cls_score."):
        return torch.cat([weight[1:], weight[:1]])  # background from the first row to the last
    if name.startswith("roi_heads.box_predictor.bbox_pred."):
        return weight[4:]  # the background's box is never used
    if name.startswith(("roi_heads.mask_head.predictor.", "roi_heads.maskiou_head.maskiou.")):
        return weight[1:]
    if name.endswith(".norm.running_var"):
        return (weight.double() - BATCH_NORM_EPS).to(weight.dtype)
    return weight


def size_major_anchors(weight: torch.Tensor, num_sizes: int, values: int) -> torch.Tensor:
    """Reorder the anchors of an RPN layer from ratio-major to detectron2's size-major.

    Args:
        weight: (num_ratios * num_sizes * values, ...), anchor (ratio * num_sizes + size).
        num_sizes: anchor sizes on one feature map.
        values: channels of an anchor: 1 for the objectness, 4 for the deltas.

    Returns:
        The same rows, anchor (size * num_ratios + ratio).

    Raises:
        ValueError: if the number of rows does not fit.
    """
    if weight.shape[0] % (num_sizes * values):
        raise ValueError(
            f"an RPN layer with {weight.shape[0]} channels cannot have {num_sizes} anchor sizes: "
            "make MODEL.ANCHOR_GENERATOR.SIZES and ASPECT_RATIOS those of the checkpoint"
        )
    grouped = weight.reshape(-1, num_sizes, values, *weight.shape[1:])
    return grouped.transpose(0, 1).reshape(weight.shape)
