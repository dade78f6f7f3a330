// Every option of a run, as plain structs named as the sections of the YAML file.
#pragma once

#include <optional>

#include "data/shards/data_config.h"
#include "model/lora_config.h"
#include "model/model_config.h"
#include "model/router_config.h"
#include "optim/optimizer_config.h"
#include "parallel/parallel_config.h"
#include "trainer/train_config.h"

namespace smoe {

struct RunConfig {
  ModelConfig model;
  RouterConfig router;
  DataConfig data;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  ParallelConfig parallel;
  TrainConfig train;
  CheckpointConfig checkpoint;
  EvalConfig eval;
  LogConfig log;
  std::optional<LoraConfig> lora;

  bool operator==(const RunConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.section("model", self.model);
    visit.section("router", self.router);
    visit.section("data", self.data);
    visit.section("optimizer", self.optimizer);
    visit.section("schedule", self.schedule);
    visit.section("parallel", self.parallel);
    visit.section("train", self.train);
    visit.section("checkpoint", self.checkpoint);
    visit.section("eval", self.eval);
    visit.section("log", self.log);
    visit.optional_section("lora", self.lora);
  }
};

}  // namespace smoe
