// call LIBRARY FUNCTION FILE: calls a function whose arguments are pointers, and writes what it left in their memory back to the file.
//
// The file: the number of arguments; then each as the number of its parts (-1: one block of bytes; -2: null) and, of each part, the
// number of bytes and the bytes. What comes back: the returned number, then the bytes of all parts in order. Numbers are int64.
// Of `vectors`, which has no argument, the text is printed.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {

int64_t number(FILE* file) {
    int64_t value = 0;
    if (fread(&value, sizeof value, 1, file) != 1) value = -3;
    return value;
}

}  // namespace

int main(int, char** words) {
    void* library = dlopen(words[1], RTLD_NOW);
    void* found = library ? dlsym(library, words[2]) : nullptr;
    if (!found) return std::fprintf(stderr, "%s\n", dlerror()), 2;
    if (std::string(words[2]) == "vectors") return std::puts(reinterpret_cast<const char* (*)()>(found)()) < 0;
    FILE* file = fopen(words[3], "rb");
    std::vector<std::unique_ptr<std::vector<char>>> parts;
    std::vector<std::unique_ptr<std::vector<void*>>> lists;
    const auto read_part = [&] {
        parts.emplace_back(new std::vector<char>(number(file)));
        if (fread(parts.back()->data(), 1, parts.back()->size(), file) != parts.back()->size()) std::fprintf(stderr, "a short file\n");
        return static_cast<void*>(parts.back()->data());
    };
    void* given[24] = {};
    const int64_t count = number(file);
    for (int64_t a = 0; a < count; ++a) {
        const int64_t size = number(file);
        if (size == -2) continue;
        if (size == -1) {
            given[a] = read_part();
            continue;
        }
        lists.emplace_back(new std::vector<void*>());
        for (int64_t p = 0; p < size; ++p) lists.back()->push_back(read_part());
        given[a] = lists.back()->data();
    }
    fclose(file);
    using Function = int64_t (*)(void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*,
                                 void*, void*, void*, void*, void*, void*, void*, void*);  // arguments too many do no harm
    void** g = given;
    const int64_t returned = reinterpret_cast<Function>(found)(g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11], g[12],
                                                               g[13], g[14], g[15], g[16], g[17], g[18], g[19], g[20], g[21], g[22], g[23]);
    file = fopen(words[3], "wb");
    const int32_t as_int = static_cast<int32_t>(returned);
    const int64_t wide = as_int;
    fwrite(&wide, sizeof wide, 1, file);
    for (const auto& part : parts) fwrite(part->data(), 1, part->size(), file);
    return fclose(file);
}
