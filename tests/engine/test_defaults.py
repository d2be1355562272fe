"""From the command line to a config."""

import pytest
import torch
from tiny_coco import write_set

from msr_d2.data import DatasetError
from msr_d2.engine import default_argument_parser, load_cfg, resolve_device, setup
from msr_d2.testing import tiny_cfg


@pytest.fixture
def no_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("msr_d2.engine.device._has_mps", lambda: False)


def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch, no_devices):
    assert resolve_device("auto") == "cpu"
    monkeypatch.setattr("msr_d2.engine.device._has_mps", lambda: True)
    assert resolve_device("auto") == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cuda:1") == "cuda:1"
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_device_that_is_not_there(no_devices, name):
    with pytest.raises(ValueError, match=f"MODEL.DEVICE is '{name}'.*Use MODEL.DEVICE auto"):
        resolve_device(name)


def test_unknown_device():
    with pytest.raises(ValueError, match="MODEL.DEVICE is 'gpu'; use auto, cuda"):
        resolve_device("gpu")


def test_device_is_auto_unless_said_otherwise(no_devices, tmp_path):
    assert load_cfg().MODEL.DEVICE == "cpu"
    path = tmp_path / "a.yaml"
    path.write_text("MODEL: {DEVICE: cuda}")
    with pytest.raises(ValueError, match="MODEL.DEVICE is 'cuda'"):
        load_cfg(str(path))
    assert load_cfg(str(path), ["MODEL.DEVICE", "auto"]).MODEL.DEVICE == "cpu"


def test_file_then_pairs(tmp_path):
    (tmp_path / "base.yaml").write_text("SOLVER: {BASE_LR: 0.5, MAX_ITER: 7}")
    path = tmp_path / "a.yaml"
    path.write_text("_BASE_: base.yaml\nSOLVER: {MAX_ITER: 8}")
    cfg = load_cfg(str(path), ["SOLVER.STEPS", "(3,)"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (0.5, 8, (3,))


@pytest.mark.parametrize("where", ["base.yaml", "a.yaml"])
def test_yaml_never_runs_code(tmp_path, where):
    (tmp_path / "base.yaml").write_text("OUTPUT_DIR: here")
    (tmp_path / "a.yaml").write_text("_BASE_: base.yaml")
    evil = f'OUTPUT_DIR: !!python/object/apply:os.mkdir ["{tmp_path}/executed"]\n'
    (tmp_path / where).write_text(("_BASE_: base.yaml\n" if where == "a.yaml" else "") + evil)
    with pytest.raises(ValueError, match="a.yaml'.*yaml tag that would run Python code"):
        load_cfg(str(tmp_path / "a.yaml"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "file, opts, message",
    [
        ("none.yaml", [], "'none.yaml' does not exist"),
        ("lazy.py", [], "must be a yaml file, got 'lazy.py'"),
        ("", ["SOLVER.MAX_ITER", "3", "--resume"], "found --resume among them"),
        ("", ["--eval-only", "SOLVER.MAX_ITER", "3", "x"], "found --eval-only among them"),
        ("", ["SOLVER.MAX_ITER"], "got 1 words"),
    ],
)
def test_mistakes_on_the_command_line(file, opts, message):
    with pytest.raises(ValueError, match=message):
        load_cfg(file, opts)


def test_unknown_key_names_the_similar(tmp_path):
    with pytest.raises(ValueError, match="MODEL.MASKIOU_OM. Did you mean MODEL.MASKIOU_ON"):
        load_cfg(opts=["MODEL.MASKIOU_OM", "True"])
    path = tmp_path / "a.yaml"
    path.write_text("SOLVER: {BASE_LRR: 0.1}")
    with pytest.raises(ValueError, match="a.yaml'.*SOLVER.BASE_LRR. Did you mean SOLVER.BASE_LR"):
        load_cfg(str(path))
    path.write_text("SOLVER: {")
    with pytest.raises(ValueError, match="a.yaml'.*is not yaml"):
        load_cfg(str(path))


def test_value_of_the_wrong_type():
    with pytest.raises(ValueError, match="SOLVER.BASE_LR"):
        load_cfg(opts=["SOLVER.BASE_LR", "fast"])


def arguments(tmp_path, *opts, **keys):
    entry = write_set(tmp_path / "data")
    cfg = tiny_cfg()
    cfg.DATASETS.REGISTER, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = [entry], (entry[0],), (entry[0],)
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    cfg.SEED = 4
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())
    return default_argument_parser().parse_args(["--config-file", str(path), *opts])


def test_setup(tmp_path):
    cfg = setup(arguments(tmp_path, "SOLVER.MAX_ITER", "5"))
    assert cfg.is_frozen() and cfg.SOLVER.MAX_ITER == 5
    assert torch.initial_seed() == 4
    assert "MAX_ITER: 5" in (tmp_path / "out" / "config.yaml").read_text()
    assert (tmp_path / "out" / "log.txt").is_file()


def test_setup_stops_at_contradictions(tmp_path):
    with pytest.raises(DatasetError, match="Set MODEL.ROI_HEADS.NUM_CLASSES 3"):
        setup(arguments(tmp_path, "MODEL.ROI_HEADS.NUM_CLASSES", "80"))


def test_two_jobs_do_not_share_a_port():
    assert default_argument_parser().parse_args([]).dist_url == "auto"
