"""Swin transformer (arXiv 2103.14030) as a backbone for dense prediction, made of timm's parts.

Parameters are named as in the published detection and segmentation checkpoints. Images can have any
size: maps are padded to whole windows, and windows are always shifted, also on maps that are not
larger than one window, as those checkpoints were trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone
from torch import nn

from .swin_blocks import PatchEmbed, Stage, timm_parts

_NAMES = ("res2", "res3", "res4", "res5")


class D2SwinTransformer(Backbone):
    """Swin transformer with outputs "res2" to "res5", each with a norm of its own.

    It takes the name of the backbone in Mask2Former's configs, unless that name is taken when
    msr_d2 is imported: to have both code bases in one program, import the other one first.
    """

    @configurable
    def __init__(
        self,
        *,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path_rate: float = 0.3,
        patch_norm: bool = True,
        out_features: Sequence[str] = _NAMES,
        use_checkpoint: bool = False,
    ):
        """
        Args:
            patch_size: stride of the first map.
            embed_dim: channels of the first map; each later one has twice as many.
            depths, num_heads: blocks and attention heads of the four stages.
            window_size: side of a window in cells.
            mlp_ratio: hidden width of the MLPs, relative to the channels.
            qkv_bias: whether queries, keys and values have a bias.
            dropout, attention_dropout: in training, of projections and of attention weights.
            drop_path_rate: how often the last block is skipped in training; less before it.
            patch_norm: normalise the patches.
            out_features: of "res2" to "res5".
            use_checkpoint: recompute blocks in the backward pass, for less memory.

        Raises:
            ImportError: without timm.
            ValueError: for lengths or names that do not fit.
        """
        super().__init__()
        timm = timm_parts()
        _check_settings(embed_dim, depths, num_heads, out_features)
        settings = SimpleNamespace(
            qkv_bias=qkv_bias,
            dropout=dropout,
            attention_dropout=attention_dropout,
            mlp_ratio=mlp_ratio,
            use_checkpoint=use_checkpoint,
        )
        self.patch_embed = PatchEmbed(patch_size, embed_dim, patch_norm)
        self.pos_drop = nn.Dropout(dropout)
        drop_paths = [drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]
        self.layers = nn.ModuleList()
        for i, (depth, heads) in enumerate(zip(depths, num_heads)):
            first = sum(depths[:i])
            rates = drop_paths[first : first + depth]
            width, is_last = embed_dim * 2**i, i == len(depths) - 1
            self.layers.append(
                Stage(timm, width, depth, heads, window_size, rates, settings, not is_last)
            )
            if _NAMES[i] in out_features:
                self.add_module(f"norm{i}", nn.LayerNorm(width))
        self._out_features = [name for name in _NAMES if name in out_features]
        self._out_feature_channels = {name: embed_dim * 2**i for i, name in enumerate(_NAMES)}
        self._out_feature_strides = {name: patch_size * 2**i for i, name in enumerate(_NAMES)}
        self.apply(_initialise)
        self._register_load_state_dict_pre_hook(self._adapt_state_dict)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        swin = cfg.MODEL.SWIN
        if swin.APE or swin.QK_SCALE is not None:
            raise ValueError(
                f"MODEL.SWIN.APE {swin.APE} and QK_SCALE {swin.QK_SCALE}: absolute positions and "
                "another scale are not implemented, no published model uses them; set them to "
                "False and None"
            )
        return {
            "patch_size": swin.PATCH_SIZE,
            "embed_dim": swin.EMBED_DIM,
            "depths": swin.DEPTHS,
            "num_heads": swin.NUM_HEADS,
            "window_size": swin.WINDOW_SIZE,
            "mlp_ratio": swin.MLP_RATIO,
            "qkv_bias": swin.QKV_BIAS,
            "dropout": swin.DROP_RATE,
            "attention_dropout": swin.ATTN_DROP_RATE,
            "drop_path_rate": swin.DROP_PATH_RATE,
            "patch_norm": swin.PATCH_NORM,
            "out_features": swin.OUT_FEATURES,
            "use_checkpoint": swin.USE_CHECKPOINT,
        }

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features of images (F, 3, H, W), normalised by the caller: name to (F, C, ·, ·)."""
        x = self.pos_drop(self.patch_embed(images))
        outputs = {}
        for index, (name, stage) in enumerate(zip(_NAMES, self.layers)):
            x = stage(x)
            if name in self._out_features:
                normed = getattr(self, f"norm{index}")(x)
                outputs[name] = normed.permute(0, 3, 1, 2).contiguous()
            if stage.downsample is not None:
                x = stage.downsample(x)
        return outputs

    @property
    def size_divisibility(self) -> int:
        """Sizes that make all maps fit each other exactly."""
        return self._out_feature_strides[_NAMES[-1]]

    def _adapt_state_dict(self, state_dict: dict, prefix: str, *_: object) -> None:
        """Take checkpoints with other buffers, and of timm, whose stages begin with the merging."""
        adapt_swin_keys(state_dict, prefix)
        for name, buffer in self.named_buffers():
            state_dict[prefix + name] = buffer  # follows from the window alone


def adapt_swin_keys(state_dict: dict[str, torch.Tensor], prefix: str = "") -> None:
    """Rename keys of a Swin transformer in place to those of :class:`D2SwinTransformer`.

    Args:
        state_dict: of a model with the transformer at `prefix`: published ones (nothing to do but
            to drop the masks, which depend on the size of the images), or timm's.
        prefix: of its keys, with a dot at the end.
    """
    merging = re.compile(re.escape(prefix) + r"layers\.(\d+)\.downsample\.")
    stages = {int(m.group(1)) for m in map(merging.match, state_dict) if m}
    of_timm = bool(stages) and 0 not in stages
    for key in list(state_dict):
        match = merging.match(key)
        if key.startswith(prefix) and key.endswith(".attn_mask"):
            del state_dict[key]
        elif match and of_timm:
            stage = int(match.group(1)) - 1
            new = f"{prefix}layers.{stage}.downsample.{key[match.end() :]}"
            state_dict[new] = state_dict.pop(key)


def _check_settings(embed_dim, depths, num_heads, out_features) -> None:
    unknown = [name for name in out_features if name not in _NAMES]
    if unknown or not out_features:
        raise ValueError(f"MODEL.SWIN.OUT_FEATURES {out_features} must be some of {_NAMES}")
    if len(depths) != len(_NAMES) or len(num_heads) != len(_NAMES):
        raise ValueError(
            f"MODEL.SWIN.DEPTHS {depths} and NUM_HEADS {num_heads} need {len(_NAMES)} numbers each"
        )
    for index, heads in enumerate(num_heads):
        if embed_dim * 2**index % heads:
            raise ValueError(
                f"MODEL.SWIN.NUM_HEADS {num_heads}: {heads} heads cannot share the "
                f"{embed_dim * 2**index} channels of stage {index} (EMBED_DIM {embed_dim})"
            )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


if "D2SwinTransformer" not in BACKBONE_REGISTRY:
    BACKBONE_REGISTRY.register(D2SwinTransformer)
