"""The one place that chooses an evaluator, by the ``evaluator_type`` of the data set."""

from __future__ import annotations

import os
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from .mask_scoring_evaluation import MaskScoringCOCOEvaluator
from .ytvis_evaluation import YTVISEvaluator

EvaluatorBuilder = Callable[[CfgNode, str, str], DatasetEvaluator]

_BUILDERS: dict[str, EvaluatorBuilder] = {}


def register_evaluator(evaluator_type: str, builder: EvaluatorBuilder) -> None:
    """Make ``builder(cfg, dataset_name, output_dir)`` the evaluator of a kind of data set.

    Args:
        evaluator_type: value of ``MetadataCatalog.get(dataset_name).evaluator_type``. A type that
            is registered already gets the new builder.
        builder: returns a ``DatasetEvaluator``.
    """
    _BUILDERS[evaluator_type] = builder


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | None = None
) -> DatasetEvaluator:
    """Build the evaluator of a registered data set.

    Args:
        cfg: config with the keys of msr_d2.
        dataset_name: name in detectron2's catalogs; its metadata has ``evaluator_type``.
        output_dir: where results are written, by default
            ``<cfg.OUTPUT_DIR>/inference/<dataset_name>``.

    Raises:
        ValueError: nobody registered an evaluator for this type.
    """
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in _BUILDERS:
        raise ValueError(
            f"data set {dataset_name!r} has evaluator_type {evaluator_type!r}, known are "
            f"{sorted(_BUILDERS)}: set MetadataCatalog.get({dataset_name!r}).evaluator_type, or "
            "register a builder by msr_d2.evaluation.register_evaluator"
        )
    if output_dir is None:
        output_dir = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
    return _BUILDERS[evaluator_type](cfg, dataset_name, output_dir)


def _build_coco(cfg: CfgNode, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    return MaskScoringCOCOEvaluator(
        dataset_name,
        output_dir=output_dir,
        max_dets_per_image=_max_detections(cfg.TEST.DETECTIONS_PER_IMAGE),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
        eval_oracle=cfg.TEST.EVAL_ORACLE,
    )


def _max_detections(detections_per_image: int) -> int:
    """The limit of COCO (100), raised where the model may return more; -1 means no limit."""
    return max(100, detections_per_image) if detections_per_image >= 0 else 100_000


def _build_ytvis(cfg: CfgNode, dataset_name: str, output_dir: str) -> DatasetEvaluator:
    limit = _max_detections(cfg.TEST.DETECTIONS_PER_IMAGE)
    return YTVISEvaluator(dataset_name, output_dir=output_dir, max_dets_per_video=limit)


register_evaluator("coco", _build_coco)
register_evaluator("ytvis", _build_ytvis)
