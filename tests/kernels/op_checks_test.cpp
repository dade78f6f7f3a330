// What every op refuses, whatever the backend: each tensor of each call of the op list in turn is one that cannot be meant.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/op_decorator.h"
#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {
namespace {

using Change = std::function<Tensor(const Tensor&)>;

// Puts another tensor in the place of one that a call is given.
class Meddling final : public OpDecorator {
 public:
  using OpDecorator::OpDecorator;

  std::vector<Tensor> given;            // by the last call
  std::size_t place = ~std::size_t{0};  // which of them is changed, and into what
  Change change;

 private:
  class Changing final : public Placing {
   public:
    explicit Changing(Meddling& meddling) : meddling_(meddling) {}

   private:
    Tensor place(const char*, const Tensor& tensor, Access) const override {
      const bool chosen = meddling_.given.size() == meddling_.place;
      meddling_.given.push_back(tensor);
      return chosen ? meddling_.change(tensor) : tensor;
    }
    Meddling& meddling_;
  };
  void run(const char*, const Call& call) override {
    given.clear();
    call(inner(), Changing(*this));
  }
};

// One call of the op list, made again and again with one tensor changed.
class Meddler {
 public:
  Meddler(const OpCase& c, const OpCall& op)
      : op_(op.op), inputs_(meddling_, c.name + op.op), prepared_(op.prepare(inputs_)) {
    prepared_.call();
    given_ = meddling_.given;
  }

  const std::vector<Tensor>& given() const { return given_; }
  bool is_written(const Tensor& tensor) const {
    for (const Output& output : prepared_.outputs)
      if (output.tensor.raw() == tensor.raw()) return true;
    return false;
  }
  std::string describe(std::size_t i) const {
    return op_ + " " + given_[i].shape().to_string() + " " + name_of(given_[i].type());
  }

  bool is_refused(std::size_t i, const Change& change) {
    meddling_.place = i;
    meddling_.change = change;
    try {
      prepared_.call();
    } catch (const std::logic_error&) {
      return true;
    }
    return false;
  }

 private:
  const std::unique_ptr<Backend> cpu_ = make_cpu_backend(1);
  Meddling meddling_{*cpu_};
  std::string op_;
  Inputs inputs_;
  Prepared prepared_;
  std::vector<Tensor> given_;
};

Tensor with_shape(const Tensor& t, Shape shape) { return {t.raw(), t.type(), shape, t.device()}; }

Shape one_less(const Shape& shape, int dim) {
  std::int64_t d[Shape::max_rank] = {};
  for (int i = 0; i < shape.rank(); ++i) d[i] = shape[i] - (i == dim);
  switch (shape.rank()) {
    case 1: return {d[0]};
    case 2: return {d[0], d[1]};
    case 3: return {d[0], d[1], d[2]};
    default: return {d[0], d[1], d[2], d[3]};
  }
}

Shape one_dim_more(const Shape& s) {
  if (s.rank() == 1) return {s[0], 1};
  if (s.rank() == 2) return {s[0], s[1], 1};
  return {s[0], s[1], s[2], 1};
}

class OpChecks : public testing::TestWithParam<OpCase> {};

TEST_P(OpChecks, RefuseWhatCannotBeMeant) {
  const std::set<std::string> of_any_type = {"copy_to_host", "start_copy_to_host", "copy_from_host", "fill"};
  const std::set<std::string> of_any_rank = {"copy_to_host", "start_copy_to_host", "copy_from_host", "fill",
                                             "sum",          "sum_of_squares"};
  for (const OpCall& op : GetParam().calls) {
    Meddler meddler(GetParam(), op);
    for (std::size_t i = 0; i < meddler.given().size(); ++i) {
      const Tensor& given = meddler.given()[i];
      if (given.elements() == 0) continue;
      SCOPED_TRACE(meddler.describe(i) + " " + op.variant);
      const auto is_refused = [&](const Change& change) { return meddler.is_refused(i, change); };
      EXPECT_TRUE(is_refused([](const Tensor& t) { return Tensor(t.raw(), t.type(), t.shape(), Device::cuda); }))
          << "on another device";
      EXPECT_TRUE(is_refused([](const Tensor& t) { return Tensor(nullptr, t.type(), t.shape()); })) << "without memory";
      EXPECT_TRUE(of_any_type.contains(op.op) || is_refused([](const Tensor& t) {
                    return Tensor(t.raw(), t.type() == DType::i32 ? DType::f32 : DType::i32, t.shape());
                  }))
          << "of another type";
      EXPECT_TRUE(of_any_rank.contains(op.op) ||
                  is_refused([](const Tensor& t) { return with_shape(t, one_dim_more(t.shape())); }))
          << "with a dim more";
    }
  }
}

// Also where an op may write in place: then it is that place, and no other.
TEST_P(OpChecks, RefuseToReadWhereTheyWrite) {
  for (const OpCall& op : GetParam().calls) {
    Meddler meddler(GetParam(), op);
    for (const Tensor& written : meddler.given())
      for (std::size_t i = 0; i < meddler.given().size(); ++i) {
        const Tensor& read = meddler.given()[i];
        if (!meddler.is_written(written) || read.raw() == written.raw() || written.bytes() < 8 || read.bytes() == 0)
          continue;
        const auto inside = [&](const Tensor& t) {
          return Tensor(static_cast<char*>(written.raw()) + 4, t.type(), t.shape());
        };
        EXPECT_TRUE(meddler.is_refused(i, inside))
            << meddler.describe(i) << " in " << written.shape().to_string() << " " << op.variant;
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, OpChecks, testing::ValuesIn(compared_cases()),
                         [](const auto& info) { return info.param.name; });

// A tensor that is one shorter in a dim is refused, but where that dim is what tells the op how much there is.
TEST(OpShapes, AreRefusedUnlessNothingElseTellsThem) {
  const std::set<std::string> told_by_one_tensor = {
      "balance_statistics i32 dim 1",  // K
      "copy_from_host f32 dim 0",
      "copy_to_host f32 dim 0",
      "start_copy_to_host f32 dim 0",  // all
      "fill f32 dim 0",
      "fill i32 dim 0",
      "add_noise f32 dim 1",  // D
      "sum f32 dim 0",
      "sum_rows f32 dim 0",                  // of how many parts
      "sum_of_squares f32 dim 0",            // all
      "cross_entropy_statistics f32 dim 1",  // V of this rank
      "cross_entropy_merge f32 dim 0",       // ranges
      "embedding_forward f32 dim 0",
      "embedding_backward f32 dim 0",  // V of this rank
      "permute f32 dim 0",             // T
      "rope_table f32 dim 0",
      "rope_forward f32 dim 0",
      "rope_backward f32 dim 0",  // P
      "rope_forward f32 dim 1",
      "rope_backward f32 dim 1",    // heads
      "router_backward f32 dim 0",  // groups
      "router_measures i32 dim 1",  // K
      "routing_map i32 dim 0",      // E
      "unpermute i32 dim 1",        // K
  };
  std::set<std::string> accepted;
  for (const OpCase& c : compared_cases())
    for (const OpCall& op : c.calls) {
      Meddler meddler(c, op);
      for (std::size_t i = 0; i < meddler.given().size(); ++i) {
        const Tensor& given = meddler.given()[i];
        for (int d = 0; d < given.rank(); ++d)
          if (given.dim(d) > 1 &&
              !meddler.is_refused(i, [d](const Tensor& t) { return with_shape(t, one_less(t.shape(), d)); }))
            accepted.insert(op.op + " " + name_of(given.type()) + " dim " + std::to_string(d));
      }
    }
  EXPECT_EQ(accepted, told_by_one_tensor);
}

}  // namespace
}  // namespace smoe::checks
