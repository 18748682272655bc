// Layer norm of a row.
#pragma once

#include <cmath>

#include "vectors.h"

namespace florence2 {

struct Norm {
    const float* weight;  // null: no norm
    const float* bias;
    float epsilon;
};

// Calls `whole` with the number of each value at which a whole vector begins, and `single` with each of the rest.
template <typename Whole, typename Single>
inline void for_each(int64_t width, Whole whole, Single single) {
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) whole(i);
    for (; i < width; ++i) single(i);
}

inline float total(Vector value) {
    float out = 0;
    for (int lane = 0; lane < LANES; ++lane) out += value[lane];
    return out;
}

// `out` may be `row` itself.
inline void normalise_row(const float* row, int64_t width, const Norm& norm, float* out) {
    Vector sums = broadcast(0);
    float sum = 0, squares = 0;
    for_each(width, [&](int64_t i) { sums += load(row + i); }, [&](int64_t i) { sum += row[i]; });
    const float mean = (sum + total(sums)) / width;
    sums = broadcast(0);
    for_each(
        width,
        [&](int64_t i) {
            const Vector off = load(row + i) - mean;
            sums = fma(off, off, sums);
        },
        [&](int64_t i) { squares += (row[i] - mean) * (row[i] - mean); });
    const float factor = 1.0f / std::sqrt((squares + total(sums)) / width + norm.epsilon);
    for_each(
        width, [&](int64_t i) { store(out + i, fma((load(row + i) - mean) * factor, load(norm.weight + i), load(norm.bias + i))); },
        [&](int64_t i) { out[i] = (row[i] - mean) * factor * norm.weight[i] + norm.bias[i]; });
}

}  // namespace florence2
