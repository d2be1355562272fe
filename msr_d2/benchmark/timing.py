"""Timing side by side: medians over alternating repeats."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision


def compare(
    functions: dict[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each function; the functions take turns, so that drift hits all alike.

    Args:
        functions: what to time, by name.
        repeats: timed calls of each function; one more call before them is not counted.
        device: where the work runs; it is waited for before the clock is read.
        progress: called after each call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
            progress()
    return {name: statistics.median(values) for name, values in seconds.items()}


def hardware(device: torch.device) -> str:
    """One line: device, threads, versions."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return (
        f"{device.type} ({name}), {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, Python {platform.python_version()}"
    )


def peak_resident_kib() -> int:
    """Largest resident size of this process so far, in KiB; Linux only.

    `getrusage` is of no use here: its maximum survives fork and exec, so a child process would
    report its parent's.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("the kernel does not tell the peak memory of a process (VmHWM)")


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table as Markdown, the first column left-aligned and the others right-aligned."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
