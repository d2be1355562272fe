"""Checks before the training: unusable annotations, numbers of classes, names."""

import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from tiny_coco import CATEGORIES, annotation, write_json, write_set

from msr_d2.data import (
    DatasetError,
    check_dataset_dicts,
    check_num_classes,
    register_coco,
    register_from_config,
)
from msr_d2.testing import tiny_cfg


def record(*annotations, name="a.png"):
    return {"file_name": name, "height": 64, "width": 96, "annotations": list(annotations)}


def xywh(annotation_id, box, **more):
    from detectron2.structures import BoxMode

    return {**annotation(annotation_id, 1, box, **more), "bbox_mode": BoxMode.XYWH_ABS}


def test_report_counts_names_and_keeps_the_rest(caplog):
    good, thin = xywh(1, (1, 1, 20, 20)), xywh(2, (5, 5, 5, 20))
    dicts = [record(good, thin), record(good, name="b.png")]
    with caplog.at_level(logging.WARNING):
        checked = check_dataset_dicts(dicts, "mine", with_masks=True)
    assert [len(d["annotations"]) for d in checked] == [1, 1]
    assert len(dicts[0]["annotations"]) == 2  # the input is left alone
    assert "1 annotations of dataset 'mine' are left out" in caplog.text
    assert "box without width or height: 1; annotation 2 (a.png)" in caplog.text


def test_many_of_a_kind_are_not_all_listed(caplog):
    dicts = [record(*(xywh(i, (5, 5, 5, 20)) for i in range(9)))]
    check_dataset_dicts(dicts, "mine", with_masks=True)
    assert "9; annotation 0 (a.png), 1" in caplog.text and "4 (a.png), ..." in caplog.text
    assert "5 (a.png)" not in caplog.text


def test_nothing_to_report_is_silent(caplog):
    dicts = [record(xywh(1, (1, 1, 20, 20))), record()]
    with caplog.at_level(logging.WARNING):
        assert check_dataset_dicts(dicts, "mine", with_masks=True) == dicts
    assert not caplog.records


def test_images_of_unknown_size_are_left_to_the_mapper():
    dicts = [{"file_name": "a.png", "annotations": [xywh(1, (5, 5, 5, 20))]}]
    assert check_dataset_dicts(dicts, "mine", with_masks=True) == dicts


def test_boxes_only_for_a_model_with_masks():
    dicts = [record(xywh(1, (1, 1, 20, 20), segmentation=[]))]
    with pytest.raises(DatasetError, match="none of its 1 annotations.*MODEL.MASK_ON False"):
        check_dataset_dicts(dicts, "boxes", with_masks=True)
    assert len(check_dataset_dicts(dicts, "boxes", with_masks=False)[0]["annotations"]) == 1


def cfg_for(*sets, num_classes=3):
    cfg = tiny_cfg(num_classes=num_classes)
    cfg.DATASETS.REGISTER = list(sets)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (sets[0][0],), tuple(s[0] for s in sets[1:])
    register_from_config(cfg)
    return cfg


def test_agreement_passes_without_loading_the_images(tmp_path):
    check_num_classes(cfg_for(write_set(tmp_path / "a"), write_set(tmp_path / "b")))


@pytest.mark.parametrize("num_classes", [2, 80])
def test_num_classes_that_contradict_name_the_cure(tmp_path, num_classes):
    entry = write_set(tmp_path)
    with pytest.raises(DatasetError) as error:
        check_num_classes(cfg_for(entry, num_classes=num_classes))
    assert f"'{entry[0]}' has 3 classes" in str(error.value)
    assert str(error.value).endswith("Set MODEL.ROI_HEADS.NUM_CLASSES 3.")


def test_retinanet_has_its_own_key(tmp_path):
    cfg = cfg_for(write_set(tmp_path))
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    with pytest.raises(DatasetError, match="Set MODEL.RETINANET.NUM_CLASSES 3"):
        check_num_classes(cfg)


@pytest.mark.parametrize(
    "categories, message",
    [
        (("disc", "box", "moon"), r"only in the first: \['star'\], only in the second: \['moon'\]"),
        (("disc", "star", "box"), "the same names in another order"),
        (CATEGORIES[:2], r"\(3 classes\) and .* \(2 classes\)"),
    ],
)
def test_train_and_test_sets_with_different_classes(tmp_path, categories, message):
    train, other = write_set(tmp_path / "a"), write_set(tmp_path / "b")
    write_json(tmp_path / "b", 4, [], categories)
    with pytest.raises(DatasetError, match=message):
        check_num_classes(cfg_for(train, other))


def test_unknown_name_lists_the_known(tmp_path):
    cfg = cfg_for(write_set(tmp_path))
    cfg.DATASETS.TEST = ("nobody",)
    with pytest.raises(DatasetError, match="'nobody' is not registered.*coco_2017_train.*REGISTER"):
        check_num_classes(cfg)


def test_sets_of_other_origin_are_believed():
    DatasetCatalog.register("by_hand", lambda: [])
    MetadataCatalog.get("by_hand").thing_classes = ["a", "b"]
    DatasetCatalog.register("without_names", lambda: [])
    cfg = tiny_cfg(num_classes=2)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("by_hand",), ("without_names",)
    check_num_classes(cfg)


def test_missing_file_of_a_built_in_set(tmp_path):
    register_coco("not_there", str(tmp_path / "x.json"), str(tmp_path))
    cfg = tiny_cfg()
    cfg.DATASETS.TRAIN = ("not_there",)
    with pytest.raises(DatasetError, match="'not_there': the annotation file .* does not exist"):
        check_num_classes(cfg)
