"""Registration: idempotent, early errors, built-in names."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from tiny_coco import write_set

from msr_d2.data import DatasetError, register_coco, register_coco_tiny, register_from_config
from msr_d2.data.builtin import register_builtin_datasets
from msr_d2.testing import tiny_cfg


def cfg_with(*entries):
    cfg = tiny_cfg()
    cfg.DATASETS.REGISTER = list(entries)
    return cfg


def test_registered_set_loads(tmp_path):
    entry = write_set(tmp_path, num_images=3)
    register_from_config(cfg_with(entry))
    register_from_config(cfg_with(entry))  # again: harmless
    assert len(DatasetCatalog.get(entry[0])) == 3
    metadata = MetadataCatalog.get(entry[0])
    assert metadata.thing_classes == ["disc", "box", "star"]
    assert (metadata.evaluator_type, metadata.json_file) == ("coco", entry[1])


def test_entries_from_the_command_line(tmp_path):
    entry = write_set(tmp_path)
    cfg = tiny_cfg(opts=["DATASETS.REGISTER", repr([entry])])
    register_from_config(cfg)
    assert entry[0] in DatasetCatalog.list()


@pytest.mark.parametrize("entry", [["name", "a.json"], "name", ["n", "a.json", 3], ["", "a", "b"]])
def test_malformed_entries(entry):
    with pytest.raises(DatasetError, match=r"list of \[name, annotation json, image folder\]"):
        register_from_config(cfg_with(entry))


def test_missing_paths(tmp_path):
    name, path, images = write_set(tmp_path)
    with pytest.raises(DatasetError, match=f"for '{name}' there is no file '{path}x'"):
        register_from_config(cfg_with([name, path + "x", images]))
    with pytest.raises(DatasetError, match=f"for '{name}' there is no folder '{images}x'"):
        register_from_config(cfg_with([name, path, images + "x"]))


def test_taken_names(tmp_path):
    name, path, images = write_set(tmp_path / "a")
    register_from_config(cfg_with([name, path, images]))
    _, other, images = write_set(tmp_path / "b")
    with pytest.raises(DatasetError, match=f"'{name}' is already registered with {path}"):
        register_from_config(cfg_with([name, other, images]))


def test_coco_tiny(shared_data):
    folder = shared_data / "coco_tiny"
    train, val = register_coco_tiny(str(folder))
    assert [len(DatasetCatalog.get(name)) for name in (train, val)] == [160, 83]
    assert len(MetadataCatalog.get(val).thing_classes) == 80


def test_coco_tiny_moves_to_another_folder(tmp_path):
    for folder in ("a", "b"):
        names = register_coco_tiny(str(tmp_path / folder))
    assert names == ("coco_tiny_train", "coco_tiny_val")
    assert MetadataCatalog.get("coco_tiny_val").image_root == str(tmp_path / "b" / "images")


@pytest.fixture
def no_built_in_names():
    names = [f"{name}_{part}" for name in ("shapes", "coco_tiny") for part in ("train", "val")]
    saved = {name: (DatasetCatalog.pop(name), MetadataCatalog.pop(name)) for name in names}
    yield names
    for name, (load, metadata) in saved.items():
        DatasetCatalog[name], MetadataCatalog[name] = load, metadata


def test_built_in_names_without_touching_the_disk(tmp_path, no_built_in_names):
    root = tmp_path / "sets"
    register_builtin_datasets(str(root))
    register_builtin_datasets(str(root))  # again: harmless
    paths = [(m.json_file, m.image_root) for m in map(MetadataCatalog.get, no_built_in_names)]
    assert paths == [
        (f"{root}/shapes/annotations/instances_train.json", f"{root}/shapes/train"),
        (f"{root}/shapes/annotations/instances_val.json", f"{root}/shapes/val"),
        (f"{root}/coco_tiny/instances_train.json", f"{root}/coco_tiny/images"),
        (f"{root}/coco_tiny/instances_val.json", f"{root}/coco_tiny/images"),
    ]
    assert not root.exists()


def test_register_coco_does_not_need_the_file(tmp_path):
    register_coco("later", str(tmp_path / "later.json"), str(tmp_path))
    with pytest.raises(DatasetError, match="later.json' does not exist"):
        DatasetCatalog.get("later")
