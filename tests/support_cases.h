// Functions with selections, whose derivatives of first and second order are known, in every mode.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "ladder.h"

namespace supports {

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;

inline constexpr double no_number = std::numeric_limits<double>::quiet_NaN();
inline constexpr double inf = std::numeric_limits<double>::infinity();

inline Tensor vec(const std::vector<double>& x) {
  return Tensor::from(x, Shape{static_cast<std::int64_t>(x.size())});
}
inline Tensor indices(const std::vector<std::int64_t>& x) {
  return Tensor::from(x, Shape{static_cast<std::int64_t>(x.size())});
}

using Function = std::function<Tensor(const Tensor&)>;

struct Case {
  const char* name;
  Function f;
  std::vector<double> x, gradient, second;  ///< of the sum of f's elements; second: the Hessian's rows summed
};

inline bool agree(const Tensor& got, const std::vector<double>& want) {
  const std::vector<double> values =
      got.defined() ? ladder::elements(got) : std::vector<double>(want.size(), 0.0);
  if (values.size() != want.size()) return false;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i]) != std::isnan(values[i])) return false;
    if (!std::isnan(want[i]) && !(std::abs(values[i] - want[i]) <= 1e-12 * (1 + std::abs(want[i]))))
      return false;
  }
  return true;
}

inline double sum_of(const std::vector<double>& list) {
  double total = 0;
  for (const double each : list) total += each;
  return total;
}

inline Tensor identity(std::size_t n) {
  std::vector<double> all(n * n);
  for (std::size_t i = 0; i < n; ++i) all[i * (n + 1)] = 1.0;
  const auto extent = static_cast<std::int64_t>(n);
  return Tensor::from(all, Shape{extent, extent});
}

// f as its own checkpoint, twice.
inline Function kept_twice(const Function& f) {
  return [f](const Tensor& x) {
    return ht::checkpoint([f](const Tensor& y) { return ht::checkpoint(f, y); }, x);
  };
}

inline void expect_case(const Case& each) {
  CAPTURE(std::string(each.name));
  const Tensor x = vec(each.x), ones = Tensor::ones(x.shape());
  const auto summed = [](const Function& f) { return [f](const Tensor& y) { return ht::sum(f(y)); }; };
  const auto forward_gradient = [&](const Function& f, bool replay) {
    std::vector<double> all;
    const auto linear = ht::linearize(f, x).second;
    for (std::size_t i = 0; i < each.x.size(); ++i) {
      std::vector<double> unit(each.x.size());
      unit[i] = 1.0;
      const Tensor along = replay ? linear(vec(unit)) : ht::jvp(f, x, vec(unit)).second;
      all.push_back(along.defined() ? along.item() : 0.0);
    }
    return vec(all);
  };
  const auto gradient_along = [&](const Function& f) {
    return [&, f](const Tensor& y) { return ht::dot(ht::grad(f, y), ones); };
  };
  const auto tangent_along = [&](const Function& f) {
    return [&, f](const Tensor& y) { return ht::jvp(f, y, ones).second; };
  };
  for (const bool checkpointed : {false, true}) {
    CAPTURE(checkpointed);
    const Function f = summed(checkpointed ? kept_twice(each.f) : each.f);
    const Tensor gradient = ht::grad(f, x);
    CHECK_MESSAGE(agree(gradient, each.gradient), "grad: " << gradient);
    const auto pullback = ht::vjp(f, x).second;
    CHECK(ladder::same_bits(pullback(Tensor::scalar(1.0)), gradient));
    CHECK(ladder::same_bits(pullback(Tensor::scalar(1.0)), gradient));
    const Tensor pushed = forward_gradient(f, false), replayed = forward_gradient(f, true);
    CHECK_MESSAGE(agree(pushed, each.gradient), "jvp: " << pushed);
    CHECK_MESSAGE(ladder::same_bits(replayed, pushed), "linearize: " << replayed);
    const Tensor block = ht::linearize(f, x).second.block(identity(each.x.size()));
    CHECK_MESSAGE((!block.defined() || ladder::same_bits(block, pushed)), "a block of tangents: " << block);
    const Tensor hvp = ht::hvp(f, x, ones);
    CHECK_MESSAGE(agree(hvp, each.second), "hvp: " << hvp);
    const auto [dual_gradient, dual] = ht::jvp([&](const Tensor& y) { return ht::grad(f, y); }, x, ones);
    CHECK(ladder::same_bits(dual_gradient, gradient));
    CHECK(ladder::same_bits(dual, hvp));
    const Tensor twice = ht::grad(gradient_along(f), x), over_forward = ht::grad(tangent_along(f), x);
    CHECK_MESSAGE(agree(twice, each.second), "grad of grad: " << twice);
    CHECK_MESSAGE(agree(over_forward, each.second), "grad of jvp: " << over_forward);
    const Tensor pushed_twice = ht::jvp(tangent_along(f), x, ones).second;
    CHECK_MESSAGE(agree(pushed_twice, {sum_of(each.second)}), "jvp of jvp: " << pushed_twice);
    if (dual_gradient.defined()) {
      const Tensor linear = ht::linearize([&](const Tensor& y) { return ht::grad(f, y); }, x).second(ones);
      CHECK_MESSAGE(agree(linear, each.second), "linearize of grad: " << linear);
    }
  }
}

inline Tensor column(const Tensor& x) { return ht::reshape(x, {-1, 1}); }

}  // namespace supports
