#include "parallel/cores.h"

#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "parallel/control_groups.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;

Cores common_cores(const Cores& a, const Cores& b) {
  Cores both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both;
}

// So many of `all`, of which each rank has a part: 1 where there are more ranks than cores.
std::size_t part_of(std::size_t all, int ranks) {
  return std::max<std::size_t>(1, all / static_cast<std::size_t>(std::max(1, ranks)));
}

// "150000 100000", or the two files of version 1: a limit and the period it holds for, in microseconds.
double cores_of_limit(const std::string& limit, const std::string& period) {
  double microseconds = 0, of = 0;
  std::istringstream(limit) >> microseconds;  // "max" and -1: none
  std::istringstream(period) >> of;
  return microseconds > 0 && of > 0 ? microseconds / of : 0;
}

double limit_of_group(const fs::path& group, bool version_2) {
  if (!version_2)
    return cores_of_limit(content_of(group / "cpu.cfs_quota_us"), content_of(group / "cpu.cfs_period_us"));
  const std::string both = content_of(group / "cpu.max");
  const std::size_t space = both.find(' ');
  return space == std::string::npos ? 0 : cores_of_limit(both.substr(0, space), both.substr(space + 1));
}

std::optional<Cores> mask_of(pid_t process) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (::sched_getaffinity(process, sizeof mask, &mask) != 0) return std::nullopt;
  Cores cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &mask)) cores.push_back(core);
  return cores;
}

// The mpirun that this process comes from, or its daemon on this node; a shell or a tool may stand in between.
std::optional<pid_t> find_mpirun() {
  const auto is_mpirun = [](std::string_view name) {
    if (name.starts_with("mpirun") || name.starts_with("mpiexec")) return true;
    return name == "orterun" || name == "orted" || name == "prterun" || name == "prted" || name == "prte";
  };
  for (pid_t process = ::getppid(); process > 1;) {
    const std::string stat = content_of("/proc/" + std::to_string(process) + "/stat");  // "PID (name) state parent ..."
    const std::size_t open = stat.find('('), close = stat.rfind(')');
    if (open == std::string::npos || close == std::string::npos || close < open) return std::nullopt;
    if (is_mpirun(std::string_view(stat).substr(open + 1, close - open - 1))) return process;
    std::string state;
    pid_t parent = 0;
    std::istringstream(stat.substr(close + 1)) >> state >> parent;
    process = parent;
  }
  return std::nullopt;
}

// All threads of this process: MPI has started some of its own where it did the binding.
void bind_to(const Cores& cores) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int core : cores) CPU_SET(core, &mask);
  std::error_code ignored;
  for (const auto& task : fs::directory_iterator("/proc/self/task", ignored)) {
    const std::string name = task.path().filename().string();
    pid_t thread = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), thread).ec != std::errc()) continue;
    ::sched_setaffinity(thread, sizeof mask, &mask);  // where it may not, it stays as it was
  }
}

// The same for all containers of a machine, where it tells.
std::string name_of_machine() {
  std::string name = content_of("/proc/sys/kernel/random/boot_id");
  if (!name.empty()) return name;
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return host.data();
}

const char* variable(const char* name) { return std::getenv(name); }

CoreFacts gather_facts(const NodePlace& place) {
  CoreFacts facts;
  facts.place = place;
  facts.quota = read_cpu_quota();
  facts.omp_threads = parse_omp_threads(variable("OMP_NUM_THREADS"));
  facts.own = mask_of(0).value_or(Cores{});
  facts.given = facts.own;
  const char* const bound = variable("OMPI_MCA_orte_bound_at_launch");
  if (!bound || std::string_view(bound) != "1" || cores_were_named(variable)) return facts;
  const auto mpirun = find_mpirun();
  const auto given = mpirun ? mask_of(*mpirun) : std::nullopt;
  if (!given) return facts;
  if (binding_was_asked(variable)) {
    facts.binding = Binding::asked;
  } else if (is_mpiruns_habit(facts.own, *given, place.rank, read_topology())) {
    facts.binding = Binding::unasked;
  }
  if (facts.binding != Binding::user) facts.given = *given;
  return facts;
}

}  // namespace

CoreClaim divide_cores(const CoreFacts& facts, std::int64_t wanted) {
  const Cores inside = common_cores(facts.own, facts.given);
  Cores cores = facts.binding == Binding::user ? facts.own : inside.empty() ? facts.given : inside;
  std::size_t share = part_of(cores.size(), facts.place.on_cores);
  if (facts.binding == Binding::unasked) {
    const std::size_t ranks = static_cast<std::size_t>(facts.place.ranks),
                      part = part_of(facts.given.size(), facts.place.ranks);
    const std::size_t needed = std::max(part, static_cast<std::size_t>(std::max<std::int64_t>(wanted, 0)));
    if (inside.size() >= needed) {  // a package: wide enough, and its memory is near
      share = std::min(share, part);
    } else {
      share = part;
      cores = facts.given;
      if (needed == part && ranks <= cores.size()) {
        const auto first =
            cores.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(facts.place.rank) * part);
        cores = Cores(first, first + static_cast<std::ptrdiff_t>(part));
      }
    }
  }
  if (wanted > 0) return {cores, static_cast<int>(wanted)};
  int threads = static_cast<int>(share);
  if (facts.quota > 0)
    threads =
        std::min(threads, std::max(1, static_cast<int>(std::lround(facts.quota / std::max(1, facts.place.ranks)))));
  if (facts.omp_threads > 0) threads = std::min(threads, facts.omp_threads);
  return {cores, threads};
}

Topology read_topology(const fs::path& system) {
  struct Core {
    int package, first;
    Cores threads;
    bool operator<(const Core& other) const {
      return std::pair(package, first) < std::pair(other.package, other.first);
    }
    bool operator==(const Core& other) const { return first == other.first; }
  };
  Topology topology;
  std::vector<Core> cores;
  for (const int cpu : parse_cores(content_of(system / "cpu/online"))) {
    const fs::path folder = system / ("cpu/cpu" + std::to_string(cpu)) / "topology";
    const Cores threads = parse_cores(content_of(folder / "thread_siblings_list"));
    const Cores package = parse_cores(content_of(folder / "core_siblings_list"));
    if (threads.empty() || package.empty()) return {};
    cores.push_back({package.front(), threads.front(), threads});
    if (package.front() == cpu) topology.wide.push_back(package);
  }
  std::sort(cores.begin(), cores.end());
  cores.erase(std::unique(cores.begin(), cores.end()), cores.end());
  for (Core& core : cores) topology.physical.push_back(std::move(core.threads));
  for (const int node : parse_cores(content_of(system / "node/online")))
    topology.wide.push_back(parse_cores(content_of(system / ("node/node" + std::to_string(node)) / "cpulist")));
  return topology;
}

bool is_mpiruns_habit(const Cores& own, const Cores& given, int rank_on_node, const Topology& topology) {
  if (own.empty()) return false;
  const auto same = [&](const Cores& group) { return own == group || own == common_cores(group, given); };
  if (std::any_of(topology.wide.begin(), topology.wide.end(), same)) return true;
  // mpirun counts all cores of the machine, or those that a container has left it.
  std::size_t of_all = 0, of_given = 0;
  for (const Cores& core : topology.physical) {
    const bool is_given = !common_cores(core, given).empty();
    const std::size_t rank = static_cast<std::size_t>(rank_on_node);
    if ((of_all == rank || (is_given && of_given == rank)) && same(core)) return true;
    ++of_all;
    of_given += is_given;
  }
  return false;
}

bool cores_were_named(const Environment& environment) {
  constexpr const char* names[] = {"OMPI_MCA_hwloc_base_cpu_set", "OMPI_MCA_hwloc_base_cpu_list",
                                   "OMPI_MCA_orte_rankfile", "OMPI_MCA_rmaps_rank_file_path"};
  return std::any_of(std::begin(names), std::end(names),
                     [&](const char* name) { return environment(name) != nullptr; });
}

bool binding_was_asked(const Environment& environment) {
  constexpr const char* names[] = {"OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_hwloc_base_bind_to_core",
                                   "OMPI_MCA_hwloc_base_bind_to_socket", "OMPI_MCA_rmaps_base_cpus_per_rank",
                                   "OMPI_MCA_rmaps_base_cpus_per_proc"};
  if (std::any_of(std::begin(names), std::end(names), [&](const char* name) { return environment(name) != nullptr; }))
    return true;
  const char* const mapping = environment("OMPI_MCA_rmaps_base_mapping_policy");
  if (!mapping) return false;
  const std::string_view policy = mapping;
  return policy.find("PE=") != std::string_view::npos || policy.find("pe=") != std::string_view::npos;
}

Cores parse_cores(const std::string& text) {
  Cores cores;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    int first = 0, last = 0;
    auto read = std::from_chars(at, end, first);
    if (read.ec != std::errc()) return {};
    last = first;
    if (read.ptr < end && *read.ptr == '-') {
      read = std::from_chars(read.ptr + 1, end, last);
      if (read.ec != std::errc()) return {};
    }
    if (first < 0 || last < first || last >= CPU_SETSIZE || (!cores.empty() && first <= cores.back())) return {};
    for (int core = first; core <= last; ++core) cores.push_back(core);
    if (read.ptr < end && *read.ptr != ',') return {};
    at = read.ptr + 1;
  }
  return cores;
}

int parse_omp_threads(const char* text) {
  if (!text) return 0;
  std::string_view list = text;
  while (!list.empty() && list.front() == ' ') list.remove_prefix(1);
  int threads = 0;
  const auto [end, error] = std::from_chars(list.data(), list.data() + list.size(), threads);
  if (error != std::errc() || threads < 1) return 0;
  const std::string_view rest = list.substr(static_cast<std::size_t>(end - list.data()));
  const std::size_t next = rest.find_first_not_of(' ');
  return next == std::string_view::npos || rest[next] == ',' ? threads : 0;
}

double read_cpu_quota(const fs::path& membership, const fs::path& groups) {
  double least = 0;
  for (const ControlGroup& group : control_groups("cpu", membership, groups)) {
    const double cores = limit_of_group(group.directory, group.version_2);
    if (cores > 0 && (least == 0 || cores < least)) least = cores;
  }
  return least;
}

int count_ranks_on_own_cores(Communicator& world) {
  // A machine and its cores, in numbers that ranks can exchange.
  constexpr std::size_t machine_words = 2, words = machine_words + CPU_SETSIZE / 32;
  std::array<std::uint32_t, words> own{};
  const std::uint64_t machine = std::hash<std::string>{}(name_of_machine());
  own[0] = static_cast<std::uint32_t>(machine);
  own[1] = static_cast<std::uint32_t>(machine >> 32);
  for (const int core : mask_of(0).value_or(Cores{}))
    own[machine_words + static_cast<std::size_t>(core) / 32] |= std::uint32_t{1} << (core % 32);
  const std::size_t ranks = static_cast<std::size_t>(world.size());
  std::vector<std::uint32_t> all(words * ranks);
  world.all_gather(host_tensor(own), host_tensor(all), "cores");
  int sharing = 0;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const std::uint32_t* const other = all.data() + rank * words;
    bool shares = false;
    for (std::size_t i = machine_words; i < words; ++i) shares |= (own[i] & other[i]) != 0;
    sharing += shares && own[0] == other[0] && own[1] == other[1];
  }
  return std::max(1, sharing);
}

int claim_threads(std::int64_t wanted, const NodePlace& place) {
  CoreFacts facts = gather_facts(place);
  if (omp_get_proc_bind() != omp_proc_bind_false) {
    // OpenMP has bound this thread to the first of its places, and counts the cores of them all.
    facts.own.clear();
    for (int core = 0; core < omp_get_num_procs(); ++core) facts.own.push_back(core);
    facts.binding = Binding::user;
    return divide_cores(facts, wanted).threads;
  }
  const CoreClaim claim = divide_cores(facts, wanted);
  if (claim.cores != facts.own && !claim.cores.empty()) bind_to(claim.cores);
  return claim.threads;
}

}  // namespace smoe
