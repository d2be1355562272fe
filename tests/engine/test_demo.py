import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from PIL import Image
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from msr_d2.data import register_coco
from msr_d2.engine.demo import find_images, overlay_names, run_demo, to_coco_results
from msr_d2.engine.predict import Predictor, class_table
from msr_d2.testing import tiny_cfg

ROOT = Path(__file__).parents[2]


def picture(path, size=(80, 120), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return Predictor(tiny_cfg(), allow_random_weights=True)


@pytest.fixture
def data_set(tmp_path):
    """A registered data set whose category ids are not contiguous."""
    categories = [{"id": 7, "name": "star"}, {"id": 2, "name": "dot"}, {"id": 5, "name": "bar"}]
    content = {"images": [], "annotations": [], "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    register_coco("demo_set", str(tmp_path / "annotations.json"), str(tmp_path))
    yield "demo_set"
    DatasetCatalog.remove("demo_set")
    MetadataCatalog.remove("demo_set")


class TestPredictor:
    def test_it_agrees_with_the_default_predictor(self, tmp_path):
        """One picture at a time, in both channel orders."""
        torch.manual_seed(1)
        cfg = tiny_cfg()
        DetectionCheckpointer(build_model(cfg), str(tmp_path)).save("model")
        cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
        image = np.asarray(Image.open(picture(tmp_path / "a.png")))
        for order in ("BGR", "RGB"):
            cfg.INPUT.FORMAT = order
            wanted = DefaultPredictor(cfg)(image)["instances"]
            (found,) = Predictor(cfg)([image])
            assert len(found) > 0 and found.image_size == (80, 120)
            for name in ("scores", "mask_iou", "mask_scores", "pred_classes", "pred_masks"):
                assert torch.equal(found.get(name), wanted.get(name)), name

    def test_pictures_of_different_sizes_in_one_batch(self, predictor):
        images = [np.full((h, w, 3), 90, np.uint8) for h, w in ((80, 120), (120, 40), (1, 1))]
        results = predictor(images)
        assert [x.image_size for x in results] == [(80, 120), (120, 40), (1, 1)]
        assert all(x.pred_masks.shape[1:] == x.image_size for x in results)
        assert predictor([]) == []

    def test_test_time_augmentation(self):
        opts = ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (48, 64), "TEST.AUG.MAX_SIZE", 96]
        predict = Predictor(tiny_cfg(opts=opts), allow_random_weights=True)
        (found,) = predict([np.full((80, 120, 3), 90, np.uint8)])
        assert found.image_size == (80, 120) and found.has("mask_scores")

    def test_random_weights_are_refused(self):
        with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
            Predictor(tiny_cfg())

    def test_weights_of_another_model_are_refused(self, tmp_path):
        """A plain Mask R-CNN leaves the MaskIoU head random."""
        plain = tiny_cfg(opts=["MODEL.MASKIOU_ON", False])
        DetectionCheckpointer(build_model(plain), str(tmp_path)).save("plain")
        cfg = tiny_cfg(opts=["MODEL.WEIGHTS", str(tmp_path / "plain.pth")])
        with pytest.raises(ValueError, match="maskiou_head"):
            Predictor(cfg)

    def test_an_unknown_format_is_named(self):
        with pytest.raises(ValueError, match="INPUT.FORMAT is 'YUV-BT.601'"):
            Predictor(tiny_cfg(opts=["INPUT.FORMAT", "YUV-BT.601"]), allow_random_weights=True)


class TestClassTable:
    def test_names_are_in_the_order_of_the_category_ids(self, data_set):
        cfg = tiny_cfg(opts=["DATASETS.TEST", (data_set,)])
        assert list(class_table(cfg).items()) == [(2, "dot"), (5, "bar"), (7, "star")]

    def test_the_training_set_will_do(self, data_set):
        cfg = tiny_cfg(opts=["DATASETS.TEST", ("no_such_set",), "DATASETS.TRAIN", (data_set,)])
        assert list(class_table(cfg)) == [2, 5, 7]

    def test_built_in_coco_needs_no_files(self):
        cfg = tiny_cfg(num_classes=80, opts=["DATASETS.TEST", ("coco_2017_val",)])
        table = class_table(cfg)
        assert len(table) == 80 and table[1] == "person" and table[90] == "toothbrush"

    def test_names_of_another_number_of_classes_are_not_used(self, data_set):
        assert class_table(tiny_cfg(num_classes=4, opts=["DATASETS.TEST", (data_set,)])) is None

    def test_nothing_is_known(self):
        assert class_table(tiny_cfg(opts=["DATASETS.TEST", (), "DATASETS.TRAIN", ()])) is None


class TestFindImages:
    def test_files_folders_and_patterns(self, tmp_path):
        a, b = picture(tmp_path / "x" / "a.png"), picture(tmp_path / "x" / "b.JPG")
        deep = picture(tmp_path / "x" / "y" / "c.png")
        (tmp_path / "x" / "notes.txt").write_text("no image")
        assert find_images([str(tmp_path / "x")]) == [a, b]
        assert find_images([str(b), str(tmp_path / "x")]) == [b, a]
        assert find_images([str(tmp_path / "**" / "*.png")]) == [a, deep]

    def test_a_file_name_with_brackets(self, tmp_path):
        path = picture(tmp_path / "a[1].png")
        assert find_images([str(path)]) == [path]

    def test_overlays_of_an_earlier_run_are_left_out(self, tmp_path):
        a, old = picture(tmp_path / "a.png"), picture(tmp_path / "a_overlay.png")
        assert find_images([str(tmp_path)], output=tmp_path) == [a]
        assert find_images([str(old)], output=tmp_path) == [old]
        assert find_images([str(tmp_path)], output=tmp_path / "other") == [a, old]

    @pytest.mark.parametrize("name", ["missing.png", "empty", "*.png"])
    def test_nothing_found(self, tmp_path, name):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match="--input"):
            find_images([str(tmp_path / name)])


class TestOverlayNames:
    @pytest.mark.parametrize(
        "sources, names",
        [
            (["/d/a.png", "/d/b.png"], ["a", "b"]),
            (["/d/x/a.png", "/d/y/a.png", "/d/b.png"], ["x_a", "y_a", "b"]),
            (["/d/a.png", "/d/a.jpg"], ["d_a_png", "d_a_jpg"]),
            (["/p/x/a.png", "/q/x/a.png"], ["p_x_a_png", "q_x_a_png"]),
            (["/x/A.png", "/y/a.png"], ["x_A", "y_a"]),
            (["/x/a.png", "/y/a.png", "/z/x_a.png"], ["x_a_png", "y_a", "z_x_a"]),
            ([], []),
        ],
    )
    def test_names(self, sources, names):
        wanted = [f"{name}_overlay.png" for name in names]
        assert overlay_names([Path(source) for source in sources]) == wanted

    def test_names_are_always_different(self):
        """Joining with underscores is ambiguous in the end; numbers resolve it."""
        sources = [Path("/a_b/c.png"), Path("/a/b_c.png"), Path("/x/a_b_c.png"), Path("/C.png")]
        names = [name.lower() for name in overlay_names([*sources, *sources])]
        assert len(set(names)) == 8


class TestRunDemo:
    def test_results_can_be_read_by_pycocotools(self, predictor, data_set, tmp_path):
        categories = {2: "dot", 5: "bar", 7: "star"}
        sources = [picture(tmp_path / "in" / f"{i}.png", (64 + i, 96), seed=i) for i in range(3)]
        report = run_demo(predictor, sources, tmp_path / "out", categories=categories, batch_size=2)
        assert [x.name for x in report.overlays] == [f"{i}_overlay.png" for i in range(3)]
        assert all(Image.open(x).size[0] >= 96 for x in report.overlays)
        coco = COCO(str(report.images))
        loaded = coco.loadRes(str(report.results))
        images = [np.asarray(Image.open(x))[:, :, ::-1] for x in sources]
        expected = predictor(images[:2]) + predictor(images[2:])
        assert [x["name"] for x in coco.loadCats(coco.getCatIds())] == ["dot", "bar", "star"]
        for image_id, instances in enumerate(expected, start=1):
            found = loaded.loadAnns(loaded.getAnnIds(imgIds=[image_id]))
            assert len(found) == len(instances) > 0
            wanted_ids = [[2, 5, 7][c] for c in instances.pred_classes]
            assert [x["category_id"] for x in found] == wanted_ids
            for key, field in (
                ("score", "scores"),
                ("mask_score", "mask_scores"),
                ("mask_iou", "mask_iou"),
            ):
                assert [x[key] for x in found] == pytest.approx(instances.get(field).tolist())
            masks = np.stack([mask_util.decode(x["segmentation"]) for x in found])
            assert (masks == instances.pred_masks.numpy()).all()
            x0, y0, x1, y1 = instances.pred_boxes.tensor[0].tolist()
            assert found[0]["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=1e-3)
            assert Path(found[0]["file_name"]) == sources[image_id - 1]

    def test_a_corrupt_image_is_named_and_skipped(self, predictor, tmp_path):
        good = [picture(tmp_path / name) for name in ("a.png", "c.png")]
        cut = tmp_path / "b.png"
        cut.write_bytes(good[0].read_bytes()[:2000])
        empty = tmp_path / "d.jpg"
        empty.touch()
        sources = [good[0], cut, good[1], empty]
        report = run_demo(predictor, sources, tmp_path / "out", batch_size=2)
        assert list(report.skipped) == [cut, empty] and len(report.overlays) == 2
        assert [x["id"] for x in json.loads(report.images.read_text())["images"]] == [1, 3]

    def test_gray_pictures_and_jpg_overlays(self, predictor, tmp_path):
        Image.fromarray(np.full((50, 60), 99, np.uint8)).save(tmp_path / "gray.png")
        report = run_demo(predictor, [tmp_path / "gray.png"], tmp_path / "out", suffix=".jpg")
        assert report.overlays == [tmp_path / "out" / "gray_overlay.jpg"]
        names = {x["name"] for x in json.loads(report.images.read_text())["categories"]}
        assert names <= {"class 0", "class 1", "class 2"}

    def test_the_overlay_has_the_colors_of_the_picture(self, predictor, tmp_path):
        Image.new("RGB", (700, 620), (200, 30, 10)).save(tmp_path / "red.png")
        report = run_demo(predictor, [tmp_path / "red.png"], tmp_path / "out", score_threshold=9)
        assert Image.open(report.overlays[0]).getpixel((350, 310)) == (200, 30, 10)

    def test_a_batch_of_none_is_refused(self, predictor, tmp_path):
        with pytest.raises(ValueError, match="batch size is 0"):
            run_demo(predictor, [], tmp_path, batch_size=0)

    def test_overwritten_scores_keep_the_class_score(self, predictor):
        (found,) = predictor([np.full((64, 96, 3), 90, np.uint8)])
        class_scores = found.scores
        found.class_scores, found.scores = class_scores, found.mask_scores
        results = to_coco_results(found, 1, "a.png")
        assert [x["score"] for x in results] == pytest.approx(class_scores.tolist())

    def test_plain_mask_rcnn_has_no_mask_scores(self, tmp_path):
        cfg = tiny_cfg(opts=["MODEL.MASKIOU_ON", False])
        report = run_demo(
            Predictor(cfg, allow_random_weights=True),
            [picture(tmp_path / "a.png")],
            tmp_path / "out",
            score_threshold=0.0,
        )
        results = json.loads(report.results.read_text())
        assert results and not any("mask_score" in x or "mask_iou" in x for x in results)


class TestScript:
    @pytest.fixture
    def config(self, tmp_path):
        path = tmp_path / "config.yaml"
        cfg = tiny_cfg(opts=["DATASETS.TEST", ("nowhere",), "DATASETS.TRAIN", ()])
        path.write_text(cfg.dump())
        return path

    def run(self, *arguments):
        spec = importlib.util.spec_from_file_location("demo_script", ROOT / "scripts" / "demo.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        argv, sys.argv = sys.argv, ["demo.py", *map(str, arguments)]
        try:
            return script.main(script.parse_arguments())
        finally:
            sys.argv = argv

    def test_same_names_in_two_folders(self, config, tmp_path, capsys):
        for folder in ("x", "y"):
            picture(tmp_path / folder / "a.png")
        arguments = ["--config-file", config, "--input", tmp_path / "x", tmp_path / "y"]
        arguments += ["--output", tmp_path / "out", "--random-weights", "--batch-size", "2"]
        assert self.run(*arguments, "TEST.DETECTIONS_PER_IMAGE", "3") == 0
        names = sorted(os.listdir(tmp_path / "out"))
        assert names == ["images.json", "instances.json", "x_a_overlay.png", "y_a_overlay.png"]
        assert len(json.loads((tmp_path / "out" / "instances.json").read_text())) == 6
        assert "2 overlays" in capsys.readouterr().out

    def test_a_corrupt_image_makes_the_exit_code_1(self, config, tmp_path, capsys):
        bad = tmp_path / "bad.png"
        bad.write_text("text")
        arguments = ["--config-file", config, "--input", bad, "--output", tmp_path / "out"]
        assert self.run(*arguments, "--random-weights") == 1
        assert str(bad) in capsys.readouterr().err

    def test_a_wrong_command_makes_the_exit_code_2(self, config, tmp_path):
        """As a process, the way people run it; without weights and without opt-in."""
        command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--config-file", str(config)]
        command += ["--input", str(picture(tmp_path / "a.png")), "--output", str(tmp_path / "out")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 2 and "MODEL.WEIGHTS is empty" in done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
