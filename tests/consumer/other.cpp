// A second source with every public header: nothing in them may be defined twice in one program.
#include "other.h"

#include <hypertape/hypertape.h>

bool other_source() {
  const auto f = [](const hypertape::Tensor& x) { return hypertape::sum(hypertape::tanh(x)); };
  return hypertape::grad(f, hypertape::Tensor::zeros({2})).to_vector<double>() == std::vector<double>{1, 1};
}
