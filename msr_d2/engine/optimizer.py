"""The optimizers: detectron2's SGD, and AdamW as the Mask2Former family uses it."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_detectron2_sgd
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

OPTIMIZERS = ("SGD", "ADAMW")
CLIP_TYPES = ("value", "norm", "full_model")

# _NormBase: all kinds of batch and instance norm, SyncBatchNorm included.
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
# Parameters of Swin that stand for positions; the family never lets them decay.
_POSITIONS = ("relative_position_bias_table", "absolute_pos_embed")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that SOLVER.OPTIMIZER names.

    - "SGD": detectron2's own, with all of its keys.
    - "ADAMW": see `adamw_groups`. BIAS_LR_FACTOR and WEIGHT_DECAY_BIAS are not for it.

    SOLVER.CLIP_GRADIENTS works with both, and knows one type more than detectron2: "full_model"
    limits the norm of all gradients together, where "norm" limits each tensor by itself.

    Args:
        cfg: the config.
        model: its parameters that require a gradient are optimized.

    Raises:
        ValueError: if the optimizer, or the type or value of clipping, is unknown or impossible.
    """
    name, solver = cfg.SOLVER.OPTIMIZER, cfg.SOLVER
    if name not in OPTIMIZERS:
        raise ValueError(
            f"SOLVER.OPTIMIZER is '{name}', which is none of: {', '.join(OPTIMIZERS)}."
        )
    _check_clipping(solver.CLIP_GRADIENTS)
    clip_all = solver.CLIP_GRADIENTS.ENABLED and solver.CLIP_GRADIENTS.CLIP_TYPE == "full_model"
    if clip_all:  # detectron2 must not see a type that it does not know
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    if name == "SGD":
        optimizer = build_detectron2_sgd(cfg, model)
    else:
        adamw = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        optimizer = adamw(adamw_groups(cfg, model), lr=solver.BASE_LR)
    if clip_all:
        clip = solver.CLIP_GRADIENTS
        optimizer.__class__ = _clipping_all(type(optimizer), clip.CLIP_VALUE, clip.NORM_TYPE)
    return optimizer


def adamw_groups(cfg: CfgNode, model: nn.Module) -> list[dict]:
    """Parameter groups of AdamW, one for each pair of learning rate and weight decay.

    - learning rate: BASE_LR; times BACKBONE_MULTIPLIER in a module called ``backbone``.
    - weight decay: WEIGHT_DECAY; WEIGHT_DECAY_NORM in norms, WEIGHT_DECAY_EMBED in embeddings
      (``nn.Embedding``), 0 for Swin's position tables.

    Args:
        cfg: the config.
        model: any module; shared parameters count where they are met first.

    Returns:
        dicts with the keys params, lr and weight_decay; the order depends on the model only.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        in_backbone = "backbone" in module_name.split(".")
        rate = cfg.SOLVER.BASE_LR * (cfg.SOLVER.BACKBONE_MULTIPLIER if in_backbone else 1.0)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                decay = _weight_decay(cfg, module, name)
                groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _weight_decay(cfg: CfgNode, module: nn.Module, name: str) -> float:
    if name in _POSITIONS:
        return 0.0
    if isinstance(module, _NORMS):
        return cfg.SOLVER.WEIGHT_DECAY_NORM
    if isinstance(module, nn.Embedding):
        return cfg.SOLVER.WEIGHT_DECAY_EMBED
    return cfg.SOLVER.WEIGHT_DECAY


def _check_clipping(clip: CfgNode) -> None:
    if not clip.ENABLED:
        return
    if clip.CLIP_TYPE not in CLIP_TYPES:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is '{clip.CLIP_TYPE}', which is none of: "
            f"{', '.join(CLIP_TYPES)}."
        )
    if not clip.CLIP_VALUE > 0:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_VALUE is {clip.CLIP_VALUE}: nothing would be trained. "
            "Give a positive value, or set CLIP_GRADIENTS.ENABLED False."
        )


def _clipping_all(base: type, max_norm: float, norm_type: float) -> type:
    """A subclass of an optimizer that limits the norm of all gradients before each step.

    In `step` and not before it: mixed precision's ``GradScaler.step`` first divides the gradients
    by the loss scale and leaves out steps with infinite ones, then calls this. (It would not for
    the ``fused`` optimizers, which we never build.) Several processes clip alike, because their
    gradients are averaged in the backward pass.
    """

    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = [p for group in self.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
        base.step(self)
        return loss

    return type(f"{base.__name__}ClippingAll", (base,), {"step": step})
