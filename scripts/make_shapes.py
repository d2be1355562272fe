#!/usr/bin/env python
"""Write the shapes set: generated images with COCO annotations, or moving clips for video models.

    python scripts/make_shapes.py --output datasets/shapes --train 800 --val 200 --size 160 --seed 0
    python scripts/make_shapes.py --format ytvis --output datasets/shapes_vis --seed 0

coco: the folder gets train/*.png, val/*.png and annotations/instances_{train,val}.json.
ytvis: it gets {train,val}/JPEGImages/<video>/<frame>.jpg and annotations/instances_train.json
(boxes only), instances_train_masks.json (boxes and masks) and instances_val.json. By default it is
the set that scripts/quickstart.py trains on.

Equal arguments give equal bytes. A set that is there already is left as it is; one that is
incomplete is repaired.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from msr_d2.data.shapes import NUM_CLIPS, write_coco, write_ytvis

# Images or clips for training and for validation, by format.
DEFAULTS = {"coco": (800, 200), "ytvis": NUM_CLIPS}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--format", choices=DEFAULTS, default="coco", help="images or clips (coco)")
    parser.add_argument("--train", type=int, help="training images (800) or clips (240)")
    parser.add_argument("--val", type=int, help="validation images (200) or clips (60)")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        help="coco: side of an image in pixels (160); ytvis: HEIGHT WIDTH of a frame (96 128)",
    )
    parser.add_argument(
        "--length", type=int, nargs="+", help="ytvis: frames a clip (10), or FEWEST MOST"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set of other settings")
    return parser.parse_args()


def write(args: argparse.Namespace) -> bool:
    """Write the set that is asked for; False if it is there already."""
    asked = args.train, args.val
    train, val = (y if x is None else x for x, y in zip(asked, DEFAULTS[args.format]))
    common = {"seed": args.seed, "overwrite": args.overwrite, "progress": True}
    if args.format == "coco":
        if args.length:
            raise ValueError("--length needs --format ytvis")
        sizes = args.size or [160]
        if len(sizes) != 1:
            raise ValueError(f"--size must be one number for --format coco, got {sizes}")
        return write_coco(args.output, train, val, size=sizes[0], **common)
    size, length = args.size or [96, 128], args.length or [10]
    return write_ytvis(
        args.output,
        train,
        val,
        size=tuple(size) if len(size) > 1 else (size[0], size[0]),
        length=tuple(length) if len(length) > 1 else length[0],
        **common,
    )


def main() -> int:
    args = parse_arguments()
    try:
        written = write(args)
    except ValueError as error:
        print(f"make_shapes: {error}", file=sys.stderr)
        return 2
    print(f"{args.output}: {'written' if written else 'already there, complete'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
