"""What MaskFreeVIS costs: its parts against direct forms, and a step with boxes against masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from tqdm import tqdm

from . import box_losses, deformable_attention, matching, track_evaluation
from .box_losses import moving_texture
from .timing import compare, hardware, markdown_table

STEP_HEADER = ["training step", "masks ms", "boxes ms", "boxes / masks"]
CLASSES = 40
MASK_POINTS = 12544  # of the recipe with masks; that with boxes has no points


def make_clips(
    supervision: str, clips: int, frames: int, size: tuple[int, int], objects: int, seed: int = 0
) -> list[dict]:
    """Training clips of a moving texture with ellipses, with boxes and, if asked for, masks.

    The texture is one in which most cells find a match in the next frame, so that the box losses
    have their work.
    """
    generator = torch.Generator().manual_seed(seed)
    y, x = (torch.arange(side)[:, None] + 0.5 for side in size)
    items = []
    for _ in range(clips):
        centre, radius = torch.rand(2, objects, 2, generator=generator)
        drift = torch.randn(objects, 2, generator=generator) * 0.02
        classes = torch.randint(CLASSES, (objects,), generator=generator)
        instances = []
        for t in range(frames):
            middle = (0.2 + 0.6 * centre + t * drift) * torch.tensor(size)
            half = (0.05 + 0.15 * radius) * torch.tensor(size)
            rows, columns = ((v - middle[:, i]) / half[:, i] for i, v in enumerate((y, x)))
            masks = (rows.T.square()[:, :, None] + columns.T.square()[:, None]) < 1
            instances.append(_frame(masks, classes, supervision))
        image = list(moving_texture(frames, size, generator))
        items.append({"image": image, "instances": instances, "supervision": supervision})
    return items


def _frame(masks: torch.Tensor, classes: torch.Tensor, supervision: str) -> Instances:
    instances = Instances(tuple(masks.shape[-2:]))
    instances.gt_boxes = Boxes(BitMasks(masks).get_bounding_boxes().tensor)
    instances.gt_classes = classes
    seen = masks.flatten(1).any(1)
    instances.gt_ids = torch.where(seen, torch.arange(len(masks)), torch.tensor(-1))
    if supervision == "mask":
        instances.gt_masks = BitMasks(masks)
    return instances


def _step(cfg: CfgNode, clips: list[dict]) -> tuple[nn.Module, Callable[[], object]]:
    model = build_model(cfg).train()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with EventStorage(10**6):  # after any warm-up
            sum(model(clips).values()).backward()

    return model, step


def step_rows(
    cfg: CfgNode,
    repeats: int,
    clips: int,
    size: tuple[int, int],
    progress: Callable[[], object] = lambda: None,
    objects: int = 4,
) -> list[list[str]]:
    """Lines of a table under :data:`STEP_HEADER`: forward and backward with the same weights."""
    frames, steps, models = cfg.INPUT.SAMPLING_FRAME_NUM, {}, {}
    for supervision in ("mask", "box"):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.WEIGHTS, cfg.MODEL.MASK_FREE.SUPERVISION = "", supervision
        cfg.MODEL.MASK_FREE.DATASET_SUPERVISION = []
        cfg.MODEL.MASK_FORMER.TRAIN_NUM_POINTS = MASK_POINTS
        items = make_clips(supervision, clips, frames, size, objects)
        models[supervision], steps[supervision] = _step(cfg, items)
    models["box"].load_state_dict(models["mask"].state_dict())
    seconds = compare(steps, repeats, torch.device(cfg.MODEL.DEVICE), progress)
    name = f"{clips} clips of {frames} frames of {size[0]}x{size[1]}, {objects} objects each"
    row = [name, *(f"{seconds[key] * 1e3:.0f}" for key in ("mask", "box"))]
    return [[*row, f"{seconds['box'] / seconds['mask']:.2f}"]]


def run(cfg: CfgNode, *, repeats: int, images: int, size: tuple[int, int]) -> str:
    """All tables as Markdown.

    Args:
        cfg: of the model whose training step is timed.
        repeats: timed repeats of everything.
        images: clips of a batch of the training step.
        size: (height, width) of its frames.
    """
    device = torch.device(cfg.MODEL.DEVICE)
    parts = [hardware(device)]
    with tqdm(desc="Measuring", unit="call") as bar:
        shared = {"repeats": repeats, "device": device, "progress": bar.update}
        for part in (box_losses, matching, deformable_attention):
            parts.append(markdown_table(part.HEADER, part.rows(**shared)))
        rows = step_rows(cfg, repeats, images, size, bar.update)
        parts.append(markdown_table(STEP_HEADER, rows))
        rows = track_evaluation.rows(repeats=repeats, progress=bar.update)
        parts.append(markdown_table(track_evaluation.HEADER, rows))
    return "\n\n".join(parts)
