"""Whole models by name; the models themselves come from projects."""

from detectron2._left_out import explain_missing as _explain_missing
from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY, build_model
from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY, build_sem_seg_head

__all__ = ["META_ARCH_REGISTRY", "SEM_SEG_HEADS_REGISTRY", "build_model", "build_sem_seg_head"]

__getattr__ = _explain_missing(__name__)
