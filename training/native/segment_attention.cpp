// Scaled dot-product attention inside segments of packed tokens, forward and backward. It computes one head of one segment at a time,
// so that nothing is padded in memory and the attention weights stay in the processor's cache. The backward pass recomputes them from
// the logarithm of the softmax's denominator, which the forward pass keeps for each query.

#include <cmath>
#include <limits>

#include "kernels.h"

namespace {

typedef int32_t Ints __attribute__((vector_size(4 * kLane)));
constexpr int64_t kTile = 48;  // so many queries at a time, so that the weights of long segments stay in the cache too

struct Shape {
    int64_t segments, heads, width;  // width of a head
    bool causal;
    float scale;
    int64_t step() const { return heads * width; }
};

struct Tokens {
    const float *query, *key, *value;
    const int64_t *query_offsets, *key_offsets;
};

inline int64_t rounded(int64_t count) { return (count + kLane - 1) / kLane * kLane; }

// e^x for x <= 0, exact but for the last digit; 0 for x < -87.
inline Lanes exponential(const Lanes& x) {
    const Lanes shifted = x * 1.44269504f + 12582912.0f, whole = shifted - 12582912.0f;  // adding 1.5 * 2^23 rounds to the nearest integer
    const Lanes rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Lanes sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const Ints power = (__builtin_convertvector(whole, Ints) + 127) << 23;
    return x < -87.0f ? Lanes{} : sum * reinterpret_cast<const Lanes&>(power);  // NaN stays NaN
}

// Memory for one head of one segment, reused by all segments of a block.
struct Workspace {
    std::vector<float> key_t, value_t, weights, d_weights;
    Workspace(const Shape& s, int64_t most_keys, bool backward) : key_t(s.width * rounded(most_keys)), weights(kTile * rounded(most_keys)) {
        if (!backward) return;
        value_t.resize(key_t.size());
        d_weights.resize(weights.size());
    }
};

void transpose(const float* values, int64_t rows, int64_t step, int64_t width, float scale, float* target) {
    const int64_t padded = rounded(rows);
    for (int64_t d = 0; d < width; ++d) {
        for (int64_t r = 0; r < rows; ++r) target[d * padded + r] = values[r * step + d] * scale;
        for (int64_t r = rows; r < padded; ++r) target[d * padded + r] = 0.0f;
    }
}

// Scaled products of some queries with all keys of the segment; -infinity for keys that a query may not see.
void score(const Shape& s, const float* query, int64_t first, int64_t rows, int64_t keys, Workspace& work) {
    const int64_t padded = rounded(keys);
    product(rows, s.width, padded, {query, s.step(), 1}, work.key_t.data(), padded, {work.weights.data(), padded});
    for (int64_t r = 0; r < rows; ++r) {
        float* row = &work.weights[r * padded];
        const int64_t seen = s.causal ? std::min(keys, first + r + 1) : keys;
        std::fill(row + seen, row + padded, -std::numeric_limits<float>::infinity());
    }
}

void attend_head(const Shape& s, const float* query, const float* key, const float* value, int64_t queries, int64_t keys, float* out,
                 float* log_sums, Workspace& work) {
    const int64_t padded = rounded(keys);
    transpose(key, keys, s.step(), s.width, s.scale, work.key_t.data());
    for (int64_t first = 0; first < queries; first += kTile) {
        const int64_t rows = std::min(kTile, queries - first);
        float* target = out + first * s.step();
        score(s, query + first * s.step(), first, rows, keys, work);
        float inverse[kTile];
        for (int64_t r = 0; r < rows; ++r) {
            float* row = &work.weights[r * padded];
            Lanes most = load(row), sum = {};
            for (int64_t k = kLane; k < padded; k += kLane) most = load(row + k) > most ? load(row + k) : most;
            float largest = most[0];
            for (int lane = 1; lane < kLane; ++lane) largest = std::max(largest, most[lane]);
            for (int64_t k = 0; k < padded; k += kLane) {
                const Lanes weight = exponential(load(row + k) - largest);
                store(row + k, weight);
                sum += weight;
            }
            const float total = sum_of(sum);
            inverse[r] = 1.0f / total;
            log_sums[(first + r) * s.heads] = largest + std::log(total);
        }
        product(rows, keys, s.width, {work.weights.data(), padded, 1}, value, s.step(), {target, s.step()});
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t d = 0; d < s.width; d += kLane) store(target + r * s.step() + d, load(target + r * s.step() + d) * inverse[r]);
    }
}

struct Gradients {
    float *query, *key, *value;
};

void back_head(const Shape& s, const float* query, const float* key, const float* value, int64_t queries, int64_t keys, const float* out,
               const float* log_sums, const float* d_out, Gradients d, Workspace& work) {
    const int64_t padded = rounded(keys);
    transpose(key, keys, s.step(), s.width, s.scale, work.key_t.data());
    transpose(value, keys, s.step(), s.width, 1.0f, work.value_t.data());
    for (int64_t first = 0; first < queries; first += kTile) {
        const int64_t rows = std::min(kTile, queries - first), at = first * s.step();
        score(s, query + at, first, rows, keys, work);
        product(rows, s.width, padded, {d_out + at, s.step(), 1}, work.value_t.data(), padded, {work.d_weights.data(), padded});
        for (int64_t r = 0; r < rows; ++r) {
            float *row = &work.weights[r * padded], *d_row = &work.d_weights[r * padded];
            const float mean = dot(out + at + r * s.step(), d_out + at + r * s.step(), s.width), log_sum = log_sums[(first + r) * s.heads];
            for (int64_t k = 0; k < padded; k += kLane) {
                const Lanes weight = exponential(load(row + k) - log_sum);
                store(row + k, weight);
                store(d_row + k, weight * (load(d_row + k) - mean) * s.scale);
            }
        }
        const Left weights_t{work.weights.data(), 1, padded}, d_weights_t{work.d_weights.data(), 1, padded};
        const Ends of_value{first ? Given{d.value, s.step()} : Given{}, false, {}}, of_key{first ? Given{d.key, s.step()} : Given{}, false, {}};
        product(keys, rows, s.width, weights_t, d_out + at, s.step(), {d.value, s.step()}, of_value);
        product(keys, rows, s.width, d_weights_t, query + at, s.step(), {d.key, s.step()}, of_key);
        product(rows, keys, s.width, {work.d_weights.data(), padded, 1}, key, s.step(), {d.query + at, s.step()});
    }
}

// Runs `work(segment, number of queries, number of keys, workspace)` for every segment.
template <typename Work>
void for_segments(const Shape& s, const Tokens& tokens, int64_t threads, int64_t blocks, bool backward, const Work& work) {
    int64_t most_keys = 0;
    for (int64_t g = 0; g < s.segments; ++g) most_keys = std::max(most_keys, tokens.key_offsets[g + 1] - tokens.key_offsets[g]);
    in_parallel(threads, blocks, [&](int64_t block) {
        Workspace workspace(s, most_keys, backward);
        for (int64_t g = s.segments * block / blocks; g < s.segments * (block + 1) / blocks; ++g)
            work(g, tokens.query_offsets[g + 1] - tokens.query_offsets[g], tokens.key_offsets[g + 1] - tokens.key_offsets[g], workspace);
    });
}

Shape shape_of(const int64_t* sizes) {
    return {sizes[0], sizes[1], sizes[2], sizes[3] != 0, 1.0f / std::sqrt(static_cast<float>(sizes[2]))};
}

}  // namespace

extern "C" {

// sizes: the numbers of segments and heads, the width of a head, whether attention is causal, the numbers of threads and blocks.
// `log_sums` receives the logarithm of the softmax's denominator for each query and head.
void attend_segments(const int64_t* sizes, const int64_t* query_offsets, const int64_t* key_offsets, const float* query, const float* key,
                     const float* value, float* out, float* log_sums) {
    const Shape s = shape_of(sizes);
    const Tokens tokens{query, key, value, query_offsets, key_offsets};
    for_segments(s, tokens, sizes[4], sizes[5], false, [&](int64_t g, int64_t queries, int64_t keys, Workspace& work) {
        const int64_t from = query_offsets[g] * s.step(), to = key_offsets[g] * s.step();
        if (!keys) std::fill(out + from, out + from + queries * s.step(), 0.0f);
        for (int64_t h = 0; h < s.heads && queries && keys; ++h) {
            const int64_t at = h * s.width;
            attend_head(s, query + from + at, key + to + at, value + to + at, queries, keys, out + from + at,
                        log_sums + query_offsets[g] * s.heads + h, work);
        }
    });
}

// Writes the gradients of queries, keys and values, given the arguments of `attend_segments` and what it has written.
void attend_segments_back(const int64_t* sizes, const int64_t* query_offsets, const int64_t* key_offsets, const float* query,
                          const float* key, const float* value, const float* out, const float* log_sums, const float* d_out,
                          float* d_query, float* d_key, float* d_value) {
    const Shape s = shape_of(sizes);
    const Tokens tokens{query, key, value, query_offsets, key_offsets};
    for_segments(s, tokens, sizes[4], sizes[5], true, [&](int64_t g, int64_t queries, int64_t keys, Workspace& work) {
        const int64_t from = query_offsets[g] * s.step(), to = key_offsets[g] * s.step();
        if (!queries || !keys) {
            std::fill(d_query + from, d_query + from + queries * s.step(), 0.0f);
            std::fill(d_key + to, d_key + to + keys * s.step(), 0.0f);
            std::fill(d_value + to, d_value + to + keys * s.step(), 0.0f);
            return;
        }
        for (int64_t h = 0; h < s.heads; ++h) {
            const int64_t at = h * s.width;
            back_head(s, query + from + at, key + to + at, value + to + at, queries, keys, out + from + at,
                      log_sums + query_offsets[g] * s.heads + h, d_out + from + at, {d_query + from + at, d_key + to + at, d_value + to + at},
                      work);
        }
    });
}

}  // extern "C"
