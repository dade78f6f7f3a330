// An equivalence case step by step, for those who look at its state between steps, or disturb it.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "model/mixtral.h"
#include "model/selection_bias.h"
#include "optim/adamw.h"
#include "parallel/mesh.h"
#include "trainer/equivalence.h"
#include "trainer/training_step.h"

namespace smoe {

class CaseTraining {
 public:
  // The mesh and the backend outlive it. All ranks of the mesh call this and step(). Throws std::logic_error if the case does
  // not fit the layout.
  CaseTraining(const EquivalenceCase& what, const Mesh& mesh, Backend& backend);
  CaseTraining(const CaseTraining&) = delete;
  CaseTraining& operator=(const CaseTraining&) = delete;

  // On the n-th step's batch, n from 1 on, which is also t of AdamW.
  StepNumbers step(std::int64_t n);

  ParameterSet& parameters() { return model_.parameters(); }
  const AdamW& optimizer() const { return *optimizer_; }
  const SelectionBias& selection_bias() const { return bias_; }
  const std::optional<MaxVioController>& controller() { return step_->controller(); }

 private:
  EquivalenceCase what_;
  const Mesh& mesh_;
  Backend& backend_;
  Arena persistent_;
  Mixtral model_;
  SelectionBias bias_;
  std::optional<AdamW> optimizer_;  // once the model has memory
  std::optional<TrainingStep> step_;
};

}  // namespace smoe
