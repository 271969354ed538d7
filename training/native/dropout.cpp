// Dropout in one pass. A hash of the seed and the element's place decides whether an element is kept, so the backward pass recomputes
// the decision, and no mask is stored.

#include "kernels.h"

namespace {

typedef uint32_t Words __attribute__((vector_size(4 * kLane)));

// The finaliser of MurmurHash3.
inline Words mixed(Words word) {
    word = (word ^ (word >> 16)) * 0x85ebca6bu;
    word = (word ^ (word >> 13)) * 0xc2b2ae35u;
    return word ^ (word >> 16);
}

}  // namespace

extern "C" {

// sizes: the number of elements, the limit (an element is dropped if its hash, 0 to 2^32 - 1, is below it), the seed, and the numbers of
// threads and blocks.
void drop(const int64_t* sizes, const float* values, float* target) {
    const int64_t count = sizes[0], blocks = sizes[4], lanes = (count + kLane - 1) / kLane;
    const uint32_t limit = static_cast<uint32_t>(sizes[1]), low = static_cast<uint32_t>(sizes[2]), high = static_cast<uint32_t>(sizes[2] >> 32);
    const float scale = static_cast<float>(1.0 / (1.0 - static_cast<double>(limit) / 4294967296.0));
    Words place;
    for (int lane = 0; lane < kLane; ++lane) place[lane] = lane;
    in_parallel(sizes[3], blocks, [&](int64_t block) {
        for (int64_t l = lanes * block / blocks; l < lanes * (block + 1) / blocks; ++l) {
            const int64_t at = l * kLane, left = std::min(kLane, count - at);
            const Words hash = mixed(mixed((place + static_cast<uint32_t>(at)) ^ low) ^ high ^ static_cast<uint32_t>(at >> 32));
            if (left == kLane) {
                store(target + at, hash >= limit ? load(values + at) * scale : Lanes{});
            } else {
                for (int64_t i = 0; i < left; ++i) target[at + i] = hash[i] >= limit ? values[at + i] * scale : 0.0f;
            }
        }
    });
}

}  // extern "C"
