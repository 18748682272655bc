// Attention of the rows of one request, or of one row, to keys and values, for one head. A row's result does not depend on the other rows.
#pragma once

#include <algorithm>
#include <cmath>

#include "vectors.h"

namespace florence2 {

constexpr int BLOCK = 32;       // values of a head that several rows add up together; heads of other widths take the plain way
constexpr int KEYS = 4;         // that are scored together
constexpr int TOGETHER = 3;     // rows: so many sums, of four keys or of a block, as there are registers for
constexpr int KEYS_AHEAD = 16;  // that are asked for before they are needed

// `length` keys and values of one head; `stride` elements from one to the next.
template <typename Key>
struct Memory {
    const Key* keys;
    const Key* values;
    int64_t stride, length;
};

// Replaces scores, multiplied by `scale`, by their softmax.
__attribute__((noinline)) inline void normalise(float* scores, int64_t length, float scale) {
    float largest = scores[0];
    for (int64_t i = 1; i < length; ++i) largest = scores[i] > largest ? scores[i] : largest;
    const int64_t whole = length / LANES * LANES;
    Vector sums = {};
    for (int64_t i = 0; i < whole; i += LANES) {
        Vector weight = exp_negative((load(scores + i) - largest) * scale);
        store(scores + i, weight);
        sums = sums + weight;
    }
    float rest[LANES] = {}, four[4], sum = 0;
    for (int64_t i = whole; i < length; ++i) rest[i - whole] = scores[i];
    store(rest, exp_negative((load(rest) - largest) * scale));
    for (int64_t i = whole; i < length; ++i) sum += scores[i] = rest[i - whole];
    sum_four(sums, sums, sums, sums, four);
    const float factor = 1.0f / (sum + four[0]);
    for (int64_t i = 0; i < length; ++i) scores[i] *= factor;
}

// Asks for what `count` values later on will be read.
template <int count, typename Key>
inline void ask_for(const Key* from) {
    for (size_t byte = 0; byte < count * sizeof(Key); byte += 64) __builtin_prefetch(reinterpret_cast<const char*>(from) + byte);
}

// Scores of `rows` rows, four keys at a time. Each key is read and widened once for all rows.
template <int width, int rows, typename Key>
inline void score(const float* queries, int64_t query_stride, const Memory<Key>& memory, float* scores) {
    for (int64_t t = 0; t < memory.length; t += KEYS) {
        const Key* keys[KEYS];
        for (int64_t i = 0; i < KEYS; ++i) {
            keys[i] = memory.keys + std::min(t + i, memory.length - 1) * memory.stride;
            ask_for<width>(keys[i] + KEYS_AHEAD * memory.stride);
        }
        Vector sums[rows][KEYS] = {};
#pragma GCC unroll 8
        for (int d = 0; d < width; d += LANES) {
            Vector values[rows];
#pragma GCC unroll 8
            for (int row = 0; row < rows; ++row) values[row] = load(queries + row * query_stride + d);
#pragma GCC unroll 8
            for (int i = 0; i < KEYS; ++i) {
                Vector key = load(keys[i] + d);
                keep(key);
#pragma GCC unroll 8
                for (int row = 0; row < rows; ++row) sums[row][i] = fma(values[row], key, sums[row][i]);
            }
        }
        for (int row = 0; row < rows; ++row) {
            float four[KEYS], *target = scores + row * memory.length + t;
            sum_four(sums[row][0], sums[row][1], sums[row][2], sums[row][3], four);
            if (t + KEYS <= memory.length)
                std::memcpy(target, four, sizeof four);
            else
                std::copy_n(four, memory.length - t, target);
        }
    }
}

// Adds up `count` values, from `first` on, of `rows` rows. Each is read and widened once for all rows.
template <int count, int rows, typename Key>
inline void mix(const float* scores, const Memory<Key>& memory, int first, float* out, int64_t out_stride) {
    constexpr int parts = count / LANES;
    Vector sums[rows][parts] = {};
    for (int64_t t = 0; t < memory.length; ++t) {
        const Key* from = memory.values + t * memory.stride + first;
        ask_for<count>(from + KEYS_AHEAD * memory.stride);
        Vector weights[rows];
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) weights[row] = broadcast(scores[row * memory.length + t]);
#pragma GCC unroll 16
        for (int part = 0; part < parts; ++part) {
            Vector value = load(from + part * LANES);
            keep(value);
#pragma GCC unroll 8
            for (int row = 0; row < rows; ++row) sums[row][part] = fma(value, weights[row], sums[row][part]);
        }
    }
    for (int row = 0; row < rows; ++row)
        for (int part = 0; part < parts; ++part) store(out + row * out_stride + first + part * LANES, sums[row][part]);
}

template <int width, int rows, typename Key>
inline void attend_together(const float* queries, int64_t query_stride, const Memory<Key>& memory, float* scores, float* out, int64_t out_stride) {
    constexpr int count = rows == 1 ? width : BLOCK;
    score<width, rows>(queries, query_stride, memory, scores);
    for (int row = 0; row < rows; ++row) normalise(scores + row * memory.length, memory.length, 1.0f / std::sqrt(float(width)));
    for (int first = 0; first < width; first += count) mix<count, rows>(scores, memory, first, out, out_stride);
}

template <int width, typename Key>
inline void attend_in_vectors(const float* queries, int64_t query_stride, int64_t rows, const Memory<Key>& memory, float* scores, float* out,
                              int64_t out_stride) {
    for (int64_t row = 0; row < rows; row += TOGETHER) {
        const float* query = queries + row * query_stride;
        float* target = out + row * out_stride;
        if (rows - row >= 3) attend_together<width, 3>(query, query_stride, memory, scores, target, out_stride);
        if (rows - row == 2) attend_together<width, 2>(query, query_stride, memory, scores, target, out_stride);
        if (rows - row == 1) attend_together<width, 1>(query, query_stride, memory, scores, target, out_stride);
    }
}

template <typename Key>
inline void attend_plainly(int64_t width, const float* queries, int64_t query_stride, int64_t rows, const Memory<Key>& memory, float* scores,
                           float* out, int64_t out_stride) {
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t t = 0; t < memory.length; ++t) {
            float sum = 0;
            for (int64_t d = 0; d < width; ++d) sum += queries[row * query_stride + d] * to_float(memory.keys[t * memory.stride + d]);
            scores[t] = sum;
        }
        normalise(scores, memory.length, 1.0f / std::sqrt(float(width)));
        float* target = out + row * out_stride;
        std::fill_n(target, width, 0.0f);
        for (int64_t t = 0; t < memory.length; ++t)
            for (int64_t d = 0; d < width; ++d) target[d] += scores[t] * to_float(memory.values[t * memory.stride + d]);
    }
}

// `scores` has room for `rows` times `memory.length`.
template <typename Key>
inline void attend_rows(int64_t width, const float* queries, int64_t query_stride, int64_t rows, const Memory<Key>& memory, float* scores, float* out,
                        int64_t out_stride) {
    if (width == 64) return attend_in_vectors<64>(queries, query_stride, rows, memory, scores, out, out_stride);
    if (width == 32) return attend_in_vectors<32>(queries, query_stride, rows, memory, scores, out, out_stride);
    attend_plainly(width, queries, query_stride, rows, memory, scores, out, out_stride);
}

}  // namespace florence2
