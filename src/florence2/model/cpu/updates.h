// What adapters add to the products of a step, each row by its own adapter: values * down * up, by way of a few numbers, as many as the rank.
// Source: LoRA (arXiv 2106.09685).
#pragma once

#include "stored.h"

namespace florence2 {

// Of one layer: `down` is [rank, inputs], `up` [rank, outputs]. With rank 0 nothing is added.
struct Update {
    const void *down, *up;
    int64_t rank;
    StoredType type;
};

// Of the product that is computed: `of_rows` has each row's updates of all products, or null; `reduced` has room for each row's numbers.
struct Updates {
    const Update* const* of_rows = nullptr;
    int64_t product = 0;
    float* reduced = nullptr;
    int64_t most = 0;  // the largest rank

    // Null where nothing is added.
    const Update* of(int64_t row) const {
        const Update* own = of_rows ? of_rows[row] : nullptr;
        return own && own[product].rank ? own + product : nullptr;
    }
    float* reduced_of(int64_t row) const { return reduced + row * most; }
};

// The numbers from `begin` to `end`, of `most` a row.
inline void reduce_rows(const Updates& updates, const float* values, int64_t inputs, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / updates.most, number = i % updates.most;
        const Update* update = updates.of(row);
        if (!update || number >= update->rank) continue;
        updates.reduced_of(row)[number] =
            with_stored(update->down, update->type, [&](const auto* down) { return dot(down + number * inputs, values + row * inputs, inputs); });
    }
}

// The first `count` values, or as many as a vector has; zeros behind them.
template <typename Weight>
inline Vector load_some(const Weight* source, int64_t count) {
    if (count >= LANES) return load(source);
    Weight some[LANES] = {};
    for (int64_t i = 0; i < count; ++i) some[i] = source[i];
    return load(some);
}

// A vector of sums of a row, of `outputs`, with its update; the first belongs to `output`.
inline Vector updated(Vector sums, const Update& update, const float* reduced, int64_t outputs, int64_t output) {
    return with_stored(update.up, update.type, [&](const auto* up) {
        for (int64_t number = 0; number < update.rank; ++number)
            sums = fma(broadcast(reduced[number]), load_some(up + number * outputs + output, outputs - output), sums);
        return sums;
    });
}

// What is added to one output.
inline float added_to(const Update& update, const float* reduced, int64_t outputs, int64_t output) {
    return with_stored(update.up, update.type, [&](const auto* up) {
        float sum = 0;
        for (int64_t number = 0; number < update.rank; ++number) sum += reduced[number] * to_float(up[number * outputs + output]);
        return sum;
    });
}

}  // namespace florence2
