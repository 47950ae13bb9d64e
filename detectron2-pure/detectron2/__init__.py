"""The part of detectron2's API that LazyConfig projects use, in pure Python."""

from detectron2._left_out import install as _install_import_messages

__version__ = "0.6+pure.0"

_install_import_messages()
