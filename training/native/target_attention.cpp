// DIN's target attention over histories of different lengths, forward and backward, one sample at a time.
//
// A behaviour k is scored for a candidate q by an MLP of [q, k, q - k, q * k]. Its first layer is linear in each of these parts, so
// hidden(k) = from_query + k (Wk + diag(q) Wp). The matrix in brackets (E x H1) is computed once per sample, and all of the sample's
// behaviours are multiplied by it, one product instead of two. Hidden values are not stored: the backward pass recomputes them. E is
// the width of a behaviour, H1 and H2 are the widths of the hidden layers.

#include "kernels.h"

namespace {

struct Shape {
    int64_t samples, width, hidden, second;  // width is E, hidden H1, second H2; H2 is 0 if there is one hidden layer
    int64_t last() const { return second ? second : hidden; }
};

struct Weights {
    std::vector<float> key, mixed;        // Wk and Wp, E x H1
    const float *key_t, *mixed_t;         // the same, H1 x E
    const float* second;                  // W2, H2 x H1
    std::vector<float> second_t;          // H1 x H2
    const float *second_bias, *score;     // H2; H2, or H1 if there is one hidden layer
    float score_bias;
};

Weights weights_of(const Shape& shape, const float* key, const float* mixed, const float* second, const float* second_bias,
                   const float* score, const float* score_bias) {
    Weights w;
    w.key = transposed(key, shape.hidden, shape.width);  // given as torch's Linear holds them: out x in
    w.mixed = transposed(mixed, shape.hidden, shape.width);
    w.key_t = key;
    w.mixed_t = mixed;
    w.second = second;
    if (shape.second) w.second_t = transposed(second, shape.second, shape.hidden);
    w.second_bias = second_bias;
    w.score = score;
    w.score_bias = *score_bias;
    return w;
}

struct Parts {  // a behaviour is the vectors of several tables side by side; each array is behaviours x the table's width
    const float* const* values;
    const int64_t* widths;
    int64_t count;
};

// Memory for one sample, reused by all samples of a block.
struct Workspace {
    std::vector<float> keys, first, hidden, last, scores, first_t, d_last, d_hidden, d_first, d_keys;
    Workspace(const Shape& s, int64_t longest, bool backward)
        : keys(longest * s.width), first(s.width * s.hidden), hidden(longest * s.hidden), last(longest * s.second), scores(longest) {
        if (!backward) return;
        first_t.resize(s.width * s.hidden);
        d_last.resize(longest * s.last());
        d_hidden.resize(longest * s.hidden);
        d_first.resize(s.width * s.hidden);
        d_keys.resize(longest * s.width);
    }
};

// Computes the scores of a sample's behaviours; they stay in the workspace, as do the behaviours and their hidden values.
void score_sample(const Shape& s, const Weights& w, const Parts& parts, const float* query, const float* from_query, int64_t begin,
                  int64_t length, Workspace& work) {
    for (int64_t p = 0, at = 0; p < parts.count; at += parts.widths[p], ++p)
        for (int64_t l = 0; l < length; ++l)
            std::memcpy(&work.keys[l * s.width + at], parts.values[p] + (begin + l) * parts.widths[p], sizeof(float) * parts.widths[p]);
    for (int64_t e = 0; e < s.width; ++e) {
        const float q = query[e];
        for (int64_t h = e * s.hidden; h < (e + 1) * s.hidden; h += kLane) store(&work.first[h], load(&w.key[h]) + q * load(&w.mixed[h]));
    }
    product(length, s.width, s.hidden, {work.keys.data(), s.width, 1}, work.first.data(), s.hidden, {work.hidden.data(), s.hidden},
            {{from_query, 0}, true, {}});
    const float* last = work.hidden.data();
    if (s.second) {
        product(length, s.hidden, s.second, {work.hidden.data(), s.hidden, 1}, w.second_t.data(), s.second, {work.last.data(), s.second},
                {{w.second_bias, 0}, true, {}});
        last = work.last.data();
    }
    const int64_t width = s.last();
    for (int64_t l = 0; l < length; ++l) {
        work.scores[l] = w.score_bias + dot(last + l * width, w.score, width);
    }
}

int64_t longest_of(const int64_t* offsets, int64_t samples) {
    int64_t longest = 0;
    for (int64_t b = 0; b < samples; ++b) longest = std::max(longest, offsets[b + 1] - offsets[b]);
    return longest;
}

// The first sample of each block; all blocks hold about the same number of behaviours.
std::vector<int64_t> blocks_of(const int64_t* offsets, int64_t samples, int64_t blocks) {
    std::vector<int64_t> first(blocks + 1, samples);
    first[0] = 0;
    for (int64_t k = 1; k < blocks; ++k)
        first[k] = std::lower_bound(offsets, offsets + samples, offsets[samples] * k / blocks) - offsets;
    return first;
}

struct Sums {  // sums of the weights' gradients over one block of samples
    std::vector<float> key, mixed, second, second_bias, score;
    float score_bias = 0.0f;
    explicit Sums(const Shape& s)
        : key(s.width * s.hidden), mixed(s.width * s.hidden), second(s.second * s.hidden), second_bias(s.second), score(s.last()) {}
};

void back_sample(const Shape& s, const Weights& w, const Parts& parts, const float* query, const float* d_out, int64_t begin,
                 int64_t length, Workspace& work, Sums& sums, float* d_query, float* d_from_query, float* const* d_values) {
    const int64_t width = s.last();
    const float* last = s.second ? work.last.data() : work.hidden.data();
    float* d_last = s.second ? work.d_last.data() : work.d_hidden.data();
    for (int64_t l = 0; l < length; ++l) {
        Lanes dot = {};
        for (int64_t e = 0; e < s.width; e += kLane) {
            const Lanes d = load(d_out + e);
            dot += load(&work.keys[l * s.width + e]) * d;
            store(&work.d_keys[l * s.width + e], work.scores[l] * d);
        }
        const float d_score = sum_of(dot);
        sums.score_bias += d_score;
        for (int64_t h = 0; h < width; h += kLane) {
            const Lanes value = load(last + l * width + h);
            store(&sums.score[h], load(&sums.score[h]) + d_score * value);
            store(d_last + l * width + h, positive(d_score * load(w.score + h), value));
        }
    }
    if (s.second) {
        add_columns(d_last, length, s.second, sums.second_bias.data());
        add_product(s.second, length, s.hidden, {d_last, 1, s.second}, work.hidden.data(), s.hidden, {sums.second.data(), s.hidden});
        product(length, s.second, s.hidden, {d_last, s.second, 1}, w.second, s.hidden, {work.d_hidden.data(), s.hidden},
                {{}, false, {work.hidden.data(), s.hidden}});
    }
    add_columns(work.d_hidden.data(), length, s.hidden, d_from_query);
    product(s.width, length, s.hidden, {work.keys.data(), 1, s.width}, work.d_hidden.data(), s.hidden, {work.d_first.data(), s.hidden});
    for (int64_t e = 0; e < s.width; ++e) {
        const float q = query[e];
        Lanes dot = {};
        for (int64_t h = e * s.hidden; h < (e + 1) * s.hidden; h += kLane) {
            const Lanes d = load(&work.d_first[h]);
            store(&sums.key[h], load(&sums.key[h]) + d);
            store(&sums.mixed[h], load(&sums.mixed[h]) + q * d);
            dot += d * load(&w.mixed[h]);
        }
        d_query[e] = sum_of(dot);
    }
    for (int64_t h = 0; h < s.hidden; ++h)
        for (int64_t e = 0; e < s.width; e += kLane)
            store(&work.first_t[h * s.width + e], load(w.key_t + h * s.width + e) + load(query + e) * load(w.mixed_t + h * s.width + e));
    add_product(length, s.hidden, s.width, {work.d_hidden.data(), s.hidden, 1}, work.first_t.data(), s.width, {work.d_keys.data(), s.width});
    for (int64_t p = 0, at = 0; p < parts.count; at += parts.widths[p], ++p)
        for (int64_t l = 0; l < length; ++l)
            std::memcpy(d_values[p] + (begin + l) * parts.widths[p], &work.d_keys[l * s.width + at], sizeof(float) * parts.widths[p]);
}

void add_transposed(const std::vector<float>& values, int64_t rows, int64_t columns, float* target) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) target[c * rows + r] += values[r * columns + c];
}

}  // namespace

extern "C" {

// sizes: samples, E, H1, H2, and the numbers of parts, threads and blocks.
void attend(const int64_t* sizes, const float* const* values, const int64_t* widths, const int64_t* offsets, const float* query,
            const float* from_query, const float* key, const float* mixed, const float* second, const float* second_bias,
            const float* score, const float* score_bias, float* out) {
    const Shape s{sizes[0], sizes[1], sizes[2], sizes[3]};
    const Parts parts{values, widths, sizes[4]};
    const Weights w = weights_of(s, key, mixed, second, second_bias, score, score_bias);
    const int64_t longest = longest_of(offsets, s.samples), blocks = sizes[6];
    const std::vector<int64_t> first = blocks_of(offsets, s.samples, blocks);
    std::memset(out, 0, sizeof(float) * s.samples * s.width);
    in_parallel(sizes[5], blocks, [&](int64_t block) {
        Workspace work(s, longest, false);
        for (int64_t b = first[block]; b < first[block + 1]; ++b) {
            const int64_t begin = offsets[b], length = offsets[b + 1] - begin;
            if (!length) continue;
            score_sample(s, w, parts, query + b * s.width, from_query + b * s.hidden, begin, length, work);
            float* target = out + b * s.width;
            for (int64_t l = 0; l < length; ++l)
                for (int64_t e = 0; e < s.width; e += kLane)
                    store(target + e, load(target + e) + work.scores[l] * load(&work.keys[l * s.width + e]));
        }
    });
}

// Computes the gradients of all inputs of `attend`. Those of the weights are added to what their arrays hold.
void attend_back(const int64_t* sizes, const float* const* values, const int64_t* widths, const int64_t* offsets, const float* query,
                 const float* from_query, const float* key, const float* mixed, const float* second, const float* second_bias,
                 const float* score, const float* score_bias, const float* d_out, float* const* d_values, float* d_query,
                 float* d_from_query, float* d_key, float* d_mixed, float* d_second, float* d_second_bias, float* d_score,
                 float* d_score_bias) {
    const Shape s{sizes[0], sizes[1], sizes[2], sizes[3]};
    const Parts parts{values, widths, sizes[4]};
    const Weights w = weights_of(s, key, mixed, second, second_bias, score, score_bias);
    const int64_t longest = longest_of(offsets, s.samples), blocks = sizes[6];
    const std::vector<int64_t> first = blocks_of(offsets, s.samples, blocks);
    std::vector<std::unique_ptr<Sums>> sums(blocks);
    std::memset(d_query, 0, sizeof(float) * s.samples * s.width);
    std::memset(d_from_query, 0, sizeof(float) * s.samples * s.hidden);
    in_parallel(sizes[5], blocks, [&](int64_t block) {
        Workspace work(s, longest, true);
        sums[block].reset(new Sums(s));
        for (int64_t b = first[block]; b < first[block + 1]; ++b) {
            const int64_t begin = offsets[b], length = offsets[b + 1] - begin;
            if (!length) continue;
            score_sample(s, w, parts, query + b * s.width, from_query + b * s.hidden, begin, length, work);
            back_sample(s, w, parts, query + b * s.width, d_out + b * s.width, begin, length, work, *sums[block], d_query + b * s.width,
                        d_from_query + b * s.hidden, d_values);
        }
    });
    for (int64_t block = 0; block < blocks; ++block) {
        add_transposed(sums[block]->key, s.width, s.hidden, d_key);
        add_transposed(sums[block]->mixed, s.width, s.hidden, d_mixed);
        add(sums[block]->second, d_second);
        add(sums[block]->second_bias, d_second_bias);
        add(sums[block]->score, d_score);
        *d_score_bias += sums[block]->score_bias;
    }
}

}  // extern "C"
