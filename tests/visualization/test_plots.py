import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from msr_d2.visualization import plot_score_vs_iou, plot_scores_per_iou_bin
from msr_d2.visualization import plots as plots_module


@pytest.fixture
def figure(monkeypatch):
    """The figure that was saved last."""
    saved = {}
    original = plots_module.save_figure

    def spy(figure, path):
        saved["axes"] = figure.axes
        return original(figure, path)

    monkeypatch.setattr(plots_module, "save_figure", spy)
    return saved


def is_picture(path):
    with Image.open(path) as image:
        return image.size[0] > 300 and len(np.unique(image.convert("L"))) > 5


def test_titles_tell_the_correlations(figure, tmp_path):
    """Class score constant: undefined. Mask score = IoU: 1. Predicted = 1 - IoU: -1."""
    iou = np.array([0.1, 0.5, 0.9])
    path = plot_score_vs_iou(
        np.full(3, 0.9), iou, iou, tmp_path / "a" / "plot.png", predicted_iou=1 - iou
    )
    assert path == tmp_path / "a" / "plot.png" and is_picture(path)
    titles = [axes.get_title() for axes in figure["axes"]]
    assert titles == [
        "before: class score\ncorrelation undefined",
        "after: mask score\nPearson correlation 1.00",
        "predicted MaskIoU\nPearson correlation -1.00",
    ]
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure["axes"]]
    assert labels == [
        ("true MaskIoU", name) for name in ("class score", "mask score", "predicted MaskIoU")
    ]


def test_detections_without_an_object_are_told_apart(figure, tmp_path):
    """Where IoU > 0 the mask score falls with it: -1, though the correlation of all is positive."""
    iou, score = np.array([0, 0, 0.8, 0.9]), np.array([0, 0.1, 0.9, 0.8])
    plot_score_vs_iou(score, score, iou, tmp_path / "a.png")
    correlation = np.corrcoef(iou, score)[0, 1]
    wanted = f"Pearson correlation {correlation:.2f} (-1.00 where IoU > 0)"
    assert correlation > 0.9 and figure["axes"][1].get_title().splitlines()[1] == wanted


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_any_number_of_constant_points(count, value, tmp_path):
    values = np.full(count, value)
    assert is_picture(plot_score_vs_iou(values, values, values, tmp_path / "a.png"))
    assert is_picture(plot_scores_per_iou_bin(values, values, values, tmp_path / "b.png"))


def test_points_beyond_the_unit_square_are_inside_the_panel(figure, tmp_path):
    predicted = torch.tensor([-0.2, 1.3])
    plot_score_vs_iou([0.5, 1], [0.1, 0.9], [0.2, 0.8], tmp_path / "a.png", predicted_iou=predicted)
    for axes in figure["axes"]:
        low, high = axes.get_ylim()
        assert low < -0.2 and high > 1.3


def bars(axes: Axes):
    return [[bar.get_height() for bar in group] for group in axes.containers]


def test_bars_are_the_means_of_the_bins(figure, tmp_path):
    """By hand: 0.55 and 0.59 share a bin; 0.6 opens the next one; 1.0 belongs to the last one;
    0.3 is below all bins, and a class score of 0.5 does not count."""
    iou = [0.55, 0.59, 0.6, 1.0, 0.3, 0.85]
    class_score = [0.8, 0.9, 0.7, 1.0, 0.9, 0.5]
    mask_score = [0.4, 0.6, 0.3, 0.9, 0.1, 0.4]
    plot_scores_per_iou_bin(class_score, mask_score, iou, tmp_path / "bins.pdf")
    axes = figure["axes"][0]
    assert bars(axes)[0] == pytest.approx([0.85, 0.7, 0, 0, 1.0])
    assert bars(axes)[1] == pytest.approx([0.5, 0.3, 0, 0, 0.9])
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["0.85", "0.70", "", "", "1.00", "0.50", "0.30", "", "", "0.90"]
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks[0] == "0.5-0.6\n(n = 2)" and ticks[4] == "0.9-1\n(n = 1)"


def test_other_bins(figure, tmp_path):
    plot_scores_per_iou_bin(
        [0.2, 0.4],
        [0.1, 0.3],
        [0.1, 0.9],
        tmp_path / "b.png",
        bin_edges=(0, 0.5, 1),
        min_class_score=0,
        min_iou=0,
    )
    assert bars(figure["axes"][0]) == [pytest.approx([0.2, 0.4]), pytest.approx([0.1, 0.3])]


@pytest.mark.parametrize("plot", [plot_score_vs_iou, plot_scores_per_iou_bin])
def test_bad_arrays_are_named(plot, tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match=r"lengths.*'class_score': 2.*'true_iou': 1"):
        plot([1, 2], [1, 2], [1], path)
    with pytest.raises(ValueError, match="mask_score has 1 values that are not finite"):
        plot([1, 2], [1, np.nan], [1, 2], path)
    with pytest.raises(ValueError, match=r"true_iou has shape \(2, 1\)"):
        plot([1, 2], [1, 2], [[1], [2]], path)
    with pytest.raises(ValueError, match=r"a\.nonsense.*png"):
        plot([1, 2], [1, 2], [1, 2], tmp_path / "a.nonsense")
    assert not path.exists()


@pytest.mark.parametrize("edges", [(0.5,), (0.5, 0.5), (0.9, 0.5)])
def test_bad_edges(edges, tmp_path):
    with pytest.raises(ValueError, match="bin_edges"):
        plot_scores_per_iou_bin([1], [1], [1], tmp_path / "a.png", bin_edges=edges)
