// Products of a few rows with weights that lie in panels.
//
// A panel has the weights of 16 outputs, input by input, so that it is read from beginning to end once. Each output is one sum, whose terms
// are added in the order of the inputs, whatever the number of rows, of threads, or of lanes: a row's result never depends on the others.
// Weights of fewer bits are widened without rounding, while they are read or, for many rows, once for all of them. Those of 16 bits are
// multiplied by rows in float, those of 8 bits by rows of 15 bits (rounding.h): one instruction for two inputs, and sums that are exact.
#pragma once

#include <algorithm>
#include <type_traits>

#include "rounding.h"
#include "updates.h"
#include "vectors.h"

namespace florence2 {

constexpr int PANEL = 16, VECTORS = PANEL / LANES;
constexpr int MOST_ROWS = 6;    // that are computed together: two vectors of sums each, in 16 registers
constexpr int AHEAD = 1024;     // bytes that are asked for before they are needed
constexpr int64_t EXACT = 512;  // pairs of inputs, whose products with weights of 8 bits have a sum of 32 bits
static_assert(2 * EXACT * 127 * TOP < int64_t(1) << 31);

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

struct Range {
    int64_t begin, end;
};

inline Range part_of(int64_t total, int number, int count) { return {total * number / count, total * (number + 1) / count}; }

// `levels` and `scales` have room for what `round_rows` makes of the values, which products with weights of 8 bits are made of.
struct Rows {
    const float* values;
    int16_t* levels;
    float* scales;
    int64_t stride, count;
};

inline void round_rows(const Rows& rows, int64_t inputs, Range part) {
    for (int64_t row = part.begin; row < part.end; ++row)
        rows.scales[row] = round_row(rows.values + row * rows.stride, inputs, rows.levels + row * rows.stride);
}

// Where results go, with what adapters add, after GELU if that is wanted, and added to a residual if there is one.
struct Output {
    float* values;
    int64_t stride;
    bool has_gelu;
    const float* residual;
    int64_t residual_stride;
    Updates updates = {};
};

// Weights of the first (0) or second (1) input of a pair, for as many outputs as a vector has lanes. Pairs of bfloat16 lie side by side.
template <int which, typename Weight>
inline Vector load_input(const Weight* panel, int64_t pair, int vector) {
    return load(panel + (2 * pair + which) * PANEL + vector * LANES);
}
template <int which>
inline Vector load_input(const bf16* panel, int64_t pair, int vector) {
    Bits both;
    std::memcpy(&both, panel + 2 * (pair * PANEL + vector * LANES), sizeof both);
    return (Vector)(which ? both & 0xffff0000u : both << 16);
}

template <int rows, int panels, typename Sum>
struct Sums {
    Sum of[rows][panels * VECTORS];
};

inline Vector added(Vector a, Vector b, Vector sum) { return fma(a, b, sum); }
inline Integers added(Pairs a, Pairs b, Integers sum) { return add_products(a, b, sum); }

// Adds a product to each sum. Beside the sums there is room in registers for all rows' values and one weight, or for all weights and one value.
template <int rows, int vectors, typename Loaded, typename AllSums, typename Weight, typename Value>
inline void add_all(AllSums& sums, Weight weight, Value value) {
    if constexpr (rows * vectors + rows + 1 <= REGISTERS) {
        Loaded of_rows[rows];
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) of_rows[row] = value(row);
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) {
            const Loaded one = weight(v);
#pragma GCC unroll 8
            for (int row = 0; row < rows; ++row) sums.of[row][v] = added(one, of_rows[row], sums.of[row][v]);
        }
    } else {
        Loaded all[vectors];
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) all[v] = weight(v);
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
            const Loaded one = value(row);
#pragma GCC unroll 16
            for (int v = 0; v < vectors; ++v) sums.of[row][v] = added(all[v], one, sums.of[row][v]);
        }
    }
}

template <int which, int rows, int panels, typename Weight>
inline void add_input(Sums<rows, panels, Vector>& sums, const Weight* weights, int64_t size, int64_t pair, const float* values, int64_t stride) {
    auto weight = [&](int v) {
        Vector one = load_input<which>(weights + v / VECTORS * size, pair, v % VECTORS);
        if (rows > 1) keep(one);
        return one;
    };
    auto value = [&](int row) { return broadcast(values[row * stride + 2 * pair + which]); };
    add_all<rows, panels * VECTORS, Vector>(sums, weight, value);
}

template <int rows, int panels, typename Weight>
inline void add_pair(Sums<rows, panels, Vector>& sums, const Weight* weights, int64_t size, int64_t pair, const float* values, int64_t stride) {
    add_input<0>(sums, weights, size, pair, values, stride);
    add_input<1>(sums, weights, size, pair, values, stride);
}

template <int rows, int panels, typename Weight>
inline void add_pair(Sums<rows, panels, Integers>& sums, const Weight* weights, int64_t size, int64_t pair, const int16_t* values, int64_t stride) {
    auto weight = [&](int v) {
        Pairs one = load_pairs(weights + v / VECTORS * size + 2 * (pair * PANEL + v % VECTORS * LANES));
        if (rows > 1) keep(one);
        return one;
    };
    auto value = [&](int row) { return broadcast_pair(values + row * stride + 2 * pair); };
    add_all<rows, panels * VECTORS, Pairs>(sums, weight, value);
}

// Memory elsewhere that is asked for before it is needed, `step` bytes with each pair of inputs.
struct Ahead {
    const char* first;
    int64_t step;
};

template <typename Sum, int rows, int panels, bool is_elsewhere, typename Weight, typename Value>
inline Sums<rows, panels, Sum> summed(const Weight* weights, const Value* values, int64_t stride, int64_t size, Range pairs, Ahead ahead) {
    constexpr int64_t bytes = 2 * PANEL * sizeof(Weight);
    Sums<rows, panels, Sum> sums = {};
    for (int64_t pair = pairs.begin; pair < pairs.end; ++pair) {
        if (is_elsewhere) __builtin_prefetch(ahead.first + pair * ahead.step, 0, 2);
        for (int panel = 0; !is_elsewhere && panel < panels; ++panel) {
            const char* next = reinterpret_cast<const char*>(weights + panel * size) + pair * bytes + AHEAD;
            for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(next + line);
        }
        add_pair(sums, weights, size, pair, values, stride);
    }
    // A copy: sums that are the caller's memory would be written there with each pair, as the compiler can't know that nothing else is.
    Sums<rows, panels, Sum> out;
    for (int row = 0; row < rows; ++row)
        for (int v = 0; v < panels * VECTORS; ++v) out.of[row][v] = sums.of[row][v];
    return out;
}

// The products of rows from `first` on with some panels.
template <int rows, int panels, bool is_elsewhere, typename Weight>
inline Sums<rows, panels, Vector> multiplied(const Weight* weights, const Rows& in, int64_t first, int64_t inputs, Ahead ahead) {
    return summed<Vector, rows, panels, is_elsewhere>(weights, in.values + first * in.stride, in.stride, inputs * PANEL, {0, inputs / 2}, ahead);
}

template <int rows, int panels, bool is_elsewhere, typename Weight>
inline Sums<rows, panels, Vector> multiplied_exactly(const Weight* weights, const Rows& in, int64_t first, int64_t inputs, Ahead ahead) {
    Sums<rows, panels, Vector> sums = {};
    for (int64_t begin = 0; begin < inputs / 2; begin += EXACT) {
        const Range pairs = {begin, std::min(begin + EXACT, inputs / 2)};
        const auto part = summed<Integers, rows, panels, is_elsewhere>(weights, in.levels + first * in.stride, in.stride, inputs * PANEL, pairs, ahead);
        for (int row = 0; row < rows; ++row)
            for (int v = 0; v < panels * VECTORS; ++v) sums.of[row][v] += __builtin_convertvector(part.of[row][v], Vector);
    }
    for (int row = 0; row < rows; ++row)
        for (int v = 0; v < panels * VECTORS; ++v) sums.of[row][v] *= in.scales[first + row];
    return sums;
}
template <int rows, int panels, bool is_elsewhere>
inline Sums<rows, panels, Vector> multiplied(const int8_t* weights, const Rows& in, int64_t first, int64_t inputs, Ahead ahead) {
    return multiplied_exactly<rows, panels, is_elsewhere>(weights, in, first, inputs, ahead);
}
template <int rows, int panels, bool is_elsewhere>
inline Sums<rows, panels, Vector> multiplied(const int16_t* weights, const Rows& in, int64_t first, int64_t inputs, Ahead ahead) {
    return multiplied_exactly<rows, panels, is_elsewhere>(weights, in, first, inputs, ahead);
}

inline Vector finished(Vector sum, const Linear& layer, int64_t output, const Output& out, int64_t row) {
    if (layer.scales) sum = sum * load(layer.scales + output);
    if (layer.bias) sum = sum + load(layer.bias + output);
    if (const Update* update = out.updates.of(row)) sum = updated(sum, *update, out.updates.reduced_of(row), layer.outputs, output);
    return out.has_gelu ? gelu(sum) : sum;
}

// Writes a row's sums of the panel that begins with `first`.
__attribute__((noinline)) inline void write(const Vector* sums, const Linear& layer, int64_t first, const Output& out, int64_t row) {
    float* target = out.values + row * out.stride + first;
    const float* residual = out.residual ? out.residual + row * out.residual_stride + first : nullptr;
    if (first + PANEL <= layer.outputs) {
        for (int v = 0; v < VECTORS; ++v) {
            Vector value = finished(sums[v], layer, first + v * LANES, out, row);
            store(target + v * LANES, residual ? value + load(residual + v * LANES) : value);
        }
        return;
    }
    float values[PANEL];
    for (int v = 0; v < VECTORS; ++v) store(values + v * LANES, finished(sums[v], layer, first + v * LANES, out, row));
    for (int64_t i = 0; i < layer.outputs - first; ++i) target[i] = residual ? values[i] + residual[i] : values[i];
}

template <int rows, int panels, bool is_elsewhere, typename Weight>
__attribute__((noinline)) void block(const Weight* weights, const Linear& layer, int64_t panel, const Rows& in, const Output& out, int64_t first_row,
                                     Ahead ahead) {
    const auto sums = multiplied<rows, panels, is_elsewhere>(weights, in, first_row, layer.inputs, ahead);
    for (int row = 0; row < rows; ++row)
        for (int p = 0; p < panels; ++p) write(sums.of[row] + p * VECTORS, layer, (panel + p) * PANEL, out, first_row + row);
}

// Panels that are computed together: as many as there are registers for their sums, so that enough sums are under way at once.
constexpr int together(int rows) { return std::max(1, std::min(4, (REGISTERS - rows - 3) / (rows * VECTORS))); }

template <int rows, typename Weight>
void few_rows(const Weight* weights, const Linear& layer, Range panels, const Rows& in, const Output& out) {
    const int64_t size = layer.inputs * PANEL;
    int64_t panel = panels.begin;
    for (; panel + together(rows) <= panels.end; panel += together(rows))
        block<rows, together(rows), false>(weights + panel * size, layer, panel, in, out, 0, {});
    for (; panel < panels.end; ++panel) block<rows, 1, false>(weights + panel * size, layer, panel, in, out, 0, {});
}

// A panel as it is multiplied; `wide` has room for it in float.
inline const float* widened(const float* panel, int64_t, float*) { return panel; }
inline const float* widened(const bf16* panel, int64_t inputs, float* wide) {
    for (int64_t pair = 0; pair < inputs / 2; ++pair)
        for (int v = 0; v < VECTORS; ++v) {
            store(wide + 2 * pair * PANEL + v * LANES, load_input<0>(panel, pair, v));
            store(wide + (2 * pair + 1) * PANEL + v * LANES, load_input<1>(panel, pair, v));
        }
    return wide;
}
inline const int16_t* widened(const int8_t* panel, int64_t inputs, float* wide) {
    int16_t* out = reinterpret_cast<int16_t*>(wide);
    for (int64_t i = 0; i < inputs * PANEL; i += 2 * LANES) {
        const Pairs pairs = load_pairs(panel + i);
        std::memcpy(out + i, &pairs, sizeof pairs);
    }
    return out;
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
void multiply(const Weight* weights, const Linear& layer, Range panels, const Rows& in, const Output& out, float* wide) {
    if (in.count <= MOST_ROWS)
        return with_rows(in.count, [&](auto rows) { few_rows<decltype(rows)::value>(weights, layer, panels, in, out); });
    const int blocks = int((in.count + MOST_ROWS - 1) / MOST_ROWS);
    const int64_t size = layer.inputs * PANEL, part = size * int64_t(sizeof(Weight)) / blocks;
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
        const Weight* own = weights + panel * size;
        const auto* wider = widened(own, layer.inputs, wide);
        const char* next = reinterpret_cast<const char*>(own + size);  // each block of rows brings a part of the next panel
        for (int number = 0; number < blocks; ++number) {
            const Range rows = part_of(in.count, number, blocks);
            const Ahead ahead = {next + number * part, part / (layer.inputs / 2)};
            with_rows(rows.end - rows.begin, [&](auto count) {
                block<decltype(count)::value, 1, true>(wider, layer, panel, in, out, rows.begin, ahead);
            });
        }
    }
}

// The part of a product that one of `count` threads computes, once rows are rounded if weights have 8 bits. `wide` has room for a panel in float.
inline void multiply(const Linear& layer, const Rows& in, const Output& out, float* wide, int number, int count) {
    Range panels = part_of((layer.outputs + PANEL - 1) / PANEL, number, count);
    switch (layer.type) {
        case FLOAT: return multiply(static_cast<const float*>(layer.weights), layer, panels, in, out, wide);
        case BF16: return multiply(static_cast<const bf16*>(layer.weights), layer, panels, in, out, wide);
        default: return multiply(static_cast<const int8_t*>(layer.weights), layer, panels, in, out, wide);
    }
}

}  // namespace florence2
