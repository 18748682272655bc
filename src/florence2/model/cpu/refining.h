// The largest logits of a row, computed again from the head's weights themselves: what the search ranks by, where the head has fewer bits.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "updates.h"

namespace florence2 {

constexpr int64_t CHUNK = 64;  // logits that are reduced to one maximum

// The head's weights, [vocabulary, width], as they are stored; null where no logits are computed again. `count` is how many of each row.
struct Table {
    const void* weights;
    int64_t count;
    StoredType type;
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

// Of one row. `update` is what an adapter adds to it, or null.
inline void refine(const Table& table, const float* hidden, int64_t width, float* logits, int64_t vocabulary, const Update* update,
                   const float* reduced) {
    with_stored(table.weights, table.type, [&](const auto* weights) {
        for (const Candidate& candidate : largest(logits, vocabulary, table.count)) {
            logits[candidate.token] = dot(weights + candidate.token * width, hidden, width);
            if (update) logits[candidate.token] += added_to(*update, reduced, vocabulary, candidate.token);
        }
    });
}

}  // namespace florence2
