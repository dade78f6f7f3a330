// The tensors of an adapter's file, each by the matrices that it is beside.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/safetensors.h"
#include "trainer/checkpoint/matrix_names.h"
#include "trainer/checkpoint/peft_adapter.h"
#include "trainer/checkpoint/peft_config.h"

namespace smoe {

// One pass over a file's header. No number is read.
class PeftTensors {
 public:
  PeftTensors(const AdapterSettings& settings, const MatrixNames& names, const SafetensorsReader& file);

  std::map<std::size_t, AdapterPair> pairs;
  std::vector<std::string> problems;  // one a tensor or a name that does not fit

 private:
  struct Both {
    const TensorInfo *a = nullptr, *b = nullptr;
  };
  // [out,in] of one expert's part of a fused parameter.
  struct Fused {
    std::int64_t layer = 0, rows = 0, columns = 0;
    bool gate_up = false;
    std::string parameter;  // its path
  };

  void sort(const TensorInfo& tensor);
  void refuse_unknown(const TensorInfo& tensor);
  void add_matrix(const std::string& path, const Both& tensors);
  void add_experts(const std::string& path, const Both& tensors);
  bool fused_at(const std::string& path, Fused& fused);
  void add_fused(const std::string& path, const Both& tensors, const Fused& fused);
  // That the file has this matrix's adapter there. Says so, and false, where it has it elsewhere too.
  bool claim(std::size_t matrix, const std::string& path);
  // Whether A and B are there, of numbers, and of these shapes; else says so.
  bool fits(const std::string& path, const Both& tensors, const std::vector<std::int64_t>& a,
            const std::vector<std::int64_t>& b);
  void add(std::size_t matrix, AdapterPair pair, const std::string& settings_path);
  // known: false where it cannot be told, which is said.
  bool in_other_order(const std::string& path, const Both& tensors, const Fused& fused, bool& known);
  void check_names_that_are_given();
  void refuse_names_without_a_match(const std::set<std::string>& matched);

  const AdapterSettings& settings_;
  const MatrixNames& names_;
  std::map<std::string, Both> by_path_;
  std::map<std::size_t, std::string> place_;  // of each matrix that the file has an adapter of, fit or not
};

}  // namespace smoe
