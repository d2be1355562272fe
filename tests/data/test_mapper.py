"""The mapper against masks made by hand, for every kind of annotation."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from PIL import Image
from tiny_coco import annotation, mask_of, polygon_of, rle_of, write_image

from msr_d2.data import MAPPER_REGISTRY, DatasetError, InstanceMapper, build_mapper
from msr_d2.data.legacy_resize import LegacyResizeShortestEdge
from msr_d2.testing import tiny_cfg

BOXES = [(8, 4, 30, 20), (40, 10, 90, 60), (2, 30, 20, 62)]
SIZE = (64, 96)


def item(folder, segmentations, boxes=BOXES, **more):
    annotations = [
        {**annotation(i, 1, box, segmentation, **more), "bbox_mode": BoxMode.XYWH_ABS}
        for i, (box, segmentation) in enumerate(zip(boxes, segmentations))
    ]
    for i, a in enumerate(annotations):
        a["category_id"] = i
    return {
        "file_name": str(write_image(folder / "image.png")),
        "height": SIZE[0],
        "width": SIZE[1],
        "image_id": 17,
        "annotations": annotations,
    }


def mapper(*augmentations, **more):
    arguments = dict(image_format="BGR", use_instance_mask=True)
    return InstanceMapper(True, augmentations=list(augmentations), **{**arguments, **more})


def bits(instances, size=SIZE):
    """Masks (N, H, W) of ground truth of either kind."""
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *size)
    return masks.tensor.numpy()


def make(kind, box):
    return polygon_of(*box) if kind == "polygon" else rle_of(mask_of(*box), kind)


@pytest.mark.parametrize(
    "kinds, expected",
    [
        (("polygon",) * 3, PolygonMasks),
        (("string",) * 3, BitMasks),
        (("bytes",) * 3, BitMasks),
        (("list",) * 3, BitMasks),
        (("polygon", "list", "string"), BitMasks),
        (("bytes", "polygon", "polygon"), BitMasks),
    ],
)
def test_every_kind_of_mask(tmp_path, kinds, expected):
    data = item(tmp_path, [make(kind, box) for kind, box in zip(kinds, BOXES)])
    mapped = mapper()(data)
    instances = mapped["instances"]
    assert isinstance(instances.gt_masks, expected)
    assert np.array_equal(bits(instances), [mask_of(*box) for box in BOXES])
    assert torch.equal(instances.gt_boxes.tensor, torch.tensor(BOXES, dtype=torch.float32))
    assert instances.gt_classes.tolist() == [0, 1, 2]
    assert mapped["image_id"] == 17 and mapped["file_name"].endswith("image.png")
    assert "annotations" not in mapped and len(data["annotations"]) == 3


def test_polygons_equal_detectron2(tmp_path):
    data = item(tmp_path, [polygon_of(*box) for box in BOXES])
    augmentations = [T.ResizeShortestEdge(96), T.RandomFlip(prob=1.0)]
    arguments = dict(image_format="BGR", use_instance_mask=True)
    ours = InstanceMapper(True, augmentations=augmentations, **arguments)(data)
    theirs = DatasetMapper(True, augmentations=augmentations, **arguments)(data)
    assert torch.equal(ours["image"], theirs["image"])
    for mine, other in zip(ours["instances"].gt_masks, theirs["instances"].gt_masks):
        assert np.array_equal(mine, other)
    boxes = [x["instances"].gt_boxes.tensor for x in (ours, theirs)]
    assert torch.equal(*boxes)


def test_flip_and_resize_move_masks_of_both_kinds_alike(tmp_path):
    segmentations = [polygon_of(*BOXES[0]), rle_of(mask_of(*BOXES[1])), polygon_of(*BOXES[2])]
    flip = T.RandomFlip(prob=1.0)
    instances = mapper(flip, T.Resize((128, 192)))(item(tmp_path, segmentations))["instances"]
    expected = [np.kron(mask_of(*box)[:, ::-1], np.ones((2, 2))) for box in BOXES]
    assert np.array_equal(bits(instances, (128, 192)), expected)


class Crop(T.Augmentation):
    """Always the same crop."""

    def get_transform(self, image):
        return T.CropTransform(20, 0, 40, 64)


@pytest.mark.parametrize("kind", ["polygon", "list"])
def test_crop_clips_masks_and_tightens_boxes(tmp_path, kind):
    data = item(tmp_path, [make(kind, box) for box in BOXES])
    instances = mapper(Crop(), recompute_boxes=True)(data)["instances"]
    assert isinstance(instances.gt_masks, BitMasks)
    # The third object (columns 2..20) is outside of the crop (columns 20..60) and disappears.
    assert instances.gt_classes.tolist() == [0, 1]
    assert np.array_equal(bits(instances), [mask_of(*box)[:, 20:60] for box in BOXES[:2]])
    assert instances.gt_boxes.tensor.tolist() == [[0, 4, 10, 20], [20, 10, 40, 60]]


def test_cropped_box_is_that_of_the_visible_part(tmp_path):
    """detectron2's example: a triangle whose corner is cut off has a lower box."""
    triangle = [[0, 0, 40, 0, 0, 40]]
    data = item(tmp_path, [triangle], [(0, 0, 40, 40)])
    instances = mapper(Crop(), recompute_boxes=True)(data)["instances"]
    x1, y1, x2, y2 = instances.gt_boxes.tensor[0].tolist()
    assert (x1, y1) == (0, 0) and 18 <= x2 <= 20 and 18 <= y2 <= 21


def test_crop_without_objects(tmp_path):
    instances = mapper(Crop(), recompute_boxes=True)(item(tmp_path, []))["instances"]
    assert len(instances) == 0


def test_crop_that_cuts_nothing_keeps_polygons(tmp_path):
    data = item(tmp_path, [polygon_of(22, 4, 50, 20)], [(22, 4, 50, 20)])
    instances = mapper(Crop(), recompute_boxes=True)(data)["instances"]
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert instances.gt_boxes.tensor.tolist() == [[2, 4, 30, 20]]


def test_crop_by_config(tmp_path):
    opts = ["INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", [0.5, 0.5]]
    made = build_mapper(tiny_cfg(opts=opts), is_train=True)
    data = item(tmp_path, [polygon_of(*BOXES[0]), rle_of(mask_of(*BOXES[1])), [[1, 1]]])
    for seed in range(20):
        np.random.seed(seed)
        instances = made(data)["instances"]
        if len(instances):
            boxes = instances.gt_boxes.tensor
            assert torch.equal(boxes, instances.gt_masks.get_bounding_boxes().tensor)


def test_crowd_and_degenerate_annotations_are_left_out(tmp_path, caplog):
    segmentations = [polygon_of(*BOXES[0])] * 2 + [[[1, 2, 3, 4]], [], polygon_of(5, 5, 5, 9)]
    data = item(tmp_path, segmentations, [BOXES[0]] * 5)
    data["annotations"][1]["iscrowd"] = 1
    data["annotations"][4]["bbox"] = [5, 5, 0, 4]
    small = rle_of(mask_of(1, 1, 5, 5, (8, 8)))
    data["annotations"].append({**data["annotations"][0], "segmentation": small})
    apply = mapper()
    assert apply(data)["instances"].gt_classes.tolist() == [0]
    apply(data)
    assert caplog.text.count("Left out annotation 2 of") == 1  # once, not in every epoch
    assert "image.png': run-length mask of another size than the image" in caplog.text


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_image_without_objects_has_all_fields(tmp_path, mask_format):
    mapped = mapper(instance_mask_format=mask_format)(item(tmp_path, []))
    fields = mapped["instances"].get_fields()
    assert set(fields) == {"gt_boxes", "gt_classes", "gt_masks"}
    assert all(len(value) == 0 for value in fields.values())


def test_bitmasks_on_request(tmp_path):
    data = item(tmp_path, [polygon_of(*box) for box in BOXES])
    instances = mapper(instance_mask_format="bitmask")(data)["instances"]
    assert np.array_equal(instances.gt_masks.tensor.numpy(), [mask_of(*box) for box in BOXES])


def test_boxes_only_model(tmp_path):
    data = item(tmp_path, [[], [[1, 2]], rle_of(mask_of(*BOXES[2]))])
    instances = mapper(use_instance_mask=False)(data)["instances"]
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes"} and len(instances) == 3


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16", "RGBA", "P"])
def test_images_of_other_modes(tmp_path, mode):
    data = item(tmp_path, [])
    suffix = ".jpg" if mode == "CMYK" else ".png"
    data["file_name"] = str(tmp_path / f"other{suffix}")
    if mode == "I;16":
        Image.fromarray(np.full(SIZE, 200, np.uint16)).save(data["file_name"])
    else:
        Image.fromarray(np.full((*SIZE, 3), 200, np.uint8)).convert(mode).save(data["file_name"])
    image = mapper()(data)["image"]
    assert image.shape == (3, *SIZE) and image.dtype == torch.uint8


def test_exif_orientation_is_applied(tmp_path):
    upright = np.zeros((*SIZE, 3), np.uint8)
    upright[:32] = 255
    exif = Image.Exif()
    exif[274] = 6  # the file is to be turned clockwise by 90 degrees to be upright
    path = tmp_path / "turned.png"
    Image.fromarray(np.rot90(upright).copy()).save(path, exif=exif)
    data = {**item(tmp_path, []), "file_name": str(path)}
    assert np.array_equal(mapper()(data)["image"].permute(1, 2, 0).numpy(), upright)


def damage(path, how):
    content = open(path, "rb").read()
    if how == "missing":
        import os

        os.remove(path)
    else:
        new = {"truncated": content[: len(content) // 2], "text": b"<html>", "empty": b""}[how]
        open(path, "wb").write(new)


@pytest.mark.parametrize("how", ["truncated", "text", "empty", "missing"])
def test_bad_image_is_named_and_skipped_in_training(tmp_path, how, caplog):
    data = item(tmp_path, [polygon_of(*BOXES[0])])
    damage(data["file_name"], how)
    assert mapper()(data) is None
    assert data["file_name"] in caplog.text and "Replace the file" in caplog.text


@pytest.mark.parametrize("how", ["truncated", "text", "empty", "missing"])
def test_bad_image_is_an_error_in_inference(tmp_path, how):
    data = item(tmp_path, [])
    damage(data["file_name"], how)
    infer = InstanceMapper(False, augmentations=[], image_format="BGR")
    with pytest.raises(DatasetError, match="image.png.*Replace the file"):
        infer(data)


def test_wrong_size_names_the_file_and_exif(tmp_path, caplog):
    data = {**item(tmp_path, []), "height": 96, "width": 64}
    assert mapper()(data) is None
    assert "image.png" in caplog.text and "EXIF" in caplog.text
    infer = InstanceMapper(False, augmentations=[], image_format="BGR")
    with pytest.raises(DatasetError, match="Correct its height and width"):
        infer(data)


def test_errors_that_are_not_about_the_file_are_not_hidden(tmp_path, caplog):
    data = item(tmp_path, [polygon_of(*BOXES[0])])
    del data["annotations"][0]["category_id"]
    with pytest.raises(KeyError):
        mapper()(data)
    assert "failed on image" in caplog.text and "image.png" in caplog.text


def test_inference_keeps_what_evaluators_need(tmp_path):
    infer = build_mapper(tiny_cfg(), is_train=False)
    mapped = infer(item(tmp_path, [polygon_of(*BOXES[0])]))
    assert set(mapped) == {"file_name", "height", "width", "image_id", "image"}


def test_detectron2_mapper_can_be_chosen():
    cfg = tiny_cfg(opts=["INPUT.MAPPER", "DatasetMapper"])
    assert type(build_mapper(cfg, True)) is DatasetMapper
    assert {"DatasetMapper", "InstanceMapper"} <= {name for name, _ in MAPPER_REGISTRY}


def test_unknown_mapper_lists_the_known():
    with pytest.raises(ValueError, match="INPUT.MAPPER is 'Mine'.*InstanceMapper"):
        build_mapper(tiny_cfg(opts=["INPUT.MAPPER", "Mine"]), True)


def test_legacy_models_get_the_legacy_resize():
    cfg = tiny_cfg(opts=["MODEL.LEGACY_BOXES", True])
    for is_train in (True, False):
        made = build_mapper(cfg, is_train)
        assert type(made.augmentations.augs[0]) is LegacyResizeShortestEdge
