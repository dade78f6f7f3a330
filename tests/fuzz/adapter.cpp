// An adapter's directory as PEFT writes it: what was opened can be read, every number of it, and written again.
#include "data/files/json.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"
#include "trainer/checkpoint/peft_adapter.h"

namespace smoe::fuzz {

bool run_adapter(std::string_view input) {
  const auto directory = folder("adapter"), other = folder("adapter-again");
  put(directory / kAdapterConfigFile, take_before_nul(input));
  put(directory / kAdapterFile, input);
  ModelConfig model;
  model.hidden_size = 4;
  model.intermediate_size = 3;
  model.num_hidden_layers = 2;
  model.num_attention_heads = 2;
  model.num_key_value_heads = 1;
  model.num_local_experts = 2;
  std::optional<PeftAdapter> adapter;
  if (!reads([&] { adapter.emplace(directory, model); })) return false;
  for (const std::string& warning : adapter->settings().warnings) check_refusal(warning);
  require(!adapter->pairs().empty(), "an adapter that was opened is beside something");
  for (const auto& [matrix, pair] : adapter->pairs())
    for (const MatrixInTensor& part : {pair.a, pair.b}) {
      std::vector<float> numbers(static_cast<std::size_t>(part.rows * part.columns));
      adapter->read(part, {0, part.rows, 0, part.columns}, numbers.data(), part.columns);
    }
  PeftConfig config;
  if (!reads([&] { config = adapter->config(); })) return true;
  require(config.lora.problems(model.num_hidden_layers).empty(), "a configuration that was read can be trained");
  write_peft_config(other, config.lora, config.base, model);
  const AdapterSettings again = read_adapter_settings(other);
  require(again.r == config.lora.r && again.base == config.base, "what is written reads back to the same");
  return true;
}

}  // namespace smoe::fuzz
