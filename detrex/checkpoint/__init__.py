"""Loading weights from files of many origins, without running code from them."""

from detrex.utils.weight_files import read_state_dict

from .load import CheckpointError, LoadReport, check_same_names, load_weights

__all__ = [
    "CheckpointError",
    "LoadReport",
    "check_same_names",
    "load_weights",
    "read_state_dict",
]
