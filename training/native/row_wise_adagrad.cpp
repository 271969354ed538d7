// Row-wise Adagrad on the rows that a step has looked up. The gradients of a row are summed in the order of the look-ups, then the row is
// updated.
//
// The last bits of a row's number decide which of a fixed number of blocks it belongs to. Each block sums the gradients of its rows in an
// array, and finds a row's sum there by a hash table of its own.

#include <cmath>

#include "kernels.h"

extern "C" {

// sizes: the numbers of look-ups, columns, threads, and blocks (a power of two).
void update(const int64_t* sizes, const int64_t* rows, const float* gradient, float* weight, float* square, const double* rate_and_epsilon) {
    const int64_t count = sizes[0], width = sizes[1], blocks = sizes[3];
    const float rate = static_cast<float>(rate_and_epsilon[0]), epsilon = static_cast<float>(rate_and_epsilon[1]);
    std::vector<std::vector<int64_t>> places(blocks);  // which look-ups belong to each block, in order
    for (std::vector<int64_t>& of_block : places) of_block.reserve(2 * count / blocks);
    for (int64_t n = 0; n < count; ++n) places[rows[n] & (blocks - 1)].push_back(n);
    in_parallel(sizes[2], blocks, [&](int64_t block) {
        const std::vector<int64_t>& mine = places[block];
        int64_t size = 16;
        while (size < 2 * static_cast<int64_t>(mine.size())) size *= 2;
        std::vector<int32_t> slots(size, -1);  // hash of a row -> its place in `found`
        std::vector<int64_t> found;
        std::vector<float> sums;
        found.reserve(mine.size());
        sums.reserve(mine.size() * width);
        for (const int64_t place : mine) {
            const int64_t row = rows[place];
            uint64_t at = (static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15ull >> 20) & (size - 1);
            while (slots[at] >= 0 && found[slots[at]] != row) at = (at + 1) & (size - 1);
            const float* from = gradient + place * width;
            if (slots[at] < 0) {
                slots[at] = static_cast<int32_t>(found.size());
                found.push_back(row);
                sums.insert(sums.end(), from, from + width);
                __builtin_prefetch(weight + row * width, 1);
                __builtin_prefetch(square + row, 1);
            } else {
                float* sum = &sums[slots[at] * width];
                for (int64_t d = 0; d < width; ++d) sum[d] += from[d];
            }
        }
        for (size_t n = 0; n < found.size(); ++n) {
            const float* sum = &sums[n * width];
            float total = 0.0f;
            for (int64_t d = 0; d < width; ++d) total += sum[d] * sum[d];
            float& own = square[found[n]];
            own += total / static_cast<float>(width);
            const float step = rate / (std::sqrt(own) + epsilon);
            float* row = weight + found[n] * width;
            for (int64_t d = 0; d < width; ++d) row[d] -= step * sum[d];
        }
    });
}

// sizes: the numbers of look-ups, columns, threads, blocks, and rows of the table. Returns 1, and reads nothing, if a row is not in the table.
int look_up(const int64_t* sizes, const int64_t* rows, const float* weight, float* found) {
    const int64_t count = sizes[0], width = sizes[1], blocks = sizes[3], ahead = 16;
    for (int64_t n = 0; n < count; ++n)
        if (rows[n] < 0 || rows[n] >= sizes[4]) return 1;
    in_parallel(sizes[2], blocks, [&](int64_t block) {
        const int64_t end = count * (block + 1) / blocks;
        for (int64_t n = count * block / blocks; n < end; ++n) {
            if (n + ahead < end) __builtin_prefetch(weight + rows[n + ahead] * width);
            std::memcpy(found + n * width, weight + rows[n] * width, sizeof(float) * width);
        }
    });
    return 0;
}

}  // extern "C"
