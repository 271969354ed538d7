// What the operations share: vectors as wide as the processor's registers, a product of small matrices, and a loop over blocks in threads.
//
// All arrays are dense and float32; widths are multiples of kWidth. Work is divided into a fixed number of blocks whose partial sums are
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

// kLane floats are one register: of wider vectors the compiler keeps nothing in registers, and a product took twenty times as long.
// A product is computed in tiles of kRows x kColumns vectors of the result C. Such a tile, kColumns vectors of B and one of A have to
// fit into the registers together.
#if defined(__AVX512F__)  // 32 registers
constexpr int64_t kLane = 16;
constexpr int kRows = 6, kColumns = 4;
constexpr const char* kVectors = "AVX-512";
#elif defined(__AVX2__) && defined(__FMA__)  // 16 registers
constexpr int64_t kLane = 8;
constexpr int kRows = 6, kColumns = 2;
constexpr const char* kVectors = "AVX2";
#elif defined(__AVX__)
constexpr int64_t kLane = 8;
constexpr int kRows = 5, kColumns = 2;  // without a fused multiply-add, a product needs one more register
constexpr const char* kVectors = "AVX";
#elif defined(__SSE2__)
constexpr int64_t kLane = 4;
constexpr int kRows = 5, kColumns = 2;
constexpr const char* kVectors = "SSE2";
#elif defined(__ARM_NEON)  // 32 registers
constexpr int64_t kLane = 4;
constexpr int kRows = 6, kColumns = 4;
constexpr const char* kVectors = "NEON";
#else
constexpr int64_t kLane = 4;
constexpr int kRows = 2, kColumns = 2;
constexpr const char* kVectors = "vectors of four";
#endif

constexpr int64_t kWidth = 16;  // `WIDTH` in Python; the same on every processor, so that native code takes the same models everywhere
static_assert(kWidth % kLane == 0, "a width has to be a whole number of vectors");

typedef float Lanes __attribute__((vector_size(4 * kLane), aligned(4), may_alias));

inline Lanes load(const float* at) { return *reinterpret_cast<const Lanes*>(at); }
inline void store(float* at, const Lanes& values) { *reinterpret_cast<Lanes*>(at) = values; }
inline Lanes positive(const Lanes& values, const Lanes& where) { return where > 0.0f ? values : Lanes{}; }

inline float sum_of(const Lanes& values) {
    float total = 0.0f;
    for (int lane = 0; lane < kLane; ++lane) total += values[lane];
    return total;
}

// The left factor of a product, A(m, k) = values[m * row_step + k * step]: an array, or with the steps exchanged its transpose.
struct Left {
    const float* values;
    int64_t row_step, step;
};

// An array to write to, or some of its columns.
struct Block {
    float* values;
    int64_t row_step;
};

// An array to read from, or some of its columns. With a `row_step` of 0 all rows are the same one; null stands for no array.
struct Given {
    const float* values;
    int64_t row_step;
    Given at(int64_t rows, int64_t columns) const { return values ? Given{values + rows * row_step + columns, row_step} : *this; }
};

// What a product is added to (`from`), and what is done before it is stored: if `rectified`, values that are not positive become 0; if
// `where` is given, so do values at the places where it is not positive.
struct Ends {
    Given from;
    bool rectified;
    Given where;
    Ends at(int64_t rows, int64_t columns) const { return {from.at(rows, columns), rectified, where.at(rows, columns)}; }
};

// Computes one tile of R rows and N vectors. Its loops have constant lengths and are unrolled by a pragma; otherwise the compiler would
// load and store the sums at each step.
#define UNROLLED _Pragma("GCC unroll 16")
template <int N, int R>
inline void product_block(int64_t depth, Left a, const float* b, int64_t b_step, Block c, Ends ends) {
    Lanes sums[R][N];
    if (ends.from.values) {
        UNROLLED for (int m = 0; m < R; ++m)
            UNROLLED for (int n = 0; n < N; ++n) sums[m][n] = load(ends.from.values + m * ends.from.row_step + n * kLane);
    } else {
        UNROLLED for (int m = 0; m < R; ++m)
            UNROLLED for (int n = 0; n < N; ++n) sums[m][n] = Lanes{};
    }
    for (int64_t k = 0; k < depth; ++k) {
        Lanes row[N];
        UNROLLED for (int n = 0; n < N; ++n) row[n] = load(b + k * b_step + n * kLane);
        UNROLLED for (int m = 0; m < R; ++m) {
            const float value = a.values[m * a.row_step + k * a.step];
            UNROLLED for (int n = 0; n < N; ++n) sums[m][n] += value * row[n];
        }
    }
    if (ends.rectified) {
        UNROLLED for (int m = 0; m < R; ++m)
            UNROLLED for (int n = 0; n < N; ++n) sums[m][n] = positive(sums[m][n], sums[m][n]);
    }
    if (ends.where.values) {
        UNROLLED for (int m = 0; m < R; ++m)
            UNROLLED for (int n = 0; n < N; ++n) sums[m][n] = positive(sums[m][n], load(ends.where.values + m * ends.where.row_step + n * kLane));
    }
    UNROLLED for (int m = 0; m < R; ++m)
        UNROLLED for (int n = 0; n < N; ++n) store(c.values + m * c.row_step + n * kLane, sums[m][n]);
}

// Computes the rows, or columns, that are left after whole tiles as one smaller tile; one by one, each would take as long as a whole tile.
template <int N, int R>
void last_rows(int64_t rows, int64_t depth, Left a, const float* b, int64_t b_step, Block c, Ends ends) {
    if constexpr (R > 0) {
        if (rows == R) return product_block<N, R>(depth, a, b, b_step, c, ends);
        last_rows<N, R - 1>(rows, depth, a, b, b_step, c, ends);
    }
}

template <int N>
void product_of(int64_t rows, int64_t depth, Left a, const float* b, int64_t b_step, Block c, Ends ends) {
    for (; rows >= kRows; rows -= kRows) {
        product_block<N, kRows>(depth, a, b, b_step, c, ends);
        a.values += kRows * a.row_step;
        c.values += kRows * c.row_step;
        ends = ends.at(kRows, 0);
    }
    last_rows<N, kRows - 1>(rows, depth, a, b, b_step, c, ends);
}

template <int N>
void last_columns(int64_t columns, int64_t rows, int64_t depth, Left a, const float* b, int64_t b_step, Block c, Ends ends) {
    if constexpr (N > 0) {
        if (columns == N) return product_of<N>(rows, depth, a, b, b_step, c, ends);
        last_columns<N - 1>(columns, rows, depth, a, b, b_step, c, ends);
    }
}

// C = A B, of rows x width, where B is depth x width and its rows are `b_step` floats apart.
inline void product(int64_t rows, int64_t depth, int64_t width, Left a, const float* b, int64_t b_step, Block c, Ends ends = {}) {
    constexpr int64_t tile = kColumns * kLane;
    for (; width >= tile; width -= tile, b += tile, c.values += tile, ends = ends.at(0, tile))
        product_of<kColumns>(rows, depth, a, b, b_step, c, ends);
    last_columns<kColumns - 1>(width / kLane, rows, depth, a, b, b_step, c, ends);
}

// C += A B.
inline void add_product(int64_t rows, int64_t depth, int64_t width, Left a, const float* b, int64_t b_step, Block c) {
    product(rows, depth, width, a, b, b_step, c, {{c.values, c.row_step}, false, {}});
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

// Runs `work(block)` for every block. Threads are started for each call: OpenMP would keep a pool of threads in addition to torch's.
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

// Which of the processor's vectors the library was compiled for.
extern "C" const char* vectors() { return kVectors; }
