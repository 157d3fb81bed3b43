"""Instructions for Numba's kernels that its compiler would not choose by itself, spelled in LLVM.

Owns the inner loop of every product: a tile of sums that stays in the processor's registers while
the terms go by. Left to itself the compiler writes every sum back to memory after a few terms,
and on many processors takes vectors half as wide as there are. Knows matrices alone.

Numba keeps compiled kernels by the date and size of *their* file: a change here is to be noted in
`kernels.py`, which holds this file's hash (a test says so).
"""

import platform

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

# Floats of a vector; where registers hold fewer, the compiler takes several.
_VECTOR = 16
_SINGLES = ir.VectorType(ir.FloatType(), _VECTOR)
_INDEX = ir.IntType(64)
# Bytes between what is read and what is asked for: far enough to hide the memory's latency.
_AHEAD = 8192
_CACHE_LINE = 64


def _has_wide_registers():
    """32 registers of 16 floats, of which a tile takes 24, beside four of weights."""
    if config.CPU_FEATURES is not None:  # what Numba was told to compile for
        return "+avx512f" in config.CPU_FEATURES
    return get_host_cpu_features().get("avx512f", False)


def _can_widen_halves():
    """On x86 without F16C the compiler would call what is not there."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    if config.CPU_FEATURES is not None:
        return "+f16c" in config.CPU_FEATURES
    return get_host_cpu_features().get("f16c", False)


READS_HALVES = _can_widen_halves()
# Sums of a tile: its most rows, and its lanes. With AVX2 or NEON, 6 x 16 fill the registers.
TILE_ROWS = 6
TILE_LANES = 64 if _has_wide_registers() else 16


@intrinsic
def add_tile(typing_context, rows, first_row, terms, x, weights, y, lane, column):  # noqa: ARG001
    """Add ``rows`` (1 to TILE_ROWS) by TILE_LANES sums of products to a matrix.

    Y[first_row + i, column + j] += the sum of x[first_row + i, k] weights[k, lane + j] over k from
    ``terms[0]`` to before ``terms[1]``. All are matrices, contiguous; weights are float32, or
    bfloat16 as uint16, or float16 as int16.
    """

    def generate(context, builder, signature, arguments):
        count, first_row, terms, *matrices, lane, column = arguments
        kinds = signature.args[3:6]
        x, weights, y = (
            _Matrix(context, builder, *pair) for pair in zip(kinds, matrices, strict=True)
        )
        done = builder.append_basic_block("done")
        switch = builder.switch(count, done)
        for number in range(1, TILE_ROWS + 1):
            switch.add_case(number, builder.append_basic_block(f"rows_{number}"))
            builder.position_at_end(switch.cases[-1][1])
            tile = _Tile(builder, number)
            own_rows = [builder.add(first_row, _INDEX(i)) for i in range(number)]
            tile.sum_terms(terms, [x.at(row, _INDEX(0)) for row in own_rows], weights, lane)
            tile.add_to([y.at(row, column) for row in own_rows])
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    index = types.intp
    return types.void(index, index, terms, x, weights, y, index, index), generate


class _Matrix:
    """A contiguous matrix among an intrinsic's arguments."""

    def __init__(self, context, builder, kind, value):
        self.dtype = kind.dtype
        self._builder = builder
        view = cgutils.create_struct_proxy(kind)(context, builder, value)
        self._first, self._width = view.data, builder.extract_value(view.shape, 1)

    def at(self, row, column):
        """The address of an element."""
        place = self._builder.add(self._builder.mul(row, self._width), column)
        return self._builder.gep(self._first, [place])


class _Tile:
    """Sums of products, all zero at first. The compiler finds that its variables fit registers."""

    def __init__(self, builder, rows):
        self._builder = builder
        zero = ir.Constant(_SINGLES, [0.0] * _VECTOR)
        vectors = range(TILE_LANES // _VECTOR)
        self._sums = [
            [cgutils.alloca_once(builder, _SINGLES) for _ in vectors] for _ in range(rows)
        ]
        for sums in self._sums:
            for total in sums:
                builder.store(zero, total)

    def sum_terms(self, terms, rows, weights, lane):
        """Add the terms of a range; ``rows`` are the addresses of each row's first factor."""
        builder = self._builder
        first, last = (builder.extract_value(terms, end) for end in (0, 1))
        with cgutils.for_range_slice(builder, first, last, _INDEX(1), _INDEX) as (term, _):
            line = weights.at(term, lane)
            factors = self._load_weights(line, weights.dtype)
            for row, sums in zip(rows, self._sums, strict=True):
                factor = self._in_all_lanes(builder.load(builder.gep(row, [term])))
                for other, total in zip(factors, sums, strict=True):
                    product = builder.fmul(factor, other, flags=("fast",))
                    added = builder.fadd(builder.load(total), product, flags=("fast",))
                    builder.store(added, total)

    def add_to(self, rows):
        """Add the sums to what lies at an address for each row."""
        builder = self._builder
        for row, sums in zip(rows, self._sums, strict=True):
            for index, total in enumerate(sums):
                place = builder.gep(row, [_INDEX(index * _VECTOR)])
                place = builder.bitcast(place, _SINGLES.as_pointer())
                added = builder.fadd(builder.load(place, align=4), builder.load(total))
                builder.store(added, place, align=4)

    def _load_weights(self, line, dtype):
        """TILE_LANES weights as vectors of float32; asks for those further on, too."""
        builder, size = self._builder, dtype.bitwidth // 8
        for ahead in range(0, TILE_LANES, _CACHE_LINE // size):
            _prefetch(builder, builder.gep(line, [_INDEX(ahead + _AHEAD // size)]))
        stored = {types.int16: ir.HalfType(), types.uint16: ir.IntType(16)}
        kind = ir.VectorType(stored.get(dtype, ir.FloatType()), _VECTOR).as_pointer()
        places = (builder.gep(line, [_INDEX(i)]) for i in range(0, TILE_LANES, _VECTOR))
        loaded = (builder.load(builder.bitcast(place, kind), align=size) for place in places)
        return [_widen(builder, bits, dtype) for bits in loaded]

    def _in_all_lanes(self, single):
        builder = self._builder
        nothing = ir.Constant(_SINGLES, ir.Undefined)
        one = builder.insert_element(nothing, single, ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), _VECTOR), [0] * _VECTOR)
        return builder.shuffle_vector(one, nothing, lanes)


def _widen(builder, bits, dtype):
    """A vector of weights in float32."""
    if dtype == types.float32:
        return bits
    if dtype == types.int16:
        return builder.fpext(bits, _SINGLES)
    wide = ir.VectorType(ir.IntType(32), _VECTOR)
    shifted = builder.shl(builder.zext(bits, wide), ir.Constant(wide, [16] * _VECTOR))
    return builder.bitcast(shifted, _SINGLES)


def _prefetch(builder, address):
    """Ask for the cache line of an address ahead of its use."""
    number = ir.IntType(32)
    pointer = builder.bitcast(address, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(prefetch, [pointer, number(0), number(2), number(1)])


@intrinsic
def larger(typing_context, a, b):  # noqa: ARG001
    """The larger of two float32, neither of them NaN: such a search is vectorised."""

    def generate(context, builder, signature, arguments):  # noqa: ARG001
        single = ir.FloatType()
        kind = ir.FunctionType(single, [single, single])
        larger = cgutils.get_or_insert_function(builder.module, kind, "llvm.maxnum.f32")
        return builder.call(larger, arguments, fastmath=("fast",))

    return types.float32(types.float32, types.float32), generate
