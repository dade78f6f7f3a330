// How rotary frequencies are stretched beyond the positions a model was first trained on. Names, meanings and defaults are
// those of transformers' rope_parameters; what can be inferred there is a number here.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace smoe {

enum class RopeType { standard, linear, dynamic, yarn, llama3 };

inline constexpr auto choices(RopeType) {
  return std::array<std::pair<RopeType, std::string_view>, 5>{{{RopeType::standard, "default"},
                                                               {RopeType::linear, "linear"},
                                                               {RopeType::dynamic, "dynamic"},
                                                               {RopeType::yarn, "yarn"},
                                                               {RopeType::llama3, "llama3"}}};
}

// Fields that a type does not read keep their defaults, so that equal scalings compare equal.
struct RopeScaling {
  RopeType type = RopeType::standard;
  double factor = 1.0;                                // all but standard: how many times longer
  std::int64_t original_max_position_embeddings = 0;  // yarn, llama3: positions before stretching
  double low_freq_factor = 1.0;   // llama3: original positions / wavelength, below which frequencies
  double high_freq_factor = 4.0;  //   are divided by the factor, and above which they are kept
  double beta_fast = 32.0;        // yarn: rotations over the original positions, above which
  double beta_slow = 1.0;         //   frequencies are kept, and below which they are divided
  bool truncate = true;           // yarn: the range between the two in whole dims
  double attention_factor = 1.0;  // yarn: cosines and sines are multiplied by it

  bool operator==(const RopeScaling&) const = default;
};

}  // namespace smoe
