"""Starting processes: plain python, detectron2's own launcher, or torchrun."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from detectron2.engine import launch as d2_launch
from detectron2.utils import comm

from .config_file import load_cfg

_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


def launch(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> object:
    """Run ``main(args)`` in every process of the job.

    Under ``torchrun`` the processes exist already; they talk over nccl when the model is on a GPU
    and over gloo when it is on the CPU. Otherwise detectron2 starts ``--num-gpus`` processes.

    Returns:
        What `main` returns, or None when detectron2 started several processes.

    Raises:
        ValueError: when more GPUs are asked for than there are, or there is no address to meet at.
    """
    if all(name in os.environ for name in _TORCHRUN_VARIABLES):
        return _run_under_torchrun(main, args)
    _check_gpus(args)
    if args.num_gpus * args.num_machines <= 1:
        return main(args)
    d2_launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
    return None


def _check_gpus(args: argparse.Namespace) -> None:
    processes, here = args.num_gpus * args.num_machines, torch.cuda.device_count()
    if processes <= 1:
        return
    if args.num_gpus > here:
        raise ValueError(
            f"--num-gpus is {args.num_gpus}, but this machine has {here} GPUs that torch can use. "
            "For several processes on the CPU: torchrun --nproc_per_node N scripts/train_net.py ..."
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise ValueError(
            "several machines must agree on where to meet: give all of them the same "
            "--dist-url tcp://ADDRESS_OF_MACHINE_0:FREE_PORT."
        )


def _run_under_torchrun(main: Callable, args: argparse.Namespace) -> object:
    local_rank = int(os.environ["LOCAL_RANK"])
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    device = load_cfg(args.config_file, args.opts).MODEL.DEVICE
    if device == "mps":
        raise ValueError("several processes cannot share one mps device; use MODEL.DEVICE cpu.")
    if device.startswith("cuda"):
        if local_size > torch.cuda.device_count():
            raise ValueError(
                f"torchrun started {local_size} processes here, but torch sees "
                f"{torch.cuda.device_count()} GPUs. Lower --nproc_per_node, or use "
                "MODEL.DEVICE cpu."
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", init_method="env://")
    _create_local_group(local_size)
    comm.synchronize()
    try:
        return main(args)
    finally:
        dist.destroy_process_group()


def _create_local_group(local_size: int) -> None:
    """Tell detectron2 which processes share this machine."""
    if hasattr(comm, "create_local_process_group"):  # later than 0.6
        comm.create_local_process_group(local_size)
        return
    for first in range(0, dist.get_world_size(), local_size):
        ranks = list(range(first, first + local_size))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
