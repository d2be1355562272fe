"""Small videos in YouTube-VIS format, written as files: for tests of loading and training."""

import json
import uuid

import numpy as np
from PIL import Image
from tiny_coco import CATEGORIES, mask_of, rle_of

SIZE = (64, 96)


def track(annotation_id, boxes, video_id=1, category_id=1, masks=None, **more):
    """One object; `boxes` are (x1, y1, x2, y2) or None, one per frame.

    Args:
        masks: None writes no segmentations; "string", "list" and "bytes" the rectangles as such
            run-length codes, "polygon" as polygons; a list is written as it is.
    """
    segmentations = masks
    if isinstance(masks, str):
        segmentations = [None if box is None else _mask(box, masks) for box in boxes]
    bboxes = [b and [b[0], b[1], b[2] - b[0], b[3] - b[1]] for b in boxes]
    result = {
        "id": annotation_id,
        "video_id": video_id,
        "category_id": category_id,
        "iscrowd": 0,
        "bboxes": bboxes,
        "areas": [b and b[2] * b[3] for b in bboxes],
        **more,
    }
    return result if segmentations is None else {**result, "segmentations": segmentations}


def _mask(box, kind):
    x1, y1, x2, y2 = box
    if kind == "polygon":
        return [[x1, y1, x2, y1, x2, y2, x1, y2]]
    return rle_of(mask_of(*box, size=SIZE), kind)


def write_videos(folder, tracks, lengths=(3,), categories=CATEGORIES, size=SIZE, **more):
    """Write videos 1, 2, ... with frames "<video>/00000.png", whose grey is 10 times their number.

    Returns:
        [name, json file, frame folder] for DATASETS.REGISTER, with a name of its own.
    """
    videos = []
    for number, length in enumerate(lengths, start=1):
        names = [f"{number}/{t:05d}.png" for t in range(length)]
        videos.append(
            {"id": number, "height": size[0], "width": size[1], "length": length}
            | {"file_names": names}
        )
        for t, name in enumerate(names):
            path = folder / "JPEGImages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((*size, 3), 10 * t, dtype=np.uint8)).save(path)
    classes = [{"id": i, "name": name} for i, name in enumerate(categories, start=1)]
    content = {"videos": videos, "annotations": tracks, "categories": classes, **more}
    path = folder / "videos.json"
    path.write_text(json.dumps(content))
    return [f"videos_{uuid.uuid4().hex}", str(path), str(folder / "JPEGImages")]
