import importlib.util
import json
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image
from pycocotools import mask as mask_util

from msr_d2.data import DatasetError
from msr_d2.engine import progress, video_pictures, video_predict
from msr_d2.engine.predict import Predictor
from msr_d2.engine.video_demo import Drawing, run_video_demo, to_ytvis_results
from msr_d2.engine.video_inputs import refuse_videos, sort_inputs
from msr_d2.engine.video_pictures import clip_tracks, write_clip_pictures
from msr_d2.engine.video_predict import ModelFrames, VideoPredictor, is_video_model
from msr_d2.evaluation.ytvis_eval import evaluate_ytvis, load_ytvis
from msr_d2.mask_free_vis.meta_arch import MaskFreeVIS
from msr_d2.testing import tiny_cfg, tiny_vis_cfg
from msr_d2.visualization import VideoError, VideoFrames, VideoWriter
from msr_d2.visualization.style import track_color

av = pytest.importorskip("av")

ROOT = Path(__file__).parents[2]
SIZE = (120, 160)
CATEGORIES = {3: "dot", 7: "star"}


def square(left, size=SIZE):
    mask = np.zeros(size, np.uint8, order="F")
    mask[10:30, left : left + 20] = 1
    return mask_util.encode(mask)


def fake_predict(frames):
    """Two tracks: a square that moves, and one that is there in every second frame."""
    count = len(frames)
    for index in range(count):
        assert frames[index].shape == (*SIZE, 3)
    masks = [
        [square(t) for t in range(count)],
        [square(40) if t % 2 else None for t in range(count)],
    ]
    return {"scores": [0.9, 0.2], "labels": [1, 0], "masks": masks}


def frame(index=0, size=SIZE):
    return np.full((*size, 3), (40 + index, 120, 200), np.uint8)


def video(path, count=8, fps=Fraction(30000, 1001), size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps) as writer:
        for index in range(count):
            writer.write(frame(index, size))
    return path


def folder(path, count=8, size=SIZE):
    path.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(frame(index, size)).save(path / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return VideoPredictor(tiny_vis_cfg(), allow_random_weights=True)


class CountedFrames:
    """A sequence that counts how often each frame is loaded, and how many are alive at a time."""

    def __init__(self, count):
        self.loaded = [0] * count
        self.alive = self.most_alive = 0

    def __len__(self):
        return len(self.loaded)

    def __getitem__(self, index):
        assert isinstance(index, (int, np.integer)), "slices would load many frames at once"
        self.loaded[index] += 1
        pixels = np.random.default_rng(index).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        self.alive += 1
        self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(pixels, self._forget)
        return pixels

    def _forget(self):
        self.alive -= 1


class TestVideoPredictor:
    def test_it_agrees_with_the_model(self, predictor, tmp_path):
        """In both channel orders, on frames that have to be resized."""
        frames = [CountedFrames(3)[i] for i in range(3)]
        torch.manual_seed(1)
        cfg = tiny_vis_cfg()
        model = build_model(cfg).eval()
        DetectionCheckpointer(model, str(tmp_path)).save("model")
        cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
        for order in ("RGB", "BGR"):
            cfg.INPUT.FORMAT = order
            pixels = [x if order == "RGB" else x[:, :, ::-1] for x in frames]
            pixels = [np.asarray(Image.fromarray(x).resize((85, 64), 2)) for x in pixels]
            images = [torch.tensor(x.transpose(2, 0, 1)) for x in pixels]
            with torch.no_grad():
                (wanted,) = model([{"image": images, "height": 120, "width": 160}])
            found = VideoPredictor(cfg)(frames)
            assert found["scores"] == pytest.approx(wanted["scores"].tolist())
            assert found["labels"] == wanted["labels"].tolist()
            assert found["masks"] == wanted["masks"] and len(found["masks"]) > 0

    def test_tracks_have_the_size_and_length_of_the_video(self, predictor):
        found = predictor(CountedFrames(5))
        assert found["scores"] == sorted(found["scores"], reverse=True)
        assert len(found["scores"]) == len(found["labels"]) == len(found["masks"]) > 0
        assert {len(track) for track in found["masks"]} == {5}
        rles = [rle for track in found["masks"] for rle in track if rle is not None]
        assert {tuple(rle["size"]) for rle in rles} <= {SIZE}

    @pytest.mark.parametrize("windows", [False, True])
    def test_a_long_video_is_read_bit_by_bit(self, windows):
        """Each frame about once, and only one of them at its full size in memory."""
        test = "MODEL.MASK_FREE.TEST."
        opts = [f"{test}CHUNK_FRAMES", 4, f"{test}TOP_K", 2]
        if windows:
            opts += [
                f"{test}WINDOW_ABOVE",
                8,
                f"{test}WINDOW_FRAMES",
                8,
                f"{test}WINDOW_OVERLAP",
                2,
            ]
        frames = CountedFrames(24)
        found = VideoPredictor(tiny_vis_cfg(opts), allow_random_weights=True)(frames)
        assert all(len(track) == 24 for track in found["masks"])
        assert all(1 <= count <= 4 for count in frames.loaded)
        assert frames.most_alive <= 2
        assert sum(frames.loaded) <= 24 + 2 + 6 * windows * 2

    def test_no_frames(self, predictor):
        assert predictor([]) == {"scores": [], "labels": [], "masks": []}

    def test_what_it_refuses(self):
        with pytest.raises(ValueError, match="'GeneralizedRCNN' finds objects in single images"):
            VideoPredictor(tiny_cfg(), allow_random_weights=True)
        with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
            VideoPredictor(tiny_vis_cfg())
        with pytest.raises(ValueError, match="TEST.AUG.ENABLED"):
            VideoPredictor(tiny_vis_cfg(["TEST.AUG.ENABLED", True]), allow_random_weights=True)
        with pytest.raises(ValueError, match="INPUT.FORMAT is 'YUV'"):
            VideoPredictor(tiny_vis_cfg(["INPUT.FORMAT", "YUV"]), allow_random_weights=True)

    def test_images_go_through_the_image_predictor(self):
        predict = Predictor(tiny_vis_cfg(), allow_random_weights=True)
        images = [np.full((h, w, 3), 90, np.uint8) for h, w in ((80, 120), (120, 40))]
        found = predict(images)
        assert [x.image_size for x in found] == [(80, 120), (120, 40)]
        assert all(len(x) > 0 and x.has("pred_boxes") and x.has("pred_masks") for x in found)

    def test_model_frames_are_lazy(self):
        frames = CountedFrames(10)
        identity = VideoPredictor(tiny_vis_cfg(), allow_random_weights=True)._resize
        model_frames = ModelFrames(frames, identity.get_transform(frame()), "RGB")
        part = model_frames[2:8:2]
        assert len(part) == 3 and sum(frames.loaded) == 0
        loaded = part[1]
        assert loaded.shape == (3, 64, 85) and loaded.dtype == torch.uint8
        assert frames.loaded == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


class TestRunVideoDemo:
    def test_results_are_in_youtube_vis_format(self, tmp_path):
        sources = [video(tmp_path / "in" / "a.mp4"), folder(tmp_path / "in" / "b", 5)]
        report = run_video_demo(fake_predict, sources, tmp_path / "out", categories=CATEGORIES)
        results = json.loads(report.tracks.read_text())
        content = load_ytvis(report.videos)
        assert [x["length"] for x in content["videos"]] == [8, 5]
        assert [len(x["file_names"]) for x in content["videos"]] == [8, 5]
        assert content["videos"][1]["file_names"] == [f"{i}.png" for i in range(5)]
        assert [x["overlay"] for x in content["videos"]] == ["a_overlay.mp4", "b_overlay.mp4"]
        assert content["categories"] == [{"id": 3, "name": "dot"}, {"id": 7, "name": "star"}]
        assert [(x["video_id"], x["category_id"], x["score"]) for x in results] == [
            *((1, 7, 0.9), (1, 3, 0.2), (2, 7, 0.9), (2, 3, 0.2))
        ]
        first = results[0]
        assert (first["file_name"], first["category_name"]) == (str(sources[0]), "star")
        assert first["fps"] == pytest.approx(29.97, abs=0.001) and results[2]["fps"] == 6
        for t, rle in enumerate(first["segmentations"]):
            assert (mask_util.decode(rle) == mask_util.decode(square(t))).all()
        assert [x is None for x in results[1]["segmentations"]] == [True, False] * 4

    def test_the_evaluator_takes_them(self, tmp_path):
        """Against themselves as ground truth they are perfect."""
        source = folder(tmp_path / "a", 4)
        report = run_video_demo(fake_predict, [source], tmp_path / "out", categories=CATEGORIES)
        results = json.loads(report.tracks.read_text())
        truth = load_ytvis(report.videos)
        truth["annotations"] = [
            {**{k: v for k, v in x.items() if k != "score"}, "id": i, "iscrowd": 0}
            for i, x in enumerate(results, 1)
        ]
        assert evaluate_ytvis(truth, results, "segm")["AP"] == pytest.approx(100)

    def test_the_overlay_has_rate_size_and_colors(self, tmp_path):
        report = run_video_demo(
            fake_predict, [video(tmp_path / "a.mp4")], tmp_path / "out", categories=CATEGORIES
        )
        with VideoFrames.open(report.overlays[0]) as overlay:
            assert (len(overlay), overlay.size) == (8, SIZE)
            assert overlay.fps == Fraction(30000, 1001)
            for t, picture in enumerate(overlay):
                assert np.abs(picture[110, 150].astype(int) - frame(t)[0, 0]).max() < 16
                mixed = 0.6 * frame(t)[0, 0] + 0.4 * np.array(track_color(0))
                assert np.abs(picture[24, t + 10] - mixed).max() < 30

    def test_pictures_of_the_frames(self, tmp_path):
        drawing = Drawing(video=False, pictures=True, suffix=".jpg", score_threshold=0.0)
        source = folder(tmp_path / "a")
        report = run_video_demo(fake_predict, [source], tmp_path / "out", drawing=drawing)
        names = sorted(x.name for x in report.folders[0].iterdir())
        assert names == [f"{i:06d}.jpg" for i in range(8)] and report.overlays == []
        assert not (tmp_path / "out" / "a_overlay.mp4").exists()
        picture = np.asarray(Image.open(report.folders[0] / "000003.jpg"))
        assert picture.shape == (*SIZE, 3)
        categories = json.loads(report.videos.read_text())["categories"]
        assert {x["id"]: x["name"] for x in categories} == {0: "class 0", 1: "class 1"}

    def test_frames_are_loaded_twice_and_not_kept(self, tmp_path, monkeypatch):
        """Once for the model and once to draw."""
        source, loads = folder(tmp_path / "a", 30), []
        load = VideoFrames.open(source).__class__.load
        monkeypatch.setattr(
            "msr_d2.visualization.folder_frames.FolderFrames.load",
            lambda self, index: loads.append(index) or load(self, index),
        )
        run_video_demo(fake_predict, [source], tmp_path / "out")
        assert sorted(loads) == sorted([*range(30)] * 2)

    def test_videos_that_cannot_be_read_are_named_and_skipped(self, tmp_path):
        (tmp_path / "bad.mp4").write_bytes(b"nothing" * 99)
        (tmp_path / "empty").mkdir()
        cut = folder(tmp_path / "cut", 3)
        data = (cut / "1.png").read_bytes()
        (cut / "1.png").write_bytes(data[: len(data) - 30])
        good = video(tmp_path / "good.mp4")
        sources = [tmp_path / "bad.mp4", tmp_path / "empty", cut, good]
        report = run_video_demo(fake_predict, sources, tmp_path / "out")
        assert list(report.skipped) == sources[:3]
        assert "1.png" in report.skipped[cut] and "no pictures" in report.skipped[sources[1]]
        assert [x["id"] for x in json.loads(report.videos.read_text())["videos"]] == [1]
        assert len(json.loads(report.tracks.read_text())) == 2

    def test_results_survive_any_error(self, tmp_path):
        """A third video that the model cannot take, and a second that cannot be drawn."""
        sources = [folder(tmp_path / name, 3) for name in "abc"]

        def predict(frames):
            if predict.calls == 2:
                raise RuntimeError("out of memory")
            predict.calls += 1
            found = fake_predict(frames)
            if predict.calls == 2:
                (sources[1] / "2.png").write_bytes(b"")
            return found

        predict.calls = 0
        with pytest.raises(RuntimeError, match="out of memory"):
            run_video_demo(predict, sources, tmp_path / "out")
        entries = json.loads((tmp_path / "out" / "videos.json").read_text())["videos"]
        assert [x["overlay"] for x in entries] == ["a_overlay.mp4", None]
        results = json.loads((tmp_path / "out" / "tracks.json").read_text())
        assert [x["video_id"] for x in results] == [1, 1, 2, 2]

    def test_what_could_not_be_drawn_is_no_overlay(self, tmp_path):
        source = folder(tmp_path / "a", 3)

        def predict(frames):
            found = fake_predict(frames)
            (source / "2.png").write_bytes(b"")
            return found

        drawing = Drawing(pictures=True)
        report = run_video_demo(predict, [source], tmp_path / "out", drawing=drawing)
        assert report.overlays == report.folders == [] and "2.png" in report.skipped[source]
        assert len(json.loads(report.tracks.read_text())) == 2

    def test_an_error_before_the_first_video_keeps_older_results(self, tmp_path):
        def predict(frames):
            raise RuntimeError("out of memory")

        source = folder(tmp_path / "a", 3)
        report = run_video_demo(fake_predict, [source], tmp_path / "out")
        older = report.tracks.read_text()
        with pytest.raises(RuntimeError):
            run_video_demo(predict, [source], tmp_path / "out")
        assert report.tracks.read_text() == older

    def test_without_pyav_nothing_is_predicted_in_vain(self, tmp_path, monkeypatch):
        source, calls = folder(tmp_path / "a", 3), []

        def predict(frames):
            calls.append(len(frames))
            return fake_predict(frames)

        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(ImportError, match="`pip install av`.*--no-video --frames"):
            run_video_demo(predict, [source], tmp_path / "out")
        assert calls == []
        drawing = Drawing(video=False, pictures=True)
        report = run_video_demo(predict, [source], tmp_path / "out", drawing=drawing)
        assert calls == [3] and len(list(report.folders[0].iterdir())) == 3

    def test_same_names_in_two_folders(self, tmp_path):
        sources = [video(tmp_path / x / "a.mp4", 2) for x in ("x", "y")]
        report = run_video_demo(fake_predict, sources, tmp_path / "out")
        assert [x.name for x in report.overlays] == ["x_a_overlay.mp4", "y_a_overlay.mp4"]

    def test_a_rate_for_folders(self, tmp_path):
        report = run_video_demo(fake_predict, [folder(tmp_path / "a")], tmp_path / "out", fps=12.5)
        assert VideoFrames.open(report.overlays[0]).fps == 12.5

    def test_results_of_every_kind_of_track(self):
        """Bytes and text as run lengths, tensors as scores; the classes without a table."""
        text = {"size": list(SIZE), "counts": square(0)["counts"].decode()}
        prediction = {
            "scores": torch.tensor([0.5]),
            "labels": torch.tensor([4]),
            "masks": [[square(0), text, None]],
        }
        (found,) = to_ytvis_results(prediction, {"id": 9, "file_name": "a", "fps": 6.0})
        assert found["segmentations"] == [text, text, None]
        assert (found["video_id"], found["category_id"], found["category_name"]) == (
            9,
            4,
            "class 4",
        )
        json.dumps(found)


class TestProgress:
    def test_the_bar_follows_the_last_frame(self, monkeypatch):
        monkeypatch.setattr(progress, "shows_bars", lambda: True)
        with progress.ProgressSequence([5, 6, 7, 8], "Predicting") as watched:
            assert watched[0] == 5 and watched._bar.n == 1
            assert watched[2] == 7 and watched._bar.n == 3
            assert watched[1] == 6 and watched._bar.n == 3
            assert watched[-1] == 8 and watched._bar.n == 4

    def test_without_a_terminal(self):
        with progress.ProgressSequence([5, 6], "Predicting") as watched:
            assert list(watched) == [5, 6] and watched._bar is None


class TestSortInputs:
    def test_kinds(self, tmp_path):
        frames, clip = folder(tmp_path / "frames", 2), tmp_path / "clip.MP4"
        picture = frames / "0.png"
        clip.touch()
        found = sort_inputs([str(frames), str(clip), str(picture), str(clip)])
        assert found.videos == [frames, clip] and found.images == [picture]
        found = sort_inputs([str(frames)], per_image=True)
        assert found.videos == [] and found.images == [frames / "0.png", frames / "1.png"]

    def test_patterns_and_folders_of_videos(self, tmp_path):
        clips = [tmp_path / "clips" / name for name in ("a.mp4", "b.avi")]
        clips[0].parent.mkdir()
        for clip in clips:
            clip.touch()
        (tmp_path / "clips" / "notes.txt").touch()
        folders = [folder(tmp_path / "all" / x, 1) for x in ("x", "y")]
        assert sort_inputs([str(tmp_path / "clips")]).videos == clips
        assert sort_inputs([str(tmp_path / "clips" / "*")]).videos == clips
        assert sort_inputs([str(tmp_path / "all" / "*")]).videos == folders
        assert sort_inputs([str(tmp_path / "clips" / "notes.txt")]).videos == [
            tmp_path / "clips" / "notes.txt"  # whoever names a file means it
        ]

    def test_what_an_earlier_run_left_is_no_input(self, tmp_path):
        clip, old = tmp_path / "a.mp4", tmp_path / "a_overlay.mp4"
        clip.touch()
        old.touch()
        frames = folder(tmp_path / "a_overlay", 1)
        assert sort_inputs([str(tmp_path)], tmp_path).videos == [clip]
        assert sort_inputs([str(tmp_path / "*")], tmp_path).videos == [clip]
        assert sort_inputs([str(old), str(frames)], tmp_path).videos == [old, frames]

    @pytest.mark.parametrize("name", ["missing.mp4", "empty", "*.mp4"])
    def test_nothing_found(self, tmp_path, name):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match="--input .*no video, no picture"):
            sort_inputs([str(tmp_path / name)])

    def test_pictures_and_videos_in_one_folder(self, tmp_path):
        folder(tmp_path / "a", 1)
        (tmp_path / "a" / "b.mp4").touch()
        with pytest.raises(ValueError, match=r"has pictures \(0.png, ...\) and videos \(b.mp4"):
            sort_inputs([str(tmp_path / "a")])
        assert len(sort_inputs([str(tmp_path / "a")], per_image=True).images) == 1

    def test_an_image_model_refuses_videos(self, tmp_path):
        (tmp_path / "clips").mkdir()
        (tmp_path / "clips" / "a.mov").touch()
        for name in ("clips", "clips/a.mov"):
            with pytest.raises(ValueError, match="is a video, and GeneralizedRCNN"):
                refuse_videos([str(tmp_path / name)], "GeneralizedRCNN")
        refuse_videos([str(folder(tmp_path / "b"))], "GeneralizedRCNN")


class TestScript:
    @pytest.fixture
    def config(self, tmp_path):
        path = tmp_path / "config.yaml"
        opts = ["DATASETS.TEST", ("nowhere",), "DATASETS.TRAIN", ()]
        path.write_text(tiny_vis_cfg(opts).dump())
        return path

    def run(self, *arguments):
        spec = importlib.util.spec_from_file_location("demo_script", ROOT / "scripts" / "demo.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        argv, sys.argv = sys.argv, ["demo.py", "--random-weights", *map(str, arguments)]
        try:
            return script.main(script.parse_arguments())
        finally:
            sys.argv = argv

    def test_videos_and_images(self, config, tmp_path, capsys):
        clip, frames = video(tmp_path / "a.mp4", 3), folder(tmp_path / "b", 3)
        picture = tmp_path / "c.png"
        Image.fromarray(frame()).save(picture)
        arguments = ["--config-file", config, "--input", clip, frames, picture]
        arguments += ["--output", tmp_path / "out", "--frames", "--fps", "5"]
        assert self.run(*arguments) == 0
        names = sorted(x.name for x in (tmp_path / "out").iterdir())
        assert names == [
            *("a_overlay", "a_overlay.mp4", "b_overlay", "b_overlay.mp4", "c_overlay.png"),
            *("images.json", "instances.json", "tracks.json", "videos.json"),
        ]
        assert "2 overlay videos and tracks.json" in capsys.readouterr().out
        assert VideoFrames.open(tmp_path / "out" / "b_overlay.mp4").fps == 5

    def test_a_broken_video_makes_the_exit_code_1(self, config, tmp_path, capsys):
        bad = tmp_path / "bad.mp4"
        bad.write_text("text")
        arguments = ["--config-file", config, "--input", bad, "--output", tmp_path / "out"]
        assert self.run(*arguments) == 1
        assert str(bad) in capsys.readouterr().err

    @pytest.mark.parametrize("above, windows", [(None, 2), (130, 0), (0, 2), (50, 3)])
    def test_long_videos_go_through_the_model_in_windows(
        self, config, tmp_path, monkeypatch, capsys, above, windows
    ):
        """By default as well; each window of the model is counted."""
        calls, logged, encode = [], [], MaskFreeVIS._encode
        monkeypatch.setattr(
            video_predict.logger, "info", lambda text, *args: logged.append(text % args)
        )
        monkeypatch.setattr(
            MaskFreeVIS,
            "_encode",
            lambda self, frames: calls.append(len(frames)) or encode(self, frames),
        )
        key = "MODEL.MASK_FREE.TEST."
        opts = [f"{key}WINDOW_FRAMES", 66 if windows == 2 else 50, f"{key}CHUNK_FRAMES", 40]
        opts += [] if above is None else [f"{key}WINDOW_ABOVE", above]
        frames = folder(tmp_path / "long", 122, (16, 16))
        arguments = ["--config-file", config, "--input", frames, "--output", tmp_path / "out"]
        assert self.run(*arguments, "--no-video", *opts) == 0
        assert len(calls) == (windows or 1) and (max(calls) < 122) == bool(windows)
        assert len(logged) == (not above)
        assert all("more than 120 frames" in x and f"{key}WINDOW_ABOVE" in x for x in logged)
        assert "no overlays and tracks.json" in capsys.readouterr().out

    def test_without_pyav_the_cure_is_named(self, config, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        arguments = ["--config-file", config, "--input", folder(tmp_path / "b", 2)]
        arguments += ["--output", tmp_path / "out"]
        with pytest.raises(ImportError, match="pip install av"):
            self.run(*arguments)
        assert self.run(*arguments, "--no-video", "--frames") == 0
        assert len(list((tmp_path / "out" / "b_overlay").iterdir())) == 2

    def test_frames_as_separate_images(self, config, tmp_path):
        frames = folder(tmp_path / "b", 2)
        arguments = ["--config-file", config, "--input", frames, "--output", tmp_path / "out"]
        assert self.run(*arguments, "--per-image") == 0
        assert (tmp_path / "out" / "1_overlay.png").is_file()
        assert not (tmp_path / "out" / "tracks.json").exists()

    def test_an_image_model_names_the_cure_for_a_video(self, tmp_path):
        config = tmp_path / "image.yaml"
        config.write_text(tiny_cfg(opts=["DATASETS.TEST", (), "DATASETS.TRAIN", ()]).dump())
        arguments = ["--config-file", config, "--input", "a.mp4", "--output", tmp_path / "out"]
        with pytest.raises(ValueError, match="ffmpeg -i"):
            self.run(*arguments)


class TestClipPictures:
    VIDEO = {"id": 4, "height": SIZE[0], "width": SIZE[1], "length": 3}

    def entry(self, left, category=3, **more):
        return {"video_id": 4, "category_id": category, "segmentations": [square(left)] * 3, **more}

    def test_predictions_have_the_color_of_their_object(self):
        true = [self.entry(0), self.entry(40)]
        found = [
            self.entry(42, score=0.9),
            self.entry(20, score=0.8),  # no object is there
            self.entry(1, score=0.7),
            self.entry(0, score=0.6),  # its object is taken
        ]
        wanted, drawn = clip_tracks(self.VIDEO, true, found, CATEGORIES)
        assert [x.color for x in wanted] == [track_color(0), track_color(1)]
        assert [x.color for x in drawn] == [track_color(i) for i in (1, 2, 0, 3)]
        assert [x.text for x in drawn] == ["dot 0.90", "dot 0.80", "dot 0.70", "dot 0.60"]
        assert [x.text for x in wanted] == ["dot", "dot"]

    def test_sides_without_tracks(self):
        assert clip_tracks(self.VIDEO, [], [], CATEGORIES) == ([], [])
        _, drawn = clip_tracks(self.VIDEO, [], [self.entry(0, score=1.0)], CATEGORIES)
        assert [x.color for x in drawn] == [track_color(0)]

    @pytest.fixture
    def data_set(self, tmp_path):
        names = [f"clip/{i}.png" for i in range(3)]
        folder(tmp_path / "clip", 3)
        content = {
            "videos": [
                {**self.VIDEO, "file_names": names},
                {**self.VIDEO, "id": 5, "file_names": names},
            ],
            "categories": [{"id": 3, "name": "dot"}, {"id": 7, "name": "star"}],
            "annotations": [{**self.entry(0), "id": 1, "iscrowd": 0}],
        }
        (tmp_path / "truth.json").write_text(json.dumps(content, default=bytes.decode))
        results = [self.entry(2, score=0.9), self.entry(30, score=0.1)]
        run = tmp_path / "run" / "inference"
        run.mkdir(parents=True)
        (run / "results.json").write_text(json.dumps(results, default=bytes.decode))
        MetadataCatalog.get("clip_pictures").set(
            json_file=str(tmp_path / "truth.json"), image_root=str(tmp_path)
        )
        yield "clip_pictures"
        MetadataCatalog.remove("clip_pictures")

    def test_a_picture_for_each_video(self, data_set, tmp_path, monkeypatch):
        drawn, clip_sheet = [], video_pictures.clip_sheet
        monkeypatch.setattr(
            video_pictures, "clip_sheet", lambda *args: drawn.append(args) or clip_sheet(*args)
        )
        cfg = tiny_vis_cfg(["OUTPUT_DIR", str(tmp_path / "run"), "DATASETS.TEST", (data_set,)])
        written = write_clip_pictures(cfg, data_set, num_videos=1)
        assert written == [tmp_path / "run" / "pictures" / "video_4.png"]
        ((_, indices, true, found),) = drawn
        assert indices == [0, 1, 2] and len(true) == 1 and [x.text for x in found] == ["dot 0.90"]
        width, height = Image.open(written[0]).size
        assert width == 3 * 400 + 2 * 8 and height > 2 * 300

    def test_given_paths_and_fewer_frames(self, data_set, tmp_path):
        results = tmp_path / "run" / "inference" / "results.json"
        written = write_clip_pictures(
            tiny_vis_cfg(), data_set, results, tmp_path / "here", num_frames=2
        )
        assert [x.name for x in written] == ["video_4.png", "video_5.png"]
        assert Image.open(written[0]).size[0] == 2 * 400 + 8


def test_video_models_are_told_by_their_meta_architecture():
    assert is_video_model(tiny_vis_cfg()) and not is_video_model(tiny_cfg())


def test_errors_of_videos_are_wrong_values():
    """The script turns them into exit code 2, like those of data sets."""
    assert issubclass(VideoError, ValueError) and issubclass(DatasetError, ValueError)
