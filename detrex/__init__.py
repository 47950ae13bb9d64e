"""detrex: detection transformers for the detectron2 ecosystem."""

import warnings
from importlib.util import find_spec

__version__ = "0.1.0"

if find_spec("detectron2") is None:
    raise ImportError(
        "detrex needs the detectron2 API: install the pure-Python one that comes with it "
        "(`pip install ./detectron2-pure` in a checkout of detrex) or the full detectron2."
    )

# timm and fvcore script functions when they are imported; a user of detrex need not hear of it.
warnings.filterwarnings(
    "ignore", message="`torch.jit.script` is deprecated", category=FutureWarning
)
