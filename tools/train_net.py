#!/usr/bin/env python3
"""Train or evaluate a model that a LazyConfig file describes.

    python tools/train_net.py --config-file configs/dab_deformable_detr/....py train.max_iter=1000

``--help`` says more; everything else is in ``detrex.engine``.
"""

from detrex.engine import main

if __name__ == "__main__":
    main()
