"""Write the shapes set in COCO format."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import cv2
from tqdm import tqdm

from .coco import annotate, categories
from .dice import Dice
from .marker import (
    SPLITS,
    begin,
    check_integers,
    finish,
    is_complete,
    write_bytes,
    write_json,
)
from .render import render
from .sample import sample_scene
from .style import ShapesStyle

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
    if is_complete(output, settings, overwrite):
        return False
    begin(output, settings)
    with tqdm(total=train + val, desc="shapes", unit="image", disable=not progress) as bar:
        for split, count in zip(SPLITS, (train, val)):
            _write_split(output, split, count, size, seed, style, bar)
    finish(output, settings)
    return True


def _check_arguments(train: int, val: int, size: int, seed: int) -> None:
    check_integers(
        {
            "train": (train, 0, 999_999),  # file names have six digits
            "val": (val, 0, 999_999),
            "size": (size, _LEAST_SIDE, _MOST_SIDE),
            "seed": (seed, 0, 2**32 - 1),
        }
    )
    if train + val == 0:
        raise ValueError("nothing to write: train and val are both 0")


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
    write_json(output / "annotations" / f"instances_{split}.json", data)


def _write_image(
    output: Path, split: str, index: int, size: int, seed: int, style: ShapesStyle
) -> list[dict]:
    """Write one image; returns its annotations."""
    image_seed = (seed, SPLITS.index(split), index)
    scene = sample_scene(size, Dice(image_seed), style)
    rendered = render(scene)
    done, png = cv2.imencode(".png", rendered.image[:, :, ::-1])
    assert done, "cv2 could not encode a PNG"
    write_bytes(output / split / f"{index:06d}.png", png.tobytes())
    return annotate(scene, rendered, Dice((*image_seed, 1)))
