"""One format, one validator: the loader and the converters say the same about a broken file."""

import copy
import json

import pytest

from msr_d2.data import DatasetError, register_ytvis_instances
from msr_d2.data.checks import thing_classes
from msr_d2.data.video import load_ytvis_instances
from msr_d2.data.video.convert import check_ytvis

GOOD = {
    "videos": [
        {"id": 1, "height": 20, "width": 30, "length": 2, "file_names": ["a/0.png", "a/1.png"]},
        {"id": 2, "height": 20, "width": 30, "file_names": ["b/0.png"]},
    ],
    "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "box"}],
    "annotations": [
        {"id": 4, "video_id": 1, "category_id": 2, "bboxes": [[1, 2, 3, 4], None]},
        {"id": 5, "video_id": 2, "category_id": 1, "bboxes": [[1, 2, 3, 4]]},
    ],
}


def load(content, folder):
    path = folder / "mine.json"
    path.write_text(json.dumps(content))
    return load_ytvis_instances(str(path), str(folder), f"of_{folder.name}")


def convert(content, folder):
    return check_ytvis(content, f"'{folder / 'mine.json'}'")


def setter(key, index, **values):
    return lambda c: c[key][index].update(values)


VIDEO, OBJECT = r"mine.json': video 1", r"mine.json': annotation 4 \(video 1\)"
CASES = [
    (setter("videos", 1, id=1), "video id 1 is used twice.*number them 1..N"),
    (setter("videos", 1, id="4"), "video id '4' .* is no non-negative integer"),
    (setter("videos", 1, id=[4]), r"video id \[4\] .* is no non-negative integer"),
    (setter("videos", 0, length=4), f"{VIDEO} has length 4, but 2 file_names.*a/0.png"),
    (setter("videos", 0, file_names=[]), f"{VIDEO} has no frames.*Remove the video"),
    (setter("videos", 0, file_names=["a", 7]), f"{VIDEO} has 7 as the file name of frame 1. Write"),
    (setter("videos", 0, width=0.5), f"{VIDEO} has width 0.5. Write that of its frames"),
    (lambda c: c["videos"][0].pop("height"), f"{VIDEO} has height None. Write"),
    (lambda c: c["videos"].append("x"), r"video number 2 \(from 0\) is a str.*Correct it or"),
    (setter("categories", 1, id=1), "category id 1 is used twice"),
    (lambda c: c["categories"][0].pop("id"), "category id None.*number them"),
    (lambda c: c["categories"][0].pop("name"), "category 1 has the name None. Give it one"),
    (lambda c: c["annotations"].append([]), r"annotation number 2 \(from 0\) is a list"),
    (lambda c: c.update(annotations={"a": 1}), "a dict stands where the list of every annota"),
    (setter("annotations", 1, id=4), "annotation id 4 is used twice"),
    (setter("annotations", 1, id=None), "annotation id None"),
    (setter("annotations", 1, id=-1), "annotation id -1"),
    (setter("annotations", 0, category_id=9), f"{OBJECT} has category_id 9.*ids.*Add the category"),
    (setter("annotations", 0, category_id=[1]), rf"{OBJECT} has category_id \[1\]"),
    (setter("annotations", 0, bboxes=None), f"{OBJECT} has no list 'bboxes'. Add one"),
    (setter("annotations", 0, bboxes=[None]), f"{OBJECT} has 1 bboxes for 2 frames.*a/0.png.*null"),
    (setter("annotations", 0, bboxes=[]), "has 0 bboxes for 2 frames"),
    (setter("annotations", 0, bboxes={"0": 1}), "has as 'bboxes' {'0': 1} for 2 frames"),
    (setter("annotations", 0, segmentations=[None]), "has 1 segmentations for 2 frames"),
    (setter("annotations", 0, segmentations={"a": 1}), "has as 'segmentations' {'a': 1} for 2"),
    (setter("annotations", 0, segmentations={}), "has as 'segmentations' {} for 2 frames"),
    (setter("annotations", 0, ignored_frames=[2]), r"has \[2\] as 'ignored_frames'.*0 to 1"),
    (setter("annotations", 0, ignored_frames=1), "has 1 as 'ignored_frames'. Write a list"),
]


@pytest.mark.parametrize("read", [load, convert])
def test_what_is_right_passes(tmp_path, read):
    assert len(read(GOOD, tmp_path)) >= 2
    content = copy.deepcopy(GOOD)
    content["annotations"][0].update(segmentations=[], ignored_frames=[1])
    assert len(read(content, tmp_path)) >= 2


@pytest.mark.parametrize("read", [load, convert])
@pytest.mark.parametrize("change, message", CASES, ids=[message for _, message in CASES])
def test_what_is_wrong_is_named_with_its_cure(tmp_path, read, change, message):
    content = copy.deepcopy(GOOD)
    change(content)
    with pytest.raises(DatasetError, match=message) as error:
        read(content, tmp_path)
    assert "mine.json" in str(error.value)


def test_areas_matter_to_converters_only(tmp_path):
    content = copy.deepcopy(GOOD)
    content["annotations"][0]["areas"] = [1]
    with pytest.raises(DatasetError, match="has 1 areas for 2 frames"):
        convert(content, tmp_path)
    assert len(load(content, tmp_path)) == 2


def test_classes_of_a_broken_file(tmp_path):
    """They are asked for before the set is loaded."""
    content = copy.deepcopy(GOOD)
    del content["categories"][0]["name"]
    (tmp_path / "mine.json").write_text(json.dumps(content))
    register_ytvis_instances("nameless", str(tmp_path / "mine.json"), str(tmp_path))
    with pytest.raises(DatasetError, match="category 1 has the name None"):
        thing_classes("nameless")
