"""The data of the quickstart: scenes of handwritten digits on photographs, made on the spot."""

from detrex.quickstart.digit_scenes import make_digit_scenes
from detrex.quickstart.drawing import DigitScenes

__all__ = ["DigitScenes", "make_digit_scenes"]
