"""Choosing the device."""

from __future__ import annotations

import torch


def resolve_device(name: str) -> str:
    """Turn ``MODEL.DEVICE`` into a device that exists here.

    Args:
        name: "auto" (cuda, else mps, else cpu) or a device of torch such as "cuda" or "cuda:1".

    Raises:
        ValueError: if the device is unknown, or not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    kind = name.split(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _has_mps()}
    if kind not in available:
        raise ValueError(f"MODEL.DEVICE is '{name}'; use auto, cuda, cuda:N, mps or cpu.")
    if not available[kind]:
        raise ValueError(
            f"MODEL.DEVICE is '{name}', but torch {torch.__version__} finds no such device here. "
            "Use MODEL.DEVICE auto (or cpu), or install a torch build that fits your driver."
        )
    return name


def _has_mps() -> bool:
    backend = getattr(torch.backends, "mps", None)
    return backend is not None and backend.is_available()
