"""Read checkpoint files without executing anything they were not trusted with."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from .safe_pickle import NUMPY_GLOBALS, UnsafeGlobalError, load_arrays, resolve_arrays

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".pyth")
SUFFIXES = (*TORCH_SUFFIXES, ".pkl", ".safetensors")

# Where code bases keep the weights: detectron2 and maskrcnn-benchmark, mmdetection, pycls.
_STATE_DICT_KEYS = ("model", "state_dict", "model_state")


class CheckpointError(ValueError):
    """A checkpoint file that is missing, damaged, of an unknown kind, or not safe to read."""


def load_checkpoint_safely(path: str | Path, trust: bool = False) -> object:
    """Read a checkpoint file; what it contains is never executed.

    ``.pth``, ``.pt``, ``.bin`` and ``.pyth`` are read by ``torch.load(weights_only=True)`` and may
    contain numpy arrays and numbers besides tensors; ``.pkl`` may contain numpy arrays, numbers,
    text and plain containers; ``.safetensors`` contains nothing else by design.

    Args:
        path: the file.
        trust: unpickle without restrictions, so that the file can run any code it brings. Only for
            files you wrote yourself.

    Returns:
        What the file contains, tensors on the CPU.

    Raises:
        CheckpointError: (a ``ValueError``) names the file, what is wrong, and the cure.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: a checkpoint must end in one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    read = _read_trusted if trust else _read_restricted
    try:
        return read(path)
    except CheckpointError:
        raise
    except UnsafeGlobalError as error:
        raise _unsafe(path, error.name) from error
    except Exception as error:  # a damaged file can make a parser raise anything
        name = _refused_global(error)
        if name is not None:
            raise _unsafe(path, name) from error
        raise CheckpointError(
            f"{path}: not a readable {path.suffix} file ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}). It may be cut off or "
            "damaged: compare its size with the original and copy it again"
        ) from error


def _read_restricted(path: Path) -> object:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".pkl":
        with path.open("rb") as file:
            return load_arrays(file)
    if "weights_only" not in inspect.signature(torch.load).parameters:
        raise CheckpointError(
            f"{path}: torch {torch.__version__} cannot read a checkpoint without executing it: "
            "use torch 1.13 or later"
        )
    with _numpy_in_torch_files():
        return resolve_arrays(torch.load(path, map_location="cpu", weights_only=True))


def _read_trusted(path: Path) -> object:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".pkl":
        with path.open("rb") as file:
            return pickle.load(file, encoding="latin1")
    has_switch = "weights_only" in inspect.signature(torch.load).parameters
    return torch.load(path, map_location="cpu", **({"weights_only": False} if has_switch else {}))


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    if importlib.util.find_spec("safetensors") is None:
        raise CheckpointError(f"{path}: run `pip install safetensors` to read this kind of file")
    from safetensors.torch import load_file

    return load_file(str(path), device="cpu")


def _numpy_in_torch_files() -> contextlib.AbstractContextManager:
    """Let torch's restricted reader build numpy values through our stand-ins.

    Training loops often save a numpy number beside the weights (a best score, a learning rate),
    and torch would refuse the whole file for it.
    """
    # The function came with the version (2.6) whose allow-list accepts names for its entries.
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        return contextlib.nullcontext()
    return torch.serialization.safe_globals(
        [(stand_in, name) for name, stand_in in NUMPY_GLOBALS.items()]
    )


def _refused_global(error: Exception) -> str | None:
    """The name that torch's restricted reader refused, if that is what happened."""
    if not isinstance(error, pickle.UnpicklingError):
        return None
    found = re.search(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", str(error))
    if found is not None:
        return found.group(1)
    found = re.search(r"unrecognized function (.+)|but got (<class .+>)", str(error))
    return found and (found.group(1) or found.group(2))


def _unsafe(path: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: refused, because reading it would use {name}, which is neither a tensor, an "
        "array, a number, text nor a plain container; nothing was executed. Cure: where the file "
        "comes from, save the weights alone, `torch.save({'model': model.state_dict()}, ...)`. If "
        "you wrote the file yourself, --trust reads it without restrictions; then it can run any "
        "code it brings"
    )


def extract_state_dict(checkpoint: object, path: str | Path = "") -> dict[str, torch.Tensor]:
    """The weights of a checkpoint as a plain dict of tensors.

    Prefixes ``module.`` of a model that was wrapped for distributed training are removed.

    Args:
        checkpoint: what :func:`load_checkpoint_safely` returned.
        path: named in error messages.

    Raises:
        CheckpointError: if there are no weights where they should be.
    """
    state = checkpoint
    for key in _STATE_DICT_KEYS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            state = checkpoint[key]
            break
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"{path}: no weights found: expected names with tensors, or those under one of the "
            f"keys {', '.join(_STATE_DICT_KEYS)}"
        )
    tensors = {str(key): _as_tensor(key, value, path) for key, value in state.items()}
    while all(key.startswith("module.") for key in tensors):
        tensors = {key[len("module.") :]: value for key, value in tensors.items()}
    return tensors


def _as_tensor(key: object, value: object, path: str | Path) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        return torch.as_tensor(np.asarray(value))
    raise CheckpointError(
        f"{path}: {key!r} is a {type(value).__name__} and not a tensor; is this a checkpoint of a "
        "model?"
    )
