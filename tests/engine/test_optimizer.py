"""Optimizers: rates and decays by hand, clipping against its definition, exact resume."""

import os

import pytest
import torch
from detectron2.engine import HookBase
from tiny_coco import write_set
from tiny_ytvis import track, write_videos
from torch import nn

import msr_d2
from msr_d2.data import register_from_config
from msr_d2.engine import Trainer
from msr_d2.engine.optimizer import build_optimizer
from msr_d2.testing import tiny_cfg, tiny_vis_cfg

ADAMW = ["SOLVER.OPTIMIZER", "ADAMW", "SOLVER.BASE_LR", 0.01, "SOLVER.WEIGHT_DECAY", 0.05]
CLIP_ALL = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"]


def make_cfg(opts):
    cfg = msr_d2.get_cfg()
    cfg.merge_from_list(list(opts))
    return cfg


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.absolute_pos_embed = nn.Parameter(torch.ones(3))
        self.relative_position_bias_table = nn.Parameter(torch.ones(4))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Block()
        self.not_backbone = nn.Linear(2, 2)
        self.group_norm = nn.GroupNorm(1, 2)
        self.layer_norm = nn.LayerNorm(2)
        self.query = nn.Embedding(5, 2)
        self.level_embed = nn.Parameter(torch.ones(3, 2))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.shared = self.not_backbone


def settings_by_name(optimizer, model):
    names = {p: name for name, p in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            assert names[p] not in found, "a parameter is optimized twice"
            found[names[p]] = (group["lr"], group["weight_decay"])
    return found


def test_rates_and_decays_of_adamw():
    model = Model()
    opts = ["SOLVER.BACKBONE_MULTIPLIER", 0.1, "SOLVER.WEIGHT_DECAY_NORM", 0.02]
    cfg = make_cfg([*ADAMW, *opts, "SOLVER.WEIGHT_DECAY_EMBED", 0.03])
    optimizer = build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.AdamW)
    slow = pytest.approx(0.001)
    assert settings_by_name(optimizer, model) == {
        "backbone.conv.weight": (slow, 0.05),
        "backbone.conv.bias": (slow, 0.05),
        "backbone.norm.weight": (slow, 0.02),
        "backbone.norm.bias": (slow, 0.02),
        "backbone.absolute_pos_embed": (slow, 0.0),
        "backbone.relative_position_bias_table": (slow, 0.0),
        "not_backbone.weight": (0.01, 0.05),
        "not_backbone.bias": (0.01, 0.05),
        "group_norm.weight": (0.01, 0.02),
        "group_norm.bias": (0.01, 0.02),
        "layer_norm.weight": (0.01, 0.02),
        "layer_norm.bias": (0.01, 0.02),
        "query.weight": (0.01, 0.03),
        "level_embed": (0.01, 0.05),
    }
    # {slow, fast} x {weights, norms}, slow positions, fast embeddings
    assert len(optimizer.param_groups) == 6


def test_sgd_is_detectron2s():
    from detectron2.solver import build_optimizer as theirs

    model, cfg = Model(), make_cfg(["SOLVER.BIAS_LR_FACTOR", 2.0])
    ours, theirs = build_optimizer(cfg, model), theirs(cfg, model)
    assert type(ours) is torch.optim.SGD
    assert settings_by_name(ours, model) == settings_by_name(theirs, model)
    assert ours.defaults == theirs.defaults


def one_layer(values):
    """Two parameters, whose gradients are the given numbers."""
    model = nn.ParameterDict({"a": nn.Parameter(torch.zeros(2)), "b": nn.Parameter(torch.zeros(1))})
    model["a"].grad, model["b"].grad = torch.tensor(values[:2]), torch.tensor(values[2:])
    return model


SGD_STEP = ["SOLVER.BASE_LR", 1.0, "SOLVER.MOMENTUM", 0.0, "SOLVER.WEIGHT_DECAY", 0.0]


@pytest.mark.parametrize(
    "kind, value, norm_type, expected",
    [
        ("full_model", 3.5, 2.0, [1.0, 1.5, 3.0]),  # norm of (2, 3, 6) is 7
        ("full_model", 7.5, 2.0, [2.0, 3.0, 6.0]),
        ("full_model", 5.5, 1.0, [1.0, 1.5, 3.0]),
        ("norm", 3.5, 2.0, [7 / 13**0.5, 10.5 / 13**0.5, 3.5]),  # each tensor by itself
        ("value", 2.5, 2.0, [2.0, 2.5, 2.5]),
    ],
)
def test_clipping(kind, value, norm_type, expected):
    model = one_layer([2.0, 3.0, 6.0])
    clip = "SOLVER.CLIP_GRADIENTS."
    opts = ["ENABLED", True, "CLIP_TYPE", kind, "CLIP_VALUE", value, "NORM_TYPE", norm_type]
    named = [clip + o if i % 2 == 0 else o for i, o in enumerate(opts)]
    build_optimizer(make_cfg([*SGD_STEP, *named]), model).step()
    stepped = torch.cat([-model["a"].detach(), -model["b"].detach()])
    torch.testing.assert_close(stepped, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_nothing_is_clipped_where_it_is_off():
    model = one_layer([20.0, 30.0, 60.0])
    opts = ["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"]  # ENABLED False
    build_optimizer(make_cfg([*SGD_STEP, *opts]), model).step()
    assert model["b"].item() == -60.0


def test_adamw_step_by_its_equations():
    """m = 0.1 g, v = 0.001 g^2, both corrected: p <- p (1 - lr wd) - lr g / (|g| + eps)."""
    model = one_layer([2.0, -3.0, 6.0])
    with torch.no_grad():
        model["a"].fill_(1.0)
    clip = ["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01]
    optimizer = build_optimizer(make_cfg([*ADAMW, *CLIP_ALL, *clip]), model)
    assert isinstance(optimizer, torch.optim.AdamW)
    optimizer.step()
    expected = 1 - 0.01 * 0.05 + torch.tensor([-0.01, 0.01])
    torch.testing.assert_close(model["a"].detach(), expected, rtol=1e-5, atol=1e-5)
    assert optimizer.state[model["b"]]["exp_avg"].item() == pytest.approx(0.1 * 0.01 * 6 / 7)


def test_closure_is_clipped_too():
    model = one_layer([0.0, 0.0, 0.0])
    cfg = make_cfg([*SGD_STEP, *CLIP_ALL, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5])
    optimizer = build_optimizer(cfg, model)

    def closure():
        optimizer.zero_grad()
        loss = 4 * model["a"].sum() + 2 * model["b"].sum()  # gradient (4, 4, 2), norm 6
        loss.backward()
        return loss

    assert optimizer.step(closure) == 0
    torch.testing.assert_close(model["a"].detach(), torch.tensor([-1 / 3, -1 / 3]))


@pytest.mark.parametrize("kind", ["SGD", "ADAMW"])
def test_mixed_precision_clips_unscaled_gradients(kind):
    """As in detectron2's AMPTrainer; the scaled gradients are 65536 times as long."""
    start = torch.tensor([1.0, 2.0, 2.0])
    weights = {}
    for scaled in (False, True):
        weights[scaled] = model = nn.ParameterList([nn.Parameter(start.clone())])
        opts = ["SOLVER.OPTIMIZER", kind, *CLIP_ALL, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1.5]
        optimizer = build_optimizer(make_cfg([*SGD_STEP, *opts]), model)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=scaled)
        for _ in range(2):
            optimizer.zero_grad()
            scaler.scale((model[0] ** 2).sum() / 2).backward()
            scaler.step(optimizer)
            scaler.update()
    torch.testing.assert_close(weights[True][0], weights[False][0])
    if kind == "SGD":  # gradient = weight, norms 3 and 1.5: cut by half, then not cut
        torch.testing.assert_close(weights[True][0].detach(), torch.zeros(3))


def test_mixed_precision_leaves_out_infinite_gradients():
    model = nn.ParameterList([nn.Parameter(torch.ones(2))])
    optimizer = build_optimizer(make_cfg([*SGD_STEP, *CLIP_ALL]), model)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((model[0] * torch.tensor([1.0, float("inf")])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert model[0].tolist() == [1.0, 1.0] and scaler.get_scale() == 4.0


@pytest.mark.parametrize(
    "opts, message",
    [
        (["SOLVER.OPTIMIZER", "ADAM"], "OPTIMIZER is 'ADAM', which is none of: SGD, ADAMW"),
        ([*CLIP_ALL[:3], "all"], "CLIP_TYPE is 'all', which is none of: value, norm, full_model"),
        ([*CLIP_ALL, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.0], "CLIP_VALUE is 0.0"),
    ],
)
def test_what_cannot_be_is_refused(opts, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(make_cfg(opts), Model())


class Stop(HookBase):
    def before_step(self):
        if self.trainer.iter == 3:
            raise InterruptedError


def make_training(kind, folder):
    """Data and config of a tiny image model or of a tiny video model."""
    if kind == "image":
        return write_set(folder, num_images=4), tiny_cfg()
    boxes = [(8, 8, 40, 40), (10, 8, 42, 40), (12, 8, 44, 40), (14, 8, 46, 40)]
    tracks = [track(1, boxes), track(2, [None, *boxes[1:]], video_id=2, category_id=2)]
    return write_videos(folder, tracks, lengths=(4, 4)), tiny_vis_cfg()


def train(data, cfg, folder, stop=False, resume=False):
    cfg = cfg.clone()
    opts = [*ADAMW, *CLIP_ALL, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1.0, "SOLVER.BASE_LR", 1e-3]
    cfg.merge_from_list([*opts, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 4, "SEED", 3])
    cfg.DATASETS.REGISTER, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = [data], (data[0],), ()
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = 2, (3,), 2
    cfg.OUTPUT_DIR = str(folder)
    os.makedirs(folder, exist_ok=True)
    register_from_config(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    if stop:
        trainer.register_hooks([Stop()])
        with pytest.raises(InterruptedError):
            trainer.train()
    else:
        trainer.train()
    return trainer


@pytest.mark.parametrize("kind", ["image", "video"])
def test_resumed_run_of_adamw_equals_uninterrupted(kind, tmp_path):
    data, cfg = make_training(kind, tmp_path / "data")
    torch.manual_seed(0)
    whole = train(data, cfg, tmp_path / "whole")
    assert isinstance(whole.optimizer, torch.optim.AdamW)
    torch.manual_seed(0)
    train(data, cfg, tmp_path / "cut", stop=True)
    torch.manual_seed(99)
    resumed = train(data, cfg, tmp_path / "cut", resume=True)
    assert resumed.start_iter == 2
    for (name, first), second in zip(
        whole.model.state_dict().items(), resumed.model.state_dict().values()
    ):
        assert torch.equal(first, second), name
    steps = {float(state["step"]) for state in resumed.optimizer.state.values()}
    assert steps == {4.0}
