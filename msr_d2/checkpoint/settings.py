"""Config keys that weights of another code base were trained with.

Weights fit a model by their names and shapes alone; colours, strides and box conventions leave no
trace in them, and a wrong one costs accuracy silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from detectron2.config import CfgNode

_MASKSCORING_RCNN = {
    "INPUT.FORMAT": "BGR",
    "MODEL.PIXEL_MEAN": [102.9801, 115.9465, 122.7717],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.LEGACY_BOXES": True,
}
_MMDET_COMMON = {
    "MODEL.LEGACY_BOXES": False,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
}
_TORCHVISION = {
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
}
_MMDET_STYLES = {
    "caffe": {
        **_MMDET_COMMON,
        "INPUT.FORMAT": "BGR",
        "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
        "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
        "MODEL.RESNETS.STRIDE_IN_1X1": True,
    },
    "pytorch": {**_MMDET_COMMON, **_TORCHVISION},
}


def expected_settings(source: str, checkpoint: object = None) -> tuple[dict, list[str]]:
    """Settings that the weights expect, as far as they are known.

    Args:
        source: see :data:`msr_d2.checkpoint.SOURCES`.
        checkpoint: the whole checkpoint; mmdetection stores its config in it.

    Returns:
        Config keys with their values, and remarks for the user.
    """
    if source == "maskscoring_rcnn":
        return dict(_MASKSCORING_RCNN), []
    if source == "torchvision":
        return dict(_TORCHVISION), []
    if source == "detectron2":
        return {}, [
            "Keep INPUT.FORMAT, MODEL.PIXEL_MEAN, MODEL.PIXEL_STD and MODEL.RESNETS.STRIDE_IN_1X1 "
            "of the config that the checkpoint was published with (the zoo's X-101 models differ "
            "from its R-50 and R-101)."
        ]
    style = _mmdet_style(checkpoint)
    if style is not None:
        return dict(_MMDET_STYLES[style]), [f"The checkpoint was trained in '{style}' style."]
    return dict(_MMDET_COMMON), [
        "The checkpoint does not say whether it is of 'caffe' or of 'pytorch' style; its name "
        "usually does. Set for "
        + "; for ".join(
            f"{name}: " + ", ".join(f"{k} {v}" for k, v in style.items() if k not in _MMDET_COMMON)
            for name, style in _MMDET_STYLES.items()
        )
        + "."
    ]


def _mmdet_style(checkpoint: object) -> str | None:
    meta = checkpoint.get("meta") if isinstance(checkpoint, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    for key in ("cfg", "config"):  # mmdetection 3, mmdetection 2
        found = re.search(r"""style['"]?\s*[=:]\s*['"](caffe|pytorch)['"]""", str(meta.get(key)))
        if found is not None:
            return found.group(1)
    return None


def compare_settings(cfg: CfgNode, expected: Mapping) -> list[str]:
    """One line for each key of `expected` that `cfg` has another value for."""
    lines = []
    for key, value in expected.items():
        node = cfg
        for name in key.split("."):
            node = node[name]
        actual = list(node) if isinstance(node, (list, tuple)) else node
        if actual != value:
            lines.append(f"{key} is {actual!r} in your config, these weights expect {value!r}")
    return lines
