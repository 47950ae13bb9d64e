"""Multi-scale deformable attention: one operator, several implementations."""

from .op import Implementation, implementation, ms_deform_attn, use_implementation

__all__ = ["Implementation", "implementation", "ms_deform_attn", "use_implementation"]
