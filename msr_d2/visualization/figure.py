"""What all plots share: size, grid, saving. Figures are objects, without pyplot's globals."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import GRAY

_DOTS_PER_INCH = 120


def new_figure(columns: int, rows: int = 1, *, width: float = 5.0, height: float = 4.4) -> Figure:
    """An empty figure with room for a grid of panels of `width` x `height` inches."""
    size = (width * columns, height * rows)
    return Figure(figsize=size, dpi=_DOTS_PER_INCH, layout="constrained")


def style_axes(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Title, axis labels, a light grid behind the data, no frame on the right and on top."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write_note(axes: Axes, text: str) -> None:
    """A sentence in the middle of a panel that has nothing to show."""
    paper = {"facecolor": "white", "edgecolor": "none"}
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GRAY, bbox=paper
    )


def save_figure(figure: Figure, path: str | os.PathLike) -> Path:
    """Write the figure (format by the file's suffix), making its folder; returns the path.

    Raises:
        ValueError: matplotlib cannot write this kind of file.
    """
    path = Path(path)
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in kinds:
        raise ValueError(f"cannot write a plot to {path}: use one of the suffixes {sorted(kinds)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def check_arrays(**arrays: object) -> list[np.ndarray]:
    """The arguments as 1-D float arrays of one length.

    Raises:
        ValueError: an array that is not one-dimensional, not finite or not as long as the first.
    """
    checked: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        values = values.detach().cpu() if hasattr(values, "detach") else values
        array = np.asarray(values, dtype=float)
        if array.ndim != 1:
            raise ValueError(f"{name} has shape {array.shape}: expected one number per detection")
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise ValueError(f"{name} has {bad} values that are not finite: leave those out")
        checked[name] = array
    lengths = {name: len(array) for name, array in checked.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the arrays belong to the same detections, but have lengths {lengths}")
    return list(checked.values())
