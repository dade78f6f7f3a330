// smoe resize: a model with another vocabulary. Embedding and head are cut, or get rows behind those that they have; every
// other tensor keeps its bits, and every one its type and name.
//
// A new row is the mean of all old ones, of embedding and head each, summed in f64 and rounded to the tensor's type. So a
// new token begins as an average one: its logit is below the log of the mean of exp of the others (Jensen), and it takes less
// than an even share from them. transformers' resize_token_embeddings(mean_resizing=True) draws about the same mean with 1e-9
// times the rows' covariance.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace smoe {

struct ResizeOptions {
  std::filesystem::path model;  // Hugging Face directory, checkpoint, or run
  std::int64_t vocabulary = 0;  // rows that are wanted
  std::filesystem::path out;    // new or empty
};

struct Resized {
  std::int64_t before = 0;  // rows
  std::uint64_t bytes = 0;  // of weights
  std::vector<std::string> warnings;
};

// Works tensor by tensor, each in pieces. Throws std::runtime_error where the directory is not one with a config.json, its
// tensors do not have the vocabulary that it says, the tokenizer or a special id would not fit what is wanted, or `out` cannot
// be made; nothing is left there then.
Resized resize(const ResizeOptions& options);

}  // namespace smoe
