// What stands for nccl.cpp in a build without NCCL's headers: there is none, and ranks are joined by MPI.
#include <stdexcept>
#include <string>

#include "kernels/nccl.h"

namespace smoe {
namespace {
[[noreturn]] void refuse() { throw std::logic_error("NCCL is not in this build"); }
}  // namespace

struct NcclGroup::Comm {};

std::string nccl_missing() { return "NCCL is not in this build"; }

NcclGroup::Id NcclGroup::make_id() { refuse(); }
int NcclGroup::version() { refuse(); }
NcclGroup::NcclGroup(const Id&, int, int) { refuse(); }
NcclGroup::~NcclGroup() = default;
void NcclGroup::all_reduce(void*, std::size_t, DType, Op, void*) { refuse(); }
void NcclGroup::all_gather(const void*, void*, std::size_t, DType, void*) { refuse(); }
void NcclGroup::reduce_scatter(const void*, void*, std::size_t, DType, void*) { refuse(); }
void NcclGroup::broadcast(void*, std::size_t, DType, int, void*) { refuse(); }
void NcclGroup::begin() { refuse(); }
void NcclGroup::send(const void*, std::size_t, int, void*) { refuse(); }
void NcclGroup::receive(void*, std::size_t, int, void*) { refuse(); }
void NcclGroup::end() { refuse(); }
std::string NcclGroup::trouble() const noexcept { return {}; }
void NcclGroup::abort() noexcept {}

}  // namespace smoe
