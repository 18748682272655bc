"""Kernels of a decoder step of few rows, in Triton, which comes with PyTorch for NVIDIA GPUs.

Such a step reads every weight once and computes little with it, so each kernel does as much as it can on the way: norms are computed where
their result is read, by every program anew, since a row is a few kilobytes and starting one more kernel costs more. Between kernels rows
are float32, and they are kept before their norm.

Pointers come as tensors, of which the kernels see the first element; strides count elements.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

# Triton's decorators have no types.
jit: Any = triton.jit


@jit
def normalise(values, is_valid, weight, bias, width, epsilon):
    """Layer norm of one row."""
    mean = tl.sum(values, 0) / width
    centred = tl.where(is_valid, values - mean, 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 0) / width + epsilon) * weight + bias


# Inputs of a recorded step lie behind each other, so that their addresses are of any alignment: kernels are not compiled for each.
@jit(do_not_specialize_on_alignment=["tokens", "positions"])
def embed(tokens, positions, table, position_table, out, scale, width, BLOCK: tl.constexpr):
    """Rows of the embedded tokens, with their positions' embeddings added: before the norm. ``position_table`` begins with position 0."""
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    token, position = tl.load(tokens + row), tl.load(positions + row)
    embedded = tl.load(table + token * width + columns, mask=mask, other=0.0).to(tl.float32) * scale
    placed = tl.load(position_table + position * width + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * width + columns, embedded + placed, mask=mask)


@jit(do_not_specialize=["rows"])
def project(
    given,
    given_weight,
    given_bias,
    weight,
    bias,
    residual,
    residual_weight,
    residual_bias,
    out,
    rows,
    width,
    outputs,
    epsilon,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_RESIDUAL: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_GELU: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
):
    """A linear layer: of ``given``, normalised before if ``HAS_NORM``; GELU of it, or added to ``residual``, which is normalised before.

    A program computes ``BLOCK_OUT`` outputs of all rows, whose weights it reads once. ``BLOCK_IN`` and ``BLOCK_RESIDUAL`` hold a row of
    each.
    """
    columns = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    is_column = columns < outputs
    inputs = tl.arange(0, BLOCK_IN)
    is_input = inputs < width
    weights = tl.load(weight + columns[:, None] * width + inputs[None, :], mask=is_column[:, None] & is_input[None, :], other=0.0)
    weights = weights.to(tl.float32)
    for row in range(rows):
        values = tl.load(given + row * width + inputs, mask=is_input, other=0.0)
        if HAS_NORM:
            norm_weight = tl.load(given_weight + inputs, mask=is_input, other=0.0).to(tl.float32)
            norm_bias = tl.load(given_bias + inputs, mask=is_input, other=0.0).to(tl.float32)
            values = normalise(values, is_input, norm_weight, norm_bias, width, epsilon)
        sums = tl.sum(weights * values[None, :], axis=1)
        if HAS_BIAS:
            sums += tl.load(bias + columns, mask=is_column, other=0.0).to(tl.float32)
        if HAS_GELU:
            sums = 0.5 * sums * (1.0 + tl.erf(sums * 0.7071067811865476))
        if HAS_RESIDUAL:
            others = tl.arange(0, BLOCK_RESIDUAL)
            is_other = others < outputs
            row_values = tl.load(residual + row * outputs + others, mask=is_other, other=0.0)
            mean = tl.sum(row_values, 0) / outputs
            centred = tl.where(is_other, row_values - mean, 0.0)
            scale = tl.rsqrt(tl.sum(centred * centred, 0) / outputs + epsilon)
            own = tl.load(residual + row * outputs + columns, mask=is_column, other=0.0)
            norm_weight = tl.load(residual_weight + columns, mask=is_column, other=0.0).to(tl.float32)
            norm_bias = tl.load(residual_bias + columns, mask=is_column, other=0.0).to(tl.float32)
            sums += (own - mean) * scale * norm_weight + norm_bias
        tl.store(out + row * outputs + columns, sums, mask=is_column)


@jit(do_not_specialize_on_alignment=["positions"])
def attend_to_own(
    projected,
    keys,
    values,
    positions,
    out,
    heads,
    row_stride,
    position_stride,
    scale,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Self attention of one row and head, whose new key and value are stored behind the earlier ones."""
    row, head = tl.program_id(0), tl.program_id(1)
    lanes = tl.arange(0, WIDTH)
    total_width = heads * WIDTH
    own = projected + row * 3 * total_width + head * WIDTH + lanes
    query = tl.load(own) * scale
    new_key = tl.load(own + total_width).to(keys.dtype.element_ty)
    new_value = tl.load(own + 2 * total_width).to(values.dtype.element_ty)
    position = tl.load(positions + row).to(tl.int32)
    first = row * row_stride + head * WIDTH
    tl.store(keys + first + position * position_stride + lanes, new_key)
    tl.store(values + first + position * position_stride + lanes, new_value)
    # The softmax goes on from the new key, with the largest score so far; the weight of that key is 1.
    largest = tl.sum(query * new_key.to(tl.float32), 0)
    mixed = new_value.to(tl.float32)
    total = tl.sum(tl.where(lanes == 0, 1.0, 0.0), 0)
    for start in range(0, position, BLOCK):
        at = start + tl.arange(0, BLOCK)
        is_key = at < position
        places = first + at[:, None] * position_stride + lanes[None, :]
        block = tl.load(keys + places, mask=is_key[:, None], other=0.0).to(tl.float32)
        scores = tl.where(is_key, tl.sum(block * query[None, :], axis=1), -float("inf"))
        larger = tl.maximum(largest, tl.max(scores, 0))
        weights, shrunk = tl.exp(scores - larger), tl.exp(largest - larger)
        block = tl.load(values + places, mask=is_key[:, None], other=0.0).to(tl.float32)
        total = total * shrunk + tl.sum(weights, 0)
        mixed = mixed * shrunk + tl.sum(block * weights[:, None], axis=0)
        largest = larger
    tl.store(out + row * total_width + head * WIDTH + lanes, mixed / total)


@jit(do_not_specialize_on_alignment=["sources", "query_of_row"])
def attend_to_prompt(
    query,
    keys,
    values,
    sources,
    query_of_row,
    parts,
    numbers,
    heads,
    beams,
    slot_stride,
    head_stride,
    scale,
    IN_ORDER: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cross attention of one row and head to ``BLOCK`` keys and values of its request's prompt, which lie behind each other.

    One program would wait for memory again and again, and few rows are few programs. ``join_parts`` adds what each of them gives: values
    that are weighted by the part's own softmax without its sum, and, in ``numbers``, the largest score and the sum.
    """
    row, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    lanes = tl.arange(0, WIDTH)
    if IN_ORDER:  # noqa: SIM108 (the compiler leaves out the other branch)
        slot = row // beams
    else:
        slot = tl.load(query_of_row + row).to(tl.int32) // beams
    at = part * BLOCK + tl.arange(0, BLOCK)
    is_key = at < tl.load(sources + slot).to(tl.int32)
    places = slot * slot_stride + head * head_stride + at[:, None] * WIDTH + lanes[None, :]
    block = tl.load(keys + places, mask=is_key[:, None], other=0.0).to(tl.float32)
    weighted = tl.load(values + places, mask=is_key[:, None], other=0.0).to(tl.float32)
    asked = tl.load(query + (row * heads + head) * WIDTH + lanes) * scale
    scores = tl.where(is_key, tl.sum(block * asked[None, :], axis=1), -float("inf"))
    largest = tl.maximum(tl.max(scores, 0), -1e30)  # a part without keys has a number, too
    weights = tl.exp(scores - largest)
    own = (row * heads + head) * tl.num_programs(2) + part
    tl.store(parts + own * WIDTH + lanes, tl.sum(weighted * weights[:, None], axis=0))
    tl.store(numbers + 2 * own, largest)
    tl.store(numbers + 2 * own + 1, tl.sum(weights, 0))


@jit
def join_parts(parts, numbers, out, heads, num_parts, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """What one row and head mix of all values, out of what the parts of a prompt give; parts without keys count nothing."""
    own = tl.program_id(0) * heads + tl.program_id(1)
    lanes, part = tl.arange(0, WIDTH), tl.arange(0, PARTS)
    is_part = part < num_parts
    largest = tl.load(numbers + 2 * (own * num_parts + part), mask=is_part, other=-float("inf"))
    totals = tl.load(numbers + 2 * (own * num_parts + part) + 1, mask=is_part, other=0.0)
    places = (own * num_parts + part[:, None]) * WIDTH + lanes[None, :]
    mixed = tl.load(parts + places, mask=is_part[:, None], other=0.0)
    weights = tl.exp(largest - tl.max(largest, 0))
    tl.store(out + own * WIDTH + lanes, tl.sum(mixed * weights[:, None], axis=0) / tl.sum(totals * weights, 0))


@jit
def rank_chunk(logits, best, tokens, largest, sums, vocabulary, chunks, COUNT: tl.constexpr, CHUNK: tl.constexpr):
    """The ``COUNT`` largest logits of one chunk of a row, best first, and what its part of the softmax adds up to."""
    row, chunk = tl.program_id(0), tl.program_id(1)
    at = chunk * CHUNK + tl.arange(0, CHUNK)
    is_token = at < vocabulary
    values = tl.load(logits + row * vocabulary + at, mask=is_token, other=-float("inf"))
    top = tl.max(values, 0)
    tl.store(largest + row * chunks + chunk, top)
    tl.store(sums + row * chunks + chunk, tl.sum(tl.where(is_token, tl.exp(values - top), 0.0), 0))
    first = (row * chunks + chunk) * COUNT
    for place in range(COUNT):
        index = chunk * CHUNK + tl.argmax(values, 0)
        tl.store(best + first + place, tl.max(values, 0))
        tl.store(tokens + first + place, index)
        values = tl.where(at == index, -float("inf"), values)


@jit
def rank_row(
    logits,
    best,
    tokens,
    largest,
    sums,
    forced,
    out,
    vocabulary,
    chunks,
    num_forced,
    COUNT: tl.constexpr,
    CHUNKS: tl.constexpr,
    CANDIDATES: tl.constexpr,
):
    """The ``COUNT`` best tokens of a row out of those of its chunks, and their log-probabilities and those of ``forced``, as bits."""
    row = tl.program_id(0)
    chunk = tl.arange(0, CHUNKS)
    is_chunk = chunk < chunks
    tops = tl.load(largest + row * chunks + chunk, mask=is_chunk, other=-float("inf"))
    parts = tl.load(sums + row * chunks + chunk, mask=is_chunk, other=0.0)
    top = tl.max(tops, 0)
    normaliser = top + tl.log(tl.sum(tl.where(is_chunk, parts * tl.exp(tops - top), 0.0), 0))
    at = tl.arange(0, CANDIDATES)
    first = row * chunks * COUNT
    values = tl.load(best + first + at, mask=at < chunks * COUNT, other=-float("inf"))
    result = out + row * (2 * COUNT + num_forced)
    for place in range(COUNT):
        index = tl.argmax(values, 0)
        # Of values that are no numbers the index may be any.
        tl.store(result + place, tl.load(tokens + first + index, mask=index < chunks * COUNT, other=0))
        tl.store(result + COUNT + place, (tl.max(values, 0) - normaliser).to(tl.int32, bitcast=True))
        values = tl.where(at == index, -float("inf"), values)
    for number in range(num_forced):
        value = tl.load(logits + row * vocabulary + tl.load(forced + number))
        tl.store(result + 2 * COUNT + number, (value - normaliser).to(tl.int32, bitcast=True))
