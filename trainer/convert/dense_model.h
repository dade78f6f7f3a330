// A dense Llama or Mistral in a Hugging Face directory, as upcycling reads it: checked as a whole before a number is used.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/files/tensor_directory.h"
#include "model/model_config.h"

namespace smoe {

class DenseModel {
 public:
  // Absent keys have the defaults of LlamaConfig or MistralConfig, not of MixtralConfig. Throws std::runtime_error with the
  // file and the key, or with all tensors that do not fit, where the directory is none of a dense Llama or Mistral, or holds
  // what a Mixtral has no place for: biases, another activation, quantized weights, rope scalings that are not computed
  // here, experts.
  explicit DenseModel(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  const Json& config() const { return config_; }       // config.json as it was found
  const ModelConfig& shape() const { return shape_; }  // as a Mixtral of one expert, which computes the same
  const TensorDirectory& tensors() const { return *tensors_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

  // The tensor of this model that a Mixtral's comes from; of expert 0 in place of any. With tied embeddings the head is the
  // embedding. Not for routers.
  std::string source_of(const std::string& mixtral_name) const;

 private:
  void read_config();
  void check_tensors();
  void check_tied_head();

  std::filesystem::path directory_;
  Json config_;
  ModelConfig shape_;
  bool tied_ = false;
  std::vector<std::string> warnings_;
  std::optional<TensorDirectory> tensors_;
};

// "key: A has x, B has y" of the first key in which two models differ that must be one shape, or compute otherwise than alike;
// empty where there is none. Lengths of context may differ.
std::string difference_in_shape(const DenseModel& a, const DenseModel& b);

}  // namespace smoe
