"""Reading and writing checkpoints."""

from detectron2.checkpoint import catalog as _catalog  # registers the "catalog://" paths
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer
from detectron2.checkpoint.state_dict_file import load_checkpoint_file, load_state_dict_file
from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

__all__ = [
    "Checkpointer",
    "DetectionCheckpointer",
    "PeriodicCheckpointer",
    "align_and_update_state_dicts",
    "load_checkpoint_file",
    "load_state_dict_file",
]

del _catalog
