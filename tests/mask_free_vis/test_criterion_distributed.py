"""Two processes with different kinds of clips: nothing may hang, and gradients are shared."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from msr_d2.config import get_cfg
from msr_d2.mask_free_vis.affinities import clip_affinities
from msr_d2.mask_free_vis.box_settings import PairwiseSettings, TemporalSettings
from msr_d2.mask_free_vis.criterion import VideoSetCriterion
from msr_d2.mask_free_vis.filled_boxes import clip_boxes
from msr_d2.mask_free_vis.targets import ClipTargets

FRAMES, SIZE = 2, (16, 16)


class Toy(nn.Module):
    """As many parameters as there are ways into the losses: classes and masks of two outputs."""

    def __init__(self, cfg):
        super().__init__()
        self.classes = nn.ParameterList([torch.randn(1, 4, 3) for _ in range(2)])
        self.masks = nn.ParameterList([torch.randn(1, 4, FRAMES, 4, 4) for _ in range(2)])
        self.criterion = VideoSetCriterion(cfg)

    def forward(self, targets):
        layers = [{"pred_logits": c, "pred_masks": m} for c, m in zip(self.classes, self.masks)]
        return self.criterion({**layers[0], "aux_outputs": layers[1:]}, targets)


def make_cfg():
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    cfg.MODEL.MASK_FORMER.TRAIN_NUM_POINTS = 20
    cfg.DATASETS.TRAIN = ("box_set", "mask_set")
    cfg.MODEL.MASK_FREE.DATASET_SUPERVISION = [["mask_set", "mask"]]
    return cfg


def make_clip(supervision, instances):
    boxes = torch.tensor([2.0, 2, 12, 10]).expand(instances, FRAMES, 4)
    present = torch.ones(instances, FRAMES, dtype=torch.bool)
    images, sizes = torch.full((FRAMES, 3, *SIZE), 100.0), torch.tensor([SIZE] * FRAMES)
    return ClipTargets(
        labels=torch.zeros(instances, dtype=torch.int64),
        boxes=boxes,
        present=present,
        supervision=supervision,
        clip_boxes=clip_boxes(boxes, present, SIZE, 4),
        affinities=clip_affinities(images, sizes, 4, PairwiseSettings(), TemporalSettings()),
        masks=clip_boxes(boxes, present, SIZE, 1).filled().bool(),
    )


# What the first and the second process train on.
CASES = {
    "one without instances": [("box", 2), ("box", 0)],
    "boxes here, masks there": [("box", 1), ("mask", 3)],
    "masks here, nothing there": [("mask", 3), ("mask", 0)],
}


def train(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for number, case in enumerate(CASES.values()):
        torch.manual_seed(0)
        # Without find_unused_parameters, so a parameter that gets no gradient is an error.
        model = DistributedDataParallel(Toy(make_cfg()))
        with EventStorage():
            for _ in range(2):  # what is wrong in a step is noticed in the next
                losses = model([make_clip(*case[rank])])
                sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.module.named_parameters()}
        loss = losses["loss_mask"].item()
        torch.save((gradients, loss), f"{folder}/{number}_{rank}.pth")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    mp.spawn(train, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("number", range(len(CASES)), ids=list(CASES))
def test_gradients_are_the_same_and_finite(folder, number):
    (first, _), (second, _) = (torch.load(folder / f"{number}_{rank}.pth") for rank in (0, 1))
    assert len(first) == 4 and all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.isfinite(gradient).all() for gradient in first.values())


def test_number_of_masks_is_averaged_over_the_processes(folder):
    _, nothing = torch.load(folder / "2_1.pth")
    _, loss = torch.load(folder / "2_0.pth")
    assert nothing == 0
    torch.manual_seed(0)
    model = Toy(make_cfg())
    with EventStorage():
        # 3 masks and 0 masks: 1.5 on average; the points are random
        alone = model.criterion
        layers = {"pred_logits": model.classes[0], "pred_masks": model.masks[0]}
        expected = alone(layers, [make_clip("mask", 3)], num_masks=1.5)["loss_mask"].item()
    assert loss == pytest.approx(expected, rel=0.15)
