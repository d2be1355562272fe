"""Evaluators, chosen by the ``evaluator_type`` of a data set in :func:`build_evaluator`."""

from .average_precision import EvaluationResult, average_precision
from .build import build_evaluator, register_evaluator
from .coco_overlaps import coco_overlaps
from .mask_iou_statistics import (
    correlation,
    figure2_table,
    format_figure2_table,
    oracle_scores,
    true_mask_iou,
)
from .mask_scoring_evaluation import MaskScoringCOCOEvaluator
from .mask_scoring_results import MaskScoringResults, evaluate_mask_scores
from .overlaps import Overlaps, Protocol
from .results import evaluate_coco_results
from .ytvis_eval import evaluate_ytvis_results, ytvis_overlaps
from .ytvis_evaluation import YTVISEvaluator

__all__ = [
    "EvaluationResult",
    "MaskScoringCOCOEvaluator",
    "MaskScoringResults",
    "Overlaps",
    "Protocol",
    "YTVISEvaluator",
    "average_precision",
    "build_evaluator",
    "coco_overlaps",
    "correlation",
    "evaluate_coco_results",
    "evaluate_mask_scores",
    "evaluate_ytvis_results",
    "figure2_table",
    "format_figure2_table",
    "oracle_scores",
    "register_evaluator",
    "true_mask_iou",
    "ytvis_overlaps",
]
