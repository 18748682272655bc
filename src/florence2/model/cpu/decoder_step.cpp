// A step of the decoder for all rows, from tokens to logits, in one parallel region. model/decoder_step.py describes the model and the
// cache to it, and has the counterpart in plain PyTorch, which is used where there is no compiler.

#include <omp.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "attending.h"
#include "norms.h"
#include "products.h"
#include "refining.h"

namespace {

using namespace florence2;

// Threads wait for each other some hundred times a step, each time for microseconds. So they spin, and only where a thread is kept waiting,
// as by a neighbour on its processor, they let others have theirs.
class Barrier {
  public:
    // Returns when all `count` threads have called it.
    void wait(int count) {
        const int phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (int round = 0; phase_.load(std::memory_order_acquire) == phase; ++round) {
            if (round < SPINNING)
                pause();
            else if (round < YIELDING)
                std::this_thread::yield();
            else
                std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
    }

  private:
    static constexpr int SPINNING = 2000, YIELDING = 4000;

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> phase_{0};
};

struct Layer {
    Linear qkv, out;
    Norm self_norm;
    Linear cross_query, cross_out;
    Norm cross_norm;
    Linear fc1, fc2;
    Norm norm;
};

// Of tokens, and of the positions that they stand at. Tokens are multiplied by `scale`.
struct Embedding {
    const void* table;
    const float* positions;
    float scale;
    StoredType type;
};

struct Decoder {
    const Layer* layers;
    int64_t num_layers, width, heads, inner;
    Embedding embedding;
    Norm embedding_norm;
    Linear head;
    Table table;
};

// Strides are in elements. Keys and values of self attention lie by row, position and head; those of cross attention by slot, head and position.
struct Step {
    const int64_t* tokens;     // of each row, within the table
    const int64_t* positions;  // of each row
    float* hidden;             // [rows, width]: the hidden states, at last those that the head is given
    float* logits;             // [rows, vocabulary]
    float* memory;             // for what is computed in between: rows * (6 * width + 2 * inner + 1 + most_rank) and of each thread `own_size`
    void* self_kv;
    const void* cross_kv;
    const int32_t* lengths;        // of each row, the new position included
    const int32_t* cross_lengths;  // of each slot
    const int32_t* groups;         // of each slot the first row and the number of rows
    int64_t rows, slots;
    int64_t own_size;  // for a panel in float, 16 * inputs, and for the scores of a request's rows to all positions
    int64_t self_layer, self_kind, self_row, self_position;
    int64_t cross_layer, cross_kind, cross_slot, cross_head, cross_position;
    const Update* const* updates;  // of each row those of all products, in their order and at last the head's, or null; null for none of any row
    int64_t most_rank;             // of all updates
    int32_t key_is_bf16, threads;
};

// What is computed between tokens and logits; `own` is each thread's.
struct Buffers {
    float *hidden, *sums, *qkv, *mixed, *inner, *scales, *reduced, *own;
    int16_t* levels;
    int64_t own_size;
};

template <typename Key>
class Pass {
  public:
    Pass(const Decoder& decoder, const Step& step, const Buffers& buffers, Barrier& barrier, int number, int count)
        : decoder_(decoder), step_(step), buffers_(buffers), barrier_(barrier), number_(number), count_(count),
          own_(buffers.own + number * buffers.own_size), head_width_(decoder.width / decoder.heads) {}

    void run() {
        const Buffers& b = buffers_;
        const int64_t width = decoder_.width;
        embed(b.sums);
        norm(b.sums, decoder_.embedding_norm, b.hidden);
        for (int64_t number = 0; number < decoder_.num_layers; ++number) {
            const Layer& layer = decoder_.layers[number];
            product(layer.qkv, b.hidden, {b.qkv, 3 * width, false, nullptr, 0});
            attend_self(number);
            product(layer.out, b.mixed, {b.sums, width, false, b.hidden, width});
            norm(b.sums, layer.self_norm, b.hidden);
            product(layer.cross_query, b.hidden, {b.qkv, width, false, nullptr, 0});
            attend_cross(number);
            product(layer.cross_out, b.mixed, {b.sums, width, false, b.hidden, width});
            norm(b.sums, layer.cross_norm, b.hidden);
            product(layer.fc1, b.hidden, {b.inner, decoder_.inner, true, nullptr, 0});
            product(layer.fc2, b.inner, {b.sums, width, false, b.hidden, width});
            norm(b.sums, layer.norm, b.hidden);
        }
        const int64_t vocabulary = decoder_.head.outputs;
        product(decoder_.head, b.hidden, {step_.logits, vocabulary, false, nullptr, 0});
        const Range rows = part_of(decoder_.table.weights ? step_.rows : 0, number_, count_);
        for (int64_t row = rows.begin; row < rows.end; ++row)
            refine(decoder_.table, b.hidden + row * width, width, step_.logits + row * vocabulary, vocabulary, updates_.of(row), updates_.reduced_of(row));
    }

  private:
    // Of those rows that this thread normalises next.
    void embed(float* out) {
        const Embedding& embedding = decoder_.embedding;
        const int64_t width = decoder_.width;
        const Range rows = part_of(step_.rows, number_, count_);
        with_stored(embedding.table, embedding.type, [&](const auto* table) {
            for (int64_t row = rows.begin; row < rows.end; ++row) {
                const auto* token = table + step_.tokens[row] * width;
                const float* position = embedding.positions + step_.positions[row] * width;
                for (int64_t i = 0; i < width; ++i) out[row * width + i] = to_float(token[i]) * embedding.scale + position[i];
            }
        });
    }

    // The next product of a step.
    void product(const Linear& layer, const float* values, Output out) {
        const Rows in = {values, buffers_.levels, buffers_.scales, layer.inputs, step_.rows};
        out.updates = updates_ = {step_.updates, updates_.product + 1, buffers_.reduced, step_.most_rank};
        if (step_.updates) {
            const Range numbers = part_of(step_.rows * step_.most_rank, number_, count_);
            reduce_rows(updates_, values, layer.inputs, numbers.begin, numbers.end);
        }
        if (layer.type == INT8) round_rows(in, layer.inputs, part_of(step_.rows, number_, count_));
        if (step_.updates || layer.type == INT8) barrier_.wait(count_);
        multiply(layer, in, out, own_, number_, count_);
        barrier_.wait(count_);
    }

    void norm(const float* values, const Norm& norm, float* out) {
        const Range rows = part_of(step_.rows, number_, count_);
        for (int64_t row = rows.begin; row < rows.end; ++row)
            normalise_row(values + row * decoder_.width, decoder_.width, norm, out + row * decoder_.width);
        barrier_.wait(count_);
    }

    // Adds the new position to each row's keys and values, and attends to them all.
    void attend_self(int64_t layer) {
        const int64_t width = decoder_.width, heads = decoder_.heads;
        const Range tasks = part_of(step_.rows * heads, number_, count_);
        for (int64_t task = tasks.begin; task < tasks.end; ++task) {
            const int64_t row = task / heads, offset = task % heads * head_width_, length = step_.lengths[row];
            const float* query = buffers_.qkv + row * 3 * width + offset;
            Key* keys = static_cast<Key*>(step_.self_kv) + layer * step_.self_layer + row * step_.self_row + offset;
            Key* values = keys + step_.self_kind;
            for (int64_t i = 0; i < head_width_; ++i) {
                put(keys + (length - 1) * step_.self_position + i, query[width + i]);
                put(values + (length - 1) * step_.self_position + i, query[2 * width + i]);
            }
            const Memory<Key> memory = {keys, values, step_.self_position, length};
            attend_rows(head_width_, query, 3 * width, 1, memory, own_, buffers_.mixed + row * width + offset, width);
        }
        barrier_.wait(count_);
    }

    // The rows of a request attend together to the keys and values of its prompt.
    void attend_cross(int64_t layer) {
        const int64_t width = decoder_.width, heads = decoder_.heads;
        const Range tasks = part_of(step_.slots * heads, number_, count_);
        for (int64_t task = tasks.begin; task < tasks.end; ++task) {
            const int64_t slot = task / heads, head = task % heads, offset = head * head_width_;
            const int64_t first = step_.groups[2 * slot], rows = step_.groups[2 * slot + 1];
            const Key* keys = static_cast<const Key*>(step_.cross_kv) + layer * step_.cross_layer + slot * step_.cross_slot + head * step_.cross_head;
            const Memory<Key> memory = {keys, keys + step_.cross_kind, step_.cross_position, step_.cross_lengths[slot]};
            attend_rows(head_width_, buffers_.qkv + first * width + offset, width, rows, memory, own_, buffers_.mixed + first * width + offset, width);
        }
        barrier_.wait(count_);
    }

    const Decoder& decoder_;
    const Step& step_;
    const Buffers& buffers_;
    Barrier& barrier_;
    const int number_, count_;
    float* const own_;
    const int64_t head_width_;
    Updates updates_ = {nullptr, -1};  // of the latest product
};

template <typename Key>
void run(const Decoder& decoder, const Step& step) {
    const int64_t part = step.rows * decoder.width;
    const int64_t inner_part = step.rows * decoder.inner;
    float *qkv = step.memory + part, *mixed = qkv + 3 * part, *inner = mixed + part, *levels = inner + inner_part;
    float *scales = levels + part + inner_part, *reduced = scales + step.rows;
    float* own = reduced + step.rows * step.most_rank;
    const Buffers buffers = {step.hidden, step.memory, qkv, mixed, inner, scales, reduced, own, reinterpret_cast<int16_t*>(levels), step.own_size};
    Barrier barrier;
#pragma omp parallel num_threads(step.threads)
    Pass<Key>(decoder, step, buffers, barrier, omp_get_thread_num(), omp_get_num_threads()).run();
}

// With fewer multiplications than this, one thread is done before a second one has started.
constexpr int64_t SMALL = 1 << 16;

}  // namespace

extern "C" {

void florence2_decoder_step(const Decoder* decoder, const Step* step) {
    if (step->key_is_bf16)
        run<bf16>(*decoder, *step);
    else
        run<float>(*decoder, *step);
}

// One layer, for whatever has no part in a step: `out` [rows, outputs] of `values` [rows, inputs], both contiguous.
// `memory` has room for a panel in float of each thread, and for rows * (inputs + 1).
void florence2_multiply(const Linear* layer, const float* values, int64_t rows, float* out, int has_gelu, float* memory, int threads) {
    const int64_t size = layer->inputs * PANEL;
    float *own = memory + rows * (layer->inputs + 1), *scales = memory + rows * layer->inputs;
    const Rows in = {values, reinterpret_cast<int16_t*>(memory), scales, layer->inputs, rows};
#pragma omp parallel num_threads(threads) if (rows * layer->inputs * layer->outputs > SMALL)
    {
        const int number = omp_get_thread_num(), count = omp_get_num_threads();
        if (layer->type == INT8) {
            round_rows(in, layer->inputs, part_of(rows, number, count));
#pragma omp barrier
        }
        multiply(*layer, in, {out, layer->outputs, bool(has_gelu), nullptr, 0}, own + number * size, number, count);
    }
}
}
