"""Starting processes, without starting any; scripts are run in test_scripts.py."""

import sys

import pytest
import torch

from msr_d2.engine import default_argument_parser, launch
from msr_d2.engine.launch import _TORCHRUN_VARIABLES


@pytest.fixture(autouse=True)
def not_under_torchrun(monkeypatch):
    for name in _TORCHRUN_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def arguments(*words):
    return default_argument_parser().parse_args(list(words))


@pytest.mark.parametrize("words", [(), ("--num-gpus", "0"), ("--num-gpus", "1")])
def test_one_process_runs_here_and_returns(words):
    args = arguments(*words)
    assert launch(lambda given: given, args) is args


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="--num-gpus is 4, but this machine has 2 GPUs.*torchrun"):
        launch(print, arguments("--num-gpus", "4"))


def test_machines_need_a_place_to_meet(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with pytest.raises(ValueError, match="--dist-url tcp://ADDRESS_OF_MACHINE_0"):
        launch(print, arguments("--num-gpus", "8", "--num-machines", "2"))


def test_several_gpus_are_left_to_detectron2(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    module = sys.modules["msr_d2.engine.launch"]  # the function has the same name
    monkeypatch.setattr(module, "d2_launch", lambda *a, **k: calls.append((a, k)))
    args = arguments("--num-gpus", "2")
    assert launch(print, args) is None
    keywords = {"num_machines": 1, "machine_rank": 0, "dist_url": "auto", "args": (args,)}
    assert calls == [((print, 2), keywords)]


def under_torchrun(monkeypatch, processes):
    for name in _TORCHRUN_VARIABLES:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))


def test_torchrun_with_more_processes_than_gpus(monkeypatch):
    under_torchrun(monkeypatch, 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="started 3 processes here, but torch sees 2 GPUs"):
        launch(print, arguments())


def test_torchrun_on_mps(monkeypatch):
    under_torchrun(monkeypatch, 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("msr_d2.engine.device._has_mps", lambda: True)
    with pytest.raises(ValueError, match="cannot share one mps device"):
        launch(print, arguments())
