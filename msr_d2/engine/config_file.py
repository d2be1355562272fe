"""A config from a yaml file and from the command line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator

import yaml
from detectron2.config import CfgNode
from fvcore.common.config import BASE_KEY

from ..config import get_cfg
from .device import resolve_device


def load_cfg(config_file: str = "", opts: list[str] | None = None) -> CfgNode:
    """Our default config, a yaml file merged into it, then ``KEY VALUE`` pairs.

    ``MODEL.DEVICE`` is "auto" unless the file or the pairs say otherwise, and comes back resolved.

    Raises:
        ValueError: if the file is missing or not plain yaml, a key does not exist, a value is of
            the wrong type, or the device is not there.
    """
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "auto"
    if config_file:
        _merge_file(cfg, config_file)
    _merge_opts(cfg, opts or [])
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    return cfg


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    if not config_file.endswith((".yaml", ".yml")):
        raise ValueError(f"--config-file must be a yaml file, got '{config_file}'.")
    if not os.path.isfile(config_file):
        raise ValueError(f"--config-file '{config_file}' does not exist.")
    try:
        cfg.merge_from_file(config_file, allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(
            f"'{config_file}' (or its {BASE_KEY}) has a yaml tag that would run Python code: "
            f"{error.problem}. It was not loaded; write the value in plain yaml."
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(f"'{config_file}' (or its {BASE_KEY}) is not yaml: {error}") from error
    except KeyError as error:
        raise _unknown_key(cfg, error.args[0], f"'{config_file}'") from error


def _merge_opts(cfg: CfgNode, opts: list[str]) -> None:
    options = [opt for opt in opts[::2] if str(opt).startswith("--")]
    if options or len(opts) % 2:
        what = f"found {options[0]} among them" if options else f"got {len(opts)} words: {opts}"
        raise ValueError(
            "the command ends with KEY VALUE pairs, and options such as --resume stand before "
            f"them; {what}."
        )
    try:
        cfg.merge_from_list(opts)
    except AssertionError as error:  # yacs raises KeyError for files, and this for pairs
        raise _unknown_key(cfg, error.args[0], "the command line") from error


def _unknown_key(cfg: CfgNode, message: str, source: str) -> ValueError:
    """The error for ``Non-existent key: A.B``, with the keys that are most like it."""
    similar = difflib.get_close_matches(message.split()[-1], list(_all_keys(cfg)))
    cure = f" Did you mean {' or '.join(similar)}?" if similar else ""
    return ValueError(f"{source}: {message}.{cure}")


def _all_keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _all_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
