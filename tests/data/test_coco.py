"""Reading annotation files: equal to detectron2 on valid ones, helpful on others."""

import json
import logging
import uuid

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json
from tiny_coco import annotation, mask_of, rle_of, write_json, write_set

from msr_d2.data import DatasetError
from msr_d2.data.coco import load_coco_instances

BOX = (10, 5, 30, 25)


def load(path, name=None):
    return load_coco_instances(str(path), "images", name or f"set_{uuid.uuid4().hex}")


@pytest.mark.parametrize("part", ["train", "val"])
def test_equals_detectron2_on_real_data(shared_data, part):
    folder = shared_data / "coco_tiny"
    path, images = str(folder / f"instances_{part}.json"), str(folder / "images")
    ours, theirs = (f"coco_{uuid.uuid4().hex}" for _ in range(2))
    expected = load_coco_json(path, images, theirs, extra_annotation_keys=["id"])
    assert load_coco_instances(path, images, ours) == expected
    for key in ("thing_classes", "thing_dataset_id_to_contiguous_id"):
        assert MetadataCatalog.get(ours).get(key) == MetadataCatalog.get(theirs).get(key)


def test_equals_detectron2_on_keypoints(tmp_path):
    keypoints = [3, 4, 2, 0, 0, 0]
    path = write_json(tmp_path, 1, [annotation(1, 1, BOX, keypoints=keypoints, num_keypoints=1)])
    expected = load_coco_json(str(path), "images", "k_coco", extra_annotation_keys=["id"])
    assert load(path) == expected
    assert expected[0]["annotations"][0]["keypoints"] == [3.5, 4.5, 2, 0.5, 0.5, 0]


def test_broken_masks_are_named_and_missing_ones_kept(tmp_path, caplog):
    annotations = [
        annotation(1, 1, BOX),
        annotation(2, 1, BOX, [[1, 2, 3, 4]]),
        annotation(3, 1, BOX, []),
        annotation(4, 2, BOX, rle_of(mask_of(*BOX), "list")),
        annotation(5, 2, BOX, {"size": [64, 96], "counts": [1, 2]}),
    ]
    with caplog.at_level(logging.WARNING):
        first, second = load(write_json(tmp_path, 2, annotations), "named")
    assert [x["id"] for x in first["annotations"]] == [1, 3]
    assert "segmentation" not in first["annotations"][1]
    assert [x["id"] for x in second["annotations"]] == [4]
    assert "2 annotations of dataset 'named' are left out" in caplog.text
    assert "fewer than 3 points: 1; annotation 2 (images/1.png)" in caplog.text
    assert "do not add up to the mask size: 1; annotation 5 (images/2.png)" in caplog.text


def test_gaps_in_category_ids_and_their_order(tmp_path):
    path = write_json(tmp_path, 1, [annotation(1, 1, BOX, category_id=7)])
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 7, "name": "seven"}, {"id": 2, "name": "two"}]
    path.write_text(json.dumps(content))
    (record,) = load(path, "gaps")
    assert MetadataCatalog.get("gaps").thing_classes == ["two", "seven"]
    assert record["annotations"][0]["category_id"] == 1


def test_set_with_masks_of_both_kinds(tmp_path):
    _, path, images = write_set(tmp_path)
    kinds = {type(a["segmentation"]) for d in load(path) for a in d["annotations"]}
    assert kinds == {dict, list}


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda c: c.pop("images"), "no list ['images']"),
        (lambda c: c.pop("categories"), "no list ['categories']"),
        (lambda c: c["categories"].clear(), "no list ['categories']"),
        (lambda c: c["categories"].append({"id": 1, "name": "again"}), "categories with the same"),
        (lambda c: c["images"].append(c["images"][0]), "two images with the same id"),
        (lambda c: c["images"][0].pop("height"), "image id 1 of '{}' has no ['height']"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "two annotations with id 1"),
        (lambda c: c["annotations"][0].update(category_id=9), "annotation 1 in '{}' has category"),
    ],
)
def test_invalid_files_are_named(tmp_path, edit, message):
    path = write_json(tmp_path, 1, [annotation(1, 1, BOX)])
    change(path, edit)
    with pytest.raises(DatasetError) as error:
        load(path)
    assert message.format(path) in str(error.value)
    assert str(path) in str(error.value)


def test_missing_file_and_no_json(tmp_path):
    with pytest.raises(DatasetError, match="does not exist.*DETECTRON2_DATASETS"):
        load(tmp_path / "none.json", "absent")
    path = tmp_path / "bad.json"
    path.write_text("{'images'")
    with pytest.raises(DatasetError, match="bad.json' is not json"):
        load(path)
