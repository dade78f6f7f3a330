#include "launch/version.h"

namespace smoe {

std::string_view version() { return SMOE_VERSION; }

}  // namespace smoe
