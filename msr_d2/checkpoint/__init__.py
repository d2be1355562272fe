"""Reading checkpoints without running them, and converting those of other code bases."""

from .convert import convert_checkpoint, convert_state_dict, model_state_shapes
from .mapping import SOURCES, detect_source
from .report import ConversionReport, IncompleteConversionError
from .safe_loading import CheckpointError, extract_state_dict, load_checkpoint_safely

__all__ = [
    "SOURCES",
    "CheckpointError",
    "ConversionReport",
    "IncompleteConversionError",
    "convert_checkpoint",
    "convert_state_dict",
    "detect_source",
    "extract_state_dict",
    "load_checkpoint_safely",
    "model_state_shapes",
]
