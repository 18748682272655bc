// Weights that lie as they are stored, in any floating-point type, and their products with one row of values.
#pragma once

#include "vectors.h"

namespace florence2 {

enum StoredType : int32_t { STORED_FLOAT, STORED_BF16, STORED_HALF };

// Calls with the weights in their type.
template <typename Call>
inline auto with_stored(const void* weights, StoredType type, Call call) {
    switch (type) {
        case STORED_FLOAT: return call(static_cast<const float*>(weights));
        case STORED_BF16: return call(static_cast<const bf16*>(weights));
        default: return call(static_cast<const half*>(weights));
    }
}

template <typename Weight>
inline float dot(const Weight* weights, const float* values, int64_t width) {
    Vector sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * LANES <= width; i += 4 * LANES)
        for (int part = 0; part < 4; ++part) sums[part] = fma(load(weights + i + part * LANES), load(values + i + part * LANES), sums[part]);
    float parts[4], rest = 0;
    sum_four(sums[0], sums[1], sums[2], sums[3], parts);
    for (; i < width; ++i) rest += to_float(weights[i]) * values[i];
    return (parts[0] + parts[1]) + (parts[2] + parts[3]) + rest;
}

}  // namespace florence2
