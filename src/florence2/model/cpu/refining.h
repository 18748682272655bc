// The largest logits of a row, computed again from the head's weights themselves: what the search ranks by, where the head has fewer bits.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "vectors.h"

namespace florence2 {

constexpr int64_t CHUNK = 64;  // logits that are reduced to one maximum

enum TableType : int32_t { TABLE_FLOAT, TABLE_BF16, TABLE_HALF };

// The head's weights, [vocabulary, width], as they are stored; null where no logits are computed again. `count` is how many of each row.
struct Table {
    const void* weights;
    int64_t count;
    TableType type;
};

struct Candidate {
    float logit;
    int64_t token;
    bool operator<(const Candidate& other) const { return logit > other.logit || (logit == other.logit && token < other.token); }
};

// The `count` largest of some values in any order, equal ones by their place. What is not a number is none of them.
inline std::vector<Candidate> largest(const float* values, int64_t length, int64_t count) {
    // They are at least as large as the `count`th largest of the chunks' maxima.
    const int64_t chunks = length / CHUNK;
    float least = std::numeric_limits<float>::lowest();
    std::vector<float> maxima(chunks);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const float* own = values + chunk * CHUNK;
        Vector most = load(own);
        for (int64_t i = LANES; i < CHUNK; i += LANES) {
            const Vector next = load(own + i);
            most = next > most ? next : most;
        }
        float whole = least;
        for (int lane = 0; lane < LANES; ++lane) whole = most[lane] > whole ? most[lane] : whole;
        maxima[chunk] = whole;
    }
    if (chunks > count) {
        std::vector<float> sorted = maxima;
        std::nth_element(sorted.begin(), sorted.begin() + (count - 1), sorted.end(), [](float a, float b) { return a > b; });
        least = sorted[count - 1];
    }
    std::vector<Candidate> found;
    auto add = [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            if (values[i] >= least) found.push_back({values[i], i});
    };
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
        if (maxima[chunk] >= least) add(chunk * CHUNK, (chunk + 1) * CHUNK);
    add(chunks * CHUNK, length);
    if (int64_t(found.size()) > count) {
        std::nth_element(found.begin(), found.begin() + (count - 1), found.end());
        found.resize(count);
    }
    return found;
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

template <typename Weight>
inline void refine(const Weight* weights, int64_t count, const float* hidden, int64_t width, float* logits, int64_t vocabulary) {
    for (const Candidate& candidate : largest(logits, vocabulary, count))
        logits[candidate.token] = dot(weights + candidate.token * width, hidden, width);
}

// Of one row.
inline void refine(const Table& table, const float* hidden, int64_t width, float* logits, int64_t vocabulary) {
    switch (table.type) {
        case TABLE_FLOAT: return refine(static_cast<const float*>(table.weights), table.count, hidden, width, logits, vocabulary);
        case TABLE_BF16: return refine(static_cast<const bf16*>(table.weights), table.count, hidden, width, logits, vocabulary);
        case TABLE_HALF: return refine(static_cast<const half*>(table.weights), table.count, hidden, width, logits, vocabulary);
    }
}

}  // namespace florence2
