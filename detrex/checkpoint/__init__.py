"""Loading weights from files of many origins, without running code from them."""

from .load import CheckpointError, LoadReport, load_weights
from .read import read_state_dict

__all__ = ["CheckpointError", "LoadReport", "load_weights", "read_state_dict"]
