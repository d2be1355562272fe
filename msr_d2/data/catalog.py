"""One way into detectron2's catalogs for all sets that are a json file and a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from .errors import DatasetError

Loader = Callable[[str, str, str], list]


def register_json(
    name: str, json_file: str, image_root: str, evaluator_type: str, load: Loader
) -> bool:
    """Register ``load(json_file, image_root, name)``; the same again is harmless.

    Returns:
        Whether the name was free.

    Raises:
        DatasetError: if the name is taken by other paths.
    """
    if name in DatasetCatalog.list():
        taken = MetadataCatalog.get(name)
        paths = taken.get("json_file"), taken.get("image_root")
        if paths != (json_file, image_root):
            raise DatasetError(
                f"dataset name '{name}' is already registered with {paths[0]} and {paths[1]}; "
                f"choose another name for {json_file} and {image_root}."
            )
        return False
    DatasetCatalog.register(name, lambda: load(json_file, image_root, name))
    metadata = MetadataCatalog.get(name)
    metadata.set(json_file=json_file, image_root=image_root, evaluator_type=evaluator_type)
    return True


def release_names(names: Sequence[str], json_files: Sequence[str]) -> None:
    """Forget names that are registered for other files, so that a folder may be moved."""
    for name, json_file in zip(names, json_files):
        if MetadataCatalog.get(name).get("json_file") not in (None, json_file):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
