"""From the command line to a checked config."""

from __future__ import annotations

import argparse
import os

import yaml
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser as d2_argument_parser
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from fvcore.common.config import BASE_KEY

from ..config import get_cfg
from ..data import check_num_classes, register_from_config
from .device import resolve_device


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """detectron2's parser, except that ``--dist-url`` is a free port instead of a fixed one.

    detectron2 derives the port from the user id, so a user's second job collides with the first.
    """
    parser = d2_argument_parser(epilog)
    parser.set_defaults(dist_url="auto")
    return parser


def load_cfg(config_file: str = "", opts: list[str] | None = None) -> CfgNode:
    """Our default config, a yaml file merged into it, then ``KEY VALUE`` pairs.

    ``MODEL.DEVICE`` is "auto" unless the file or the pairs say otherwise, and comes back resolved.

    Raises:
        ValueError: if the file is missing or not plain yaml, or the device is not there.
        KeyError: for a key that does not exist.
    """
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "auto"
    if config_file:
        _merge_file(cfg, config_file)
    _merge_opts(cfg, opts or [])
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    return cfg


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    if not config_file.endswith((".yaml", ".yml")):
        raise ValueError(f"--config-file must be a yaml file, got '{config_file}'.")
    if not os.path.isfile(config_file):
        raise ValueError(f"--config-file '{config_file}' does not exist.")
    try:
        cfg.merge_from_file(config_file, allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(
            f"'{config_file}' (or its {BASE_KEY}) has a yaml tag that would run Python code: "
            f"{error.problem}. It was not loaded; write the value in plain yaml."
        ) from error


def _merge_opts(cfg: CfgNode, opts: list[str]) -> None:
    options = [opt for opt in opts[::2] if str(opt).startswith("--")]
    if options or len(opts) % 2:
        what = f"found {options[0]} among them" if options else f"got {len(opts)} words: {opts}"
        raise ValueError(
            f"the command ends with KEY VALUE pairs, and options such as --resume stand before "
            f"them; {what}."
        )
    cfg.merge_from_list(opts)


def setup(args: argparse.Namespace) -> CfgNode:
    """Everything before the model is built: config, data sets, checks, logger, seed.

    Args:
        args: of :func:`default_argument_parser`.

    Returns:
        The frozen config.

    Raises:
        ValueError: for a config that cannot work, with the cure; see :func:`load_cfg`,
            :func:`msr_d2.data.register_from_config` and :func:`msr_d2.data.check_num_classes`.
    """
    cfg = load_cfg(args.config_file, args.opts)
    # default_setup does this for the loggers of detectron2 and fvcore.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="msr_d2")
    register_from_config(cfg)
    check_num_classes(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg
