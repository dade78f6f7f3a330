// Every refusal of the reader, with its whole message: place, key, what was found, what was expected, what was meant.
#include <algorithm>
#include <filesystem>

#include "configs/yaml_document.h"
#include "tests/configs/config_test_support.h"

namespace smoe {
namespace {

struct Refused {
  std::string name;
  std::string yaml;  // stands before the minimal configuration
  std::string message;
};

void PrintTo(const Refused& refused, std::ostream* out) { *out << refused.name; }

class ConfigBadInput : public testing::TestWithParam<Refused> {};

TEST_P(ConfigBadInput, IsRefused) { EXPECT_EQ(refusal_of(GetParam().yaml), GetParam().message); }

const std::vector<Refused> refused_values = {
    {"unknown_key", "optimizer:\n  beta1: 0.9\n  learning_rat: 1\n",
     "c.yaml:3:3: optimizer.learning_rat: unknown key; did you mean 'optimizer.learning_rate'?"},
    {"swapped_letters", "optimizer:\n  ebta1: 0.9\n",
     "c.yaml:2:3: optimizer.ebta1: unknown key; did you mean 'optimizer.beta1'?"},
    {"unknown_section", "optimiser:\n  beta1: 0.9\n", "c.yaml:1:1: optimiser: unknown key; did you mean 'optimizer'?"},
    {"unknown_key_with_nothing_near", "schedule:\n  gamma_decay_power: 1\n",
     "c.yaml:2:3: schedule.gamma_decay_power: unknown key, expected one of type, warmup_steps, min_lr_ratio, "
     "decay_ratio"},
    {"key_of_another_section", "train:\n  sequence_length: 8\n",
     "c.yaml:2:3: train.sequence_length: unknown key; did you mean 'data.sequence_length'?"},
    {"key_of_several_sections", "schedule:\n  interval: 8\n",
     "c.yaml:2:3: schedule.interval: unknown key; did you mean 'checkpoint.interval' or 'eval.interval' or "
     "'log.interval'?"},
    {"key_outside_its_section", "learning_rate: 1\n",
     "c.yaml:1:1: learning_rate: unknown key; did you mean 'optimizer.learning_rate'?"},
    {"duplicate_key", "optimizer:\n  beta1: 0.9\n  beta2: 0.9\n  beta1: 0.8\n",
     "c.yaml:4:3: optimizer.beta1: found again (first on line 2), expected once"},
    {"duplicate_section", "log: {interval: 1}\nlog: {interval: 2}\n",
     "c.yaml:2:1: log: found again (first on line 1), expected once"},
    {"list_as_key", "log: {[interval]: 1}\n", "c.yaml:1:7: log: found a list as a key, expected a name"},
    {"section_as_value", "optimizer: fast\n", "c.yaml:1:12: optimizer: found 'fast', expected a map of keys"},
    {"section_as_list", "optimizer: [beta1]\n", "c.yaml:1:12: optimizer: found a list, expected a map of keys"},

    {"integer_word", "model:\n  hidden_size: wide\n",
     "c.yaml:2:16: model.hidden_size: found 'wide', expected an integer in [1, 262144]"},
    {"integer_octal", "model:\n  hidden_size: 010\n",
     "c.yaml:2:16: model.hidden_size: found '010', expected an integer in [1, 262144]; did you mean '10'?"},
    {"integer_hexadecimal", "model:\n  hidden_size: 0x10\n",
     "c.yaml:2:16: model.hidden_size: found '0x10', expected an integer in [1, 262144]"},
    {"integer_with_point", "model:\n  hidden_size: 64.0\n",
     "c.yaml:2:16: model.hidden_size: found '64.0', expected an integer in [1, 262144]; did you mean '64'?"},
    {"integer_with_exponent", "train:\n  steps: 1e3\n",
     "c.yaml:2:10: train.steps: found '1e3', expected an integer in [0, 1000000000]; did you mean '1000'?"},
    {"integer_with_underscore", "train:\n  steps: 1_000\n",
     "c.yaml:2:10: train.steps: found '1_000', expected an integer in [0, 1000000000]; did you mean '1000'?"},
    {"integer_with_fraction", "train:\n  steps: 2.5\n",
     "c.yaml:2:10: train.steps: found '2.5', expected an integer in [0, 1000000000]"},
    {"integer_in_quotes", "train:\n  steps: \"7\"\n",
     "c.yaml:2:10: train.steps: found the text \"7\", expected an integer in [0, 1000000000]; in quotes it is text: write 7 without them"},
    {"integer_in_single_quotes", "model:\n  num_local_experts: '8'\n",
     "c.yaml:2:22: model.num_local_experts: found the text \"8\", expected an integer in [1, 4096]; in quotes it is text: write 8 without "
     "them"},
    {"integer_word_in_quotes", "train:\n  steps: \"many\"\n",
     "c.yaml:2:10: train.steps: found the text \"many\", expected an integer in [0, 1000000000]"},
    {"integer_null", "train:\n  steps:\n",
     "c.yaml:2:3: train.steps: found nothing (null), expected an integer in [0, 1000000000]"},
    {"integer_list", "train:\n  steps: [1]\n",
     "c.yaml:2:10: train.steps: found a list, expected an integer in [0, 1000000000]"},
    {"integer_too_large_for_64_bits", "train:\n  seed: 9223372036854775808\n",
     "c.yaml:2:9: train.seed: found '9223372036854775808', expected an integer in [0, 9223372036854775807]"},
    {"integer_below_range", "train:\n  seed: -1\n",
     "c.yaml:2:9: train.seed: found -1, expected an integer in [0, 9223372036854775807]"},
    {"integer_above_range", "model:\n  num_local_experts: 5000\n",
     "c.yaml:2:22: model.num_local_experts: found 5000, expected an integer in [1, 4096]"},
    {"optional_integer_below_range", "model:\n  sliding_window: 0\n",
     "c.yaml:2:19: model.sliding_window: found 0, expected an integer in [1, 16777216] or null"},
    {"optional_integer_word", "model:\n  head_dim: none\n",
     "c.yaml:2:13: model.head_dim: found 'none', expected an integer in [2, 65536] or null"},

    {"number_word", "optimizer:\n  beta1: high\n",
     "c.yaml:2:10: optimizer.beta1: found 'high', expected a finite number in [0, 1)"},
    {"number_nan", "optimizer:\n  learning_rate: .nan\n",
     "c.yaml:2:18: optimizer.learning_rate: found '.nan', expected a finite number in [0, inf)"},
    {"number_plain_nan", "optimizer:\n  learning_rate: nan\n",
     "c.yaml:2:18: optimizer.learning_rate: found 'nan', expected a finite number in [0, inf)"},
    {"number_infinite", "optimizer:\n  max_grad_norm: .inf\n",
     "c.yaml:2:18: optimizer.max_grad_norm: found '.inf', expected a finite number in [0, inf)"},
    {"number_overflow", "optimizer:\n  max_grad_norm: 1e999\n",
     "c.yaml:2:18: optimizer.max_grad_norm: found '1e999', expected a finite number in [0, inf)"},
    {"number_underflow", "optimizer:\n  epsilon: 1e-999\n",
     "c.yaml:2:12: optimizer.epsilon: found '1e-999', expected a finite number in (0, inf)"},
    {"number_negative", "optimizer:\n  learning_rate: -1.0e-3\n",
     "c.yaml:2:18: optimizer.learning_rate: found -0.001, expected a finite number in [0, inf)"},
    {"number_on_open_upper_bound", "optimizer:\n  beta2: 1.0\n",
     "c.yaml:2:10: optimizer.beta2: found 1, expected a finite number in [0, 1)"},
    {"number_on_open_lower_bound", "optimizer:\n  epsilon: 0\n",
     "c.yaml:2:12: optimizer.epsilon: found 0, expected a finite number in (0, inf)"},
    {"number_in_quotes", "optimizer:\n  beta1: '0.9'\n",
     "c.yaml:2:10: optimizer.beta1: found the text \"0.9\", expected a finite number in [0, 1); in quotes it is text: write 0.9 without "
     "them"},
    {"number_octal", "optimizer:\n  weight_decay: 01.5\n",
     "c.yaml:2:17: optimizer.weight_decay: found '01.5', expected a finite number in [0, inf)"},

    {"flag_yes", "log:\n  tensorboard: yes\n",
     "c.yaml:2:16: log.tensorboard: found 'yes', expected true or false; did you mean 'true'?"},
    {"flag_capital", "log:\n  tensorboard: False\n",
     "c.yaml:2:16: log.tensorboard: found 'False', expected true or false; did you mean 'false'?"},
    {"flag_number", "log:\n  tensorboard: 1\n",
     "c.yaml:2:16: log.tensorboard: found '1', expected true or false; did you mean 'true'?"},
    {"flag_in_quotes", "log:\n  tensorboard: \"true\"\n",
     "c.yaml:2:16: log.tensorboard: found the text \"true\", expected true or false; in quotes it is text: write true without "
     "them"},
    {"choice_slip", "schedule:\n  type: cosin\n",
     "c.yaml:2:9: schedule.type: found 'cosin', expected one of cosine, linear, constant, wsd; did you mean 'cosine'?"},
    {"choice_unknown", "router:\n  aux_loss_scope: everything\n",
     "c.yaml:2:19: router.aux_loss_scope: found 'everything', expected one of global_batch, micro_batch, sequence, "
     "rank, hf"},
    {"text_flag", "checkpoint:\n  resume: false\n",
     "c.yaml:2:11: checkpoint.resume: found 'false', expected text, in quotes if it is meant: \"false\""},
    {"text_number", "model:\n  from: 12\n",
     "c.yaml:2:9: model.from: found '12', expected text or null, in quotes if it is meant: \"12\""},
    {"text_null", "train:\n  output_dir: null\n", "c.yaml:2:3: train.output_dir: found nothing (null), expected text"},
    {"text_empty", "train:\n  output_dir: ''\n", "c.yaml:2:15: train.output_dir: found nothing, expected text"},
    {"texts_not_a_list", "train:\n  freeze: '*.experts.*'\n",
     "c.yaml:2:11: train.freeze: found the text \"*.experts.*\", expected a list of text"},
    {"texts_entry", "train:\n  freeze: [lm_head.weight, 7, {a: b}, null]\n",
     "c.yaml:2:28: train.freeze.1: found '7', expected text, in quotes if it is meant: \"7\"\n"
     "c.yaml:2:31: train.freeze.2: found a map, expected text\n"
     "c.yaml:2:39: train.freeze.3: found nothing (null), expected text"},
    {"texts_empty_entry", "train:\n  freeze: ['']\n", "c.yaml:2:12: train.freeze.0: found nothing, expected text"},
    {"texts_without_quotes", "train:\n  freeze: [*.experts.*]\n",
     "c.yaml:2:12: found an alias (*), expected the value itself: aliases are not supported, and text that begins with * needs quotes"},
    {"integers_not_a_list", "log:\n  dump_steps: 1\n",
     "c.yaml:2:15: log.dump_steps: found '1', expected a list of integers in [1, 1000000000]"},
    {"integers_entry", "log:\n  dump_steps: [1, two]\n",
     "c.yaml:2:19: log.dump_steps.1: found 'two', expected an integer in [1, 1000000000]"},
    {"label_smoothing_of_all", "train:\n  label_smoothing: 1\n",
     "c.yaml:2:20: train.label_smoothing: found 1, expected a finite number in [0, 1)"},
    {"neftune_alpha_negative", "train:\n  neftune_alpha: -5\n",
     "c.yaml:2:18: train.neftune_alpha: found -5, expected a finite number in [0, inf)"},
    {"integers_out_of_range", "log:\n  dump_steps: [1, 0]\n",
     "c.yaml:2:19: log.dump_steps.1: found 0, expected an integer in [1, 1000000000]"},
    {"idle_expert_steps_negative", "log:\n  idle_expert_steps: -1\n",
     "c.yaml:2:22: log.idle_expert_steps: found -1, expected an integer in [0, 1000000000]"},
};

const std::vector<Refused> not_available = {
    {"tp", "parallel:\n  tp: 0\n", "c.yaml:2:7: parallel.tp: found 0, expected an integer in [1, 65536]"},
    {"ep", "parallel:\n  ep: two\n", "c.yaml:2:7: parallel.ep: found 'two', expected an integer in [1, 65536]"},
    {"timeout", "parallel:\n  timeout: -1\n",
     "c.yaml:2:12: parallel.timeout: found -1, expected a finite number in [0, 86400]"},
    {"recompute", "train:\n  recompute: expert\n",
     "c.yaml:2:14: train.recompute: found expert, which is not available yet"},
};

const std::vector<Refused> foreign_names = {
    {"lr", "optimizer: {lr: 1}\n", "c.yaml:1:13: optimizer.lr: unknown key; did you mean 'optimizer.learning_rate'?"},
    {"router_aux_loss_coef", "model: {router_aux_loss_coef: 1}\n",
     "c.yaml:1:9: model.router_aux_loss_coef: unknown key; did you mean 'router.aux_loss_coef'?"},
    {"gradient_accumulation_steps", "train: {gradient_accumulation_steps: 4}\n",
     "c.yaml:1:9: train.gradient_accumulation_steps: unknown key; did you mean 'train.global_batch_size'?"},
    {"per_device_train_batch_size", "train: {per_device_train_batch_size: 4}\n",
     "c.yaml:1:9: train.per_device_train_batch_size: unknown key; did you mean 'train.micro_batch_size'?"},
    {"num_experts", "model: {num_experts: 4}\n",
     "c.yaml:1:9: model.num_experts: unknown key; did you mean 'model.num_local_experts'?"},
    {"batch_size", "batch_size: 4\n", "c.yaml:1:1: batch_size: unknown key; did you mean 'train.global_batch_size'?"},
    {"seq_len", "train: {seq_len: 4}\n",
     "c.yaml:1:9: train.seq_len: unknown key; did you mean 'data.sequence_length'?"},
};

const std::vector<Refused> yaml_features = {
    {"anchor", "optimizer: &base\n  beta1: 0.5\n",
     "c.yaml:1:12: found an anchor (&), expected a plain value: anchors are not supported"},
    {"alias", "optimizer: &base {beta1: 0.5}\nlog: *base\n",
     "c.yaml:1:12: found an anchor (&), expected a plain value: anchors are not supported\n"
     "c.yaml:2:6: found an alias (*), expected the value itself: aliases are not supported, and text that begins with * needs quotes"},
    {"tag", "train:\n  steps: !!int many\n",
     "c.yaml:2:10: found the tag tag:yaml.org,2002:int, expected a plain value: tags are not supported"},
    {"tag_of_another_type", "train:\n  steps: !!str 3\n",
     "c.yaml:2:10: train.steps: found the text \"3\", expected an integer in [0, 1000000000]; in quotes it is text: write 3 without them"},
    {"tag_on_a_map", "train: !run {steps: 3}\n",
     "c.yaml:1:8: found the tag !run, expected a plain value: tags are not supported"},
    {"merge_key", "optimizer:\n  <<: {beta1: 0.5}\n",
     "c.yaml:2:3: found a merge key (<<), expected the keys themselves: merge keys are not supported"},
    {"several_documents", "log: {interval: 1}\n---\n", "c.yaml: found several YAML documents (---), expected one"},
    {"not_yaml", "log: [1, 2\n", "c.yaml:3:5: not valid YAML: end of sequence flow not found"},
    {"tab_before_a_key", "train:\n\tsteps: 3\n",
     "c.yaml:2:1: found a tab in the indentation, expected spaces: YAML indents with nothing else"},
    {"tab_after_spaces", "train:\n  steps: 3\n  \tseed: 3\n",
     "c.yaml:3:3: found a tab in the indentation, expected spaces: YAML indents with nothing else"},
    {"tab_before_a_list", "data:\n  train:\n\t- {path: shards}\n",
     "c.yaml:3:1: found a tab in the indentation, expected spaces: YAML indents with nothing else"},
    {"tab_on_an_empty_line", "train:\n  steps: 3\n\t\n  seed: 3\n",
     "c.yaml:3:1: found a tab in the indentation, expected spaces: YAML indents with nothing else"},
    {"error_below_a_tab_that_is_fine", "log: {interval: 1,\n\ttensorboard: true}\ntrain: [1, 2\n",
     "c.yaml:5:5: not valid YAML: end of sequence flow not found"},
    {"control_character", std::string("log: {interval: 1}\nx: \x04y\n"),
     "c.yaml:2:4: found the control character 0x04, expected text"},
    {"null_character", std::string("log: \0 {interval: 1}\n", 21),
     "c.yaml:1:6: found the control character 0x00, expected text"},
    {"not_utf8", "train:\n  output_dir: caf\xe9\n", "c.yaml:2:18: found the byte 0xe9, expected UTF-8"},
    {"overlong_utf8", "train:\n  output_dir: \xc0\xaf\n", "c.yaml:2:15: found the byte 0xc0, expected UTF-8"},
};

const std::vector<Refused> relations = {
    {"heads_do_not_divide_hidden_size",
     "model:\n  num_attention_heads: 7\n  num_key_value_heads: 7\n  hidden_size: 64\n",
     "c.yaml:4:16: model.hidden_size: found 64, expected a multiple of num_attention_heads (7), or an explicit "
     "head_dim"},
    {"odd_head_dim", "model:\n  head_dim: 33\n",
     "c.yaml:2:13: model.head_dim: found heads of size 33, expected an even size: rotary embedding turns pairs"},
    {"odd_head_size", "model:\n  hidden_size: 24\n",
     "c.yaml:2:16: model.hidden_size: found heads of size 3, expected an even size: rotary embedding turns pairs"},
    {"key_value_heads_do_not_divide", "model:\n  num_key_value_heads: 3\n",
     "c.yaml:2:24: model.num_key_value_heads: found 3, expected a divisor of num_attention_heads (8)"},
    {"more_choices_than_experts", "model:\n  num_local_experts: 4\n  num_experts_per_tok: 5\n",
     "c.yaml:3:24: model.num_experts_per_tok: found 5, expected at most num_local_experts (4)"},
    {"batch_not_a_multiple", "train:\n  global_batch_size: 30\n  micro_batch_size: 4\n",
     "c.yaml:2:22: train.global_batch_size: found 30, expected a multiple of micro_batch_size (4) times the number of "
     "data-parallel ranks"},
    {"shape_beside_from", "model:\n  from: mixtral\n  hidden_size: 512\n",
     "c.yaml:3:3: model.hidden_size: found beside model.from, expected it absent: the shape is taken from "
     "mixtral/config.json"},
};

std::string case_name(const testing::TestParamInfo<Refused>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Value, ConfigBadInput, testing::ValuesIn(refused_values), case_name);
INSTANTIATE_TEST_SUITE_P(NotAvailableYet, ConfigBadInput, testing::ValuesIn(not_available), case_name);
INSTANTIATE_TEST_SUITE_P(ForeignName, ConfigBadInput, testing::ValuesIn(foreign_names), case_name);
INSTANTIATE_TEST_SUITE_P(YamlFeature, ConfigBadInput, testing::ValuesIn(yaml_features), case_name);
INSTANTIATE_TEST_SUITE_P(Relation, ConfigBadInput, testing::ValuesIn(relations), case_name);

TEST(ConfigBadInputData, MissingTrainingData) {
  EXPECT_EQ(
      refusal("log:\n  interval: 1\n"),
      "c.yaml: data.train: found no training data, expected a list such as [{path: data/train}], or train.steps: 0");
  EXPECT_EQ(
      refusal(""),
      "c.yaml: data.train: found no training data, expected a list such as [{path: data/train}], or train.steps: 0");
  EXPECT_EQ(refusal("train: {steps: 0}"), "");
}

TEST(ConfigBadInputData, Sources) {
  EXPECT_EQ(refusal("data:\n  train: data/train\n"),
            "c.yaml:2:10: data.train: found 'data/train', expected a list such as [{path: data/train}]");
  EXPECT_EQ(refusal("data:\n  train: [data/train]\n"),
            "c.yaml:2:11: data.train.0: found 'data/train', expected a map such as {path: data/train}");
  EXPECT_EQ(refusal("data:\n  train: [{path: a}, {weight: 2}]\n"),
            "c.yaml:2:22: data.train.1.path: found nothing, expected text");
  EXPECT_EQ(refusal("data:\n  train: [{path: a, wieght: 2}]\n"),
            "c.yaml:2:21: data.train.0.wieght: unknown key; did you mean 'data.train.0.weight'?");
  EXPECT_EQ(refusal("data:\n  train: [{path: a, weight: 0}]\n"),
            "c.yaml:2:29: data.train.0.weight: found 0, expected a finite number in (0, inf) or null");
  EXPECT_EQ(refusal("data:\n  train: [{path: a, path: b}]\n"),
            "c.yaml:2:21: data.train.0.path: found again (first on line 2), expected once");
  EXPECT_EQ(refusal("data:\n  train: [{path: a}]\n  sequence_length: 8192\n"),
            "c.yaml:3:20: data.sequence_length: found 8192, expected at most model.max_position_embeddings (4096)");
}

TEST(ConfigBadInputData, Packing) {
  EXPECT_EQ(refusal("data:\n  train: [{path: a}]\n  packing: best-fit\n"),
            "c.yaml:3:12: data.packing: found 'best-fit', expected one of stream, best_fit; did you mean 'best_fit'?");
  EXPECT_EQ(refusal("data:\n  train: [{path: a}]\n  packing: best_fit\n"), "");
  EXPECT_EQ(
      refusal("data:\n  train: [{path: a}]\n  document_masking: false\n  packing: best_fit\n"),
      "c.yaml:3:21: data.document_masking: found false beside packing: best_fit, expected true: documents that only "
      "share a sequence to fill it would attend to each other");
}

TEST(ConfigBadInputTrain, StepsAndEpochs) {
  const std::string both = "train:\n  steps: 10\n  epochs: 2\n" + minimal_yaml;
  EXPECT_EQ(refusal(both), "c.yaml:3:11: train.epochs: found beside train.steps, expected one of the two");
  EXPECT_EQ(refusal(minimal_yaml, {"train.epochs=1", "train.steps=2"}),
            "command line: train.epochs: found beside train.steps, expected one of the two");
  EXPECT_EQ(refusal("train: {epochs: 0}\n" + minimal_yaml),
            "c.yaml:1:17: train.epochs: found 0, expected a finite number in (0, inf) or null");
  EXPECT_EQ(refusal("train: {num_train_epochs: 3}\n" + minimal_yaml),
            "c.yaml:1:9: train.num_train_epochs: unknown key; did you mean 'train.epochs'?");
}

TEST(ConfigBadInputReport, AllProblemsOfAFileInItsOrder) {
  EXPECT_EQ(refusal("train:\n  steps: many\nmodel:\n  hidden_size: 0\n  layers: 3\n", {"log.interval=0"}),
            "c.yaml:2:10: train.steps: found 'many', expected an integer in [0, 1000000000]\n"
            "c.yaml:4:16: model.hidden_size: found 0, expected an integer in [1, 262144]\n"
            "c.yaml:5:3: model.layers: unknown key; did you mean 'model.num_hidden_layers'?\n"
            "command line: log.interval: found 0, expected an integer in [1, 1000000000]");
}

TEST(ConfigBadInputReport, AtMostTenAreListed) {
  std::string yaml = "log:\n";
  for (int i = 0; i < 13; ++i) yaml += "  key_" + std::to_string(i) + ": 1\n";
  const std::string message = refusal_of(yaml);
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 10);
  EXPECT_TRUE(message.ends_with("\nand 3 more")) << message;
}

TEST(ConfigBadInputReport, LongAndHostileValuesAreCut) {
  const std::string message = refusal_of("train:\n  steps: \"" + std::string(1000, 'x') + "\"\n");
  EXPECT_EQ(message, "c.yaml:2:10: train.steps: found the text \"" + std::string(60, 'x') +
                         "...\", expected an integer in [0, 1000000000]");
  EXPECT_EQ(refusal_of("train:\n  steps: \"\\e[31m\"\n").find('\x1b'), std::string::npos);
  EXPECT_EQ(refusal_of("log:\n  \"\\e[31m\": 1\n").find('\x1b'), std::string::npos);
}

// Whatever is quoted in a message, from the file or from the command line: no terminal is told to do anything.
TEST(ConfigBadInputReport, NothingReachesTheTerminalRaw) {
  for (const std::string escape : {"\x1b[31m", "\x7f", "\r",
                                   "\xc2\x9b"
                                   "31m",
                                   "\x9b"
                                   "31m"}) {
    for (const std::string& text : {"data.train." + escape + "=1", escape, "train." + escape + "=1",
                                    escape + ".steps=1", "train.." + escape + "=1", "log.interval." + escape + "=1",
                                    escape + "={a: 1}", "train.output_dir=" + escape, "train.steps=" + escape}) {
      const std::string message = refusal("log: {interval: 2}\n" + minimal_yaml, {text});
      if (message.empty()) continue;  // U+009B may stand in the name of a directory
      EXPECT_TRUE(is_utf8(message)) << text;
      for (const std::string_view raw : {"\x1b", "\x7f", "\r", "\xc2\x9b"})
        EXPECT_EQ(message.find(raw), std::string::npos) << message;
    }
  }
  EXPECT_EQ(refusal(minimal_yaml, {"data.train.\x1b[31m=1"}),
            "command line: data.train. [31m: found the list index ' [31m', expected 0 to 1");
  EXPECT_EQ(refusal_of("model:\n  from: \"a\\e[31m\"\n  \"\\e[31m\": 1\n").find('\x1b'), std::string::npos);
}

TEST(ConfigBadInputPath, OtherHomesVariablesAndNoHome) {
  const std::string other =
      "expected ~/ for your own home directory or a path: other users' are not looked up; write the directory out (with ./ "
      "in front where a name begins with ~)";
  const std::string variable =
      "expected a path without '$': variables are not expanded; write the path out, or begin it with ~/ for your home "
      "directory";
  EXPECT_EQ(refusal("data:\n  train: [{path: ~ann/shards}]\n"),
            "c.yaml:2:18: data.train.0.path: found '~ann/shards', " + other);
  EXPECT_EQ(refusal("data:\n  train: [{path: ~/shards}, {path: $HOME/shards}]\n"),
            "c.yaml:2:36: data.train.1.path: found '$HOME/shards', " + variable);
  EXPECT_EQ(refusal_of("model: {from: '${MODELS}/mixtral'}\n"),
            "c.yaml:1:15: model.from: found '${MODELS}/mixtral', " + variable);
  EXPECT_EQ(refusal(minimal_yaml, {"train.output_dir=~ann"}), "command line: train.output_dir: found '~ann', " + other);
  EXPECT_EQ(refusal(minimal_yaml, {"checkpoint.resume=runs/$USER"}),
            "command line: checkpoint.resume: found 'runs/$USER', " + variable);
  const Home home(nullptr);
  EXPECT_EQ(refusal(minimal_yaml, {"model.from=~/mixtral"}),
            "command line: model.from: found '~/mixtral', but HOME is not set: write the directory out in place of ~");
  const Home relative("here");
  EXPECT_EQ(
      refusal(minimal_yaml, {"model.from=~/mixtral"}),
      "command line: model.from: found '~/mixtral', but HOME is 'here', no absolute path: write the directory out in place of ~");
  EXPECT_EQ(refusal(minimal_yaml, {"model.from=mixtral"}), "") << "a path that needs no home";
}

TEST(ConfigBadInputFile, TooLarge) {
  const std::string yaml = minimal_yaml + std::string(largest_config_bytes, '#');
  EXPECT_EQ(refusal(yaml), "c.yaml: is larger than 1048576 bytes, which no configuration is");
}

TEST(ConfigBadInputFile, DeepNesting) {
  const std::string message = refusal("log: " + std::string(100000, '[') + std::string(100000, ']'));
  EXPECT_EQ(message, "c.yaml:1:21: not valid YAML: found more than 16 levels of nesting");
}

TEST(ConfigBadInputFile, NotAMap) {
  EXPECT_EQ(refusal("just words"), "c.yaml:1:1: found 'just words', expected a map of sections");
  EXPECT_EQ(refusal("- a\n- b\n"), "c.yaml:1:1: found a list, expected a map of sections");
}

TEST(ConfigBadInputFile, MissingOrADirectory) {
  const auto message = [](const std::filesystem::path& file) -> std::string {
    try {
      read_config(file);
      return "";
    } catch (const ConfigError& error) {
      return error.what();
    }
  };
  EXPECT_EQ(message("/nowhere/c.yaml"), "/nowhere/c.yaml: cannot be read: No such file or directory");
  EXPECT_EQ(message("/tmp"), "/tmp: is a directory, expected a YAML file");
}

TEST(ConfigBadInputOverride, Form) {
  EXPECT_EQ(refusal(minimal_yaml, {"train.steps"}), "command line: found 'train.steps', expected section.key=value");
  EXPECT_EQ(refusal(minimal_yaml, {"=3"}), "command line: found '=3', expected section.key=value");
  EXPECT_EQ(refusal(minimal_yaml, {"train..steps=3"}),
            "command line: found 'train..steps=3', expected section.key=value");
  EXPECT_EQ(refusal(minimal_yaml, {"optimizer={beta1: 0.5}"}),
            "command line: optimizer: found a map, expected one key at a time: optimizer.KEY=VALUE");
  EXPECT_EQ(refusal(minimal_yaml, {"train.steps.more=3"}),
            "command line: train.steps: found a map, expected an integer in [0, 1000000000]");
  EXPECT_EQ(refusal("train: {steps: 4}\n" + minimal_yaml, {"train.steps.more=3"}),
            "command line: train.steps.more: found '4' where 'more' would be, expected a map or a list");
}

TEST(ConfigBadInputOverride, ValuesAndKeys) {
  EXPECT_EQ(refusal(minimal_yaml, {"optimizer.lr=1e-3"}),
            "command line: optimizer.lr: unknown key; did you mean 'optimizer.learning_rate'?");
  EXPECT_EQ(
      refusal(minimal_yaml, {"foo.bar=1"}),
      "command line: foo.bar: unknown key, expected one of model, router, data, optimizer, schedule, parallel, train, checkpoint, eval, "
      "log, lora");
  EXPECT_EQ(refusal(minimal_yaml, {"optimiser.beta1=0.5"}),
            "command line: optimiser.beta1: unknown key; did you mean 'optimizer.beta1'?");
  EXPECT_EQ(refusal(minimal_yaml, {"optim.learning_rate=1"}),
            "command line: optim.learning_rate: unknown key; did you mean 'optimizer.learning_rate'?");
  EXPECT_EQ(refusal(minimal_yaml, {"training.batch_size=1"}),
            "command line: training.batch_size: unknown key; did you mean 'train.global_batch_size'?");
  EXPECT_EQ(refusal(minimal_yaml, {"steps=5"}), "command line: steps: unknown key; did you mean 'train.steps'?");
  EXPECT_EQ(
      refusal(minimal_yaml, {"train.steps=\"8\""}),
      "command line: train.steps: found the text \"8\", expected an integer in [0, 1000000000]; in quotes it is text: write 8 without "
      "them");
  EXPECT_EQ(refusal(minimal_yaml, {"train.steps=1.5"}),
            "command line: train.steps: found '1.5', expected an integer in [0, 1000000000]");
  EXPECT_EQ(refusal(minimal_yaml, {"train.steps="}),
            "command line: train.steps: found nothing (null), expected an integer in [0, 1000000000]");
  EXPECT_EQ(refusal(minimal_yaml, {"log.dump_steps=[1, 2"}),
            "command line: log.dump_steps: not valid YAML: end of sequence flow not found");
  EXPECT_EQ(refusal(minimal_yaml, {"train.output_dir=&a b"}),
            "command line: train.output_dir: found an anchor (&), expected a plain value: anchors are not supported");
  EXPECT_EQ(refusal(minimal_yaml, {"data.train.2.path=x"}),
            "command line: data.train.2.path: found the list index '2', expected 0 to 1");
  EXPECT_EQ(refusal(minimal_yaml, {"data.train.first.path=x"}),
            "command line: data.train.first.path: found the list index 'first', expected 0 to 1");
  EXPECT_EQ(refusal("model: {hidden_size: 64}\n" + minimal_yaml, {"model.from=DIR"}),
            "c.yaml:1:9: model.hidden_size: found beside model.from, expected it absent: the shape is taken from "
            "DIR/config.json");
}

}  // namespace
}  // namespace smoe
