// A LoRA adapter's directory as PEFT writes it, adapter_config.json and adapter_model.safetensors, opened: which matrices of a model
// it is beside, and where their A and B lie. Read are
//   base_model.model.PATH.lora_{A,B}[.NAME].weight   of one matrix, PATH in any spelling (matrix_names.h): A [r,in], B [out,r]
//   ....experts[.base_layer].lora_{A,B}.weight       of all experts' down_proj, or gate_up_proj inside it: PEFT's
//                                                    target_parameters, as it is on transformers 5
// Of the latter A is [E r,in], row e r + j, and B [out,r E], column j E + e; w1 and w3 share A, and have the first and the second
// half of B's rows. PEFT 0.17 and 0.18 have in and out the other way round (what is called A is then B, transposed): that is
// told by the shapes and, where in is out, by peft_version.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/safetensors.h"
#include "model/lora_config.h"
#include "model/model_config.h"
#include "trainer/checkpoint/matrix_names.h"
#include "trainer/checkpoint/peft_config.h"

namespace smoe {

inline constexpr char kAdapterFile[] = "adapter_model.safetensors";
inline constexpr char kPeftPrefix[] = "base_model.model.";  // of a tensor's name, before the parameter's

// Numbers [rows,columns] that lie in a tensor at any distances from each other.
struct MatrixInTensor {
  std::string tensor;
  std::int64_t rows = 0, columns = 0;
  std::int64_t first = 0, row = 0, column = 1;  // elements: where [0,0] is, and how far apart rows and columns are
};

// Beside W [out,in]: W + scale * B A.
struct AdapterPair {
  MatrixInTensor a, b;  // [rank,in], [out,rank]
  std::int64_t rank = 0;
  double alpha = 0, scale = 0;
};

// As a configuration of our own, which has one rank and one scale for all: the rank is the largest, and smaller ones are filled up
// with zeros; scales become one by multiplying B, which where they are one already changes nothing.
struct PeftConfig {
  LoraConfig lora;
  std::string base;                   // base_model_name_or_path, may be empty
  std::vector<std::string> warnings;  // what a user should know
};

class PeftAdapter {
 public:
  // Throws std::runtime_error for what read_adapter_settings() refuses, for pickles, and one that lists all tensors that are missing,
  // left over, of another shape or rank, or of a type other than f32, f64, bf16 and f16.
  PeftAdapter(const std::filesystem::path& directory, const ModelConfig& model);

  const std::filesystem::path& directory() const { return directory_; }
  const MatrixNames& names() const { return names_; }
  const AdapterSettings& settings() const { return settings_; }
  // By the matrix's place in names().
  const std::map<std::size_t, AdapterPair>& pairs() const { return pairs_; }
  const AdapterPair* find(std::size_t matrix) const {
    const auto found = pairs_.find(matrix);
    return found == pairs_.end() ? nullptr : &found->second;
  }
  // Throws std::runtime_error where some experts or layers between others have no adapter: LoraConfig cannot say that.
  PeftConfig config() const;

  struct Block {
    std::int64_t first_row = 0, rows = 0, first_column = 0, columns = 0;
  };
  // Part of a matrix as f32, its rows `stride` numbers apart.
  void read(const MatrixInTensor& matrix, const Block& block, float* out, std::int64_t stride) const;

 private:
  std::filesystem::path directory_;
  AdapterSettings settings_;
  MatrixNames names_;
  SafetensorsReader file_;
  std::map<std::size_t, AdapterPair> pairs_;
};

}  // namespace smoe
