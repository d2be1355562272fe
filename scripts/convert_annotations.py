#!/usr/bin/env python
"""Convert annotations of videos to and from YouTube-VIS json, or split them by video.

    python scripts/convert_annotations.py coco-frames-to-ytvis --input frames.json --output vis.json
    python scripts/convert_annotations.py ytvis-to-coco-frames --input vis.json --output frames.json
    python scripts/convert_annotations.py mot-to-ytvis --input MOT17/train/*-FRCNN --output vis.json
    python scripts/convert_annotations.py fill-boxes --input vis.json --output filled.json
    python scripts/convert_annotations.py split --input vis.json --share 0.2 --seed 0 \\
        --output train.json val.json

MOT17 has each sequence three times, once for each detector: the pattern takes one of them.
fill-boxes makes masks of boxes, which is a baseline and no replacement for masks.
What cannot be used is named and left out; what cannot be converted is an error.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from msr_d2.data.video.convert import (
    MOT_CLASSES,
    coco_frames_to_ytvis,
    fill_boxes,
    mot_to_ytvis,
    split_by_video,
    write_annotation_json,
    ytvis_to_coco_frames,
)

# Converters from one file to another.
CONVERTERS = {
    "coco-frames-to-ytvis": coco_frames_to_ytvis,
    "ytvis-to-coco-frames": ytvis_to_coco_frames,
    "fill-boxes": fill_boxes,
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in CONVERTERS:
        command = commands.add_parser(name)
        command.add_argument("--input", type=Path, required=True, help="json to read")
        command.add_argument("--output", type=Path, required=True, help="json to write")
    mot = commands.add_parser("mot-to-ytvis")
    mot.add_argument(
        "--input", type=Path, nargs="+", required=True, help="sequence folders or gt.txt files"
    )
    mot.add_argument("--output", type=Path, required=True, help="json to write")
    mot.add_argument(
        "--classes",
        type=int,
        nargs="+",
        choices=MOT_CLASSES,
        default=[1],
        metavar="ID",
        help="class ids to keep: " + ", ".join(f"{i} {name}" for i, name in MOT_CLASSES.items()),
    )
    visibility = "in [0, 1]; frames with less become ignored_frames of the object (0)"
    mot.add_argument("--min-visibility", type=float, default=0.0, help=visibility)
    mot.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="where no seqinfo.ini is"
    )
    mot.add_argument("--length", type=int, help="number of frames where no seqinfo.ini is")
    split = commands.add_parser("split")
    split.add_argument("--input", type=Path, required=True, help="YouTube-VIS json")
    split.add_argument("--share", type=float, required=True, help="of videos in the second part")
    split.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    split.add_argument("--output", type=Path, nargs=2, required=True, metavar=("TRAIN", "VAL"))
    return parser.parse_args()


def convert(args: argparse.Namespace) -> list[tuple[Path, dict]]:
    """The files to write, with their contents."""
    if args.command == "split":
        return list(zip(args.output, split_by_video(args.input, args.share, args.seed)))
    if args.command == "mot-to-ytvis":
        classes = {i: MOT_CLASSES[i] for i in args.classes}
        size = args.size and tuple(args.size)
        content = mot_to_ytvis(args.input, classes, args.min_visibility, size, args.length)
    else:
        content = CONVERTERS[args.command](args.input)
    return [(args.output, content)]


def check_paths(args: argparse.Namespace) -> None:
    """Raise unless the outputs differ from each other and from the inputs."""
    inputs, outputs = (
        [path.resolve() for path in (value if isinstance(value, list) else [value])]
        for value in (args.input, args.output)
    )
    if set(inputs) & set(outputs) or len(set(outputs)) < len(outputs):
        raise ValueError("--output must be different files, and other ones than the input")


def main() -> int:
    args = parse_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        check_paths(args)
        files = convert(args)
    except ValueError as error:
        print(f"convert_annotations: {error}", file=sys.stderr)
        return 2
    for path, content in files:
        write_annotation_json(content, path)
        counts = [
            f"{len(content[k])} {k}" for k in ("videos", "images", "annotations") if k in content
        ]
        print(f"{path}: {', '.join(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
