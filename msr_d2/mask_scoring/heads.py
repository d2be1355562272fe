"""The MaskIoU head of Mask Scoring R-CNN (arXiv 1903.00241, Sec. 3.2 and Fig. 3).

Shape shorthand:
    N: number of RoIs, over all images of the batch
    K: number of foreground classes
    C: channels of the RoI feature
    h, w: side lengths of the RoI feature (14)
    M: side length of the predicted mask (28)
"""

from __future__ import annotations

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn
from torch.nn import functional as F

ROI_MASKIOU_HEAD_REGISTRY = Registry("ROI_MASKIOU_HEAD")
ROI_MASKIOU_HEAD_REGISTRY.__doc__ = """
Registry of MaskIoU heads, which predict how well the predicted mask of a RoI fits its object.
A registered object is called as `obj(cfg, input_shape)`, `input_shape` being the shape of the
RoI feature; see :class:`MaskIoUHead` for what its `forward` takes and returns.
"""

INPUT_MODES = ("concat", "multiply", "concat_all", "concat_hr", "mask_only")


def build_maskiou_head(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """Build the MaskIoU head that ``cfg.MODEL.ROI_MASKIOU_HEAD.NAME`` names."""
    return ROI_MASKIOU_HEAD_REGISTRY.get(cfg.MODEL.ROI_MASKIOU_HEAD.NAME)(cfg, input_shape)


def select_class(per_class: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Take the entry of each RoI's class; a class-agnostic tensor has only one entry.

    Args:
        per_class: (N, K, ...) or (N, 1, ...).
        classes: (N,) class of each RoI in [0, K).

    Returns:
        Tensor of shape (N, ...).
    """
    if per_class.size(1) == 1:
        return per_class[:, 0]
    return per_class[torch.arange(len(classes), device=per_class.device), classes]


@ROI_MASKIOU_HEAD_REGISTRY.register()
class MaskIoUHead(nn.Module):
    """Regress the IoU of a predicted mask with its ground truth, one value for each class.

    Four 3x3 convolutions (the last one with stride 2) and three fully connected layers see the RoI
    feature together with the predicted mask. It works by keyword in any ROI heads::

        head = MaskIoUHead(ShapeSpec(channels=256, height=14, width=14), num_classes=80)
        mask_iou = head(roi_features, mask_logits, classes)    # (N, 80)
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: tuple[int, ...] = (256, 256, 256, 256),
        fc_dims: tuple[int, ...] = (1024, 1024),
        input_mode: str = "concat",
        num_mask_channels: int | None = None,
    ):
        """
        Args:
            input_shape: channels, height and width of the RoI feature.
            num_classes: number K of foreground classes.
            conv_dims: output channels of each convolution; the last one has stride 2.
            fc_dims: outputs of each hidden fully connected layer.
            input_mode: how RoI feature and mask are joined (Table 4):

                * "concat" (a): mask of the class, max-pooled to h x w, as one more channel;
                * "multiply" (b): the same mask multiplied with the RoI feature;
                * "concat_all" (c): all masks, max-pooled, as K more channels;
                * "concat_hr" (d): the mask at full resolution with a RoI feature of that size
                  (``input_shape`` is then M x M); the last two convolutions have stride 2, so
                  that the fully connected layers see as many inputs as in (a);
                * "mask_only": the max-pooled mask without RoI feature.
            num_mask_channels: channels of the mask logits, for "concat_all": K, or 1 when masks
                are class-agnostic. Defaults to ``num_classes``.

        Raises:
            ValueError: for an unknown ``input_mode`` or too few convolutions for it.
        """
        super().__init__()
        if input_mode not in INPUT_MODES:
            raise ValueError(
                f"MODEL.ROI_MASKIOU_HEAD.INPUT is {input_mode!r}: use one of {INPUT_MODES}"
            )
        self.input_mode = input_mode
        self.side = (input_shape.height, input_shape.width)
        channels = {
            "concat": input_shape.channels + 1,
            "multiply": input_shape.channels,
            "concat_all": input_shape.channels + (num_mask_channels or num_classes),
            "concat_hr": input_shape.channels + 1,
            "mask_only": 1,
        }[input_mode]
        height, width = self._add_convs(channels, conv_dims)
        self._add_fcs(conv_dims[-1] * height * width, fc_dims, num_classes)

    def _add_convs(self, channels: int, conv_dims: tuple[int, ...]) -> tuple[int, int]:
        """Add the convolutions; returns height and width of their output."""
        num_strided = 2 if self.input_mode == "concat_hr" else 1
        if len(conv_dims) < num_strided:
            raise ValueError(
                f"MODEL.ROI_MASKIOU_HEAD.NUM_CONV is {len(conv_dims)}, but the input mode "
                f"{self.input_mode!r} needs at least {num_strided}"
            )
        height, width = self.side
        self.convs = []
        for k, dim in enumerate(conv_dims):
            stride = 2 if k >= len(conv_dims) - num_strided else 1
            conv = Conv2d(channels, dim, 3, stride=stride, padding=1, activation=F.relu)
            weight_init.c2_msra_fill(conv)
            self.add_module(f"maskiou_fcn{k + 1}", conv)
            self.convs.append(conv)
            channels = dim
            # A 3x3 convolution with padding 1 and stride 2 rounds up: 14 -> 7, but 7 -> 4.
            height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
        return height, width

    def _add_fcs(self, inputs: int, fc_dims: tuple[int, ...], num_classes: int) -> None:
        self.fcs = []
        for k, dim in enumerate(fc_dims):
            fc = nn.Linear(inputs, dim)
            weight_init.c2_xavier_fill(fc)
            self.add_module(f"maskiou_fc{k + 1}", fc)
            self.fcs.append(fc)
            inputs = dim
        self.maskiou = nn.Linear(inputs, num_classes)
        nn.init.normal_(self.maskiou.weight, std=0.01)
        nn.init.constant_(self.maskiou.bias, 0)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        head = cfg.MODEL.ROI_MASKIOU_HEAD
        num_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        return {
            "input_shape": input_shape,
            "num_classes": num_classes,
            "conv_dims": (head.CONV_DIM,) * head.NUM_CONV,
            "fc_dims": (head.FC_DIM,) * head.NUM_FC,
            "input_mode": head.INPUT,
            "num_mask_channels": 1 if cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK else num_classes,
        }

    def forward(
        self, roi_features: torch.Tensor, mask_logits: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        """Predict the MaskIoU of each RoI for every class.

        Args:
            roi_features: (N, C, h, w), what the mask head got.
            mask_logits: (N, K, M, M), or (N, 1, M, M) when masks are class-agnostic. Gradients
                flow back into them, as in the paper's end-to-end training.
            classes: (N,) the class whose mask is looked at: ground truth in training, predicted
                in inference.

        Returns:
            (N, K) predicted MaskIoU, not limited to [0, 1]. Only the column of a RoI's class is
            meaningful with the paper's training target.
        """
        x = self.join(roi_features, mask_logits, classes)
        for conv in self.convs:
            x = conv(x)
        x = x.flatten(1)
        for fc in self.fcs:
            x = F.relu(fc(x))
        return self.maskiou(x)

    def join(
        self, roi_features: torch.Tensor, mask_logits: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        """Join RoI feature and mask into the input of the first convolution, mask channels last."""
        if self.input_mode != "concat_all":
            mask_logits = select_class(mask_logits, classes)[:, None]
        mask = mask_logits.sigmoid()
        if mask.shape[-2:] != self.side:
            # Equals the paper's 2x2 max-pooling with stride 2 when M is twice h and w.
            mask = F.adaptive_max_pool2d(mask, self.side)
        if self.input_mode == "mask_only":
            return mask
        mask = mask.to(roi_features.dtype)
        if self.input_mode == "multiply":
            return roi_features * mask
        return torch.cat([roi_features, mask], dim=1)
