"""Checkpoints that survive a kill and are read without executing them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm

from ..checkpoint import load_checkpoint_safely

# Of the normalisation constants, which come from the config and may be absent from a checkpoint.
_OPTIONAL_KEYS = ("pixel_mean", "pixel_std")


class SafeCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer with three differences.

    - A checkpoint is written beside its final name and then renamed, and ``last_checkpoint``
      follows after it, so a run that is killed while it saves can be resumed from the one before.
    - Files are read with :func:`msr_d2.checkpoint.load_checkpoint_safely`.
    - Resuming refuses a checkpoint of another model, and so does loading with `complete`.
    """

    def __init__(self, model: torch.nn.Module, save_dir: str = "", *, complete: bool = False, **kw):
        """
        Args:
            model, save_dir, kw: as in ``DetectionCheckpointer``.
            complete: loading must set every parameter of the model, as an evaluation needs it.
        """
        super().__init__(model, save_dir, **kw)
        self._complete = complete
        self._must_match = complete

    def save(self, name: str, **kwargs) -> None:
        """Write ``{name}.pth``, in one step for anybody who looks at the folder."""
        if not self.save_dir or not self.save_to_disk:
            return
        if not os.path.isdir(self.save_dir):  # a remote folder: its handler decides
            super().save(name, **kwargs)
            return
        data = {"model": self.model.state_dict(), **kwargs}
        data.update((key, obj.state_dict()) for key, obj in self.checkpointables.items())
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        with _atomic_file(path) as file:
            torch.save(data, file)
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the newest checkpoint in the file ``last_checkpoint``."""
        if not os.path.isdir(self.save_dir):
            super().tag_last_checkpoint(last_filename_basename)
            return
        with _atomic_file(os.path.join(self.save_dir, "last_checkpoint")) as file:
            file.write(last_filename_basename.encode())

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """As its parent; with `checkpointables` None, which is a resume, the model must match.

        Raises:
            ValueError: if it does not, or the file is damaged or unsafe.
        """
        is_local = bool(path) and "://" not in path
        # detectron2 main takes options behind a question mark.
        if is_local and comm.is_main_process() and not os.path.isfile(path.split("?")[0]):
            raise ValueError(
                f"checkpoint '{path}' does not exist. It was named by MODEL.WEIGHTS, or by the "
                f"file last_checkpoint in '{self.save_dir}'; name one that exists."
            )
        is_resume = bool(self.checkpointables) and checkpointables is None
        self._must_match = self._complete or is_resume
        return super().load(path, checkpointables=checkpointables)

    def _load_file(self, filename: str) -> dict:
        data = load_checkpoint_safely(filename)
        if filename.endswith(".pkl"):
            return _from_pickle(data)
        if filename.endswith(".pyth"):  # pycls
            weights = data["model_state"].items()
            model = {k: v for k, v in weights if not k.endswith("num_batches_tracked")}
            return {"model": model, "__author__": "pycls", "matching_heuristics": True}
        data = data if "model" in data else {"model": data}
        url = getattr(self, "_parsed_url_during_load", None)  # detectron2 main only
        if url is not None and "matching_heuristics=True" in url.query:
            data["matching_heuristics"] = True
        return data

    def _load_model(self, checkpoint: dict):
        incompatible = super()._load_model(checkpoint)
        if self._must_match:
            _refuse_mismatch(incompatible)
        return incompatible


def _from_pickle(data: dict) -> dict:
    if "model" in data and "__author__" in data:  # detectron2's model zoo
        return data
    weights = data.get("blobs", data)  # Caffe2: with "blobs" a detector, without a backbone
    skipped = ("_momentum", "weight_order")
    model = {key: value for key, value in weights.items() if not key.endswith(skipped)}
    return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}


def _refuse_mismatch(incompatible) -> None:
    shapes = [
        f"{name}: {tuple(saved)} in the file, {tuple(wanted)} in the model"
        for name, saved, wanted in incompatible.incorrect_shapes
    ]
    missing = [key for key in incompatible.missing_keys if key not in _OPTIONAL_KEYS]
    if not shapes and not missing:
        return
    found = "; ".join([*shapes[:3], *(f"{name}: missing" for name in missing[:3])])
    raise ValueError(
        f"the checkpoint is of another model; {len(shapes)} parameters have another shape and "
        f"{len(missing)} are missing ({found}). Use the config it was trained with (above all "
        "MODEL.ROI_HEADS.NUM_CLASSES and MODEL.MASKIOU_ON). To start a new training from its "
        "weights: MODEL.WEIGHTS with that file, another OUTPUT_DIR, and no --resume."
    )


@contextlib.contextmanager
def _atomic_file(path: str) -> Iterator[BinaryIO]:
    """A file that takes its name only when everything is on the disk."""
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
