"""msr_d2: instance segmentation systems as an extension of stock detectron2.

Importing the package registers its modules in detectron2's registries and does nothing else, so
``import msr_d2`` in any detectron2 project makes our names available to its configs.
"""

import importlib.util

__version__ = "0.1.0"

if importlib.util.find_spec("detectron2") is None:
    raise ImportError(
        "msr_d2 needs detectron2, which is not installed here: run `pip install "
        "./packaging/detectron2` from the msr_d2 repository (pure Python, no compiler), or install "
        "your own build of detectron2."
    )

from . import data, mask_free_vis, mask_scoring, modeling  # noqa: F401  (imported to register)
from .config import add_msr_config, get_cfg

__all__ = ["__version__", "add_msr_config", "get_cfg"]
