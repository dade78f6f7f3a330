// config.json of a model from elsewhere: what was read is written so that it reads back to the same model.
#include "trainer/checkpoint/hf_config.h"

#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {

bool run_hf_config(std::string_view input) {
  const bool both = input.find('\0') != std::string_view::npos;
  const std::string_view config_json = both ? take_before_nul(input) : input;
  const auto directory = folder(both ? "hf-generation" : "hf"), other = folder("hf-again");
  put(directory / "config.json", config_json);
  if (both) put(directory / "generation_config.json", input);
  HfConfig config;
  if (!reads([&] { config = read_hf_config(directory); })) return false;
  for (const auto& warning : config.warnings) check_refusal(warning);
  require(config.model.problems().empty(), "a model that was read can be built");
  write_hf_config(other, config);
  const HfConfig again = read_hf_config(other);
  require(again.model == config.model, "a model's config.json reads back to the same model");
  require(again.bos == config.bos && again.eos == config.eos, "special ids read back to the same");
  return true;
}

}  // namespace smoe::fuzz
