#include "tests/fuzz/targets.h"

#include <array>

namespace smoe::fuzz {

std::span<const Target> targets() {
  static constexpr std::array all = {Target{"tokenizer", run_tokenizer},
                                     Target{"tokenizer_json", run_tokenizer_json},
                                     Target{"safetensors", run_safetensors},
                                     Target{"config", run_config},
                                     Target{"json", run_json},
                                     Target{"npy", run_npy},
                                     Target{"megatron", run_megatron},
                                     Target{"lines", run_lines},
                                     Target{"packed", run_packed},
                                     Target{"manifest", run_manifest},
                                     Target{"hf_config", run_hf_config},
                                     Target{"adapter", run_adapter},
                                     Target{"mistral_params", run_mistral_params},
                                     Target{"metrics", run_metrics}};
  return all;
}

}  // namespace smoe::fuzz
