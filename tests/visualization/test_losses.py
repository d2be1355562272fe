import json
import logging

import numpy as np
import pytest
from detectron2.utils.events import EventStorage, JSONWriter
from PIL import Image

from msr_d2.visualization import losses as losses_module
from msr_d2.visualization import plot_losses, read_metrics
from msr_d2.visualization.losses import smooth


def write(path, *lines):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


@pytest.fixture
def panels(monkeypatch):
    """Title -> labels of the curves of the figure that was saved last."""
    saved = {}
    original = losses_module.save_figure

    def spy(figure, path):
        for axes in figure.axes:
            labels = [line.get_label() for line in axes.get_lines()]
            saved[axes.get_title()] = [x for x in labels if not x.startswith("_")]
        return original(figure, path)

    monkeypatch.setattr(losses_module, "save_figure", spy)
    return saved


def test_the_file_that_detectron2_writes(tmp_path, panels):
    with EventStorage(0) as storage:
        writer = JSONWriter(str(tmp_path / "metrics.json"))
        for iteration in range(60):
            storage.put_scalars(total_loss=2.0, loss_mask=1.5, loss_maskiou=0.0, lr=0.1)
            storage.put_scalar("maskiou/correlation", 0.5, smoothing_hint=False)
            storage.step()
            if iteration % 20 == 19:
                storage.put_scalar("segm/AP", 30 + iteration, smoothing_hint=False)
                writer.write()
        writer.close()
    path = plot_losses(tmp_path / "metrics.json", tmp_path / "out" / "losses.png")
    with Image.open(path) as image:
        assert image.size[0] > 1000
    assert panels == {
        "Total loss": ["total_loss"],
        "Loss terms, as weighted in the total": ["loss_mask", "loss_maskiou"],
        "Evaluation (last value)": ["mask AP (89.0)"],
        "MaskIoU head": ["correlation of the two"],
    }


def test_repeated_iterations_of_a_resumed_run(tmp_path):
    """The first run wrote up to 40 and was resumed from 20 with another period."""
    lines = [{"iteration": i, "total_loss": float(i)} for i in (10, 20, 30, 40)]
    lines += [{"iteration": i, "total_loss": -float(i)} for i in (25, 35)]
    iterations, values = read_metrics(write(tmp_path / "m.json", *lines))["total_loss"]
    assert iterations.tolist() == [10, 20, 25, 35]
    assert values.tolist() == [10, 20, -25, -35]


def test_the_later_of_two_records_of_an_iteration_counts(tmp_path):
    lines = [{"iteration": i, "total_loss": v} for i, v in ((10, 1.0), (20, 2.0), (20, 3.0))]
    iterations, values = read_metrics(write(tmp_path / "m.json", *lines))["total_loss"]
    assert iterations.tolist() == [10, 20] and values.tolist() == [1, 3]


def test_scalars_of_one_iteration_on_several_lines(tmp_path):
    """Evaluation results come later than the losses, at an iteration that was written already."""
    lines = [
        {"iteration": 10, "total_loss": 1.0},
        {"iteration": 20, "total_loss": 2.0},
        {"iteration": 19, "bbox/AP": 5.0},
    ]
    curves = read_metrics(write(tmp_path / "m.json", *lines))
    assert curves["total_loss"][0].tolist() == [10, 20]
    assert curves["bbox/AP"][0].tolist() == [19]


def test_a_cut_last_line_is_quietly_ignored(tmp_path, caplog):
    path = write(tmp_path / "m.json", {"iteration": 1, "total_loss": 1.0}, '{"iteration": 2, "to')
    with caplog.at_level(logging.WARNING):
        assert read_metrics(path)["total_loss"][0].tolist() == [1]
    assert not caplog.records


@pytest.mark.parametrize(
    "broken", ["{nonsense", "[1, 2]", '{"total_loss": 1}', '{"iteration": 1}{']
)
def test_a_broken_line_is_named(tmp_path, caplog, broken):
    record = {"iteration": 5, "total_loss": 1.0, "note": "text", "flag": True}
    path = write(tmp_path / "m.json", broken, "", record)
    with caplog.at_level(logging.WARNING):
        curves = read_metrics(path)
    assert list(curves) == ["total_loss"]
    assert [x.getMessage() for x in caplog.records] == [
        f"{path}, line 1 is not a record and is skipped"
    ]


@pytest.mark.parametrize("content", ["", "\n\n", "not json", "\x00\xff\x00", '{"iteration": 3}'])
def test_a_file_without_records(tmp_path, content):
    path = tmp_path / "m.json"
    path.write_text(content, encoding="latin1")
    with pytest.raises(ValueError, match=r"m\.json"):
        plot_losses(path, tmp_path / "a.png")


def test_missing_file_and_file_without_losses(tmp_path):
    with pytest.raises(ValueError, match=r"no file .*m\.json"):
        plot_losses(tmp_path / "m.json", tmp_path / "a.png")
    path = write(tmp_path / "m.json", {"iteration": 1, "lr": 0.1})
    with pytest.raises(ValueError, match="holds no loss"):
        plot_losses(path, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [float("nan")] * 3, [0.0] * 40])
def test_short_constant_and_undefined_curves(tmp_path, values):
    lines = [{"iteration": i, "total_loss": v, "loss_cls": v} for i, v in enumerate(values)]
    assert plot_losses(write(tmp_path / "m.json", *lines), tmp_path / "a.png").is_file()


def test_several_test_sets_and_rankings_have_names(tmp_path, panels):
    record = {
        "total_loss": 1.0,
        "val/segm_class_score/AP": 10.0,
        "val/segm/AP": 11.0,
        "val/segm/AP50": 20.0,
        "mask_scoring/AP_gain": 1.0,
    }
    lines = [{"iteration": iteration, **record} for iteration in (9, 19)]
    plot_losses(write(tmp_path / "m.json", *lines), tmp_path / "a.png")
    assert panels["Evaluation (last value)"] == [
        "val: mask AP (11.0)",
        "val: mask AP, ranked by class score (10.0)",
    ]


def test_a_single_evaluation_is_a_bar_chart(tmp_path, panels):
    record = {"iteration": 1999, "total_loss": 1.0, "bbox/AP": 30.0, "segm/AP": float("nan")}
    plot_losses(write(tmp_path / "m.json", record), tmp_path / "a.png")
    assert "Evaluation at iteration 1,999" in panels


def test_smoothing_keeps_constants_and_skips_gaps():
    assert smooth(np.ones(100)) == pytest.approx(np.ones(100))
    values = np.ones(100)
    values[50] = np.nan
    assert smooth(values) == pytest.approx(np.ones(100))
    assert smooth(np.array([3.0])).tolist() == [3.0]
    assert np.isnan(smooth(np.full(5, np.nan))).all()


def test_smoothing_is_a_centred_mean():
    """60 points: a window of 5."""
    values = np.zeros(60)
    values[30] = 5.0
    assert smooth(values)[27:34].tolist() == [0, 1, 1, 1, 1, 1, 0]
