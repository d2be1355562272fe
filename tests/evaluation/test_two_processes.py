"""Both evaluators in two real processes, each of which has seen a part of the data."""

import json
import os
import subprocess
import sys

import pytest
import toy_coco
import toy_ytvis

from msr_d2.evaluation import MaskScoringCOCOEvaluator, YTVISEvaluator

WORKER = """
import json, sys
from pathlib import Path

import toy_coco, toy_ytvis
import torch.distributed as dist
from detectron2.utils import comm
from msr_d2.evaluation import MaskScoringCOCOEvaluator, YTVISEvaluator

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
results = {}

gt, predictions = toy_coco.random_scene(8)
evaluator = MaskScoringCOCOEvaluator(toy_coco.register(gt, folder))
evaluator.reset()
for i in range(5) if rank == 0 else range(5, len(predictions)):
    evaluator.process([{"image_id": i + 1}], [{"instances": predictions[i]}])
results["coco"] = evaluator.evaluate()

gt, tracks = toy_ytvis.random_videos(1)
outputs = toy_ytvis.to_outputs(gt, tracks)
evaluator = YTVISEvaluator(toy_ytvis.register(gt, folder))
evaluator.reset()
for i in range(3) if rank == 0 else range(3, len(outputs)):
    evaluator.process([{"video_id": i + 1}], [outputs[i]])
results["ytvis"] = evaluator.evaluate()

(folder / f"rank{rank}.json").write_text(json.dumps(results))
"""


def test_two_processes(tmp_path, repository):
    path = os.pathsep.join([str(repository), str(repository / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [x.communicate(timeout=300)[1] for x in workers]
    assert [x.returncode for x in workers] == [0, 0], errors

    gt, predictions = toy_coco.random_scene(8)
    coco = MaskScoringCOCOEvaluator(toy_coco.register(gt, tmp_path))
    gt, tracks = toy_ytvis.random_videos(1)
    ytvis = YTVISEvaluator(toy_ytvis.register(gt, tmp_path))
    expected = {
        "coco": toy_coco.evaluate(coco, predictions),
        "ytvis": toy_ytvis.evaluate(ytvis, toy_ytvis.to_outputs(gt, tracks)),
    }
    result = json.loads((tmp_path / "rank0.json").read_text())
    for name, tasks in expected.items():
        assert result[name].keys() == tasks.keys()
        for task, numbers in tasks.items():
            assert result[name][task] == pytest.approx(numbers, rel=0, abs=0, nan_ok=True)
    # Only the main process has results.
    assert json.loads((tmp_path / "rank1.json").read_text()) == {"coco": {}, "ytvis": {}}
