"""Whole files: what the script reads, prints, writes and refuses."""

import importlib.util
import pickle

import pytest
import torch
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from msr_d2 import get_cfg
from msr_d2.checkpoint import CheckpointError, convert_checkpoint
from msr_d2.checkpoint.settings import compare_settings, expected_settings
from msr_d2.testing import tiny_cfg
from tests.checkpoint.sources import to_source


@pytest.fixture(scope="module")
def cfg():
    return tiny_cfg(opts=["MODEL.RESNETS.NORM", "FrozenBN"])


@pytest.fixture(scope="module")
def weights(cfg):
    torch.manual_seed(0)
    return build_model(cfg).state_dict()


@pytest.fixture(scope="module")
def script(repository):
    path = repository / "scripts/convert_checkpoint.py"
    spec = importlib.util.spec_from_file_location("convert_checkpoint_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official_file(path, weights):
    """As the official training script saves it: wrapped, with optimizer and scheduler."""
    state = {f"module.{k}": w for k, w in to_source(weights, "maskscoring_rcnn").items()}
    state["module.rpn.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    torch.save({"model": state, "optimizer": {"param_groups": []}, "iteration": 90000}, path)
    return path


def load_exactly(cfg, path):
    """Load a converted file as training and evaluation do; returns the model's weights."""
    torch.manual_seed(7)
    model = build_model(cfg)
    checkpointer = DetectionCheckpointer(model)
    content = checkpointer._load_file(str(path))
    incompatible = checkpointer._load_model(content)
    assert not incompatible.missing_keys and not incompatible.unexpected_keys
    assert not incompatible.incorrect_shapes
    return model.state_dict()


def test_from_file_to_model(tmp_path, cfg, weights):
    source = official_file(tmp_path / "official.pth", weights)
    output, printed = tmp_path / "new/folder/converted.pth", []
    convert_checkpoint(source, output, cfg, log=printed.append)
    loaded = load_exactly(cfg, output)
    for name, weight in weights.items():
        torch.testing.assert_close(loaded[name], weight, rtol=3e-7, atol=0)

    content = torch.load(output, weights_only=True)
    assert content.keys() == {"model", "__author__", "converted_from"}  # no matching_heuristics
    assert type(content["model"]) is dict  # without `_metadata`, whose versions could be misread
    assert [path.name for path in output.parent.iterdir()] == ["converted.pth"]
    assert "MODEL.LEGACY_BOXES is False in your config, these weights expect True" in printed[0]


def test_model_zoo_pkl(tmp_path, cfg, weights):
    arrays = {k: w.numpy() for k, w in weights.items() if ".maskiou_head." not in k}
    path = tmp_path / "model_final.pkl"
    with path.open("wb") as file:
        pickle.dump({"model": arrays, "__author__": "Detectron2 Model Zoo"}, file, protocol=2)
    report = convert_checkpoint(path, tmp_path / "out.pth", cfg, log=lambda text: None)
    assert report.source == "detectron2" and "MaskIoU head is NEW" in report.notes[0]
    model = build_model(cfg)
    DetectionCheckpointer(model).load(str(tmp_path / "out.pth"))
    for name, array in arrays.items():
        assert torch.equal(model.state_dict()[name], torch.from_numpy(array))


def test_nothing_is_written_when_the_model_would_stay_partly_random(tmp_path, cfg, weights):
    state = {k: w for k, w in weights.items() if k != "backbone.fpn_output3.weight"}
    torch.save({"model": state}, tmp_path / "in.pth")
    printed = []
    with pytest.raises(ValueError, match="fpn_output3.weight: not in the checkpoint"):
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", cfg, log=printed.append)
    assert "missing: in the model, not in the checkpoint (1)" in printed[0]
    assert not (tmp_path / "out.pth").exists()


def test_interrupted_writing_leaves_the_old_file(tmp_path, cfg, weights, monkeypatch):
    torch.save({"model": weights}, tmp_path / "in.pth")
    (tmp_path / "out.pth").write_bytes(b"old")

    def broken_save(content, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("torch.save", broken_save)
    with pytest.raises(OSError, match="no space"):
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.pth", cfg, log=lambda text: None)
    assert (tmp_path / "out.pth").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pth", "out.pth"]


def test_input_and_output(tmp_path, cfg, weights):
    path = tmp_path / "in.pth"
    torch.save({"model": weights}, path)
    (tmp_path / "link.pth").symlink_to(path)
    for output in (path, tmp_path / "." / "in.pth", tmp_path / "link.pth"):
        with pytest.raises(CheckpointError, match="input and output are the same file"):
            convert_checkpoint(path, output, cfg)
    with pytest.raises(CheckpointError, match="must end in .pth"):
        convert_checkpoint(path, tmp_path / "out.pkl", cfg)


def test_script(tmp_path, cfg, weights, script, capsys):
    source = official_file(tmp_path / "official.pth", weights)
    config = tmp_path / "tiny.yaml"
    config.write_text(cfg.dump())
    arguments = ["--input", str(source), "--output", str(tmp_path / "out.pth")]
    arguments += ["--config-file", str(config), "--verbose"]
    script.main(arguments)
    printed = capsys.readouterr().out
    pair = "rpn.head.conv.bias -> proposal_generator.rpn_head.conv.bias"
    for line in ("part of the model", "roi_heads.maskiou_head", pair, f"wrote {tmp_path}"):
        assert line in printed
    load_exactly(cfg, tmp_path / "out.pth")

    with pytest.raises(SystemExit, match=r"error: 8 of 148 weights(.|\n)*NUM_CLASSES"):
        script.main([*arguments, "MODEL.ROI_HEADS.NUM_CLASSES", "7"])
    with pytest.raises(SystemExit, match="no such file"):
        script.main([*arguments[:1], "absent.pth", *arguments[2:]])


def test_script_allows_what_it_is_told_to(tmp_path, cfg, weights, script):
    source = official_file(tmp_path / "official.pth", weights)
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.dump(yaml.safe_load(cfg.dump())))
    script.main(
        ["--input", str(source), "--output", str(tmp_path / "out.pth")]
        + ["--config-file", str(config), "--source", "maskscoring_rcnn"]
        + ["--allow-missing", "roi_heads.box_predictor.", "--allow-missing", "roi_heads.maskiou"]
        + ["--allow-missing", "roi_heads.mask_head.predictor.", "MODEL.ROI_HEADS.NUM_CLASSES", "7"]
    )
    names = torch.load(tmp_path / "out.pth", weights_only=True)["model"].keys()
    assert not any("box_predictor" in name for name in names)
    assert "roi_heads.box_head.fc1.weight" in names


def test_expected_settings():
    cfg = get_cfg()
    cfg.MODEL.PIXEL_MEAN = [102.9801, 115.9465, 122.7717]
    settings, remarks = expected_settings("maskscoring_rcnn")
    assert compare_settings(cfg, settings) == [
        "MODEL.LEGACY_BOXES is False in your config, these weights expect True"
    ]
    assert not remarks


@pytest.mark.parametrize(
    "meta, style",
    [
        ({"config": "norm_eval=True, style='caffe', init_cfg=..."}, "caffe"),
        ({"cfg": "{'type': 'ResNet', 'style': 'pytorch'}"}, "pytorch"),
        ({"config": "nothing"}, None),
        (None, None),
    ],
)
def test_settings_of_mmdetection(meta, style):
    settings, remarks = expected_settings("mmdet", {"state_dict": {}, "meta": meta})
    if style is None:
        assert "INPUT.FORMAT" not in settings
        assert "caffe: INPUT.FORMAT BGR" in remarks[0] and "pytorch: INPUT.FORMAT RGB" in remarks[0]
    else:
        assert settings["INPUT.FORMAT"] == {"caffe": "BGR", "pytorch": "RGB"}[style]
        assert settings["MODEL.RESNETS.STRIDE_IN_1X1"] == (style == "caffe")


def test_official_configs_are_what_the_official_weights_expect(repository):
    for name in ("official_R_50_FPN.yaml", "official_R_101_FPN.yaml"):
        cfg = get_cfg()
        cfg.merge_from_file(repository / "configs/mask_scoring" / name)
        assert compare_settings(cfg, expected_settings("maskscoring_rcnn")[0]) == []
