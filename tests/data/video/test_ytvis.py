"""Loading YouTube-VIS json: boxes alone, null frames, every kind of mask, and what is wrong."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from tiny_ytvis import track, write_videos

from msr_d2.data import DatasetError
from msr_d2.data.video import load_ytvis_instances, register_vis_tiny

BOX = (8, 4, 30, 20)


def load(entry):
    name, json_file, image_root = entry
    return load_ytvis_instances(json_file, image_root, name)


def test_boxes_alone(tmp_path):
    entry = write_videos(tmp_path, [track(7, [BOX, None, BOX], category_id=2)])
    (video,) = load(entry)
    assert (video["video_id"], video["length"], video["height"], video["width"]) == (1, 3, 64, 96)
    assert [x[-11:] for x in video["file_names"]] == [f"1/0000{t}.png" for t in range(3)]
    expected = {
        "id": 7,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [8, 4, 22, 16],
        "bbox_mode": BoxMode.XYWH_ABS,
    }
    assert video["annotations"] == [[expected], [], [expected]]
    metadata = MetadataCatalog.get(entry[0])
    assert metadata.thing_classes == ["disc", "box", "star"]
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1, 3: 2}


@pytest.mark.parametrize("kind", ["string", "list", "polygon"])
def test_masks_stay_as_they_are_in_the_file(tmp_path, kind):
    tracks = [track(1, [BOX, None, BOX], masks=kind)]
    annotations = load(write_videos(tmp_path, tracks))[0]["annotations"]
    masks = [x["segmentation"] for frame in annotations for x in frame]
    assert masks == [tracks[0]["segmentations"][i] for i in (0, 2)]


@pytest.mark.parametrize("kind", ["string", "list", "polygon"])
@pytest.mark.parametrize("absent", [None, []])
def test_a_mask_without_box_gets_one_and_a_box_without_mask_is_one(tmp_path, kind, absent):
    tracks = [track(1, [BOX] * 2, masks=kind), track(2, [BOX, BOX], masks=[None, None])]
    tracks[0]["bboxes"][1] = absent
    annotations = load(write_videos(tmp_path, tracks, (2,)))[0]["annotations"]
    assert [[x["id"] for x in frame] for frame in annotations] == [[1, 2], [1, 2]]
    assert [frame[0]["bbox"] for frame in annotations] == [[8, 4, 22, 16]] * 2
    assert ["segmentation" in x for x in annotations[0]] == [True, False]
    del tracks[0]["bboxes"]
    annotations = load(write_videos(tmp_path, tracks[:1], (2,)))[0]["annotations"]
    assert [frame[0]["bbox"] for frame in annotations] == [[8, 4, 22, 16]] * 2


def test_a_mask_that_gives_no_box_and_what_the_file_ignores(tmp_path):
    empty = {"size": [64, 96], "counts": [64 * 96]}
    masks = [empty, {"size": [4, 4], "counts": [16]}, [[1, "a", 3, 4, 5, 6]], "mask.png", None]
    tracks = [track(1, [None] * 5, masks=masks), track(2, [BOX] * 5, ignored_frames=[4])]
    frames = load(write_videos(tmp_path, tracks, (5,)))[0]["annotations"]
    # A mask without a pixel says that the object is absent; a broken one says nothing.
    assert [[x["id"] for x in frame if x.get("ignored")] for frame in frames] == [
        *([], [1], [1], [1], [2])
    ]
    assert [x["reason"] for x in (frames[1][0], frames[4][0])] == [
        "no box, and a mask that is no help: run-length mask of another size than the image",
        "listed in ignored_frames",
    ]
    assert [x["id"] for x in frames[0]] == [2] and "bbox" not in frames[4][0]


def test_videos_are_sorted_and_crowds_are_kept(tmp_path):
    tracks = [track(1, [BOX] * 2, video_id=2, iscrowd=1), track(2, [BOX], video_id=1)]
    entry = write_videos(tmp_path, tracks, (1, 2))
    content = json.loads((tmp_path / "videos.json").read_text())
    content["videos"].reverse()
    (tmp_path / "videos.json").write_text(json.dumps(content))
    videos = load(entry)
    assert [v["video_id"] for v in videos] == [1, 2]
    assert [v["annotations"][0][0]["iscrowd"] for v in videos] == [0, 1]


@pytest.mark.parametrize("value", [None, []])
def test_annotations_may_be_withheld(tmp_path, value):
    entry = write_videos(tmp_path, value)
    assert load(entry)[0]["annotations"] == [[], [], []]
    content = json.loads((tmp_path / "videos.json").read_text())
    del content["annotations"]
    (tmp_path / "videos.json").write_text(json.dumps(content))
    assert load(entry)[0]["annotations"] == [[], [], []]


def test_files_that_are_no_such_json(tmp_path):
    with pytest.raises(DatasetError, match="'v': the annotation file .* does not exist"):
        load_ytvis_instances(str(tmp_path / "no.json"), str(tmp_path), "v")
    name, path, folder = write_videos(tmp_path, [], videos={})
    with pytest.raises(DatasetError, match=r"no list \['videos'\]; the format of YouTube-VIS is"):
        load_ytvis_instances(path, folder, name)
    (tmp_path / "videos.json").write_text("{")
    with pytest.raises(DatasetError, match="is not json"):
        load_ytvis_instances(path, folder, name)


def test_strays_are_counted(tmp_path, caplog):
    tracks = [track(1, [BOX] * 3), track(2, [BOX] * 3, video_id=8)]
    load(write_videos(tmp_path, tracks))
    assert "1 annotations of" in caplog.text and "belong to no video" in caplog.text


def test_real_videos(shared_data):
    names = register_vis_tiny(str(shared_data / "vis_tiny"))
    sets = {name: DatasetCatalog.get(name) for name in names}
    assert [len(videos) for videos in sets.values()] == [10, 5, 3, 2]
    assert [sum(v["length"] for v in videos) for videos in sets.values()] == [186, 86, 49, 28]
    tracks = [{x["id"] for v in s for f in v["annotations"] for x in f} for s in sets.values()]
    assert [len(ids) for ids in tracks] == [10, 5, 14, 9]
    mosaic = sets["vis_tiny_mosaic_train"][2]
    assert len({len(frame) for frame in mosaic["annotations"]}) >= 1
    ids = [{x["id"] for x in frame} for frame in mosaic["annotations"]]
    assert ids[0] != ids[-1]  # tracks end and begin half way
