// Linear layers with ReLU between them and one logit, over the embeddings of a sample's fields; forward and backward. Samples are
// computed in tiles, so that a tile's hidden values stay in the processor's cache.
//
// The vectors of fields of many rows are read from x. The table of a field of few rows is multiplied by the field's columns of the
// first layer once (V x H1), and each sample adds its row of that product. The forward pass keeps the hidden values for the backward
// pass, which would take a third longer if it computed them again. D is the width of a vector, H1 the width of the first layer.

#include "kernels.h"

namespace {

constexpr int64_t kTile = 8 * kRows;

int64_t padded(int64_t width) { return (width + kWidth - 1) / kWidth * kWidth; }

std::vector<float> padded_to(const float* values, int64_t rows, int64_t columns, int64_t all_rows, int64_t all_columns) {
    std::vector<float> result(all_rows * all_columns);
    for (int64_t r = 0; r < rows; ++r) std::memcpy(&result[r * all_columns], values + r * columns, sizeof(float) * columns);
    return result;
}

struct Layer {
    int64_t in, out;               // widths, padded to a multiple of kWidth
    std::vector<float> weight;     // out x in, as torch's Linear holds it
    std::vector<float> weight_t;   // in x out
    std::vector<float> bias;
};

struct Field {
    int64_t size, width, column, start;  // V; D; the field's column in `field_rows`; its first column in the first layer
    const float* vectors;                // the field's table, V x D
    std::vector<float> weight, values;   // the field's columns of the first layer, transposed, D x H1; their product with the table, V x H1
};

struct Columns {  // columns of the first layer that read a part of x
    int64_t start, width;
};

struct Network {
    int64_t rows, width, num_fields, fields_step;
    const float* x;
    const int64_t* field_rows;
    int64_t first_width;  // number of columns of the first layer, those of fields of few rows included
    std::vector<Columns> of_x;
    std::vector<Layer> layers;
    std::vector<Field> fields;
    std::vector<float> score;
    float score_bias;
};

// sizes: the numbers of samples, columns of x, hidden layers, fields of few rows, columns of `field_rows`, threads, blocks, columns of
// the first layer, parts of x; then the hidden layers' widths; then V, D, column and start of each field of few rows; then the first
// column and the number of columns that each part of x has in the first layer.
Network network_of(const int64_t* sizes, const float* x, const float* const* weights, const float* const* biases,
                   const float* const* field_vectors, const int64_t* field_rows) {
    Network net{sizes[0], sizes[1], sizes[3], sizes[4], x, field_rows, sizes[7], {}, {}, {}, {}, *biases[sizes[2]]};
    const int64_t *widths = sizes + 9, *of_fields = widths + sizes[2], *of_x = of_fields + 4 * net.num_fields;
    for (int64_t p = 0; p < sizes[8]; ++p) net.of_x.push_back({of_x[2 * p], of_x[2 * p + 1]});
    const int64_t hidden = padded(widths[0]);
    std::vector<float> first(widths[0] * net.width);  // the columns that read x, side by side
    for (int64_t h = 0; h < widths[0]; ++h) {
        float* target = &first[h * net.width];
        for (const Columns& part : net.of_x) {
            std::memcpy(target, weights[0] + h * net.first_width + part.start, sizeof(float) * part.width);
            target += part.width;
        }
    }
    int64_t in = net.width, in_padded = net.width;
    for (int64_t l = 0; l < sizes[2]; ++l) {
        const int64_t out = widths[l], out_padded = padded(out);
        Layer layer{in_padded, out_padded, padded_to(l ? weights[l] : first.data(), out, in, out_padded, in_padded), {},
                    padded_to(biases[l], 1, out, 1, out_padded)};
        layer.weight_t = transposed(layer.weight.data(), out_padded, in_padded);
        net.layers.push_back(std::move(layer));
        in = out;
        in_padded = out_padded;
    }
    for (int64_t f = 0; f < net.num_fields; ++f) {
        const int64_t* of = of_fields + 4 * f;
        Field field{of[0], of[1], of[2], of[3], field_vectors[f], std::vector<float>(of[1] * hidden), std::vector<float>(of[0] * hidden)};
        for (int64_t d = 0; d < field.width; ++d)
            for (int64_t h = 0; h < widths[0]; ++h) field.weight[d * hidden + h] = weights[0][h * net.first_width + field.start + d];
        product(field.size, field.width, hidden, {field.vectors, field.width, 1}, field.weight.data(), hidden, {field.values.data(), hidden});
        net.fields.push_back(std::move(field));
    }
    net.score = padded_to(weights[sizes[2]], 1, in, 1, in_padded);
    return net;
}

// Whether every row that a sample names in a field of few rows is in the field's table.
bool rows_are_there(const Network& net) {
    for (const Field& field : net.fields)
        for (int64_t i = 0; i < net.rows; ++i) {
            const int64_t row = net.field_rows[i * net.fields_step + field.column];
            if (row < 0 || row >= field.size) return false;
        }
    return true;
}

using Values = std::vector<std::vector<float>>;
using Tile = std::vector<float*>;  // the hidden values of each layer, samples x out

Values tile_of(const Network& net) {
    Values values;
    for (const Layer& layer : net.layers) values.emplace_back(kTile * layer.out);
    return values;
}

Tile pointers_to(Values& values) {
    Tile tile;
    for (std::vector<float>& of_layer : values) tile.push_back(of_layer.data());
    return tile;
}

// Where the hidden values of the samples from `begin` on are, in an array that holds all samples, layer after layer.
Tile rows_of(const Network& net, float* hidden, int64_t begin) {
    Tile tile;
    for (const Layer& layer : net.layers) {
        tile.push_back(hidden + begin * layer.out);
        hidden += net.rows * layer.out;
    }
    return tile;
}

// Writes to `out` what one sample's first layer gets from its bias and from the fields of few rows.
void add_fields(const Network& net, int64_t row, float* out) {
    const Layer& layer = net.layers[0];
    const int64_t* rows = net.field_rows + row * net.fields_step;
    for (int64_t h = 0; h < layer.out; h += kLane) {
        Lanes sum = load(&layer.bias[h]);
        for (const Field& field : net.fields) sum += load(&field.values[rows[field.column] * layer.out + h]);
        store(out + h, sum);
    }
}

void forward_tile(const Network& net, int64_t begin, int64_t count, const Tile& hidden) {
    for (size_t l = 0; l < net.layers.size(); ++l) {
        const Layer& layer = net.layers[l];
        float* out = hidden[l];
        Given from{layer.bias.data(), 0};
        if (l == 0 && net.num_fields) {
            for (int64_t i = 0; i < count; ++i) add_fields(net, begin + i, out + i * layer.out);
            from = {out, layer.out};
        }
        const float* in = l ? hidden[l - 1] : net.x + begin * net.width;
        product(count, layer.in, layer.out, {in, layer.in, 1}, layer.weight_t.data(), layer.out, {out, layer.out}, {from, true, {}});
    }
}

struct Sums {  // sums of gradients over one block of samples
    Values weights, biases, fields;
    std::vector<float> score;
    float score_bias = 0.0f;
    explicit Sums(const Network& net) : score(net.score.size()) {
        for (const Layer& layer : net.layers) {
            weights.emplace_back(layer.weight.size());
            biases.emplace_back(layer.out);
        }
        for (const Field& field : net.fields) fields.emplace_back(field.values.size());
    }
};

void back_tile(const Network& net, int64_t begin, int64_t count, const float* d_logits, const Tile& hidden, const Tile& d_hidden, Sums& sums,
               float* d_x) {
    const int64_t last = static_cast<int64_t>(net.layers.size()) - 1, width = net.layers[last].out;
    for (int64_t i = 0; i < count; ++i) {
        const float d = d_logits[begin + i];
        sums.score_bias += d;
        for (int64_t h = 0; h < width; h += kLane) {
            const Lanes value = load(hidden[last] + i * width + h);
            store(&sums.score[h], load(&sums.score[h]) + d * value);
            store(d_hidden[last] + i * width + h, positive(d * load(&net.score[h]), value));
        }
    }
    for (int64_t l = last; l >= 0; --l) {
        const Layer& layer = net.layers[l];
        const float *d_out = d_hidden[l], *in = l ? hidden[l - 1] : net.x + begin * net.width;
        add_columns(d_out, count, layer.out, sums.biases[l].data());
        add_product(layer.out, count, layer.in, {d_out, 1, layer.out}, in, layer.in, {sums.weights[l].data(), layer.in});
        float* d_in = l ? d_hidden[l - 1] : d_x + begin * net.width;
        product(count, layer.out, layer.in, {d_out, layer.out, 1}, layer.weight.data(), layer.in, {d_in, layer.in},
                {{}, false, l ? Given{in, layer.in} : Given{}});
    }
    for (size_t f = 0; f < net.fields.size(); ++f)
        for (int64_t i = 0; i < count; ++i)
            add_columns(d_hidden[0] + i * net.layers[0].out, 1, net.layers[0].out,
                        &sums.fields[f][net.field_rows[(begin + i) * net.fields_step + net.fields[f].column] * net.layers[0].out]);
}

void add_part(const std::vector<float>& values, int64_t step, int64_t rows, int64_t columns, float* target) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) target[r * columns + c] += values[r * step + c];
}

}  // namespace

extern "C" {

// Computes the logits. Returns 1, and computes nothing, if a row is not in its table. `hidden` receives the hidden values for
// `score_back`, layer after layer, samples x the layer's width padded to a multiple of kWidth; null if there is no backward pass.
int score(const int64_t* sizes, const float* x, const float* const* weights, const float* const* biases, const float* const* field_vectors,
           const int64_t* field_rows, float* hidden, float* logits) {
    const Network net = network_of(sizes, x, weights, biases, field_vectors, field_rows);
    if (!rows_are_there(net)) return 1;
    const int64_t blocks = sizes[6], last = static_cast<int64_t>(net.layers.size()) - 1, width = net.layers[last].out;
    in_parallel(sizes[5], blocks, [&](int64_t block) {
        Values passing = hidden ? Values() : tile_of(net);
        const int64_t end = net.rows * (block + 1) / blocks;
        for (int64_t begin = net.rows * block / blocks; begin < end; begin += kTile) {
            const int64_t count = std::min(kTile, end - begin);
            const Tile tile = hidden ? rows_of(net, hidden, begin) : pointers_to(passing);
            forward_tile(net, begin, count, tile);
            for (int64_t i = 0; i < count; ++i) logits[begin + i] = net.score_bias + dot(tile[last] + i * width, net.score.data(), width);
        }
    });
    return 0;
}

// Computes the gradients of x, weights, biases and the tables of fields of few rows, from the hidden values that `score` has written.
// The gradient of x replaces what its array holds; the others are added to theirs.
void score_back(const int64_t* sizes, const float* x, const float* const* weights, const float* const* biases,
                const float* const* field_vectors, const int64_t* field_rows, float* hidden, const float* d_logits, float* d_x, float* const* d_weights,
                float* const* d_biases, float* const* d_fields) {
    const Network net = network_of(sizes, x, weights, biases, field_vectors, field_rows);
    const int64_t blocks = sizes[6], num_layers = sizes[2], hidden_width = net.layers[0].out;
    const int64_t* widths = sizes + 9;
    std::vector<std::unique_ptr<Sums>> sums(blocks);
    in_parallel(sizes[5], blocks, [&](int64_t block) {
        Values d_hidden = tile_of(net);
        const Tile d_tile = pointers_to(d_hidden);
        sums[block].reset(new Sums(net));
        const int64_t end = net.rows * (block + 1) / blocks;
        for (int64_t begin = net.rows * block / blocks; begin < end; begin += kTile) {
            const int64_t count = std::min(kTile, end - begin);
            back_tile(net, begin, count, d_logits, rows_of(net, hidden, begin), d_tile, *sums[block], d_x);
        }
    });
    Sums total(net);
    for (const std::unique_ptr<Sums>& part : sums) {
        for (int64_t l = 0; l < num_layers; ++l) {
            add(part->weights[l], total.weights[l].data());
            add(part->biases[l], total.biases[l].data());
        }
        for (int64_t f = 0; f < net.num_fields; ++f) add(part->fields[f], total.fields[f].data());
        add(part->score, total.score.data());
        total.score_bias += part->score_bias;
    }
    for (int64_t l = 0; l < num_layers; ++l) {
        if (l) add_part(total.weights[l], net.layers[l].in, widths[l], widths[l - 1], d_weights[l]);
        add_part(total.biases[l], widths[l], 1, widths[l], d_biases[l]);
    }
    add_part(total.score, widths[num_layers - 1], 1, widths[num_layers - 1], d_weights[num_layers]);
    *d_biases[num_layers] += total.score_bias;
    for (int64_t h = 0; h < widths[0]; ++h) {
        const float* from = &total.weights[0][h * net.width];
        for (const Columns& part : net.of_x)
            for (int64_t i = 0; i < part.width; ++i) d_weights[0][h * net.first_width + part.start + i] += *from++;
    }
    for (int64_t f = 0; f < net.num_fields; ++f) {
        const Field& field = net.fields[f];
        std::vector<float> d_weight(field.width * hidden_width);
        product(field.width, field.size, hidden_width, {field.vectors, 1, field.width}, total.fields[f].data(), hidden_width,
                {d_weight.data(), hidden_width});
        for (int64_t d = 0; d < field.width; ++d)
            for (int64_t h = 0; h < widths[0]; ++h) d_weights[0][h * net.first_width + field.start + d] += d_weight[d * hidden_width + h];
        for (int64_t v = 0; v < field.size; ++v)
            for (int64_t d = 0; d < field.width; ++d)
                d_fields[f][v * field.width + d] += dot(&total.fields[f][v * hidden_width], &field.weight[d * hidden_width], hidden_width);
    }
}

}  // extern "C"
