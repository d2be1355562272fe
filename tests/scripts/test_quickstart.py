import importlib.util
import os
import subprocess
import sys

import pytest


def load_script(repository, name):
    spec = importlib.util.spec_from_file_location(name, repository / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_shows_the_gain(repository):
    row = {"AP": 30.0, "AP50": 50.0, "AP75": 31.0}
    better = {"AP": 31.5, "AP50": 50.0, "AP75": 33.0}
    results = {"bbox": row, "segm_class_score": row, "segm": better}
    script = load_script(repository, "quickstart")
    lines = script.table(script.scoring_rows(results), {"shapes": 2.0}).splitlines()
    assert lines[2].split()[-3:] == ["30.00", "50.00", "31.00"]
    assert lines[3].split()[-3:] == ["31.50", "50.00", "33.00"]
    assert lines[4].split()[-3:] == ["+1.50", "+0.00", "+2.00"]


@pytest.mark.parametrize(
    "words, system, opts",
    [
        ([], "mask_scoring", []),
        (["SEED", "3"], "mask_scoring", ["SEED", "3"]),
        (["mask_free_vis", "--seed", "2", "SEED", "3"], "mask_free_vis", ["SEED", "3"]),
    ],
)
def test_the_first_word_may_name_the_system(repository, monkeypatch, words, system, opts):
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *words])
    args = load_script(repository, "quickstart").parse_arguments()
    assert (args.system, args.opts) == (system, opts)


def test_an_unknown_system_is_named(repository, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "mask_free"])
    with pytest.raises(SystemExit):
        load_script(repository, "quickstart").parse_arguments()
    assert "no system 'mask_free'; there are mask_scoring, mask_free_vis" in capsys.readouterr().err


@pytest.mark.parametrize(
    "system, line, count",
    [("mask_scoring", "gain by rescoring", 4), ("mask_free_vis", "mask AP of tracks", 5)],
)
def test_a_short_run_writes_table_and_pictures(repository, tmp_path, system, line, count):
    """The whole quickstart on little data; what it learns is measured by hand, not here."""
    opts = ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
    script = repository / "scripts" / "quickstart.py"
    command = [sys.executable, str(script), system, "--iterations", "2"]
    command += ["--output", str(tmp_path / "run")]
    images = ["--train", "8", "--val", "4"]
    done = subprocess.run(
        [*command, *images, *opts],
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert line in done.stdout
    pictures = [line.strip() for line in done.stdout.split("pictures:\n")[1].splitlines()]
    assert len(pictures) == count
    assert all(os.path.getsize(tmp_path / path) > 1000 for path in pictures)


def test_subset_keeps_whole_images(repository):
    script = load_script(repository, "subset_coco")
    coco = {
        "images": [{"id": 1}, {"id": 2}, {"id": 3}],
        "annotations": [
            {"id": 1, "image_id": 1, "iscrowd": 1},
            {"id": 2, "image_id": 2},
            {"id": 3, "image_id": 2, "iscrowd": 1},
            {"id": 4, "image_id": 3},
        ],
        "categories": [{"id": 7, "name": "x"}],
    }
    kept = script.subset(coco, 1)
    assert [x["id"] for x in kept["images"]] == [2]
    assert [x["id"] for x in kept["annotations"]] == [2, 3]
    assert kept["categories"] == coco["categories"]
    with pytest.raises(SystemExit, match="there are 2 images"):
        script.subset(coco, 3)
