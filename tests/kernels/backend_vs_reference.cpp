#include "tests/kernels/backend_vs_reference.h"

#include <algorithm>
#include <utility>

#include "tests/support/rounding.h"

namespace smoe::checks {

std::vector<Comparison> compare_with_reference(const OpCase& c, Backend& backend, DType type, Truth wanted) {
  std::vector<Comparison> comparisons;
  for (const OpCall& op : c.calls) {
    Inputs inputs(backend, c.name + op.op, type);
    const Prepared prepared = op.prepare(inputs);
    inputs.workspace().seal();
    prepared.call();
    for (const Output& output : prepared.outputs) {
      const auto part = [&](Values values) { return output.part ? output.part(values) : values; };
      const bool is_half = output.tensor.type() == DType::bf16;
      Values truth = wanted == Truth::asked_for ? part(output.truth()) : Values();
      if (is_half) truth = reference::cast<double>(rounded_to_bf16(reference::cast<float>(truth)));
      double tolerance =
          is_half && output.tolerance > 0 ? output.bf16_roundings * test::epsilon_of(DType::bf16) : output.tolerance;
      if (const double largest = test::largest(truth); output.terms && largest > 0)
        tolerance *= std::max(1.0, output.terms() / largest);
      comparisons.push_back({op.op + (op.variant.empty() ? "" : " (" + op.variant + ")") + ": " + output.name,
                             part(inputs.workspace().read(output.tensor)), std::move(truth), tolerance});
    }
    EXPECT_EQ(inputs.workspace().overwritten(), "") << op.op << " " << op.variant;
  }
  return comparisons;
}

}  // namespace smoe::checks
