"""Utilities; import the submodule you need."""
