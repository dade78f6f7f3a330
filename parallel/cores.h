// Which cores a process uses, and how many threads it takes where nobody says: one decision for every command, alone or
// as one of several ranks on a node. Cores are what Linux calls CPUs, by number.
//
// What the user gave is never passed: the mask the process was started with (taskset, numactl, a scheduler, a container),
// or for a rank of mpirun the mask of mpirun itself. In between stands mpirun's own habit of binding each rank to a core,
// or a package, though nobody asked: that is undone, and each rank takes its part of the cores that mpirun was given.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/launcher.h"

namespace smoe {

using Cores = std::vector<int>;  // ascending

// Where a rank stands among those of its node.
struct NodePlace {
  int ranks = 1;     // on the node
  int rank = 0;      // among them
  int on_cores = 1;  // how many of them, this one included, may use some core that this one may use
};

enum class Binding {
  user,     // the mask is what the user gave, at whatever distance
  asked,    // mpirun's, because it was told to (--bind-to, --map-by ...:PE=, --cpu-set, --rankfile)
  unasked,  // mpirun's, of its own accord
};

// Everything that decides.
struct CoreFacts {
  Cores own;    // what the process may use as it was started
  Cores given;  // where mpirun bound it: what mpirun itself may use
  Binding binding = Binding::user;
  NodePlace place;
  double quota = 0;     // cores' worth of time that a container leaves the node's ranks together; 0: all
  int omp_threads = 0;  // OMP_NUM_THREADS; 0: not set
};

struct CoreClaim {
  Cores cores;
  int threads = 1;
};

// The cores that this process takes, and `wanted` threads, or where that is 0 one for each core that is its own share:
// no more than the quota has and OMP_NUM_THREADS says, at least 1.
CoreClaim divide_cores(const CoreFacts& facts, std::int64_t wanted);

// Groups of cores as Linux describes them under sys/devices/system: each physical core with its hardware threads, in the
// order of packages, then each package and each NUMA node. Empty where it tells nothing.
struct Topology {
  std::vector<Cores> physical, wide;
};
Topology read_topology(const std::filesystem::path& system = "/sys/devices/system");

// Whether mpirun (4.1), not told how to bind, gives these cores to the rank at this place: the physical core of the
// rank's number, or a whole package or NUMA node. Other masks are the user's, who started taskset below mpirun.
bool is_mpiruns_habit(const Cores& own, const Cores& given, int rank_on_node, const Topology& topology);

// Whether mpirun's options, which it leaves in the environment of its ranks, say how to bind them, or name the cores.
bool binding_was_asked(const Environment& environment);
bool cores_were_named(const Environment& environment);

// "0-2,5" as the files of Linux have it. Empty where it is anything else.
Cores parse_cores(const std::string& text);

// Of OMP_NUM_THREADS, which may be a list by depth of nesting: the first. 0 where it is no positive number.
int parse_omp_threads(const char* text);

// Cores' worth of time that the control groups of a process grant (version 2 or 1), the least on the way to the root; 0
// where they set no limit. `membership`: /proc/PID/cgroup.
double read_cpu_quota(const std::filesystem::path& membership = "/proc/self/cgroup",
                      const std::filesystem::path& groups = "/sys/fs/cgroup");

// How many ranks on this rank's machine, itself included, may now use some core that it may use. Collective over `world`.
int count_ranks_on_own_cores(Communicator& world);

// Binds this process to its cores, and returns its threads.
// Where OpenMP was told to place threads (OMP_PROC_BIND, OMP_PLACES), the mask is left to it.
int claim_threads(std::int64_t wanted, const NodePlace& place = {});

}  // namespace smoe
