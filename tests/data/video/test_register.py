"""Registration of videos: by code, by config, built in."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from tiny_coco import write_set
from tiny_ytvis import track, write_videos

from msr_d2.data import DatasetError, register_from_config, register_ytvis_instances
from msr_d2.data.checks import thing_classes
from msr_d2.data.video import categories, register_builtin_videos, register_vis_tiny
from msr_d2.data.video.register import is_ytvis_json
from msr_d2.testing import tiny_vis_cfg

BOX = (8, 4, 30, 20)


def register(*entries):
    cfg = tiny_vis_cfg()
    cfg.DATASETS.REGISTER = list(entries)
    register_from_config(cfg)


def test_the_format_is_found_in_the_file(tmp_path):
    video, image = write_videos(tmp_path / "v", [track(1, [BOX] * 3)]), write_set(tmp_path / "i")
    register(video, image)
    register(video, image)  # again: harmless
    assert MetadataCatalog.get(video[0]).evaluator_type == "ytvis"
    assert MetadataCatalog.get(image[0]).evaluator_type == "coco"
    assert len(DatasetCatalog.get(video[0])) == 1
    assert thing_classes(video[0]) == ["disc", "box", "star"]


def test_the_format_may_be_stated(tmp_path):
    video, image = write_videos(tmp_path / "v", [track(1, [BOX] * 3)]), write_set(tmp_path / "i")
    register([*video, "ytvis"], [*image, "coco"])
    assert MetadataCatalog.get(video[0]).evaluator_type == "ytvis"
    assert MetadataCatalog.get(image[0]).evaluator_type == "coco"
    with pytest.raises(DatasetError, match="'coco' or 'ytvis'"):
        register([*video, "voc"])


@pytest.mark.parametrize(
    "text, expected",
    [
        ('{"videos": [{"file_names" : ["a"]}]}', True),
        ('{"images": [{"file_name": "a"}], "annotations": []}', False),
        # Image sets of videos name the videos, too.
        ('{"videos": [{"id": 1}], "images": [{"file_name": "a"}]}', False),
        ("{}", False),
        ("no json", False),
        (" " * ((1 << 20) - 8) + '{"videos": [{"file_names": []}]}', True),
    ],
)
def test_formats(tmp_path, text, expected):
    (tmp_path / "x.json").write_text(text)
    assert is_ytvis_json(str(tmp_path / "x.json")) is expected


def test_taken_names(tmp_path):
    name, path, images = write_videos(tmp_path, [])
    register_ytvis_instances(name, path, images)
    with pytest.raises(DatasetError, match=f"'{name}' is already registered with {path}"):
        register_ytvis_instances(name, path + "x", images)


def test_known_classes_must_be_those_of_the_file(tmp_path):
    name, path, images = write_videos(tmp_path, [])
    register_ytvis_instances(name, path, images, ("disc", "box"))
    assert thing_classes(name) == ["disc", "box"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {1: 0, 2: 1}
    with pytest.raises(DatasetError, match="the categories of .* are not the 2 of this data set"):
        DatasetCatalog.get(name)


@pytest.fixture
def clean_catalogs():
    names = [
        f"{s}_{p}" for s in ("ytvis_2019", "ytvis_2021", "ovis") for p in ("train", "val", "test")
    ]
    names += ["shapes_vis_train", "shapes_vis_train_masks", "shapes_vis_val"]
    names += ["vis_tiny_train", "vis_tiny_val"]
    names += ["vis_tiny_mosaic_train", "vis_tiny_mosaic_val", "coco_2017_train_fake"]

    def clean():
        for name in names:
            if name in DatasetCatalog.list():
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)

    clean()
    yield names
    clean()
    from msr_d2.data.builtin import register_builtin_datasets

    register_builtin_datasets("datasets")


def test_builtin_names_and_layout(tmp_path, clean_catalogs):
    (tmp_path / "ytvis_2021" / "train").mkdir(parents=True)
    (tmp_path / "ytvis_2021" / "train" / "instances.json").write_text("{}")
    register_builtin_videos(str(tmp_path))
    register_builtin_videos(str(tmp_path / "other"))  # the first registration stays
    assert set(clean_catalogs) <= set(DatasetCatalog.list())
    paths = {
        name: tuple(
            str(x)[len(str(tmp_path)) + 1 :]
            for x in (MetadataCatalog.get(name).json_file, MetadataCatalog.get(name).image_root)
        )
        for name in clean_catalogs
    }
    assert paths["ytvis_2019_val"] == ("ytvis_2019/valid.json", "ytvis_2019/valid/JPEGImages")
    assert paths["ytvis_2021_test"] == ("ytvis_2021/test.json", "ytvis_2021/test/JPEGImages")
    assert paths["ytvis_2021_train"][0] == "ytvis_2021/train/instances.json"  # as in the archive
    assert paths["ovis_train"] == ("ovis/annotations/train.json", "ovis/train")
    shapes = ("shapes_vis/annotations/instances_val.json", "shapes_vis/val/JPEGImages")
    assert paths["shapes_vis_val"] == shapes
    masks = ("shapes_vis/annotations/instances_train_masks.json", "shapes_vis/train/JPEGImages")
    assert paths["shapes_vis_train_masks"] == masks
    assert paths["coco_2017_train_fake"] == (
        "coco/annotations/coco2ytvis2019_train.json",
        "coco/train2017",
    )
    assert len(thing_classes("ovis_train")) == 25 and thing_classes("ovis_val")[24] == "Vehical"
    with pytest.raises(DatasetError, match="does not exist.*DETECTRON2_DATASETS"):
        DatasetCatalog.get("ytvis_2019_train")


def test_vis_tiny_moves_to_another_folder(tmp_path, clean_catalogs):
    for folder in ("a", "b"):
        names = register_vis_tiny(str(tmp_path / folder))
        assert MetadataCatalog.get(names[3]).json_file == str(
            tmp_path / folder / "mosaic_valid.json"
        )


def test_category_tables():
    assert [len(x) for x in (categories.YTVIS_2019, categories.YTVIS_2021, categories.OVIS)] == [
        *(40, 40, 25)
    ]
    assert categories.YTVIS_2019.index("motorbike") == 20
    assert categories.YTVIS_2021[25] == "person" and categories.OVIS[19] == "Turtle"
    for table, count in (
        (categories.COCO_TO_YTVIS_2019, 21),
        (categories.COCO_TO_YTVIS_2021, 23),
        (categories.COCO_TO_OVIS, 17),
    ):
        assert len(table) == count


@pytest.mark.parametrize("target", [categories.YTVIS_2019, categories.YTVIS_2021, categories.OVIS])
def test_maps_from_coco_join_the_names_that_should(target):
    coco = MetadataCatalog.get("coco_2017_val").thing_classes
    same = {"motorcycle": "motorbike", "bicycle": "motorbike", "skis": "snowboard"}
    same |= {"tennis racket": "tennis_racket", "frisbee": "flying_disc"}
    vehicles = (
        dict.fromkeys(("car", "bus", "truck"), "vehical") if target is categories.OVIS else {}
    )
    allowed = {"car": "sedan"} if "sedan" in target else {}
    for source, index in categories.map_classes(coco, target).items():
        name, new = coco[source], target[index].lower()
        assert new in (name, same.get(name), vehicles.get(name), allowed.get(name)), (name, new)


def test_classes_map_by_name():
    source, target = ["Tennis racket", "dog", "cat"], ["cat", "tennis_racket"]
    assert categories.map_classes(source, target) == {0: 1, 2: 0}
    # A part of COCO's classes is mapped as all of them.
    assert categories.map_classes(["bicycle", "zebra", "cup"], categories.YTVIS_2019) == {
        0: 20,
        1: 29,
    }


def test_json_reading_is_lazy(tmp_path):
    path = tmp_path / "later.json"
    register_ytvis_instances("later_videos", str(path), str(tmp_path))
    content = {"videos": [], "categories": [{"id": 3, "name": "a"}]}
    path.write_text(json.dumps(content))
    assert DatasetCatalog.get("later_videos") == []
