"""Curves of a training from the file `metrics.json` that detectron2's `JSONWriter` writes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from .figure import new_figure, save_figure, style_axes
from .style import PALETTE

Curves = dict  # scalar name -> (iterations (T,), values (T,))

_logger = logging.getLogger(__name__)
_AP_UNIT = "AP (%)"
_YELLOW, _ORANGE = (240, 228, 66), (230, 159, 0)  # hard to see on white; after the others
_LINE_COLORS = [
    tuple(value / 255 for value in color)
    for color in [*(x for x in PALETTE if x not in (_YELLOW, _ORANGE)), _ORANGE]
]
_AP_NAMES = {
    "bbox": "box AP",
    "segm": "mask AP",
    "segm_class_score": "mask AP, ranked by class score",
    "segm_oracle": "mask AP, ranked by true MaskIoU",
}
_SCALAR_NAMES = {
    "mean_predicted": "mean predicted MaskIoU",
    "mean_target": "mean true MaskIoU",
    "correlation": "correlation of the two",
    "positive_share": "share of RoIs that train the head",
}


def plot_losses(metrics_json_path: str | os.PathLike, path: str | os.PathLike) -> Path:
    """Losses (raw and smoothed), AP and MaskIoU statistics against the iteration.

    Args:
        metrics_json_path: `metrics.json` in the output folder of a training.
        path: file to write; its suffix chooses the format.

    Returns:
        The path.

    Raises:
        ValueError: the file is missing or holds no loss.
    """
    curves = read_metrics(metrics_json_path)
    total = _pick(curves, lambda name: name == "total_loss")
    losses = _pick(curves, lambda name: "loss" in name.rsplit("/")[-1] and name != "total_loss")
    if not total and not losses:
        raise ValueError(
            f"{metrics_json_path} holds no loss: expected the metrics.json of a detectron2 training"
        )
    scores = _pick(curves, lambda name: name.split("/")[-1] == "AP")
    maskiou = _pick(curves, lambda name: name.startswith("maskiou/"))
    panels = [
        ("Total loss", "loss", total, False),
        ("Loss terms, as weighted in the total", "loss (log scale)", losses, True),
        ("Evaluation (last value)", _AP_UNIT, _with_names(scores, _ap_label), False),
        ("MaskIoU head", "IoU, correlation or share", _with_names(maskiou, _scalar_label), False),
    ]
    panels = [panel for panel in panels if panel[2]]
    columns = min(2, len(panels))
    figure = new_figure(columns, -(-len(panels) // columns), width=6.2, height=3.9)
    for index, (title, y_label, chosen, log_scale) in enumerate(panels):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, index + 1)
        if y_label == _AP_UNIT and all(len(values) == 1 for _, values in chosen.values()):
            _draw_final_scores(axes, chosen)
            continue
        _draw_curves(axes, chosen, log_scale)
        style_axes(axes, title, "iteration", y_label)
        if chosen is total:
            axes.set_ylim(bottom=0)
    return save_figure(figure, path)


def read_metrics(path: str | os.PathLike) -> Curves:
    """Read a `metrics.json`: one json object a line, one line an iteration.

    A resumed training repeats iterations; the later record counts, and what the interrupted run
    had logged past that point is dropped. A last line that was cut off is ignored; a broken line
    elsewhere is named in a warning.

    Args:
        path: the file.

    Returns:
        For each scalar its iterations (T,), increasing, and its values (T,).

    Raises:
        ValueError: the file is missing, or no line of it is a record.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: expected the metrics.json of a training")
    records: dict[str, list[tuple[int, float]]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        record = _parse_line(line)
        if record is None and line.strip() and number < len(lines):
            _logger.warning("%s, line %d is not a record and is skipped", path, number)
        for name, value in _scalars(record or {}):
            history = records.setdefault(name, [])
            while history and history[-1][0] >= record["iteration"]:
                history.pop()
            history.append((record["iteration"], value))
    if not records:
        raise ValueError(f"{path} has no line with an iteration and a number in it")
    return {
        name: (np.array([i for i, _ in history]), np.array([v for _, v in history], dtype=float))
        for name, history in records.items()
    }


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean over about a fifteenth of the curve; NaN and infinity are left out.

    Args:
        values: (T,) array.

    Returns:
        (T,) array, NaN where a whole window is not finite.
    """
    window = min(len(values), 2 * (len(values) // 30) + 1)
    finite = np.isfinite(values)
    kernel = np.ones(window)
    sums = np.convolve(np.where(finite, values, 0.0), kernel, mode="same")
    counts = np.convolve(finite.astype(float), kernel, mode="same")
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0.5)


def _parse_line(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    has_iteration = isinstance(record, dict) and isinstance(record.get("iteration"), int)
    return record if has_iteration else None


def _scalars(record: dict) -> list[tuple[str, float]]:
    return [
        (name, value)
        for name, value in record.items()
        if name != "iteration" and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]


def _pick(curves: Curves, wanted: Callable[[str], bool]) -> Curves:
    return {name: curves[name] for name in sorted(curves) if wanted(name)}


def _with_names(curves: Curves, label: Callable[[str, np.ndarray], str]) -> Curves:
    return {label(name, curve[1]): curve for name, curve in curves.items()}


def _ap_label(name: str, values: np.ndarray) -> str:
    """Name is "segm/AP" or, with several test sets, "dataset/segm/AP"."""
    *dataset, task = name.split("/")[:-1]
    return ": ".join([*dataset, _AP_NAMES.get(task, f"{task} AP")]) + f" ({values[-1]:.1f})"


def _scalar_label(name: str, values: np.ndarray) -> str:
    return _SCALAR_NAMES.get(name.split("/", 1)[1], name)


def _draw_final_scores(axes: Axes, curves: Curves) -> None:
    """Bars, for a training that was evaluated once."""
    names = list(curves)
    values = [float(curves[name][1][0]) for name in names]
    colors = [_LINE_COLORS[index % len(_LINE_COLORS)] for index in range(len(names))]
    axes.barh(range(len(names)), np.nan_to_num(values), height=0.4, color=colors)
    for index, name in enumerate(names):  # above the bar: tick labels would squeeze the panel
        axes.text(0, index - 0.25, f" {name}", va="bottom")
    axes.set_yticks([])
    axes.set_ylim(len(names) - 0.6, -0.7)
    iteration = int(curves[names[0]][0][0])
    style_axes(axes, f"Evaluation at iteration {iteration:,}", _AP_UNIT, "")
    axes.grid(False, axis="y")


def _draw_curves(axes: Axes, curves: Curves, log_scale: bool) -> None:
    for index, (name, (iterations, values)) in enumerate(curves.items()):
        color = _LINE_COLORS[index % len(_LINE_COLORS)]
        few = len(values) <= 30
        if not few:
            axes.plot(iterations, values, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(
            iterations,
            values if few else smooth(values),
            color=color,
            linewidth=1.8,
            marker="o" if few else None,
            markersize=4,
            label=name,
        )
    if log_scale and any((values > 0).any() for _, values in curves.values()):
        axes.set_yscale("log", nonpositive="mask")
    if len(curves) > 1:
        columns = 3 if max(map(len, curves)) < 20 else 2
        axes.legend(
            fontsize=8,
            frameon=False,
            ncols=columns,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.14),
        )
