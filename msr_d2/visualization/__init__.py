"""Overlays of detections, contact sheets, and plots of scores and of training."""

from .losses import plot_losses, read_metrics
from .overlay import draw_ground_truth, draw_instances
from .plots import plot_score_vs_iou, plot_scores_per_iou_bin
from .sheet import Sample, contact_sheet, side_by_side

__all__ = [
    "Sample",
    "contact_sheet",
    "draw_ground_truth",
    "draw_instances",
    "plot_losses",
    "plot_score_vs_iou",
    "plot_scores_per_iou_bin",
    "read_metrics",
    "side_by_side",
]
