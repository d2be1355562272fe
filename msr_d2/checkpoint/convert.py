"""Convert checkpoints of other code bases into ones that detectron2 loads with exact names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from .mapping import (
    BATCH_NORM_EPS,
    SOURCES,
    check_mmdet_version,
    detect_source,
    is_dropped,
    model_part,
    rename_key,
    transform_weight,
)
from .report import ConversionReport
from .safe_loading import CheckpointError, extract_state_dict, load_checkpoint_safely
from .settings import compare_settings, expected_settings

AUTHOR = "msr_d2 convert_checkpoint"

# Parts that a source cannot have, because its method has no such head.
_ALWAYS_ALLOWED = {
    "detectron2": ("roi_heads.maskiou_head.",),
    "torchvision": ("backbone.fpn_", "proposal_generator.", "roi_heads."),
}


def convert_state_dict(
    state: Mapping[str, torch.Tensor],
    source: str | None,
    model_state_shapes: Mapping[str, tuple[int, ...]],
    *,
    allow_missing: Iterable[str] = (),
    num_anchor_sizes: int = 1,
) -> ConversionReport:
    """Convert the weights of another code base.

    An incomplete result is no error here; call ``report.check()``.

    Args:
        state: names and weights in the source, see :func:`extract_state_dict`.
        source: one of :data:`SOURCES`; None to tell it from the names.
        model_state_shapes: names and shapes of the model, see :func:`model_state_shapes`.
        allow_missing: prefixes of names that may be missing, or have another shape.
        num_anchor_sizes: anchor sizes on each feature map of the model: 1 with FPN.

    Raises:
        ValueError: if the source is unknown, or gives two different weights the same name.
    """
    source = source or detect_source(state)
    if source not in SOURCES:
        raise ValueError(f"the source {source!r} is unknown: use one of {', '.join(SOURCES)}")
    if source == "mmdet":
        check_mmdet_version(state)
    shapes = {name: tuple(shape) for name, shape in model_state_shapes.items()}
    allow_missing = tuple(allow_missing)
    for prefix in allow_missing:
        if not any(name.startswith(prefix) for name in shapes):
            raise ValueError(f"--allow-missing {prefix}: no weight of the model starts like that")
    allowed = (*allow_missing, *_ALWAYS_ALLOWED.get(source, ()))
    report = ConversionReport(source)
    for key, weight in state.items():
        _convert_weight(report, key, weight, shapes, num_anchor_sizes, allowed)
    _split_by_shape(report, shapes, allowed)
    _fill_batch_norm(report, shapes)
    done = {*report.matched, *report.filled, *(name for name, _, _ in report.shape_mismatch)}
    absent = [name for name in shapes if name not in done]
    report.allowed_missing = [name for name in absent if name.startswith(allowed)]
    report.missing = [name for name in absent if not name.startswith(allowed)]
    _add_notes(report)
    return report


def _convert_weight(report, key, weight, shapes, num_anchor_sizes, allowed) -> None:
    resnet = "backbone."
    if any(name.startswith("backbone.bottom_up.") for name in shapes):
        resnet = "backbone.bottom_up."
    name = rename_key(key, report.source, resnet)
    if name not in shapes:
        if is_dropped(key):
            report.dropped.append(key)
            return
        report.unused.append(key)
        part = model_part(name) if name and not name.startswith(allowed) else None
        if part is not None and any(other.startswith(part) for other in shapes):
            report.surplus.append(key)
        return
    weight = transform_weight(name, weight, report.source, num_anchor_sizes)
    if name in report.matched:
        if not torch.equal(weight, report.state_dict[name]):
            raise ValueError(
                f"{report.matched[name]!r} and {key!r} of the checkpoint both belong to {name!r}, "
                "but differ: the checkpoint is of a model that cannot be converted"
            )
        report.dropped.append(key)  # a second copy of a shared layer
        return
    report.matched[name] = key
    report.state_dict[name] = weight


def _split_by_shape(report: ConversionReport, shapes: Mapping, allowed: tuple[str, ...]) -> None:
    """Move weights that do not fit from `matched` to where they belong."""
    for name in list(report.matched):
        shape = tuple(report.state_dict[name].shape)
        if shape == shapes[name]:
            report.state_dict[name] = report.state_dict[name].clone(
                memory_format=torch.contiguous_format
            )
            continue
        key = report.matched.pop(name)
        del report.state_dict[name]
        if name.startswith(allowed):
            report.unused.append(key)
        else:
            report.shape_mismatch.append((name, shape, shapes[name]))


def _fill_batch_norm(report: ConversionReport, shapes: Mapping) -> None:
    """Complete batch norms of which a source kept only scale and shift, or no step counter."""
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        values = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0}
        if kind not in values or name in report.state_dict:
            continue
        if f"{layer}.weight" not in report.matched:
            continue
        value = values[kind]
        if kind == "running_var" and report.source == "maskscoring_rcnn":
            value -= BATCH_NORM_EPS
        dtype = torch.int64 if kind == "num_batches_tracked" else torch.float32
        report.state_dict[name] = torch.full(shape, value, dtype=dtype)
        report.filled.append(name)


def _add_notes(report: ConversionReport) -> None:
    if report.source == "torchvision":
        report.notes.append(
            "These weights fill the backbone only: train the rest from its random start."
        )
    elif any(name.startswith("roi_heads.maskiou_head.") for name in report.allowed_missing):
        report.notes.append(
            "The MaskIoU head is NEW: the checkpoint has none. It keeps its random start and must "
            "be trained before mask_scores mean anything."
        )
    if any(".conv2_offset." in name for name in report.matched) and report.source != "detectron2":
        report.notes.append(
            "Deformable convolutions: the offset channels are taken over in the order they have "
            "in the source, which was not verified to be detectron2's. Compare outputs on a few "
            "images with the original before you rely on them."
        )


def model_state_shapes(cfg: CfgNode) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights of the model of a config."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    return {name: tuple(weight.shape) for name, weight in build_model(cfg).state_dict().items()}


def convert_checkpoint(
    input_path: str | Path,
    output_path: str | Path,
    cfg: CfgNode,
    *,
    source: str | None = None,
    allow_missing: Iterable[str] = (),
    trust: bool = False,
    verbose: bool = False,
    log: Callable[[str], None] = print,
) -> ConversionReport:
    """Convert a checkpoint file; writes nothing unless the model of `cfg` would be complete.

    Args:
        input_path: file of the source, see :func:`load_checkpoint_safely`.
        output_path: file for detectron2; ends in ``.pth``.
        cfg: config of the model that the weights are for.
        source: see :func:`convert_state_dict`.
        allow_missing: see :func:`convert_state_dict`.
        trust: see :func:`load_checkpoint_safely`.
        verbose: the report lists every matched weight too.
        log: called with the report before it is checked.

    Raises:
        ValueError: if the input cannot be read or the result would be incomplete; the message
            names file, weights and cure.
    """
    input_path, output_path = Path(input_path), Path(output_path)
    if output_path.suffix != ".pth":
        raise CheckpointError(f"{output_path}: the output must end in .pth")
    if output_path.resolve() == input_path.resolve():
        raise CheckpointError(f"{output_path}: input and output are the same file: rename one")
    checkpoint = load_checkpoint_safely(input_path, trust)
    report = convert_state_dict(
        extract_state_dict(checkpoint, input_path),
        source,
        model_state_shapes(cfg),
        allow_missing=allow_missing,
        num_anchor_sizes=_num_anchor_sizes(cfg),
    )
    settings, remarks = expected_settings(report.source, checkpoint)
    report.notes += remarks + compare_settings(cfg, settings)
    log(report.format(verbose))
    report.check()
    _write(report, output_path)
    return report


def _num_anchor_sizes(cfg: CfgNode) -> int:
    sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    return len(sizes[0]) if isinstance(sizes[0], (list, tuple)) else len(sizes)


def _write(report: ConversionReport, path: Path) -> None:
    """Write beside the target first, so that a killed run leaves no half file under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # No `matching_heuristics`: detectron2 would then guess names instead of comparing them.
    content = {"model": report.state_dict, "__author__": AUTHOR, "converted_from": report.source}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        torch.save(content, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
