// Rows as whole numbers of 15 bits, which products with weights of 8 bits are made of.
#pragma once

#include <algorithm>

#include "vectors.h"

namespace florence2 {

constexpr int32_t TOP = 16383;  // the largest level

// The levels of a row's values; returns what one level stands for, which is no number if the row has a value that is none.
inline float round_row(const float* row, int64_t length, int16_t* levels) {
    // Sizes of floats are ordered as their bits are, with what is no number above all others.
    Integers sizes = {};
    const int64_t whole = length / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        const Integers size = (Integers)load(row + i) & 0x7fffffff;
        sizes = size > sizes ? size : sizes;
    }
    float rest[LANES] = {};
    std::copy_n(row + whole, length - whole, rest);
    const Integers last = (Integers)load(rest) & 0x7fffffff;
    int32_t bits = 0;
    for (int lane = 0; lane < LANES; ++lane) bits = std::max({bits, sizes[lane], last[lane]});
    const float largest = of_bits(bits);
    const float scale = largest > 1e-30f ? largest / TOP : 1e-30f, inverse = 1 / scale;
    auto level_of = [&](float value) { return int16_t(value * inverse + (value < 0 ? -0.5f : 0.5f)); };
    for (int64_t i = 0; i < length; ++i) levels[i] = level_of(row[i]);
    if (bits < int32_t(INFINITE)) return scale;
    std::fill_n(levels, length, int16_t(0));
    return of_bits(NO_NUMBER);
}

}  // namespace florence2
