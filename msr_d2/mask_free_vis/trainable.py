"""Which instances of a clip are trained, and as what."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import torch
from detectron2.utils.logger import log_first_n

from .targets import ClipTargets


def trainable(
    targets: Sequence[ClipTargets],
    max_instances: int,
    no_object: int,
    label_from_last_frame: bool = False,
) -> list[ClipTargets]:
    """Targets without the instances that no query can learn, and with the labels to train.

    Left out are the smallest of a clip that has more instances than there are queries.

    Args:
        targets: one or more clips.
        max_instances: number of queries.
        no_object: label for "no object".
        label_from_last_frame: give this label to instances that are absent from the last frame of
            a video, as the official code does.
    """
    result = []
    for target in targets:
        target = _largest(target, max_instances)
        if label_from_last_frame and not target.is_image:
            labels = target.labels.masked_fill(~target.present[:, -1], no_object)
            target = dataclasses.replace(target, labels=labels)
        result.append(target)
    return result


def select_instances(target: ClipTargets, rows: torch.Tensor) -> ClipTargets:
    """Only some instances of a clip; `rows` (M,) int64, each at most once, ascending."""
    if len(rows) == len(target.labels):
        return target
    rows = rows.to(target.labels.device)
    boxes = target.clip_boxes
    if boxes is not None:
        fields = {f.name: getattr(boxes, f.name)[rows] for f in dataclasses.fields(boxes)}
        boxes = dataclasses.replace(boxes, **fields)
    return dataclasses.replace(
        target,
        labels=target.labels[rows],
        boxes=target.boxes[rows],
        present=target.present[rows],
        clip_boxes=boxes,
        masks=None if target.masks is None else target.masks[rows],
    )


def _largest(target: ClipTargets, count: int) -> ClipTargets:
    if len(target.labels) <= count:
        return target
    log_first_n(
        logging.WARNING,
        f"A clip has {len(target.labels)} instances, but there are {count} queries; the smallest "
        "are left out. MODEL.MASK_FORMER.NUM_OBJECT_QUERIES sets their number. (Said only once.)",
        name=__name__,
    )
    areas = (target.boxes[..., 2:] - target.boxes[..., :2]).clamp(min=0).prod(-1)
    areas = (areas * target.present).sum(1)
    return select_instances(target, areas.topk(count).indices.sort().values)
