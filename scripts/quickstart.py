#!/usr/bin/env python
"""From nothing to a scored picture: generate shapes, train Mask Scoring R-CNN, evaluate, draw.

    python scripts/quickstart.py [--seed K] [--iterations N] [--output DIR] [KEY VALUE ...]

Takes minutes on two CPU cores. Ends with a table of box AP and mask AP, the latter ranked by class
score and by mask score, and with the paths of the pictures.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "quickstart" / "mask_scoring_shapes.yaml"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="seed of the training (default: the config's)")
    parser.add_argument("--iterations", type=int, help="training length (default: the config's)")
    parser.add_argument("--output", help="folder of the run (default: the config's)")
    parser.add_argument("--train", type=int, default=800, help="training images (800)")
    parser.add_argument("--val", type=int, default=200, help="validation images (200)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="further config keys")
    return parser.parse_intermixed_args()


def options(args: argparse.Namespace) -> list[str]:
    """The config keys that the arguments stand for."""
    opts = list(args.opts)
    if args.seed is not None:
        opts += ["SEED", str(args.seed)]
    if args.output:
        opts += ["OUTPUT_DIR", args.output]
    if args.iterations is not None:
        drops = {int(args.iterations * share) for share in (0.72, 0.92)}
        steps = tuple(sorted(drops - {0}))
        opts += ["SOLVER.MAX_ITER", str(args.iterations), "SOLVER.STEPS", str(steps)]
    return opts


def table(results: dict, seconds: dict[str, float]) -> str:
    """The numbers of the run, a line each."""
    by_class, by_mask = results["segm_class_score"], results["segm"]
    rows = [
        ("box AP, ranked by class score", results["bbox"]),
        ("mask AP, ranked by class score", by_class),
        ("mask AP, ranked by mask score", by_mask),
        ("gain by rescoring", {k: by_mask[k] - by_class[k] for k in ("AP", "AP50", "AP75")}),
    ]
    lines = [f"{'':34}{'AP':>8}{'AP50':>8}{'AP75':>8}"]
    for name, row in rows:
        form = "{:+8.2f}" if name.startswith("gain") else "{:8.2f}"
        lines.append(f"{name:34}" + "".join(form.format(row[k]) for k in ("AP", "AP50", "AP75")))
    lines.append("seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))
    return "\n".join(lines)


def main() -> None:
    args = parse_arguments()
    # Built-in data sets are found through this variable, which detectron2 reads at import.
    os.environ.setdefault("DETECTRON2_DATASETS", str(ROOT / "datasets"))
    from msr_d2.data.shapes import write_coco
    from msr_d2.engine import Trainer, default_argument_parser, setup
    from msr_d2.engine.pictures import write_pictures

    seconds, start = {}, time.perf_counter()

    def lap(name: str) -> None:
        seconds[name] = time.perf_counter() - start - sum(seconds.values())

    shapes = Path(os.environ["DETECTRON2_DATASETS"]) / "shapes"
    write_coco(shapes, train=args.train, val=args.val, size=160, seed=0, progress=True)
    lap("shapes")
    command = ["--config-file", str(CONFIG), *options(args)]
    cfg = setup(default_argument_parser().parse_args(command))
    if not cfg.MODEL.MASKIOU_ON:
        raise SystemExit("the quickstart compares two scores: leave MODEL.MASKIOU_ON True")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    lap("training and evaluation")
    pictures = write_pictures(cfg, trainer.model, cfg.DATASETS.TEST[0])
    lap("pictures")
    print("\n" + table(results, seconds) + "\n\npictures:")
    print("\n".join(f"  {path}" for path in pictures))


if __name__ == "__main__":
    main()
