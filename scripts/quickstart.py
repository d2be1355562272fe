#!/usr/bin/env python
"""From nothing to a scored picture: generate shapes, train a small model, evaluate, draw.

    python scripts/quickstart.py [SYSTEM] [--seed K] [--iterations N] [--output DIR] [KEY VALUE ...]

SYSTEM is mask_scoring (Mask Scoring R-CNN on images, the default) or mask_free_vis (MaskFreeVIS on
clips, trained from boxes only). Takes minutes on two CPU cores. Ends with a table of the results
and with the paths of the pictures.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Per system: images or clips for training and for validation.
SIZES = {"mask_scoring": (800, 200), "mask_free_vis": (240, 60)}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="seed of the training (default: the config's)")
    parser.add_argument("--iterations", type=int, help="training length (default: the config's)")
    parser.add_argument("--output", help="folder of the run (default: the config's)")
    parser.add_argument("--train", type=int, help="training images (800) or clips (240)")
    parser.add_argument("--val", type=int, help="validation images (200) or clips (60)")
    parser.add_argument("words", nargs="*", metavar="[SYSTEM] KEY VALUE", help="see above")
    args = parser.parse_intermixed_args()
    named = bool(args.words) and not args.words[0].isupper()  # config keys are upper case
    if named and args.words[0] not in SIZES:
        parser.error(f"no system {args.words[0]!r}; there are {', '.join(SIZES)}")
    args.system = args.words[0] if named else "mask_scoring"
    args.opts = args.words[named:]
    return args


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


def write_data(system: str, train: int | None, val: int | None) -> None:
    """Generate the shapes of a system under $DETECTRON2_DATASETS, unless they are there."""
    from msr_d2.data.shapes import write_coco, write_ytvis

    root = Path(os.environ["DETECTRON2_DATASETS"])
    train, val = (x if x is not None else y for x, y in zip((train, val), SIZES[system]))
    if system == "mask_scoring":
        write_coco(root / "shapes", train=train, val=val, size=160, seed=0, progress=True)
    else:
        write_ytvis(root / "shapes_vis", num_train=train, num_val=val, seed=0, progress=True)


def draw_results(system: str, cfg, model) -> list[Path]:
    """Draw what a finished run has found and how its losses fell."""
    from msr_d2.engine.pictures import write_pictures
    from msr_d2.engine.video_pictures import write_clip_pictures
    from msr_d2.visualization import plot_losses

    name, run = cfg.DATASETS.TEST[0], Path(cfg.OUTPUT_DIR)
    if system == "mask_scoring":
        return write_pictures(cfg, model, name)
    losses = plot_losses(run / "metrics.json", run / "pictures" / "losses.png")
    return [*write_clip_pictures(cfg, name), losses]


def scoring_rows(results: dict) -> list[tuple[str, dict[str, float]]]:
    """Box AP, and mask AP by either score."""
    by_class, by_mask = results["segm_class_score"], results["segm"]
    return [
        ("box AP, ranked by class score", results["bbox"]),
        ("mask AP, ranked by class score", by_class),
        ("mask AP, ranked by mask score", by_mask),
        ("gain by rescoring", {k: by_mask[k] - by_class[k] for k in ("AP", "AP50", "AP75")}),
    ]


def video_rows(results: dict) -> list[tuple[str, dict[str, float]]]:
    """Mask AP of the tracks."""
    return [("mask AP of tracks", results["segm"])]


def table(rows: list[tuple[str, dict[str, float]]], seconds: dict[str, float]) -> str:
    """The numbers of the run, a line each."""
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
    from msr_d2.engine import Trainer, default_argument_parser, setup

    seconds, start = {}, time.perf_counter()

    def lap(name: str) -> None:
        seconds[name] = time.perf_counter() - start - sum(seconds.values())

    write_data(args.system, args.train, args.val)
    lap("shapes")
    config = ROOT / "configs" / "quickstart" / f"{args.system}_shapes.yaml"
    command = ["--config-file", str(config), *options(args)]
    cfg = setup(default_argument_parser().parse_args(command))
    if args.system == "mask_scoring" and not cfg.MODEL.MASKIOU_ON:
        raise SystemExit("the quickstart compares two scores: leave MODEL.MASKIOU_ON True")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    lap("training and evaluation")
    pictures = draw_results(args.system, cfg, trainer.model)
    lap("pictures")
    rows = (scoring_rows if args.system == "mask_scoring" else video_rows)(results)
    print("\n" + table(rows, seconds) + "\n\npictures:")
    print("\n".join(f"  {path}" for path in pictures))


if __name__ == "__main__":
    main()
