"""The shapes set: its geometry, its annotations, and what a run leaves on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data.datasets.coco import load_coco_json
from pycocotools.coco import COCO

from msr_d2.data.shapes import (
    CATEGORIES,
    Dice,
    Fade,
    Motion,
    Pose,
    Scene,
    ShapesStyle,
    Sprite,
    Texture,
    annotate,
    files,
    mask_to_polygons,
    render,
    sample_scene,
    write_coco,
)
from msr_d2.data.shapes.coco import RLE_LIST, RLE_STRING, encode_rle
from msr_d2.data.shapes.hardness import TREATMENTS
from msr_d2.data.shapes.marker import MARKER
from msr_d2.data.shapes.outlines import bar, make_outline

DISC, SQUARE = CATEGORIES[0], CATEGORIES[1]
GREY, RED = Texture((90, 90, 90), (90, 90, 90)), Texture((255, 0, 0), (255, 0, 0))
UNIT_SQUARE = bar(2.0, 2.0)


def make_scene(*sprites: Sprite, side: int = 20) -> Scene:
    return Scene(side, side, GREY, sprites)


def box_sprite(x: float, y: float, scale: float, **changes) -> Sprite:
    """An axis-aligned red square of side 2 * scale around (x, y)."""
    return Sprite(SQUARE, (UNIT_SQUARE,), Pose(x, y, scale), RED, **changes)


def decode(segmentation, height: int, width: int) -> np.ndarray:
    """The mask that COCO's tools see."""
    if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
        segmentation = mask_util.frPyObjects(segmentation, height, width)
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(segmentation)
    return mask_util.decode(segmentation).astype(bool)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def digest(folder) -> str:
    """A hash of the names and bytes of all files below a folder."""
    result = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        result.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return result.hexdigest()


# ---- rendering


def test_square_on_pixel_borders_is_exact():
    drawn = render(make_scene(box_sprite(8, 10, 5)))
    expected = np.zeros((20, 20), bool)
    expected[5:15, 3:13] = True
    np.testing.assert_array_equal(drawn.mask(0), expected)
    assert drawn.areas == (100,)
    inner, outer = drawn.image[6:14, 4:12], drawn.image[:4]
    assert (inner == (255, 0, 0)).all() and (outer == 90).all()


def test_image_is_anti_aliased_and_mask_is_crisp():
    # the right border lies in the middle of column 12: half red, half grey
    drawn = render(make_scene(box_sprite(7.75, 10, 4.75)))
    red, green, _ = drawn.image[10, 12].astype(int)
    assert 90 < red < 255 and 0 < green < 90
    assert drawn.mask(0)[10].sum() in (9, 10)


def test_area_of_a_disc():
    drawn = render(
        make_scene(
            Sprite(DISC, (make_outline("disc", Dice([0])),), Pose(50, 50, 40), RED), side=100
        )
    )
    assert drawn.mask(0).sum() == pytest.approx(np.pi * 40**2, rel=0.01)


def test_later_sprites_hide_earlier_ones():
    drawn = render(make_scene(box_sprite(8, 10, 5), box_sprite(13, 10, 5)))
    assert drawn.areas == (100, 100)
    assert drawn.mask(0).sum() == 50 and drawn.mask(1).sum() == 100


def test_cuts_leave_the_mask_and_panes_and_fades_do_not():
    slit = (bar(0.4, 4.0),)
    for changes, area in (
        ({"cuts": slit}, 80),
        ({"panes": slit, "tint": 0.0}, 100),
        ({"fade": Fade(0.0, -0.1, 0.05, 1.0)}, 100),  # from x = 7.5 to 8.25
    ):
        drawn = render(make_scene(box_sprite(8, 10, 5, **changes)))
        assert drawn.mask(0).sum() == area
        assert (drawn.image[10, 8] == 90).all()  # one sees the background through all three


def test_sprite_outside_the_image_is_empty():
    drawn = render(make_scene(box_sprite(-30, 50, 5), box_sprite(0, 0, 5)))
    assert drawn.areas == (0, 25)
    assert annotate(make_scene(box_sprite(-30, 50, 5)), drawn, Dice([0])) == []


def test_motion_moves_masks_and_texture():
    texture = Texture((250, 10, 10), (10, 10, 250), "stripes", period=0.5)
    sprite = replace(box_sprite(8, 10, 5), fill=texture, motion=Motion(dx=2, dy=-1))
    scene = make_scene(sprite)
    first, third = render(scene, 0), render(scene, 2)
    np.testing.assert_array_equal(third.mask(0)[:-2, 4:], first.mask(0)[2:, :-4])
    moved = first.image[5:15, 3:13].astype(int) - third.image[3:13, 7:17]
    assert abs(moved).max() <= 1


def test_pose_mappings_are_inverse():
    pose = Pose(3.0, 4.0, 7.0, rotation=0.7, stretch=1.3)
    points = np.array([[0.2, -0.5], [1.0, 0.3]])
    back = pose.to_object(*pose.to_image(points).T)
    np.testing.assert_allclose(np.stack(back, axis=1), points)


def test_camera_noise_differs_from_frame_to_frame():
    scene = replace(make_scene(), noise=5.0)
    assert (render(scene, 0).image != render(scene, 1).image).any()
    np.testing.assert_array_equal(render(scene, 1).image, render(scene, 1).image)


# ---- annotations


@pytest.mark.parametrize("seed", range(20))
def test_contours_rasterise_to_the_mask(seed):
    noise = np.random.default_rng(seed).random((9, 9)).astype(np.float32)
    mask = cv2.resize(noise, (40, 30), interpolation=cv2.INTER_CUBIC) > 0.6
    polygons = mask_to_polygons(mask)
    if polygons is not None:
        assert iou(decode(polygons, 30, 40), mask) > 0.98


def test_a_mask_with_a_hole_has_no_polygons():
    mask = np.zeros((10, 10), bool)
    mask[2:8, 2:8] = True
    assert len(mask_to_polygons(mask)) == 1
    mask[4, 4] = False
    assert mask_to_polygons(mask) is None


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", [RLE_STRING, RLE_LIST])
def test_run_lengths(kind, first):
    mask = np.random.default_rng(0).random((7, 5)) > 0.5
    mask[0, 0] = first
    rle = encode_rle(mask, kind)
    assert isinstance(rle["counts"], list if kind == RLE_LIST else str)
    np.testing.assert_array_equal(decode(rle, 7, 5), mask)


def test_list_counts_by_hand():
    mask = np.array([[0, 1], [1, 1], [0, 0]], bool)  # by columns: 0 1 0, 1 1 0
    assert encode_rle(mask, RLE_LIST) == {"size": [3, 2], "counts": [1, 1, 1, 2, 1]}


def test_crowd_is_one_region():
    scene = make_scene(box_sprite(4, 4, 3, crowd=0), box_sprite(14, 14, 3, crowd=0))
    (crowd,) = annotate(scene, render(scene), Dice([0]))
    assert crowd["iscrowd"] == 1 and crowd["area"] == 72 and crowd["bbox"] == [1, 1, 16, 16]
    assert isinstance(crowd["segmentation"], dict)


def test_distractors_are_not_annotated():
    distractor = replace(box_sprite(10, 10, 4), category=None)
    scene = make_scene(distractor)
    assert annotate(scene, render(scene), Dice([0])) == []
    covered = make_scene(box_sprite(8, 10, 5), replace(distractor, pose=Pose(14, 10, 4)))
    (annotation,) = annotate(covered, render(covered), Dice([0]))
    assert annotation["bbox"] == [3, 5, 10, 10] and annotation["area"] == 100 - 3 * 8


@pytest.fixture(scope="module", params=[64, 160])
def drawn(request):
    """60 scenes with their pixels and annotations."""
    result = []
    for index in range(60):
        scene = sample_scene(request.param, Dice([7, index]))
        rendered = render(scene)
        result.append((scene, rendered, annotate(scene, rendered, Dice([7, index, 1]))))
    return result


def test_annotations_are_the_visible_masks(drawn):
    for scene, rendered, found in drawn:
        masks = {}
        for index, sprite in enumerate(scene.sprites):
            if sprite.category is not None and rendered.mask(index).any():
                key = index if sprite.crowd is None else "crowd"
                masks[key] = masks.get(key, False) | rendered.mask(index)
        # objects in depth order, then the crowd
        ordered = sorted(masks, key=lambda key: (key == "crowd", key if key != "crowd" else 0))
        assert len(ordered) == len(found)
        for key, annotation in zip(ordered, found):
            mask = masks[key]
            assert annotation["iscrowd"] == (key == "crowd")
            assert iou(decode(annotation["segmentation"], *mask.shape), mask) > 0.9
            rows, columns = np.nonzero(mask)
            x, y, width, height = annotation["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
            assert annotation["area"] == mask.sum()


def test_visible_masks_are_disjoint(drawn):
    for scene, _, found in drawn:
        total = sum(
            decode(a["segmentation"], scene.height, scene.width).astype(int)
            for a in found
            if isinstance(a["segmentation"], dict)  # polygons are exact to a pixel only
        )
        assert np.max(total) <= 1


def test_objects_are_mostly_visible(drawn):
    for scene, rendered, _ in drawn:
        for index, sprite in enumerate(scene.sprites):
            if sprite.category is not None and sprite.crowd is None:
                assert (
                    rendered.mask(index).sum() >= ShapesStyle().min_visible * rendered.areas[index]
                )


def test_every_kind_of_annotation_turns_up():
    kinds, crowds, empty, pieces, names = {"polygon": 0, "str": 0, "list": 0}, 0, 0, 0, set()
    for index in range(120):
        scene = sample_scene(64, Dice([3, index]))
        found = annotate(scene, render(scene), Dice([3, index, 1]))
        empty += not found
        for annotation in found:
            names.add(annotation["category_id"])
            segmentation = annotation["segmentation"]
            polygon = isinstance(segmentation, list)
            kinds["polygon" if polygon else type(segmentation["counts"]).__name__] += 1
            crowds += annotation["iscrowd"]
            pieces += polygon and len(segmentation) > 1
    total = sum(kinds.values())
    assert all(0.2 < count / total < 0.5 for count in kinds.values()), kinds
    assert crowds and empty and pieces
    assert names == {category.id for category in CATEGORIES}


@pytest.mark.parametrize("kind", sorted(TREATMENTS))
def test_treatments_change_the_visible_mask_or_hide_its_outline(kind):
    style = ShapesStyle(hard_kinds={kind: 1.0})
    sprite = Sprite(SQUARE, (UNIT_SQUARE,), Pose(80, 80, 30), RED)
    for seed in range(10):
        hard, over = TREATMENTS[kind](sprite, 160, style, Dice([seed]))
        assert hard.category == SQUARE and all(s.category is None for s in over)
        drawn = render(make_scene(hard, *over, side=160))
        if kind == "fade":
            assert drawn.mask(0).sum() == 3600
            assert drawn.image[drawn.mask(0)][:, 0].min() < 150  # red melts into the grey of 90
        else:
            plain = render(make_scene(sprite, side=160)).mask(0)
            assert 0.2 < iou(drawn.mask(0), plain) < 0.95


# ---- files


def write(folder, **changes) -> bool:
    return write_coco(folder, **{"train": 6, "val": 3, "size": 64, "seed": 5, **changes})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "shapes"
    assert write(folder)
    return folder


def test_same_arguments_give_the_same_bytes(written, tmp_path):
    write(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(written)


def test_another_seed_gives_other_images(written, tmp_path):
    write(tmp_path / "other", seed=6)
    for name in ("train/000000.png", "val/000000.png"):
        assert (tmp_path / "other" / name).read_bytes() != (written / name).read_bytes()
    assert (written / "train/000000.png").read_bytes() != (written / "val/000000.png").read_bytes()


def test_an_image_does_not_depend_on_their_number(written, tmp_path):
    write(tmp_path / "more", train=8, val=0)
    for index in range(6):
        name = f"train/{index:06d}.png"
        assert (tmp_path / "more" / name).read_bytes() == (written / name).read_bytes()
    few, more = (
        json.loads((folder / "annotations/instances_train.json").read_text())["annotations"]
        for folder in (written, tmp_path / "more")
    )
    assert more[: len(few)] == few


def test_json_loads_in_pycocotools_and_detectron2(written):
    json_file = written / "annotations/instances_train.json"
    coco = COCO(str(json_file))
    assert len(coco.imgs) == 6 and sorted(coco.cats) == [1, 2, 4, 5, 7, 9]
    assert min(coco.anns) == 1
    dicts = load_coco_json(str(json_file), str(written / "train"), "shapes_written_by_a_test")
    assert len(dicts) == 6
    labels = {a["category_id"] for d in dicts for a in d["annotations"]}
    assert labels <= set(range(6))
    image = cv2.imread(dicts[0]["file_name"])
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8


def test_image_ids_differ_between_splits(written):
    ids = [
        image["id"]
        for split in ("train", "val")
        for image in json.loads((written / f"annotations/instances_{split}.json").read_text())[
            "images"
        ]
    ]
    assert len(set(ids)) == 9


def test_a_complete_set_is_left_alone(tmp_path):
    assert write(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    assert not write(tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}


def test_other_settings_need_overwrite(tmp_path, written):
    write(tmp_path, train=9, seed=1)
    with pytest.raises(ValueError, match=r"train 9, now 6.*--overwrite"):
        write(tmp_path)
    with pytest.raises(ValueError, match="style"):
        write(tmp_path, train=9, seed=1, style=ShapesStyle(hard_share=0.1))
    assert write(tmp_path, overwrite=True)
    assert digest(tmp_path) == digest(written)  # nothing of the larger set is left


@pytest.mark.parametrize("after", [0, 4, 7])
def test_a_killed_run_is_repaired(tmp_path, written, monkeypatch, after):
    real, calls = files._write_image, []

    def die(*args):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(files, "_write_image", die)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    monkeypatch.undo()
    (tmp_path / "train" / ".000004.png.123.tmp").write_bytes(b"half a file")
    assert write(tmp_path)
    assert digest(tmp_path) == digest(written)


@pytest.mark.parametrize("name", ["train/000002.png", "annotations/instances_val.json"])
@pytest.mark.parametrize("harm", ["removed", "cut short"])
def test_a_damaged_set_is_repaired(tmp_path, written, name, harm):
    write(tmp_path)
    if harm == "removed":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
    assert write(tmp_path)
    assert digest(tmp_path) == digest(written)


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "000001.png").write_bytes(b"a photograph")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not written by this generator"):
            write(tmp_path, overwrite=overwrite)
    assert (tmp_path / "train" / "000001.png").read_bytes() == b"a photograph"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"settings": 1, "complete": true}'])
def test_a_foreign_marker_is_an_error(tmp_path, text):
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(ValueError, match="delete it"):
        write(tmp_path)


@pytest.mark.parametrize(
    "name, value",
    [("train", -1), ("val", 2.0), ("size", 63), ("size", 5000), ("size", True), ("seed", -1)]
    + [("seed", 2**32), ("seed", "0"), ("train", 10**6)],
)
def test_bad_arguments(tmp_path, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be an integer from .* got {value!r}"):
        write(tmp_path / "none", **{name: value})
    assert not (tmp_path / "none").exists()


def test_nothing_to_write(tmp_path):
    with pytest.raises(ValueError, match="both 0"):
        write(tmp_path, train=0, val=0)
