"""Multi-scale deformable attention: one operator, several implementations."""

from detrex.layers.ms_deform_attn.op import (
    Implementation,
    implementation,
    ms_deform_attn,
    use_implementation,
)

__all__ = ["Implementation", "implementation", "ms_deform_attn", "use_implementation"]
