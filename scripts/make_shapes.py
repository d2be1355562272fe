#!/usr/bin/env python
"""Write the shapes set: generated images with COCO annotations.

    python scripts/make_shapes.py --output datasets/shapes --train 800 --val 200 --size 160 --seed 0

The folder gets train/*.png, val/*.png and annotations/instances_{train,val}.json. Equal arguments
give equal bytes. A set that is there already is left as it is; one that is incomplete is repaired.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from msr_d2.data.shapes import write_coco


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--train", type=int, default=800, help="training images (800)")
    parser.add_argument("--val", type=int, default=200, help="validation images (200)")
    parser.add_argument("--size", type=int, default=160, help="side of an image in pixels (160)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set of other settings")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    try:
        written = write_coco(**vars(args), progress=True)
    except ValueError as error:
        print(f"make_shapes: {error}", file=sys.stderr)
        return 2
    print(f"{args.output}: {'written' if written else 'already there, complete'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
