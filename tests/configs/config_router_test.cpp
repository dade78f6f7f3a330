// The keys of the router: every form they may have, and every refusal with its whole message.
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "configs/validate.h"
#include "configs/yaml_printer.h"
#include "tests/configs/config_test_support.h"

namespace smoe {
namespace {

RouterConfig router_of(const std::string& keys) {
  return parse_config("router: {" + keys + "}\n" + minimal_yaml, "c.yaml").router;
}
std::string printed(const std::string& keys) {
  const std::string yaml = print_yaml(parse_config("router: {" + keys + "}\n" + minimal_yaml, "c.yaml"));
  const auto from = yaml.find("  aux_loss_coef"), to = yaml.find("  target_max_vio");
  return yaml.substr(from, to - from);
}

TEST(ConfigRouter, ACoefficientIsANumberOrOneALayer) {
  EXPECT_EQ(router_of("aux_loss_coef: 0.5").aux_loss_coef, 0.5);
  const RouterConfig by_layer = router_of("aux_loss_coef: [0.5, 0, 1, 2e-3]");
  EXPECT_EQ(by_layer.aux_loss_coef_by_layer, (std::vector<double>{0.5, 0, 1, 2e-3}));
  EXPECT_EQ(printed("aux_loss_coef: [0.5, 0, 1, 2e-3]"),
            "  aux_loss_coef: [0.5, 0.0, 1.0, 0.002]\n  aux_loss_scope: global_batch\n  aux_loss_schedule: constant\n");
  EXPECT_EQ(with_overrides({"router.aux_loss_coef=[1, 2, 3, 4]"}).router.aux_loss_coef_by_layer.size(), 4u);
}

TEST(ConfigRouter, SchedulesAreReadAndPrintedBack) {
  const AuxLossSchedule linear = router_of("aux_loss_schedule: {type: linear, to: 0, steps: 100}").aux_loss_schedule;
  EXPECT_EQ(linear.type, AuxLossScheduleType::linear);
  EXPECT_EQ(linear.to, 0.0);
  EXPECT_EQ(linear.steps, 100);
  EXPECT_FALSE(linear.from);
  const std::string cosine = "aux_loss_schedule: {type: cosine, from: 0.0, to: 0.02, steps: 7}";
  EXPECT_TRUE(printed(cosine).ends_with("  " + cosine + "\n")) << printed(cosine);
  const std::string steps = "aux_loss_schedule: {type: steps, at: [{step: 10, factor: 0.5}, {step: 20, factor: 0.0}]}";
  EXPECT_TRUE(printed(steps).ends_with("  " + steps + "\n")) << printed(steps);
  EXPECT_EQ(router_of(steps).aux_loss_schedule.at.size(), 2u);
  EXPECT_EQ(router_of("aux_loss_schedule: {type: constant}").aux_loss_schedule, AuxLossSchedule{});
  EXPECT_EQ(with_overrides({"router.aux_loss_schedule.type=linear", "router.aux_loss_schedule.to=0.1",
                            "router.aux_loss_schedule.steps=3"})
                .router.aux_loss_schedule.to,
            0.1);
}

TEST(ConfigRouter, AScheduleThatDoesNotArriveIsWarnedOf) {
  const auto warnings = [](const std::string& schedule) {
    return find_warnings(with_overrides({"router.aux_loss_schedule=" + schedule, "train.steps=200"}));
  };
  EXPECT_EQ(warnings("{type: linear, to: 0, steps: 200}"), std::vector<std::string>{});
  EXPECT_EQ(warnings("{type: linear, to: 0, steps: 201}"),
            std::vector<std::string>{
                "router.aux_loss_schedule takes 201 steps and the run has 200: the coefficient does not arrive"});
  EXPECT_EQ(warnings("{type: steps, at: [{step: 500, factor: 0}]}"),
            std::vector<std::string>{"router.aux_loss_schedule changes at step 500 and the run has 200"});
}

// 32 sequences of 512 tokens to 2 of 8 experts: a mean load of 4096.
TEST(ConfigRouter, ATargetIsRefusedWhereNoStepCanHaveItAndWarnedOfWhereChanceIsAboveIt) {
  EXPECT_EQ(router_of("target_max_vio: 0.3").target_max_vio, 0.3);
  const auto warnings = [](const std::string& target) {
    return find_warnings(with_overrides({"router.target_max_vio=" + target}));
  };
  EXPECT_EQ(warnings("0.1"), std::vector<std::string>{});
  // sqrt(3/4 / 4096 * 2 ln 32) = 0.0356
  EXPECT_EQ(warnings("0.03"),
            std::vector<std::string>{
                "router.target_max_vio is 0.03: even routers that favour no expert have about 0.036 by chance in a "
                "step of 16384 tokens"});
  EXPECT_EQ(warnings("0.000244140625").size(), 1u) << "one assignment in 4096";
  EXPECT_EQ(find_warnings(with_overrides({})), std::vector<std::string>{});
}

TEST(ConfigRouter, FrozenRoutersHaveNoAdapters) {
  const std::vector<std::string> both = {"router.frozen=true", "lora.target_modules=[w1, gate]"};
  EXPECT_EQ(
      refusal(minimal_yaml, both),
      "command line: router.frozen: found true with gate among lora.target_modules, expected one of the two: adapters beside the "
      "routers change them");
  EXPECT_EQ(refusal(minimal_yaml, {"router.frozen=true", "lora.target_modules=[w1]"}), "");
  EXPECT_EQ(refusal(minimal_yaml, {"lora.target_modules=[w1, gate]"}), "");
}

struct RefusedRouter {
  std::string name;
  std::string router;  // its keys, on line 1 from column 10 on
  std::string message;
};
void PrintTo(const RefusedRouter& refused, std::ostream* out) { *out << refused.name; }

class ConfigBadInputRouter : public testing::TestWithParam<RefusedRouter> {};

TEST_P(ConfigBadInputRouter, IsRefused) {
  EXPECT_EQ(refusal_of("router: {" + GetParam().router + "}"), GetParam().message);
}

const std::string variants = "constant | linear | cosine | steps, or {type, from, to, steps, at: [{step, factor}]}";

const std::vector<RefusedRouter> refused_routers = {
    {"bias_rate_negative", "bias_update_rate: -0.001",
     "c.yaml:1:28: router.bias_update_rate: found -0.001, expected a finite number in [0, 1]"},
    {"bias_rate_nan", "bias_update_rate: .nan",
     "c.yaml:1:28: router.bias_update_rate: found '.nan', expected a finite number in [0, 1]"},
    {"coefficient_word", "aux_loss_coef: some",
     "c.yaml:1:25: router.aux_loss_coef: found 'some', expected a finite number in [0, inf), or a list of one a layer"},
    {"coefficient_negative", "aux_loss_coef: -1",
     "c.yaml:1:25: router.aux_loss_coef: found -1, expected a finite number in [0, inf)"},
    {"coefficients_empty", "aux_loss_coef: []",
     "c.yaml:1:25: router.aux_loss_coef: found a list, expected a finite number in [0, inf), or a list of one a layer; this one is "
     "empty"},
    {"coefficients_too_few", "aux_loss_coef: [1, 2]",
     "c.yaml:1:25: router.aux_loss_coef: found a list of 2, expected one number a layer (model.num_hidden_layers is 4)"},
    {"coefficients_negative", "aux_loss_coef: [1, 2, -3, 4]",
     "c.yaml:1:32: router.aux_loss_coef.2: found -3, expected a finite number in [0, inf)"},
    {"coefficients_nan", "aux_loss_coef: [1, .nan, 3, 4]",
     "c.yaml:1:29: router.aux_loss_coef.1: found '.nan', expected a finite number in [0, inf)"},
    {"coefficients_in_quotes", "aux_loss_coef: [1, 2, 3, '4']",
     "c.yaml:1:35: router.aux_loss_coef.3: found the text \"4\", expected a finite number in [0, inf); in quotes it is text: write 4 "
     "without them"},
    {"coefficients_pooled", "aux_loss_scope: hf, aux_loss_coef: [1, 2, 3, 4]",
     "c.yaml:1:45: router.aux_loss_coef: found a list, expected a number: in router.aux_loss_scope hf the layers are pooled into one "
     "loss"},
    {"target_negative", "target_max_vio: -0.1",
     "c.yaml:1:26: router.target_max_vio: found -0.1, expected a finite number in (0, inf) or null"},
    {"target_nan", "target_max_vio: .nan",
     "c.yaml:1:26: router.target_max_vio: found '.nan', expected a finite number in (0, inf) or null"},
    {"target_below_an_assignment", "target_max_vio: 2.4e-4",
     "c.yaml:1:26: router.target_max_vio: found 0.00024, expected at least 0.000244: with a mean load of 4096 assignments an expert and "
     "step, one assignment more is that much"},
    {"target_of_collapse", "target_max_vio: 3",
     "c.yaml:1:26: router.target_max_vio: found 3.0, expected less than 3: MaxVio is never above that, which it is with all tokens on the "
     "same model.num_experts_per_tok"},
    {"target_without_a_coefficient", "aux_loss_coef: 0, target_max_vio: 0.3",
     "c.yaml:1:44: router.target_max_vio: found with router.aux_loss_coef 0, expected one above 0: it is what is steered, and steering "
     "multiplies it"},
    {"target_without_a_coefficient_in_any_layer", "target_max_vio: 0.3, aux_loss_coef: [0, 0, 0, 0]",
     "c.yaml:1:26: router.target_max_vio: found with router.aux_loss_coef 0, expected one above 0: it is what is steered, and steering "
     "multiplies it"},
    {"target_and_schedule", "target_max_vio: 0.3, aux_loss_schedule: {type: linear, to: 0, steps: 5}",
     "c.yaml:1:26: router.target_max_vio: found with router.aux_loss_schedule linear, expected constant beside it: both set the "
     "coefficient"},
    {"target_and_bias", "target_max_vio: 0.3, bias_update_rate: 1e-3",
     "c.yaml:1:26: router.target_max_vio: found with router.bias_update_rate 0.001, expected one of them: the bias alone brings MaxVio "
     "down, and the coefficient would end at its lower bound"},
    {"schedule_slip", "aux_loss_schedule: constnat",
     "c.yaml:1:29: router.aux_loss_schedule: found 'constnat', expected " + variants + "; did you mean 'constant'?"},
    {"schedule_list", "aux_loss_schedule: [linear]",
     "c.yaml:1:29: router.aux_loss_schedule: found a list, expected " + variants},
    {"schedule_null", "aux_loss_schedule: null",
     "c.yaml:1:10: router.aux_loss_schedule: found nothing (null), expected " + variants},
    {"schedule_without_a_type", "aux_loss_schedule: {to: 0, steps: 5}",
     "c.yaml:1:29: router.aux_loss_schedule: found a map, expected " + variants + ": type is missing"},
    {"schedule_of_a_word_that_needs_more", "aux_loss_schedule: linear",
     "c.yaml:1:29: router.aux_loss_schedule.to: found nothing, expected it with type linear\n"
     "c.yaml:1:29: router.aux_loss_schedule.steps: found nothing, expected it with type linear"},
    {"schedule_that_ends_before_it_starts", "aux_loss_schedule: {type: linear, to: 0, steps: 0}",
     "c.yaml:1:58: router.aux_loss_schedule.steps: found 0, expected an integer in [1, 1000000000] or null"},
    {"schedule_of_negative_steps", "aux_loss_schedule: {type: cosine, to: 0, steps: -5}",
     "c.yaml:1:58: router.aux_loss_schedule.steps: found -5, expected an integer in [1, 1000000000] or null"},
    {"schedule_to_a_negative", "aux_loss_schedule: {type: cosine, to: -1, steps: 5}",
     "c.yaml:1:48: router.aux_loss_schedule.to: found -1, expected a finite number in [0, inf) or null"},
    {"schedule_from_nan", "aux_loss_schedule: {type: cosine, from: .nan, to: 1, steps: 5}",
     "c.yaml:1:50: router.aux_loss_schedule.from: found '.nan', expected a finite number in [0, inf) or null"},
    {"schedule_of_another_type", "aux_loss_schedule: {type: steps, to: 1, at: [{step: 5, factor: 0}]}",
     "c.yaml:1:47: router.aux_loss_schedule.to: found with type steps, which has none, expected it absent"},
    {"schedule_without_steps", "aux_loss_schedule: steps",
     "c.yaml:1:29: router.aux_loss_schedule.at: found nothing, expected it with type steps"},
    {"schedule_whose_steps_fall", "aux_loss_schedule: {type: steps, at: [{step: 5, factor: 0}, {step: 5, factor: 1}]}",
     "c.yaml:1:77: router.aux_loss_schedule.at.1.step: found 5, expected a later step than that of the entry before it (5)"},
    {"schedule_with_a_step_that_is_none", "aux_loss_schedule: {type: steps, at: [{step: 0, factor: 0}]}",
     "c.yaml:1:55: router.aux_loss_schedule.at.0.step: found 0, expected an integer in [1, 1000000000]"},
    {"schedule_with_a_factor_alone", "aux_loss_schedule: {type: steps, at: [{factor: 0}]}",
     "c.yaml:1:48: router.aux_loss_schedule.at.0.step: found 0, expected an integer in [1, 1000000000]"},
    {"schedule_unknown_key", "aux_loss_schedule: {type: linear, too: 0, steps: 5}",
     "c.yaml:1:44: router.aux_loss_schedule.too: unknown key; did you mean 'router.aux_loss_schedule.to'?"},
    {"schedule_unknown_type", "aux_loss_schedule: {type: line, to: 0, steps: 5}",
     "c.yaml:1:36: router.aux_loss_schedule.type: found 'line', expected one of constant, linear, cosine, steps"},
    {"capacity_order_without_a_capacity", "capacity_order: probability",
     "c.yaml:1:26: router.capacity_order: found probability without router.capacity_factor, expected one beside it: without it "
     "nothing is dropped"},
    {"capacity_order_unknown", "capacity_factor: 1, capacity_order: prob",
     "c.yaml:1:46: router.capacity_order: found 'prob', expected one of position, probability"},
    {"capacity_factor_zero", "capacity_factor: 0",
     "c.yaml:1:27: router.capacity_factor: found 0, expected a finite number in (0, inf) or null"},
    {"forced_unknown", "forced_routing: even",
     "c.yaml:1:26: router.forced_routing: found 'even', expected none | uniform | skewed, or {type, max_vio}"},
    {"forced_skewed_by_nothing", "forced_routing: skewed",
     "c.yaml:1:26: router.forced_routing.max_vio: found nothing, expected it with type skewed"},
    {"forced_uniform_with_a_max_vio", "forced_routing: {type: uniform, max_vio: 1}",
     "c.yaml:1:51: router.forced_routing.max_vio: found with type uniform, which has none, expected it absent"},
    {"forced_more_than_collapse", "forced_routing: {type: skewed, max_vio: 3}",
     "c.yaml:1:50: router.forced_routing.max_vio: found 3.0, expected less than 3: MaxVio is never above that, which it is with "
     "all tokens on the same model.num_experts_per_tok"},
    {"forced_unevenly_where_all_experts_are_taken",
     "forced_routing: {type: skewed, max_vio: 0.1}}\nmodel: {num_local_experts: 2, num_experts_per_tok: 2",
     "c.yaml:1:26: router.forced_routing: found skewed, expected none or uniform: every token takes every expert, and no load is "
     "uneven"},
    {"forced_beside_the_bias", "forced_routing: uniform, bias_update_rate: 0.001",
     "c.yaml:1:26: router.forced_routing: found with router.bias_update_rate 0.001, expected one of them: what it would steer by is "
     "not the routers' choice"},
    {"forced_beside_a_target", "forced_routing: uniform, target_max_vio: 0.5",
     "c.yaml:1:26: router.forced_routing: found with router.target_max_vio 0.5, expected one of them: what it would steer by is not "
     "the routers' choice"},
};

INSTANTIATE_TEST_SUITE_P(Router, ConfigBadInputRouter, testing::ValuesIn(refused_routers),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace smoe
