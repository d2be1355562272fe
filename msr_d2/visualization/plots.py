"""Plots of scores against the true MaskIoU: what rescoring changes (arXiv 1903.00241, Figs. 2, 5).

All functions take one number per detection and write one file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from ..layers import mean_per_bin, pearson_correlation
from .figure import check_arrays, new_figure, save_figure, style_axes, write_note
from .style import BLUE, GRAY, ORANGE

_MANY_POINTS = 3000  # above it, points hide each other and cells with counts are drawn instead
_COUNT_COLORS = LinearSegmentedColormap.from_list("counts", ["#DCEAF5", BLUE, "#00243B"])
_IOU_LABEL = "true MaskIoU"
PAPER_BIN_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def plot_score_vs_iou(
    class_score: Sequence[float],
    mask_score: Sequence[float],
    true_iou: Sequence[float],
    path: str | os.PathLike,
    *,
    predicted_iou: Sequence[float] | None = None,
) -> Path:
    """Scores against true MaskIoU, before and after rescoring, with their correlations.

    Args:
        class_score: (N,) class scores, which rank the masks of plain Mask R-CNN.
        mask_score: (N,) mask scores.
        true_iou: (N,) MaskIoU of each detection with its object, 0 where it has none.
        path: file to write; its suffix chooses the format.
        predicted_iou: (N,) predicted MaskIoU, for a third panel (the paper's Fig. 5).

    Returns:
        The path.

    Raises:
        ValueError: arrays of different lengths, with NaN, or with more than one dimension.
    """
    panels = [("class score", class_score), ("mask score", mask_score)]
    if predicted_iou is not None:
        panels.append(("predicted MaskIoU", predicted_iou))
    names = [name.replace(" ", "_") for name, _ in panels]
    arrays = check_arrays(**dict(zip(names, [x for _, x in panels])), true_iou=true_iou)
    limits = _score_limits(arrays[:-1])
    figure = new_figure(columns=len(panels))
    titles = ["before: class score", "after: mask score", "predicted MaskIoU"]
    for index, (name, _) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        _draw_cloud(axes, arrays[-1], arrays[index], limits)
        correlation = _correlation_text(arrays[-1], arrays[index])
        style_axes(axes, f"{titles[index]}\n{correlation}", _IOU_LABEL, name)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return save_figure(figure, path)


def plot_scores_per_iou_bin(
    class_score: Sequence[float],
    mask_score: Sequence[float],
    true_iou: Sequence[float],
    path: str | os.PathLike,
    *,
    bin_edges: Sequence[float] = PAPER_BIN_EDGES,
    min_class_score: float = 0.5,
    min_iou: float = 0.5,
) -> Path:
    """Mean score of the detections in each bin of true MaskIoU: the paper's Fig. 2 as bars.

    Args:
        class_score: (N,) class scores.
        mask_score: (N,) mask scores.
        true_iou: (N,) MaskIoU of each detection with its object.
        path: file to write.
        bin_edges: increasing edges of the bins; a bin has its lower edge, the last one both.
        min_class_score: detections with a class score at or below it are left out.
        min_iou: detections with a true MaskIoU at or below it are left out.

    Returns:
        The path.

    Raises:
        ValueError: arrays that do not belong together, or edges that do not increase.
    """
    arrays = check_arrays(class_score=class_score, mask_score=mask_score, true_iou=true_iou)
    edges = np.asarray(bin_edges, dtype=float)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(
            f"bin_edges are {list(bin_edges)}: expected two or more increasing numbers"
        )
    chosen = (arrays[0] > min_class_score) & (arrays[2] > min_iou)
    before, after, iou = (x[chosen] for x in arrays)
    class_means, counts = mean_per_bin(iou, before, edges)
    mask_means, _ = mean_per_bin(iou, after, edges)
    figure = new_figure(columns=1, width=1.6 + 1.15 * len(counts))
    axes = figure.add_subplot()
    _draw_bars(axes, class_means, -0.2, BLUE, "Mask R-CNN: class score")
    _draw_bars(axes, mask_means, 0.2, ORANGE, "MS R-CNN: mask score")
    ticks = [f"{a:g}-{b:g}\n(n = {n:,})" for a, b, n in zip(edges, edges[1:], counts)]
    axes.set_xticks(range(len(counts)), ticks)
    title = f"Mean score per MaskIoU bin (class score > {min_class_score:g})"
    style_axes(axes, title, _IOU_LABEL, "mean score")
    axes.grid(False, axis="x")
    heights = [bar.get_height() for bar in axes.patches]
    axes.set_ylim(1.05 * min(0.0, *heights), 1.05 * max(1.0, *heights))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    if counts.sum() == 0:
        write_note(axes, "no detection in these bins")
    return save_figure(figure, path)


def _draw_cloud(
    axes: Axes, iou: np.ndarray, score: np.ndarray, limits: tuple[float, float]
) -> None:
    """Points, or counts in hexagons where there are many, and the mean of each tenth of IoU."""
    name = f"one of {len(iou):,} detections"
    if len(iou) == 0:
        write_note(axes, "no detections")
    elif len(iou) <= _MANY_POINTS:
        alpha = float(np.clip(300 / len(iou), 0.2, 0.8))
        axes.scatter(iou, score, s=14, color=BLUE, alpha=alpha, linewidths=0, label=name)
    else:
        cells = axes.hexbin(
            iou, score, gridsize=40, extent=(0, 1, *limits), bins="log", cmap=_COUNT_COLORS
        )
        label = f"detections per cell, of {len(iou):,}"
        axes.figure.colorbar(cells, ax=axes, label=label, shrink=0.8)
    edges = np.linspace(0, 1, 11)
    means, _ = mean_per_bin(iou, score, edges)
    centers = (edges[1:] + edges[:-1]) / 2
    axes.plot(centers, means, color=ORANGE, marker="o", markersize=4, label="mean per 0.1 of IoU")
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--", label="score = true MaskIoU")
    margin = 0.03 * (limits[1] - limits[0])
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(limits[0] - margin, limits[1] + margin)


def _score_limits(scores: Sequence[np.ndarray]) -> tuple[float, float]:
    """[0, 1], and what the predicted MaskIoU, which nothing limits, needs beyond it."""
    low = min(0.0, *(values.min(initial=0.0) for values in scores))
    return low, max(1.0, *(values.max(initial=1.0) for values in scores))


def _draw_bars(axes: Axes, means: np.ndarray, offset: float, color: str, label: str) -> None:
    positions = np.arange(len(means)) + offset
    bars = axes.bar(positions, np.nan_to_num(means), width=0.38, color=color, label=label)
    texts = ["" if np.isnan(mean) else f"{mean:.2f}" for mean in means]
    axes.bar_label(bars, labels=texts, padding=2, fontsize=9)


def _correlation_text(iou: np.ndarray, score: np.ndarray) -> str:
    """Correlation of all detections, and of those that overlap an object where some do not.

    The paper does not say which it reports; detections on background, which the MaskIoU head never
    sees in training, make the first one much smaller.
    """
    value = pearson_correlation(torch.from_numpy(iou), torch.from_numpy(score))
    if np.isnan(value):
        return "correlation undefined"
    matched = iou > 0
    inner = pearson_correlation(torch.from_numpy(iou[matched]), torch.from_numpy(score[matched]))
    text = f"Pearson correlation {value:.2f}"
    return text if matched.all() or np.isnan(inner) else f"{text} ({inner:.2f} where IoU > 0)"
