// The calls of CUDA's runtime that kernels/cuda makes, as they are on the host.
#pragma once

#include "kernels/cuda/device.h"
