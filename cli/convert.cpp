#include "convert.h"

namespace hypertape {

std::vector<double> doubles_of(const Tensor& x) {
  if (x.dtype() == Dtype::float64) return x.to_vector<double>();
  const std::vector<float> values = x.to_vector<float>();
  return {values.begin(), values.end()};
}

Tensor tensor_in(Dtype dtype, const std::vector<double>& values, const Shape& shape) {
  if (dtype == Dtype::float64) return Tensor::from(values, shape);
  return Tensor::from(std::vector<float>(values.begin(), values.end()), shape);
}

Tensor converted(const Tensor& x, Dtype rounded_to, Dtype held_in) {
  if (x.dtype() == rounded_to && x.dtype() == held_in) return x;
  const Tensor rounded = tensor_in(rounded_to, doubles_of(x), x.shape());
  return held_in == rounded_to ? rounded : tensor_in(held_in, doubles_of(rounded), x.shape());
}

}  // namespace hypertape
