"""Loading weights from files of many origins, without running code from them."""

from detrex.checkpoint.detection_checkpoint import DetectionCheckpointer
from detrex.checkpoint.load import CheckpointError, LoadReport, check_same_names, load_weights
from detrex.utils.weight_files import read_state_dict

__all__ = [
    "CheckpointError",
    "DetectionCheckpointer",
    "LoadReport",
    "check_same_names",
    "load_weights",
    "read_state_dict",
]
