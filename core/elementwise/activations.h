// The functions between layers. The contract: core/elementwise/structs.h.
#pragma once

#include "core/elementwise/bodies.h"

namespace hypertape {
namespace {
namespace elementwise {

/// t where y > 0 and 0 elsewhere: the derivative of relu. Linear in t, constant in y.
struct Masked {
  static constexpr int arity = 2;
  static constexpr unsigned uses[] = {uses_second};
  static constexpr bool fused[] = {false};
  static constexpr bool selects = true;
  static constexpr Interval domain[] = {{-3, 3}, {-3, 3}};
  static constexpr double kink[] = {no_kink, 0.0};  // where the mask changes there is a jump
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& t, const auto& y) {
    using bodies::masked;
    return masked(t, y);
  }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& s, const auto& y) {
    using bodies::masked;
    return masked(s, y);
  }
};

/// max(x, 0); the derivative at 0 is 0.
struct Relu {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_output};
  static constexpr bool fused[] = {false};
  static constexpr bool selects = true;
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = 0.0;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) {
    using bodies::masked;
    return masked(x, x);
  }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& y) {
    using bodies::masked;
    return masked(t, y);
  }
};

struct Tanh {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_output};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 4;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::tanh(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& y) {
    using bodies::minus_from;
    return t * minus_from(Constant{1.0}, y * y);
  }
};

/// 1 / (1 + exp(-x)). The derivative is taken from x, since the output is 1 where it is not yet 0.
struct Sigmoid {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 3;
  static constexpr int pull_cost = 6;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::sigmoid(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::sigmoid_slope;
    return t * sigmoid_slope(x);
  }
};

/// log(1 + exp(x))
struct Softplus {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {false};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 8;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::softplus(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::sigmoid;
    return t * sigmoid(x);
  }
};

/// x where x > 0, else c x; the derivative at 0 is c.
struct LeakyRelu {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {true};
  static constexpr bool selects = true;
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = 0.0;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant c, const auto& x) {
    return x > 0 ? x : bodies::times(x, c);
  }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant c, const auto& t, const auto& x) {
    using bodies::leaking;
    return leaking(t, x, c);
  }
};

/// x sigmoid(x). Beyond 1000 in magnitude the factors are 0 or 1, and 0 must not meet infinity.
struct Silu {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 4, pull_cost = 8;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) {
    return math::max(x, decltype(x + x)(-1000)) * math::sigmoid(x);
  }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::sigmoid, bodies::sigmoid_slope, bodies::within;
    const auto& near = within(x, Constant{1000.0});
    return t * (sigmoid(near) + near * sigmoid_slope(near));
  }
};

/// x Phi(x), Phi the normal distribution's probability: x (1 + erf(x / sqrt(2))) / 2.
struct Gelu {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 8, pull_cost = 12;
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) { return math::gelu(x); }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::normal_cdf, bodies::normal_density, bodies::within;
    const auto& near = within(x, Constant{40.0});
    return t * (normal_cdf(near) + near * normal_density(near));
  }
};

/// x (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), which is x sigmoid(2 u) and keeps its lower
/// tail as that.
struct GeluTanh {
  static constexpr int arity = 1;
  static constexpr unsigned uses[] = {uses_first};
  static constexpr bool fused[] = {true};
  static constexpr Interval domain[] = {{-3, 3}};
  static constexpr double kink = no_kink;
  static constexpr int cost = 6, pull_cost = 10;
  static constexpr Constant factor{0x1.9884533d43651p+0};  // 2 sqrt(2/pi)
  static constexpr Constant cubic{0.044715};
  HYPERTAPE_ALWAYS_INLINE static auto value(Constant, const auto& x) {
    using bodies::plus, bodies::times;
    const auto argument = times(x * plus(times(x * x, cubic), Constant{1.0}), factor);
    return math::max(x, decltype(x + x)(-100)) * math::sigmoid(argument);
  }
  template <int>
  HYPERTAPE_ALWAYS_INLINE static auto pull(Constant, const auto& t, const auto& x) {
    using bodies::plus, bodies::sigmoid, bodies::sigmoid_slope, bodies::times, bodies::within;
    const auto& near = within(x, Constant{100.0});
    const auto& square = times(near * near, cubic);
    const auto& argument = times(near * plus(square, Constant{1.0}), factor);
    const auto& slope = times(plus(times(square, Constant{3.0}), Constant{1.0}), factor);
    return t * (sigmoid(argument) + (near * slope) * sigmoid_slope(argument));
  }
};

}  // namespace elementwise
}  // namespace
}  // namespace hypertape
