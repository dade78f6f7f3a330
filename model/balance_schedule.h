// The weight of the balance loss at each step. As the learning rate's, a pure function of the step: nothing is kept.
//   constant   as configured
//   linear     from `from` at the first step straight to `to` at step 1 + steps, where it stays
//   cosine     the same along half a cosine
//   steps      the configured one, from each named step on times that step's factor
// Where layers have coefficients of their own, `from` and `to` are factors of them, as those of `steps` always are.
#pragma once

#include <cstdint>
#include <span>

#include "model/router_config.h"

namespace smoe {

// Of each layer, [L]. step: the first is 1.
void balance_coefficients(const RouterConfig& router, std::int64_t step, std::span<double> by_layer);

// Whether a step of a run may have another than 0, so that its backward must be ready for the balance loss.
bool trains_balance(const RouterConfig& router);

}  // namespace smoe
