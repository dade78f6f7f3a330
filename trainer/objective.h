// The loss that a step differentiates, without the losses on the routers: what it counts, and the gradient of a
// micro-batch. A step's loss is the sum over its micro-batches and ranks, divided once by the count over the world, so that
// it is the same however the step is cut.
#pragma once

#include "model/context.h"
#include "model/mixtral.h"
#include "trainer/step_batch.h"

namespace smoe {

struct Objective {
  virtual ~Objective() = default;

  // What share of its cross-entropies is to the uniform distribution (label smoothing): then what is differentiated is
  // (1 - it) of the total below and it of the sum of saved.uniform_losses, divided by the same count.
  virtual double label_smoothing() const { return 0; }

  // This rank's share of what the loss is divided by. The ranks of a tp group give the same.
  virtual double count(const StepBatch& batch) const = 0;
  // Adds the micro-batch's share of the loss, not yet divided, to total [1] f64 on the device; the same on every rank of a
  // tp group. `saved` is what the model's forward has left, and is given what its backward begins with: the head's
  // gradients of scale * that share. `part` is the micro-batch on the host, `tokens` on the device.
  virtual void loss_and_gradient(Context& context, Mixtral& model, const StepBatch& part, const TokenBatch& tokens,
                                 double scale, Mixtral::Saved& saved, const Tensor& total) = 0;
};

// Language modelling: the mean cross-entropy of the targets, whose labels may be smoothed (Szegedy et al. 2016, section 7). The
// total is that of the targets themselves, which is what evaluation tells too.
class CrossEntropy final : public Objective {
 public:
  explicit CrossEntropy(double label_smoothing = 0) : label_smoothing_(label_smoothing) {}

  double label_smoothing() const override { return label_smoothing_; }
  double count(const StepBatch& batch) const override;
  void loss_and_gradient(Context& context, Mixtral& model, const StepBatch& part, const TokenBatch& tokens,
                         double scale, Mixtral::Saved& saved, const Tensor& total) override;

 private:
  double label_smoothing_;
};

}  // namespace smoe
