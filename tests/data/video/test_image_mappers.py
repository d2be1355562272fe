"""Single images: as clips of a moving window, and with large-scale jitter."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, BoxMode
from tiny_coco import annotation, polygon_of, write_image

from msr_d2.data import (
    BoxImageMapper,
    ClipMapper,
    InstanceMapper,
    build_mapper,
    build_train_loader,
)
from msr_d2.data.build import mapper_name
from msr_d2.data.seeding import seeded
from msr_d2.data.video.pseudo_clips import DriftingCrop, PseudoClips
from msr_d2.testing import tiny_cfg, tiny_vis_cfg

A, B = (8, 4, 30, 20), (40, 10, 90, 60)
SIZE = (64, 96)


def record(folder, boxes=(A, B), **more):
    annotations = [
        {**annotation(i, 1, box), "bbox_mode": BoxMode.XYWH_ABS, "category_id": i}
        for i, box in enumerate(boxes)
    ]
    return {
        "file_name": str(write_image(folder / "image.png")),
        **{"height": SIZE[0], "width": SIZE[1], "image_id": 17, "source": "images"},
        "annotations": annotations,
        **more,
    }


def lsj(kind="box", is_train=True, **keys):
    opts = ["INPUT.DATASET_MAPPER_NAME", "coco_instance_lsj", "MODEL.MASK_FREE.SUPERVISION", kind]
    opts += [x for key, value in keys.items() for x in ("INPUT." + key, value)]
    return build_mapper(tiny_vis_cfg(opts=opts), is_train)


def pseudo(kind="box", **keys):
    opts = ["MODEL.MASK_FREE.SUPERVISION", kind, "INPUT.PSEUDO.MIN_SIZE_TRAIN", (64,)]
    opts += [x for key, value in keys.items() for x in ("INPUT." + key.replace("__", "."), value)]
    return build_mapper(tiny_vis_cfg(opts=opts), True)


def test_the_mapper_fits_the_model():
    assert mapper_name(tiny_cfg()) == "InstanceMapper"
    assert isinstance(build_mapper(tiny_cfg(), True), InstanceMapper)
    assert isinstance(build_mapper(tiny_vis_cfg(), True), ClipMapper)
    assert isinstance(lsj(), BoxImageMapper)
    assert mapper_name(tiny_vis_cfg(opts=["INPUT.MAPPER", "DatasetMapper"])) == "DatasetMapper"


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_lsj_images_are_scaled_cropped_and_not_padded(tmp_path, kind):
    one = lsj(kind, IMAGE_SIZE=64, MIN_SCALE=0.5, MAX_SCALE=2.0)
    shapes = set()
    for seed in range(15):
        with seeded(seed):
            item = one(record(tmp_path))
        instances = item["instances"]
        height, width = item["image"].shape[1:]
        shapes.add((height, width))
        assert height <= 64 and width <= 64 and instances.image_size == (height, width)
        boxes = instances.gt_boxes.tensor
        assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        assert instances.has("gt_masks") == (kind == "mask")
        assert (item["supervision"], item["source"], item["image_id"]) == (kind, "images", 17)
        assert (item["height"], item["width"]) == SIZE
    assert len(shapes) > 5 and max(h * w for h, w in shapes) == 64 * 64
    if kind == "mask":
        assert isinstance(instances.gt_masks, BitMasks)


def test_lsj_boxes_are_scaled_exactly(tmp_path):
    item = lsj(RANDOM_FLIP="none", IMAGE_SIZE=96, MIN_SCALE=0.5, MAX_SCALE=0.5)(record(tmp_path))
    assert item["image"].shape == (3, 32, 48)
    assert item["instances"].gt_boxes.tensor.tolist() == [[4, 2, 15, 10], [20, 5, 45, 30]]
    assert item["instances"].gt_classes.tolist() == [0, 1]


def test_lsj_in_box_mode_never_looks_at_a_segmentation(tmp_path):
    data = record(tmp_path)
    for x in data["annotations"]:
        x["segmentation"] = object()  # would raise wherever it is used
    assert lsj("box")(data)["instances"].get_fields().keys() == {"gt_boxes", "gt_classes"}


def test_lsj_masks_of_an_image_without_objects(tmp_path):
    instances = lsj("mask")(record(tmp_path, ()))["instances"]
    assert isinstance(instances.gt_masks, BitMasks) and len(instances) == 0
    assert instances.gt_masks.tensor.shape[1:] == instances.image_size


def test_lsj_takes_no_videos():
    with pytest.raises(ValueError, match="video 3 of 's' cannot be used as an image"):
        lsj()({"file_names": [], "video_id": 3, "source": "s"})


@pytest.mark.parametrize("build", [lsj, lambda is_train: build_mapper(tiny_vis_cfg(), is_train)])
def test_images_in_inference(tmp_path, build):
    item = build(is_train=False)(record(tmp_path))
    assert item["image"].shape == (3, 64, 96) and "instances" not in item
    assert (item["height"], item["width"], item["image_id"]) == (64, 96, 17)


def test_a_clip_of_an_image(tmp_path):
    keys = dict(PSEUDO__SAMPLING_FRAME_NUM=4, PSEUDO__AUGMENTATIONS=[], RANDOM_FLIP="none")
    item = pseudo(**keys)(record(tmp_path))
    assert len(item["image"]) == len(item["instances"]) == item["length"] == 4
    assert all(torch.equal(x, item["image"][0]) for x in item["image"])
    assert item["instances"][2].gt_boxes.tensor.tolist() == [list(map(float, b)) for b in (A, B)]
    assert item["instances"][1].gt_ids.tolist() == [0, 1]
    assert item["image_id"] == 17 and item["frame_indices"] == [0, 1, 2, 3]
    assert (item["supervision"], item["source"]) == ("box", "images")
    assert len(item["file_names"]) == 4 and (item["height"], item["width"]) == SIZE


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_rotated_clips_follow_their_objects(tmp_path, kind):
    item = pseudo(kind, PSEUDO__SAMPLING_FRAME_NUM=5)(record(tmp_path))
    assert len({x.numpy().tobytes() for x in item["image"]}) == 5
    boxes = torch.stack([x.gt_boxes.tensor for x in item["instances"]])
    steps = boxes[1:, :, 0] - boxes[:-1, :, 0]
    assert len(torch.unique(boxes[:, 0, 0])) > 1 and steps.abs().max() < 30
    assert all(x.has("gt_masks") == (kind == "mask") for x in item["instances"])
    if kind == "mask":
        for frame in item["instances"]:
            present = frame.gt_ids >= 0
            tight = frame.gt_masks.get_bounding_boxes().tensor[present]
            assert torch.equal(tight, frame.gt_boxes.tensor[present])


def test_a_window_drifts_in_even_steps():
    crop = DriftingCrop("absolute_range", (200, 300), probability=1.0)
    seen = set()
    for seed in range(20):
        transforms = crop.draw((64, 96), 5, np.random.default_rng(seed))
        resize, first = transforms[0].transforms
        assert resize.new_h in (400, 500, 600)
        windows = [t.transforms[1] for t in transforms]
        assert {(w.h, w.w) for w in windows} == {(first.h, first.w)}
        corners = np.array([(w.y0, w.x0) for w in windows])
        assert (corners >= 0).all()
        assert (corners + (first.h, first.w) <= (resize.new_h, resize.new_w)).all()
        steps = np.diff(corners, axis=0)
        assert (np.abs(steps - steps.mean(0)) <= 1).all()
        seen.add(tuple(corners[0]))
    assert len(seen) == 20


def test_half_of_the_clips_are_cropped():
    clips = PseudoClips(2, [DriftingCrop("absolute", (300, 300))])
    cropped = 0
    for seed in range(200):
        transforms = clips.draw(SIZE, np.random.default_rng(seed))
        cropped += transforms[0].apply_image(np.zeros((*SIZE, 3), np.uint8)).shape == (300, 300, 3)
    assert 75 < cropped < 125


def test_masks_of_a_drifting_window(tmp_path):
    """Without rotation a mask moves as its box does."""
    keys = dict(PSEUDO__AUGMENTATIONS=[], PSEUDO__CROP__ENABLED=True, PSEUDO__CROP__SIZE=(200, 300))
    one = pseudo("mask", PSEUDO__SAMPLING_FRAME_NUM=3, **keys)
    data = record(tmp_path)
    data["annotations"][0]["segmentation"] = polygon_of(*A)
    for seed in range(6):
        with seeded(seed):
            item = one(data)
        assert len({x.shape for x in item["image"]}) == 1
        for frame in item["instances"]:
            for mask, box, number in zip(
                frame.gt_masks.tensor, frame.gt_boxes.tensor, frame.gt_ids
            ):
                x1, y1, x2, y2 = box.round().int().tolist()
                assert number >= 0 or not mask.any()
                assert mask[y1:y2, x1:x2].all() and mask.sum() == (x2 - x1) * (y2 - y1)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"INPUT.PSEUDO.AUGMENTATIONS has \['zoom'\]"):
        pseudo(PSEUDO__AUGMENTATIONS=["zoom"])


def test_names_of_mappers_of_the_family():
    def name(value):
        return mapper_name(tiny_vis_cfg(opts=["INPUT.DATASET_MAPPER_NAME", value]))

    assert name("coco_instance_lsj") == "BoxImageMapper"
    others = ("", "coco_panoptic_lsj", "mask_former_instance", "mask_former_semantic")
    assert {name(other) for other in others} == {"ClipMapper"}
    with pytest.raises(ValueError, match="DATASET_MAPPER_NAME is 'coco_instance_ljs'.*_lsj"):
        name("coco_instance_ljs")
    with pytest.raises(ValueError, match="DATASET_MAPPER_NAME is 'coco_instance_ljs'"):
        build_train_loader(tiny_vis_cfg(opts=["INPUT.DATASET_MAPPER_NAME", "coco_instance_ljs"]))


def test_impossible_crops_name_their_key():
    with pytest.raises(ValueError, match=r"INPUT.PSEUDO.CROP.SIZE is \(600, 384\).*least"):
        pseudo(PSEUDO__CROP__ENABLED=True, PSEUDO__CROP__SIZE=(600, 384))
    with pytest.raises(ValueError, match=r"INPUT.PSEUDO.MIN_SIZE_TRAIN is \(64, 32\).*Swap"):
        sampling = "range_by_clip"
        pseudo(PSEUDO__MIN_SIZE_TRAIN=(64, 32), PSEUDO__MIN_SIZE_TRAIN_SAMPLING=sampling)
