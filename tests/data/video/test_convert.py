"""Converters: round trips, hand-written sequences, and messages for input that cannot be used."""

from __future__ import annotations

import copy
import json
import logging
import runpy
import sys
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest

from msr_d2.data import DatasetError
from msr_d2.data.shapes import write_ytvis
from msr_d2.data.video import load_ytvis_instances
from msr_d2.data.video.convert import (
    MOT_CLASSES,
    check_ytvis,
    coco_frames_to_ytvis,
    fill_boxes,
    mot_to_ytvis,
    split_by_video,
    write_annotation_json,
    ytvis_to_coco_frames,
)

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "convert_annotations.py"


def rle(x: int, y: int, width: int, height: int, size=(20, 30)) -> dict:
    """A filled box as compressed run-length code."""
    mask = np.zeros(size, np.uint8)
    mask[y : y + height, x : x + width] = 1
    code = mask_util.encode(np.asfortranarray(mask))
    return {"size": list(size), "counts": code["counts"].decode("ascii")}


def make_ytvis(masks: bool = True) -> dict:
    """Two videos of 3 and 2 frames of 20 x 30; objects with gaps, one crowd."""
    content = {
        "info": {"description": "by hand"},
        "videos": [
            {
                "id": number,
                "height": 20,
                "width": 30,
                "length": length,
                "file_names": [f"v{number}/{t}.jpg" for t in range(length)],
                "name": f"clip {number}",
            }
            for number, length in ((4, 3), (7, 2))
        ],
        "categories": [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [],
    }
    boxes = {
        (1, 4, 5): [[1, 2, 3, 4], None, [3, 2, 3, 4]],
        (2, 4, 2): [None, [10, 5, 6, 7], None],
        (3, 7, 5): [[0, 0, 5, 5], [1, 0, 5, 5]],
    }
    for (number, video, category), frames in boxes.items():
        item = {
            "id": number,
            "video_id": video,
            "category_id": category,
            "iscrowd": int(number == 3),
            "height": 20,
            "width": 30,
            "length": len(frames),
            "bboxes": frames,
            "areas": [box and box[2] * box[3] for box in frames],
        }
        if masks:
            item["segmentations"] = [box and rle(*box) for box in frames]
        content["annotations"].append(item)
    return content


def make_coco() -> dict:
    return ytvis_to_coco_frames(make_ytvis())


def tracks(content: dict) -> set:
    """What an annotation file says, whatever its ids and its order."""
    names = {video["id"]: tuple(video["file_names"]) for video in content["videos"]}
    return {
        json.dumps(
            [names[a["video_id"]], *(a[k] for k in sorted(a) if k not in ("id", "video_id"))]
        )
        for a in content["annotations"]
    }


# ---- COCO frames


@pytest.mark.parametrize("masks", [True, False])
def test_there_and_back_is_the_same(masks):
    content = make_ytvis(masks)
    before = copy.deepcopy(content)
    coco = ytvis_to_coco_frames(content)
    assert coco_frames_to_ytvis(coco) == content == before
    again = ytvis_to_coco_frames(coco_frames_to_ytvis(coco))
    assert again == coco


def test_frames_by_hand():
    coco = make_coco()
    assert [image["file_name"] for image in coco["images"]] == [
        *("v4/0.jpg", "v4/1.jpg", "v4/2.jpg"),
        *("v7/0.jpg", "v7/1.jpg"),
    ]
    assert [(i["id"], i["video_id"], i["frame_id"]) for i in coco["images"]] == [
        *((1, 4, 0), (2, 4, 1), (3, 4, 2)),
        *((4, 7, 0), (5, 7, 1)),
    ]
    third = coco["annotations"][2]
    assert third == {
        "id": 3,
        "image_id": 2,
        "video_id": 4,
        "track_id": 2,
        "category_id": 2,
        "iscrowd": 0,
        "bbox": [10, 5, 6, 7],
        "area": 42,
        "segmentation": rle(10, 5, 6, 7),
    }
    assert [a["iscrowd"] for a in coco["annotations"]] == [0, 0, 0, 1, 1]
    assert coco["videos"][0] == {"id": 4, "height": 20, "width": 30, "name": "clip 4"}


def test_real_and_generated_videos_survive_the_round_trip(shared_data, tmp_path):
    write_ytvis(tmp_path, num_train=2, num_val=2, length=3, size=(48, 64))
    files = [shared_data / "vis_tiny" / "mosaic_train.json"]
    files += [tmp_path / f"annotations/instances_{name}.json" for name in ("train", "val")]
    for file in files:
        content = json.loads(file.read_text())
        back = coco_frames_to_ytvis(ytvis_to_coco_frames(content))
        assert len(back["annotations"]) == len(content["annotations"]) > 0
        checked = check_ytvis(content)
        assert tracks(back) == tracks(checked)
        for video, original in zip(back["videos"], content["videos"]):
            assert video["file_names"] == original["file_names"]


def test_order_of_images_and_annotations_does_not_matter():
    coco = make_coco()
    coco["images"].reverse()
    coco["annotations"].reverse()
    assert tracks(coco_frames_to_ytvis(coco)) == tracks(make_ytvis())


def test_other_names_of_the_keys():
    coco = make_coco()
    for image in coco["images"]:
        image["frame_index"] = 10 * image.pop("frame_id") + 3  # gaps between numbers are fine
    for annotation in coco["annotations"]:
        annotation["instance_id"] = annotation.pop("track_id")
    assert tracks(coco_frames_to_ytvis(coco)) == tracks(make_ytvis())


def test_track_ids_that_repeat_in_other_videos_and_names_as_ids():
    coco = make_coco()
    for item in (*coco["images"], *coco["annotations"], *coco["videos"]):
        key = "id" if "name" in item else "video_id"
        item[key] = f"video {item[key]}"
    for annotation in coco["annotations"]:
        annotation["track_id"] %= 2  # 1, 0, 1: the last is in another video
    content = coco_frames_to_ytvis(coco)
    assert [(v["id"], v["name"]) for v in content["videos"]] == [(1, "clip 4"), (2, "clip 7")]
    assert [(a["id"], a["track_id"], a["video_id"]) for a in content["annotations"]] == [
        *((1, 1, 1), (2, 0, 1), (3, 1, 2)),
    ]
    del coco["videos"]
    assert coco_frames_to_ytvis(coco)["videos"][0]["name"] == "video 4"
    back = ytvis_to_coco_frames(content)  # the tracks have their own ids again
    assert [a["track_id"] for a in back["annotations"]] == [1, 1, 0, 1, 1]


def test_frames_without_mask_keep_their_box():
    coco = make_coco()
    del coco["annotations"][0]["segmentation"]
    first = coco_frames_to_ytvis(coco)["annotations"][0]
    assert first["bboxes"] == [[1, 2, 3, 4], None, [3, 2, 3, 4]]
    assert first["segmentations"] == [None, None, rle(3, 2, 3, 4)]


def test_boxes_and_areas_come_from_masks_where_they_are_missing():
    coco = make_coco()
    coco["annotations"][0].update(bbox=None, area=None)
    first = coco_frames_to_ytvis(coco)["annotations"][0]
    assert first["bboxes"][0] == [1, 2, 3, 4] and first["areas"][0] == 12
    content = make_ytvis()
    for annotation in content["annotations"]:
        del annotation["bboxes"], annotation["areas"]
    assert [a["bbox"] for a in ytvis_to_coco_frames(content)["annotations"]] == [
        a["bbox"] for a in make_coco()["annotations"]
    ]


def broken(change) -> dict:
    coco = make_coco()
    change(coco["images"], coco["annotations"])
    return coco


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda i, a: i[1].pop("video_id"), r"image 2 \('v4/1.jpg'\) has no video_id\."),
        (lambda i, a: i[1].pop("frame_id"), "has no frame_id or frame_index"),
        (lambda i, a: i[1].pop("height"), "has no height"),
        (lambda i, a: i[1].update(frame_id="3"), "position '3'; it must be an integer"),
        (lambda i, a: i[1].update(frame_id=0), "two frames at position 0 .*v4/0.jpg.*v4/1.jpg"),
        (lambda i, a: i[1].update(width=31), r"different sizes: \(20, 30\).*\(20, 31\)"),
        (lambda i, a: i[1].update(id=1), "two images have the id 1"),
        (lambda i, a: a[2].pop("track_id"), "annotation 3 has no track_id or instance_id"),
        (lambda i, a: a[2].update(image_id=9), "annotation 3 has image_id 9, which is not in"),
        (
            lambda i, a: a[1].update(category_id=2),
            r"track 1 of video 4 has the categories \[2, 5\]",
        ),
        (lambda i, a: a[1].update(image_id=1), "two boxes in frame 'v4/0.jpg'"),
        (lambda i, a: (a[0].pop("bbox"), a[0].pop("segmentation")), "has no bbox"),
        (lambda i, a: [x.update(category_id=3) for x in a[:2]], "category_id 3, which is not in"),
        (lambda i, a: [x.update(height=-1) for x in i[:3]], "height -1"),
    ],
)
def test_frames_that_cannot_be_joined(change, message):
    with pytest.raises(DatasetError, match=message):
        coco_frames_to_ytvis(broken(change))


def test_files_are_named(tmp_path):
    with pytest.raises(DatasetError, match="none.json' does not exist"):
        coco_frames_to_ytvis(tmp_path / "none.json")
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(DatasetError, match="broken.json' is not json"):
        ytvis_to_coco_frames(path)
    path.write_text(json.dumps(make_ytvis()))
    with pytest.raises(DatasetError, match="no list.*images"):
        coco_frames_to_ytvis(path)
    with pytest.raises(DatasetError, match="no list 'videos'"):
        ytvis_to_coco_frames(make_coco() | {"videos": None})


# ---- checks


def test_valid_annotations_pass_unchanged():
    content = make_ytvis()
    assert check_ytvis(content) == content


def test_unusable_boxes_and_masks_become_null(caplog):
    content = make_ytvis()
    first, second, third = content["annotations"]
    first["bboxes"][0] = [40, 2, 3, 4]  # outside
    first["segmentations"][2] = rle(3, 2, 3, 4, size=(30, 20))  # of another size
    second["bboxes"][1] = [10, 5, 0, 7]  # the only box
    third["bboxes"][0] = [0, "x", 5, 5]
    third["segmentations"][1] = [[1, 1, 2, 2]]
    before = copy.deepcopy(content)
    with caplog.at_level(logging.WARNING):
        cleaned = check_ytvis(content, "mine.json")
    assert content == before
    assert [a["id"] for a in cleaned["annotations"]] == [1, 3]
    assert "ignored_frames" not in cleaned["annotations"][0]  # outside is absent
    assert cleaned["annotations"][1]["ignored_frames"] == [0]
    assert cleaned["annotations"][0]["bboxes"] == [None, None, [3, 2, 3, 4]]
    assert cleaned["annotations"][0]["areas"] == [None, None, 12]
    assert cleaned["annotations"][0]["segmentations"] == [None, None, None]
    assert cleaned["annotations"][1]["bboxes"] == [None, [1, 0, 5, 5]]
    assert cleaned["annotations"][1]["segmentations"] == [None, None]
    texts = ("5 annotations", "mine.json", "outside the image: 1", "v4/0.jpg")
    for text in (*texts, "no box of four numbers: 1"):
        assert text in caplog.text


def test_video_without_annotations_and_no_annotations_at_all():
    content = {**make_ytvis(), "annotations": None}
    assert check_ytvis(content)["annotations"] == []
    coco = ytvis_to_coco_frames(content)
    assert len(coco["images"]) == 5 and coco["annotations"] == []
    assert coco_frames_to_ytvis(coco)["videos"] == make_ytvis()["videos"]


def test_an_annotation_of_no_video_is_an_error():
    content = make_ytvis()
    content["annotations"][0]["video_id"] = 5
    with pytest.raises(DatasetError, match="annotation 1 has video_id 5.*Add the video or take"):
        check_ytvis(content)


@pytest.mark.parametrize("key", ["videos", "annotations", "categories"])
def test_an_entry_that_is_no_object_is_an_error(key):
    content = {**make_ytvis(), key: [*make_ytvis()[key], 7]}
    with pytest.raises(DatasetError, match=f"of '{key}' is 7, not an object"):
        ytvis_to_coco_frames(content)


def test_frames_of_which_nothing_is_known_stay_known_as_such(caplog):
    content = make_ytvis()
    first, second, third = content["annotations"]
    first["bboxes"] = [[40, 2, 3, 4], [1, 1, 0, 0], [3, 2, 3, 4]]  # outside, broken, right
    first["segmentations"] = None
    first["ignored_frames"] = [0]
    cleaned = check_ytvis(content)
    assert cleaned["annotations"][0]["ignored_frames"] == [0, 1]
    assert "ignored_frames" not in cleaned["annotations"][1]
    assert check_ytvis(cleaned) == cleaned
    caplog.clear()
    ytvis_to_coco_frames(cleaned)
    assert "1 objects have 'ignored_frames' (first: annotation 1)" in caplog.text


# ---- MOT

INFO = (
    "[Sequence]\nname=S\nimDir=img1\nframeRate=25\n"
    "seqLength={}\nimWidth=30\nimHeight=20\nimExt=.jpg\n"
)


def make_sequence(folder: Path, rows: list[str], length: int = 4) -> Path:
    (folder / "gt").mkdir(parents=True)
    (folder / "seqinfo.ini").write_text(INFO.format(length))
    (folder / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")
    return folder


def test_sequence_by_hand(tmp_path, caplog):
    rows = [
        "2,7,1,1,5,6,1,1,1.0",  # coordinates start at 1
        "1,7,3,4,5,6,1,1,0.5",
        "3,7,28,18,10,10,1,1,0.25",  # reaches beyond the frame
        "4,7,40,1,5,5,1,1,0.25",  # outside
        "1,8,1,1,4,4,0,1,1.0",  # ignored, as is the object
        "3,3,5,5,2,2,0,1,1.0",  # ignored
        "1,9,1,1,4,4,1,3,1.0",  # a car
        "1,3,5,5,2,2,1,1,0",  # not visible
        "2,3,5.5,5,2,2.25,1,1,0.1",
        "",
    ]
    folder = make_sequence(tmp_path / "MOT17-02", rows)
    with caplog.at_level(logging.WARNING):
        content = mot_to_ytvis(folder)
    assert content["videos"] == [
        {
            "id": 1,
            "name": "MOT17-02",
            "height": 20,
            "width": 30,
            "length": 4,
            "file_names": [f"MOT17-02/img1/00000{t}.jpg" for t in (1, 2, 3, 4)],
        }
    ]
    assert content["categories"] == [{"id": 1, "name": "pedestrian"}]
    third, seventh = content["annotations"]
    assert (third["track_id"], seventh["track_id"]) == (3, 7)
    assert third["ignored_frames"] == [2] and "ignored_frames" not in seventh
    assert third["bboxes"] == [None, [4.5, 4, 2, 2.25], None, None]
    assert seventh["bboxes"] == [[2, 3, 5, 6], [0, 0, 5, 6], [27, 17, 3, 3], None]
    assert seventh["areas"] == [30, 30, 9, None]
    assert "segmentations" not in seventh
    texts = ("ignored (conf 0)': 2", "class 3 (car)': 1", "(visibility 0)': 1", "outside")
    for text in (*texts, "listed in its 'ignored_frames'"):
        assert text in caplog.text


def test_result_loads_as_a_data_set(tmp_path):
    folder = make_sequence(tmp_path / "A", ["1,7,3,4,5,6,1,1,1"])
    write_annotation_json(mot_to_ytvis(folder), tmp_path / "sub" / "vis.json")
    path = str(tmp_path / "sub" / "vis.json")
    (video,) = load_ytvis_instances(path, str(tmp_path), "converted_mot_of_a_test")
    assert [len(frame) for frame in video["annotations"]] == [1, 0, 0, 0]
    assert video["annotations"][0][0]["bbox"] == [2, 3, 5, 6]
    assert not list((tmp_path / "sub").glob(".*"))


def test_classes_and_visibility(tmp_path):
    rows = ["1,1,1,1,5,5,1,3,0.4", "1,2,1,1,5,5,1,1,0.4", "2,2,1,1,5,5,1,1,0.6"]
    folder = make_sequence(tmp_path / "A", rows)
    content = mot_to_ytvis(folder, classes=MOT_CLASSES, min_visibility=0.5)
    (kept,) = content["annotations"]
    assert kept["bboxes"][:2] == [None, [0, 0, 5, 5]] and len(content["categories"]) == 13
    assert kept["ignored_frames"] == [0]  # something of it is to be seen there
    content = mot_to_ytvis(folder, classes={3: "vehicle"})
    assert [a["category_id"] for a in content["annotations"]] == [3]


def test_ten_columns_have_no_class(tmp_path):
    folder = make_sequence(tmp_path / "A", ["1,1,1,1,5,5,1,-1,-1,-1", "2,1,1,1,5,5,1,-1,-1,-1"])
    (kept,) = mot_to_ytvis(folder)["annotations"]
    assert kept["category_id"] == 1 and kept["bboxes"][2:] == [None, None]


def test_folder_of_sequences_and_lists_of_files(tmp_path):
    for name in ("B", "A"):
        make_sequence(tmp_path / name, ["1,1,1,1,5,5,1,1,1"])
    content = mot_to_ytvis(tmp_path)
    assert [video["name"] for video in content["videos"]] == ["A", "B"]
    assert [(a["id"], a["video_id"]) for a in content["annotations"]] == [(1, 1), (2, 2)]
    files = [tmp_path / name / "gt" / "gt.txt" for name in ("A", "B")]
    assert mot_to_ytvis(files) == content
    with pytest.raises(DatasetError, match="two sequences have the name 'A'"):
        mot_to_ytvis([files[0], tmp_path])


def test_the_same_sequence_under_several_names_is_named(tmp_path, caplog):
    for detector, row in (("DPM", 1), ("FRCNN", 1), ("SDP", 1), ("other", 2)):
        make_sequence(tmp_path / f"MOT17-02-{detector}", [f"1,1,{row},1,5,5,1,1,1"])
    (tmp_path / "README").write_text("a stray file in a folder of sequences does not matter")
    assert len(mot_to_ytvis(tmp_path)["videos"]) == 4
    assert "2 of 4 sequences have the ground truth of another" in caplog.text
    assert "'MOT17-02-FRCNN' is 'MOT17-02-DPM', 'MOT17-02-SDP' is 'MOT17-02-DPM'" in caplog.text
    assert "MOT17/train/*-FRCNN" in caplog.text
    caplog.clear()
    assert len(mot_to_ytvis([tmp_path / f"MOT17-02-{x}" for x in ("DPM", "other")])["videos"]) == 2
    assert "ground truth of another" not in caplog.text
    with pytest.raises(DatasetError, match="README.*no ground truth, leave it out.*-FRCNN"):
        mot_to_ytvis([tmp_path / "MOT17-02-DPM", tmp_path / "README"])


def test_a_text_file_without_seqinfo(tmp_path):
    path = tmp_path / "street.txt"
    path.write_text("1 1 1 1 5 5\n3 1 1 1 5 5\n")  # blanks as separators, six columns
    with pytest.raises(DatasetError, match=r"seqinfo.ini.*size=\(height, width\)"):
        mot_to_ytvis(path)
    (video,) = mot_to_ytvis(path, size=(20, 30))["videos"]
    assert video["file_names"] == [f"street/00000{t}.jpg" for t in (1, 2, 3)]
    assert mot_to_ytvis(path, size=(20, 30), length=9)["videos"][0]["length"] == 9
    with pytest.raises(DatasetError, match="box in frame 3, but the sequence has 2"):
        mot_to_ytvis(path, size=(20, 30), length=2)
    path.write_text("")
    with pytest.raises(DatasetError, match="no boxes and no length"):
        mot_to_ytvis(path, size=(20, 30))


@pytest.mark.parametrize(
    "rows, message",
    [
        (["1,1,1,1,5"], "line 1: '1,1,1,1,5' is no row of 6 to 10"),
        (["1,1,1,1,5,5,1,1,1", "1,2,1,x,5,5"], "line 2: could not convert.*'x'"),
        (["1,1,1,1,nan,5"], "is no row of 6 to 10 finite"),
        (["0,1,1,1,5,5"], "frame 0 and id 1 must be integers, and frames start at 1"),
        (["1.5,1,1,1,5,5"], "frame 1.5"),
        (["5,1,1,1,5,5,1,1,1"], "box in frame 5, but the sequence has 4 frames"),
        (["1,1,1,1,5,5", "1,1,2,2,5,5"], r"line 2: object 1 has a box in frame 1 already \(line 1"),
        (["1,1,1,1,5,5,1,1,1", "2,1,1,1,5,5,1,3,1"], r"object 1 has the classes \[1, 3\]"),
    ],
)
def test_malformed_rows(tmp_path, rows, message):
    folder = make_sequence(tmp_path / "A", rows)
    with pytest.raises(DatasetError, match=message) as error:
        mot_to_ytvis(folder, classes=MOT_CLASSES)
    assert "gt.txt" in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "[Sequence]\nimWidth=3", INFO.format("many"), INFO.format(0), "no section"]
)
def test_malformed_seqinfo(tmp_path, text):
    folder = make_sequence(tmp_path / "A", ["1,1,1,1,5,5"])
    (folder / "seqinfo.ini").write_text(text)
    with pytest.raises(DatasetError, match=r"seqinfo.ini'.*imHeight"):
        mot_to_ytvis(folder)


def test_missing_mot_files(tmp_path):
    with pytest.raises(DatasetError, match="no seqinfo.ini, nor has any folder in it"):
        mot_to_ytvis(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        mot_to_ytvis(tmp_path / "none")
    folder = make_sequence(tmp_path / "A", [])
    (folder / "gt" / "gt.txt").unlink()
    with pytest.raises(DatasetError, match="gt.txt' cannot be read"):
        mot_to_ytvis(folder)
    with pytest.raises(DatasetError, match=r"min_visibility must lie in \[0, 1\], got 2"):
        mot_to_ytvis(folder, min_visibility=2)


# ---- split


def many_videos(count: int = 20) -> dict:
    content = make_ytvis()
    video, annotation = content["videos"][0], content["annotations"][0]
    content["videos"] = [{**video, "id": i + 1} for i in range(count)]
    content["annotations"] = [{**annotation, "id": i + 1, "video_id": i + 1} for i in range(count)]
    return content


def test_split_is_a_partition():
    content = many_videos()
    train, val = split_by_video(content, 0.25, seed=3)
    assert len(val["videos"]) == 5 and len(train["videos"]) == 15
    for part in (train, val):
        ids = [video["id"] for video in part["videos"]]
        assert ids == sorted(ids) == [a["video_id"] for a in part["annotations"]]
        assert part["categories"] == content["categories"]
    assert {v["id"] for part in (train, val) for v in part["videos"]} == set(range(1, 21))


def test_split_depends_on_the_seed_and_not_on_the_order():
    content = many_videos()
    turned = {**content, "videos": content["videos"][::-1]}
    val = {
        seed: {video["id"] for video in split_by_video(content, 0.25, seed)[1]["videos"]}
        for seed in range(4)
    }
    assert len({frozenset(ids) for ids in val.values()}) > 1
    for seed, ids in val.items():
        assert {v["id"] for v in split_by_video(turned, 0.25, seed)[1]["videos"]} == ids


@pytest.mark.parametrize("share, expected", [(0.01, 1), (0.99, 19), (0.5, 10)])
def test_each_part_gets_a_video(share, expected):
    assert len(split_by_video(many_videos(), share)[1]["videos"]) == expected


@pytest.mark.parametrize("share", [0.0, 1.0, -1, float("nan")])
def test_bad_share(share):
    with pytest.raises(DatasetError, match="share must lie between 0 and 1"):
        split_by_video(many_videos(), share)


def test_one_video_cannot_be_split():
    with pytest.raises(DatasetError, match="1 videos cannot be split"):
        split_by_video(many_videos(1), 0.5)


# ---- boxes as masks


def test_filled_boxes():
    source = make_ytvis(masks=False)
    filled = fill_boxes(source)
    assert "segmentations" not in source["annotations"][0]  # not modified
    for before, after in zip(source["annotations"], filled["annotations"]):
        assert after["bboxes"] == before["bboxes"]
        for box, mask, area in zip(after["bboxes"], after["segmentations"], after["areas"]):
            assert (box is None) == (mask is None) == (area is None)
            assert mask is None or mask == rle(*box) and area == box[2] * box[3]


def test_a_pixel_of_a_filled_box_has_its_centre_inside():
    source = make_ytvis(masks=False)
    source["annotations"][0]["bboxes"][0] = [1.4, 2.6, 3.2, 4.0]  # to 4.6 and 6.6
    mask = fill_boxes(source)["annotations"][0]["segmentations"][0]
    assert mask == rle(1, 3, 4, 4)


# ---- command line


@pytest.fixture
def run(monkeypatch):
    def call(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["convert_annotations.py", *map(str, arguments)])
        return runpy.run_path(str(SCRIPT))["main"]()

    return call


def test_commands(run, tmp_path, capsys):
    source, frames, back = (tmp_path / f"{name}.json" for name in ("vis", "frames", "back"))
    source.write_text(json.dumps(make_ytvis()))
    assert run("ytvis-to-coco-frames", "--input", source, "--output", frames) == 0
    assert run("coco-frames-to-ytvis", "--input", frames, "--output", back) == 0
    assert json.loads(back.read_text()) == make_ytvis()
    parts = [tmp_path / "train.json", tmp_path / "val.json"]
    assert run("split", "--input", source, "--share", 0.5, "--output", *parts) == 0
    assert [len(json.loads(part.read_text())["videos"]) for part in parts] == [1, 1]
    assert run("fill-boxes", "--input", source, "--output", back) == 0
    assert json.loads(back.read_text()) == fill_boxes(make_ytvis())
    sequence = make_sequence(tmp_path / "A", ["1,1,1,1,5,5,1,3,1"])
    assert run("mot-to-ytvis", "--input", sequence, "--classes", 1, 3, "--output", back) == 0
    assert json.loads(back.read_text())["annotations"][0]["category_id"] == 3
    assert "back.json: 1 videos, 1 annotations" in capsys.readouterr().out


def test_command_errors(run, tmp_path, capsys):
    source = tmp_path / "vis.json"
    source.write_text(json.dumps(make_ytvis()))
    assert run("ytvis-to-coco-frames", "--input", source, "--output", source) == 2
    assert "--output must be different files" in capsys.readouterr().err
    assert run("coco-frames-to-ytvis", "--input", source, "--output", tmp_path / "x.json") == 2
    assert "no list ['images']" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
