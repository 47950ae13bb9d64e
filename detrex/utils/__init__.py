"""Small helpers that everything else may use; those that need more than torch load when asked."""

from typing import TYPE_CHECKING, Any

from detrex.utils.dist import get_rank, get_world_size, is_dist_avail_and_initialized
from detrex.utils.misc import at_least_float32, interpolate, inverse_sigmoid, softplus

if TYPE_CHECKING:
    from detrex.utils.events import WandbWriter

__all__ = [
    "WandbWriter",
    "at_least_float32",
    "get_rank",
    "get_world_size",
    "interpolate",
    "inverse_sigmoid",
    "is_dist_avail_and_initialized",
    "softplus",
]


def __getattr__(name: str) -> Any:
    if name == "WandbWriter":
        from detrex.utils.events import WandbWriter

        return WandbWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
