"""Two processes, one of them without a single object: nothing may hang, and weights stay equal."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from msr_d2.testing import rectangle_instances, tiny_batch, tiny_cfg

CASES = [
    ("fpn", []),
    ("cascade", []),
    ("c4", []),
    ("fpn", ["MODEL.ROI_MASKIOU_HEAD.TARGET", "all"]),
    ("fpn", ["MODEL.ROI_MASKIOU_HEAD.INPUT", "concat_hr"]),
]


def train(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for number, (variant, opts) in enumerate(CASES):
        torch.manual_seed(0)
        model = build_model(tiny_cfg(variant, opts=opts)).train()
        # Without find_unused_parameters, so a parameter that gets no gradient is an error.
        parallel = DistributedDataParallel(model, broadcast_buffers=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        batch = tiny_batch()
        if rank == 1:
            nothing = rectangle_instances([], [], (64, 96))
            batch = [{**item, "instances": nothing} for item in batch]
        for _ in range(2):
            optimizer.zero_grad()
            with EventStorage():
                sum(parallel(batch).values()).backward()
            optimizer.step()
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        torch.save(weights, f"{folder}/{number}_{rank}.pth")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    mp.spawn(train, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{v}-{o[1:]}" for v, o in CASES])
def test_one_process_without_positives(folder, number):
    first, second = (torch.load(folder / f"{number}_{rank}.pth") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.isfinite(weight).all() for weight in first.values())
