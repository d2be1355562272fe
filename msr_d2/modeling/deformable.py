"""ResNet backbones with deformable convolution from torchvision.

detectron2's own deformable convolution needs its compiled operators. torchvision brings the same
operator for CPU and GPU, so these backbones work with every installation; their parameters have the
names and shapes of detectron2's, so its checkpoints load.
"""

from __future__ import annotations

import importlib.util

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, ResNet, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d


class DeformableBottleneckBlock(BottleneckBlock):
    """Bottleneck block with a deformable 3x3 convolution (arXiv 1703.06211), v1 or modulated."""

    def __init__(self, *args, num_groups_deform: int = 1, modulated: bool = False, **kwargs):
        """
        Args:
            num_groups_deform: groups of channels that have offsets of their own.
            modulated: also learn a weight for each sampled value (arXiv 1811.11168).
            args, kwargs: see detectron2's ``BottleneckBlock``.
        """
        super().__init__(*args, **kwargs)
        self.modulated = modulated
        values = 3 if modulated else 2  # (y, x) of each of the nine taps, and its weight
        conv = self.conv2
        self.conv2_offset = Conv2d(
            conv.in_channels,
            values * 9 * num_groups_deform,
            kernel_size=3,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
        )
        # Starts as an ordinary convolution.
        nn.init.constant_(self.conv2_offset.weight, 0)
        nn.init.constant_(self.conv2_offset.bias, 0)

    def _deformable_conv(self, x: torch.Tensor) -> torch.Tensor:
        offset, mask = self.conv2_offset(x), None
        if self.modulated:
            first, second, mask = offset.chunk(3, dim=1)
            offset, mask = torch.cat([first, second], dim=1), mask.sigmoid()
        conv = self.conv2
        with torch.autocast(x.device.type, enabled=False):  # the operator wants one type for all
            x = deform_conv2d(
                x.float(),
                offset.float(),
                conv.weight.float(),
                None,
                conv.stride,
                conv.padding,
                conv.dilation,
                None if mask is None else mask.float(),
            )
        return x if conv.norm is None else conv.norm(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu_(self.conv1(x))
        out = F.relu_(self._deformable_conv(out))
        out = self.conv3(out)
        return F.relu_(out + (x if self.shortcut is None else self.shortcut(x)))


def _deformable_copy(block: nn.Module, resnets: CfgNode) -> DeformableBottleneckBlock:
    if not isinstance(block, BottleneckBlock):
        raise ValueError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE needs bottleneck blocks, but DEPTH {resnets.DEPTH} "
            "has basic ones: use depth 50, 101 or 152, or switch deformable convolution off"
        )
    conv = block.conv2
    copy = DeformableBottleneckBlock(
        block.in_channels,
        block.out_channels,
        bottleneck_channels=conv.out_channels,
        stride=block.stride,
        num_groups=conv.groups,
        norm=resnets.NORM,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        dilation=conv.dilation[0],
        num_groups_deform=resnets.DEFORM_NUM_GROUPS,
        modulated=resnets.DEFORM_MODULATED,
    )
    frozen = not any(p.requires_grad for p in block.parameters())
    return copy.freeze() if frozen else copy


@BACKBONE_REGISTRY.register()
def build_deformable_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """detectron2's ``build_resnet_backbone`` with deformable convolution from torchvision.

    Reads the same keys: ``MODEL.RESNETS.DEFORM_ON_PER_STAGE`` (res2 to res5),
    ``DEFORM_MODULATED`` and ``DEFORM_NUM_GROUPS``.
    """
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False] * 4
    resnet = build_resnet_backbone(plain, input_shape)
    for stage, deformable in zip(resnet.stages, cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE):
        for index, block in enumerate(stage):
            if deformable:
                stage[index] = _deformable_copy(block, cfg.MODEL.RESNETS)
    return resnet


@BACKBONE_REGISTRY.register()
def build_deformable_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """detectron2's ``build_resnet_fpn_backbone`` on :func:`build_deformable_resnet_backbone`."""
    return FPN(
        bottom_up=build_deformable_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def check_deformable_config(cfg: CfgNode) -> None:
    """Refuse detectron2's own deformable convolution where its operators are not compiled.

    Raises:
        ValueError: with the backbone to use instead.
    """
    name = cfg.MODEL.BACKBONE.NAME
    stock = name in ("build_resnet_backbone", "build_resnet_fpn_backbone")
    compiled = importlib.util.find_spec("detectron2._C") is not None
    if stock and any(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE) and not compiled:
        raise ValueError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE asks for deformable convolution, which this "
            "detectron2 lacks (it has no compiled operators): set MODEL.BACKBONE.NAME "
            f"{name.replace('build_', 'build_deformable_')}, which uses torchvision's"
        )
