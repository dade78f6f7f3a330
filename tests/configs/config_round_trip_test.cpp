// print_yaml gives text that reads back to the same configuration, whatever the configuration is.
#include <gtest/gtest.h>
#include <rapidcheck.h>
// after both of the above, which it builds on
#include <rapidcheck/gtest.h>

#include <bit>
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "configs/field_text.h"
#include "configs/validate.h"
#include "configs/yaml_printer.h"
#include "tests/configs/config_test_support.h"

namespace smoe {
namespace {

// Visits every field and draws a legal value for it.
class FieldGenerator {
 public:
  template <class Section>
  void section(const char*, Section& value) {
    Section::visit_fields(value, *this);
  }
  // Expanded, as it is in a configuration that was read: nothing is left to expand when it is read again.
  void path(const char*, std::string& value) {
    do value = *any_text();
    while (value.starts_with('~'));
  }
  void path(const char* name, std::optional<std::string>& value) {
    if (*rc::gen::inRange(0, 4) == 0) path(name, value.emplace());
  }
  void integer(const char*, std::int64_t& value, std::string_view interval) { value = *any_integer(interval); }
  void integer(const char*, std::optional<std::int64_t>& value, std::string_view interval) {
    if (*rc::gen::arbitrary<bool>()) value = *any_integer(interval);
  }
  void number(const char*, double& value, std::string_view interval) { value = *any_number(interval); }
  void number(const char*, std::optional<double>& value, std::string_view interval) {
    if (*rc::gen::arbitrary<bool>()) value = *any_number(interval);
  }
  void number_or_numbers(const char* name, double& one, std::vector<double>& some, std::string_view interval) {
    if (*rc::gen::arbitrary<bool>()) return number(name, one, interval);
    some.resize(*rc::gen::inRange<std::size_t>(1, 5));
    for (double& value : some) number(name, value, interval);
  }
  template <class Struct>
  void variant(const char*, Struct& value) {
    Struct::visit_fields(value, *this);
  }
  void flag(const char*, bool& value) { value = *rc::gen::arbitrary<bool>(); }
  template <class Enum>
  void choice(const char*, Enum& value, std::initializer_list<Enum> not_yet = {}) {
    std::vector<Enum> available;
    for (const auto& [choice, name] : choices(value)) {
      if (std::find(not_yet.begin(), not_yet.end(), choice) == not_yet.end()) available.push_back(choice);
    }
    value = *rc::gen::elementOf(available);
  }
  template <class Section>
  void optional_section(const char*, std::optional<Section>& value) {
    if (*rc::gen::arbitrary<bool>()) Section::visit_fields(value.emplace(), *this);
  }
  void integers(const char*, std::vector<std::int64_t>& values, std::string_view interval) {
    values = *rc::gen::container<std::vector<std::int64_t>>(any_integer(interval));
  }
  void texts(const char*, std::vector<std::string>& values) {
    values.resize(*rc::gen::inRange<std::size_t>(0, 4));
    for (std::string& value : values) value = *any_text();
  }
  template <class Struct>
  void list(const char*, std::vector<Struct>& values) {
    values.resize(*rc::gen::inRange<std::size_t>(1, 4));
    for (Struct& value : values) Struct::visit_fields(value, *this);
  }

 private:
  // Small ones mostly, and any of the 64 bits.
  static rc::Gen<std::int64_t> any_integer(std::string_view interval) {
    const std::string bounds(interval);
    return rc::gen::suchThat(
        rc::gen::oneOf(rc::gen::inRange<std::int64_t>(1, 100), rc::gen::inRange<std::int64_t>(1, 60000),
                       rc::gen::arbitrary<std::int64_t>()),
        [bounds](std::int64_t value) { return contains(bounds, value); });
  }
  // Any bits that are a finite number of the interval: all magnitudes, subnormal ones too.
  static rc::Gen<double> any_number(std::string_view interval) {
    const std::string bounds(interval);
    return rc::gen::suchThat(rc::gen::map(rc::gen::arbitrary<std::uint64_t>(),
                                          [bounds](std::uint64_t bits) {
                                            const double value = std::abs(std::bit_cast<double>(bits));
                                            return std::isfinite(value) && !contains(bounds, value) ? 1 / (1 + value)
                                                                                                    : value;
                                          }),
                             [bounds](double value) { return std::isfinite(value) && contains(bounds, value); });
  }
  // Words that YAML has plans for, and strings of characters that it treats specially.
  static rc::Gen<std::string> any_text() {
    const auto pieces = rc::gen::element<std::string>(
        "a", "B", "7", " ", ":", "#", "-", "'", "\"", "\\", "\n", "\t", "{", "}", "[", "]", ",", "&", "*", "!", "|",
        ">", "%", "@", "`", "\x01", "\x7f", "é", "→", "😀", "~", "?", "=", "<<", "...", "---", "\r", "\xc2\x85");
    const auto composed = rc::gen::map(rc::gen::nonEmpty(rc::gen::container<std::vector<std::string>>(pieces)),
                                       [](const std::vector<std::string>& parts) { return joined(parts, ""); });
    const auto words =
        rc::gen::element<std::string>("true", "no", "null", "~", "12", "010", "1e3", ".nan", "auto", "a/b.c", "- a",
                                      "a: b", "a #b", " a", "a ", "0x1f", "1_0", "<<", "...", "---");
    return rc::gen::oneOf(composed, words);
  }
};

void make_consistent(RouterConfig& router, ModelConfig& model) {
  if (router.aux_loss_scope == AuxLossScope::hf) router.aux_loss_coef_by_layer.clear();
  if (!router.aux_loss_coef_by_layer.empty() && !model.from)
    model.num_hidden_layers = static_cast<std::int64_t>(router.aux_loss_coef_by_layer.size());
  AuxLossSchedule& schedule = router.aux_loss_schedule;
  const bool steps = schedule.type == AuxLossScheduleType::steps;
  if (steps || schedule.type == AuxLossScheduleType::constant) {
    schedule.from.reset();
    schedule.to.reset();
    schedule.steps.reset();
  } else {
    schedule.to = schedule.to.value_or(0.0);
    schedule.steps = schedule.steps.value_or(7);
  }
  if (!steps) schedule.at.clear();
  router.target_max_vio.reset();
  if (!model.from && *rc::gen::arbitrary<bool>()) {
    schedule = {};
    router.bias_update_rate = 0;
    model.num_local_experts = 4;
    model.num_experts_per_tok = 2;
    if (router.aux_loss_coef_by_layer.empty()) router.aux_loss_coef = std::max(router.aux_loss_coef, 1e-9);
    if (!router.aux_loss_coef_by_layer.empty()) router.aux_loss_coef_by_layer.front() = 0.5;
    router.target_max_vio = 0.75;
  }
  if (!router.capacity_factor) router.capacity_order = CapacityOrder::position;
  ForcedRouting& forced = router.forced_routing;
  forced.max_vio.reset();
  if (router.bias_update_rate > 0 || router.target_max_vio || model.from) forced = {};
  if (forced.type == ForcedRoutingType::skewed) {
    model.num_local_experts = 4;
    model.num_experts_per_tok = 2;
    forced.max_vio = 0.5;
  }
  std::int64_t step = 0;
  for (auto& change : schedule.at) change.step = step += 1 + change.step % 1000;
}

// Every field is legal by itself; the relations between fields are then made to hold.
RunConfig any_config() {
  RunConfig config;
  FieldGenerator generator;
  RunConfig::visit_fields(config, generator);
  ModelConfig& model = config.model;
  if (model.from) {
    const std::string from = *model.from;
    const auto window = model.sliding_window;
    model = ModelConfig{};
    model.from = from;
    model.sliding_window_given = *rc::gen::arbitrary<bool>();
    if (model.sliding_window_given) model.sliding_window = window;
  } else {
    model.num_attention_heads = 8;
    model.num_key_value_heads = *rc::gen::element<std::int64_t>(1, 2, 4, 8);
    if (model.head_dim) {
      *model.head_dim -= *model.head_dim % 2;
    } else {
      model.hidden_size = 16 * *rc::gen::inRange<std::int64_t>(1, 1000);
    }
    model.num_experts_per_tok = std::min(model.num_experts_per_tok, model.num_local_experts);
    config.data.sequence_length = std::min(config.data.sequence_length, model.max_position_embeddings);
  }
  make_consistent(config.router, config.model);
  if (config.lora) {
    config.router.bias_update_rate = 0;
    config.router.forced_routing = {};
    config.lora->target_modules = {"w1", "w2", config.router.frozen ? "w3" : "gate"};
    if (*rc::gen::arbitrary<bool>()) config.lora->target_modules = {"q_proj"};
    config.lora->layers.clear();
    if (*rc::gen::arbitrary<bool>()) config.lora->layers = {0, 0};
  }
  if (config.data.packing == Packing::best_fit) config.data.document_masking = true;
  if (config.train.epochs) {
    config.train.steps = TrainConfig().steps;
  } else {
    for (auto* sources : {&config.data.train, &config.data.eval})
      for (DataSource& source : *sources) source.weight = source.weight.value_or(1.0);
  }
  config.train.micro_batch_size = std::min<std::int64_t>(config.train.micro_batch_size, 1000);
  config.train.global_batch_size = config.train.micro_batch_size * *rc::gen::inRange<std::int64_t>(1, 100);
  return config;
}

RC_GTEST_PROP(ConfigRoundTrip, ParseOfPrintIsIdentity, ()) {
  const RunConfig config = any_config();
  const std::string yaml = print_yaml(config);
  RC_LOG() << yaml;
  const RunConfig again = parse_config(yaml, "c.yaml");
  RC_LOG() << joined(differences(config, again), "\n");
  RC_ASSERT(again == config);
  RC_ASSERT(print_yaml(again) == yaml);
}

RC_GTEST_PROP(ConfigRoundTrip, OverridesReadWhatIsPrinted, ()) {
  const RunConfig config = any_config();
  std::vector<std::string> overrides;
  for (const FieldText& field : describe_fields(config)) {
    if (config.model.from && field.key.starts_with("model.") && field.key != "model.from" &&
        !(field.key == "model.sliding_window" && config.model.sliding_window_given))
      continue;
    if (field.key == "train.steps" && config.train.epochs) continue;
    if (field.absent || field.value == "{}") continue;
    overrides.push_back(field.key + "=" + field.value);
  }
  RC_ASSERT(parse_config("", "c.yaml", overrides) == config);
}

TEST(ConfigRoundTrip, PrintsEveryKeyInTheOrderOfTheInterface) {
  const std::string yaml = print_yaml(parse_config(minimal_yaml, "c.yaml"));
  EXPECT_TRUE(yaml.starts_with("model:\n  from: null\n  vocab_size: 32000\n")) << yaml;
  EXPECT_NE(yaml.find("data:\n  train:\n    - {path: shards, weight: 1.0}\n  eval: []\n"), std::string::npos) << yaml;
  EXPECT_TRUE(yaml.ends_with("  dump_steps: []\n  idle_expert_steps: 100\nlora: null\n")) << yaml;
}

TEST(ConfigRoundTrip, EpochsArePrintedWithoutSteps) {
  const std::string yaml = print_yaml(with_overrides({"train.epochs=2"}));
  EXPECT_NE(yaml.find("train:\n  epochs: 2.0\n  global_batch_size"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find("    - {path: shards}\n"), std::string::npos) << yaml;
  EXPECT_NE(print_yaml(with_overrides({})).find("train:\n  steps: 1000\n  epochs: null\n"), std::string::npos);
}

TEST(ConfigRoundTrip, ModelFromIsPrintedWithoutTheShape) {
  RunConfig config = with_overrides({"model.from=DIR"});
  config.model.hidden_size = 4096;  // as resolved from DIR
  EXPECT_TRUE(print_yaml(config).starts_with("model:\n  from: DIR\nrouter:\n"));
  EXPECT_EQ(parse_config(print_yaml(config), "c.yaml").model.from, "DIR");
}

}  // namespace
}  // namespace smoe
