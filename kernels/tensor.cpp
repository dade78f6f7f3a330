#include "kernels/tensor.h"

namespace smoe {

const char* name_of(DType type) {
  switch (type) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::i32: return "i32";
    case DType::f64: return "f64";
  }
  return "?";
}

Shape::Shape(std::initializer_list<std::int64_t> dims) {
  if (dims.size() > max_rank) throw std::logic_error("a shape has at most 4 dims");
  for (auto d : dims) {
    if (d < 0) throw std::logic_error("negative dim in a shape");
    dims_[static_cast<std::size_t>(rank_++)] = d;
  }
}

std::int64_t Shape::elements() const {
  std::int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= (*this)[i];
  return n;
}

std::string Shape::to_string() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string((*this)[i]);
  return s + "]";
}

void Tensor::throw_type(DType wanted) const {
  throw std::logic_error(std::string("tensor holds ") + name_of(type_) + ", expected " + name_of(wanted));
}

Tensor Tensor::reshape(Shape shape) const {
  if (shape.elements() != shape_.elements())
    throw std::logic_error("cannot view " + shape_.to_string() + " as " + shape.to_string());
  return Tensor(data_, type_, shape, device_);
}

Tensor Tensor::rows(std::int64_t first, std::int64_t count) const {
  if (rank() < 1 || first < 0 || count < 0 || first + count > dim(0))
    throw std::logic_error("rows " + std::to_string(first) + "+" + std::to_string(count) + " of " + shape_.to_string());
  const std::int64_t row = dim(0) == 0 ? 0 : shape_.elements() / dim(0);
  Shape shape;
  switch (rank()) {
    case 1: shape = Shape{count}; break;
    case 2: shape = Shape{count, dim(1)}; break;
    case 3: shape = Shape{count, dim(1), dim(2)}; break;
    default: shape = Shape{count, dim(1), dim(2), dim(3)};
  }
  return Tensor(static_cast<std::byte*>(data_) + static_cast<std::size_t>(first * row) * bytes_of(type_), type_, shape,
                device_);
}

}  // namespace smoe
