import torch

from msr_d2.benchmark.mask_scoring import (
    OURS,
    PLAIN,
    TargetInputs,
    build_pair,
    inference_step,
    make_batch,
    multiply_adds,
)
from msr_d2.benchmark.timing import compare
from msr_d2.mask_scoring import MaskIoUHead
from msr_d2.mask_scoring.targets import gt_class_targets, mask_areas
from msr_d2.testing import tiny_cfg


def test_the_loop_over_pixels_agrees_with_the_cells():
    """Two independent ways to the MaskIoU, apart by the rounding of boxes and borders only."""
    batch = make_batch(images=2, height=240, width=320, objects=4)
    inputs = TargetInputs(batch, rois=20, device=torch.device("cpu"))
    areas = [mask_areas(x["instances"].gt_masks)[m] for x, m in zip(batch, inputs.matched)]
    cells = gt_class_targets(
        inputs.logits[:, None], inputs.rasters, inputs.flat_boxes, torch.cat(areas), inputs.classes
    )
    difference = (cells - inputs.loop()).abs()
    assert difference.mean() < 0.05 and difference.max() < 0.2
    assert 0.5 < cells.mean() < 1


def test_extra_multiply_adds_at_inference_are_those_of_the_head():
    cfg = tiny_cfg("fpn", num_classes=80)
    pair = build_pair(cfg)
    batch = make_batch(images=1, height=64, width=96, objects=2)
    counts = {name: multiply_adds(inference_step(model, batch)) for name, model in pair.items()}
    head: MaskIoUHead = pair[OURS].roi_heads.maskiou_head
    rois = cfg.TEST.DETECTIONS_PER_IMAGE
    features, masks = torch.zeros(rois, 32, 14, 14), torch.zeros(rois, 80, 28, 28)
    alone = multiply_adds(lambda: head(features, masks, torch.zeros(rois).long()))
    assert counts[OURS] - counts[PLAIN] == alone > 0


def test_functions_take_turns_and_the_first_call_does_not_count():
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = compare(functions, repeats=2, device=torch.device("cpu"))
    assert calls == ["a", "b"] * 3 and set(seconds) == {"a", "b"}
