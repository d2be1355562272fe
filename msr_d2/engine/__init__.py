"""Setup, training, evaluation and launching: the only place that sees everything."""

from .checkpointer import SafeCheckpointer
from .config_file import load_cfg
from .defaults import default_argument_parser, setup
from .device import resolve_device
from .launch import launch
from .trainer import Trainer

__all__ = [
    "SafeCheckpointer",
    "Trainer",
    "default_argument_parser",
    "launch",
    "load_cfg",
    "resolve_device",
    "setup",
]
