#!/usr/bin/env python
"""Find objects in images and draw them with all their scores.

    python scripts/demo.py --config-file FILE --weights FILE --input IMAGES --output FOLDER
                           [KEY VALUE ...]

Writes <name>_overlay.png for each image, instances.json in COCO's result format (`score` is the
class score; `mask_score` and `mask_iou` stand beside it) and images.json with the image ids and
category names that it refers to. The exit code is 1 when images could not be read, which are then
named and skipped, and 2 for a wrong command.
"""

from __future__ import annotations

import argparse
import sys

from detectron2.utils.logger import setup_logger

from msr_d2.data import DatasetError, register_from_config
from msr_d2.engine import load_cfg
from msr_d2.engine.demo import find_images, run_demo
from msr_d2.engine.predict import Predictor, class_table


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="the config that the weights were trained with")
    add("--input", required=True, nargs="+", help="images, folders, or quoted patterns")
    add("--output", required=True, help="folder for the overlays and the json files")
    add("--weights", help="checkpoint; default is MODEL.WEIGHTS of the config")
    add("--score-threshold", type=float, default=0.4, help="draw instances from this score on")
    add(
        "--threshold-on",
        choices=("mask_scores", "scores"),
        default="mask_scores",
        help="the score that is compared with it: mask score (default) or class score",
    )
    add("--batch-size", type=int, default=1, help="images in one forward pass")
    add("--jpg", action="store_true", help="write overlays as jpg instead of png")
    add("--random-weights", action="store_true", help="run without a checkpoint, to try things")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="changes of the config")
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    """Run the demo; returns the exit code."""
    logger = setup_logger(name="msr_d2")
    setup_logger(name="fvcore")
    cfg = load_cfg(args.config_file, args.opts)
    if args.weights:
        cfg.MODEL.WEIGHTS = args.weights
    try:
        register_from_config(cfg)
    except DatasetError as error:  # the data of the training is not needed, only good for names
        logger.warning("%s", error)
    sources = find_images(args.input, args.output)
    report = run_demo(
        Predictor(cfg, allow_random_weights=args.random_weights),
        sources,
        args.output,
        categories=class_table(cfg),
        score_threshold=args.score_threshold,
        threshold_on=args.threshold_on,
        batch_size=args.batch_size,
        suffix=".jpg" if args.jpg else ".png",
    )
    print(f"{len(report.overlays)} overlays and {report.results.name} are in {args.output}")
    if report.skipped:
        print(f"{len(report.skipped)} of {len(sources)} images were skipped:", file=sys.stderr)
        for path, reason in report.skipped.items():
            print(f"  {path}: {reason}", file=sys.stderr)
    return 1 if report.skipped else 0


if __name__ == "__main__":
    try:
        sys.exit(main(parse_arguments()))
    except ValueError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
