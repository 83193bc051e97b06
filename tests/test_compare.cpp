// ctest labels: threads
//
// Comparisons, logic and where.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

// Elements of a boolean tensor, as 0 and 1.
std::vector<int> truths(const Tensor& x) {
  CHECK(x.dtype() == Dtype::boolean);
  const auto size = static_cast<std::size_t>(x.size());
  const auto values = std::make_unique<bool[]>(size);
  x.copy_to(std::span<bool>(values.get(), size));
  return {values.get(), values.get() + size};
}
using Truths = std::vector<int>;

Tensor mask(std::initializer_list<bool> values) { return Tensor::from(values); }

struct Comparison {
  const char* name;
  Tensor (*tensors)(const Tensor&, const Tensor&);
  Tensor (*number)(const Tensor&, double);
  bool (*expected)(double, double);
};
const Comparison comparisons[] = {
    {"less", ht::less, ht::less, [](double a, double b) { return a < b; }},
    {"less_equal", ht::less_equal, ht::less_equal, [](double a, double b) { return a <= b; }},
    {"greater", ht::greater, ht::greater, [](double a, double b) { return a > b; }},
    {"greater_equal", ht::greater_equal, ht::greater_equal, [](double a, double b) { return a >= b; }},
    {"equal", ht::equal, ht::equal, [](double a, double b) { return a == b; }},
    {"not_equal", ht::not_equal, ht::not_equal, [](double a, double b) { return a != b; }}};

}  // namespace

TEST_CASE("comparisons are those of C++, NaN, infinities and signed zeros included, in every dtype") {
  const std::vector<double> values = {-1.5, -0.0, 0.0, 2.0, inf, -inf, not_a_number};
  const auto count = static_cast<std::int64_t>(values.size());
  const Tensor x = Tensor::from(values, {count, 1}), y = Tensor::from(values, {count});
  const std::vector<std::int64_t> integers = {-3, 0, 1, 9007199254740993, 9007199254740992};
  const Tensor k = Tensor::from(integers, {5, 1}), l = Tensor::from(integers, {5});
  for (const Comparison& compare : comparisons) {
    INFO(std::string(compare.name));
    Truths expected, expected_two;
    for (const double a : values)
      for (const double b : values) expected.push_back(compare.expected(a, b));
    for (const double a : values) expected_two.push_back(compare.expected(a, 2.0));
    CHECK(truths(compare.tensors(x, y)) == expected);
    CHECK(truths(compare.number(y, 2.0)) == expected_two);
    const Tensor xf = ladder::converted(x, Dtype::float32), yf = ladder::converted(y, Dtype::float32);
    CHECK(truths(compare.tensors(xf, yf)) == expected);
    CHECK(truths(compare.number(yf, 2.0)) == expected_two);
    CHECK(compare.tensors(x, y).shape() == Shape{count, count});
    // Integers are not compared through doubles, to which the last two are one number.
    expected.clear();
    for (const std::int64_t a : integers)
      for (const std::int64_t b : integers)
        expected.push_back(compare.expected(static_cast<double>((a > b) - (a < b)), 0.0));
    CHECK(truths(compare.tensors(k, l)) == expected);
    CHECK(truths(compare.number(l, 1.0))[2] == compare.expected(0, 0));
  }
  // A number takes the tensor's dtype.
  CHECK(truths(ht::equal(Tensor::full({1}, 0.1, Dtype::float32), 0.1)) == Truths{1});
}

TEST_CASE("comparisons broadcast, take views, nothing, and any number of elements on any number of threads") {
  const Tensor x = sample({7, 5}, -1, 1, 1), row = sample({5}, -1, 1, 2), column = sample({7, 1}, -1, 1, 3);
  const auto reference = [](const Tensor& a, const Tensor& b, const Shape& shape) {
    const Tensor zero = Tensor::zeros(shape);
    const std::vector<double> left = elements(a + zero), right = elements(b + zero);
    Truths expected;
    for (std::size_t i = 0; i < left.size(); ++i) expected.push_back(left[i] < right[i]);
    return expected;
  };
  CHECK(truths(ht::less(x, row)) == reference(x, row, {7, 5}));
  CHECK(truths(ht::less(column, x)) == reference(column, x, {7, 5}));
  CHECK(truths(ht::less(row, column)) == reference(row, column, {7, 5}));
  CHECK(truths(ht::less(ht::transpose(x), ht::transpose(column))) ==
        reference(ht::transpose(x), ht::transpose(column), {5, 7}));
  CHECK(truths(ht::less(ht::slice(x, 1, 1, 4), column)) == reference(ht::slice(x, 1, 1, 4), column, {7, 3}));
  CHECK(ht::less(Tensor::zeros({0, 3}), Tensor::zeros({3})).shape() == Shape{0, 3});
  CHECK(truths(ht::less(Tensor::scalar(1.0), Tensor::scalar(2.0))) == Truths{1});
  for (const Shape& shape : {Shape{100'003}, Shape{20'011, 3}, Shape{3, 20'011}}) {
    const Tensor a = sample(shape, -1, 1, 4), b = sample({shape[shape.rank() - 1]}, -1, 1, 5);
    Truths one;
    for (const int threads : {1, 2}) {
      const ladder::Threads count(threads);
      const Truths got = truths(ht::less(a, b));
      if (threads == 1) one = got;
      CHECK((got == one && got == reference(a, b, shape)));
    }
  }
}

TEST_CASE("comparisons end derivatives") {
  const Tensor x = sample({4}, 0.5, 2, 6);
  const auto f = [](const Tensor& at) { return ht::sum(ht::where(ht::less(at, 1.0), at * at, 3.0 * at)); };
  const std::vector<double> values = elements(x), g = elements(ht::grad(f, x));
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(g[i] == (values[i] < 1.0 ? 2 * values[i] : 3.0));
}

TEST_CASE("logic") {
  const Tensor a = mask({false, false, true, true}), b = mask({false, true, false, true});
  CHECK(truths(ht::logical_and(a, b)) == Truths{0, 0, 0, 1});
  CHECK(truths(ht::logical_or(a, b)) == Truths{0, 1, 1, 1});
  CHECK(truths(ht::logical_not(a)) == Truths{1, 1, 0, 0});
  CHECK(truths(ht::equal(a, b)) == Truths{1, 0, 0, 1});
  CHECK(truths(ht::not_equal(a, b)) == Truths{0, 1, 1, 0});
  CHECK(truths(ht::logical_and(a, ht::reshape(b, {4, 1}))).size() == 16);
}

TEST_CASE("where selects in every dtype, broadcasting all three") {
  const Tensor m = ht::reshape(mask({true, false, true}), {3, 1});
  CHECK(elements(ht::where(m, Tensor::from({1.0, 2.0}), Tensor::scalar(9.0))) ==
        std::vector<double>{1, 2, 9, 9, 1, 2});
  CHECK(ht::where(m, Tensor::from<std::int64_t>({1, 2}), Tensor::from<std::int64_t>({3, 4}))
            .to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 2, 3, 4, 1, 2});
  CHECK(truths(ht::where(mask({true, false}), mask({true, true}), mask({false, false}))) == Truths{1, 0});
  CHECK(elements(ht::where(mask({true, false}), Tensor::from({1.0f, 2.0f}), Tensor::from({3.0f, 4.0f}))) ==
        std::vector<double>{1, 4});
  CHECK(elements(ht::where(mask({true, false}), 7.0, Tensor::from({3.0, 4.0}))) == std::vector<double>{7, 4});
  CHECK(elements(ht::where(mask({true, false}), Tensor::from({3.0, 4.0}), 7.0)) == std::vector<double>{3, 7});
}

TEST_CASE("where ladder: all shapes, views, both branches from one tensor") {
  const Tensor plane = ht::less(sample({3, 4}, -1, 1, 1), 0.0), row = ht::less(sample({4}, -1, 1, 2), 0.0),
               one = Tensor::from({true}, Shape{});
  for (const Tensor& m : {plane, row, one}) {
    const auto f = [&](const TensorList& x) { return TensorList{ht::where(m, x[0], x[1])}; };
    for (const auto& [a, b] :
         {std::pair<Shape, Shape>{{3, 4}, {3, 4}}, {{4}, {3, 4}}, {{3, 4}, {3, 1}}, {{}, {4}}, {{3, 1}, {1}}})
      expect_derivatives("where", f, {sample(a, -2, 2, 3), sample(b, -2, 2, 4)});
    expect_derivatives("where of views",
                       [&](const TensorList& x) {
                         return TensorList{ht::where(m, ht::transpose(x[0]), ht::slice(x[1], 1, 1, 5))};
                       },
                       {sample({4, 3}, -2, 2, 3), sample({3, 6}, -2, 2, 4)});
    expect_derivatives(
        "where of functions of one tensor",
        [&](const TensorList& x) { return TensorList{ht::where(m, ht::exp(x[0]), x[0] * x[0] * x[0])}; },
        {sample({3, 4}, -1, 1, 5)});
  }
  expect_derivatives(
      "where over nothing",
      [](const TensorList& x) { return TensorList{ht::where(Tensor::from({true}, Shape{}), x[0], x[1])}; },
      {Tensor::zeros({0, 3}), Tensor::zeros({3})});
  ladder::Options options;
  options.max_order = 2;
  const Tensor large = ht::less(sample({1003, 101}, -1, 1, 6), 0.0);
  expect_consistent(
      "where of (1003, 101) and a row",
      [&](const TensorList& x) { return TensorList{ht::where(large, x[0], x[1])}; },
      {sample({1003, 101}, -1, 1, 7), sample({101}, -1, 1, 8)}, options);
}

TEST_CASE("NaN and infinity of the branch not taken reach neither value nor derivatives") {
  const Tensor a = Tensor::from({not_a_number, inf, 1.0}), b = Tensor::from({1.0, 2.0, not_a_number});
  const Tensor m = mask({false, false, true});
  const auto f = [&](const TensorList& at) { return ht::sum(ht::where(m, at[0], at[1]) * 3.0); };
  CHECK(f({a, b}).item() == 12.0);
  const TensorList gradients = ht::grad(f, TensorList{a, b});
  CHECK(elements(gradients[0]) == std::vector<double>{0, 0, 3});
  CHECK(elements(gradients[1]) == std::vector<double>{3, 3, 0});
  // A cotangent of NaN goes to the branch that was taken.
  const auto scaled = [&](const TensorList& at) {
    return ht::sum(ht::where(m, at[0], at[1]) * Tensor::from({1.0, 1.0, not_a_number}));
  };
  CHECK(elements(ht::grad(scaled, TensorList{a, b})[1]) == std::vector<double>{1, 1, 0});
  // Tangents: NaN along the branch not taken.
  const auto pushed = ht::jvp(
      [&](const TensorList& at) { return TensorList{ht::where(m, at[0], at[1])}; }, TensorList{a, b},
      TensorList{Tensor::from({not_a_number, not_a_number, 5.0}), Tensor::from({6.0, 7.0, not_a_number})});
  CHECK(elements(pushed.second[0]) == std::vector<double>{6, 7, 5});
  // A function that is infinite outside the mask gets a harmless operand there: 0 times infinity would be
  // NaN.
  const auto guarded = [](const Tensor& at) {
    const Tensor positive = ht::greater(at, 0.0);
    return ht::sum(ht::where(positive, ht::log(ht::where(positive, at, 1.0)), 0.0));
  };
  CHECK(elements(ht::grad(guarded, Tensor::from({-1.0, 0.0, 4.0}))) == std::vector<double>{0, 0, 0.25});
}

TEST_CASE("comparisons, logic and where refuse what does not fit, by name") {
  const Tensor x = Tensor::ones({2, 3}), f = Tensor::ones({2, 3}, Dtype::float32),
               k = Tensor::ones({2, 3}, Dtype::int64), m = Tensor::ones({2, 3}, Dtype::boolean);
  for (const Comparison& compare : comparisons) {
    const std::string name = "[" + std::string(compare.name) + "] ";
    expect_text(thrown([&] { compare.tensors(x, f); }),
                name + "dtypes differ: float64 of shape (2, 3) and float32 of shape (2, 3)");
    expect_text(thrown([&] { compare.tensors(k, x); }), name + "dtypes differ: int64");
    expect_text(thrown([&] { compare.tensors(Tensor(), x); }), name + "operand is absent");
    expect_text(thrown([&] { compare.number(Tensor(), 1.0); }), name + "operand is absent");
    expect_text(thrown([&] { compare.tensors(x, Tensor::ones({2})); }), name);
    expect_text(thrown([&] { compare.number(k, 0.5); }),
                name + "cannot take the number 0.5, which is not an int64, with int64 of shape (2, 3)");
    expect_text(thrown([&] { compare.number(k, not_a_number); }), name);
    expect_text(thrown([&] { compare.number(m, 1.0); }), name + "cannot take the number 1 with a boolean");
  }
  expect_text(thrown([&] { ht::less(m, m); }), "[less] booleans have no order");
  expect_text(thrown([&] { ht::logical_and(m, x); }),
              "[logical_and] operands must be boolean, not float64 of shape (2, 3)");
  expect_text(thrown([&] { ht::logical_or(k, m); }), "[logical_or] operands must be boolean, not int64");
  expect_text(thrown([&] { ht::logical_not(x); }), "[logical_not] operand must be boolean");
  expect_text(thrown([&] { ht::where(x, x, x); }),
              "[where] mask must be boolean, not float64 of shape (2, 3)");
  expect_text(thrown([&] { ht::where(m, x, f); }),
              "[where] dtypes differ: float64 of shape (2, 3) and float32");
  expect_text(thrown([&] { ht::where(m, x, Tensor::ones({4})); }), "[where]");
  expect_text(thrown([&] { ht::where(m, Tensor(), x); }), "[where] operand is absent");
  expect_text(thrown([&] { ht::where(Tensor(), x, x); }), "[where] operand is absent");
  expect_text(thrown([&] { ht::where(m, 1.0, Tensor()); }), "[where] operand is absent");
}
