// ctest labels: threads kernels levels
//
// Every operation of elementwise.def: values against long double libm, and the whole ladder over shapes,
// layouts, broadcasts and sizes. A new operation needs one line in `reference`.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>
#include <sstream>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "core/elementwise/structs.h"
#include "ladder.h"

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using ladder::same_bits;
using ladder::sample;

namespace {

constexpr double scalar = -1.7;

struct Op {
  std::string name;
  std::size_t arity;
  ht::elementwise::Interval domain[3];
  double kink[3];
  ladder::Function run;
  std::function<TensorList(TensorList&&)> run_given;
};

template <class S>
Op describe(const char* name, ladder::Function run, std::function<TensorList(TensorList&&)> run_given) {
  Op op{name, static_cast<std::size_t>(S::arity), {}, {}, std::move(run), std::move(run_given)};
  for (std::size_t i = 0; i < op.arity; ++i) {
    op.domain[i] = S::domain[i];
    if constexpr (std::is_array_v<decltype(S::kink)>)
      op.kink[i] = S::kink[i];
    else
      op.kink[i] = S::kink;
  }
  return op;
}

const std::vector<Op>& ops() {
  static const std::vector<Op> list = {
#define HYPERTAPE_UNARY(Op, name)                                                \
  describe<ht::elementwise::Op>(                                                 \
      #name, [](const TensorList& x) -> TensorList { return {ht::name(x[0])}; }, \
      [](TensorList&& x) -> TensorList { return {ht::name(std::move(x[0]))}; }),
#define HYPERTAPE_BINARY(Op, name)                                                     \
  describe<ht::elementwise::Op>(                                                       \
      #name, [](const TensorList& x) -> TensorList { return {ht::name(x[0], x[1])}; }, \
      [](TensorList&& x) -> TensorList { return {ht::name(std::move(x[0]), std::move(x[1]))}; }),
#define HYPERTAPE_TERNARY(Op, name)                                                          \
  describe<ht::elementwise::Op>(                                                             \
      #name, [](const TensorList& x) -> TensorList { return {ht::name(x[0], x[1], x[2])}; }, \
      [](TensorList&& x) -> TensorList {                                                     \
        return {ht::name(std::move(x[0]), std::move(x[1]), std::move(x[2]))};                \
      }),
#define HYPERTAPE_WITH_SCALAR(Op, name)                                                  \
  describe<ht::elementwise::Op>(                                                         \
      #name, [](const TensorList& x) -> TensorList { return {ht::name(x[0], scalar)}; }, \
      [](TensorList&& x) -> TensorList { return {ht::name(std::move(x[0]), scalar)}; }),
#include <hypertape/core/elementwise.def>
  };
  return list;
}

struct Reference {
  long double value;
  long double condition;  ///< max(|f|, |x f'(x)|), summed over operands
};

Reference reference(const std::string& name, long double a, long double b, long double third) {
  const auto c = static_cast<long double>(scalar);
  if (name == "add") return {a + b, std::abs(a) + std::abs(b)};
  if (name == "subtract") return {a - b, std::abs(a) + std::abs(b)};
  if (name == "multiply") return {a * b, std::abs(a * b)};
  if (name == "divide") return {a / b, std::abs(a / b)};
  if (name == "masked") return {b > 0 ? a : 0, std::abs(a)};
  if (name == "weighted_square") return {a * b * b, std::abs(a * b * b)};
  if (name == "multiply_add") return {a * b + third, std::abs(a * b) + std::abs(third)};
  if (name == "negate") return {-a, std::abs(a)};
  if (name == "square") return {a * a, a * a};
  if (name == "exp") return {std::exp(a), std::max(1.0L, std::abs(a)) * std::exp(a)};
  if (name == "log") return {std::log(a), std::max(1.0L, std::abs(std::log(a)))};
  if (name == "tanh") {
    const long double y = std::tanh(a);
    return {y, std::max(std::abs(y), std::abs(a * (1 - y * y)))};
  }
  if (name == "relu") return {a > 0 ? a : 0, std::abs(a)};
  if (name == "add_scalar") return {a + c, std::abs(a) + std::abs(c)};
  if (name == "multiply_scalar") return {a * c, std::abs(a * c)};
  if (name == "divide_scalar") return {a / c, std::abs(a / c)};
  if (name == "scalar_divide") return {c / a, std::abs(c / a)};
  if (name == "sqrt") return {std::sqrt(a), std::sqrt(a)};
  if (name == "rsqrt") return {1 / std::sqrt(a), 1 / std::sqrt(a)};
  if (name == "abs") return {std::abs(a), std::abs(a)};
  if (name == "sign") return {a > 0 ? 1.0L : -1.0L, 1.0L};
  if (name == "floor") return {std::floor(a), std::abs(a)};
  if (name == "round") return {std::nearbyint(a), std::abs(a)};
  if (name == "maximum") return {std::max(a, b), std::abs(a) + std::abs(b)};
  if (name == "minimum") return {std::min(a, b), std::abs(a) + std::abs(b)};
  if (name == "clamp") return {std::min(std::max(a, b), third), std::abs(a) + std::abs(b)};
  if (name == "expm1") return {std::expm1(a), std::max(std::abs(std::expm1(a)), std::abs(a) * std::exp(a))};
  if (name == "log1p") return {std::log1p(a), std::max(std::abs(std::log1p(a)), std::abs(a / (1 + a)))};
  if (name == "pow") {
    const long double y = std::pow(a, b);
    return {y, y * (1 + std::abs(b) + std::abs(b * std::log(a)))};
  }
  if (name == "pow_scalar") return {std::pow(a, c), std::pow(a, c) * (1 + std::abs(c))};
  if (name == "sin") return {std::sin(a), std::max(std::abs(std::sin(a)), std::abs(a * std::cos(a)))};
  if (name == "cos") return {std::cos(a), std::max(std::abs(std::cos(a)), std::abs(a * std::sin(a)))};
  if (name == "atan2") return {std::atan2(a, b), std::abs(std::atan2(a, b))};
  if (name == "erf") return {std::erf(a), std::abs(std::erf(a))};
  const long double sigmoid = 1 / (1 + std::exp(-a));
  if (name == "sigmoid") return {sigmoid, sigmoid * (1 + std::abs(a))};
  if (name == "softplus") return {std::log1p(std::exp(a)), std::log1p(std::exp(a)) + std::abs(a) * sigmoid};
  if (name == "leaky_relu") return {a > 0 ? a : c * a, std::abs(c * a)};
  if (name == "silu") return {a * sigmoid, std::abs(a) * sigmoid * (1 + std::abs(a))};
  if (name == "gelu") {
    const long double phi = std::erfc(-a / std::sqrt(2.0L)) / 2;
    return {a * phi, std::abs(a) * (phi + std::exp(-a * a / 2))};
  }
  if (name == "gelu_tanh") {
    // The factor as the definition has it, rounded to double: 0.044715.
    const long double pi = std::acos(-1.0L), cubic = 0.044715;
    const long double y = a * (1 + std::tanh(std::sqrt(2 / pi) * (a + cubic * a * a * a))) / 2;
    return {y, std::abs(y) * (1 + a * a)};
  }
  FAIL("no reference values for " << name << ": add a line here");
  return {};
}

Tensor operand(const Op& op, std::size_t i, const Shape& shape, std::uint64_t seed = 1) {
  return sample(shape, op.domain[i].low, op.domain[i].high, seed * 10 + i, op.kink[i]);
}

TensorList operands(const Op& op, const Shape& a, const Shape& b, const Shape& third) {
  TensorList list{operand(op, 0, a)};
  if (op.arity >= 2) list.push_back(operand(op, 1, b));
  if (op.arity >= 3) list.push_back(operand(op, 2, third));
  return list;
}
TensorList operands(const Op& op, const Shape& shape) { return operands(op, shape, shape, shape); }

std::string label(const Op& op, const TensorList& x) {
  std::ostringstream text;
  text << op.name;
  for (const Tensor& one : x) text << ' ' << one.shape();
  return text.str();
}

void expect_op(const Op& op, const TensorList& x, const std::string& note = "") {
  ladder::Options options;
  options.given = op.run_given;
  expect_derivatives(label(op, x) + note, op.run, x, options);
}

double number(const Tensor& x) { return x.item(); }

}  // namespace

TEST_CASE("elementwise values agree with long double libm to 1e-14 of their condition") {
  for (const Op& op : ops()) {
    for (const Shape& shape : {Shape{}, Shape{1}, Shape{7}, Shape{64}, Shape{1001}}) {
      const TensorList x = operands(op, shape);
      const std::vector<double> got = elements(op.run(x)[0]), a = elements(x[0]),
                                b = elements(x[op.arity >= 2 ? 1 : 0]),
                                c = elements(x[op.arity >= 3 ? 2 : 0]);
      REQUIRE(got.size() == a.size());
      double worst = 0.0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        const Reference expected = reference(op.name, a[i], b[i], c[i]);
        worst = std::max(worst, static_cast<double>(std::abs(got[i] - expected.value) / expected.condition));
      }
      CHECK_MESSAGE(worst <= 1e-14, op.name << " over " << shape << ": " << worst);
    }
  }
}

TEST_CASE("elementwise operations broadcast as a loop over indices does") {
  for (const Op& op : ops()) {
    if (op.arity < 2) continue;
    const TensorList operand = operands(op, {2, 1, 4}, {3, 1}, {4});
    const Tensor result = op.run(operand)[0];
    REQUIRE(result.shape() == Shape{2, 3, 4});
    const std::vector<double> x = elements(operand[0]), y = elements(operand[1]),
                              z = elements(operand.back()), got = elements(result);
    for (std::size_t i = 0; i < 2; ++i)
      for (std::size_t j = 0; j < 3; ++j)
        for (std::size_t k = 0; k < 4; ++k) {
          const Reference expected = reference(op.name, x[i * 4 + k], y[j], z[op.arity >= 3 ? k : j]);
          CHECK(std::abs(got[(i * 3 + j) * 4 + k] - expected.value) <= 1e-14L * expected.condition);
        }
  }
}

TEST_CASE("elementwise ladder: operands of one shape") {
  for (const Op& op : ops())
    for (const Shape& shape : {Shape{}, Shape{1}, Shape{5}, Shape{3, 4}, Shape{2, 3, 17}})
      expect_op(op, operands(op, shape));
}

TEST_CASE("elementwise ladder: broadcast operands") {
  const std::pair<Shape, Shape> shapes[] = {
      {{3, 4}, {4}}, {{4}, {3, 4}},       {{3, 4}, {3, 1}},    {{3, 1}, {3, 4}}, {{3, 4}, {}},  {{}, {3, 4}},
      {{3, 4}, {1}}, {{2, 1, 4}, {3, 1}}, {{2, 3, 4}, {3, 1}}, {{3, 1}, {1, 4}}, {{1, 1}, {5}}, {{1}, {}}};
  for (const Op& op : ops()) {
    if (op.arity < 2) continue;
    for (const auto& [a, b] : shapes) {
      expect_op(op, operands(op, a, b, b));
      if (op.arity < 3) continue;
      expect_op(op, operands(op, a, a, b));
      expect_op(op, operands(op, a, b, a));
      expect_op(op, operands(op, a, b, {}));
    }
  }
}

TEST_CASE("elementwise ladder: views as leaves and as operands") {
  for (const Op& op : ops()) {
    for (std::size_t i = 0; i < op.arity; ++i) {
      const Tensor tall = operand(op, i, {4, 3}, 4), wide = operand(op, i, {3, 7}, 5),
                   row = operand(op, i, {4}, 6);
      // The other operands are ordinary, operand i is what it is made to be inside or outside of f.
      const auto with = [&](const Tensor& view) {
        TensorList all = operands(op, {3, 4});
        all[i] = view;
        return all;
      };
      const auto through = [&](const std::function<Tensor(const Tensor&)>& view) {
        return [&op, i, view](const TensorList& x) {
          TensorList all = x;
          all[i] = view(x[i]);
          return op.run(all);
        };
      };
      const std::string name = op.name + ", operand " + std::to_string(i) + " ";
      expect_derivatives(name + "a transposed leaf", op.run, with(ht::transpose(tall)));
      expect_derivatives(name + "a sliced leaf", op.run, with(ht::slice(wide, 1, 2, 6)));
      expect_derivatives(name + "a broadcast leaf", op.run, with(ht::expand(row, {3, 4})));
      expect_derivatives(name + "transposed", through([](const Tensor& x) { return ht::transpose(x); }),
                         with(tall));
      expect_derivatives(name + "sliced", through([](const Tensor& x) { return ht::slice(x, 1, 2, 6); }),
                         with(wide));
      expect_derivatives(name + "expanded", through([](const Tensor& x) {
                           return ht::expand(x, {3, 4});
                         }),
                         with(row));
    }
  }
}

TEST_CASE("elementwise ladder: nothing to compute") {
  for (const Op& op : ops()) {
    for (const Shape& shape : {Shape{0}, Shape{0, 3}, Shape{2, 0, 3}}) expect_op(op, operands(op, shape));
    if (op.arity < 2) continue;
    expect_op(op, operands(op, {0, 3}, {3}, {3}));
    expect_op(op, operands(op, {3}, {0, 1}, {3}));
    expect_op(op, operands(op, {}, {0}, {}));
  }
}

TEST_CASE("elementwise ladder: one tensor as several operands") {
  for (const Op& op : ops()) {
    if (op.arity < 2) continue;
    const Tensor x = sample({3, 3}, 0.5, 3.0, 8);
    expect_derivatives(op.name + "(x, x, ...)",
                       [&](const TensorList& at) { return op.run(TensorList(op.arity, at[0])); }, {x});
    const auto turned = [&](const TensorList& at) {
      TensorList all(op.arity, at[0]);
      all[1] = ht::transpose(at[0]);
      return op.run(all);
    };
    expect_derivatives(op.name + "(x, x transposed, ...)", turned, {x});
    // Given away while a transpose of it is read: must not be written.
    TensorList given(op.arity, ladder::converted(x, Dtype::float64));
    given[1] = ht::transpose(given[0]);
    const Tensor kept = given[1];
    CHECK(same_bits(op.run_given(std::move(given)), turned({x})));
    CHECK(same_bits(kept, ht::transpose(x)));
  }
}

TEST_CASE("elementwise ladder: sizes that run in parallel") {
#if defined(__SANITIZE_THREAD__)
  // Each takes seconds, and operations of so many operands differ in the kernel and the size of pieces only:
  // cheap and costly ones.
  constexpr std::size_t each = 6;
#else
  constexpr std::size_t each = 1;
#endif
  std::map<std::size_t, std::size_t> seen;
  for (const Op& op : ops()) {
    if (seen[op.arity]++ % each != 0) continue;
    ladder::Options options;
    options.max_order = 2;
    options.given = op.run_given;
    expect_consistent(op.name + " of 100,003", op.run, operands(op, {100'003}), options);
    if (op.arity < 2) continue;
    expect_consistent(op.name + " of (1003, 101) and a row", op.run, operands(op, {1003, 101}, {101}, {101}),
                      options);
    expect_consistent(op.name + " of a column and (1003, 101)", op.run,
                      operands(op, {1003, 1}, {1003, 101}, {}), options);
  }
}

TEST_CASE("the operators give the functions' bits, on either side of a number") {
  const Tensor x = sample({3, 4}, 0.5, 3, 1), y = sample({4}, 0.5, 3, 2);
  CHECK(same_bits(x + y, ht::add(x, y)));
  CHECK(same_bits(x - y, ht::subtract(x, y)));
  CHECK(same_bits(x * y, ht::multiply(x, y)));
  CHECK(same_bits(x / y, ht::divide(x, y)));
  CHECK(same_bits(-x, ht::negate(x)));
  const std::vector<double> plain = elements(x), minus = elements(2.0 - x), right = elements(x - 2.0),
                            over = elements(2.0 / x), under = elements(x / 2.0);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    CHECK(minus[i] == 2.0 - plain[i]);
    CHECK(right[i] == plain[i] - 2.0);
    CHECK(over[i] == 2.0 / plain[i]);
    CHECK(under[i] == plain[i] / 2.0);
  }
  expect_derivatives("operators with numbers",
                     [](const TensorList& at) -> TensorList {
                       return {2.0 - at[0] * 3.0 + 1.5 / at[0] - at[0] / 0.7 + (at[0] - 4.0) * (2.5 * at[0]) +
                               (1.0 + at[0])};
                     },
                     {x});
}

TEST_CASE("at relu's kink and beyond: one-sided values set by hand") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const Tensor x = Tensor::from({-1.0, -0.0, 0.0, 1.0, inf, -inf, nan, 5e-324});
  const std::vector<double> y = elements(ht::relu(x));
  CHECK(y[0] == 0.0);
  CHECK(y[1] == 0.0);
  CHECK(y[2] == 0.0);
  CHECK(y[3] == 1.0);
  CHECK(y[4] == inf);
  CHECK(y[5] == 0.0);
  CHECK(std::isnan(y[6]));
  CHECK(y[7] == 5e-324);
  // The derivative at 0 is 0, from both zeros, in reverse and in forward mode.
  const auto total = [](const Tensor& at) { return ht::sum(ht::relu(at)); };
  const Tensor corner = Tensor::from({-1.0, -0.0, 0.0, 1.0});
  CHECK(elements(ht::grad(total, corner)) == std::vector<double>{0, 0, 0, 1});
  CHECK(elements(
            ht::jvp([](const Tensor& at) { return ht::relu(at); }, corner, Tensor::from({5.0, 6.0, 7.0, 8.0}))
                .second) == std::vector<double>{0, 0, 0, 8});
  // Piecewise linear: no second derivative at all, rather than zeros.
  CHECK_FALSE(ht::hvp(total, corner, corner).defined());
}

TEST_CASE("masked keeps what lies over positive numbers, and lets NaN through") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor t = Tensor::from({1.0, 2.0, 3.0, 4.0, nan}), y = Tensor::from({-1.0, 0.0, 2.0, nan, -1.0});
  CHECK(elements(ht::masked(t, y)) == std::vector<double>{0, 0, 3, 4, 0});
  // No derivative in the mask.
  const TensorList g =
      ht::grad([](const TensorList& x) { return ht::sum(ht::masked(x[0], x[1])); }, TensorList{t, y});
  CHECK(elements(g[0]) == std::vector<double>{0, 0, 1, 1, 0});
  CHECK_FALSE(g[1].defined());
}

TEST_CASE("elementwise closed forms, worked by hand") {
  CHECK(number(ht::exp(Tensor::scalar(1.0))) == doctest::Approx(2.718281828459045235).epsilon(1e-15));
  CHECK(number(ht::log(Tensor::scalar(2.0))) == doctest::Approx(0.693147180559945309).epsilon(1e-15));
  CHECK(number(ht::tanh(Tensor::scalar(0.5))) == doctest::Approx(0.462117157260009758).epsilon(1e-15));
  CHECK(number(ht::tanh(Tensor::scalar(1000.0))) == 1.0);
  CHECK(number(ht::exp(Tensor::scalar(-1000.0))) == 0.0);
  CHECK(number(ht::log(Tensor::scalar(0.0))) == -std::numeric_limits<double>::infinity());
  CHECK(std::isnan(number(ht::log(Tensor::scalar(-1.0)))));
  CHECK(number(ht::square(Tensor::scalar(-3.0))) == 9.0);
}

TEST_CASE("each elementwise operation refuses absent, mixed and integer operands by name") {
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const ht::Error& error) {
      return error.what();
    }
    return "nothing thrown";
  };
  const auto has = [](const std::string& text, const std::string& part) {
    const bool found = text.find(part) != std::string::npos;
    CHECK_MESSAGE(found, "expected \"" << part << "\" in: " << text);
  };
  for (const Op& op : ops()) {
    const Tensor x = Tensor::ones({2, 3});
    const auto call = [&](std::size_t place, const Tensor& odd) {
      TensorList all(op.arity, x);
      all[place] = odd;
      return message([&] { op.run(all); });
    };
    for (std::size_t i = 0; i < op.arity; ++i) {
      INFO("operand " << i);
      has(call(i, Tensor()), "[" + op.name + "] operand is absent");
      has(call(i, Tensor::zeros({2, 3}, Dtype::int64)), "[" + op.name + "]");
      has(call(i, Tensor::zeros({2, 3}, Dtype::int64)), "int64");
      has(call(i, Tensor::zeros({2}, Dtype::boolean)), "boolean");
      if (op.arity < 2) continue;
      const std::string mixed = call(i, Tensor::ones({2, 3}, Dtype::float32));
      has(mixed, "[" + op.name + "]");
      has(mixed, "float64 of shape (2, 3)");
      has(mixed, "float32 of shape (2, 3)");
      const std::string shapes = call(i, Tensor::ones({2}));
      has(shapes, "[" + op.name + "]");
      has(shapes, "(2, 3)");
      has(shapes, "(2)");
    }
  }
}
