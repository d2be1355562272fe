#!/usr/bin/env python
"""Find objects in images or videos and draw them with their scores.

    python scripts/demo.py --config-file FILE --weights FILE --input INPUTS --output FOLDER
                           [KEY VALUE ...]

Images: writes <name>_overlay.png for each, instances.json in COCO's result format (`score` is the
class score; `mask_score` and `mask_iou` stand beside it) and images.json with the image ids and
category names that it refers to.

Videos (with a config of a video model): a video file, or a folder whose pictures are the frames of
one video. Writes <name>_overlay.mp4 for each, tracks.json in YouTube-VIS's result format and
videos.json with the videos and categories that it refers to. Videos of more than 120 frames are
worked through in windows, so that memory does not grow with the video. The key
MODEL.MASK_FREE.TEST.WINDOW_ABOVE is this number of frames: with 1000000000 every video is taken as
a whole. Overlay videos, and reading video files, need PyAV (`pip install av`); folders of frames
with --no-video --frames do not.

The exit code is 1 when inputs could not be read, which are then named and skipped, and 2 for a
wrong command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

from msr_d2.data import DatasetError, register_from_config
from msr_d2.engine import load_cfg
from msr_d2.engine.demo import find_images, run_demo
from msr_d2.engine.predict import Predictor, class_table
from msr_d2.engine.video_demo import Drawing, run_video_demo
from msr_d2.engine.video_inputs import Inputs, refuse_videos, sort_inputs
from msr_d2.engine.video_predict import VideoPredictor, is_video_model, with_windows


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="the config that the weights were trained with")
    add("--input", required=True, nargs="+", help="images, videos, folders, or quoted patterns")
    add("--output", required=True, help="folder for the overlays and the json files")
    add("--weights", help="checkpoint; default is MODEL.WEIGHTS of the config")
    add("--score-threshold", type=float, default=0.4, help="draw objects from this score on")
    add("--jpg", action="store_true", help="write pictures as jpg instead of png")
    add("--random-weights", action="store_true", help="run without a checkpoint, to try things")
    images = parser.add_argument_group("images").add_argument
    images(
        "--threshold-on",
        choices=("mask_scores", "scores"),
        default="mask_scores",
        help="the score that is compared with it: mask score (default) or class score",
    )
    images("--batch-size", type=int, default=1, help="images in one forward pass")
    videos = parser.add_argument_group("videos").add_argument
    videos("--frames", action="store_true", help="write each overlay as a picture, too")
    videos("--no-video", action="store_true", help="write no overlay videos")
    videos("--fps", type=float, help="frames per second of folders (default 6), or to replace")
    videos("--per-image", action="store_true", help="take pictures of folders as separate images")
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
    inputs = _inputs(args, cfg)
    skipped: dict[Path, str] = {}
    if inputs.videos:
        skipped.update(_videos(args, cfg, inputs.videos))
    if inputs.images:
        skipped.update(_images(args, cfg, inputs.images))
    if skipped:
        total = len(inputs.videos) + len(inputs.images)
        kind = "inputs" if inputs.videos else "images"
        print(f"{len(skipped)} of {total} {kind} were skipped:", file=sys.stderr)
        for path, reason in skipped.items():
            print(f"  {path}: {reason}", file=sys.stderr)
    return 1 if skipped else 0


def _inputs(args: argparse.Namespace, cfg: CfgNode) -> Inputs:
    if is_video_model(cfg):
        return sort_inputs(args.input, args.output, per_image=args.per_image)
    refuse_videos(args.input, cfg.MODEL.META_ARCHITECTURE)
    return Inputs(images=find_images(args.input, args.output))


def _images(args: argparse.Namespace, cfg: CfgNode, sources: Sequence[Path]) -> dict[Path, str]:
    """Predict and draw images; returns those that were skipped, with the reason."""
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
    return report.skipped


def _videos(args: argparse.Namespace, cfg: CfgNode, sources: Sequence[Path]) -> dict[Path, str]:
    """Predict and draw videos; returns those that were skipped, with the reason."""
    drawing = Drawing(
        score_threshold=args.score_threshold,
        video=not args.no_video,
        pictures=args.frames,
        suffix=".jpg" if args.jpg else ".png",
    )
    report = run_video_demo(
        VideoPredictor(with_windows(cfg), allow_random_weights=args.random_weights),
        sources,
        args.output,
        categories=class_table(cfg),
        drawing=drawing,
        fps=args.fps,
    )
    overlays = f"{len(report.overlays)} overlay videos"
    if args.no_video:
        overlays = f"{len(report.folders)} folders of overlays" if args.frames else "no overlays"
    print(f"{overlays} and {report.tracks.name} are in {args.output}")
    return report.skipped


if __name__ == "__main__":
    try:
        sys.exit(main(parse_arguments()))
    except (ValueError, ImportError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
