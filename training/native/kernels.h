// What the operations share: lanes of sixteen floats, a product of small matrices, and a loop over blocks in threads.
//
// All arrays are dense and float32; widths are multiples of 16. Work is cut into a fixed number of blocks whose partial sums are
// added in order, so that no result depends on the number of threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kLane = 16;
typedef float Lanes __attribute__((vector_size(4 * kLane), aligned(4), may_alias));

#if defined(__AVX512F__)
constexpr int kRows = 6;  // 6 x 4 accumulators and 4 of B in 32 registers
#else
constexpr int kRows = 2;
#endif

inline Lanes load(const float* at) { return *reinterpret_cast<const Lanes*>(at); }
inline void store(float* at, const Lanes& values) { *reinterpret_cast<Lanes*>(at) = values; }
inline Lanes positive(const Lanes& values, const Lanes& where) { return where > 0.0f ? values : Lanes{}; }

inline float sum_of(const Lanes& values) {
    float total = 0.0f;
    for (int lane = 0; lane < kLane; ++lane) total += values[lane];
    return total;
}

// A(m, k) = values[m * row_step + k * step]: rows or columns of an array.
struct Left {
    const float* values;
    int64_t row_step, step;
};

// A dense array, or some of its columns.
struct Block {
    float* values;
    int64_t row_step;
};

template <int N, int R>
inline void product_block(int64_t depth, Left a, const float* b, int64_t b_step, Block c, bool add) {
    Lanes sums[R][N];
    for (int m = 0; m < R; ++m)
        for (int n = 0; n < N; ++n) sums[m][n] = add ? load(c.values + m * c.row_step + n * kLane) : Lanes{};
    for (int64_t k = 0; k < depth; ++k) {
        Lanes row[N];
        for (int n = 0; n < N; ++n) row[n] = load(b + k * b_step + n * kLane);
        for (int m = 0; m < R; ++m) {
            const float value = a.values[m * a.row_step + k * a.step];
            for (int n = 0; n < N; ++n) sums[m][n] += value * row[n];
        }
    }
    for (int m = 0; m < R; ++m)
        for (int n = 0; n < N; ++n) store(c.values + m * c.row_step + n * kLane, sums[m][n]);
}

template <int N>
void product_of(int64_t rows, int64_t depth, Left a, const float* b, int64_t b_step, Block c, bool add) {
    for (; rows >= kRows; rows -= kRows) {
        product_block<N, kRows>(depth, a, b, b_step, c, add);
        a.values += kRows * a.row_step;
        c.values += kRows * c.row_step;
    }
    switch (rows) {  // the last rows at once too: one by one each would take as long as a whole block
        case 1: product_block<N, 1>(depth, a, b, b_step, c, add); break;
        case 2: product_block<N, 2>(depth, a, b, b_step, c, add); break;
        case 3: product_block<N, 3>(depth, a, b, b_step, c, add); break;
        case 4: product_block<N, 4>(depth, a, b, b_step, c, add); break;
        case 5: product_block<N, 5>(depth, a, b, b_step, c, add); break;
        default: break;
    }
}

// C[rows x width] (+)= A B, with B[depth x width] at a step of `b_step` between its rows.
inline void product(int64_t rows, int64_t depth, int64_t width, Left a, const float* b, int64_t b_step, Block c, bool add) {
    for (; width >= 4 * kLane; width -= 4 * kLane, b += 4 * kLane, c.values += 4 * kLane) product_of<4>(rows, depth, a, b, b_step, c, add);
    switch (width / kLane) {
        case 1: product_of<1>(rows, depth, a, b, b_step, c, add); break;
        case 2: product_of<2>(rows, depth, a, b, b_step, c, add); break;
        case 3: product_of<3>(rows, depth, a, b, b_step, c, add); break;
        default: break;
    }
}

inline void rectify(float* values, int64_t count) {
    for (int64_t i = 0; i < count; i += kLane) store(values + i, positive(load(values + i), load(values + i)));
}

inline void repeat(const float* row, int64_t width, int64_t count, float* target) {
    for (int64_t l = 0; l < count; ++l) std::memcpy(target + l * width, row, sizeof(float) * width);
}

inline void add_columns(const float* values, int64_t rows, int64_t width, float* target) {
    for (int64_t l = 0; l < rows; ++l)
        for (int64_t h = 0; h < width; h += kLane) store(target + h, load(target + h) + load(values + l * width + h));
}

inline float dot(const float* one, const float* other, int64_t width) {
    Lanes sum = {};
    for (int64_t i = 0; i < width; i += kLane) sum += load(one + i) * load(other + i);
    return sum_of(sum);
}

inline std::vector<float> transposed(const float* values, int64_t rows, int64_t columns) {
    std::vector<float> result(rows * columns);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) result[c * rows + r] = values[r * columns + c];
    return result;
}

inline void add(const std::vector<float>& values, float* target) {
    for (size_t i = 0; i < values.size(); ++i) target[i] += values[i];
}

// Runs `work(block)` for every block. Threads are made for the call: OpenMP would bring a second pool beside torch's own.
template <typename Work>
void in_parallel(int64_t threads, int64_t blocks, const Work& work) {
    std::atomic<int64_t> next{0};
    const auto run = [&] {
        for (int64_t block = next++; block < blocks; block = next++) work(block);
    };
    std::vector<std::thread> others;
    for (int64_t t = 1; t < threads; ++t) others.emplace_back(run);
    run();
    for (std::thread& other : others) other.join();
}

}  // namespace
