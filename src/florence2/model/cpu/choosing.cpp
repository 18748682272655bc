// The best next tokens of rows of logits, and how probable they are. engine/next_tokens.py has the counterpart in plain PyTorch.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "refining.h"
#include "vectors.h"

namespace {

using namespace florence2;

constexpr int64_t BLOCK = 512;  // values whose sum is taken in float; those of all blocks are added up in double
constexpr float LOWEST = std::numeric_limits<float>::lowest();  // of a token that may not be taken

// What is asked about the rows. Numbers of tokens are in range.
struct Question {
    int64_t count;          // of best tokens of each row
    const int64_t* forced;  // tokens whose log-probabilities are wanted
    int64_t num_forced;
    const int64_t* locations;  // tokens whose probabilities are wanted
    int64_t num_locations;
    const int64_t* banned;  // tokens that may not be taken: those of the row `i` from ban_starts[i] to ban_starts[i + 1]; null: none
    const int64_t* ban_starts;
};

// Of each row `count` tokens, best first, with their log-probabilities; those of forced tokens; the probabilities of locations.
struct Answer {
    int64_t* tokens;
    float* log_probabilities;
    float* forced;
    float* locations;
};

struct Largest {
    float value;
    bool is_number;  // none is infinite or not a number, except for those that are minus infinity
};

inline Largest largest_of(const float* values, int64_t length) {
    Vector most = broadcast(LOWEST);
    Integers bad = {};
    auto look = [&](Vector value) {
        most = value > most ? value : most;
        const Integers bits = (Integers)value;
        bad |= ((bits & 0x7fffffff) > int32_t(INFINITE)) | (bits == int32_t(INFINITE));
    };
    int64_t i = 0;
    for (; i + LANES <= length; i += LANES) look(load(values + i));
    float rest[LANES];
    for (int lane = 0; lane < LANES; ++lane) rest[lane] = i + lane < length ? values[i + lane] : LOWEST;
    look(load(rest));
    Largest out = {LOWEST, true};
    for (int lane = 0; lane < LANES; ++lane) {
        out.value = most[lane] > out.value ? most[lane] : out.value;
        out.is_number &= bad[lane] == 0;
    }
    out.is_number &= out.value > LOWEST;
    return out;
}

// The sum of e to the power of each value less the largest.
inline double sum_of_powers(const float* values, int64_t length, float largest) {
    double sum = 0;
    for (int64_t begin = 0; begin < length; begin += BLOCK) {
        const int64_t end = std::min(begin + BLOCK, length);
        Vector sums = {};
        int64_t i = begin;
        for (; i + LANES <= end; i += LANES) sums += exp_negative(load(values + i) - largest);
        for (int lane = 0; lane < LANES; ++lane) sum += sums[lane];
        for (; i < end; ++i) sum += exp_negative(broadcast(values[i] - largest))[0];
    }
    return sum;
}

inline void probabilities_of(const int64_t* tokens, int64_t count, const float* logits, float largest, float factor, float* out) {
    for (int64_t i = 0; i < count; i += LANES) {
        float values[LANES] = {};
        const int64_t part = std::min<int64_t>(LANES, count - i);
        for (int64_t lane = 0; lane < part; ++lane) values[lane] = logits[tokens[i + lane]] - largest;
        store(values, exp_negative(load(values)) * factor);
        std::copy_n(values, part, out + i);
    }
}

// Of one row, whose banned logits are overwritten.
void choose(float* logits, int64_t vocabulary, const Question& question, int64_t row, const Answer& answer) {
    int64_t* tokens = answer.tokens + row * question.count;
    float *best = answer.log_probabilities + row * question.count, *forced = answer.forced + row * question.num_forced;
    float* locations = answer.locations + row * question.num_locations;
    const Largest largest = largest_of(logits, vocabulary);
    if (!largest.is_number) {
        std::fill_n(tokens, question.count, 0);
        std::fill_n(best, question.count, of_bits(NO_NUMBER));
        std::fill_n(forced, question.num_forced, of_bits(NO_NUMBER));
        std::fill_n(locations, question.num_locations, of_bits(NO_NUMBER));
        return;
    }
    const double sum = sum_of_powers(logits, vocabulary, largest.value), norm = largest.value + std::log(sum);
    auto log_probability = [&](float logit) { return logit > LOWEST ? float(logit - norm) : of_bits(MINUS_INFINITE); };
    for (int64_t i = 0; i < question.num_forced; ++i) forced[i] = log_probability(logits[question.forced[i]]);
    probabilities_of(question.locations, question.num_locations, logits, largest.value, float(1 / sum), locations);
    if (question.banned)
        for (int64_t i = question.ban_starts[row]; i < question.ban_starts[row + 1]; ++i) logits[question.banned[i]] = LOWEST;
    std::vector<Candidate> found = florence2::largest(logits, vocabulary, question.count);
    // Tokens that are minus infinity are among the best only where there are too few others.
    for (int64_t token = 0; int64_t(found.size()) < question.count; ++token)
        if (std::none_of(found.begin(), found.end(), [&](const Candidate& one) { return one.token == token; })) found.push_back({LOWEST, token});
    for (Candidate& one : found) one.logit = one.logit > LOWEST ? float(one.logit - norm) : LOWEST;
    std::sort(found.begin(), found.end());
    for (int64_t i = 0; i < question.count; ++i) {
        tokens[i] = found[i].token;
        best[i] = found[i].logit > LOWEST ? found[i].logit : of_bits(MINUS_INFINITE);
    }
}

}  // namespace

extern "C" void florence2_best_tokens(float* logits, int64_t rows, int64_t vocabulary, const Question* question, const Answer* answer, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 1)
    for (int64_t row = 0; row < rows; ++row) choose(logits + row * vocabulary, vocabulary, *question, row, *answer);
}
