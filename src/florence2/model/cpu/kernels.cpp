// CPU kernels: attention of a few queries to many keys, and softmax. kernels.py compiles them on the user's machine for its
// processor. Each has a counterpart in plain PyTorch, which is used where there is no compiler.
//
// Plain C++ that compilers vectorise: inner loops run over contiguous values, in float and without branches. bfloat16 values are passed as
// their 16 bits (sixteen_bits.h).

#include <cstdint>
#include <cstring>
#include <vector>

#include "sixteen_bits.h"

namespace {

using namespace florence2;

// With fewer operations than this, one thread is done before a second one has started.
constexpr int64_t SMALL = 1 << 16;

// e to the power of x for x <= 0, within 2 ulp, and no less than 2 to the power of -126. 2^n by the exponent's bits, 2^f by its series for |f| <= 1/2.
inline float exp_negative(float x) {
    float y = x * 1.44269504f;
    y = y > -126.0f ? y : -126.0f;
    float n = float(int32_t(y - 0.5f));
    float f = y - n;
    float p = 1.54035304e-4f;
    p = p * f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    int32_t bits = (int32_t(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}

// Replaces `length` scores, multiplied by `scale`, by their unnormalised softmax weights. Returns the factor that normalises them.
inline float weigh(float* scores, int64_t length, float scale) {
    float largest = scores[0];
    for (int64_t i = 1; i < length; ++i) largest = scores[i] > largest ? scores[i] : largest;
    float sum = 0;
    for (int64_t i = 0; i < length; ++i) {
        scores[i] = exp_negative((scores[i] - largest) * scale);
        sum += scores[i];
    }
    return 1.0f / sum;
}

template <int width, typename Key>
void attend_head(const float* queries, const Key* keys, int64_t key_stride, const Key* values, int64_t value_stride, int64_t num_queries,
                 int64_t length, float scale, float* scores, float* out) {
    for (int64_t t = 0; t < length; ++t) {
        float key[width];
        for (int d = 0; d < width; ++d) key[d] = to_float(keys[t * key_stride + d]);
        for (int64_t q = 0; q < num_queries; ++q) {
            float sum = 0;
            for (int d = 0; d < width; ++d) sum += queries[q * width + d] * key[d];
            scores[q * length + t] = sum;
        }
    }
    for (int64_t q = 0; q < num_queries; ++q) {
        float factor = weigh(scores + q * length, length, scale);
        for (int64_t t = 0; t < length; ++t) scores[q * length + t] *= factor;
    }
    for (int64_t i = 0; i < num_queries * width; ++i) out[i] = 0;
    for (int64_t t = 0; t < length; ++t) {
        float value[width];
        for (int d = 0; d < width; ++d) value[d] = to_float(values[t * value_stride + d]);
        for (int64_t q = 0; q < num_queries; ++q) {
            float weight = scores[q * length + t];
            for (int d = 0; d < width; ++d) out[q * width + d] += weight * value[d];
        }
    }
}

struct Strides {
    int64_t item, head, token;
};

template <int width, typename Query, typename Key>
void attend(const Query* queries, Strides q, const Key* keys, Strides k, const Key* values, Strides v, Query* out, int64_t items, int64_t heads,
            int64_t num_queries, const int32_t* lengths, float scale, int threads) {
    int64_t longest = 0;
    for (int64_t item = 0; item < items; ++item) longest = lengths[item] > longest ? lengths[item] : longest;
#pragma omp parallel for num_threads(threads) schedule(static) if (items * heads * num_queries * longest * 2 * width > SMALL)
    for (int64_t task = 0; task < items * heads; ++task) {
        int64_t item = task / heads, head = task % heads, length = lengths[item];
        std::vector<float> buffer(num_queries * (2 * width + length));
        float *own = buffer.data(), *mixed = own + num_queries * width, *scores = mixed + num_queries * width;
        for (int64_t t = 0; t < num_queries; ++t)
            for (int d = 0; d < width; ++d) own[t * width + d] = to_float(queries[item * q.item + head * q.head + t * q.token + d]);
        attend_head<width, Key>(own, keys + item * k.item + head * k.head, k.token, values + item * v.item + head * v.head, v.token, num_queries,
                                length, scale, scores, mixed);
        for (int64_t t = 0; t < num_queries; ++t)
            for (int d = 0; d < width; ++d) put(out + ((item * num_queries + t) * heads + head) * width + d, mixed[t * width + d]);
    }
}

template <typename Query, typename Key>
int attend_any(int width, const void* queries, Strides q, const void* keys, Strides k, const void* values, Strides v, void* out, int64_t items,
               int64_t heads, int64_t num_queries, const int32_t* lengths, float scale, int threads) {
    auto call = [&](auto kernel) {
        kernel(static_cast<const Query*>(queries), q, static_cast<const Key*>(keys), k, static_cast<const Key*>(values), v,
               static_cast<Query*>(out), items, heads, num_queries, lengths, scale, threads);
        return 0;
    };
    if (width == 64) return call(attend<64, Query, Key>);
    if (width == 32) return call(attend<32, Query, Key>);
    return 1;
}

}  // namespace

extern "C" {

// Attention of queries [items, heads, num_queries, width] to keys and values [items, heads, tokens, width]; the first `lengths[item]` are valid.
// Strides are of item, head and token, in elements; the last dimension is contiguous. The output is [items, num_queries, heads, width],
// contiguous, in the queries' type. Returns 0, or 1 if the width is not supported.
int florence2_attend(int query_is_bf16, int key_is_bf16, int width, const void* queries, const int64_t* q, const void* keys, const int64_t* k,
                     const void* values, const int64_t* v, void* out, int64_t items, int64_t heads, int64_t num_queries, const int32_t* lengths,
                     float scale, int threads) {
    auto call = [&](auto kernel) {
        return kernel(width, queries, Strides{q[0], q[1], q[2]}, keys, Strides{k[0], k[1], k[2]}, values, Strides{v[0], v[1], v[2]}, out, items,
                      heads, num_queries, lengths, scale, threads);
    };
    if (query_is_bf16) return key_is_bf16 ? call(attend_any<bf16, bf16>) : call(attend_any<bf16, float>);
    return key_is_bf16 ? call(attend_any<float, bf16>) : call(attend_any<float, float>);
}

// Softmax of `scale` times bfloat16 scores [items, rows, tokens], in place; tokens from `lengths[item]` on become 0. `lengths` may be null.
void florence2_softmax(bf16* scores, int64_t items, int64_t rows, int64_t tokens, const int32_t* lengths, float scale, int threads) {
#pragma omp parallel num_threads(threads) if (items * rows * tokens > SMALL)
    {
        std::vector<float> row(tokens);
#pragma omp for schedule(static)
        for (int64_t number = 0; number < items * rows; ++number) {
            bf16* target = scores + number * tokens;
            int64_t length = lengths ? lengths[number / rows] : tokens;
            float* buffer = row.data();
            for (int64_t i = 0; i < length; ++i) buffer[i] = to_float(target[i]);
            float factor = weigh(buffer, length, scale);
            for (int64_t i = 0; i < length; ++i) put(target + i, buffer[i] * factor);
            for (int64_t i = length; i < tokens; ++i) target[i] = 0;
        }
    }
}
}
