"""What only a GPU can show: mixed precision, nccl, and resuming both."""

import copy
import json
import math
import subprocess
import sys

import pytest
import torch
from detectron2.engine import AMPTrainer
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from tiny_coco import write_set
from tiny_ytvis import track, write_videos

from msr_d2.data import register_from_config
from msr_d2.engine import Trainer
from msr_d2.testing import tiny_cfg, tiny_clips, tiny_vis_cfg

DEVICE = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]


def make_cfg(folder, data, amp):
    cfg = tiny_cfg()
    cfg.MODEL.DEVICE = DEVICE
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


def video_cfg(supervision, *opts):
    # So many points are nearly all that there are: which ones are drawn hardly matters.
    points = ["MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 4096]
    return tiny_vis_cfg(["MODEL.MASK_FREE.SUPERVISION", supervision, *points, *opts])


def video_model(cfg, device):
    """The model of a config; its weights do not depend on the device."""
    torch.manual_seed(0)
    return build_model(cfg).to(device)


def losses_of(model, clips):
    torch.manual_seed(1)
    with EventStorage(1000):
        return model(copy.deepcopy(clips))


@pytest.fixture
def full_precision():
    """Convolutions without TF32, which is their default; of products it is not."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


class TestVideos:
    @pytest.mark.parametrize("supervision", ["box", "mask"])
    def test_two_steps_with_mixed_precision(self, supervision):
        """Losses and gradients are finite, every parameter has one, and weights move."""
        model = video_model(video_cfg(supervision), DEVICE).train()
        before = copy.deepcopy(dict(model.named_parameters()))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        scaler = torch.amp.GradScaler(DEVICE, init_scale=16.0)
        for _ in range(2):
            optimizer.zero_grad()
            with torch.autocast(DEVICE):
                losses = losses_of(model, tiny_clips(supervision))
            assert {loss.dtype for loss in losses.values()} == {torch.float32}
            assert all(loss.isfinite() for loss in losses.values()), losses
            scaler.scale(sum(losses.values())).backward()
            scaler.unscale_(optimizer)
            wrong = [
                name
                for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all()
            ]
            assert wrong == []
            scaler.step(optimizer)
            scaler.update()
        moved = [name for name, x in model.named_parameters() if not torch.equal(x, before[name])]
        assert len(moved) > 0.9 * len(before)  # a small gradient may be 0 in half precision

    @pytest.mark.parametrize("supervision", ["box", "mask"])
    def test_losses_are_those_of_the_cpu(self, supervision, full_precision):
        """Nearly: of equal neighbours others may be chosen, and other points are drawn."""
        cfg, clips = video_cfg(supervision), tiny_clips(supervision)
        expected = losses_of(video_model(cfg, "cpu").train(), clips)
        found = losses_of(video_model(cfg, DEVICE).train(), clips)
        assert {x.device.type for x in found.values()} == {DEVICE}
        assert found.keys() == expected.keys()
        for name, loss in expected.items():
            assert found[name].item() == pytest.approx(loss.item(), rel=0.05, abs=0.01), name

    @pytest.mark.parametrize("chunk", [0, 2])
    def test_inference_on_a_clip(self, chunk, full_precision):
        cfg = video_cfg("box", "MODEL.MASK_FREE.TEST.CHUNK_FRAMES", chunk)
        (clip,) = tiny_clips(num_clips=1, num_frames=5)
        del clip["instances"]
        outputs = {}
        with torch.no_grad():
            for device in ("cpu", DEVICE):
                (outputs[device],) = video_model(cfg, device).eval()([clip])
        found, expected = outputs[DEVICE], outputs["cpu"]
        assert len(found["scores"]) == len(found["labels"]) == len(found["masks"]) > 0
        assert {len(masks) for masks in found["masks"]} == {5}
        rles = [rle for masks in found["masks"] for rle in masks if rle is not None]
        assert rles and all(list(rle["size"]) == [64, 96] for rle in rles)
        json.dumps(rles)
        assert torch.allclose(found["scores"].cpu(), expected["scores"], atol=0.02)

    def test_inference_with_mixed_precision(self):
        (clip,) = tiny_clips(num_clips=1)
        del clip["instances"]
        with torch.no_grad(), torch.autocast(DEVICE):
            (found,) = video_model(video_cfg("box"), DEVICE).eval()([clip])
        assert found["scores"].isfinite().all() and len(found["masks"]) > 0

    @pytest.mark.parametrize("supervision, task", [("box", "bbox"), ("mask", "segm")])
    def test_trainer(self, tmp_path, supervision, task):
        masks = "string" if supervision == "mask" else None
        data = write_videos(
            tmp_path, [track(1, [(8 + i, 8, 40 + i, 40) for i in range(3)], masks=masks)]
        )
        cfg = video_cfg(supervision, "SOLVER.AMP.ENABLED", True, "MODEL.DEVICE", DEVICE)
        cfg.DATASETS.REGISTER, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (
            [data],
            (data[0],),
            (data[0],),
        )
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SEED = 1, 2, 1
        cfg.OUTPUT_DIR = str(tmp_path)
        register_from_config(cfg)
        trainer = Trainer(cfg)
        assert isinstance(trainer._trainer, AMPTrainer)
        trainer.resume_or_load(False)
        assert set(trainer.train()) == {task}
        lines = (tmp_path / "metrics.json").read_text().splitlines()
        logged = [json.loads(line) for line in lines if "total_loss" in line]
        assert logged and all(math.isfinite(entry["total_loss"]) for entry in logged)
