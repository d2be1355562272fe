"""The trainer: a killed and resumed run equals an uninterrupted one, and the smaller promises."""

import json
import logging
import os

import pytest
import torch
from detectron2.engine import HookBase
from tiny_coco import write_set

from msr_d2.data import register_from_config
from msr_d2.engine import Trainer
from msr_d2.testing import tiny_cfg

ITERATIONS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data"), num_images=5)


def make_cfg(data, folder, opts=()):
    cfg = tiny_cfg()
    cfg.DATASETS.REGISTER, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = [data], (data[0],), (data[0],)
    cfg.OUTPUT_DIR = str(folder)
    cfg.INPUT.MIN_SIZE_TRAIN = (56, 64, 72)
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 2, ITERATIONS, 2
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.STEPS = 0.01, 3, (5,)
    cfg.SEED = 11
    cfg.merge_from_list(list(opts))
    os.makedirs(folder, exist_ok=True)
    register_from_config(cfg)
    return cfg


class Stop(HookBase):
    """Raises in the middle of an iteration."""

    def __init__(self, at):
        self.at = at

    def before_step(self):
        if self.trainer.iter == self.at:
            raise InterruptedError


def train(cfg, resume=False, stop=None):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    if stop is None:
        results = trainer.train()
        return trainer, results
    trainer.register_hooks([Stop(stop)])
    with pytest.raises(InterruptedError):
        trainer.train()
    return trainer, None


def final_weights(folder):
    path = folder / "model_final.pth"
    return torch.load(path, map_location="cpu", weights_only=True)["model"]


def assert_equal(first, second):
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    torch.manual_seed(0)
    trainer, results = train(make_cfg(data, folder))
    return folder, results


@pytest.mark.parametrize("stop, workers", [(3, 0), (4, 2), (5, 1)])
def test_resumed_run_equals_uninterrupted(data, uninterrupted, tmp_path, stop, workers):
    """Stopped off and on a checkpoint, with other workers, and other random numbers around it."""
    opts = ["DATALOADER.NUM_WORKERS", workers, "TEST.EVAL_PERIOD", 4]
    torch.manual_seed(0)
    train(make_cfg(data, tmp_path, opts), stop=stop)
    assert not (tmp_path / "model_final.pth").exists()
    torch.manual_seed(99)
    trainer, _ = train(make_cfg(data, tmp_path, opts), resume=True)
    assert trainer.start_iter == stop - stop % 2
    assert_equal(final_weights(uninterrupted[0]), final_weights(tmp_path))


def test_the_random_seed_of_a_run_is_kept(data, tmp_path):
    """Without SEED two runs differ, but a resumed one goes on as it began."""
    weights = []
    for run in ("a", "b"):
        torch.manual_seed(0)  # same initial weights
        train(make_cfg(data, tmp_path / run, ["SEED", -1]))
        weights.append(final_weights(tmp_path / run))
    name = "backbone.fpn_output2.weight"
    assert not torch.equal(weights[0][name], weights[1][name])

    for name in ("model_final.pth", "model_0000005.pth"):
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a" / "last_checkpoint").write_text("model_0000003.pth")
    train(make_cfg(data, tmp_path / "a", ["SEED", -1]), resume=True)
    assert_equal(final_weights(tmp_path / "a"), weights[0])


def test_checkpoint_holds_the_optimizer_and_only_plain_data(uninterrupted):
    state = torch.load(uninterrupted[0] / "model_final.pth", weights_only=True)
    optimizer = state["trainer"]["_trainer"]["optimizer"]["state"]
    assert any(entry["momentum_buffer"].abs().sum() > 0 for entry in optimizer.values())
    assert state["trainer"]["hooks"]["IterationSeed"] == {"seed": 11}
    assert state["iteration"] == ITERATIONS - 1


def test_results_and_files(uninterrupted):
    folder, results = uninterrupted
    assert {"bbox", "segm", "segm_class_score", "mask_scoring"} <= set(results)
    names = set(os.listdir(folder))
    assert {"metrics.json", "last_checkpoint", "inference"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (folder / "inference" / "coco_instances_results.json").is_file()
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert "loss_maskiou" in lines[-1] or "loss_maskiou" in lines[0]
    assert any("segm/AP" in line for line in lines)


def test_resuming_a_finished_run_says_so(data, uninterrupted, tmp_path, caplog):
    import shutil

    shutil.copytree(uninterrupted[0], tmp_path / "copy")
    trainer = Trainer(make_cfg(data, tmp_path / "copy"))
    trainer.resume_or_load(True)
    assert trainer.start_iter == ITERATIONS
    assert "nothing is left to train. Raise SOLVER.MAX_ITER" in caplog.text


def test_resume_with_other_classes_is_refused(data, uninterrupted, tmp_path):
    import shutil

    shutil.copytree(uninterrupted[0], tmp_path / "copy")
    trainer = Trainer(make_cfg(data, tmp_path / "copy", ["MODEL.ROI_HEADS.NUM_CLASSES", 5]))
    with pytest.raises(ValueError, match="another model.*NUM_CLASSES"):
        trainer.resume_or_load(True)


def test_resume_without_a_checkpoint_starts_anew(data, tmp_path):
    trainer = Trainer(make_cfg(data, tmp_path))
    trainer.resume_or_load(True)
    assert trainer.start_iter == 0


def test_checkpoint_without_optimizer_warns(data, tmp_path, caplog):
    """detectron2 0.6 writes such checkpoints."""
    trainer = Trainer(make_cfg(data, tmp_path))
    state = trainer.state_dict()
    del state["_trainer"]
    trainer.load_state_dict(state)
    assert "no optimizer state" in caplog.text


def test_a_loader_of_somebody_else(data, uninterrupted, tmp_path, caplog):
    import shutil

    class Theirs(Trainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return [[]]

    shutil.copytree(uninterrupted[0], tmp_path / "copy")
    trainer = Theirs(make_cfg(data, tmp_path / "copy"))
    trainer.resume_or_load(True)
    assert "its images start from the beginning" in caplog.text


def test_amp_falls_back_on_the_cpu(data, tmp_path, caplog):
    from detectron2.engine import AMPTrainer

    cfg = make_cfg(data, tmp_path, ["SOLVER.AMP.ENABLED", True, "SOLVER.MAX_ITER", 1])
    cfg.DATASETS.TEST = ()
    with caplog.at_level(logging.WARNING):
        trainer, _ = train(cfg)
    assert not isinstance(trainer._trainer, AMPTrainer)
    assert "needs a CUDA device, MODEL.DEVICE is 'cpu': training in full precision" in caplog.text


def test_evaluate(data, uninterrupted, tmp_path):
    folder, expected = uninterrupted
    cfg = make_cfg(data, tmp_path, ["MODEL.WEIGHTS", str(folder / "model_final.pth")])
    results = Trainer.evaluate(cfg)
    for task in ("bbox", "segm", "segm_class_score"):
        assert results[task] == pytest.approx(expected[task], nan_ok=True)
    cfg = make_cfg(data, folder)
    assert Trainer.evaluate(cfg, resume=True)["bbox"] == pytest.approx(results["bbox"], nan_ok=True)


def test_evaluate_needs_weights(data, tmp_path):
    with pytest.raises(ValueError, match="nothing to evaluate: give MODEL.WEIGHTS"):
        Trainer.evaluate(make_cfg(data, tmp_path))


def test_evaluate_refuses_a_model_that_would_be_partly_random(data, uninterrupted, tmp_path):
    weights = str(uninterrupted[0] / "model_final.pth")
    state = torch.load(weights, weights_only=True)
    state["model"] = {k: v for k, v in state["model"].items() if "maskiou_head" not in k}
    torch.save(state, tmp_path / "mask_rcnn.pth")
    cfg = make_cfg(data, tmp_path, ["MODEL.WEIGHTS", str(tmp_path / "mask_rcnn.pth")])
    with pytest.raises(ValueError, match="maskiou_head.*missing"):
        Trainer.evaluate(cfg)


def test_two_test_sets_and_augmentation(data, tmp_path):
    other = write_set(tmp_path / "other", num_images=2)
    opts = ["SOLVER.MAX_ITER", 1, "TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (64,)]
    cfg = make_cfg(data, tmp_path / "out", opts)
    cfg.DATASETS.REGISTER, cfg.DATASETS.TEST = [other], (data[0], other[0])
    register_from_config(cfg)
    _, results = train(cfg)
    assert set(results) == {data[0], other[0]}
    lines = (tmp_path / "out" / "metrics.json").read_text()
    assert f"{other[0]}_TTA/segm/AP" in lines
    for folder in ("inference", "inference_TTA"):
        for name in results:
            path = tmp_path / "out" / folder / name / "coco_instances_results.json"
            assert path.is_file()


def test_training_learns(data, tmp_path):
    torch.manual_seed(0)
    opts = ["SOLVER.MAX_ITER", 16, "SOLVER.STEPS", (), "SOLVER.BASE_LR", 0.004]
    cfg = make_cfg(data, tmp_path, opts)
    cfg.DATASETS.TEST = ()
    trainer, _ = train(cfg)
    losses = [v for v, _ in trainer.storage.history("total_loss").values()]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4]), losses


@pytest.mark.parametrize("frozen, warns", [(2, True), (0, False)])
def test_frozen_layers_without_weights_warn(data, tmp_path, caplog, frozen, warns):
    """They would stay random, and nothing else would tell."""
    cfg = make_cfg(data, tmp_path, ["MODEL.BACKBONE.FREEZE_AT", frozen, "MODEL.WEIGHTS", ""])
    with caplog.at_level(logging.WARNING, logger="msr_d2"):
        Trainer(cfg).resume_or_load(resume=False)
    assert ("frozen layers" in caplog.text) == warns
