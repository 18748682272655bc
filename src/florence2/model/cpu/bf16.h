// bfloat16 as its 16 bits, and floats beside it: what both kinds of values are read and written by.
#pragma once

#include <cstdint>
#include <cstring>

namespace florence2 {

using bf16 = uint16_t;

inline float to_float(float value) { return value; }
inline float to_float(bf16 value) {
    uint32_t bits = uint32_t(value) << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}

inline void put(float* target, float value) { *target = value; }
inline void put(bf16* target, float value) {  // rounds to nearest, ties to even; NaN stays NaN because its low bits are never all ones
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    *target = bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace florence2
