// Vectors of floats, as wide as the processor's: 16 with AVX-512, 8 with AVX2, else 4, which every compiler has. Whatever their width, a sum
// that is built by `fma` adds its terms in the order of the source: no compiler flag reorders it.
#pragma once

#include <cstdint>
#include <cstring>

#include "sixteen_bits.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

namespace florence2 {

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int LANES = 8, REGISTERS = 16;
#else
constexpr int LANES = 4, REGISTERS = 32;
#endif

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef int16_t Pairs __attribute__((vector_size(4 * LANES)));

// The compiler is promised that no value is infinite or not a number, and would leave out comparisons with one: they are told by their bits.
constexpr uint32_t INFINITE = 0x7f800000u, MINUS_INFINITE = 0xff800000u, NO_NUMBER = 0x7fc00000u;

inline float of_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline Vector broadcast(float value) { return value - Vector{}; }

inline Vector load(const float* source) {
    Vector out;
    std::memcpy(&out, source, sizeof out);
    return out;
}

inline void store(float* target, Vector value) { std::memcpy(target, &value, sizeof value); }

inline void store(bf16* target, Vector value) {  // as `put` rounds
    typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
    const Bits bits = (Bits)value;
    const Halves out = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
    std::memcpy(target, &out, sizeof out);
}

inline Vector load(const bf16* source) {
#if defined(__AVX512F__)
    return (Vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source))), 16);
#elif defined(__AVX2__) && defined(__FMA__)
    return (Vector)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))), 16);
#else
    Vector out;
    for (int i = 0; i < LANES; ++i) out[i] = to_float(source[i]);
    return out;
#endif
}

inline Vector load(const half* source) {
#if defined(__AVX512F__)
    return (Vector)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
    return (Vector)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
#else
    Vector out;
    for (int i = 0; i < LANES; ++i) out[i] = to_float(source[i]);
    return out;
#endif
}

// Two values of 16 bits for each lane of a vector, of values that lie side by side.
inline Pairs load_pairs(const int16_t* source) {
    Pairs out;
    std::memcpy(&out, source, sizeof out);
    return out;
}

inline Pairs load_pairs(const int8_t* source) {
#if defined(__AVX512BW__)
    return (Pairs)_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
#elif defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)
    return (Pairs)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
#else
    Pairs out;
    for (int i = 0; i < 2 * LANES; ++i) out[i] = source[i];
    return out;
#endif
}

inline Pairs broadcast_pair(const int16_t* source) {
    int32_t both;
    std::memcpy(&both, source, sizeof both);
    return (Pairs)(both - Integers{});
}

// The sum, and the products of both values of each lane.
inline Integers add_products(Pairs a, Pairs b, Integers sum) {
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
    return (Integers)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sum + (Integers)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)
    return sum + (Integers)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    const Integers first = (Integers)a << 16 >> 16, second = (Integers)a >> 16;
    return sum + first * ((Integers)b << 16 >> 16) + second * ((Integers)b >> 16);
#endif
}

// a * b + c
inline Vector fma(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
    return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

// Has a value that was loaded stay in a register: several multiply-adds that each load it again would wait for the load ports.
template <typename Value>
inline void keep([[maybe_unused]] Value& value) {
#if defined(__AVX512F__)
    asm("" : "+v"(value));
#elif defined(__AVX2__) && defined(__FMA__)
    asm("" : "+x"(value));
#endif
}

// The sums of four vectors.
inline void sum_four(Vector a, Vector b, Vector c, Vector d, float* out) {
#if defined(__AVX2__) && defined(__FMA__)
#if defined(__AVX512F__)
    auto halved = [](Vector value) {
        __m512 whole = (__m512)value;
        return _mm256_add_ps(_mm512_castps512_ps256(whole), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(whole), 1)));
    };
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(halved(a), halved(b)), _mm256_hadd_ps(halved(c), halved(d)));
#else
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps((__m256)a, (__m256)b), _mm256_hadd_ps((__m256)c, (__m256)d));
#endif
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
    const Vector values[4] = {a, b, c, d};
    for (int i = 0; i < 4; ++i) {
        float sum = 0;
        for (int lane = 0; lane < LANES; ++lane) sum += values[i][lane];
        out[i] = sum;
    }
#endif
}

// e to the power of x for x <= 0, within 2 ulp, and no less than 2 to the power of -126. 2^n by the exponent's bits, 2^f by its series for |f| <= 1/2.
inline Vector exp_negative(Vector x) {
    Vector y = x * 1.44269504f;
    y = y > -126.0f ? y : broadcast(-126.0f);
    Integers n = __builtin_convertvector(y - 0.5f, Integers);
    Vector f = y - __builtin_convertvector(n, Vector);
    Vector p = broadcast(1.54035304e-4f);
    p = fma(p, f, broadcast(1.33335581e-3f));
    p = fma(p, f, broadcast(9.61812911e-3f));
    p = fma(p, f, broadcast(5.55041087e-2f));
    p = fma(p, f, broadcast(2.40226507e-1f));
    p = fma(p, f, broadcast(6.93147181e-1f));
    p = fma(p, f, broadcast(1.0f));
    return p * (Vector)((n + 127) << 23);
}

// GELU by the error function, which is within 2e-7 of the exact one.
// Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
inline Vector gelu(Vector x) {
    Vector z = x * 0.70710678f;
    Vector size = z < 0.0f ? -z : z;
    Vector t = 1.0f / fma(size, broadcast(0.3275911f), broadcast(1.0f));
    Vector p = broadcast(1.061405429f);
    p = fma(p, t, broadcast(-1.453152027f));
    p = fma(p, t, broadcast(1.421413741f));
    p = fma(p, t, broadcast(-0.284496736f));
    p = fma(p, t, broadcast(0.254829592f));
    Vector missing = p * t * exp_negative(-z * z);  // 1 - erf(size)
    return 0.5f * x * (z < 0.0f ? missing : 2.0f - missing);
}

}  // namespace florence2
