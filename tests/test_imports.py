"""Imports point down only, and nothing that users may lack is imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "msr_d2"
ROOMS = {"mask_rcnn", "mask_scoring", "deep_metric", "mask_free_vis"}
PARTS = {"data", "evaluation", "visualization", "checkpoint"}

# What a part of the package may import from the rest of it.
ALLOWED = {
    "layers": set(),
    "modeling": {"layers"},
    "data": {"layers"},
    "evaluation": {"layers", "data"},
    "visualization": {"layers", "data"},
    "checkpoint": {"layers"},
    **{room: {"layers", "modeling"} for room in ROOMS},
    "config": ROOMS,
    "testing": {"config", "layers"},
    "benchmark": PARTS | ROOMS | {"layers"},
    "engine": PARTS | ROOMS | {"layers", "modeling", "config"},
}


def imported_modules(path):
    """Absolute names of all modules that a file imports, also inside functions."""
    module = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(module[: len(module) - node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            if node.module is None:
                yield from (".".join([*base, alias.name]) for alias in node.names)
            else:
                yield ".".join(base)


def sources(folder):
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("path", sources(PACKAGE), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if part == "__init__":
        return
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] == "msr_d2" and len(parts) > 1 and parts[1] != part:
            assert parts[1] in ALLOWED[part], f"{part} must not import {name}"


@pytest.mark.parametrize(
    "path", [*sources(PACKAGE), *sources(ROOT / "scripts")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_nothing_that_may_be_missing_is_imported(path):
    for name in imported_modules(path):
        for forbidden in ("detectron2.model_zoo", "detectron2.projects", "detectron2._C"):
            assert not name.startswith(forbidden), name


def test_import_registers_and_does_nothing_else():
    """No file is written, no seed drawn, no backend chosen; a second import changes nothing."""
    code = (
        "import os, random, sys\n"
        "before, state = set(os.listdir('.')), random.getstate()\n"
        "import msr_d2, importlib\n"
        "importlib.reload(msr_d2)\n"
        "from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY\n"
        "assert 'MaskScoringROIHeads' in ROI_HEADS_REGISTRY\n"
        "assert 'MaskFreeVIS' in META_ARCH_REGISTRY\n"
        "assert not {'av', 'timm'} & set(sys.modules)\n"  # needed by some configs and scripts only
        "assert state == random.getstate() and before == set(os.listdir('.'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules or 'detectron2' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
