"""Weights of the family's checkpoints under the names that this model has.

What a checkpoint needs is decided by its keys alone: files that were converted often lose the
version that torch stores beside them.
"""

from __future__ import annotations

import logging
import re

import torch

logger = logging.getLogger(__name__)

_HEAD = "sem_seg_head."
# Of the pixel decoder; in the first generation they stood in the head itself.
_PIXEL_DECODER_KEY = re.compile(r"(input_proj|transformer|mask_features|adapter_\d+|layer_\d+)\.")
# The learned contents of the queries; first generation.
_STATIC_QUERY, _QUERY_FEAT = "predictor.static_query.", "predictor.query_feat."
# Counts the supervised outputs for the warm-up of the official code; ours counts iterations.
_COUNTER = "criterion._iter"
# A Swin transformer that was trained as a classifier, without a model around it.
_BARE_SWIN = re.compile(r"(patch_embed|layers\.\d+)\.|absolute_pos_embed$")
_BARE_SWIN_CLASSIFIER = re.compile(r"(norm|head)\.")


def adapt_state_dict(
    state_dict: dict[str, torch.Tensor], prefix: str = "", *hook_arguments: object
) -> None:
    """Rename in place what published checkpoints name otherwise; a load-state-dict pre-hook.

    Handles both generations of Mask2Former's keys, the counter of MaskFreeVIS, and Swin
    transformers trained on ImageNet, which have no prefix. Keys that are right stay as they are,
    so that it can be applied again.

    Args:
        state_dict: keys and weights of the whole model.
        prefix: of the model's keys.
        hook_arguments: what torch passes to the hook besides; not used.
    """
    state_dict.pop(prefix + _COUNTER, None)
    _adapt_bare_swin(state_dict, prefix)
    renamed = {}
    for key in state_dict:
        if key.startswith(prefix + _HEAD):
            new = prefix + _HEAD + _head_key(key[len(prefix + _HEAD) :])
            if new != key:
                renamed[key] = new
    for old, new in renamed.items():
        state_dict[new] = state_dict.pop(old)
    if renamed:
        logger.info("The checkpoint is of the first generation: renamed %d keys", len(renamed))


def _head_key(key: str) -> str:
    if _PIXEL_DECODER_KEY.match(key):
        return "pixel_decoder." + key
    if key.startswith(_STATIC_QUERY):
        return _QUERY_FEAT + key[len(_STATIC_QUERY) :]
    return key


def _adapt_bare_swin(state_dict: dict[str, torch.Tensor], prefix: str) -> None:
    if prefix + "patch_embed.proj.weight" not in state_dict:
        return
    for key in list(state_dict):
        name = key[len(prefix) :]
        if _BARE_SWIN.match(name):
            state_dict[f"{prefix}backbone.{name}"] = state_dict.pop(key)
        elif _BARE_SWIN_CLASSIFIER.match(name):
            del state_dict[key]
