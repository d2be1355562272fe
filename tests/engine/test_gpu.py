"""What only a GPU can show: mixed precision, nccl, and resuming both."""

import subprocess
import sys

import pytest
import torch
from detectron2.engine import AMPTrainer
from tiny_coco import write_set

from msr_d2.data import register_from_config
from msr_d2.engine import Trainer
from msr_d2.testing import tiny_cfg

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]


def make_cfg(folder, data, amp):
    cfg = tiny_cfg()
    cfg.MODEL.DEVICE = "cuda"
    cfg.DATASETS.REGISTER, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = [data], (data[0],), (data[0],)
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 2, 6, 3
    cfg.SOLVER.BASE_LR, cfg.SEED, cfg.OUTPUT_DIR = 0.002, 1, str(folder)
    cfg.SOLVER.AMP.ENABLED = amp
    folder.mkdir(exist_ok=True)
    register_from_config(cfg)
    return cfg


@pytest.mark.parametrize("amp", [False, True])
def test_train_and_resume(tmp_path, amp):
    cfg = make_cfg(tmp_path / "out", write_set(tmp_path / "data"), amp)
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    assert isinstance(trainer._trainer, AMPTrainer) == amp
    trainer.resume_or_load(False)
    results = trainer.train()
    assert {"bbox", "segm", "mask_scoring"} <= set(results)
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000002.pth")
    resumed = Trainer(cfg)
    resumed.resume_or_load(True)
    assert resumed.start_iter == 3
    resumed.train()
    # Not bit for bit: some CUDA operators add in any order.
    for first, second in zip(trainer.model.parameters(), resumed.model.parameters()):
        assert torch.allclose(first, second, rtol=1e-2, atol=1e-3)


def test_checkpoint_of_the_cpu_goes_on_with_mixed_precision(tmp_path):
    data = write_set(tmp_path / "data")
    cfg = make_cfg(tmp_path / "out", data, amp=True)
    cpu = cfg.clone()
    cpu.MODEL.DEVICE = "cpu"
    Trainer(cpu).train()
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000002.pth")
    trainer = Trainer(cfg)
    trainer.resume_or_load(True)
    trainer.train()


def test_one_process_under_torchrun_uses_nccl(tmp_path, repository):
    cfg = make_cfg(tmp_path / "out", write_set(tmp_path / "data"), amp=True)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "1", str(repository / "scripts" / "train_net.py")]
    command += ["--config-file", str(tmp_path / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "model_final.pth").is_file()
