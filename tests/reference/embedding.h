// Token embedding: a row of the table for each id; backward adds the rows' gradients where they came from.
#pragma once

#include "tests/reference/matrix.h"

namespace smoe::reference {

template <typename T>
Matrix<T> embedding_forward(const Ids& ids, const Matrix<T>& table) {
  Matrix<T> out(static_cast<Index>(ids.size()), table.cols);
  for (Index t = 0; t < out.rows; ++t)
    for (Index d = 0; d < table.cols; ++d) out(t, d) = table(ids[t], d);
  return out;
}

template <typename T>
void embedding_backward(const Ids& ids, const Matrix<T>& dout, Matrix<T>& dtable /* += */) {
  for (Index t = 0; t < dout.rows; ++t)
    for (Index d = 0; d < dout.cols; ++d) dtable(ids[t], d) += dout(t, d);
}

}  // namespace smoe::reference
