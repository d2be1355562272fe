"""Pictures in, overlays and a result file in COCO format out."""

from __future__ import annotations

import glob
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from detectron2.data.detection_utils import read_image
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from PIL import Image

from ..data.bad_images import BAD_IMAGE_ERRORS
from ..visualization import draw_instances
from ..visualization.folder_frames import IMAGE_SUFFIXES
from .predict import Predictor
from .progress import ProgressLoader

logger = logging.getLogger(__name__)

RESULTS_FILE, IMAGES_FILE = "instances.json", "images.json"
_OVERLAY = "_overlay"


@dataclass
class DemoReport:
    """What :func:`run_demo` did.

    Attributes:
        overlays: pictures that were written.
        results: the result file; a COCO result list with the extra keys ``file_name``,
            ``mask_score`` and ``mask_iou``. It has all instances, also those that are not drawn.
        images: a COCO file with the images and categories that the results refer to.
        skipped: images that could not be read, with the reason.
    """

    results: Path
    images: Path
    overlays: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)


@dataclass
class _Output:
    """One image on its way through the demo."""

    image_id: int
    source: Path
    overlay: Path


def run_demo(
    predictor: Predictor,
    sources: Sequence[Path],
    output: str | os.PathLike,
    *,
    categories: dict[int, str] | None = None,
    score_threshold: float = 0.4,
    threshold_on: str = "mask_scores",
    batch_size: int = 1,
    suffix: str = ".png",
) -> DemoReport:
    """Run a model on images; write an overlay of each and one result file.

    Args:
        predictor: the model.
        sources: image files, as from :func:`find_images`.
        output: folder to write to; it is made if needed, files in it are replaced.
        categories: ``{category id: name}`` in the order of the model's classes; None for class
            indices.
        score_threshold: instances below it are not drawn.
        threshold_on: see :func:`msr_d2.visualization.draw_instances`.
        batch_size: images in one forward pass.
        suffix: file type of the overlays, ".png" or ".jpg".

    Returns:
        What was written and what was skipped.

    Raises:
        ValueError: for a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"the batch size is {batch_size}: it must be at least 1")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    report = DemoReport(folder / RESULTS_FILE, folder / IMAGES_FILE)
    names = overlay_names(sources, suffix)
    todo = [
        _Output(image_id, source, folder / name)
        for image_id, (source, name) in enumerate(zip(sources, names), start=1)
    ]
    batches = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
    style = {
        "class_names": list(categories.values()) if categories else None,
        "score_threshold": score_threshold,
        "threshold_on": threshold_on,
    }
    results: list[dict] = []
    images: list[dict] = []
    for batch in ProgressLoader(batches, "Predicting"):
        loaded = list(_read_batch(batch, report))
        detected = predictor([image for _, image in loaded])
        for (item, image), instances in zip(loaded, detected):
            results += to_coco_results(instances, item.image_id, str(item.source), categories)
            images.append(_image_entry(item, image))
            picture = draw_instances(image[:, :, ::-1], instances, **style)
            Image.fromarray(picture).save(item.overlay)
            report.overlays.append(item.overlay)
    write_json(report.results, results)
    write_json(report.images, _images_file(images, results, categories))
    return report


def find_images(inputs: Iterable[str], output: str | os.PathLike | None = None) -> list[Path]:
    """Image files named by files, folders and glob patterns, without repetitions.

    Args:
        inputs: a file is taken as it is; of a folder all images directly in it; of a pattern
            (``**`` for any depth) all images it matches. Order is kept, folders are sorted.
        output: folder of the overlays; pictures that an earlier run left there are no input.

    Raises:
        ValueError: names an input with no image.
    """
    found: dict[Path, Path] = {}
    for text in inputs:
        files = _expand(text)
        if not Path(text).is_file():
            files = [x for x in files if not is_overlay(x, output)]
        if not files:
            raise ValueError(
                f"--input {text}: no such file, and no folder or pattern with images "
                f"({', '.join(IMAGE_SUFFIXES)})"
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def overlay_names(sources: Sequence[Path], suffix: str = ".png") -> list[str]:
    """A file name of its own for the overlay of each image.

    It is ``<stem>_overlay<suffix>``. Images of equal stem get their folder before it, then their
    file type, then more folders, until they differ; names that differ only in upper and lower case
    count as equal, because some file systems say so.
    """
    candidates = [_name_candidates(source) for source in sources]
    level = [0] * len(sources)
    while True:
        names = [options[i] for options, i in zip(candidates, level)]
        counts = Counter(name.lower() for name in names)
        clashing = [
            i
            for i, name in enumerate(names)
            if counts[name.lower()] > 1 and level[i] + 1 < len(candidates[i])
        ]
        if not clashing:
            return [f"{name}{_OVERLAY}{suffix}" for name in _numbered(names)]
        for i in clashing:
            level[i] += 1


def is_overlay(path: Path, output: str | os.PathLike | None) -> bool:
    """Whether a file or folder is what an earlier run left in the output folder."""
    if output is None:
        return False
    return path.stem.endswith(_OVERLAY) and path.resolve().parent == Path(output).resolve()


def to_coco_results(
    instances: Instances,
    image_id: int,
    file_name: str,
    categories: dict[int, str] | None = None,
) -> list[dict]:
    """Instances of one image in COCO's result format.

    Args:
        instances: N detections on the CPU.
        image_id: id of the image in the results.
        file_name: of the image.
        categories: ``{category id: name}`` in the order of the model's classes; None keeps the
            class indices.

    Returns:
        N dicts: ``image_id, file_name, category_id, bbox`` (x, y, width, height), ``score`` (the
        class score), ``segmentation`` (compressed RLE) and, of models that have them,
        ``mask_score`` and ``mask_iou``.
    """
    results = instances_to_coco_json(instances, image_id)
    ids = list(categories) if categories else None
    # With OVERWRITE_SCORES the class score has moved to its own field.
    fields = {"class_scores": "score", "mask_scores": "mask_score", "mask_iou": "mask_iou"}
    values = {key: instances.get(x).tolist() for x, key in fields.items() if instances.has(x)}
    for index, result in enumerate(results):
        result["file_name"] = file_name
        if ids is not None:
            result["category_id"] = ids[result["category_id"]]
        result.update({key: numbers[index] for key, numbers in values.items()})
    return results


def _read_batch(batch: list[_Output], report: DemoReport) -> Iterator[tuple[_Output, np.ndarray]]:
    for item in batch:
        try:
            image = read_image(os.fspath(item.source), format="BGR")
        except (*BAD_IMAGE_ERRORS, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else "no message"
            report.skipped[item.source] = f"{type(error).__name__}: {reason}"
            logger.warning("Skipped %s (%s)", item.source, report.skipped[item.source])
        else:
            yield item, np.ascontiguousarray(image)


def _image_entry(item: _Output, image: np.ndarray) -> dict:
    height, width = image.shape[:2]
    entry = {"id": item.image_id, "file_name": str(item.source), "height": height, "width": width}
    return {**entry, "overlay": item.overlay.name}


def _images_file(
    images: list[dict], results: list[dict], categories: dict[int, str] | None
) -> dict:
    """A COCO file that the results refer to, so that pycocotools can load both."""
    if categories is None:
        used = sorted({result["category_id"] for result in results})
        categories = {index: f"class {index}" for index in used}
    named = [{"id": index, "name": name} for index, name in categories.items()]
    return {"images": images, "categories": named, "annotations": []}


def write_json(path: Path, content: object) -> None:
    """Write a file of the demo; an earlier one is replaced."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file)


def _expand(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_file():
        return [path]
    files = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    return sorted(x for x in files if x.is_file() and x.suffix.lower() in IMAGE_SUFFIXES)


def _name_candidates(source: Path) -> list[str]:
    """Names of growing length: stem, with its folder, with its type, with ever more folders."""
    path = source.resolve()
    folders = [part for part in path.parent.parts if part != path.anchor]
    typed = f"{path.stem}_{path.suffix.lstrip('.').lower()}"
    longer = ["_".join([*folders[-depth:], typed]) for depth in range(1, len(folders) + 1)]
    return [path.stem, "_".join([*folders[-1:], path.stem]), *longer]


def _numbered(names: list[str]) -> list[str]:
    """Append a number to names that are still equal."""
    taken: set[str] = set()
    result = []
    for name in names:
        unique, number = name, 2
        while unique.lower() in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique.lower())
        result.append(unique)
    return result
