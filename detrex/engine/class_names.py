"""The names of the classes as a part of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from detrex.checkpoint import check_same_names

__all__ = ["ClassNames"]


class ClassNames:
    """The class names in checkpoints, so that it is known elsewhere what class 3 is.

    A training for other classes then keeps what the weights know of classes with equal names, and
    a run is only resumed, or a model evaluated, on data with the same classes.

    Args:
        names: by class index.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def state_dict(self) -> dict[str, list[str]]:
        return {"names": self.names}

    def load_state_dict(self, state_dict: dict[str, list[str]]) -> None:
        """Compare the checkpoint's names with those of the data.

        Raises:
            CheckpointError: the names are others, or in another order.
        """
        check_same_names("--resume: the checkpoint", state_dict["names"], self.names)
