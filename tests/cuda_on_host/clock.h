// The emulated device's clock, which events keep.
#pragma once

namespace cuda_on_host {

// So many milliseconds lie between any two events; 0, as it is at first: those that the host's clock has counted.
void set_time_between_events(float milliseconds);

}  // namespace cuda_on_host
