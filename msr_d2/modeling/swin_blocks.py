"""Patches, blocks and stages of a Swin transformer for maps of any size, made of timm's parts."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Added to the attention logits of cells that come from different sides of the image.
_BLOCKED = -100.0


def timm_parts() -> SimpleNamespace:
    """What is used of timm, imported only when a Swin transformer is built.

    Raises:
        ImportError: if timm is missing or too old.
    """
    try:
        from timm.layers import DropPath, Mlp
        from timm.models.swin_transformer import PatchMerging, WindowAttention
    except ImportError as error:
        raise ImportError(
            "MODEL.BACKBONE.NAME 'D2SwinTransformer' is made of parts of timm, which is not "
            "installed here or too old: run `pip install timm` (1.0 or newer)"
        ) from error
    return SimpleNamespace(
        DropPath=DropPath, Mlp=Mlp, PatchMerging=PatchMerging, WindowAttention=WindowAttention
    )


class PatchEmbed(nn.Module):
    def __init__(self, patch_size: int, width: int, norm: bool):
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (F, 3, H, W) to patches (F, h, w, C); the last patches are filled with zeros."""
        patch = self.proj.stride[0]
        bottom, right = -images.shape[-2] % patch, -images.shape[-1] % patch
        return self.norm(self.proj(F.pad(images, (0, right, 0, bottom))).permute(0, 2, 3, 1))


class Block(nn.Module):
    """Attention in windows and an MLP, each normalised before."""

    def __init__(self, timm, width, heads, window, shift, drop_path, settings):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = timm.WindowAttention(
            width,
            num_heads=heads,
            window_size=window,
            qkv_bias=settings.qkv_bias,
            attn_drop=settings.attention_dropout,
            proj_drop=settings.dropout,
        )
        # It is saved with the weights, as in the published checkpoints.
        index = self.attn.relative_position_index
        self.attn.register_buffer("relative_position_index", index, persistent=True)
        hidden = int(width * settings.mlp_ratio)
        self.mlp = timm.Mlp(width, hidden_features=hidden, drop=settings.dropout)
        self.drop_path = timm.DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(F, h, w, C) to the same; `mask` is for shifted windows, see :func:`shift_mask`."""
        x = x + self.drop_path(self._attend(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        size, shift = x.shape[1:3], self.shift
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
        windows = self.attn(_windows(x, self.window), mask=mask if shift else None)
        x = _from_windows(windows, self.window, size)
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, :height, :width]


def _windows(x: torch.Tensor, window: int) -> torch.Tensor:
    """(F, h, w, C) to (F * number of windows, window * window, C)."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def _from_windows(windows: torch.Tensor, window: int, size: tuple[int, int]) -> torch.Tensor:
    """The inverse of :func:`_windows`, for maps of `size`."""
    rows, columns = size[0] // window, size[1] // window
    x = windows.unflatten(1, (window, window)).unflatten(0, (-1, rows, columns))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def shift_mask(size: tuple[int, int], window: int, device: torch.device) -> torch.Tensor:
    """Which cells of a window may see each other after the shift, (windows, window^2, window^2).

    Rolling brings cells of opposite sides of the image into one window; logits between them are
    lowered. `size` is that of the map before padding.
    """
    regions = []
    for length in size:
        padded = length + -length % window
        position = torch.arange(padded, device=device)
        regions.append((position >= padded - window).int() + (position >= padded - window // 2))
    rows, columns = regions
    region = _windows((rows[:, None] * 3 + columns)[None, :, :, None], window)[..., 0]
    differ = region[:, None, :] != region[:, :, None]
    return torch.zeros(differ.shape, device=device).masked_fill(differ, _BLOCKED)


class Stage(nn.Module):
    def __init__(self, timm, width, depth, heads, window, drop_paths, settings, downsample):
        super().__init__()
        self.window, self.use_checkpoint = window, settings.use_checkpoint
        shifts = [0 if index % 2 == 0 else window // 2 for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(timm, width, heads, window, shift, drop_path, settings)
            for shift, drop_path in zip(shifts, drop_paths)
        )
        self.downsample = timm.PatchMerging(width, 2 * width) if downsample else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The blocks alone; the caller takes the map before it is made smaller."""
        mask = shift_mask(x.shape[1:3], self.window, x.device).to(x.dtype)
        for block in self.blocks:
            if self.use_checkpoint and self.training:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
        return x
