"""What is trained on: usable frames and annotations, classes of mixed sets, proportions."""

import itertools
import json
from collections import Counter

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from tiny_coco import write_set
from tiny_ytvis import track, write_videos

from msr_d2.data import (
    DatasetError,
    build_test_loader,
    build_train_loader,
    check_num_classes,
    register_from_config,
)
from msr_d2.data.build import load_train_dicts
from msr_d2.testing import tiny_vis_cfg

A, B = (8, 4, 30, 20), (40, 10, 90, 60)


def cfg_for(*entries, **keys):
    opts = [x for key, value in keys.items() for x in (key.replace("__", "."), value)]
    cfg = tiny_vis_cfg(opts=opts)
    cfg.DATASETS.REGISTER = list(entries)
    cfg.DATASETS.TRAIN = tuple(entry[0] for entry in entries)
    cfg.DATASETS.TEST, cfg.SEED = (entries[-1][0],), 3
    register_from_config(cfg)
    return cfg


def kept(records):
    """Ids of the annotations of every frame of every video, negative where they are ignored."""
    return [
        [[-x["id"] if x.get("ignored") else x["id"] for x in frame] for frame in r["annotations"]]
        for r in records
    ]


def test_a_missing_frame_is_taken_out_and_named(tmp_path, caplog):
    tracks = [track(1, [A, B, A]), track(2, [A] * 2, video_id=2)]
    entry = write_videos(tmp_path, tracks, (3, 2))
    (tmp_path / "JPEGImages/1/00001.png").unlink()
    (tmp_path / "JPEGImages/2/00000.png").unlink()
    (tmp_path / "JPEGImages/2/00001.png").unlink()
    (record,) = load_train_dicts(cfg_for(entry))
    assert [x[-9:] for x in record["file_names"]] == ["00000.png", "00002.png"]
    assert record["length"] == 2 and kept([record]) == [[[1], [1]]]
    assert [f[0]["bbox"] for f in record["annotations"]] == [[8, 4, 22, 16]] * 2
    assert "3 of 5 frames" in caplog.text and "restore the files" in caplog.text
    assert "video 1, frame 1: " + entry[2] + "/1/00001.png" in caplog.text


def test_a_wrong_frame_folder_is_an_error(tmp_path):
    name, path, _ = write_videos(tmp_path, [track(1, [A] * 3)])
    with pytest.raises(DatasetError, match="none of its 3 frames exists .*/1/00000.png.*folder"):
        load_train_dicts(cfg_for([name, path, str(tmp_path)]))


def test_a_test_set_with_a_missing_frame_is_an_error(tmp_path):
    entry = write_videos(tmp_path, [], (3, 2))
    cfg = cfg_for(entry)
    (tmp_path / "JPEGImages/2/00001.png").unlink()
    with pytest.raises(DatasetError, match="frame 1 of video 2, '.*2/00001.png', does not exist"):
        build_test_loader(cfg, entry[0])


def test_boxes_that_cannot_be_used_are_named_with_video_and_frame(tmp_path, caplog):
    tracks = [
        track(1, [A, (5, 5, 5, 9), B]),
        track(2, [(96, 0, 99, 9), A, A]),
        track(3, [A, A, A], iscrowd=1),
    ]
    (record,) = load_train_dicts(cfg_for(write_videos(tmp_path, tracks)))
    # The box without area may hide an object, the one outside the image cannot.
    assert kept([record]) == [[[1, 3], [2, 3, -1], [1, 2, 3]]]
    assert record["annotations"][1][2].keys().isdisjoint({"bbox", "segmentation"})
    assert "box without width or height: 1; annotation 1 (video 1, frame 1: " in caplog.text
    assert "box outside the image: 1; annotation 2 (video 1, frame 0: " in caplog.text


def test_masks_that_cannot_be_used_are_named_where_masks_are_needed(tmp_path, caplog):
    tracks = [track(1, [A] * 3, masks="list"), track(2, [B] * 3, masks="string")]
    tracks[0]["segmentations"][1] = {"size": [6, 9], "counts": [54]}
    tracks[1]["segmentations"][2] = None
    entry = write_videos(tmp_path, tracks)
    assert kept(load_train_dicts(cfg_for(entry))) == [[[1, 2]] * 3]
    assert "left out" not in caplog.text
    cfg = cfg_for(entry, MODEL__MASK_FREE__SUPERVISION="mask")
    assert kept(load_train_dicts(cfg)) == [[[1, 2], [2, -1], [1, -2]]]
    assert "run-length mask of another size than the image: 1; annotation 1" in caplog.text
    assert "no segmentation: 1; annotation 2 (video 1, frame 2" in caplog.text


@pytest.mark.parametrize("box", [["a", 1, 2, 3], 5, "box", [1, 2], [True, 1, 2, 3], {}])
def test_a_box_that_is_none_is_named(tmp_path, caplog, box):
    bad = {**track(1, [A] * 3), "bboxes": [[8, 4, 22, 16], box, None], "ignored_frames": [2]}
    (record,) = load_train_dicts(cfg_for(write_videos(tmp_path, [bad])))
    assert kept([record]) == [[[1], [-1], [-1]]]
    assert "no box of four numbers: 1; annotation 1 (video 1, frame 1: " in caplog.text
    assert "listed in ignored_frames: 1; annotation 1 (video 1, frame 2: " in caplog.text
    assert "left out of all clips that contain the frame" in caplog.text


def test_a_video_of_ignored_objects_alone_is_empty(tmp_path, caplog):
    tracks = [track(1, [A] * 2, ignored_frames=[0, 1]), track(2, [None, B], video_id=2)]
    entry = write_videos(tmp_path, tracks, (2, 2))
    assert [x["video_id"] for x in load_train_dicts(cfg_for(entry))] == [2]


def test_masks_that_are_needed_but_missing(tmp_path):
    entry = write_videos(tmp_path, [track(1, [A] * 3)])
    with pytest.raises(
        DatasetError, match="none of its 3 boxes has a segmentation.*SUPERVISION box"
    ):
        load_train_dicts(cfg_for(entry, MODEL__MASK_FREE__SUPERVISION="mask"))


def test_videos_without_objects_are_dropped_and_named(tmp_path, caplog):
    tracks = [track(1, [A] * 2, iscrowd=1), track(2, [None, B], video_id=2)]
    entry = write_videos(tmp_path, tracks, (2, 2, 1))
    assert [x["video_id"] for x in load_train_dicts(cfg_for(entry))] == [2]
    assert "2 of 3 videos" in caplog.text and "1 (" in caplog.text and "3 (" in caplog.text
    cfg = cfg_for(entry, DATALOADER__FILTER_EMPTY_ANNOTATIONS=False)
    assert [x["video_id"] for x in load_train_dicts(cfg)] == [1, 2, 3]


def test_a_set_without_any_object_is_an_error(tmp_path):
    entry = write_videos(tmp_path, [track(1, [A] * 3, iscrowd=1)])
    with pytest.raises(DatasetError, match=f"'{entry[0]}' cannot be trained on: none of its"):
        load_train_dicts(cfg_for(entry))


def test_supervision_of_a_set_that_is_not_trained_on(tmp_path):
    entry = write_videos(tmp_path, [track(1, [A] * 3)])
    cfg = cfg_for(entry, MODEL__MASK_FREE__DATASET_SUPERVISION=[["typo", "mask"]])
    with pytest.raises(ValueError, match=r"DATASET_SUPERVISION names \['typo'\], but DATASETS"):
        load_train_dicts(cfg)


@pytest.mark.parametrize("entry", ["mask", ["a"], ["a", 3], ["a", "boxes"]])
def test_malformed_supervision(tmp_path, entry):
    cfg = cfg_for(write_videos(tmp_path, [track(1, [A] * 3)]))
    cfg.MODEL.MASK_FREE.DATASET_SUPERVISION = [entry]
    with pytest.raises(ValueError, match="DATASET_SUPERVISION.*'mask'|must be 'box' or 'mask'"):
        load_train_dicts(cfg)


def mixed(tmp_path, video_categories=("star", "Disc"), **keys):
    """Images of the classes disc, box and star, and a video of others."""
    images = write_set(tmp_path / "images", num_images=8)
    videos = write_videos(
        tmp_path / "videos", [track(1, [A] * 3, category_id=2)], categories=video_categories
    )
    return cfg_for(images, videos, **keys)


def test_classes_become_those_of_the_last_set(tmp_path, caplog):
    cfg = mixed(tmp_path, MODEL__SEM_SEG_HEAD__NUM_CLASSES=2)
    check_num_classes(cfg)
    source = Counter(
        x["category_id"]
        for r in DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
        for x in r["annotations"]
    )
    records = load_train_dicts(cfg)
    images = [r for r in records if r["source"] == cfg.DATASETS.TRAIN[0]]
    counts = Counter(x["category_id"] for r in images for x in r["annotations"])
    assert counts == Counter({0: source[2], 1: source[0]}) - Counter()
    assert [r["source"] for r in records if "file_names" in r] == [cfg.DATASETS.TRAIN[1]]
    assert f"{source[1]} annotations of dataset" in caplog.text
    assert "does not have their classes: box" in caplog.text


def test_sets_without_a_common_class(tmp_path):
    cfg = mixed(tmp_path, ("a", "b"))
    with pytest.raises(DatasetError, match="have no class in common, so they cannot be mixed"):
        load_train_dicts(cfg)


def test_num_classes_are_those_of_the_last_training_set(tmp_path):
    cfg = mixed(tmp_path, MODEL__SEM_SEG_HEAD__NUM_CLASSES=3)
    with pytest.raises(DatasetError, match="has 2 classes.*Set MODEL.SEM_SEG_HEAD.NUM_CLASSES 2"):
        check_num_classes(cfg)
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN[:1]
    with pytest.raises(DatasetError, match="have different classes"):
        check_num_classes(cfg)


def test_coco_classes_become_those_of_youtube_vis():
    from msr_d2.data.video.categories import YTVIS_2019

    coco = MetadataCatalog.get("coco_2017_train").thing_classes
    for name, classes in (("fake_images", coco), ("fake_videos", YTVIS_2019)):
        record = {"file_name": "x"} if name == "fake_images" else {"file_names": ["x"]}
        objects = [{"category_id": coco.index(c), "bbox": A, "iscrowd": 0} for c in coco]
        annotations = objects if name == "fake_images" else [[]]
        DatasetCatalog.register(name, lambda r=record, a=annotations: [{**r, "annotations": a}])
        MetadataCatalog.get(name).thing_classes = list(classes)
    from msr_d2.data.video.load import _to_classes_of

    (image,) = _to_classes_of(DatasetCatalog.get("fake_images"), "fake_images", "fake_videos")
    counts = Counter(YTVIS_2019[x["category_id"]] for x in image["annotations"])
    assert counts["motorbike"] == counts["snowboard"] == 2  # bicycle, motorcycle; skis, snowboard
    assert counts["person"] == 1 and len(counts) == 19 and sum(counts.values()) == 21
    for name in ("fake_images", "fake_videos"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_ratio_is_the_share_of_items(tmp_path):
    cfg = mixed(tmp_path, DATASETS__DATASET_RATIO=[1.0, 0.5])
    loader = build_train_loader(cfg)
    sources = [
        loader._dataset[index]["source"]
        for batch in itertools.islice(loader.batches(), 300)
        for _, index in batch
    ]
    share = sources.count(cfg.DATASETS.TRAIN[0]) / len(sources)
    assert share == pytest.approx(2 / 3, abs=0.04)


def test_images_and_videos_in_one_stream(tmp_path):
    cfg = mixed(tmp_path, DATASETS__DATASET_RATIO=[1.0, 1.0])
    cfg.INPUT.PSEUDO.MIN_SIZE_TRAIN, cfg.INPUT.PSEUDO.SAMPLING_FRAME_NUM = (40,), 4
    cfg.MODEL.MASK_FREE.DATASET_SUPERVISION = [[cfg.DATASETS.TRAIN[0], "mask"]]
    items = list(itertools.chain(*itertools.islice(build_train_loader(cfg), 6)))
    by_source = {item["source"]: item for item in items}
    image, video = (by_source[name] for name in cfg.DATASETS.TRAIN)
    assert (len(image["image"]), image["supervision"]) == (4, "mask")
    assert (len(video["image"]), video["supervision"]) == (3, "box")
    assert all(x.has("gt_masks") for x in image["instances"])
    assert not any(x.has("gt_masks") for x in video["instances"])


@pytest.mark.parametrize("ratios", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_ratios_that_cannot_be(tmp_path, ratios):
    with pytest.raises(ValueError, match="DATASETS.DATASET_RATIO is"):
        build_train_loader(mixed(tmp_path, DATASETS__DATASET_RATIO=ratios))


def test_videos_of_rare_classes_repeat(tmp_path):
    tracks = [track(v, [A] * 2, video_id=v, category_id=1 + (v == 9)) for v in range(1, 10)]
    cfg = cfg_for(write_videos(tmp_path, tracks, (2,) * 9))
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 1.0
    batches = itertools.islice(build_train_loader(cfg).batches(), 60)
    counts = Counter(index for batch in batches for _, index in batch)
    # sqrt(1 / frequency) for video 9, whose class is in one of nine videos; 1.06 for the others.
    assert counts[8] / (sum(counts.values()) - counts[8]) == pytest.approx(3 / (8 * 1.06), rel=0.2)


def test_ratios_that_nobody_would_follow(tmp_path):
    cfg = mixed(tmp_path, DATASETS__DATASET_RATIO=[1, 1])
    cfg.DATALOADER.SAMPLER_TRAIN = "RandomSubsetTrainingSampler"
    with pytest.raises(ValueError, match="DATASETS.DATASET_RATIO works with"):
        build_train_loader(cfg)
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    cfg.MODEL.META_ARCHITECTURE, cfg.DATASETS.TRAIN = "GeneralizedRCNN", cfg.DATASETS.TRAIN[:1]
    with pytest.raises(ValueError, match="DATASETS.DATASET_RATIO works with"):
        build_train_loader(cfg)


def test_a_box_only_json_trains_by_config_alone(tmp_path):
    entry = write_videos(tmp_path, [track(1, [A] * 3)])
    assert "segmentation" not in json.dumps(json.load(open(entry[1])))
    batch = next(iter(build_train_loader(cfg_for(entry))))
    assert batch[0]["supervision"] == "box" and len(batch[0]["instances"][0]) == 1
