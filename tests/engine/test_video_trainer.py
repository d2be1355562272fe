"""Training and evaluating a video model through the trainer, on files as users have them."""

import json

import pytest
import torch
from tiny_ytvis import track, write_videos

from msr_d2.data import register_from_config
from msr_d2.engine import Trainer
from msr_d2.testing import tiny_vis_cfg

BOXES = [(8, 8, 40, 40), (10, 8, 42, 40), (12, 8, 44, 40)]


def make_cfg(data, folder, *opts):
    """Trains two iterations on `data` and evaluates on it."""
    cfg = tiny_vis_cfg(["SOLVER.IMS_PER_BATCH", 1, "SOLVER.MAX_ITER", 2, "SEED", 1, *opts])
    cfg.DATASETS.REGISTER, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = [data], (data[0],), (data[0],)
    cfg.OUTPUT_DIR = str(folder / "out")
    (folder / "out").mkdir()
    register_from_config(cfg)
    return cfg


def change(data, function):
    """Change the annotation file of a data set."""
    with open(data[1]) as file:
        content = json.load(file)
    function(content)
    with open(data[1], "w") as file:
        json.dump(content, file)


def train(cfg):
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    return trainer.train()


def test_boxes_are_enough_to_train_and_to_evaluate(tmp_path, caplog):
    data = write_videos(tmp_path, [track(1, BOXES)])
    results = train(make_cfg(data, tmp_path))
    assert set(results) == {"bbox"} and 0 <= results["bbox"]["AP"] <= 100
    assert f"box AP of tracks; mask AP needs masks in {data[1]}" in caplog.text
    assert json.loads((tmp_path / "out/inference/results.json").read_text())
    logged = (tmp_path / "out" / "metrics.json").read_text()
    assert '"bbox/AP": ' in logged


def test_what_trains_is_evaluated(tmp_path):
    """A video without length, and an annotation of a video that is not there."""
    tracks = [track(1, BOXES, masks="string"), track(2, BOXES, video_id=9, masks="string")]
    data = write_videos(tmp_path, tracks)
    change(data, lambda content: content["videos"][0].pop("length"))
    assert set(train(make_cfg(data, tmp_path))) == {"segm"}


def test_an_empty_list_of_annotations_is_withheld(tmp_path):
    data = write_videos(tmp_path / "train", [track(1, BOXES)])
    test = write_videos(tmp_path / "test", [])
    cfg = make_cfg(data, tmp_path)
    cfg.DATASETS.REGISTER, cfg.DATASETS.TEST = [test], (test[0],)
    register_from_config(cfg)
    assert not train(cfg)
    assert (tmp_path / "out" / "inference" / "results.zip").is_file()


def _some_masks(content):
    del content["annotations"][1]["segmentations"]


def _other_size(content):
    content["annotations"][1]["segmentations"][2]["size"] = [1, 2]


def _other_category(content):
    content["annotations"][1]["category_id"] = 99


def _missing_frame(content):
    content["videos"][0]["file_names"][0] = "1/none.png"


@pytest.mark.parametrize(
    "break_it, message",
    [
        (_some_masks, "annotation 2 of video 1 has boxes but no masks"),
        (_other_size, r"annotation 2 in frame 2 .* \[1, 2\]"),
        (_other_category, "annotation 2 .*category_id.99"),
        (_missing_frame, "none.png"),
    ],
)
def test_errors_of_test_videos_come_before_the_training(tmp_path, break_it, message, monkeypatch):
    data = write_videos(tmp_path / "train", [track(1, BOXES)])
    test = write_videos(tmp_path / "test", [track(i, BOXES, masks="string") for i in (1, 2)])
    change(test, break_it)
    cfg = make_cfg(data, tmp_path)
    cfg.DATASETS.REGISTER, cfg.DATASETS.TEST = [test], (test[0],)
    register_from_config(cfg)
    with pytest.raises(ValueError, match=message) as error:
        Trainer(cfg)
    assert str(test[1]) in str(error.value) or test[0] in str(error.value)


def test_annotations_of_images_are_not_loaded_twice(tmp_path, monkeypatch):
    from tiny_coco import write_set

    data = write_videos(tmp_path / "train", [track(1, BOXES)])
    images = write_set(tmp_path / "images", num_images=1)
    cfg = make_cfg(data, tmp_path)
    cfg.DATASETS.REGISTER, cfg.DATASETS.TEST = [images], (images[0],)
    register_from_config(cfg)
    built = []
    monkeypatch.setattr(Trainer, "build_evaluator", lambda cfg, name, *_: built.append(name))
    Trainer(cfg)
    assert built == []
    cfg.DATASETS.TEST = (data[0],)
    Trainer(cfg)
    assert built == [data[0]]
