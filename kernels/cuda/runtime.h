// The calls of CUDA's runtime, for code of the host. tests/cuda_on_host has a runtime.h of its own.
#pragma once

#include <cuda_runtime.h>
