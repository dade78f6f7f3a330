#include "trainer/checkpoint/tensor_places.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "parallel/split.h"
#include "trainer/checkpoint/slice_pieces.h"

namespace smoe {
namespace {

constexpr std::string_view layers_prefix = "model.layers.", moe_block = ".block_sparse_moe.";

struct Renamed {
  std::string_view ours, mistrals;
  Arrangement arrangement = Arrangement::same;
};
constexpr Renamed outside_layers[] = {{"model.embed_tokens.weight", "tok_embeddings.weight"},
                                      {"model.norm.weight", "norm.weight"},
                                      {"lm_head.weight", "output.weight"}};
// Behind "layers.N.".
constexpr Renamed in_layers[] = {
    {"self_attn.q_proj.weight", "attention.wq.weight", Arrangement::neighbours},
    {"self_attn.k_proj.weight", "attention.wk.weight", Arrangement::neighbours},
    {"self_attn.v_proj.weight", "attention.wv.weight"},
    {"self_attn.o_proj.weight", "attention.wo.weight"},
    {"input_layernorm.weight", "attention_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"block_sparse_moe.gate.weight", "feed_forward.gate.weight"},
};

// "model.layers.3.block_sparse_moe.experts.5.w1.weight": 3, 5 and w1.
struct ExpertName {
  std::string layer;  // "model.layers.3"
  std::int64_t expert = 0;
  std::string matrix;  // w1, w2 or w3
};

ExpertName parse_expert(const std::string& name) {
  const auto at = name.find(moe_block);
  const std::string rest = name.substr(at + moe_block.size());  // "experts.5.w1.weight"
  std::size_t digits = 0;
  const std::int64_t expert = std::stoll(rest.substr(8), &digits);
  return {name.substr(0, at), expert, rest.substr(8 + digits + 1, 2)};
}

void add_transformers_experts(std::vector<TensorPlace>& places, const ExpertName& name,
                              const std::vector<std::int64_t>& shape, std::int64_t experts) {
  const char* spelled_out = name.matrix == "w1" ? "gate_proj" : name.matrix == "w2" ? "down_proj" : "up_proj";
  const std::int64_t rows = shape[0], columns = shape[1], elements = rows * columns;
  for (const char* parent : {".block_sparse_moe.experts.", ".mlp.experts."}) {
    const std::string prefix = name.layer + parent;
    for (const char* weight : {name.matrix.c_str(), spelled_out})
      places.push_back({fmt::format("{}{}.{}.weight", prefix, name.expert, weight), shape});
    // Fused: w1's rows stand before w3's in gate_up_proj [E,2F,D].
    if (name.matrix == "w2")
      places.push_back({prefix + "down_proj", {experts, rows, columns}, name.expert * elements});
    else
      places.push_back({prefix + "gate_up_proj",
                        {experts, 2 * rows, columns},
                        (2 * name.expert + (name.matrix == "w3")) * elements});
  }
}

// All experts of a matrix are [E F, D] there, w2 transposed.
void add_mistral_experts(std::vector<TensorPlace>& places, const ExpertName& name,
                         const std::vector<std::int64_t>& shape, std::int64_t experts) {
  const std::string layer = name.layer.substr(std::string_view("model.").size());
  places.push_back({fmt::format("{}.feed_forward.experts.{}.{}.weight", layer, name.expert, name.matrix), shape});
  const bool down = name.matrix == "w2";
  const std::int64_t inner = down ? shape[1] : shape[0], hidden = down ? shape[0] : shape[1];
  places.push_back({fmt::format("{}.block_sparse_moe.{}", layer, name.matrix),
                    {experts * inner, hidden},
                    name.expert * inner * hidden,
                    down ? Arrangement::columns_first : Arrangement::same});
}

void add_mistral_name(std::vector<TensorPlace>& places, const std::string& name, const std::vector<std::int64_t>& shape,
                      std::int64_t head_size) {
  for (const Renamed& each : outside_layers)
    if (name == each.ours) places.push_back({std::string(each.mistrals), shape});
  if (!name.starts_with(layers_prefix)) return;
  const std::size_t dot = name.find('.', layers_prefix.size());
  if (dot == std::string::npos) return;
  const std::string layer = name.substr(std::string_view("model.").size(), dot + 1 - std::string_view("model.").size());
  for (const Renamed& each : in_layers)
    if (std::string_view(name).substr(dot + 1) == each.ours)
      places.push_back({layer + std::string(each.mistrals), shape, 0, each.arrangement,
                        each.arrangement == Arrangement::neighbours ? head_size : 0});
  if (name.ends_with(".block_sparse_moe.gate.weight")) places.push_back({layer + name.substr(dot + 1), shape});
}

// Row by row: rows of a head come from elsewhere in it.
void read_neighbours(const TensorDirectory& files, const TensorPlace& place, const Parameter& p, float* slice) {
  const std::int64_t columns = p.shape[1], half = place.head_size / 2;
  for_each_piece(p, 0, p.slice.elements(), [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t row = (on_disk + done) / columns, column = (on_disk + done) % columns;
      const std::int64_t n = std::min(columns - column, count - done);
      const std::int64_t in_head = row % place.head_size;
      const std::int64_t theirs = row - in_head + 2 * (in_head % half) + in_head / half;
      files.read_f32(place.tensor, slice + here + done, place.first + theirs * columns + column, n);
      done += n;
    }
  });
}

// A block of their rows, which are our columns, at a time.
void read_columns_first(const TensorDirectory& files, const TensorPlace& place, const Parameter& p, float* slice) {
  constexpr std::int64_t block_rows = 64;
  const std::int64_t rows = p.shape[0], first_row = p.first[0], first_column = p.first[1], columns = p.slice[1];
  std::vector<float> theirs(static_cast<std::size_t>(block_rows * rows));
  for (std::int64_t done = 0; done < columns; done += block_rows) {
    const std::int64_t n = std::min(block_rows, columns - done);
    files.read_f32(place.tensor, theirs.data(), place.first + (first_column + done) * rows, n * rows);
    for (std::int64_t r = 0; r < p.slice[0]; ++r)
      for (std::int64_t c = 0; c < n; ++c)
        slice[r * columns + done + c] = theirs[static_cast<std::size_t>(c * rows + first_row + r)];
  }
}

}  // namespace

std::vector<TensorPlace> places_of(const std::string& name, const std::vector<std::int64_t>& shape,
                                   const ModelConfig& model, bool tied_head) {
  std::vector<TensorPlace> places{{name, shape}};
  const auto in_block = name.find(moe_block);
  if (in_block != std::string::npos &&
      std::string_view(name).substr(in_block + moe_block.size()).starts_with("experts.")) {
    const ExpertName expert = parse_expert(name);
    add_transformers_experts(places, expert, shape, model.num_local_experts);
    add_mistral_experts(places, expert, shape, model.num_local_experts);
    return places;
  }
  if (in_block != std::string::npos)
    places.push_back({name.substr(0, in_block) + ".mlp." + name.substr(in_block + moe_block.size()), shape});
  add_mistral_name(places, name, shape, model.head_size());
  if (tied_head)
    for (const auto& [one, other] : {std::pair{"lm_head.weight", "model.embed_tokens.weight"},
                                     std::pair{"model.embed_tokens.weight", "lm_head.weight"}})
      if (name == one)
        for (const TensorPlace& place : places_of(other, shape, model)) places.push_back(place);
  return places;
}

TensorPlace place_in(const TensorDirectory& files, const ModelConfig& model, const std::string& name,
                     const std::vector<std::int64_t>& shape, bool tied_head) {
  const auto places = places_of(name, shape, model, tied_head);
  const auto found = std::find_if(places.begin(), places.end(),
                                  [&](const TensorPlace& place) { return files.contains(place.tensor); });
  return found == places.end() ? places.front() : *found;
}

void read_slice(const TensorDirectory& files, const TensorPlace& place, const Parameter& p, float* slice) {
  switch (place.arrangement) {
    case Arrangement::same:
      return for_each_piece(p, 0, p.slice.elements(), [&](std::int64_t on_disk, std::int64_t here, std::int64_t count) {
        files.read_f32(place.tensor, slice + here, place.first + on_disk, count);
      });
    case Arrangement::neighbours: return read_neighbours(files, place, p, slice);
    case Arrangement::columns_first: return read_columns_first(files, place, p, slice);
  }
}

}  // namespace smoe
