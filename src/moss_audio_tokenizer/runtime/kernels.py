"""Steps of a few rows through a Transformer stage on a CPU, compiled by Numba.

One frame of one stream is a product of a few rows with every weight: reading the weights is all
the work. PyTorch's kernels read them at half the memory's speed and cost as much again to
call. Here the weights lie in the order in which they are read, and a block is two parallel
stretches: each thread takes some heads from layer norm to output projection, then some hidden
units of the feed-forward from the first product to the second; their shares are summed after.
Ten frames are up to some hundred rows, where arithmetic is the work: products are made tile by
tile in the processor's registers (`instructions.py`), while the weights of a stretch of terms
wait in its nearest cache.

Knows arrays alone. `compiled.py` packs the weights and calls; tests compare with PyTorch.
"""

import numpy as np
from numba import config, njit, prange, set_num_threads

from .instructions import READS_HALVES as READS_HALVES
from .instructions import TILE_LANES, TILE_ROWS, add_tile, larger

# Of `instructions.py` (SHA-256, its beginning), so that what is compiled here is made anew with it.
INSTRUCTIONS = "c2f8ff538a690264"

# Outputs that lie side by side in packed weights: four vectors of 16.
LANES = 64
# Lengths of sums are padded to a multiple.
UNROLL = 4
# Divisions that could raise an error would not be vectorised.
_OPTIONS = {"fastmath": True, "error_model": "numpy", "cache": True}
# Not infinite, as the compiler may assume that nothing is.
_HIDDEN = np.float32(-1e30)
# Terms of a sum that all rows are given before the next: their weights stay in the nearest cache.
_TERMS = 64
_EPSILON = np.float32(1e-5)
# Less than this power of two beside the highest is nothing in float32. Far from the least float32,
# near which processors take a hundred times as long: products with values are to stay above it.
_LEAST_POWER = np.float32(-100)
_LOG2_E = np.float32(1.4426950408889634)


def use_threads(wanted):
    """Let the kernels use so many threads, or as many as Numba has started; returns how many."""
    count = min(wanted, config.NUMBA_NUM_THREADS)
    set_num_threads(count)
    return count


@njit(**_OPTIONS)
def add_product(x, weights, inputs, y, offset):
    """Y += x W^T; x (rows, inputs), weights (blocks, inputs, LANES), y (rows, blocks * LANES).

    Weights are float32, or 16 bits as `add_tile` takes them. Only the first ``inputs`` terms are
    added, to the columns of y from ``offset`` on. Arguments must be contiguous (a slice may only
    be of the first axis).
    """
    rows = len(x)
    # As alike as can be: 10 rows are 5 and 5.
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    for block in range(weights.shape[0]):
        for term in range(0, inputs, _TERMS):
            terms = (term, min(term + _TERMS, inputs))
            for lane in range(0, LANES, TILE_LANES):
                column = offset + block * LANES + lane
                for tile in range(tiles):
                    first, last = tile * rows // tiles, (tile + 1) * rows // tiles
                    add_tile(last - first, first, terms, x, weights[block], y, lane, column)


@njit(**_OPTIONS)
def normalise(x, scale, shift, y):
    """Layer norm of each row of x (rows, width and padding)."""
    width = len(scale)
    for row in range(len(x)):
        mean = np.float32(0)
        for i in range(width):
            mean += x[row, i]
        mean /= np.float32(width)
        variance = np.float32(0)
        for i in range(width):
            variance += (x[row, i] - mean) * (x[row, i] - mean)
        inverse = np.float32(1) / np.sqrt(variance / np.float32(width) + _EPSILON)
        for i in range(width):
            y[row, i] = (x[row, i] - mean) * inverse * scale[i] + shift[i]


@njit(**_OPTIONS)
def gelu(x):
    """Exact GELU in place; erf as the rational function of Eigen's generic_fast_erf_float."""
    for row in range(len(x)):
        for i in range(x.shape[1]):
            v = x[row, i]
            z = min(max(v * np.float32(0.7071067811865476), np.float32(-4)), np.float32(4))
            s = z * z
            p = np.float32(-2.72614225801306e-10)
            p = p * s + np.float32(2.77068142495902e-08)
            p = p * s + np.float32(-2.10102402082508e-06)
            p = p * s + np.float32(-5.69250639462346e-05)
            p = p * s + np.float32(-7.34990630326855e-04)
            p = p * s + np.float32(-2.95459980854025e-03)
            p = p * s + np.float32(-1.60960333262415e-02)
            q = np.float32(-1.45660718464996e-05)
            q = q * s + np.float32(-2.13374055278905e-04)
            q = q * s + np.float32(-1.68282697438203e-03)
            q = q * s + np.float32(-7.37332916720468e-03)
            q = q * s + np.float32(-1.42647390514189e-02)
            x[row, i] = np.float32(0.5) * v * (np.float32(1) + z * p / q)


@njit(**_OPTIONS)
def softmax(scores, count, powers):
    """Softmax of the first ``count`` scores in place, leaving out the factor it returns.

    2^t is a polynomial in what rounding takes from t (at most 1/2, where it is right to 1e-7)
    times a power of two, whose bits are written into ``powers`` (int32) and read as floats: plain
    loops, which the compiler vectorises.
    """
    highest = scores[0]
    for i in range(count):
        highest = larger(highest, scores[i])
    floats = powers.view(np.float32)
    for i in range(count):
        t = max((scores[i] - highest) * _LOG2_E, _LEAST_POWER)
        whole = np.floor(t + np.float32(0.5))
        f = t - whole
        powers[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        e = np.float32(1.5403530393381606e-04)
        e = e * f + np.float32(1.3333558146428443e-03)
        e = e * f + np.float32(9.618129107628477e-03)
        e = e * f + np.float32(5.5504108664821576e-02)
        e = e * f + np.float32(2.4022650695910072e-01)
        e = e * f + np.float32(6.931471805599453e-01)
        scores[i] = e * f + np.float32(1)
    total = np.float32(0)
    for i in range(count):
        scores[i] *= floats[i]
        total += scores[i]
    return np.float32(1) / total


@njit(**_OPTIONS)
def rotate(values, first, rotations, head_dim, scale):
    """Turn and scale the pairs of a query or key of each row; rotations (rows, pairs, 2)."""
    for row in range(len(values)):
        for pair in range(head_dim // 2):
            even, odd = values[row, first + 2 * pair], values[row, first + 2 * pair + 1]
            cosine, sine = rotations[row, pair, 0], rotations[row, pair, 1]
            values[row, first + 2 * pair] = (even * cosine - odd * sine) * scale
            values[row, first + 2 * pair + 1] = (even * sine + odd * cosine) * scale


@njit(**_OPTIONS)
def attend(queries, start, context, keys, values, scores, powers, scales, attended):
    """Attention of one head's queries (steps, head_dim), already scaled, from step ``start`` on.

    Keys (blocks, head_dim, LANES) and values (blocks, places, LANES) lie like packed weights,
    those of the same steps already among them. ``attended`` (steps, ...) is overwritten.
    """
    steps, places = len(queries), values.shape[1]
    blocks = min((start + steps + LANES - 1) // LANES, places // LANES)
    count = blocks * LANES
    scores[:steps] = np.float32(0)
    add_product(queries, keys[:blocks], keys.shape[1], scores, 0)
    attended[:] = np.float32(0)
    for step in range(steps):
        hide(scores[step], start + step, context, places, count)
        # Values are summed with unscaled weights: there are fewer channels than places.
        scales[step] = softmax(scores[step], count, powers)
    add_product(scores[:steps], values, count, attended, 0)
    for step in range(steps):
        for i in range(attended.shape[1]):
            attended[step, i] *= scales[step]


@njit(**_OPTIONS)
def hide(scores, position, context, places, count):
    """Put out of sight the places that a query at ``position`` does not see.

    They follow the query's own place, around the ring: the rest of the chunk, then what is
    further back than the window, or was never written.
    """
    first = position % places + 1
    last = first + places - min(context, position + 1)
    scores[first : min(last, count)] = _HIDDEN
    scores[: min(max(last - places, 0), count)] = _HIDDEN


@njit(**_OPTIONS)
def store(row, qkv, head_dim, place, keys, values):
    """Put the key and the value of one row of ``qkv`` into a place of a ring."""
    block, lane = place // LANES, place % LANES
    for i in range(head_dim):
        keys[block, i, lane] = qkv[row, head_dim + i]
        values[i // LANES, place, i % LANES] = qkv[row, 2 * head_dim + i]


@njit(**_OPTIONS)
def add_head(
    normed,
    streams,
    head_dim,
    context,
    rotations,
    in_weights,
    out_weights,
    keys,
    values,
    layer,
    head,
    buffers,
    share,
):
    """Add one head's part of the attention branch to ``share``.

    ``streams`` (num_streams, 3) holds the slot, the first step and the number of steps of each;
    rows (of the longest's number of steps each) follow in that order.
    """
    qkv, scores, powers, scales, attended = buffers
    rows = len(normed)
    steps = rows // len(streams)
    qkv[:] = np.float32(0)
    add_product(normed, in_weights, in_weights.shape[1], qkv, 0)
    rotate(qkv, 0, rotations, head_dim, np.float32(1) / np.sqrt(np.float32(head_dim)))
    rotate(qkv, head_dim, rotations, head_dim, np.float32(1))
    for stream in range(len(streams)):
        slot, start, length = streams[stream, 0], streams[stream, 1], streams[stream, 2]
        ring_keys, ring_values = keys[slot, layer, head], values[slot, layer, head]
        first = stream * steps
        for step in range(length):
            place = (start + step) % ring_values.shape[1]
            store(first + step, qkv, head_dim, place, ring_keys, ring_values)
        attend(
            qkv[first : first + length],
            start,
            context,
            ring_keys,
            ring_values,
            scores,
            powers,
            scales,
            attended[first : first + length],
        )
    add_product(attended, out_weights, out_weights.shape[1], share, 0)


@njit(**_OPTIONS)
def add_units(normed, in_weights, out_weights, hidden, share):
    """Add the part of one block of hidden units to the feed-forward branch."""
    hidden[:] = np.float32(0)
    add_product(normed, in_weights, in_weights.shape[1], hidden, 0)
    gelu(hidden)
    add_product(hidden, out_weights, out_weights.shape[1], share, 0)


@njit(parallel=True, **_OPTIONS)
def project(x, weights, y, num_tasks):
    """Y = x W^T, the blocks of outputs shared out among the threads."""
    blocks = weights.shape[0]
    for task in prange(num_tasks):
        first, last = task * blocks // num_tasks, (task + 1) * blocks // num_tasks
        for row in range(len(x)):
            for i in range(first * LANES, last * LANES):
                y[row, i] = np.float32(0)
        add_product(x, weights[first:last], weights.shape[1], y, first * LANES)


@njit(**_OPTIONS)
def rotations_of(streams, steps, frequencies):
    """Cosine and sine (rows, pairs, 2) of every row's angles, which are formed in float64."""
    rotations = np.empty((len(streams) * steps, len(frequencies), 2), np.float32)
    for row in range(len(rotations)):
        position = np.float64(streams[row // steps, 1] + row % steps)
        for pair in range(len(frequencies)):
            rotations[row, pair, 0] = np.cos(position * frequencies[pair])
            rotations[row, pair, 1] = np.sin(position * frequencies[pair])
    return rotations


@njit(parallel=True, **_OPTIONS)
def run_layers(
    x,
    streams,
    frequencies,
    context,
    norms,
    in_weights,
    out_weights,
    up_weights,
    down_weights,
    keys,
    values,
    num_tasks,
):
    """All layers of a stage over x (rows, width and padding), in place.

    See `add_head` for rows and streams. norms (layers, 4, width) holds weight and bias of both
    layer norms. Packed weights: in (layers, heads, ...), out (layers, heads, ...), up and down
    (layers, groups, ...), each the transpose of `add_product`'s. keys, values (layers, slots,
    heads, ...): see `attend`.
    """
    rows, padded = x.shape
    head_dim = 2 * len(frequencies)
    rotations = rotations_of(streams, rows // len(streams), frequencies)
    heads, groups = in_weights.shape[1], up_weights.shape[1]
    shares = np.empty((num_tasks, rows, padded), np.float32)
    for layer in range(len(norms)):
        for task in prange(num_tasks):
            share = shares[task]
            share[:] = np.float32(0)
            normed = np.zeros((rows, padded), np.float32)
            normalise(x, norms[layer, 0], norms[layer, 1], normed)
            places = values.shape[4]
            buffers = (
                np.empty((rows, in_weights.shape[2] * LANES), np.float32),
                np.empty((rows // len(streams), places), np.float32),
                np.empty(places, np.int32),
                np.empty(rows // len(streams), np.float32),
                np.zeros((rows, values.shape[3] * LANES), np.float32),
            )
            for head in range(task * heads // num_tasks, (task + 1) * heads // num_tasks):
                add_head(
                    normed,
                    streams,
                    head_dim,
                    context,
                    rotations,
                    in_weights[layer, head],
                    out_weights[layer, head],
                    keys,
                    values,
                    layer,
                    head,
                    buffers,
                    share,
                )
        for task in range(num_tasks):
            x += shares[task]
        for task in prange(num_tasks):
            share = shares[task]
            share[:] = np.float32(0)
            normed = np.zeros((rows, padded), np.float32)
            normalise(x, norms[layer, 2], norms[layer, 3], normed)
            hidden = np.empty((rows, up_weights.shape[2] * LANES), np.float32)
            for group in range(task * groups // num_tasks, (task + 1) * groups // num_tasks):
                add_units(
                    normed, up_weights[layer, group], down_weights[layer, group], hidden, share
                )
        for task in range(num_tasks):
            x += shares[task]
