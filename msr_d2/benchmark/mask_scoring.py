"""What the MaskIoU head costs: time, memory and multiply-adds of Mask R-CNN with and without it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from ..mask_scoring.losses import mask_iou_loss
from ..mask_scoring.targets import gt_class_targets, mask_areas, rasterize_masks
from .timing import compare, hardware, markdown_table, peak_resident_kib

PLAIN, OURS = "Mask R-CNN", "Mask Scoring R-CNN"


def make_batch(images: int, height: int, width: int, objects: int, seed: int = 0) -> list[dict]:
    """Training items of noise with polygons of 20 corners, sized like the objects of COCO."""
    rng = np.random.default_rng(seed)
    batch = []
    for _ in range(images):
        instances = Instances((height, width))
        polygons = [[_polygon(rng, height, width)] for _ in range(objects)]
        instances.gt_masks = PolygonMasks(polygons)
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        instances.gt_classes = torch.from_numpy(rng.integers(0, 80, objects))
        image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
        batch.append({"image": image, "instances": instances, "height": height, "width": width})
    return batch


def _polygon(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    size = np.array([width, height]) * rng.uniform(0.05, 0.4)
    centre = rng.uniform(size / 2, np.array([width, height]) - size / 2)
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    radii = rng.uniform(0.6, 1.0, (20, 1)) * size / 2
    return (centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1)).reshape(-1)


def build(cfg: CfgNode, name: str) -> nn.Module:
    """One of the two models with random weights; it keeps all RoIs at test time.

    Random residual blocks would let the features explode, and then hardly a box is left: their last
    norms are zero here, so that proposals spread over the image as those of a trained model do.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = "", 0.0
    cfg.MODEL.MASKIOU_ON = name == OURS
    cfg.MODEL.PIXEL_STD = [57.375, 57.12, 58.395]
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, (BasicBlock, BottleneckBlock)):
            last = module.conv2 if isinstance(module, BasicBlock) else module.conv3
            last.norm.weight.data.zero_()
    return model


def build_pair(cfg: CfgNode) -> dict[str, nn.Module]:
    """Both models with the same weights."""
    ours, plain = build(cfg, OURS), build(cfg, PLAIN)
    plain.load_state_dict(
        {key: value for key, value in ours.state_dict().items() if "maskiou" not in key}
    )
    return {PLAIN: plain, OURS: ours}


def training_step(model: nn.Module, batch: list[dict]) -> Callable[[], float]:
    """Forward and backward pass; proposals are sampled alike in each call.

    A call returns the mean number of positive RoIs of an image, which the head runs on.
    """
    model.train()

    def step() -> float:
        torch.manual_seed(0)
        model.zero_grad(set_to_none=True)
        with EventStorage() as storage:
            sum(model(batch).values()).backward()
        return storage.latest()["roi_head/num_fg_samples"][0]

    return step


def inference_step(model: nn.Module, batch: list[dict]) -> Callable[[], float]:
    """Inference without the pasting of masks, which is the same for all models.

    A call returns the mean number of detections of an image.
    """

    def step() -> float:
        model.eval()
        with torch.no_grad():
            detections = model.inference(batch, do_postprocess=False)
        return sum(len(image) for image in detections) / len(batch)

    return step


def multiply_adds(step: Callable[[], None]) -> float:
    """Multiply-adds of convolutions and matrix products in one call, backward included."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 2


def targets_by_loop(
    mask_logits: torch.Tensor, boxes: torch.Tensor, gt_bitmaps: torch.Tensor
) -> torch.Tensor:
    """MaskIoU of each RoI by pasting its mask into the image and comparing pixels, one by one.

    Args:
        mask_logits: (N, M, M).
        boxes: (N, 4).
        gt_bitmaps: (N, H, W) bool, the whole ground truth of each RoI.
    """
    targets = []
    for logits, box, truth in zip(mask_logits, boxes.round().long().tolist(), gt_bitmaps):
        x1, y1, x2, y2 = box
        size = (max(y2 - y1, 1), max(x2 - x1, 1))
        resized = F.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)
        pasted = torch.zeros_like(truth)
        window = pasted[y1 : y1 + size[0], x1 : x1 + size[1]]
        window.copy_(resized[0, 0, : window.shape[0], : window.shape[1]] > 0)
        union = (pasted | truth).sum().clamp(min=1)
        targets.append((pasted & truth).sum() / union)
    return torch.stack(targets)


class TargetInputs:
    """RoIs as the MaskIoU branch gets them in a training step, jittered around the objects."""

    def __init__(self, batch: list[dict], rois: int, device: torch.device, side: int = 28):
        rng = np.random.default_rng(0)
        self.device, self.images = device, [item["instances"] for item in batch]
        self.matched, self.boxes, rasters, bitmaps = [], [], [], []
        for instances in self.images:
            matched = torch.from_numpy(rng.integers(0, len(instances), rois))
            boxes = instances.gt_boxes.tensor[matched]
            sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
            boxes = Boxes(boxes + sizes * torch.from_numpy(rng.uniform(-0.1, 0.1, (rois, 4))))
            boxes.clip(instances.image_size)
            boxes = Boxes(boxes.tensor.float())
            rasters.append(rasterize_masks(instances.gt_masks[matched], boxes, side, device))
            full = BitMasks.from_polygon_masks(instances.gt_masks, *instances.image_size)
            bitmaps.append(full.tensor[matched])
            self.matched.append(matched)
            self.boxes.append(boxes)
        self.flat_boxes = torch.cat([b.tensor for b in self.boxes]).to(device)
        self.rasters, self.bitmaps = torch.cat(rasters), torch.cat(bitmaps).to(device)
        noise = torch.randn(self.rasters.shape, device=device)
        self.logits = self.rasters * 4.0 - 2 + noise
        self.classes = torch.zeros(len(self.logits), dtype=torch.long, device=device)

    def targets_and_loss(self) -> torch.Tensor:
        """All that the MaskIoU target adds to a training step; the raster is the mask loss's."""
        areas = [mask_areas(x.gt_masks)[m] for x, m in zip(self.images, self.matched)]
        areas = torch.cat(areas).to(self.device)
        logits = self.logits[:, None]
        targets = gt_class_targets(logits, self.rasters, self.flat_boxes, areas, self.classes)
        return mask_iou_loss(torch.zeros_like(targets), targets)

    def loop(self) -> torch.Tensor:
        """The same targets by pasting masks."""
        return targets_by_loop(self.logits, self.flat_boxes, self.bitmaps)

    def rasterize(self) -> None:
        """The raster that the mask loss needs in any case."""
        for instances, matched, boxes in zip(self.images, self.matched, self.boxes):
            rasterize_masks(instances.gt_masks[matched], boxes, 28, self.device)


def peak_memory(cfg: CfgNode, batch: list[dict], training: bool) -> dict[str, float]:
    """Peak memory of one step of each model in MiB, each in a process of its own.

    On a GPU what torch allocated, on the CPU the resident size of the whole process (Linux).
    """
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for name in (PLAIN, OURS):
        with context.Pool(1) as pool:
            peaks[name] = pool.apply(_peak_of_one, (cfg, batch, training, name))
    return peaks


def _peak_of_one(cfg: CfgNode, batch: list[dict], training: bool, name: str) -> float:
    import msr_d2  # noqa: F401  (a spawned process has nothing registered)

    model = build(cfg, name)
    (training_step if training else inference_step)(model, batch)()
    if cfg.MODEL.DEVICE.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_resident_kib() / 2**10


def run(
    cfg: CfgNode,
    repeats: int = 5,
    images: int = 2,
    size: tuple[int, int] = (480, 640),
    objects: int = 32,
) -> str:
    """Compare both models and the two ways to the target; returns the report as Markdown."""
    device = torch.device(cfg.MODEL.DEVICE)
    batch = make_batch(images, *size, objects)
    pair = build_pair(cfg)
    rois = int(cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE * cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION)
    inputs = TargetInputs(batch, rois, device)
    positives = training_step(pair[OURS], batch)()
    detections = inference_step(pair[OURS], batch)()
    rows, seconds = [], {}
    bar = tqdm(total=(repeats + 1) * 7, desc="benchmark", unit="call")
    for phase, make, training in (
        ("training step", training_step, True),
        ("inference", inference_step, False),
    ):
        steps = {name: make(model, batch) for name, model in pair.items()}
        adds = {name: multiply_adds(step) for name, step in steps.items()}
        seconds[phase] = compare(steps, repeats, device, bar.update)
        memory = peak_memory(cfg, batch, training)
        rows.append(_row(phase, seconds[phase], adds, memory))
    ways = {"cells": inputs.targets_and_loss, "loop": inputs.loop, "raster": inputs.rasterize}
    target = compare(ways, repeats, device, bar.update)
    bar.close()
    header = ["", "Mask R-CNN s", "ours s", "extra time", "extra multiply-adds", "time / adds"]
    table = markdown_table([*header, "Mask R-CNN MiB", "ours MiB"], rows)
    step = seconds["training step"][OURS]
    return "\n".join(
        [
            f"{images} images of {size[1]}x{size[0]} with {objects} objects each; "
            f"{positives:.0f} positive RoIs an image in training, "
            f"{detections:.0f} detections in inference; median of {repeats}; "
            f"{hardware(device)}.",
            "",
            table,
            "",
            f"MaskIoU targets and loss of {len(inputs.logits)} RoIs ({rois} an image, the most "
            "that are sampled): "
            f"{target['cells'] * 1e3:.2f} ms, {target['cells'] / step:.2%} of the training step; "
            f"by a loop over full-resolution masks {target['loop'] * 1e3:.1f} ms, "
            f"{target['loop'] / target['cells']:.0f} times as long. The raster shared with the "
            f"mask loss takes {target['raster'] * 1e3:.1f} ms.",
        ]
    )


def _row(phase: str, seconds: dict, adds: dict, memory: dict) -> list[str]:
    plain, ours = PLAIN, OURS
    extra_time, extra_adds = seconds[ours] / seconds[plain] - 1, adds[ours] / adds[plain] - 1
    return [
        phase,
        f"{seconds[plain]:.3f}",
        f"{seconds[ours]:.3f}",
        f"{extra_time:+.1%}",
        f"{extra_adds:+.1%}",
        f"{extra_time / extra_adds:.2f}",
        f"{memory[plain]:.0f}",
        f"{memory[ours]:.0f}",
    ]
