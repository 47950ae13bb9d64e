"""What lies between a backbone and a transformer."""

from .channel_mapper import ChannelMapper

__all__ = ["ChannelMapper"]
