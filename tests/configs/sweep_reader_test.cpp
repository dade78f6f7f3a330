// A sweep's file: what is read, what it is printed as, and what is refused, by name and place.
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "configs/sweep_reader.h"
#include "tests/support/message_of.h"

namespace smoe {
namespace {

const std::string head = "base: b.yaml\nmethod: random\nruns: 4\n";

SweepConfig of_parameters(const std::string& lines, const std::string& before = head) {
  return parse_sweep(before + "parameters:\n" + lines, "study.yaml");
}
SweepParameter the_one(const std::string& line) { return of_parameters("  " + line + "\n").parameters.at(0); }

TEST(SweepReader, ReadsWhatAFileSays) {
  const SweepConfig sweep = parse_sweep(
      "base: b.yaml\noutput_dir: out\nmethod: grid\nseed: 3\nmetric: {name: eval.web, goal: maximize}\n"
      "parameters:\n  train.seed: {values: [1, 2]}\n  router:\n    parameters:\n      aux_loss_coef: {value: 1e-2}\n",
      "study.yaml");
  EXPECT_EQ(sweep.base, "b.yaml");
  EXPECT_EQ(sweep.output_dir, "out");
  EXPECT_EQ(sweep.method, SweepMethod::grid);
  EXPECT_EQ(sweep.seed, 3);
  EXPECT_EQ(sweep.metric, (SweepMetric{"eval.web", true}));
  ASSERT_EQ(sweep.parameters.size(), 2u);
  EXPECT_EQ(sweep.parameters[0].key, "train.seed");
  EXPECT_EQ(sweep.parameters[0].values, (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(sweep.parameters[1].key, "router.aux_loss_coef");
  EXPECT_EQ(sweep.parameters[1].distribution, Distribution::constant);
  EXPECT_EQ(of_parameters("  a.b: {value: 1}\n").output_dir, "sweeps/study");
}

TEST(SweepReader, DistributionsAreThoseOfTheOtherKeys) {
  EXPECT_EQ(the_one("a.b: {min: 1, max: 2}").distribution, Distribution::int_uniform);
  EXPECT_EQ(the_one("a.b: {min: 1.0, max: 2}").distribution, Distribution::uniform);
  EXPECT_EQ(the_one("a.b: {mu: 1, sigma: 2}").distribution, Distribution::normal);
  for (const auto& [distribution, name] : choices(Distribution{})) {
    const std::string text(name), bounds = text.find("normal") != std::string::npos ? "mu: 1, sigma: 2"
                                           : text == "constant"                     ? "value: 1"
                                           : text == "categorical"                  ? "values: [1, 2]"
                                                                                    : "min: 1, max: 2";
    EXPECT_EQ(the_one("a.b: {distribution: " + text + ", " + bounds + "}").distribution, distribution);
  }
}

// Each becomes JSON, which reads back to the same value of the configuration.
TEST(SweepReader, ValuesAreOfAnyType) {
  EXPECT_EQ(
      the_one("a.b: {values: [1, -0.5, .5, +2, 1e-4, true, null, plain, \"1\", [1, two], {k: v, l: [x]}]}").values,
      (std::vector<std::string>{"1", "-0.5", "0.5", "2", "1e-4", "true", "null", "\"plain\"", "\"1\"", "[1, \"two\"]",
                                "{\"k\": \"v\", \"l\": [\"x\"]}"}));
}

// One name for values of several keys, so that a study may compare what no grid of single keys holds.
TEST(SweepReader, SettingsNameValuesOfSeveralKeys) {
  const SweepParameter parameter =
      the_one("balancer: {settings: {none: {}, both: {a.b: 1, a.c: {k: [x]}}, 0.1: {a.b: 2}}}");
  EXPECT_EQ(parameter.key, "balancer");
  EXPECT_EQ(parameter.distribution, Distribution::categorical);
  EXPECT_EQ(parameter.values, (std::vector<std::string>{"\"none\"", "\"both\"", "0.1"}));
  EXPECT_EQ(parameter.overrides("\"none\""), SweepOverrides{});
  EXPECT_EQ(parameter.overrides("\"both\""), (SweepOverrides{{"a.b", "1"}, {"a.c", "{\"k\": [\"x\"]}"}}));
  EXPECT_EQ(parameter.overrides("0.1"), (SweepOverrides{{"a.b", "2"}}));
  EXPECT_EQ(the_one("a.b: {values: [1, 2]}").overrides("2"), (SweepOverrides{{"a.b", "2"}}));
  EXPECT_EQ(the_one("x: {settings: {p: {}, q: {}}, probabilities: [0.25, 0.75]}").probabilities.at(1), 0.75);
}

TEST(SweepReader, WhatIsWeightsAndBiasesAloneIsPassedOver) {
  const SweepConfig sweep = of_parameters(
      "  a.b: {value: 1}\n", head + "program: train.py\nproject: p\ncommand: [python]\nmetric: {name: val_loss}\n");
  EXPECT_EQ(sweep.notes, (std::vector<std::string>{"program", "project", "command"}));
  EXPECT_EQ(sweep.metric, (SweepMetric{"eval", false}));
  EXPECT_EQ(of_parameters("  a.b: {value: 1}\n", head + "early_terminate: {type: hyperband, eta: 2}\n").notes,
            std::vector<std::string>{"early_terminate (every point runs to its end)"});
  EXPECT_TRUE(of_parameters("  a.b: {value: 1}\n", head + "early_terminate: null\n").notes.empty());
  const SweepConfig other = of_parameters("  a.b: {value: 1}\n", head + "metric: {name: val_auroc, goal: maximize}\n");
  EXPECT_EQ(other.notes, std::vector<std::string>{"metric.name: val_auroc"});
  EXPECT_FALSE(other.metric);
}

TEST(SweepReader, PrintsWhatReadsBack) {
  const SweepConfig sweep = of_parameters(
      "  a.b: {values: [1, x y, [2]], probabilities: [0.5, 0.25, 0.25]}\n  a.c: {min: 1, max: 5}\n"
      "  a.d: {distribution: q_log_normal, mu: 0.5, sigma: 2, q: 8}\n  a.e: {min: 0.0, max: 1}\n  a.f: {value: 7}\n"
      "  a.g: {distribution: q_uniform, min: 0, max: 64, q: 16}\n"
      "  a.h: {distribution: q_log_uniform, min: 3.5, max: 5.5, q: 2}\n"
      "  names: {settings: {none: {}, \"0.1\": {c.d: 1, \"c.e\": [x y]}, 0.2: {c.d: null}}}\n",
      head + "seed: 9\nmetric: {name: max_vio, goal: minimize}\n");
  const SweepConfig again = parse_sweep(print_sweep(sweep), "study.yaml");
  EXPECT_EQ(print_sweep(again), print_sweep(sweep));
  EXPECT_EQ(differences(sweep, again), std::vector<std::string>{});
  EXPECT_EQ(again.parameters[1].distribution, Distribution::int_uniform);
  EXPECT_EQ(again.parameters[7].values, sweep.parameters[7].values);
  EXPECT_EQ(again.parameters[7].settings, sweep.parameters[7].settings);
  EXPECT_EQ(again.seed, 9);
  EXPECT_EQ(again.metric, sweep.metric);
}

TEST(SweepReader, AnotherStudyDiffersByName) {
  const std::string grid = "base: b.yaml\nmethod: grid\n";
  const auto found = [&](const std::string& was, const std::string& is, const std::string& before) {
    const auto all = differences(of_parameters(was, before), of_parameters(is, before));
    return all.empty() ? std::string("none") : all.front();
  };
  EXPECT_EQ(found("  a.b: {values: [1, 2]}\n", "  a.b: {values: [3, 1, 2]}\n", grid), "none");
  EXPECT_EQ(found("  a.b: {values: [1, 2]}\n", "  a.b: {values: [1]}\n", grid), "parameters.a.b: the value 2 is gone");
  EXPECT_EQ(found("  a.b: {value: 1}\n", "  a.b: {value: 1}\n  a.c: {value: 1}\n", grid), "parameters.a.c: new");
  EXPECT_EQ(found("  a.b: {value: 1}\n  a.c: {value: 1}\n", "  a.b: {value: 1}\n", grid), "parameters.a.c: gone");
  EXPECT_EQ(found("  a.b: {min: 1, max: 2}\n", "  a.b: {min: 1, max: 3}\n", grid).find("parameters.a.b: {distribution"),
            0u);
  EXPECT_NE(found("  a.b: {values: [1, 2]}\n", "  a.b: {values: [1, 2, 3]}\n", head).find("draws depend on the list"),
            std::string::npos);
  EXPECT_EQ(found("  s: {settings: {x: {a.b: 1}}}\n", "  s: {settings: {y: {}, x: {a.b: 1}}}\n", grid), "none");
  EXPECT_EQ(found("  s: {settings: {x: {a.b: 1}}}\n", "  s: {settings: {x: {a.b: 2}}}\n", grid),
            "parameters.s: \"x\" is {\"a.b\": 1} -> {\"a.b\": 2}");
  EXPECT_EQ(found("  s: {settings: {x: {a.b: 1}}}\n", "  s: {settings: {y: {a.b: 1}}}\n", grid),
            "parameters.s: the value \"x\" is gone");
  EXPECT_EQ(found("  s: {settings: {x: {a.b: 1}}}\n", "  s: {values: [x]}\n", grid).find("parameters.s: {"), 0u);
  EXPECT_NE(found("  s: {settings: {x: {a.b: 1}}}\n", "  s: {settings: {x: {a.b: 2}}}\n", head), "none");
  EXPECT_EQ(differences(of_parameters("  a.b: {value: 1}\n", grid), of_parameters("  a.b: {value: 1}\n", head)),
            std::vector<std::string>{"method: grid -> random"});
  EXPECT_EQ(differences(of_parameters("  a.b: {value: 1}\n", head),
                        of_parameters("  a.b: {value: 1}\n", "base: b.yaml\nmethod: random\nruns: 3\nseed: 1\n")),
            (std::vector<std::string>{"runs: 4 -> 3", "seed: 0 -> 1"}));
}

struct BadSweep {
  const char* text;
  const char* expected;
};
void PrintTo(const BadSweep& bad, std::ostream* out) { *out << bad.expected; }

class SweepReaderRefuses : public testing::TestWithParam<BadSweep> {};

TEST_P(SweepReaderRefuses, ByNameAndPlace) {
  const std::string message = test::message_of([&] { parse_sweep(GetParam().text, "s.yaml"); });
  EXPECT_NE(message.find(GetParam().expected), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    BadFiles, SweepReaderRefuses,
    testing::Values(
        BadSweep{"[1]", "s.yaml:1:1: found a list, expected a map of keys"},
        BadSweep{"method: grid\nparameters: {a: {value: 1}}", "base: missing"},
        BadSweep{"base: b\nparameters: {a: {value: 1}}", "method: missing, expected grid or random"},
        BadSweep{"base: b\nmethod: bayes\nparameters: {a: {value: 1}}",
                 "s.yaml:2:9: method: found 'bayes', expected grid or random: a search by earlier results"},
        BadSweep{"base: b\nmethod: grid\nruns: 3\nparameters: {a: {value: 1}}", "runs: found beside method: grid"},
        BadSweep{"base: b\nmethod: random\nparameters: {a: {value: 1}}", "runs: missing"},
        BadSweep{"base: b\nmethod: random\nruns: 0\nparameters: {a: {value: 1}}", "s.yaml:3:7: runs: found '0'"},
        BadSweep{"base: b\nmethod: random\nrun_cap: 3\nparameters: {a: {value: 1}}",
                 "run_cap: unknown key; did you mean 'runs'"},
        BadSweep{"base: b\nmethod: grid\nparameter: {a: {value: 1}}", "did you mean 'parameters'"},
        BadSweep{"base: b\nmethod: grid\nmethod: grid\nparameters: {a: {value: 1}}", "s.yaml:3:1: method: found again"},
        BadSweep{"base: b\nmethod: grid\n", "parameters: missing"},
        BadSweep{"base: b\nmethod: grid\nparameters: {}", "parameters: found an empty map"},
        BadSweep{"base: b\nmethod: grid\nmetric: {name: lm_los}\nparameters: {a: {value: 1}}",
                 "metric.name: found 'lm_los', expected lm_loss"},
        BadSweep{"base: b\nmethod: grid\nmetric: {name: eval, goal: low}\nparameters: {a: {value: 1}}",
                 "metric.goal: found 'low'"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: [1, 2]}",
                 "parameters.a: found a list, expected a map such as"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {values: []}}", "parameters.a.values: found an empty list"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {values: [1, x, 1]}}", "parameters.a.values: found 1 again"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {}}", "parameters.a: found no values"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {values: [1], valuess: [1]}}",
                 "parameters.a.valuess: unknown key; did you mean 'values'"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {min: 0.1, max: 1.0}}",
                 "parameters.a: found uniform with method: grid"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {min: 5, max: 1}}",
                 "parameters.a: found an empty range, min 5 and max 1"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {min: 5}}", "parameters.a: found int_uniform without max"},
        BadSweep{"base: b\nmethod: random\nruns: 1\nparameters: {a: {distribution: uniform}}",
                 "parameters.a: found uniform without min"},
        BadSweep{"base: b\nmethod: random\nruns: 1\nparameters: {a: {distribution: normal, mu: 1}}",
                 "found normal without sigma"},
        BadSweep{"base: b\nmethod: random\nruns: 1\nparameters: {a: {distribution: beta}}",
                 "parameters.a.distribution: found 'beta'"},
        BadSweep{
            "base: b\nmethod: random\nruns: 1\nparameters: {a: {distribution: log_uniform_values, min: 0, max: 1}}",
            "parameters.a: found min 0, expected more than 0"},
        BadSweep{"base: b\nmethod: random\nruns: 1\nparameters: {a: {distribution: q_uniform, min: 0, max: 1, q: 0}}",
                 "found q 0"},
        BadSweep{"base: b\nmethod: random\nruns: 1\nparameters: {a: {values: [1, 2], max: 3}}",
                 "parameters.a.max: found with categorical"},
        BadSweep{"base: b\nmethod: random\nruns: 1\nparameters: {a: {values: [1, 2], probabilities: [0.5, 0.6]}}",
                 "parameters.a.probabilities: found 2 numbers with the sum 1.1"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a.b: {value: 1}, a: {parameters: {b: {value: 2}}}}",
                 "parameters.a.b: found again"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {settings: [1]}}",
                 "parameters.a.settings: found a list, expected a map of names"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {settings: {}}}", "parameters.a.settings: found an empty map"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {settings: {x: 1}}}",
                 "parameters.a.settings.x: found '1', expected a map of keys of the configuration"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {settings: {x: {}, x: {}}}}",
                 "parameters.a.settings.x: found again"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {settings: {x: {b.c: 1, b.c: 2}}}}",
                 "parameters.a.settings.x.b.c: found again"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {settings: {x: {b=c: 1}}}}",
                 "parameters.a.settings.x: found 'b=c', expected a key of the configuration"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {settings: {x: {}}, values: [1]}}",
                 "parameters.a: found settings beside values"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: {settings: {x: {b.c: 1}}}, b.c: {values: [1]}}",
                 "s.yaml:3:44: parameters.b.c: found again (first on line 3)"},
        BadSweep{"base: b\nmethod: random\nruns: 1\nparameters: {a: {settings: {x: {}}, min: 3}}",
                 "parameters.a.min: found with categorical"},
        BadSweep{"base: b\nmethod: grid\nparameters: {a: &x {value: 1}}", "anchors are not supported"}));

}  // namespace
}  // namespace smoe
