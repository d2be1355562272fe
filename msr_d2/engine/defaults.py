"""From the command line to a checked config."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser as d2_argument_parser
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..data import check_num_classes, register_from_config
from ..modeling import check_deformable_config, check_legacy_config
from .config_file import load_cfg


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """detectron2's parser, except that ``--dist-url`` is a free port instead of a fixed one.

    detectron2 derives the port from the user id, so a user's second job collides with the first.
    """
    parser = d2_argument_parser(epilog)
    parser.set_defaults(dist_url="auto")
    return parser


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
    check_deformable_config(cfg)
    if cfg.MODEL.LEGACY_BOXES:
        check_legacy_config(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg
