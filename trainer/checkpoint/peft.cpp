#include "trainer/checkpoint/peft.h"

#include "data/files/json.h"
#include "data/files/safetensors.h"
#include "kernels/host_view.h"

namespace smoe {
PeftConfig read_peft_config(const std::filesystem::path& directory, const ModelConfig&) {
  const Json j = read_json_file(directory / "adapter_config.json");
  PeftConfig c;
  c.lora.r = j.at("r").get<std::int64_t>();
  c.lora.alpha = j.at("lora_alpha").get<double>();
  c.lora.dropout = j.at("lora_dropout").get<double>();
  c.lora.rslora = j.at("use_rslora").get<bool>();
  c.lora.target_modules = j.at("target_modules").get<std::vector<std::string>>();
  c.base = j.at("base_model_name_or_path").get<std::string>();
  return c;
}
void write_peft_config(const std::filesystem::path& directory, const LoraConfig& lora, const std::string& base,
                       const ModelConfig&) {
  write_json_file(directory / "adapter_config.json", OrderedJson{{"r", lora.r},
                                                                 {"lora_alpha", lora.alpha},
                                                                 {"lora_dropout", lora.dropout},
                                                                 {"use_rslora", lora.rslora},
                                                                 {"target_modules", lora.target_modules},
                                                                 {"base_model_name_or_path", base}});
}
void load_adapter(const std::filesystem::path& directory, const PeftConfig&, const ModelConfig&, Backend& backend,
                  ParameterSet& parameters, const ShowNumbers& also) {
  const SafetensorsReader files(directory / "adapter_model.safetensors");
  std::vector<float> staging;
  for (const Parameter& p : parameters) {
    if (!p.adapter) continue;
    const HostView host(backend, p.value, staging);
    for (std::int64_t i = 0; i < p.slice.elements(); ++i)
      files.read_f32("base_model.model." + p.name, host.numbers().data() + i,
                     global_index(p.shape, p.slice, p.first, i), 1);
    if (also) also(p, host.numbers());
    host.store();
  }
}
}  // namespace smoe
