#!/usr/bin/env python
"""Convert a checkpoint of another code base into one that detectron2 loads with exact names.

    python scripts/convert_checkpoint.py --input ms_rcnn.pth --output converted.pth \\
        --config-file configs/mask_scoring/official_R_50_FPN.yaml

The input may come from the official Mask Scoring R-CNN (maskrcnn-benchmark), from mmdetection 2 or
3, or from the model zoo of detectron2. The script prints what became of every weight, and fails
when a part of the model would stay at random values. Reading the input executes nothing of it.
"""

from __future__ import annotations

import argparse

from msr_d2 import get_cfg
from msr_d2.checkpoint import SOURCES, convert_checkpoint


def parse_arguments(args: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, help=".pth, .pt, .bin, .pkl or .safetensors")
    parser.add_argument("--output", required=True, help="file to write, .pth")
    parser.add_argument("--config-file", required=True, help="config of the model to fill")
    parser.add_argument("--source", choices=SOURCES, help="default: told from the names")
    parser.add_argument(
        "--allow-missing",
        action="append",
        default=[],
        metavar="PREFIX",
        help="weights of the model that start like this may stay at their initial values, such as "
        "roi_heads.maskiou_head. (allowed without saying for checkpoints of detectron2); may be "
        "repeated",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="unpickle the input without restrictions. By default only tensors, numpy arrays, "
        "numbers, text and plain containers are read, and a file that names anything else is "
        "refused; with this switch such a file can run any code it brings. For your own files",
    )
    parser.add_argument("--verbose", action="store_true", help="list every matched weight as well")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config KEY VALUE ..., at the end")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> None:
    """Convert, or leave with a message that names the problem."""
    options = parse_arguments(args)
    cfg = get_cfg()
    cfg.merge_from_file(options.config_file, allow_unsafe=False)
    cfg.merge_from_list(options.opts)
    try:
        convert_checkpoint(
            options.input,
            options.output,
            cfg,
            source=options.source,
            allow_missing=options.allow_missing,
            trust=options.trust,
            verbose=options.verbose,
        )
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"\nwrote {options.output}")


if __name__ == "__main__":
    main()
