"""What an install of msr_d2 leaves alone, and what it says when detectron2 is missing."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest


def run(code: str, cwd) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_import_without_detectron2_says_what_to_do(repository):
    """``None`` in ``sys.modules`` is how Python itself blocks an import."""
    code = (
        "import sys; sys.modules['detectron2'] = None\n"
        "try:\n    import msr_d2\n"
        "except ImportError as error:\n    print(error)\n"
        "print('torch' in sys.modules)"
    )
    result = run(code, repository)
    assert result.returncode == 0, result.stderr
    message, imported_torch = result.stdout.strip().splitlines()  # one line: one sentence
    assert "detectron2" in message and "pip install ./packaging/detectron2" in message
    assert imported_torch == "False"


def test_setup_imports_nothing_but_setuptools_and_the_standard_library(repository):
    tree = ast.parse((repository / "setup.py").read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names <= {"setuptools", "shutil", "pathlib"}


def test_no_install_touches_the_torch_or_detectron2_of_the_user(repository):
    tomllib = pytest.importorskip("tomllib", reason="in the standard library from Python 3.11 on")
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    asked += [name for extra in project["optional-dependencies"].values() for name in extra]
    for requirement in asked:
        for name in ("torch", "detectron2", "opencv"):
            assert not requirement.lower().startswith(name), requirement
    # An upper limit or a pin at run time could pull a library from under the user's torch.
    assert all(name.isidentifier() for name in project["dependencies"])


def test_detectron2_wheel_asks_for_no_torch(repository):
    tomllib = pytest.importorskip("tomllib", reason="in the standard library from Python 3.11 on")
    text = (repository / "packaging" / "detectron2" / "pyproject.toml").read_text()
    content = tomllib.loads(text)
    asked = content["project"]["dependencies"] + content["build-system"]["requires"]
    assert not [name for name in asked if name.startswith("torch")]
    assert not [name for name in asked if "<" in name or "==" in name]
