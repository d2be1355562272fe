"""Builds the two wheels as a user's pip does, in isolation, and looks into them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def build(source: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder)]
    return subprocess.run(
        [*command, str(source)], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def detectron2_wheel(repository, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("detectron2")
    result = build(repository / "packaging" / "detectron2", folder)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_is_pure_and_complete(detectron2_wheel):
    assert detectron2_wheel.name == "detectron2-0.6+pure-py3-none-any.whl"
    names = set(zipfile.ZipFile(detectron2_wheel).namelist())
    configs = [name for name in names if name.startswith("detectron2/model_zoo/configs/")]
    assert sum(name.endswith(".yaml") for name in configs) > 80
    assert "detectron2/model_zoo/configs/common/optim.py" in names
    for project in ("point_rend", "deeplab", "panoptic_deeplab"):
        assert f"detectron2/projects/{project}/__init__.py" in names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    strangers = {name.split("/")[0] for name in names} - {"detectron2"}
    assert all(name.endswith(".dist-info") for name in strangers), strangers


def test_wheel_works_from_another_place(detectron2_wheel, tmp_path):
    zipfile.ZipFile(detectron2_wheel).extractall(tmp_path)
    code = (
        "import detectron2, detectron2.engine, detectron2.evaluation, detectron2.export\n"
        "from detectron2 import model_zoo\n"
        "from detectron2.projects import point_rend\n"
        "print(detectron2.__file__, detectron2.__version__)\n"
        "print(model_zoo.get_config_file('Base-RCNN-FPN.yaml'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(str(tmp_path)) == 2 and " 0.6\n" in result.stdout


def test_build_refuses_another_sdist(repository, tmp_path):
    sdist = tmp_path / "other.tar.gz"
    sdist.write_bytes(b"not the one")
    result = build(repository / "packaging" / "detectron2", tmp_path, DETECTRON2_SDIST=str(sdist))
    assert result.returncode != 0
    assert "SHA-256" in result.stdout + result.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_msr_d2_wheel_has_the_configs_and_leaves_torch_alone(repository, tmp_path):
    result = build(repository, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    (wheel,) = tmp_path.glob("msr_d2-*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    ours = {path.relative_to(repository) for path in (repository / "configs").rglob("*.yaml")}
    assert ours and {f"msr_d2/{path.as_posix()}" for path in ours} <= set(names)
    (metadata,) = (name for name in names if name.endswith("dist-info/METADATA"))
    required = [
        line for line in archive.read(metadata).decode().splitlines() if "Requires-Dist" in line
    ]
    assert required and not [line for line in required if "torch" in line or "detectron2" in line]
