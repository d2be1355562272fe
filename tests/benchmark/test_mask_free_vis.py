import pytest
import torch

from msr_d2.benchmark import mask_free_vis
from msr_d2.mask_free_vis.clips import TargetSettings, clip_targets, pad_frames
from msr_d2.testing import tiny_vis_cfg


@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_made_clips_are_what_the_mapper_gives(supervision):
    (clip,) = mask_free_vis.make_clips(supervision, 1, 3, (64, 96), objects=2)
    assert len(clip["image"]) == len(clip["instances"]) == 3
    for instances in clip["instances"]:
        assert len(instances) == 2
        assert instances.has("gt_masks") == (supervision == "mask")
        boxes = instances.gt_boxes.tensor[instances.gt_ids >= 0]
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_both_kinds_of_supervision_see_the_same_clips():
    box, mask = (
        mask_free_vis.make_clips(kind, 1, 2, (64, 96), objects=3)[0] for kind in ("box", "mask")
    )
    assert all(torch.equal(a, b) for a, b in zip(box["image"], mask["image"]))
    for a, b in zip(box["instances"], mask["instances"]):
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)


def test_the_losses_of_boxes_have_work():
    """In frames without edges and matches they would cost nothing."""
    (clip,) = mask_free_vis.make_clips("box", 1, 3, (96, 128), objects=2)
    settings = TargetSettings.from_config(tiny_vis_cfg())
    affinities = clip_targets(clip, pad_frames(clip["image"], 32), settings).affinities
    matched = torch.stack([pair.valid.any(0) for pair in affinities.matches])
    assert matched.float().mean() > 0.5
    assert affinities.edges.float().mean() > 0.05  # 0.002 in noise


def test_rows_of_a_training_step():
    cfg = tiny_vis_cfg(["MODEL.SEM_SEG_HEAD.NUM_CLASSES", mask_free_vis.CLASSES])
    ((name, masks, boxes, ratio),) = mask_free_vis.step_rows(cfg, 1, 1, (64, 96))
    assert name == "1 clips of 3 frames of 64x96, 4 objects each"
    assert float(masks) > 0 and float(boxes) > 0
    assert float(ratio) == pytest.approx(float(boxes) / float(masks), abs=0.02)
