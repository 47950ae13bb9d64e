"""Reading and writing checkpoints."""

from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

from . import catalog as _catalog  # registers the "catalog://" paths
from .c2_model_loading import align_and_update_state_dicts
from .detection_checkpoint import DetectionCheckpointer
from .state_dict_file import load_checkpoint_file, load_state_dict_file

__all__ = [
    "Checkpointer",
    "DetectionCheckpointer",
    "PeriodicCheckpointer",
    "align_and_update_state_dicts",
    "load_checkpoint_file",
    "load_state_dict_file",
]

del _catalog
