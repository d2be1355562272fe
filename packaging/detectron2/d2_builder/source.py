"""Gets detectron2's sdist: downloads it by name, or takes a local copy; trusts only its hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

PROJECT = "pb1-detectron2"  # detectron2 is not on the index under its own name
VERSION = "0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
LOCAL_SDIST = "DETECTRON2_SDIST"  # environment variable: a copy on disk, to build offline


class SourceError(RuntimeError):
    """The sdist could not be had, or is not the one that was checked."""


def fetch_sdist(folder: Path) -> Path:
    """Return the path of a verified sdist, downloaded into ``folder`` unless there is a local one.

    Raises:
        SourceError: if there is no such sdist, or its SHA-256 is not the known one.
    """
    local = os.environ.get(LOCAL_SDIST)
    if local and not Path(local).is_file():
        raise SourceError(f"{LOCAL_SDIST}={local}: no such file")
    path = Path(local) if local else download(folder)
    check_sha256(path, SHA256)
    return path


def check_sha256(path: Path, expected: str) -> None:
    """Raise ``SourceError`` unless the SHA-256 of the file is ``expected``."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise SourceError(f"{path}: SHA-256 is {found}, expected {expected}; nothing was built")


def download(folder: Path) -> Path:
    """Download the sdist from the package index into ``folder`` and return its path."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple

    endpoint = os.environ.get("PIP_INDEX_URL") or PYPI_SIMPLE_ENDPOINT
    try:
        with PyPISimple(endpoint, session=make_session()) as client:
            for package in client.get_project_page(PROJECT).packages:
                if package.package_type == "sdist" and package.version == VERSION:
                    path = folder / package.filename
                    client.download_package(package, path)
                    return path
    except Exception as error:
        raise SourceError(
            f"cannot download {PROJECT} {VERSION} from the package index: {error}. To build "
            f"without the network, set {LOCAL_SDIST} to a local copy of the sdist."
        ) from error
    raise SourceError(f"the package index has no sdist of {PROJECT} {VERSION}")


def make_session():
    """Return a ``requests`` session that follows pip's settings and retries as pip does.

    pip hands its settings to a build only through the environment. ``requests`` itself follows
    the proxy variables and ``REQUESTS_CA_BUNDLE``.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    retry = Retry(total=5, backoff_factor=0.5, status_forcelist=(500, 502, 503, 504))
    session.mount("https://", HTTPAdapter(max_retries=retry))
    if os.environ.get("PIP_PROXY"):
        session.proxies = dict.fromkeys(("http", "https"), os.environ["PIP_PROXY"])
    if os.environ.get("PIP_CLIENT_CERT"):
        session.cert = os.environ["PIP_CLIENT_CERT"]
    if os.environ.get("PIP_CERT"):
        session.verify = os.environ["PIP_CERT"]
        # requests lets the variable win over `verify`; pip's own setting is the more specific.
        os.environ["REQUESTS_CA_BUNDLE"] = os.environ["PIP_CERT"]
    return session


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack ``sdist`` into ``folder`` and return the root of the sources."""
    shutil.unpack_archive(sdist, folder, format="gztar", **_safe_filter())
    (root,) = (path for path in folder.iterdir() if path.is_dir())
    return root


def _safe_filter() -> dict[str, str]:
    # Older Pythons do not know the argument; newer ones warn, or differ, without it.
    return {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
