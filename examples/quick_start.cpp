// The quick start of the README, word for word between the marks.
// [quick start]
#include <hypertape/hypertape.h>

#include <iostream>

namespace ht = hypertape;

int main() {
  auto X = ht::random({100, 3}, ht::Distribution::normal, {.seed = 1}),
       y = ht::matmul(X, ht::Tensor::ones({3}));
  auto loss = [&](const ht::Tensor& w) { return ht::mean(ht::square(ht::matmul(X, w) - y)); };
  auto w = ht::Tensor::zeros({3}), v = ht::Tensor::ones({3});
  auto [value, g] = ht::value_and_grad(loss, w);
  auto hv = ht::hvp(loss, w, v);  // any order: ht::grad of a function that calls ht::grad
  std::cout << value << '\n' << g << '\n' << hv << '\n';
}
// [quick start]
