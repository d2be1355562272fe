import io
import os
import pickle
import struct
from collections import Counter, OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msr_d2.checkpoint import CheckpointError, extract_state_dict, load_checkpoint_safely
from msr_d2.checkpoint.safe_pickle import UnsafeGlobalError, load_arrays


class Malicious:
    """Runs a command of its choice when it is unpickled in the ordinary way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def pickled(path, content, protocol=2):
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


# --- files that are fine ------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_of_a_pkl(tmp_path, protocol):
    content = {
        "model": OrderedDict(
            weight=np.arange(12, dtype=np.float32).reshape(3, 4),
            fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            big_endian=np.arange(3, dtype=">i4"),
            flags=np.array([True, False]),
            half=np.zeros((2, 0), np.float16),
            text=np.array(["a", "bc"]),
            number=np.float64(0.25),
            scalar=np.array(7),
        ),
        "__author__": "somebody",
        "nested": [(1, 2.5, None, b"raw", {"k": np.ones(2)})],
        "set": {1, 2},
    }
    loaded = load_checkpoint_safely(pickled(tmp_path / "zoo.pkl", content, protocol))
    assert loaded.keys() == content.keys() and type(loaded["model"]) is OrderedDict
    for name, array in content["model"].items():
        assert type(loaded["model"][name]) is type(array)
        np.testing.assert_array_equal(loaded["model"][name], array)
    assert loaded["nested"][0][:4] == (1, 2.5, None, b"raw") and loaded["set"] == {1, 2}
    np.testing.assert_array_equal(loaded["nested"][0][4]["k"], np.ones(2))
    loaded["model"]["weight"][0, 0] = 5  # writable, as a tensor over it must be


def test_pkl_of_python_2(tmp_path):
    """Python 2 wrote bytes as `str`, and numpy's module was called `numpy.core`."""
    data = struct.pack("<2f", 1.5, -2.0)
    stream = (
        b"\x80\x02}q\x00U\x06weightcnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + data + b"tbs."
    )
    (tmp_path / "old.pkl").write_bytes(stream)
    expected = pickle.loads(stream, encoding="latin1")  # the stream is what numpy itself accepts
    loaded = load_checkpoint_safely(tmp_path / "old.pkl")
    assert loaded["weight"].tolist() == expected["weight"].tolist() == [1.5, -2.0]


ARRAY_DTYPES = ["<f4", ">f8", "<f2", "<i8", ">i2", "|u1", "|b1", "<c8"]


@given(
    st.sampled_from(ARRAY_DTYPES),
    st.lists(st.integers(0, 3), max_size=4),
    st.booleans(),
    st.integers(0, 5),
)
def test_any_array_survives(dtype, shape, fortran, protocol):
    size = int(np.prod(shape))
    array = np.arange(size).reshape(shape, order="F" if fortran else "C").astype(dtype)
    loaded = load_arrays(io.BytesIO(pickle.dumps(array, protocol=protocol)))
    assert loaded.shape == array.shape and loaded.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path, suffix, zipped):
    path = tmp_path / f"x{suffix}"
    model = torch.nn.BatchNorm2d(2)
    content = {"model": model.state_dict(), "iteration": 5, "milestones": Counter([3, 3, 9])}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint_safely(str(path))
    assert loaded["iteration"] == 5 and loaded["milestones"] == Counter([3, 3, 9])
    assert torch.equal(loaded["model"]["running_var"], torch.ones(2))
    assert loaded["model"]._metadata == model.state_dict()._metadata


def test_numpy_values_in_a_torch_file(tmp_path):
    """They make torch refuse the file, and people switch all protection off for that."""
    path = tmp_path / "x.pth"
    torch.save({"model": {"w": torch.ones(1)}, "best": np.float64(0.5), "a": np.arange(3)}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    loaded = load_checkpoint_safely(path)
    assert loaded["best"] == 0.5 and loaded["a"].tolist() == [0, 1, 2]
    with pytest.raises(pickle.UnpicklingError):  # the allowance does not outlive the call
        torch.load(path, weights_only=True)


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    assert load_checkpoint_safely(tmp_path / "x.safetensors")["w"].tolist() == [1, 1]


def test_safetensors_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "x.safetensors").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        load_checkpoint_safely(tmp_path / "x.safetensors")


# --- files that are not -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pt", ".bin"])
def test_malicious_files_are_refused_without_running(tmp_path, suffix):
    path, proof = tmp_path / f"x{suffix}", tmp_path / "executed"
    content = {"model": {"w": torch.ones(1).numpy()}, "extra": [Malicious(proof)]}
    if suffix == ".pkl":
        pickled(path, content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match="system") as error:
        load_checkpoint_safely(path)
    assert str(path) in str(error.value) and "--trust" in str(error.value)
    assert not proof.exists()
    load_checkpoint_safely(path, trust=True)  # the file does what the test thinks it does
    assert proof.exists()


@pytest.mark.parametrize(
    "stream, name",
    [
        (b"cbuiltins\neval\n(V1+1\ntR.", "builtins.eval"),
        (b"cbuiltins\ngetattr\n(c__main__\n__dict__\nVx\ntR.", "builtins.getattr"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "_codecs.encode"),
        (b"cnumpy\nload\n(Vx.npy\ntR.", "numpy.load"),
        (b"cnumpy\ndtype\n(VO8\ntR.", "numpy.dtype"),
        (b"cnumpy\ndtype\n(VV8\ntR.", "numpy.dtype"),
        (b"ccollections\nOrderedDict.__init__\n.", "collections.OrderedDict.__init__"),
        (b"(ios\nsystem\nVtouch x\n.", "ios.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", "os.system"),
    ],
)
def test_only_a_few_names_are_known(tmp_path, stream, name):
    path = tmp_path / "x.pkl"
    path.write_bytes(stream)
    with pytest.raises(CheckpointError, match="x.pkl"):
        load_checkpoint_safely(path)
    if name != "ios.system":  # not a well-formed stream
        with pytest.raises(UnsafeGlobalError) as error:
            load_arrays(io.BytesIO(stream))
        assert error.value.name.startswith(name)


def test_arrays_of_objects_are_refused(tmp_path):
    path = pickled(tmp_path / "x.pkl", np.array([{}, None], dtype=object))
    with pytest.raises(CheckpointError, match="numpy.dtype"):
        load_checkpoint_safely(path)


def test_objects_are_refused_by_name(tmp_path):
    torch.save({"model": {}, "meta": SimpleNamespace(a=1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"types\.SimpleNamespace.*save the weights alone"):
        load_checkpoint_safely(tmp_path / "x.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("kept", [0, 1, 40, 0.5, -1])
def test_truncated_files(tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    content = {"model": {f"w{i}": np.random.rand(50) for i in range(5)}}
    if suffix == ".pkl":
        pickled(path, content)
    else:
        torch.save({"model": {k: torch.tensor(v) for k, v in content["model"].items()}}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"cut.*cut off or\s+damaged"):
        load_checkpoint_safely(path)


@given(st.binary(max_size=60))
def test_garbage_is_a_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("garbage") / "x.pkl"
    path.write_bytes(data)
    try:
        load_checkpoint_safely(path)
    except CheckpointError as error:
        assert "x.pkl" in str(error)


@pytest.mark.parametrize("trust", [False, True])
def test_missing_and_unknown_files(tmp_path, trust):
    with pytest.raises(CheckpointError, match="nothing.pth: there is no such file"):
        load_checkpoint_safely(tmp_path / "nothing.pth", trust)
    with pytest.raises(CheckpointError, match="must end in one of"):
        load_checkpoint_safely(tmp_path / "model.onnx", trust)


# --- weights inside of a checkpoint -------------------------------------------------------------


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state", None])
def test_weights_are_found(key):
    state = {
        "module.a": torch.ones(2),
        "module.b": np.zeros(3, np.float32),
        "module.n": np.int64(4),
    }
    found = extract_state_dict({key: state, "iteration": 3} if key else state)
    assert found["a"].tolist() == [1, 1] and found["b"].shape == (3,) and found["n"].item() == 4


def test_prefix_stays_unless_all_weights_have_it():
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert extract_state_dict(state).keys() == state.keys()


@pytest.mark.parametrize(
    "checkpoint, message",
    [
        ([], "no weights found"),
        ({}, "no weights found"),
        ({"model": {"a": "text"}}, "'a' is a str and not a tensor"),
        ({"optimizer": {}, "iteration": 1}, "'optimizer' is a dict"),
    ],
)
def test_no_weights(checkpoint, message):
    with pytest.raises(CheckpointError, match=f"x.pth: .*{message}"):
        extract_state_dict(checkpoint, "x.pth")
