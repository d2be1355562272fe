#!/usr/bin/env python
"""Evaluate result files against annotations, without a model.

    python scripts/evaluate.py --gt instances_val.json --results coco_instances_results.json
    python scripts/evaluate.py --gt ytvis_val.json --results results.json

The format, COCO or YouTube-VIS, is found in the annotations. Results that have a mask_score beside
the score, as train_net writes them for images, are ranked by it for masks, and by the class score
beside it. Annotations of videos without masks give the box AP of the tracks. --output writes the
numbers as json. The exit code is 2 for files that cannot be evaluated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from msr_d2.data.video.register import is_ytvis_json
from msr_d2.evaluation import evaluate_coco_results, evaluate_ytvis_results

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gt", type=Path, required=True, help="annotations in COCO or YouTube-VIS format"
    )
    parser.add_argument("--results", type=Path, required=True, nargs="+", help="result files")
    parser.add_argument("--tasks", nargs="+", choices=("bbox", "segm"), help="default: all")
    parser.add_argument(
        "--max-dets",
        type=int,
        default=100,
        help="detections per image, or per video and class (100)",
    )
    parser.add_argument("--oracle", action="store_true", help="also rank by the true mask IoU")
    parser.add_argument("--per-class", action="store_true", help="also print the AP of each class")
    parser.add_argument("--output", type=Path, help="json file for all numbers")
    return parser.parse_args()


def format_table(results: dict[str, dict[str, float]], per_class: bool) -> str:
    """The tasks as rows of a table in percent; other groups of numbers below it."""
    lines = [f"{'':>18}" + "".join(f"{name:>8}" for name in METRICS)]
    for task, numbers in results.items():
        if "AP" in numbers:
            cells = "".join(f"{numbers[name]:8.2f}" for name in METRICS)
            lines.append(f"{task:>18}{cells}")
    for task, numbers in results.items():
        if "AP" not in numbers:
            lines += [f"{task}/{name}: {value:.4f}" for name, value in numbers.items()]
        elif per_class:
            classes = {k: v for k, v in numbers.items() if k.startswith("AP-")}
            lines += [f"{task}/{name}: {value:.2f}" for name, value in classes.items()]
    return "\n".join(lines)


def evaluate(args: argparse.Namespace, results: Path) -> dict[str, dict[str, float]]:
    """The numbers of one result file.

    Raises:
        ValueError: for files that do not fit, or an oracle on videos.
    """
    if not is_ytvis_json(str(args.gt)):
        return evaluate_coco_results(
            args.gt, results, args.tasks, max_dets_per_image=args.max_dets, oracle=args.oracle
        )
    if args.oracle:
        raise ValueError(f"--oracle is for images, but {args.gt} is in the format of YouTube-VIS")
    return evaluate_ytvis_results(args.gt, results, args.tasks, max_dets_per_video=args.max_dets)


def main() -> int:
    args = parse_arguments()
    everything = {}
    for path in args.results:
        try:
            results = evaluate(args, path)
        except (OSError, ValueError) as error:
            print(f"evaluate: {error}", file=sys.stderr)
            return 2
        everything[str(path)] = results
        print(f"{path}\n{format_table(results, args.per_class)}")
    if args.output:
        args.output.write_text(json.dumps(everything, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
