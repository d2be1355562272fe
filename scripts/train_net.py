#!/usr/bin/env python
"""Train and evaluate a model.

    python scripts/train_net.py --config-file FILE [--resume] [--num-gpus N] [KEY VALUE ...]
    python scripts/train_net.py --config-file FILE --eval-only MODEL.WEIGHTS FILE [KEY VALUE ...]
    torchrun --nproc_per_node N scripts/train_net.py --config-file FILE [KEY VALUE ...]

The device is chosen by itself (MODEL.DEVICE auto). Built-in data sets are looked for under
$DETECTRON2_DATASETS (default ./datasets); your own are named by DATASETS.REGISTER.
"""

from __future__ import annotations

import argparse

from msr_d2.engine import Trainer, default_argument_parser, launch, setup


def main(args: argparse.Namespace) -> dict | None:
    """One process of the job."""
    cfg = setup(args)
    if args.eval_only:
        return Trainer.evaluate(cfg, resume=args.resume)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    launch(main, default_argument_parser(epilog=__doc__).parse_args())
