"""Checkpoints: written in one step, read safely, refused when they are of another model."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from msr_d2.checkpoint import CheckpointError
from msr_d2.engine import SafeCheckpointer


class Stateful:
    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def make(folder, out=2, value=0, **more):
    return SafeCheckpointer(nn.Linear(3, out), str(folder), thing=Stateful(value), **more)


def weights(checkpointer):
    return checkpointer.model.weight.detach().clone()


def test_round_trip(tmp_path):
    first = make(tmp_path, value=7)
    first.save("model_0000003", iteration=3)
    second = make(tmp_path)
    rest = second.resume_or_load("", resume=True)
    assert rest["iteration"] == 3
    assert second.checkpointables["thing"].value == 7
    assert torch.equal(weights(first), weights(second))
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000003.pth"]


def test_files_are_readable_by_detectron2(tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    first = make(tmp_path)
    first.save("model_final")
    model = nn.Linear(3, 2)
    DetectionCheckpointer(model).load(str(tmp_path / "model_final.pth"))
    assert torch.equal(model.weight, weights(first))


@pytest.mark.parametrize("name", ["model_0000002", "model_0000001"])
def test_failure_while_saving_keeps_the_last_good_one(tmp_path, monkeypatch, name):
    """The second name is that of the good checkpoint itself, which is being replaced."""
    first = make(tmp_path)
    first.save("model_0000001")
    expected = weights(first)

    def die(data, file):
        file.write(b"half a checkpoint")
        raise KeyboardInterrupt

    nn.init.zeros_(first.model.weight)
    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        first.save(name)
    monkeypatch.undo()
    second = make(tmp_path)
    assert second.get_checkpoint_file().endswith("model_0000001.pth")
    second.resume_or_load("", resume=True)
    assert torch.equal(weights(second), expected)


def test_last_checkpoint_names_only_what_is_complete(tmp_path, monkeypatch):
    first = make(tmp_path)
    first.save("model_0000001")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError):
        first.save("model_0000002")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_other_processes_do_not_write(tmp_path):
    make(tmp_path, save_to_disk=False).save("model")
    assert os.listdir(tmp_path) == []


def test_resume_refuses_another_model(tmp_path):
    make(tmp_path, out=7).save("model_final")
    with pytest.raises(ValueError) as error:
        make(tmp_path, out=4).resume_or_load("", resume=True)
    for part in ("(7, 3) in the file, (4, 3) in the model", "NUM_CLASSES", "no --resume"):
        assert part in str(error.value)


def test_start_from_another_model_is_allowed(tmp_path):
    """Fine-tuning: weights that fit are taken, the rest stays as initialised."""
    make(tmp_path, out=7, value=5).save("model_final")
    path = str(tmp_path / "model_final.pth")
    other = make(tmp_path / "new", out=4)
    other.resume_or_load(path, resume=True)  # nothing to resume in the folder "new"
    assert other.checkpointables["thing"].value == 0


def test_complete_refuses_missing_weights(tmp_path):
    path = str(tmp_path / "half.pth")
    torch.save({"model": {"weight": torch.zeros(2, 3)}}, path)
    with pytest.raises(ValueError, match="1 are missing .*bias: missing"):
        SafeCheckpointer(nn.Linear(3, 2), complete=True).load(path)
    SafeCheckpointer(nn.Linear(3, 2)).load(path)


def test_missing_file_is_named(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    with pytest.raises(ValueError, match="model_0000009.pth' does not exist.*last_checkpoint"):
        make(tmp_path).resume_or_load("", resume=True)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_files_are_never_executed(tmp_path, suffix):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / f"evil{suffix}"
    data = {"model": {"weight": Evil()}}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(data))
    else:
        torch.save(data, path)
    with pytest.raises(CheckpointError, match=f"evil{suffix}"):
        make(tmp_path).load(str(path))
    assert not (tmp_path / "executed").exists()


def test_model_zoo_pickle(tmp_path):
    path = tmp_path / "zoo.pkl"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = {"weight": array, "bias": np.zeros(2, np.float32)}
    path.write_bytes(pickle.dumps({"model": model, "__author__": "somebody"}))
    checkpointer = SafeCheckpointer(nn.Linear(3, 2), complete=True)
    checkpointer.load(str(path))
    assert np.array_equal(weights(checkpointer).numpy(), array)


def test_caffe2_pickle_is_matched_by_name(tmp_path):
    """ImageNet weights as in detectron2's ResNets: names of Caffe2, momentum beside them."""
    from detectron2.modeling.backbone.resnet import BasicStem

    stem = nn.ModuleDict({"stem": BasicStem(norm="FrozenBN")})
    weight = np.random.rand(64, 3, 7, 7).astype(np.float32)
    blobs = {"conv1_w": weight, "conv1_w_momentum": weight * 0, "weight_order": "conv1_w"}
    path = tmp_path / "r50.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}))
    SafeCheckpointer(stem).load(str(path))
    assert np.array_equal(stem["stem"].conv1.weight.detach().numpy(), weight)
