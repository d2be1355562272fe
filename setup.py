"""Ships ``configs/`` inside the package; everything else is said in pyproject.toml.

In a clone (and an editable install of it) the configs stay where they are, beside ``msr_d2``; a
wheel has them as ``msr_d2/configs``. Nothing here imports torch, so an isolated build works.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPyWithConfigs(build_py):
    """``build_py`` that also copies ``configs`` to ``msr_d2/configs``, except in editable mode."""

    def run(self) -> None:
        super().run()
        if not getattr(self, "editable_mode", False):
            configs = Path(self.build_lib, "msr_d2", "configs")
            shutil.rmtree(configs, ignore_errors=True)  # of an earlier build: no stale files
            shutil.copytree("configs", configs)


setup(cmdclass={"build_py": BuildPyWithConfigs})
