"""Triton kernels for the steps of streams on a GPU: attention to rings, and layer norm.

`attend` is attention of a few new steps to a ring of keys and values. Each program takes some
queries of one row and head: it rotates them and the new keys by their positions, writes new keys
and values into the ring, and reads the row's window in the order of time. Which entries those are
follows from the row's position, so that no mask is read. The softmax is online: Milakov and
Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al., "FlashAttention" (2022).
Where rows and heads are too few to fill the GPU, programs share a row's past among them, and
`join` puts their parts together.

New keys are read from where they come from, not from the ring: programs of one row need not wait
for each other, since no query of the chunk sees the ring's entries for new steps.

Knows arrays alone; `triton_attention.py` launches them.
"""

import triton
import triton.language as tl

# Finite, so that the difference of two maxima is a number where nothing was seen yet.
_NOTHING = tl.constexpr(-1e30)
_TINY = tl.constexpr(1e-30)


@triton.jit
def _turned(vectors, turns, at, turns_at, d, mask):
    """Vectors (steps, head_dim) whose pairs (2j, 2j + 1) are turned, in float32."""
    own = tl.load(vectors + at + d, mask=mask, other=0.0).to(tl.float32)
    partner = tl.load(vectors + at + (d ^ 1), mask=mask, other=0.0).to(tl.float32)
    cosine = tl.load(turns + turns_at + d - d % 2, mask=mask, other=0.0)
    sine = tl.load(turns + turns_at + d - d % 2 + 1, mask=mask, other=0.0)
    return own * cosine + (2 * (d % 2) - 1) * partner * sine


@triton.jit
def _seen(scores, visible, values, summed, total, most, precision: tl.constexpr):
    """The online softmax over one more block of keys: new (summed, total, most)."""
    scores = tl.where(visible, scores, float("-inf"))
    newest = tl.maximum(most, tl.max(scores, 1))
    shrink = tl.exp2(most - newest)
    shares = tl.exp2(scores - newest[:, None])
    summed = summed * shrink[:, None]
    summed += tl.dot(shares.to(values.dtype), values, input_precision=precision)
    return summed, total * shrink + tl.sum(shares, 1), newest


_SIZES = ["num_rows", "num_steps", "num_heads", "steps_per_frame", "context", "capacity"]


@triton.jit(do_not_specialize=_SIZES)  # or each new size would compile it again
def attend(
    heads,  # (rows, steps, 3, heads, head_dim): not turned yet
    turns,  # (rows, steps, head_dim): cosine and sine of each pair
    entries,  # of a layer: (slots, 2, heads, capacity + 1, head_dim); slots lie slot_stride apart
    slots,  # (rows)
    starts,  # (rows) in frames
    num_frames,  # (rows)
    out,  # (splits, rows, steps, heads, head_dim)
    sums,  # (splits, 2, rows, steps, heads): totals and maxima, for `join`; unused if not split
    scale,  # of scores: log2(e) / sqrt(head_dim)
    num_rows,
    num_steps,
    num_heads,
    steps_per_frame,
    context,
    capacity,
    slot_stride,
    head_dim: tl.constexpr,
    padded_dim: tl.constexpr,
    num_queries: tl.constexpr,
    num_keys: tl.constexpr,
    num_splits: tl.constexpr,
    precision: tl.constexpr,
):
    """Attend and advance; a grid of (rows x heads, blocks of queries, splits)."""
    row = (tl.program_id(0) // num_heads).to(tl.int64)
    head = tl.program_id(0) % num_heads
    first_query, split = tl.program_id(1) * num_queries, tl.program_id(2)
    start = tl.load(starts + row) * steps_per_frame
    kept = (tl.load(num_frames + row) * steps_per_frame).to(tl.int32)
    past = tl.minimum(start, context - 1).to(tl.int32)  # steps before the chunk that it sees
    oldest = ((start - past) % capacity).to(tl.int32)  # the place of the first of them
    d = tl.arange(0, padded_dim)[None, :]
    query = first_query + tl.arange(0, num_queries)
    own_heads = heads + (row * num_steps * 3 * num_heads + head) * head_dim
    own_turns = turns + row * num_steps * head_dim
    ring = entries + tl.load(slots + row) * slot_stride + head * (capacity + 1) * head_dim
    values_ring = ring + num_heads * (capacity + 1) * head_dim

    # Queries, and nothing summed.
    query_at = (query * (3 * num_heads * head_dim))[:, None]
    in_query = (query < kept)[:, None] & (d < head_dim)
    queries = _turned(own_heads, own_turns, query_at, (query * head_dim)[:, None], d, in_query)
    queries = queries.to(entries.dtype.element_ty)
    summed = tl.zeros((num_queries, padded_dim), tl.float32)
    total = tl.zeros((num_queries,), tl.float32)
    most = tl.full((num_queries,), _NOTHING, tl.float32)

    # The past, from the ring: this program's part of it, none for queries that fill the chunk.
    begin = tl.maximum(past + first_query - context + 1, 0)
    end = tl.where(first_query < kept, past, 0)
    share = tl.cdiv(tl.cdiv(tl.maximum(end - begin, 0), num_keys), num_splits) * num_keys
    begin += split * share
    end = tl.minimum(end, begin + share)
    for index in range(begin, end, num_keys):
        key = index + tl.arange(0, num_keys)
        place = oldest + key
        place = tl.where(place < capacity, place, place - capacity)
        in_ring = (key < end)[:, None] & (d < head_dim)
        place_at = (place * head_dim)[:, None] + d
        keys = tl.load(ring + place_at, mask=in_ring, other=0.0)
        values = tl.load(values_ring + place_at, mask=in_ring, other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision=precision) * scale
        visible = (key < end)[None, :] & (past + query[:, None] - key[None, :] < context)
        summed, total, most = _seen(scores, visible, values, summed, total, most, precision)

    # The chunk itself, by the last split: each block is also written, by its own queries' program.
    new = tl.where(split == num_splits - 1, tl.minimum(kept, first_query + num_queries), 0)
    for index in tl.range(0, new, num_queries, num_stages=1):  # mostly one block
        key = index + tl.arange(0, num_queries)
        key_at = ((key * 3 + 1) * (num_heads * head_dim))[:, None]
        in_chunk = (key < kept)[:, None] & (d < head_dim)
        keys = _turned(own_heads, own_turns, key_at, (key * head_dim)[:, None], d, in_chunk)
        keys = keys.to(entries.dtype.element_ty)
        values = tl.load(own_heads + key_at + num_heads * head_dim + d, mask=in_chunk, other=0.0)
        values = values.to(entries.dtype.element_ty)
        place = oldest + past + key
        place = tl.where(place < capacity, place, place - capacity)
        written = in_chunk & (index == first_query)
        tl.store(ring + (place * head_dim)[:, None] + d, keys, mask=written)
        tl.store(values_ring + (place * head_dim)[:, None] + d, values, mask=written)
        scores = tl.dot(queries, tl.trans(keys), input_precision=precision) * scale
        distance = query[:, None] - key[None, :]
        visible = (key < kept)[None, :] & (distance >= 0) & (distance < context)
        summed, total, most = _seen(scores, visible, values, summed, total, most, precision)

    # Zeros for queries that see nothing: those that fill the chunk.
    in_out = query < num_steps
    out_at = ((split * num_rows + row) * num_steps + query) * num_heads + head
    if num_splits == 1:
        summed = summed / tl.maximum(total, _TINY)[:, None]
    else:
        size = num_rows * num_steps * num_heads
        sums_at = sums + out_at + split * size
        tl.store(sums_at, total, mask=in_out)
        tl.store(sums_at + size, most, mask=in_out)
    out_mask = in_out[:, None] & (d < head_dim)
    summed = summed.to(out.dtype.element_ty)
    tl.store(out + (out_at * head_dim)[:, None] + d, summed, mask=out_mask)


@triton.jit(do_not_specialize=["count"])
def join(
    parts,  # (splits, count, head_dim)
    sums,  # (splits, 2, count): totals and maxima
    out,  # (count, head_dim)
    count,
    head_dim: tl.constexpr,
    padded_dim: tl.constexpr,
    num_splits: tl.constexpr,
):
    """One result of the parts of `attend`; a grid of (count)."""
    index = tl.program_id(0)
    split, d = tl.arange(0, num_splits), tl.arange(0, padded_dim)
    total = tl.load(sums + split * 2 * count + index)
    most = tl.load(sums + (split * 2 + 1) * count + index)
    weight = tl.exp2(most - tl.max(most, 0))
    at = ((split * count + index) * head_dim)[:, None] + d[None, :]
    part = tl.load(parts + at, mask=(d < head_dim)[None, :], other=0.0)
    result = tl.sum(part * weight[:, None], 0) / tl.maximum(tl.sum(total * weight, 0), _TINY)
    tl.store(out + index * head_dim + d, result.to(out.dtype.element_ty), mask=d < head_dim)


@triton.jit
def normalize(
    x,  # (rows, width)
    weight,
    bias,
    out,  # (rows, width)
    epsilon,
    width: tl.constexpr,
    padded_width: tl.constexpr,
):
    """Layer norm in float32, rounded once to the type of `out`; a grid of (rows)."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, padded_width)
    inside = column < width
    values = tl.load(x + row * width + column, mask=inside, other=0.0)
    values = tl.where(inside, values - tl.sum(values, 0) / width, 0.0)
    values *= tl.rsqrt(tl.sum(values * values, 0) / width + epsilon)
    values = values * tl.load(weight + column, mask=inside, other=0.0)
    values += tl.load(bias + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, values.to(out.dtype.element_ty), mask=inside)
