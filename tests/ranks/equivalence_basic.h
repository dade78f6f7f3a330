// The case that the equivalence tests change where they are about something.
#pragma once

#include "trainer/equivalence.h"

namespace smoe {

inline EquivalenceCase basic() {
  EquivalenceCase c;
  c.model.vocab_size = 67;  // not a multiple of any tp
  c.model.hidden_size = 48;
  c.model.intermediate_size = 40;
  c.model.num_hidden_layers = 2;
  c.model.num_attention_heads = 16;
  c.model.num_key_value_heads = 8;
  c.model.head_dim = 4;
  c.model.num_local_experts = 8;
  c.model.initializer_range = 0.15;  // large enough for the routing to matter
  c.router.aux_loss_coef = 0.3;
  c.router.z_loss_coef = 0.02;
  c.optimizer.learning_rate = 1e-3;
  // Adam divides a gradient by its own size; where that is nothing but rounding, so is the update. The larger epsilon
  // keeps such entries from deciding.
  c.optimizer.epsilon = 1e-5;
  c.sequence_length = 24;
  c.at_once = 8;
  return c;
}

}  // namespace smoe
