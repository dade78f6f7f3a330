// The learning rate of each step. Steps count from 1. peak is reached at the end of the warm-up, which rises linearly
// (step s of w gives s / w of the peak); after it, with p in [0, 1] the share of the remaining steps that are done:
//   cosine    min + (1 - min) (1 + cos(pi p)) / 2        (Loshchilov & Hutter 2017, without restarts)
//   linear    1 - (1 - min) p
//   constant  1
//   wsd       1, then a linear fall to min over the last decay_ratio of all steps (warm-up, stable, decay: 2404.06395)
// The last step is at min_lr_ratio of the peak (constant: at the peak).
#pragma once

#include <cstdint>

#include "optim/optimizer_config.h"

namespace smoe {

double learning_rate(const ScheduleConfig& schedule, double peak, std::int64_t step, std::int64_t steps);

}  // namespace smoe
