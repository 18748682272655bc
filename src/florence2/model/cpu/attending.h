// Attention of the rows of one request, or of one row, to keys and values, for one head. A row's result does not depend on the other rows.
#pragma once

#include <algorithm>
#include <cmath>

#include "vectors.h"

namespace florence2 {

constexpr int BLOCK = 32;  // values of a head that are added up together; heads of other widths take the plain way

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

template <int width, typename Key>
inline Vector dot(const float* query, const Key* key) {
    Vector sum = {};
#pragma GCC unroll 8
    for (int d = 0; d < width; d += LANES) sum = fma(load(query + d), load(key + d), sum);
    return sum;
}

// Scores of all rows, four keys at a time.
template <int width, typename Key>
inline void score(const float* queries, int64_t query_stride, int64_t rows, const Memory<Key>& memory, float* scores) {
    for (int64_t t = 0; t < memory.length; t += 4) {
        const Key* keys[4];
        for (int64_t i = 0; i < 4; ++i) keys[i] = memory.keys + std::min(t + i, memory.length - 1) * memory.stride;
        for (int64_t row = 0; row < rows; ++row) {
            const float* query = queries + row * query_stride;
            float four[4];
            sum_four(dot<width>(query, keys[0]), dot<width>(query, keys[1]), dot<width>(query, keys[2]), dot<width>(query, keys[3]), four);
            std::copy_n(four, std::min<int64_t>(4, memory.length - t), scores + row * memory.length + t);
        }
    }
}

// Adds up 32 values of `rows` rows.
template <int rows, typename Key>
inline void mix(const float* scores, const Memory<Key>& memory, int first, float* out, int64_t out_stride) {
    constexpr int parts = BLOCK / LANES;
    Vector sums[rows][parts] = {};
    for (int64_t t = 0; t < memory.length; ++t) {
        Vector values[parts];
#pragma GCC unroll 8
        for (int part = 0; part < parts; ++part) values[part] = load(memory.values + t * memory.stride + first + part * LANES);
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
            Vector weight = broadcast(scores[row * memory.length + t]);
#pragma GCC unroll 8
            for (int part = 0; part < parts; ++part) sums[row][part] = fma(values[part], weight, sums[row][part]);
        }
    }
    for (int row = 0; row < rows; ++row)
        for (int part = 0; part < parts; ++part) store(out + row * out_stride + first + part * LANES, sums[row][part]);
}

template <int width, typename Key>
inline void attend_in_vectors(const float* queries, int64_t query_stride, int64_t rows, const Memory<Key>& memory, float* scores, float* out,
                              int64_t out_stride) {
    score<width>(queries, query_stride, rows, memory, scores);
    for (int64_t row = 0; row < rows; ++row) normalise(scores + row * memory.length, memory.length, 1.0f / std::sqrt(float(width)));
    for (int64_t row = 0; row < rows; row += 3) {
        const float* own = scores + row * memory.length;
        for (int first = 0; first < width; first += BLOCK) {
            float* target = out + row * out_stride;
            if (rows - row >= 3) mix<3>(own, memory, first, target, out_stride);
            if (rows - row == 2) mix<2>(own, memory, first, target, out_stride);
            if (rows - row == 1) mix<1>(own, memory, first, target, out_stride);
        }
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
