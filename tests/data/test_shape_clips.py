"""Moving shapes: paths, what happens in clips, and the YouTube-VIS files they become."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import runpy
import sys
from pathlib import Path as FilePath

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest

from msr_d2.data.shapes import (
    CLIP_CATEGORIES,
    NUM_CLIPS,
    Clip,
    ClipStyle,
    Detour,
    Dice,
    Motion,
    Path,
    Pose,
    Sprite,
    Swing,
    Texture,
    annotate_clip,
    render,
    sample_clip,
    write_coco,
    write_ytvis,
    ytvis,
)
from msr_d2.data.shapes.clips import is_visible
from msr_d2.data.shapes.outlines import bar, make_outline

SCRIPT = FilePath(__file__).resolve().parents[2] / "scripts" / "make_shapes.py"
RED, BLUE = Texture((255, 0, 0), (255, 0, 0)), Texture((0, 0, 255), (0, 0, 255))
SQUARE = (bar(2.0, 2.0),)
STAR = CLIP_CATEGORIES[0]


def digest(folder) -> str:
    result = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        result.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return result.hexdigest()


def clip_of(*moving: tuple[Sprite, Path], camera=(0.0, 0.0), length=5) -> Clip:
    """A 20 x 30 clip of the given sprites."""
    sprites, paths = zip(*moving)
    return Clip(20, 30, length, sprites, paths, camera)


def square(x: float, y: float, half: float, category=STAR, **path) -> tuple[Sprite, Path]:
    pose = Pose(x, y, half)
    return Sprite(category, SQUARE, pose, RED), Path(pose, **path)


def masks_of(clip: Clip, index: int = 0) -> list[np.ndarray]:
    return [render(clip.scene(t), t).mask(index) for t in range(clip.length)]


# ---- paths


def test_steady_motion_by_hand():
    path = Path(Pose(10, 20, 4, rotation=0.5), Motion(dx=2, dy=-1, spin=0.1, growth=2.0))
    end = path.at(3)
    assert (end.x, end.y, end.scale) == (16, 17, 32)
    assert end.rotation == pytest.approx(0.8)


def test_camera_moves_everything_alike():
    clip = clip_of(square(8, 10, 3), square(20, 10, 2), camera=(1.0, -2.0))
    for index, (x, y) in enumerate(((8, 10), (20, 10))):
        pose = clip.scene(3).sprites[index].pose
        assert (pose.x, pose.y) == (x + 3, y - 6)


def test_swing_starts_at_rest_and_has_its_period():
    swing = Swing(dx=4, dy=-2, period=8, phase=0.7)
    assert swing.offset(0) == (0, 0)
    np.testing.assert_allclose(swing.offset(8), (0, 0), atol=1e-12)
    half = 2 * math.sin(0.7)  # half a period later, the sine has changed its sign
    np.testing.assert_allclose(swing.offset(4), (-4 * half, 2 * half))


def test_detour_leaves_stays_and_returns():
    detour = Detour(dx=-40, dy=10, start=2, stop=10, ride=2)
    assert detour.offset(0) == detour.offset(2) == detour.offset(10) == detour.offset(12) == (0, 0)
    assert detour.offset(4) == detour.offset(6) == detour.offset(8) == (-40, 10)
    assert detour.offset(3) == detour.offset(9) == (-20, 5)  # the middle of a smooth ride


def test_scene_is_still():
    """The path has moved the pose already: rendering must not move it again."""
    clip = clip_of(square(8, 10, 3, motion=Motion(dx=2)))
    first, third = render(clip.scene(0), 0), render(clip.scene(2), 2)
    np.testing.assert_array_equal(third.mask(0)[:, 4:], first.mask(0)[:, :-4])


# ---- annotations


def test_annotation_by_hand():
    clip = clip_of(square(5, 10, 3, motion=Motion(dx=10)), length=5)  # out after frame 2
    frames = [render(clip.scene(t), t) for t in range(5)]
    (found,) = annotate_clip(clip, frames)
    assert found["bboxes"] == [[2, 7, 6, 6], [12, 7, 6, 6], [22, 7, 6, 6], None, None]
    assert found["areas"] == [36, 36, 36, None, None]
    assert (found["category_id"], found["iscrowd"], found["length"]) == (STAR.id, 0, 5)
    for mask, rle in zip(masks_of(clip), found["segmentations"]):
        assert (rle is None) == (not mask.any())
        if rle is not None:
            assert isinstance(rle["counts"], str)
            np.testing.assert_array_equal(mask_util.decode(rle).astype(bool), mask)


def test_hidden_object_is_absent_and_slivers_count_as_absent():
    hidden, cover = square(10, 10, 3), square(10, 10, 6, category=None, motion=Motion(dx=4))
    clip = clip_of(hidden, cover, length=3)  # the cover's left border: x = 4, 8, 12
    frames = [render(clip.scene(t), t) for t in range(3)]
    (found,) = annotate_clip(clip, frames)
    assert found["areas"] == [None, 6, 30]
    (found,) = annotate_clip(clip, frames, min_area=7)
    assert found["areas"] == [None, None, 30] and found["bboxes"][1] is None
    assert annotate_clip(clip, frames, min_area=31) == []


def test_ring_has_a_hole():
    ring = (make_outline("ring", Dice([0])),)
    clip = clip_of((Sprite(STAR, ring, Pose(15, 10, 9), RED), Path(Pose(15, 10, 9))), length=1)
    (mask,) = masks_of(clip)
    assert not mask[10, 15] and mask[10, 7] and mask[2, 15]
    drawn = render(clip.scene(0)).image
    assert (drawn[10, 15] != (255, 0, 0)).any() and (drawn[10, 7] == (255, 0, 0)).all()


# ---- drawn clips


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [sample_clip(10, 96, 128, Dice([11, index])) for index in range(30)]


@pytest.fixture(scope="module")
def annotated(clips):
    """(clip, annotations) of all clips."""
    return [
        (clip, annotate_clip(clip, [render(clip.scene(t), t) for t in range(10)])) for clip in clips
    ]


def test_masks_are_far_from_filled_boxes(annotated):
    ious = [
        area / (box[2] * box[3])
        for _, found in annotated
        for a in found
        for box, area in zip(a["bboxes"], a["areas"])
        if box is not None
    ]
    assert 0.35 < np.mean(ious) < 0.5
    assert np.percentile(ious, 95) < 0.6


def test_filled_boxes_seldom_match_at_half_overlap(annotated):
    """Perfect boxes, filled, would have a mask AP50 of nearly nothing."""
    matched = [
        sum(area or 0 for area in a["areas"]) >= 0.5 * sum(b[2] * b[3] for b in a["bboxes"] if b)
        for _, found in annotated
        for a in found
    ]
    assert np.mean(matched) < 0.2


def test_objects_have_the_promised_size_and_can_be_seen(clips):
    for clip in clips:
        assert 1 <= len(clip.objects) <= 3
        assert is_visible(clip, ClipStyle())
        for index in clip.objects:
            assert 0.3 * 96 <= 2 * clip.paths[index].start.scale <= 0.58 * 96 * 1.1  # twins: 10 %


def test_everything_happens(clips, annotated):
    events = {event for clip in clips for event in clip.events}
    assert events == {"camera", "leaves", "occluder", "twins"}
    motions = [clip.paths[i].motion for clip in clips for i in clip.objects]
    assert any(m.spin for m in motions) and any(m.growth > 1 for m in motions)
    assert any(m.growth < 1 for m in motions) and any(abs(m.dx) > 1 for m in motions)
    assert {c.sprites[i].category.name for c in clips for i in c.objects} == set(
        ClipStyle().classes
    )


def test_leaving_objects_return(annotated):
    gaps = 0
    for clip, found in annotated:
        if "leaves" in clip.events:
            presence = [[box is not None for box in a["bboxes"]] for a in found]
            gaps += any(p[0] and not all(p) and p[-1] for p in presence)
    leaving = sum("leaves" in clip.events for clip, _ in annotated)
    assert leaving and gaps >= 0.6 * leaving


def test_twins_look_alike(clips):
    twins = [clip for clip in clips if "twins" in clip.events]
    assert twins
    for clip in twins:
        first, second = (clip.sprites[index] for index in clip.objects[:2])
        assert first.category == second.category and first.fill == second.fill
        assert first.pose != second.pose


def test_objects_stand_out_from_the_background(clips):
    """The mean colours of object and surroundings differ, so that colour says something."""
    for clip in clips:
        drawn = render(clip.scene(0))
        image = cv2.cvtColor(drawn.image, cv2.COLOR_RGB2LAB).astype(float)
        image[:, :, 0] *= 100 / 255  # OpenCV's 8 bit form stretches L
        ground = image[drawn.labels == 0].mean(axis=0)
        for index in clip.objects:
            if drawn.mask(index).any():
                assert np.linalg.norm(image[drawn.mask(index)].mean(axis=0) - ground) > 6


def test_shares_of_one_and_zero_are_kept():
    style = ClipStyle(
        objects=(2, 2),
        leave_share=1.0,
        twins_share=1.0,
        camera_share=0.0,
        occluders=(0, 0),
        classes=("plus",),
        spin_share=0.0,
        scale_share=0.0,
        crowding=0.0,
    )
    for seed in range(4):
        clip = sample_clip(10, 64, 96, Dice([seed]), style)
        assert clip.events == ("leaves", "twins") and clip.camera == (0.0, 0.0)
        assert {clip.sprites[i].category.name for i in clip.objects} == {"plus"}
        assert all(clip.paths[i].motion.spin == 0 for i in clip.objects)
        assert all(clip.paths[i].motion.growth == 1 for i in clip.objects)


@pytest.mark.parametrize("length, height, width", [(1, 32, 32), (2, 40, 100), (25, 100, 40)])
def test_odd_sizes(length, height, width):
    clip = sample_clip(length, height, width, Dice([3]))
    for t in range(length):
        assert render(clip.scene(t), t).image.shape == (height, width, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": ("star", "square")}, "classes must be some of star, plus"),
        ({"classes": ()}, "classes must be some of"),
        ({"size": (0.5, 0.3)}, r"size must be 0 <= lowest <= highest, got \(0.5, 0.3\)"),
        ({"leave_share": 1.5}, "leave_share .* got 1.5"),
        ({"noise": -1.0}, "noise must be at least 0"),
    ],
)
def test_bad_style(change, message):
    with pytest.raises(ValueError, match=message):
        ClipStyle(**change)


# ---- files

SMALL = {"num_train": 3, "num_val": 2, "seed": 5, "length": (3, 5), "size": (48, 64)}


def write(folder, **changes) -> bool:
    return write_ytvis(folder, **{**SMALL, **changes})


def load(folder, name: str) -> dict:
    return json.loads((folder / "annotations" / f"instances_{name}.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "clips"
    assert write(folder)
    return folder


def test_training_json_has_boxes_and_no_masks(written):
    boxes, masks, val = (load(written, name) for name in ("train", "train_masks", "val"))
    assert boxes["videos"] == masks["videos"] and len(val["videos"]) == 2
    assert "segmentation" not in (written / "annotations/instances_train.json").read_text()
    assert boxes["annotations"] and len(boxes["annotations"]) == len(masks["annotations"])
    for bare, full in zip(boxes["annotations"], masks["annotations"]):
        assert bare["bboxes"] == full["bboxes"] and bare["id"] == full["id"]
        for box, area, visible in zip(bare["bboxes"], bare["areas"], full["areas"]):
            assert (area is None) == (box is None) == (visible is None)
            assert box is None or area == box[2] * box[3] > visible


@pytest.mark.parametrize("split, name", [("train", "train_masks"), ("val", "val")])
def test_json_and_frames_agree(written, split, name):
    data = load(written, name)
    videos = {video["id"]: video for video in data["videos"]}
    names = {category["id"]: category["name"] for category in data["categories"]}
    assert sorted(names.values()) == sorted(ClipStyle().classes)
    for video in videos.values():
        assert 3 <= video["length"] <= 5 and len(video["file_names"]) == video["length"]
        for file_name in video["file_names"]:
            image = cv2.imread(str(written / split / "JPEGImages" / file_name))
            assert image.shape == (48, 64, 3) == (video["height"], video["width"], 3)
    for annotation in data["annotations"]:
        video = videos[annotation["video_id"]]
        assert annotation["category_id"] in names and annotation["iscrowd"] == 0
        for key in ("bboxes", "areas", "segmentations"):
            assert len(annotation[key]) == video["length"]
        for box, area, rle in zip(*(annotation[k] for k in ("bboxes", "areas", "segmentations"))):
            if rle is not None:
                assert rle["size"] == [48, 64] and rle["counts"].isascii()
                assert mask_util.area(rle) == area
                assert mask_util.toBbox(rle).tolist() == box


def test_ids_start_at_one_and_differ_between_splits(written):
    train, val = load(written, "train"), load(written, "val")
    assert min(a["id"] for a in train["annotations"]) == 1
    ids = [video["id"] for data in (train, val) for video in data["videos"]]
    assert len(set(ids)) == 5


def test_same_arguments_give_the_same_bytes(written, tmp_path):
    write(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(written)


def test_a_clip_does_not_depend_on_their_number_but_on_seed_and_split(written, tmp_path):
    write(tmp_path / "more", num_train=4, num_val=0)
    write(tmp_path / "other", num_train=1, num_val=0, seed=6)
    frame = "train/JPEGImages/00000/00000.jpg"
    assert (tmp_path / "more" / frame).read_bytes() == (written / frame).read_bytes()
    assert (tmp_path / "other" / frame).read_bytes() != (written / frame).read_bytes()
    val = written / frame.replace("train", "val")
    assert val.read_bytes() != (written / frame).read_bytes()
    few, more = (load(folder, "train")["annotations"] for folder in (written, tmp_path / "more"))
    assert more[: len(few)] == few


def test_a_complete_set_is_left_alone_and_other_settings_need_overwrite(written, tmp_path):
    write(tmp_path, num_train=4, seed=1)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    assert not write(tmp_path, num_train=4, seed=1)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    with pytest.raises(ValueError, match=r"train 4, now 3.*--overwrite"):
        write(tmp_path)
    assert write(tmp_path, overwrite=True)
    assert digest(tmp_path) == digest(written)
    assert not (tmp_path / "train/JPEGImages/00003").exists()


def test_images_and_clips_do_not_mix(written, tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        write_coco(tmp_path, train=1, val=0, size=64)
    write_coco(tmp_path, train=1, val=0, size=64, overwrite=True)
    assert not list(tmp_path.rglob("*.jpg")) and not (tmp_path / "val/JPEGImages").exists()
    write(tmp_path, overwrite=True)
    assert digest(tmp_path) == digest(written)


def test_a_killed_run_and_a_damaged_set_are_repaired(written, tmp_path, monkeypatch):
    real, calls = ytvis.write_bytes, []

    def die(path, data):
        if len(calls) == 5:
            path.parent.mkdir(exist_ok=True)
            path.with_name(f".{path.name}.123.tmp").write_bytes(data[:10])
            raise KeyboardInterrupt
        calls.append(path)
        real(path, data)

    monkeypatch.setattr(ytvis, "write_bytes", die)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    monkeypatch.undo()
    assert write(tmp_path)
    assert digest(tmp_path) == digest(written)
    (tmp_path / "val/JPEGImages/00001/00001.jpg").write_bytes(b"cut short")
    assert write(tmp_path)
    assert digest(tmp_path) == digest(written)


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "train/JPEGImages/00000").mkdir(parents=True)
    photo = tmp_path / "train/JPEGImages/00000/00000.jpg"
    photo.write_bytes(b"a photograph")
    with pytest.raises(ValueError, match="not written by this generator"):
        write(tmp_path, overwrite=True)
    assert photo.read_bytes() == b"a photograph"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_train": -1}, "num_train must be an integer from 0"),
        ({"length": 0}, "length must be an integer from 1 .* got 0"),
        ({"length": (5, 3)}, "greatest length must be an integer from 5 .* got 3"),
        ({"length": (1, 2, 3)}, "length must be a number of frames"),
        ({"size": (31, 64)}, "height must be an integer from 32 .* got 31"),
        ({"size": (64, 9999)}, "width must be"),
        ({"num_train": 0, "num_val": 0}, "both 0"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "none", **change)
    assert not (tmp_path / "none").exists()


def test_command_line(tmp_path, monkeypatch, capsys):
    def run(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["make_shapes.py", "--output", str(tmp_path), *arguments])
        return runpy.run_path(str(SCRIPT))["main"]()

    assert run(*"--format ytvis --train 1 --val 1 --size 48 64 --length 2 3".split()) == 0
    assert "written" in capsys.readouterr().out
    assert load(tmp_path, "val")["videos"][0]["height"] == 48
    assert run("--length", "5") == 2
    assert "needs --format ytvis" in capsys.readouterr().err


def test_the_default_set_is_that_of_the_quickstart(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--output", str(tmp_path), "--format", "ytvis"])
    script = runpy.run_path(str(SCRIPT))
    calls = []
    monkeypatch.setitem(script["write"].__globals__, "write_ytvis", lambda *x, **y: calls.append(x))
    script["write"](script["parse_arguments"]())
    sizes = runpy.run_path(str(SCRIPT.with_name("quickstart.py")))["SIZES"]
    assert calls == [(tmp_path, *sizes["mask_free_vis"])] and NUM_CLIPS == sizes["mask_free_vis"]
    defaults = inspect.signature(write_ytvis).parameters
    assert (defaults["num_train"].default, defaults["num_val"].default) == NUM_CLIPS
