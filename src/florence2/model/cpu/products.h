// Products of a few rows with weights that lie in panels.
//
// A panel has the weights of 16 outputs, input by input, so that it is read from beginning to end once. Each output is one sum, whose terms
// are added in the order of the inputs, whatever the number of rows, of threads, or of lanes: a row's result never depends on the others.
// Weights of fewer bits are widened without rounding, while they are read or, for many rows, once for all of them.
#pragma once

#include <algorithm>
#include <type_traits>

#include "vectors.h"

namespace florence2 {

constexpr int PANEL = 16, VECTORS = PANEL / LANES;
constexpr int MOST_ROWS = 6;  // that are computed together: two vectors of sums each, in 16 registers
constexpr int AHEAD = 1024;   // bytes that are asked for before they are needed

enum Type : int32_t { FLOAT, BF16, INT8 };

// A layer: weights in panels of `inputs` (an even number) by 16; `scales` (of 8-bit weights) and `bias` may be null, and reach to the end of
// the last panel.
struct Linear {
    const void* weights;
    const float* scales;
    const float* bias;
    int64_t inputs, outputs;
    Type type;
};

struct Rows {
    const float* values;
    int64_t stride, count;
};

// Where results go, after GELU if that is wanted, and added to a residual if there is one.
struct Output {
    float* values;
    int64_t stride;
    bool has_gelu;
    const float* residual;
    int64_t residual_stride;
};

struct Range {
    int64_t begin, end;
};

inline Range part_of(int64_t total, int number, int count) { return {total * number / count, total * (number + 1) / count}; }

// Weights of two inputs for as many outputs as a vector has lanes. Pairs of bfloat16 lie side by side.
inline void load_pair(const float* panel, int64_t pair, int vector, Vector& first, Vector& second) {
    first = load(panel + 2 * pair * PANEL + vector * LANES);
    second = load(panel + (2 * pair + 1) * PANEL + vector * LANES);
}
inline void load_pair(const int8_t* panel, int64_t pair, int vector, Vector& first, Vector& second) {
    first = load(panel + 2 * pair * PANEL + vector * LANES);
    second = load(panel + (2 * pair + 1) * PANEL + vector * LANES);
}
inline void load_pair(const bf16* panel, int64_t pair, int vector, Vector& first, Vector& second) {
    Bits both;
    std::memcpy(&both, panel + 2 * (pair * PANEL + vector * LANES), sizeof both);
    first = (Vector)(both << 16);
    second = (Vector)(both & 0xffff0000u);
}

template <int rows, int panels>
struct Sums {
    Vector of[rows][panels * VECTORS];
};

template <int rows, int panels, typename Weight>
inline Sums<rows, panels> multiplied(const Weight* weights, const float* values, int64_t stride, int64_t inputs) {
    Sums<rows, panels> sums = {};
    const int64_t size = inputs * PANEL;
    for (int64_t pair = 0; pair < inputs / 2; ++pair) {
        Vector second[panels * VECTORS], first[panels * VECTORS];
#pragma GCC unroll 8
        for (int panel = 0; panel < panels; ++panel) {
            if (2 * PANEL * sizeof(Weight) >= 64 || pair % 2 == 0) {
                const char* next = reinterpret_cast<const char*>(weights + panel * size + 2 * pair * PANEL) + AHEAD;
                for (size_t line = 0; line < 2 * PANEL * sizeof(Weight); line += 64) __builtin_prefetch(next + line);
            }
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v)
                load_pair(weights + panel * size, pair, v, first[panel * VECTORS + v], second[panel * VECTORS + v]);
        }
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
            Vector value = broadcast(values[row * stride + 2 * pair]);
#pragma GCC unroll 16
            for (int v = 0; v < panels * VECTORS; ++v) sums.of[row][v] = fma(first[v], value, sums.of[row][v]);
        }
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
            Vector value = broadcast(values[row * stride + 2 * pair + 1]);
#pragma GCC unroll 16
            for (int v = 0; v < panels * VECTORS; ++v) sums.of[row][v] = fma(second[v], value, sums.of[row][v]);
        }
    }
    return sums;
}

inline Vector finished(Vector sum, const Linear& layer, int64_t output, bool has_gelu) {
    if (layer.scales) sum = sum * load(layer.scales + output);
    if (layer.bias) sum = sum + load(layer.bias + output);
    return has_gelu ? gelu(sum) : sum;
}

// Writes a row's sums of the panel that begins with `first`.
__attribute__((noinline)) inline void write(const Vector* sums, const Linear& layer, int64_t first, const Output& out, int64_t row) {
    float* target = out.values + row * out.stride + first;
    const float* residual = out.residual ? out.residual + row * out.residual_stride + first : nullptr;
    if (first + PANEL <= layer.outputs) {
        for (int v = 0; v < VECTORS; ++v) {
            Vector value = finished(sums[v], layer, first + v * LANES, out.has_gelu);
            store(target + v * LANES, residual ? value + load(residual + v * LANES) : value);
        }
        return;
    }
    float values[PANEL];
    for (int v = 0; v < VECTORS; ++v) store(values + v * LANES, finished(sums[v], layer, first + v * LANES, out.has_gelu));
    for (int64_t i = 0; i < layer.outputs - first; ++i) target[i] = residual ? values[i] + residual[i] : values[i];
}

template <int rows, int panels, typename Weight>
__attribute__((noinline)) void block(const Weight* weights, const Linear& layer, int64_t panel, Rows in, const Output& out, int64_t first_row) {
    auto sums = multiplied<rows, panels>(weights, in.values + first_row * in.stride, in.stride, layer.inputs);
    for (int row = 0; row < rows; ++row)
        for (int p = 0; p < panels; ++p) write(sums.of[row] + p * VECTORS, layer, (panel + p) * PANEL, out, first_row + row);
}

// Panels that are computed together: as many as there are registers for their sums, so that enough sums are under way at once.
constexpr int together(int rows) { return std::max(1, std::min(4, (REGISTERS - 4) / (rows * VECTORS))); }

template <int rows, typename Weight>
void few_rows(const Weight* weights, const Linear& layer, Range panels, Rows in, const Output& out) {
    const int64_t size = layer.inputs * PANEL;
    int64_t panel = panels.begin;
    for (; panel + together(rows) <= panels.end; panel += together(rows)) block<rows, together(rows)>(weights + panel * size, layer, panel, in, out, 0);
    for (; panel < panels.end; ++panel) block<rows, 1>(weights + panel * size, layer, panel, in, out, 0);
}

inline const float* widened(const float* panel, int64_t, float*) { return panel; }
template <typename Weight>
inline const float* widened(const Weight* panel, int64_t inputs, float* wide) {
    for (int64_t pair = 0; pair < inputs / 2; ++pair)
        for (int v = 0; v < VECTORS; ++v) {
            Vector first, second;
            load_pair(panel, pair, v, first, second);
            store(wide + 2 * pair * PANEL + v * LANES, first);
            store(wide + (2 * pair + 1) * PANEL + v * LANES, second);
        }
    return wide;
}

// `rows` (1 to 6) known while compiling.
template <typename Call>
inline void with_rows(int64_t rows, Call call) {
    switch (rows) {
        case 1: return call(std::integral_constant<int, 1>());
        case 2: return call(std::integral_constant<int, 2>());
        case 3: return call(std::integral_constant<int, 3>());
        case 4: return call(std::integral_constant<int, 4>());
        case 5: return call(std::integral_constant<int, 5>());
        default: return call(std::integral_constant<int, MOST_ROWS>());
    }
}

template <typename Weight>
void multiply(const Weight* weights, const Linear& layer, Range panels, Rows in, const Output& out, float* wide) {
    if (in.count <= MOST_ROWS)
        return with_rows(in.count, [&](auto rows) { few_rows<decltype(rows)::value>(weights, layer, panels, in, out); });
    const int blocks = int((in.count + MOST_ROWS - 1) / MOST_ROWS);
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
        const float* floats = widened(weights + panel * layer.inputs * PANEL, layer.inputs, wide);
        for (int number = 0; number < blocks; ++number) {
            Range rows = part_of(in.count, number, blocks);
            with_rows(rows.end - rows.begin, [&](auto count) { block<decltype(count)::value, 1>(floats, layer, panel, in, out, rows.begin); });
        }
    }
}

// The part of a product that one of `count` threads computes. `wide` has room for a panel in float.
inline void multiply(const Linear& layer, Rows in, const Output& out, float* wide, int number, int count) {
    Range panels = part_of((layer.outputs + PANEL - 1) / PANEL, number, count);
    switch (layer.type) {
        case FLOAT: return multiply(static_cast<const float*>(layer.weights), layer, panels, in, out, wide);
        case BF16: return multiply(static_cast<const bf16*>(layer.weights), layer, panels, in, out, wide);
        default: return multiply(static_cast<const int8_t*>(layer.weights), layer, panels, in, out, wide);
    }
}

}  // namespace florence2
