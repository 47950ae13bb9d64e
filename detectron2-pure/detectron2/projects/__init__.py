"""The parts of detectron2's projects that other projects import."""
