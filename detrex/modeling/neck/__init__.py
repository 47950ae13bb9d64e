"""What lies between a backbone and a transformer."""

from detrex.modeling.neck.channel_mapper import ChannelMapper
from detrex.modeling.neck.protocol import Neck

__all__ = ["ChannelMapper", "Neck"]
