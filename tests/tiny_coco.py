"""Small data sets in COCO format, written as files: for tests of loading, training and scripts."""

import json
import uuid

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

CATEGORIES = ("disc", "box", "star")


def polygon_of(x1, y1, x2, y2):
    """The polygon of a rectangle."""
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def mask_of(x1, y1, x2, y2, size=(64, 96)):
    """Bool mask (H, W) of a rectangle with integer corners."""
    mask = np.zeros(size, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def rle_of(mask, kind="string"):
    """A mask as run-length code: "string", "bytes" or "list" (uncompressed)."""
    if kind == "list":
        flat = mask.ravel(order="F")
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        counts = np.diff([0, *changes, flat.size]).tolist()
        return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return rle if kind == "bytes" else {**rle, "counts": rle["counts"].decode()}


def annotation(annotation_id, image_id, box, segmentation=None, category_id=1, **more):
    """One annotation; `box` is (x1, y1, x2, y2) and the mask is its rectangle unless given."""
    x1, y1, x2, y2 = box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": polygon_of(*box) if segmentation is None else segmentation,
        **more,
    }


def write_json(folder, num_images, annotations, categories=CATEGORIES, size=(64, 96)):
    """Write annotations of images 1.png, 2.png, ...; returns the path of the json file."""
    images = [
        {"id": i, "file_name": f"{i}.png", "height": size[0], "width": size[1]}
        for i in range(1, num_images + 1)
    ]
    names = [{"id": i, "name": name} for i, name in enumerate(categories, start=1)]
    content = {"images": images, "annotations": annotations, "categories": names}
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def write_image(path, size=(64, 96), seed=0):
    """Write an image of noise."""
    noise = np.random.RandomState(seed).randint(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write_set(folder, num_images=4, seed=0):
    """Images of noise with one or two bright rectangles, polygons and run lengths in turn.

    Returns:
        [name, json file, image folder], as DATASETS.REGISTER wants it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    annotations = []
    for image_id in range(1, num_images + 1):
        pixels = random.randint(0, 80, (64, 96, 3), dtype=np.uint8)
        for _ in range(1 + image_id % 2):
            x1, y1 = (int(v) for v in random.randint(2, (50, 30)))
            x2, y2 = x1 + int(random.randint(20, 40)), y1 + int(random.randint(16, 30))
            category = int(random.randint(0, len(CATEGORIES)))
            pixels[y1:y2, x1:x2, category] = 220
            number = len(annotations) + 1
            segmentation = None
            if number % 2:
                segmentation = rle_of(mask_of(x1, y1, x2, y2))
            box = (x1, y1, x2, y2)
            annotations.append(annotation(number, image_id, box, segmentation, category + 1))
        Image.fromarray(pixels).save(folder / f"{image_id}.png")
    path = write_json(folder, num_images, annotations)
    return [f"tiny_{uuid.uuid4().hex}", str(path), str(folder)]
