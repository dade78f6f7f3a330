// params.json of a model in Mistral's own format: what was read is written as a config.json that reads back to the same model.
#include "trainer/checkpoint/mistral_params.h"

#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {

bool run_mistral_params(std::string_view input) {
  const auto directory = folder("mistral"), other = folder("mistral-again");
  put(directory / mistral_params_file, input);
  HfConfig config;
  if (!reads([&] { config = read_hf_config(directory); })) return false;
  for (const auto& warning : config.warnings) check_refusal(warning);
  require(config.model.problems().empty(), "a model that was read can be built");
  write_hf_config(other, config);
  require(read_hf_config(other).model == config.model, "its config.json reads back to the same model");
  return true;
}

}  // namespace smoe::fuzz
