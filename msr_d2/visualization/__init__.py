"""Overlays of detections and tracks, videos, contact sheets, plots of scores and of training."""

from .losses import plot_losses, read_metrics
from .overlay import draw_ground_truth, draw_instances
from .plots import plot_score_vs_iou, plot_scores_per_iou_bin
from .sheet import Sample, contact_sheet, side_by_side
from .video import Track, TrackPainter, draw_tracks, tracks_to_draw
from .video_frames import VideoError, VideoFrames
from .video_writer import VideoWriter

__all__ = [
    "Sample",
    "Track",
    "TrackPainter",
    "VideoError",
    "VideoFrames",
    "VideoWriter",
    "contact_sheet",
    "draw_ground_truth",
    "draw_instances",
    "draw_tracks",
    "plot_losses",
    "plot_score_vs_iou",
    "plot_scores_per_iou_bin",
    "read_metrics",
    "side_by_side",
    "tracks_to_draw",
]
