// Ranks on machines of which some have a GPU: under train.device: auto they would compute on different devices, in different
// precisions, and nobody would have meant it.
#pragma once

#include <string>

#include "kernels/tensor.h"
#include "parallel/comm/communicator.h"

namespace smoe {

// Throws SharedFailure on all ranks, with who has what, unless all have found the same device. own: what this rank found.
// missing: why it found no GPU (cuda_missing()). Collective.
void require_same_device(Communicator& world, Device own, const std::string& missing);

}  // namespace smoe
