#!/usr/bin/env python
"""Measure what a system costs against its baseline, as ratios of one run.

    python scripts/benchmark.py SYSTEM [--config-file FILE] [--repeats N] [--size H W]
                                       [--images N] [KEY VALUE ...]

mask_scoring: Mask Scoring R-CNN against Mask R-CNN, multiply-adds, time and peak memory.
mask_free_vis: losses, matching and deformable attention against direct forms of the same equations,
a training step with boxes against one with masks, the evaluation of tracks against calls for each
pair and frame.

Prints tables in Markdown. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from msr_d2.benchmark import mask_free_vis, mask_scoring
from msr_d2.engine import load_cfg

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SYSTEMS = {
    "mask_scoring": (mask_scoring.run, CONFIGS / "mask_scoring" / "ms_rcnn_R_50_FPN_1x.yaml"),
    "mask_free_vis": (mask_free_vis.run, CONFIGS / "mask_free_vis" / "ytvis_2019_box_R_50.yaml"),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", choices=sorted(SYSTEMS))
    parser.add_argument("--config-file", help="config (default: R-50-FPN at full size)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats (5)")
    parser.add_argument("--images", type=int, default=2, help="images or clips of a batch (2)")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="further config keys")
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse_arguments()
    run, config_file = SYSTEMS[args.system]
    cfg = load_cfg(args.config_file or str(config_file), args.opts)
    print(run(cfg, repeats=args.repeats, images=args.images, size=tuple(args.size)))


if __name__ == "__main__":
    main()
