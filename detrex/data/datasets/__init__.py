"""Data sets by the names of the public detrex; importing this package registers them.

No file is read for that, so none has to be there. They are expected below
``$DETECTRON2_DATASETS`` (``./datasets`` by default) when this is imported; each module says in
which layout, and registers them from another folder by its ``register_all_...(root)``. Class names
come from the files of a data set, when they are first asked for.
"""

from detrex.data.datasets import (
    register_ade20k_full,
    register_ade20k_instance,
    register_ade20k_panoptic,
    register_ade20k_sem_seg,
    register_coco_panoptic_annos_semseg,
    register_coco_stuff_10k,
    register_mapillary_vistas,
    register_mapillary_vistas_panoptic,
)

__all__ = [
    "register_ade20k_full",
    "register_ade20k_instance",
    "register_ade20k_panoptic",
    "register_ade20k_sem_seg",
    "register_coco_panoptic_annos_semseg",
    "register_coco_stuff_10k",
    "register_mapillary_vistas",
    "register_mapillary_vistas_panoptic",
]
