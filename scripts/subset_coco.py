#!/usr/bin/env python
"""Write the first N annotated images of a COCO json to another one, for a try at over-fitting.

    python scripts/subset_coco.py --input instances_train.json --images 8 --output first8.json

Categories stay as they are, so numbers of classes do not change.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, required=True, help="COCO json")
    parser.add_argument("--images", type=int, required=True, help="number of images to keep")
    parser.add_argument("--output", type=Path, required=True, help="json to write")
    return parser.parse_args()


def subset(coco: dict, count: int) -> dict:
    """The first ``count`` images that have an object which is not a crowd, with all annotations."""
    annotated = {x["image_id"] for x in coco["annotations"] if not x.get("iscrowd", 0)}
    images = [image for image in coco["images"] if image["id"] in annotated][:count]
    if not 0 < count <= len(images):
        raise SystemExit(f"--images {count}: there are {len(annotated)} images with objects")
    kept = {image["id"] for image in images}
    annotations = [x for x in coco["annotations"] if x["image_id"] in kept]
    return {**coco, "images": images, "annotations": annotations}


def main() -> None:
    args = parse_arguments()
    if args.output.resolve() == args.input.resolve():
        raise SystemExit("--output is the input itself: choose another file")
    coco = json.loads(args.input.read_text())
    args.output.write_text(json.dumps(subset(coco, args.images)))
    print(f"{args.output}: {args.images} of {len(coco['images'])} images")


if __name__ == "__main__":
    main()
