"""Toy data in YouTube-VIS format for the tests of the video evaluator."""

import json
import uuid

import numpy as np
from detectron2.data import MetadataCatalog
from toy_coco import SIZE, encode, rectangle

SQUARE = rectangle(0, 0, 10, 10)
ELSEWHERE = rectangle(12, 12, 20, 20)


def segmentations(masks):
    return [None if m is None or not m.any() else encode(m) for m in masks]


def annotation(masks, video_id=1, category_id=1, iscrowd=0, **more):
    areas = [None if m is None or not m.any() else int(m.sum()) for m in masks]
    return {
        "video_id": video_id,
        "category_id": category_id,
        "iscrowd": iscrowd,
        "segmentations": segmentations(masks),
        "areas": areas,
        **more,
    }


def result(masks, score, video_id=1, category_id=1):
    return {
        "video_id": video_id,
        "category_id": category_id,
        "score": score,
        "segmentations": segmentations(masks),
    }


def ground_truth(annotations, lengths=(2,), categories=(1,), size=SIZE):
    """A dict in YouTube-VIS format; videos have the ids 1, 2, ... and the given lengths."""
    return {
        "videos": [
            {"id": i + 1, "height": size[0], "width": size[1], "length": length}
            for i, length in enumerate(lengths)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in categories],
        "annotations": [{**x, "id": i + 1} for i, x in enumerate(annotations)],
    }


def register(gt, folder):
    """Write a dict and register it; returns the name of the data set."""
    name = f"toy_ytvis_{uuid.uuid4().hex}"
    path = folder / f"{name}.json"
    path.write_text(json.dumps(gt))
    mapping = {x["id"]: i for i, x in enumerate(gt["categories"])}
    MetadataCatalog.get(name).set(
        json_file=str(path), evaluator_type="ytvis", thing_dataset_id_to_contiguous_id=mapping
    )
    return name


def evaluate(evaluator, outputs):
    """Run an evaluator over model outputs, of the videos with the ids 1, 2, ..."""
    evaluator.reset()
    for i, output in enumerate(outputs):
        evaluator.process([{"video_id": i + 1}], [output])
    return evaluator.evaluate()


def to_outputs(gt, results):
    """Model outputs from results; the labels become contiguous."""
    contiguous = {x["id"]: i for i, x in enumerate(gt["categories"])}
    outputs = []
    for video in gt["videos"]:
        own = [x for x in results if x["video_id"] == video["id"]]
        outputs.append(
            {
                "scores": [x["score"] for x in own],
                "labels": [contiguous[x["category_id"]] for x in own],
                "masks": [x["segmentations"] for x in own],
            }
        )
    return outputs


def random_videos(seed, num_videos=7, categories=(2, 5), size=(400, 400)):
    """Drifting rectangles of all sizes with absent frames and crowds, noisy results with ties.

    The last but one video has no detection, the last one no object.

    Returns:
        ground truth, results.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 12, num_videos).tolist()
    annotations, results = [], []
    for video_id, length in enumerate(lengths, 1):
        for _ in range(rng.integers(2, 5)):
            start, side = rng.integers(0, 80, 2), rng.choice([60, 170, 300], 2)
            corners = start + rng.integers(-3, 4, (length, 2)).cumsum(0)
            visible = rng.random(length) < 0.85
            category = int(rng.choice(categories))
            masks = _masks(corners, np.tile(side, (length, 1)), visible, size)
            if video_id < num_videos:
                crowd = int(rng.random() < 0.2)
                annotations.append(annotation(masks, video_id, category, crowd))
            for _ in range(rng.integers(1, 4) if video_id != num_videos - 1 else 0):
                noise = rng.integers(-side.min() // 6, side.min() // 6, (2, 2))
                seen = visible ^ (rng.random(length) < 0.15)
                found = _masks(corners + noise[0], side + noise[1:].repeat(length, 0), seen, size)
                guess = category if rng.random() < 0.8 else int(rng.choice(categories))
                results.append(result(found, round(rng.random(), 1), video_id, guess))
    return ground_truth(annotations, lengths, categories, size), results


def _masks(corners, sides, visible, size):
    masks = []
    for (x, y), (w, h), seen in zip(corners, sides, visible):
        x, y = max(x, 0), max(y, 0)
        masks.append(rectangle(x, y, x + w, y + h, size) if seen else None)
    return masks


def small_videos(seed, num_videos=4, categories=(2, 5, 7), size=(24, 24)):
    """Few pixels, all the special cases: ties, nulls, masks without a pixel, crowds, absent tracks.

    The last video has neither objects nor results, the first one no object, the last category no
    object. The ``areas`` of the annotations are made up, so that all ranges of sizes occur: they
    decide, not the masks.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, num_videos).tolist()
    annotations, results = [], []
    for video_id, length in enumerate(lengths[:-1], 1):
        for _ in range(rng.integers(2, 6) if video_id > 1 else 1):
            start, side = rng.integers(0, 10, 2), rng.integers(6, 14, 2)
            corners = np.tile(start, (length, 1))
            visible = rng.random(length) < 0.8
            category = int(rng.choice(categories[:-1]))
            masks = _masks(corners, np.tile(side, (length, 1)), visible, size)
            if video_id > 1:
                crowd = int(rng.random() < 0.25)
                areas = (rng.choice([30, 128**2, 3e4, 256**2, 1e5], length) * visible).tolist()
                annotations.append(annotation(masks, video_id, category, crowd, areas=areas))
            for _ in range(rng.integers(0, 5)):
                shift = rng.integers(-2, 3, (2, 2)) * (rng.random() < 0.7)
                seen = visible ^ (rng.random(length) < 0.1)
                found = _masks(corners + shift[0], side + shift[1:].repeat(length, 0), seen, size)
                guess = category if rng.random() < 0.8 else int(rng.choice(categories))
                results.append(result(found, round(rng.random(), 1), video_id, guess))
                if rng.random() < 0.2:
                    nothing = encode(np.zeros(size, dtype=bool))
                    results[-1]["segmentations"][int(rng.integers(length))] = nothing
    order = rng.permutation(len(results))
    return ground_truth(annotations, lengths, categories, size), [results[i] for i in order]
