// Rows of values as 8-bit levels, and what layers in 8 bits do between their products: norm, bias, GELU and residual, each row read once.
// A row has levels of its own: value = low + level * scale. quantized.py has the counterpart in plain PyTorch.

#include <algorithm>
#include <cmath>
#include <vector>

#include "norms.h"

namespace {

using namespace florence2;

// With fewer values than this, one thread is done before a second one has started.
constexpr int64_t SMALL = 1 << 14;

// Rows of levels [rows, width]; `scales` and `lows` have one value a row.
struct Levels {
    uint8_t* levels;
    float* scales;
    float* lows;
    int32_t top;  // the highest level
};

// What makes values of a product's sums [rows, width]: sum * scales[row] + lows[row] * weight_sums[column] + bias[column], and GELU of that.
struct Sums {
    const float* sums;
    const float* scales;
    const float* lows;
    const float* weight_sums;
    const float* bias;  // may be null
    bool has_gelu;
};

// Rows of a tensor of any strides, counted as if it were contiguous; the last dimension, `width` values, is.
struct Rows {
    const int64_t* sizes;
    const int64_t* strides;
    int64_t dimensions;

    int64_t count() const {
        int64_t out = 1;
        for (int64_t i = 0; i < dimensions; ++i) out *= sizes[i];
        return out;
    }

    int64_t offset(int64_t number) const {
        int64_t out = 0;
        for (int64_t i = dimensions - 1; i >= 0; --i) {
            out += number % sizes[i] * strides[i];
            number /= sizes[i];
        }
        return out;
    }
};

// GELU within 4e-5 and 4e-6 of the value, which is far below a step of 8 bits: x * (1/2 + y * P(y * y)), where y is x within the range in which
// the polynomial was fitted, by iteratively reweighted least squares, to the normal distribution's function. A third of the work of `gelu`.
inline Vector rough_gelu(Vector x) {
    constexpr float END = 4.25f;
    Vector y = x < END ? x : broadcast(END);
    y = y > -END ? y : broadcast(-END);
    const Vector square = y * y;
    Vector p = broadcast(4.5470780e-11f);
    p = fma(p, square, broadcast(-4.5153077e-9f));
    p = fma(p, square, broadcast(1.9861602e-7f));
    p = fma(p, square, broadcast(-5.1475158e-6f));
    p = fma(p, square, broadcast(8.8489163e-5f));
    p = fma(p, square, broadcast(-1.0790781e-3f));
    p = fma(p, square, broadcast(9.7187795e-3f));
    p = fma(p, square, broadcast(-6.6190280e-2f));
    p = fma(p, square, broadcast(3.9881921e-1f));
    return x * fma(y, p, broadcast(0.5f));
}

inline float lowest(Vector value) {
    float out = value[0];
    for (int lane = 1; lane < LANES; ++lane) out = value[lane] < out ? value[lane] : out;
    return out;
}

inline float highest(Vector value) {
    float out = value[0];
    for (int lane = 1; lane < LANES; ++lane) out = value[lane] > out ? value[lane] : out;
    return out;
}

inline void store_levels(uint8_t* target, Integers levels) {
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm512_cvtepi32_epi8((__m512i)levels));
#elif defined(__AVX2__) && defined(__FMA__)
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)levels), _mm256_extracti128_si256((__m256i)levels, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(target), _mm_packus_epi16(words, words));
#else
    for (int lane = 0; lane < LANES; ++lane) target[lane] = uint8_t(levels[lane]);
#endif
}

inline void quantize(const float* row, int64_t width, const Levels& out, int64_t number) {
    Vector low_lanes = broadcast(row[0]), high_lanes = low_lanes;
    float low = row[0], high = row[0];
    for_each(
        width,
        [&](int64_t i) {
            const Vector value = load(row + i);
            low_lanes = value < low_lanes ? value : low_lanes;
            high_lanes = value > high_lanes ? value : high_lanes;
        },
        [&](int64_t i) {
            low = row[i] < low ? row[i] : low;
            high = row[i] > high ? row[i] : high;
        });
    low = std::min(low, lowest(low_lanes));
    high = std::max(high, highest(high_lanes));
    float step = (high - low) / out.top;
    step = step > 1e-30f ? step : 1e-30f;
    const float inverse = 1.0f / step, start = 0.5f - low * inverse, top = float(out.top);
    uint8_t* levels = out.levels + number * width;
    for_each(
        width,
        [&](int64_t i) {
            Vector level = fma(load(row + i), broadcast(inverse), broadcast(start));
            level = level > 0.0f ? level : broadcast(0);
            level = level < top ? level : broadcast(top);
            store_levels(levels + i, __builtin_convertvector(level, Integers));
        },
        [&](int64_t i) {
            float level = row[i] * inverse + start;
            level = level > 0 ? level : 0;
            levels[i] = uint8_t(int32_t(level < top ? level : top));
        });
    out.scales[number] = step;
    out.lows[number] = low;
}

// A row's values, of its sums.
inline void finish(const Sums& from, int64_t number, int64_t width, float* row) {
    const float* sums = from.sums + number * width;
    const float scale = from.scales[number], low = from.lows[number];
    for_each(
        width,
        [&](int64_t i) {
            Vector value = fma(broadcast(low), load(from.weight_sums + i), from.bias ? load(from.bias + i) : broadcast(0));
            value = fma(load(sums + i), broadcast(scale), value);
            store(row + i, from.has_gelu ? rough_gelu(value) : value);
        },
        [&](int64_t i) {
            const float value = sums[i] * scale + low * from.weight_sums[i] + (from.bias ? from.bias[i] : 0);
            row[i] = from.has_gelu ? rough_gelu(broadcast(value))[0] : value;
        });
}

// Calls `work` with the number of each row and memory for a row, on all threads.
template <typename Work>
void for_each_row(int64_t rows, int64_t width, int threads, Work work) {
#pragma omp parallel num_threads(threads) if (rows * width > SMALL)
    {
        std::vector<float> row(width);
#pragma omp for schedule(static)
        for (int64_t number = 0; number < rows; ++number) work(number, row.data());
    }
}

template <typename Value>
void quantize_rows(const Value* values, const Rows& rows, int64_t width, const Norm& norm, const Levels& out, int threads) {
    for_each_row(rows.count(), width, threads, [&](int64_t number, float* row) {
        const Value* from = values + rows.offset(number);
        for_each(width, [&](int64_t i) { store(row + i, load(from + i)); }, [&](int64_t i) { row[i] = to_float(from[i]); });
        if (norm.weight) normalise_row(row, width, norm, row);
        quantize(row, width, out, number);
    });
}

template <typename Value>
void finish_rows(const Sums& sums, int64_t rows, int64_t width, const Value* residual, Value* out, int threads) {
    for_each_row(rows, width, threads, [&](int64_t number, float* row) {
        finish(sums, number, width, row);
        Value* target = out + number * width;
        const Value* added = residual ? residual + number * width : nullptr;
        for_each(
            width,
            [&](int64_t i) {
                const Vector value = load(row + i);
                store(target + i, added ? value + load(added + i) : value);
            },
            [&](int64_t i) { put(target + i, added ? row[i] + to_float(added[i]) : row[i]); });
    });
}

}  // namespace

extern "C" {

// Levels 0 to `top` of the rows of a tensor, whose dimensions before the last have these sizes and strides (in values). Rows are normalised
// first if `norm_weight` is not null. `scales` and `lows` get one value a row.
void florence2_quantize_rows(int is_bf16, const void* values, int64_t dimensions, const int64_t* sizes, const int64_t* strides, int64_t width,
                             const float* norm_weight, const float* norm_bias, float epsilon, int top, uint8_t* levels, float* scales, float* lows,
                             int threads) {
    const Rows rows = {sizes, strides, dimensions};
    const Norm norm = {norm_weight, norm_bias, epsilon};
    const Levels out = {levels, scales, lows, top};
    if (is_bf16)
        quantize_rows(static_cast<const bf16*>(values), rows, width, norm, out, threads);
    else
        quantize_rows(static_cast<const float*>(values), rows, width, norm, out, threads);
}

// The output of a layer, of its product's sums [rows, width], plus `residual`, which may be null. `out` may be `residual` or `sums` itself.
void florence2_finish_rows(int is_bf16, const float* sums, const float* scales, const float* lows, const float* weight_sums, const float* bias,
                           int has_gelu, int64_t rows, int64_t width, const void* residual, void* out, int threads) {
    const Sums from = {sums, scales, lows, weight_sums, bias, bool(has_gelu)};
    if (is_bf16)
        finish_rows(from, rows, width, static_cast<const bf16*>(residual), static_cast<bf16*>(out), threads);
    else
        finish_rows(from, rows, width, static_cast<const float*>(residual), static_cast<float*>(out), threads);
}

// The output of a layer as levels, which the next layer reads.
void florence2_requantize_rows(const float* sums, const float* scales, const float* lows, const float* weight_sums, const float* bias, int has_gelu,
                               int64_t rows, int64_t width, int top, uint8_t* levels, float* out_scales, float* out_lows, int threads) {
    const Sums from = {sums, scales, lows, weight_sums, bias, bool(has_gelu)};
    const Levels out = {levels, out_scales, out_lows, top};
    for_each_row(rows, width, threads, [&](int64_t number, float* row) {
        finish(from, number, width, row);
        quantize(row, width, out, number);
    });
}
}
