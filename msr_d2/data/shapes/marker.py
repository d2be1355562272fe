"""Recognise a generated set on disk, so that it is left alone, repaired or refused.

A file ``shapes.json`` beside the data says with which settings they were written and whether the
run came to its end. It is written first and last, and every file is put in place by a rename, so a
run can be killed at any time: the next one with the same settings makes the set complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

SPLITS = ("train", "val")  # the position is part of the seed of an image or a clip
MARKER = "shapes.json"
_FOLDERS = (*SPLITS, "annotations")
_DIGIT = "[0-9]"


def is_complete(output: Path, settings: dict, overwrite: bool) -> bool:
    """Whether the set is there and may stay.

    Args:
        settings: what it has to be written with, as json would give it back.

    Raises:
        ValueError: the folder holds other files, or a set of other settings and ``overwrite`` is
            off.
    """
    marker = _read(output)
    if marker is None:
        taken = [name for name in _FOLDERS if (output / name).exists()]
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


def begin(output: Path, settings: dict) -> None:
    """Clear the folder of what an earlier run left, and nothing else, and mark it incomplete."""
    for path in own_files(output):
        path.unlink()
    for folder in (output, *(output / name for name in _FOLDERS)):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".*.tmp"):
            path.unlink()
    for split in SPLITS:
        _clear_clips(output / split / "JPEGImages")
    write_json(output / MARKER, {"complete": False, "settings": settings})


def finish(output: Path, settings: dict) -> None:
    """Mark the set complete."""
    marker = {"complete": True, "settings": settings, "bytes": _count_bytes(output)}
    write_json(output / MARKER, marker)


def own_files(output: Path) -> Iterator[Path]:
    """The images, frames and annotation files that the generator may have written."""
    for split in SPLITS:
        yield from (output / split).glob(_DIGIT * 6 + ".png")
        yield from (output / split / "JPEGImages").glob(f"{_DIGIT * 5}/{_DIGIT * 5}.jpg")
        for name in (f"instances_{split}.json", f"instances_{split}_masks.json"):
            yield from (output / "annotations").glob(name)


def check_integers(limits: Mapping[str, tuple[object, int, int]]) -> None:
    """Raise a ValueError unless every named (value, low, high) is an integer in its range."""
    for name, (value, low, high) in limits.items():
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")


def write_json(path: Path, data: dict) -> None:
    write_bytes(path, json.dumps(data, separators=(",", ":")).encode("ascii"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is either complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _read(output: Path) -> dict | None:
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


def _clear_clips(folder: Path) -> None:
    """Remove the folders of clips that are empty by now, and half files in them."""
    for clip in folder.glob(_DIGIT * 5):
        for path in clip.glob(".*.tmp"):
            path.unlink()
        if not any(clip.iterdir()):
            clip.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _count_bytes(output: Path) -> dict[str, int]:
    """Number and total size of the files: enough to see that one is missing or cut short."""
    sizes = [path.stat().st_size for path in own_files(output)]
    return {"files": len(sizes), "total": sum(sizes)}
