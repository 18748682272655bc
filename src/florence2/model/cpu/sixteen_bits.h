// The floating-point types of 16 bits, and float beside them: what all kinds of values are read and written by.
#pragma once

#include <cstdint>
#include <cstring>

namespace florence2 {

using bf16 = uint16_t;
struct half {
    uint16_t bits;
};

inline float to_float(float value) { return value; }
inline float to_float(bf16 value) {
    uint32_t bits = uint32_t(value) << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}

inline float to_float(half value) {
    const uint32_t sign = uint32_t(value.bits & 0x8000) << 16, rest = uint32_t(value.bits & 0x7fff) << 13;
    uint32_t bits = rest >= 0x0f800000 ? rest + 0x70000000 : rest;  // infinite or no number, whose exponent is all ones in both types
    float out;
    std::memcpy(&out, &bits, 4);
    if (rest < 0x0f800000) out *= 5.192296858534828e33f;  // 2^112 between the exponents' zeros; small numbers without one come out right too
    std::memcpy(&bits, &out, 4);
    bits |= sign;
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
