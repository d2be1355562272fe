"""The shapes set on disk: write it, recognise it, repair it.

A file ``shapes.json`` beside the data says with which settings they were written and whether the
run came to its end. It is written first and last, and every file is put in place by a rename, so a
run can be killed at any time: the next one with the same settings makes the set complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
from tqdm import tqdm

from .coco import annotate, categories
from .dice import Dice
from .render import render
from .sample import sample_scene
from .style import ShapesStyle

SPLITS = ("train", "val")  # the position is part of the seed of an image
MARKER = "shapes.json"
_VERSION = 1  # to be raised when the same settings give other bytes than before
_LEAST_SIDE, _MOST_SIDE = 64, 4096


def write_coco(
    output: str | Path,
    train: int,
    val: int,
    size: int = 160,
    seed: int = 0,
    style: ShapesStyle | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> bool:
    """Write the shapes set in COCO format.

    The folder gets ``train/*.png``, ``val/*.png`` and ``annotations/instances_{train,val}.json``.
    Equal arguments give equal bytes, and an image does not depend on how many there are.

    Args:
        output: folder, made if needed.
        train, val: images of the two splits.
        size: side of the images in pixels.
        seed: of everything random.
        style: how scenes are drawn; the default style if None.
        overwrite: replace a set of other settings.
        progress: show a progress bar.

    Returns:
        True if the set was written, False if it was there already, complete and with the same
        settings.

    Raises:
        ValueError: an argument is out of range, ``output`` holds a set of other settings and
            ``overwrite`` is off, or it holds files that are not a shapes set.
    """
    _check_arguments(train, val, size, seed)
    style, output = style or ShapesStyle(), Path(output)
    settings = {"version": _VERSION, "train": train, "val": val, "size": size, "seed": seed}
    settings = json.loads(json.dumps({**settings, "style": asdict(style)}))
    if _is_complete(output, settings, overwrite):
        return False
    _clear(output)
    _write_json(output / MARKER, {"complete": False, "settings": settings})
    with tqdm(total=train + val, desc="shapes", unit="image", disable=not progress) as bar:
        for split, count in zip(SPLITS, (train, val)):
            _write_split(output, split, count, size, seed, style, bar)
    marker = {"complete": True, "settings": settings, "bytes": _count_bytes(output)}
    _write_json(output / MARKER, marker)
    return True


def _check_arguments(train: int, val: int, size: int, seed: int) -> None:
    limits = {
        "train": (train, 0, 999_999),  # file names have six digits
        "val": (val, 0, 999_999),
        "size": (size, _LEAST_SIDE, _MOST_SIDE),
        "seed": (seed, 0, 2**32 - 1),
    }
    for name, (value, low, high) in limits.items():
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")
    if train + val == 0:
        raise ValueError("nothing to write: train and val are both 0")


def _is_complete(output: Path, settings: dict, overwrite: bool) -> bool:
    """Whether the set is there and may stay; raises if it may not be replaced."""
    marker = _read_marker(output)
    if marker is None:
        taken = [name for name in (*SPLITS, "annotations") if (output / name).exists()]
        if taken:
            raise ValueError(
                f"{output} has {', '.join(taken)} but no {MARKER}, so it was not written by this "
                f"generator and is left alone; choose another output folder"
            )
        return False
    if marker["settings"] != settings:
        if overwrite:
            return False
        found = _differences(marker["settings"], settings)
        raise ValueError(
            f"{output} holds a shapes set of other settings ({found}); choose another output "
            f"folder, or overwrite it (--overwrite)"
        )
    return marker["complete"] and not overwrite and marker.get("bytes") == _count_bytes(output)


def _read_marker(output: Path) -> dict | None:
    path = output / MARKER
    if not path.exists():
        return None
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(marker["settings"], dict) and isinstance(marker["complete"], bool):
            return marker
    except (ValueError, TypeError, KeyError):
        marker = None
    raise ValueError(f"{path} is not what this generator writes there; delete it and its folder")


def _differences(found: dict, wanted: dict) -> str:
    keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    return ", ".join(
        key if key == "style" else f"{key} {found.get(key)}, now {wanted.get(key)}" for key in keys
    )


def _clear(output: Path) -> None:
    """Remove what an earlier run of the generator left, and nothing else."""
    for path in _own_files(output):
        path.unlink()
    for folder in (output, *(output / name for name in (*SPLITS, "annotations"))):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.tmp"):
            path.unlink()


def _own_files(output: Path) -> Iterator[Path]:
    for split in SPLITS:
        yield from (output / split).glob("[0-9]" * 6 + ".png")
        yield from (output / "annotations").glob(f"instances_{split}.json")


def _count_bytes(output: Path) -> dict[str, int]:
    """Number and total size of the files: enough to see that one is missing or cut short."""
    sizes = [path.stat().st_size for path in _own_files(output)]
    return {"files": len(sizes), "total": sum(sizes)}


def _write_split(
    output: Path, split: str, count: int, size: int, seed: int, style: ShapesStyle, bar: tqdm
) -> None:
    images, annotations = [], []
    for index in range(count):
        name, found = f"{index:06d}.png", _write_image(output, split, index, size, seed, style)
        image_id = SPLITS.index(split) * 1_000_000 + index + 1
        images.append({"id": image_id, "file_name": name, "height": size, "width": size})
        for annotation in found:
            # ids start at 1: pycocotools takes a match with id 0 for no match
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
        bar.update()
    data = {"info": {"description": f"shapes, {split}, seed {seed}"}, "images": images}
    data = {**data, "annotations": annotations, "categories": categories()}
    _write_json(output / "annotations" / f"instances_{split}.json", data)


def _write_image(
    output: Path, split: str, index: int, size: int, seed: int, style: ShapesStyle
) -> list[dict]:
    """Write one image; returns its annotations."""
    image_seed = (seed, SPLITS.index(split), index)
    scene = sample_scene(size, Dice(image_seed), style)
    rendered = render(scene)
    done, png = cv2.imencode(".png", rendered.image[:, :, ::-1])
    assert done, "cv2 could not encode a PNG"
    _write_bytes(output / split / f"{index:06d}.png", png.tobytes())
    return annotate(scene, rendered, Dice((*image_seed, 1)))


def _write_json(path: Path, data: dict) -> None:
    _write_bytes(path, json.dumps(data, separators=(",", ":")).encode("ascii"))


def _write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is either complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
