"""Training clips against ground truth made by hand; no masks with box supervision."""

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from tiny_coco import mask_of
from tiny_ytvis import SIZE, track, write_videos

from msr_d2.data import (
    ClipMapper,
    TooManyBadImagesError,
    build_test_loader,
    build_train_loader,
    register_from_config,
)
from msr_d2.data.seeding import seeded
from msr_d2.data.video import Supervision, load_ytvis_instances
from msr_d2.data.video.augmentation import ClipAugmentation, FlipByClip, ResizeShortestEdgeByClip
from msr_d2.testing import tiny_vis_cfg

A, B, C = (8, 4, 30, 20), (40, 10, 90, 60), (2, 30, 20, 62)


class Fixed(ClipAugmentation):
    """Always the same transform."""

    def __init__(self, transform):
        self._transform = transform

    def draw(self, size, num_frames, generator):
        return [self._transform] * num_frames


def mapper(*augmentations, kind="box", **more):
    arguments = dict(
        num_frames=3,
        frame_range=3,
        shuffle=False,
        replace=False,
        image_format="RGB",
        test_size=(32, 1000),
        supervision=Supervision(kind),
        pseudo_clips=None,
        image_mapper=None,
    )
    return ClipMapper(True, augmentations=augmentations, **{**arguments, **more})


def video(folder, tracks, lengths=(3,)):
    name, json_file, image_root = write_videos(folder, tracks, lengths)
    return {**load_ytvis_instances(json_file, image_root, name)[0], "source": "mine"}


def boxes(item):
    return torch.stack([x.gt_boxes.tensor for x in item["instances"]]).tolist()


def ids(item):
    return [x.gt_ids.tolist() for x in item["instances"]]


def test_a_clip(tmp_path):
    record = video(tmp_path, [track(5, [A, None, B], category_id=3), track(2, [C, C, C])])
    item = mapper()(record)
    assert [int(x.float().mean()) for x in item["image"]] == [0, 10, 20]
    assert all(x.shape == (3, *SIZE) and x.dtype == torch.uint8 for x in item["image"])
    assert ids(item) == [[2, 5], [2, -1], [2, 5]]
    assert boxes(item) == [
        [list(map(float, C)), list(map(float, A))],
        [list(map(float, C)), [0.0] * 4],
        [list(map(float, C)), list(map(float, B))],
    ]
    assert all(x.gt_classes.tolist() == [0, 2] for x in item["instances"])
    assert all(x.gt_ids.dtype == x.gt_classes.dtype == torch.int64 for x in item["instances"])
    assert (item["supervision"], item["source"], item["video_id"]) == ("box", "mine", 1)
    assert (item["height"], item["width"], item["length"]) == (64, 96, 3)
    assert item["frame_indices"] == [0, 1, 2] and item["file_names"] == record["file_names"]


def test_order_of_frames_is_that_of_all_lists(tmp_path):
    record = video(tmp_path, [track(1, [(t, 0, t + 5, 5) for t in range(6)])], (6,))
    one = mapper(num_frames=4, frame_range=5, shuffle=True, replace=True)
    for seed in range(10):
        with seeded(seed):
            item = one(record)
        indices = item["frame_indices"]
        assert [int(x.float().mean()) for x in item["image"]] == [10 * t for t in indices]
        assert [b[0][0] for b in boxes(item)] == indices
        assert item["file_names"] == [record["file_names"][t] for t in indices]


def test_a_clip_depends_on_numpys_state_only(tmp_path):
    record = video(tmp_path, [track(1, [A] * 6)], (6,))
    one = mapper(FlipByClip(), replace=True)
    with seeded(3):
        first = one(record)
    one(record)
    with seeded(3):
        again = one(record)
    assert again["frame_indices"] == first["frame_indices"] and boxes(again) == boxes(first)


def test_flip_and_resize_move_boxes_exactly(tmp_path):
    record = video(tmp_path, [track(1, [A] * 3)])
    item = mapper(ResizeShortestEdgeByClip((128,), 999), FlipByClip(1.0))(record)
    assert boxes(item) == [[[132.0, 8.0, 176.0, 40.0]]] * 3
    assert item["image"][0].shape == (3, 128, 192) and item["instances"][0].image_size == (128, 192)


def test_a_crop_cuts_boxes_and_what_is_outside_is_absent(tmp_path):
    record = video(tmp_path, [track(1, [A, C, B]), track(2, [C] * 3)])
    crop = T.CropTransform(20, 0, 40, 64)
    item = mapper(Fixed(crop))(record)
    # The second object is outside in all frames and has no row, the first is outside in one.
    assert ids(item) == [[1], [-1], [1]]
    assert boxes(item) == [[[0.0, 4.0, 10.0, 20.0]], [[0.0] * 4], [[20.0, 10.0, 40.0, 60.0]]]


QUARTER = T.RotationTransform(*SIZE, 90, expand=False)


def test_rotation_gives_the_box_around_the_corners(tmp_path):
    record = video(tmp_path, [track(1, [(43, 22, 63, 32)] * 3)])
    (box,) = boxes(mapper(Fixed(QUARTER))(record))[0]
    # Counter-clockwise about (48, 32): (x, y) -> (48 + (y - 32), 32 - (x - 48)).
    assert box == pytest.approx([38, 17, 48, 37], abs=1.01)
    diagonal = T.RotationTransform(*SIZE, 45, expand=False)
    (box,) = boxes(mapper(Fixed(diagonal))(record))[0]
    assert box[2] - box[0] == pytest.approx(30 / 2**0.5, abs=1e-4)


@pytest.mark.parametrize("kind", ["string", "list", "polygon"])
def test_masks(tmp_path, kind):
    record = video(tmp_path, [track(1, [A, None, B], masks=kind), track(2, [C] * 3, masks=kind)])
    item = mapper(kind="mask")(record)
    masks = [x.gt_masks.tensor.numpy() for x in item["instances"]]
    empty = np.zeros(SIZE, bool)
    expected = [[mask_of(*A), mask_of(*C)], [empty, mask_of(*C)], [mask_of(*B), mask_of(*C)]]
    assert np.array_equal(masks, expected)
    assert item["supervision"] == "mask" and ids(item) == [[1, 2], [-1, 2], [1, 2]]
    flipped = mapper(FlipByClip(1.0), kind="mask")(record)["instances"][0].gt_masks.tensor.numpy()
    assert np.array_equal(flipped, np.array(expected[0])[..., ::-1])


def test_masks_tighten_boxes_after_rotation_and_crop(tmp_path):
    """A triangle whose corner is cut off has a lower box than its box cut off."""
    triangle = [[0, 0, 40, 0, 0, 40]]
    record = video(tmp_path, [track(1, [(0, 0, 40, 40)] * 3, masks=[triangle] * 3)])
    crop = Fixed(T.CropTransform(20, 0, 40, 64))
    assert boxes(mapper(crop)(record))[0] == [[0.0, 0.0, 20.0, 40.0]]
    (box,) = boxes(mapper(crop, kind="mask")(record))[0]
    assert box == pytest.approx([0, 0, 20, 20], abs=1)


def test_a_mask_that_is_cropped_away_is_absent(tmp_path):
    triangle = [[0, 0, 40, 0, 0, 40]]
    record = video(tmp_path, [track(1, [(0, 0, 40, 40)] * 3, masks=[triangle] * 3)])
    crop = Fixed(T.CropTransform(30, 30, 20, 20))  # inside the box, outside the triangle
    assert ids(mapper(crop)(record)) == [[1]] * 3
    assert ids(mapper(crop, kind="mask")(record)) == [[]] * 3


def no_masks(*_, **__):
    raise AssertionError("a mask was decoded")


@pytest.fixture
def masks_forbidden(monkeypatch):
    for name in ("decode", "frPyObjects", "area", "encode", "toBbox", "merge"):
        monkeypatch.setattr(mask_util, name, no_masks)
    monkeypatch.setattr("detectron2.structures.masks.polygons_to_bitmask", no_masks)
    monkeypatch.setattr("msr_d2.data.video.clip_instances.polygons_to_bitmask", no_masks)
    monkeypatch.setattr("msr_d2.data.checks.normalize_segmentation", no_masks)


class Unreadable:
    """A segmentation that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError(f"a segmentation was asked for {name}")

    __len__ = __iter__ = __getitem__ = __eq__ = no_masks
    __hash__ = None


def test_box_supervision_never_looks_at_a_segmentation(tmp_path, masks_forbidden):
    record = video(tmp_path, [track(1, [A, None, B]), track(2, [C] * 3)])
    for frame in record["annotations"]:
        for annotation in frame:
            annotation["segmentation"] = Unreadable()
    item = mapper(FlipByClip(), Fixed(QUARTER))(record)
    fields = {name for x in item["instances"] for name in x.get_fields()}
    assert fields == {"gt_boxes", "gt_classes", "gt_ids"}
    with pytest.raises(AssertionError, match="a mask was decoded"):  # the trap works
        mapper(kind="mask")(record)


def cfg_for(entry, *opts):
    cfg = tiny_vis_cfg(opts=list(opts))
    cfg.DATASETS.REGISTER, cfg.DATASETS.TRAIN = [entry], (entry[0],)
    cfg.DATASETS.TEST = (entry[0],)
    cfg.SOLVER.IMS_PER_BATCH, cfg.SEED = 2, 7
    register_from_config(cfg)
    return cfg


@pytest.mark.parametrize("kind", ["string", "list", "polygon"])
def test_box_supervision_decodes_nothing_from_json_to_batch(tmp_path, monkeypatch, kind):
    tracks = [track(1, [A, None, B] * 2, masks=kind), track(2, [C] * 6, masks=kind)]
    cfg = cfg_for(write_videos(tmp_path, tracks, (6,)))
    with monkeypatch.context() as context:
        for name in ("decode", "frPyObjects", "area", "encode", "toBbox", "merge"):
            context.setattr(mask_util, name, no_masks)
        loader = build_train_loader(cfg)
        with_masks_of_file = next(iter(loader))
    for item in with_masks_of_file:
        assert item["supervision"] == "box"
        assert not any(x.has("gt_masks") for x in item["instances"])
    # The very same batch comes from a file without segmentations.
    content = json.loads((tmp_path / "videos.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentations"]
    (tmp_path / "videos.json").write_text(json.dumps(content))
    for item, other in zip(with_masks_of_file, next(iter(build_train_loader(cfg)))):
        assert item["frame_indices"] == other["frame_indices"]
        assert boxes(item) == boxes(other) and ids(item) == ids(other)


def test_mask_supervision_by_config(tmp_path):
    entry = write_videos(tmp_path, [track(1, [A] * 3, masks="list")])
    for opts in (
        ["MODEL.MASK_FREE.SUPERVISION", "mask"],
        ["MODEL.MASK_FREE.DATASET_SUPERVISION", [[entry[0], "mask"]]],
    ):
        item = next(iter(build_train_loader(cfg_for(entry, *opts))))[0]
        assert item["supervision"] == "mask" and item["source"] == entry[0]
        assert item["instances"][0].gt_masks.tensor.shape == (1, 64, 96)


def signature(batch):
    return [
        (x["video_id"], x["frame_indices"], [i.float().mean().item() for i in x["image"]], boxes(x))
        for x in batch
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_a_function_of_seed_and_iteration(tmp_path, workers):
    tracks = [track(v, [A, B] * 4, video_id=v) for v in (1, 2, 3)]
    opts = ["INPUT.AUGMENTATIONS", ["brightness", "rotation"], "INPUT.SAMPLING_FRAME_SHUFFLE", True]
    cfg = cfg_for(write_videos(tmp_path, tracks, (8, 8, 8)), *opts)
    stream = iter(build_train_loader(cfg))
    whole = [signature(next(stream)) for _ in range(5)]
    assert len({str(batch) for batch in whole}) == 5
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_train_loader(cfg)
    loader.start_iter = 2
    stream = iter(loader)
    assert [signature(next(stream)) for _ in range(3)] == whole[2:]
    stream.close()


def test_bad_frames_are_named_skipped_and_limited(tmp_path, caplog):
    tracks = [track(v, [A] * 3, video_id=v) for v in (1, 2)]
    entry = write_videos(tmp_path, tracks, (3, 3))
    for t in range(3):
        (tmp_path / "JPEGImages" / "1" / f"{t:05d}.png").write_bytes(b"no image")
    cfg = cfg_for(entry)
    stream = iter(build_train_loader(cfg))
    assert {x["video_id"] for _ in range(4) for x in next(stream)} == {2}
    assert "Skipped" in caplog.text and "JPEGImages/1/0000" in caplog.text
    cfg.DATALOADER.MAX_BAD_IMAGES = 0
    with pytest.raises(TooManyBadImagesError, match="JPEGImages/1/0000"):
        stream = iter(build_train_loader(cfg))
        for _ in range(4):
            next(stream)


def test_test_videos(tmp_path):
    entry = write_videos(tmp_path, [track(1, [A] * 5)], (5, 2))
    cfg = cfg_for(entry, "INPUT.MIN_SIZE_TEST", 32)
    items = [batch[0] for batch in build_test_loader(cfg, entry[0])]
    assert [x["video_id"] for x in items] == [1, 2]
    item = items[0]
    assert "instances" not in item and "annotations" not in item
    assert (item["height"], item["width"], item["length"]) == (64, 96, 5)
    assert item["frame_indices"] == [0, 1, 2, 3, 4] and len(item["file_names"]) == 5
    assert len(item["image"]) == 5 and item["image"][3].shape == (3, 32, 48)
    assert [int(x.float().mean()) for x in item["image"]] == [0, 10, 20, 30, 40]


def test_boxes_of_other_modes(tmp_path):
    record = video(tmp_path, [track(1, [A] * 3)])
    for frame in record["annotations"]:
        frame[0].update(bbox=list(A), bbox_mode=BoxMode.XYXY_ABS)
    assert boxes(mapper()(record)) == [[list(map(float, A))]] * 3


def test_crowds_and_annotations_that_cannot_be_used_are_left_out(tmp_path):
    record = video(tmp_path, [track(1, [A] * 3, iscrowd=1), track(2, [(96, 5, 99, 9), B, B])])
    assert ids(mapper()(record)) == [[-1], [2], [2]]  # outside the image an object is absent


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_an_object_is_left_out_of_clips_with_a_frame_of_which_nothing_is_known(tmp_path, kind):
    """Not absent there: it may be visible, and its mask must not be trained to zero."""
    tracks = [track(1, [A] * 4, masks="string"), track(2, [C] * 4, masks="string")]
    if kind == "box":
        tracks[0]["bboxes"][1] = ["a", 1, 2, 3]
    else:
        tracks[0]["segmentations"][1] = {"size": [4, 4], "counts": [16]}
    record = video(tmp_path, tracks, (4,))
    assert ids(mapper(kind=kind, num_frames=4, frame_range=4)(record)) == [[2]] * 4
    one = mapper(kind=kind, num_frames=2, frame_range=1)
    for seed in range(12):
        with seeded(seed):
            item = one(record)
        expected = [2] if 1 in item["frame_indices"] else [1, 2]
        assert ids(item) == [expected] * 2


def test_a_clip_without_objects(tmp_path):
    for kind in ("box", "mask"):
        (first, *_) = mapper(kind=kind)(video(tmp_path, []))["instances"]
        assert len(first) == 0 and first.gt_boxes.tensor.shape == (0, 4)


def test_real_clip_with_null_frames(shared_data):
    folder = shared_data / "vis_tiny"
    images = str(folder / "JPEGImages")
    record = load_ytvis_instances(str(folder / "mosaic_train.json"), images, "mosaic_mapper")[2]
    everything = mapper(num_frames=record["length"], frame_range=99)({**record, "source": ""})
    matrix = np.array(ids(everything))
    assert (matrix == -1).any() and (matrix != -1).any(0).all()
    for t, frame in enumerate(record["annotations"]):
        assert sorted(x["id"] for x in frame) == sorted(matrix[t][matrix[t] >= 0])
    masks = mapper(num_frames=record["length"], frame_range=99, kind="mask")(record)
    for box_frame, mask_frame in zip(everything["instances"], masks["instances"]):
        assert torch.equal(box_frame.gt_ids, mask_frame.gt_ids)
        present = box_frame.gt_ids >= 0
        tight = mask_frame.gt_masks.get_bounding_boxes().tensor[present]
        assert torch.equal(tight, box_frame.gt_boxes.tensor[present])
