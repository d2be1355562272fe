"""From items of the mapper to tensors: padded frames, and the targets of a clip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList, Instances

from .box_settings import OUTSIDE, check_choice
from .targets import (
    ClipAffinities,
    ClipTargets,
    PairwiseSettings,
    TemporalSettings,
    clip_affinities,
    clip_boxes,
)

SUPERVISIONS = ("box", "mask")


@dataclass(frozen=True)
class TargetSettings:
    """How the targets of box supervision are made.

    Attributes:
        stride: pixels per cell of the mask grid.
        box_edges: "hard" or "soft", see :func:`clip_boxes`.
        pairwise: of the colour edges; None where that loss is off.
        temporal: of the matches between frames; None where that loss is off.
        input_format: channel order of the frames, "RGB" or "BGR".
        swap_channels: swap red and blue before the colours are compared, as the official code.
        outside_is_black: see :func:`clip_affinities`.
    """

    stride: int
    box_edges: str
    pairwise: PairwiseSettings | None
    temporal: TemporalSettings | None
    input_format: str = "RGB"
    swap_channels: bool = False
    outside_is_black: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TargetSettings:
        """Read ``MODEL.MASK_FREE`` and what the frames are like."""
        free = cfg.MODEL.MASK_FREE
        check_choice("MODEL.MASK_FREE.OUTSIDE", free.OUTSIDE, OUTSIDE)
        return cls(
            stride=cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE,
            box_edges=free.BOX_EDGES,
            pairwise=PairwiseSettings.from_config(free.PAIRWISE) if free.LAMBDA_PAIR else None,
            temporal=TemporalSettings.from_config(free.TEMPORAL) if free.LAMBDA_TEMP else None,
            input_format=cfg.INPUT.FORMAT,
            swap_channels=free.LAB_SWAP_CHANNELS,
            outside_is_black=free.OUTSIDE == "black",
        )


def is_image(item: dict) -> bool:
    """Whether an item is a single image, which has a tensor where a clip has a sequence."""
    return isinstance(item["image"], torch.Tensor)


def frames_of(item: dict) -> Sequence[torch.Tensor]:
    """The frames of an item, each (3, H, W); an image is a clip of one frame."""
    return [item["image"]] if is_image(item) else item["image"]


def by_length(items: Sequence[dict]) -> list[list[dict]]:
    """Items of equal numbers of frames together, in the order in which they first appear."""
    groups: dict[int, list[dict]] = defaultdict(list)
    for item in items:
        groups[len(frames_of(item))].append(item)
    return list(groups.values())


def count_masked(items: Sequence[dict]) -> int:
    """Number of objects in the items that masks teach."""
    masked = [item for item in items if item.get("supervision") == "mask"]
    return sum(
        len(item["instances"] if is_image(item) else item["instances"][0]) for item in masked
    )


def pad_frames(frames: Sequence[torch.Tensor], divisor: int) -> torch.Tensor:
    """Stack frames (3, H, W) of any sizes to (F, 3, H', W'), padded with 0 at bottom and right.

    H' and W' are multiples of `divisor`; the dtype is that of the frames.
    """
    return ImageList.from_tensors(list(frames), divisor, pad_value=0.0).tensor


def clip_targets(item: dict, padded: torch.Tensor, settings: TargetSettings) -> ClipTargets:
    """The targets of one training clip or image; objects that no frame shows are left out.

    Args:
        item: of the mapper, with ``instances`` (one ``Instances`` for each frame, aligned by row)
            and ``supervision``.
        padded: (T, 3, H, W) its frames, uint8 or float in [0, 255], padded with 0.
        settings: what is computed.

    Returns:
        Targets on the device of `padded`. With box supervision they hold no masks, and with mask
        supervision nothing that only the box losses need.

    Raises:
        ValueError: if the item does not say how it is supervised, or its masks are missing.
    """
    instances = [item["instances"]] if is_image(item) else item["instances"]
    device, size = padded.device, tuple(padded.shape[-2:])
    # Still on the host: a choice of rows would make it wait for the device.
    boxes = torch.stack([x.gt_boxes.tensor for x in instances], dim=1)
    present = _present(instances, boxes)
    seen = present.any(dim=1)
    instances = [x[seen] for x in instances]
    boxes, present = boxes[seen].to(device, torch.float32), present[seen].to(device)
    targets = ClipTargets(
        labels=instances[0].gt_classes.to(device),
        boxes=boxes,
        present=present,
        supervision=_supervision(item),
        is_image=is_image(item),
    )
    if targets.supervision == "mask":
        targets.masks = _masks(item, instances, size, device)
    else:
        targets.clip_boxes = clip_boxes(boxes, present, size, settings.stride, settings.box_edges)
        targets.affinities = _affinities(item, padded, settings)
    return targets


def _supervision(item: dict) -> str:
    supervision = item.get("supervision")
    if supervision not in SUPERVISIONS:
        raise ValueError(
            f"an item of '{item.get('source', 'unknown source')}' has supervision {supervision!r}: "
            f"the mapper must set one of {SUPERVISIONS}"
        )
    return supervision


def _present(instances: Sequence[Instances], boxes: torch.Tensor) -> torch.Tensor:
    """(N, T) whether an object is in a frame: it has an id there, or, without ids, a box."""
    if instances[0].has("gt_ids"):
        return torch.stack([x.gt_ids for x in instances], dim=1) >= 0
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def _affinities(item: dict, padded: torch.Tensor, settings: TargetSettings) -> ClipAffinities:
    rgb = padded.flip(1) if settings.input_format == "BGR" else padded
    sizes = torch.tensor([x.shape[-2:] for x in frames_of(item)], device=padded.device)
    return clip_affinities(
        rgb,
        sizes,
        settings.stride,
        settings.pairwise,
        settings.temporal,
        lab_swap_channels=settings.swap_channels,
        outside_is_black=settings.outside_is_black,
    )


def _masks(
    item: dict, instances: Sequence[Instances], size: tuple[int, int], device: torch.device
) -> torch.Tensor:
    """(N, T, H, W) bool, padded to `size`."""
    if not all(x.has("gt_masks") for x in instances):
        raise ValueError(
            f"an item of '{item.get('source', 'unknown source')}' is to be trained with masks, but "
            "has none: give its data set segmentations, or set MODEL.MASK_FREE.SUPERVISION box"
        )
    count, (height, width) = len(instances[0]), instances[0].image_size
    masks = torch.zeros(count, len(instances), *size, dtype=torch.bool, device=device)
    for frame, x in enumerate(instances):
        masks[:, frame, :height, :width] = x.gt_masks.tensor.to(device)
    return masks
