"""The edit engine and the source check: every way in which the sources may differ is an error."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2] / "packaging" / "detectron2"
sys.path.insert(0, str(PROJECT))

from d2_builder import backend, source  # noqa: E402
from d2_builder.edits import EDITS  # noqa: E402
from d2_builder.engine import Edit, EditError, apply_edits  # noqa: E402


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_edit_replaces_all_counted_occurrences(tmp_path):
    path = write(tmp_path, "a/b.py", "x = np.bool\ny = np.bool_\nz = np.bool\n")
    apply_edits(tmp_path, [Edit("a/b.py", "np.bool\n", "bool\n", "numpy", count=2)])
    assert path.read_bytes() == b"x = bool\ny = np.bool_\nz = bool\n"


def test_edits_are_applied_in_order_and_keep_line_ends_and_accents(tmp_path):
    path = write(tmp_path, "a.py", "# caf\u00e9\r\na\r\n")
    apply_edits(
        tmp_path, [Edit("a.py", "a\r\n", "b\r\n", "1"), Edit("a.py", "b\r\n", "c\r\n", "2")]
    )
    assert path.read_bytes() == "# caf\u00e9\r\nc\r\n".encode()


@pytest.mark.parametrize(
    ("text", "count", "found"), [("one one", 1, 2), ("one", 2, 1), ("nothing here", 1, 0)]
)
def test_wrong_count_names_file_edit_and_reason(tmp_path, text, count, found):
    path = write(tmp_path, "pkg/mod.py", text)
    with pytest.raises(EditError) as error:
        apply_edits(tmp_path, [Edit("pkg/mod.py", "one", "two", "because of numpy", count)])
    message = str(error.value)
    for part in (
        "pkg/mod.py",
        repr("one"),
        "because of numpy",
        f"expected {count} ",
        f"found {found} ",
    ):
        assert part in message
    assert path.read_text() == text


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(EditError, match=r"gone\.py: no such file .*why"):
        apply_edits(tmp_path, [Edit("gone.py", "a", "b", "why")])


def test_applying_the_same_edit_twice_is_an_error(tmp_path):
    write(tmp_path, "a.py", "old")
    edit = Edit("a.py", "old", "new", "once")
    apply_edits(tmp_path, [edit])
    with pytest.raises(EditError, match="found 0"):
        apply_edits(tmp_path, [edit])


def test_table_gives_a_reason_for_every_edit_and_repeats_none():
    for edit in EDITS:
        assert len(edit.reason) > 20, edit
        assert edit.old != edit.new and edit.count >= 1
        assert edit.file.split("/")[0] in ("detectron2", "projects") and "\\" not in edit.file
    assert len({(edit.file, edit.old) for edit in EDITS}) == len(EDITS)


def test_table_has_no_stub_of_the_extension():
    # collect_env, and everybody who looks for detectron2._C, must see that it is not there.
    assert not any(edit.file.startswith("detectron2/_C") for edit in EDITS)


def make_sdist(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "sdist.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def test_local_sdist_with_another_hash_is_refused(tmp_path, monkeypatch):
    path = make_sdist(tmp_path, {"LICENSE": "text"})
    monkeypatch.setenv(source.LOCAL_SDIST, str(path))
    with pytest.raises(source.SourceError, match=f"sdist.tar.gz: SHA-256 is .*{source.SHA256}"):
        source.fetch_sdist(tmp_path)


def test_downloaded_sdist_with_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv(source.LOCAL_SDIST, raising=False)
    monkeypatch.setattr(source, "download", lambda folder: make_sdist(folder, {"LICENSE": "text"}))
    with pytest.raises(source.SourceError, match="nothing was built"):
        source.fetch_sdist(tmp_path)


def test_missing_local_sdist_is_an_error_and_not_a_download(tmp_path, monkeypatch):
    monkeypatch.setenv(source.LOCAL_SDIST, str(tmp_path / "gone.tar.gz"))
    monkeypatch.setattr(source, "download", lambda folder: pytest.fail("went to the network"))
    with pytest.raises(source.SourceError, match=r"DETECTRON2_SDIST=.*gone\.tar\.gz: no such file"):
        source.fetch_sdist(tmp_path)


def test_failed_download_says_how_to_build_offline(tmp_path, monkeypatch):
    pypi_simple = pytest.importorskip("pypi_simple", reason="a build requirement only")

    def refuse(self, *args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(pypi_simple.PyPISimple, "get_project_page", refuse)
    with pytest.raises(source.SourceError, match=r"no route.*DETECTRON2_SDIST"):
        source.download(tmp_path)


def test_hash_is_checked_and_edits_are_strict_in_a_build(tmp_path, monkeypatch):
    """The right hash but other sources (as if the table were for another version) is an error."""
    path = make_sdist(tmp_path, {"LICENSE": "text", "detectron2/__init__.py": ""})
    monkeypatch.setenv(source.LOCAL_SDIST, str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(source, "SHA256", digest)
    with pytest.raises(EditError, match=r"no such file in the sources"):
        backend.prepare_sources(tmp_path)


def test_pip_settings_reach_the_download(monkeypatch):
    pytest.importorskip("requests", reason="a build requirement only")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/elsewhere.pem")
    monkeypatch.setenv("PIP_CERT", "/certificates.pem")
    monkeypatch.setenv("PIP_CLIENT_CERT", "/client.pem")
    monkeypatch.setenv("PIP_PROXY", "http://proxy.example:3128")
    session = source.make_session()
    assert session.cert == "/client.pem"
    assert session.proxies["https"] == "http://proxy.example:3128"
    settings = session.merge_environment_settings("https://index.example", {}, None, None, None)
    assert settings["verify"] == "/certificates.pem"


def test_nothing_in_the_build_imports_torch():
    for path in [*PROJECT.rglob("*.py"), PROJECT.parents[1] / "setup.py"]:
        lines = path.read_text().splitlines()
        assert not [
            line for line in lines if line.strip().startswith(("import torch", "from torch"))
        ]
