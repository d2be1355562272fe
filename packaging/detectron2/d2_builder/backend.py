"""PEP 517 backend: setuptools' own, run on the unpacked and edited sdist.

There is no ``prepare_metadata_for_build_wheel`` on purpose: pip then builds the wheel once and
reads the metadata from it, instead of downloading and editing the sources twice.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .edits import EDITS
from .engine import apply_edits
from .source import fetch_sdist, unpack

PROJECT_DIR = Path(__file__).resolve().parent.parent
# setup.py installs these under detectron2.projects; it cannot be run, since it imports torch.
SUBPROJECTS = {
    "point_rend": "projects/PointRend/point_rend",
    "deeplab": "projects/DeepLab/deeplab",
    "panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}


def get_requires_for_build_wheel(config_settings=None) -> list[str]:
    """PEP 517 hook: nothing beyond ``build-system.requires``."""
    return []


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    """PEP 517 hook: build the wheel and return its file name."""
    from setuptools import build_meta

    target = os.path.abspath(wheel_directory)
    with tempfile.TemporaryDirectory(prefix="detectron2-build-") as folder:
        root = prepare_sources(Path(folder))
        with working_directory(root):
            return build_meta.build_wheel(target)


def build_sdist(sdist_directory, config_settings=None) -> str:
    """PEP 517 hook: not offered."""
    raise NotImplementedError("build the wheel: the sdist of detectron2 is published already")


def prepare_sources(folder: Path) -> Path:
    """Put the edited sources of detectron2 into ``folder``, ready for setuptools.

    Raises:
        SourceError: if the sdist cannot be had or has another SHA-256.
        EditError: if an edit does not match.
    """
    root = unpack(fetch_sdist(folder), folder / "sources")
    apply_edits(root, EDITS)
    for name, path in SUBPROJECTS.items():
        shutil.move(root / path, root / "detectron2" / "projects" / name)
    for name in ("setup.py", "setup.cfg", "projects", "pb1_detectron2.egg-info"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copy(PROJECT_DIR / "pyproject.toml", root)
    return root


@contextlib.contextmanager
def working_directory(path: Path) -> Iterator[None]:
    """Change into ``path`` for the length of the block."""
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)
