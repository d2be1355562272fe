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


def test_a_mask_without_box_is_no_object_and_a_box_without_mask_is_one(tmp_path):
    tracks = [track(1, [BOX, None], masks="string"), track(2, [BOX, BOX], masks=[None, None])]
    tracks[0]["segmentations"][1] = tracks[0]["segmentations"][0]
    annotations = load(write_videos(tmp_path, tracks, (2,)))[0]["annotations"]
    assert [[x["id"] for x in frame] for frame in annotations] == [[1, 2], [2]]
    assert ["segmentation" in x for x in annotations[0]] == [True, False]


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


def bad_tracks():
    good = [BOX] * 3
    yield track(4, good, category_id=9), r"annotation 4 \(video 1\) in '.*' has category_id=9.*ids"
    yield track(4, [BOX] * 2), r"annotation 4 \(video 1\).*has 2 bboxes for 3 frames.*null"
    yield track(4, []), "has 0 bboxes for 3 frames"
    yield track(4, good, masks=[None]), "has 1 segmentations for 3 frames.*1/00000.png"
    yield {**track(4, good), "bboxes": None}, r"annotation 4 .*has no list 'bboxes'. Add one"
    yield track(None, good), "annotation with id None.*number the annotations 1..N"
    yield track(-1, good), "annotation with id -1"
    yield track(1, good), "annotation with id 1, which is used twice"


@pytest.mark.parametrize("bad, message", list(bad_tracks()))
def test_wrong_annotations(tmp_path, bad, message):
    with pytest.raises(DatasetError, match=message):
        load(write_videos(tmp_path, [track(1, [BOX] * 3), bad]))


VIDEO = {"id": 1, "height": 4, "width": 4, "file_names": ["a.png"]}


@pytest.mark.parametrize(
    "videos, message",
    [
        ([VIDEO, VIDEO], "video with id 1, which is used twice"),
        ([{**VIDEO, "id": None}], "video with id None"),
        ([{**VIDEO, "length": 2}], "video id 1 of '.*' has length 2, but 1 file_names"),
        ([{**VIDEO, "file_names": []}], "video id 1 of '.*' has no frames.*Remove the video"),
        ([{"id": 1, "file_names": ["a.png"]}], r"video id 1 of '.*' has no \['height', 'width'\]"),
    ],
)
def test_wrong_videos(tmp_path, videos, message):
    with pytest.raises(DatasetError, match=message):
        load(write_videos(tmp_path, [], videos=videos))


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


def test_two_categories_with_one_id(tmp_path):
    categories = [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]
    with pytest.raises(DatasetError, match="two categories with the same id"):
        load(write_videos(tmp_path, [], **{"categories": ()}) and _rewrite(tmp_path, categories))


def _rewrite(folder, categories):
    content = json.loads((folder / "videos.json").read_text())
    content["categories"] = categories
    (folder / "videos.json").write_text(json.dumps(content))
    return ["two", str(folder / "videos.json"), str(folder)]


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
