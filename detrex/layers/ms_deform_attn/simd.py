"""Vectors of a fixed length for numba: the channels of one head, kept in registers.

numba turns scalar loops into vector instructions where it can, but writes a running sum to memory
in every round. With a vector as one value it stays in registers, which is twice as fast. The
functions here can be called from compiled code alone; lengths must be constants there. ``rows`` are
flat, C-contiguous arrays seen as rows of ``size`` numbers. numpy has no bfloat16: rows of int16 are
the bits of one, which are the upper half of a float32.

numba's cache of compiled kernels doesn't notice a change in this file: touch ``numba_kernels.py``.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

# Reordering sums is allowed; numbers that are not finite keep their meaning, since locations may
# become NaN, and a comparison with them must still be false.
FAST_MATH = ("contract", "nsz", "reassoc")


class Vector(types.Type):
    """``size`` numbers of one dtype as a single value."""

    def __init__(self, dtype: types.Type, size: int) -> None:
        self.dtype = dtype
        self.size = size
        super().__init__(f"vector({dtype} x {size})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector: Vector) -> None:
        element = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.size))


def _row_pointer(context, builder, rows_type, rows, index, size):
    """Address of row ``index``."""
    array = context.make_array(rows_type)(context, builder, rows)
    element = builder.gep(array.data, [builder.mul(index, ir.Constant(index.type, size))])
    return builder.bitcast(element, ir.VectorType(array.data.type.pointee, size).as_pointer())


def _aligned(instruction, dtype):
    """Rows are aligned like their elements, not like whole vectors."""
    instruction.align = dtype.bitwidth // 8
    return instruction


@intrinsic(prefer_literal=True)
def zeros(typing_context, rows, size):
    """``zeros(rows, size)``: a vector of zeros in the dtype of ``rows``."""

    def code(context, builder, signature, args):
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return Vector(rows.dtype, size.literal_value)(rows, size), code


@intrinsic(prefer_literal=True)
def load(typing_context, rows, index, size):
    """``load(rows, index, size)``: row ``index``."""
    length = size.literal_value
    is_bfloat16 = rows.dtype == types.int16

    def code(context, builder, signature, args):
        address = _row_pointer(context, builder, rows, args[0], args[1], length)
        row = _aligned(builder.load(address), rows.dtype)
        if not is_bfloat16:
            return row
        bits = ir.VectorType(ir.IntType(32), length)
        upper = builder.shl(builder.zext(row, bits), ir.Constant(bits, [16] * length))
        return builder.bitcast(upper, context.get_value_type(signature.return_type))

    dtype = types.float32 if is_bfloat16 else rows.dtype
    return Vector(dtype, length)(rows, index, size), code


@intrinsic
def store(typing_context, rows, index, vector):
    """``store(rows, index, vector)``: overwrite row ``index``."""

    def code(context, builder, signature, args):
        address = _row_pointer(context, builder, rows, args[0], args[1], vector.size)
        _aligned(builder.store(args[2], address), rows.dtype)
        return context.get_dummy_value()

    return types.void(rows, index, vector), code


@intrinsic
def axpy(typing_context, a, x, y):
    """``axpy(a, x, y)``: ``a * x + y`` of a number and two vectors."""

    def code(context, builder, signature, args):
        scalar, x_value, y_value = args
        undefined = ir.Constant(x_value.type, ir.Undefined)
        lane = ir.Constant(ir.IntType(32), 0)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), x.size), [0] * x.size)
        first = builder.insert_element(undefined, scalar, lane)
        scaled = builder.fmul(builder.shuffle_vector(first, undefined, lanes), x_value, FAST_MATH)
        return builder.fadd(scaled, y_value, flags=FAST_MATH)

    return x(x.dtype, x, x), code


@intrinsic
def dot(typing_context, x, y):
    """``dot(x, y)``: the inner product of two vectors."""

    def code(context, builder, signature, args):
        product = builder.fmul(*args, flags=FAST_MATH)
        scalar = product.type.element
        name = f"llvm.vector.reduce.fadd.v{x.size}f{x.dtype.bitwidth}"
        kind = ir.FunctionType(scalar, [scalar, product.type])
        reduce = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(reduce, [ir.Constant(scalar, 0.0), product], fastmath=FAST_MATH)

    return x.dtype(x, x), code
