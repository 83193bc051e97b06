// Selections before the operation with the infinite slope: a tangent that is 0 by selection does not meet it.
// ctest labels: levels
#include <doctest/doctest.h>

#include <cmath>

#include <functional>

#include <hypertape/core/error.h>
#include "support_cases.h"
#include "thrown.h"

namespace ht = hypertape;
using namespace supports;

namespace {

Tensor zeros(std::int64_t n) { return Tensor::zeros({n}); }
Tensor mask(const std::vector<bool>& list) {
  const std::unique_ptr<bool[]> elements(new bool[list.size()]);
  std::copy(list.begin(), list.end(), elements.get());
  return Tensor::from(std::span<const bool>(elements.get(), list.size()),
                      Shape{static_cast<std::int64_t>(list.size())});
}
Tensor positive(const Tensor& x) { return ht::where(ht::greater(x, 0.0), x, 0.0); }
Tensor square_of(const Tensor& x) { return ht::reshape(x, {2, 2}); }

}  // namespace

TEST_CASE("A tangent that is 0 by selection meets no infinite slope") {
  const std::vector<Case> cases = {
      // where
      {"root",
       [](const Tensor& x) { return ht::sqrt(positive(x)); },
       {-1, 0, 4},
       {0, 0, 0.25},
       {0, 0, -1.0 / 32}},
      {"logarithm", [](const Tensor& x) { return ht::log(positive(x)); }, {-1, 2}, {0, 0.5}, {0, -0.25}},
      {"a harmless operand",
       [](const Tensor& x) { return ht::log(ht::where(ht::greater(x, 0.0), x, 1.0)); },
       {-1, 2},
       {0, 0.5},
       {0, -0.25}},
      {"reciprocal", [](const Tensor& x) { return 1.0 / positive(x); }, {-1, 2}, {0, -0.25}, {0, 0.25}},
      {"NaN placed",
       [](const Tensor& x) { return ht::square(ht::where(ht::less(x, 5.0), x, no_number)); },
       {1, 6},
       {2, 0},
       {2, 0}},
      {"infinity placed",
       [](const Tensor& x) { return ht::exp(ht::where(ht::less(x, 5.0), x, inf)); },
       {0, 6},
       {1, 0},
       {1, 0}},
      {"power",
       [](const Tensor& x) { return ht::pow(positive(x), 0.5); },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"power of two operands",
       [](const Tensor& x) { return ht::pow(positive(x), Tensor::full({2}, 0.5)); },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"both branches selected",
       [](const Tensor& x) {
         return ht::sqrt(ht::where(mask({true, false, true}), ht::relu(x), ht::relu(1.0 - x)));
       },
       {-1, 4, 4},
       {0, 0, 0.25},
       {0, 0, -1.0 / 32}},
      // operations between
      {"two between",
       [](const Tensor& x) { return ht::log(ht::tanh(2.0 * positive(x) / 4.0)); },
       {-1, 1},
       {0, 1 / std::sinh(1.0)},
       {0, -std::cosh(1.0) / std::pow(std::sinh(1.0), 2)}},
      {"an infinite slope after another",
       [](const Tensor& x) { return ht::sqrt(ht::square(ht::sqrt(positive(x)))); },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      // more than one operand with a tangent
      {"beside a term that varies",
       [](const Tensor& x) { return x + ht::sqrt(positive(x)); },
       {-1, 4},
       {1, 1.25},
       {0, -1.0 / 32}},
      {"beside a factor that varies",
       [](const Tensor& x) { return x * ht::sqrt(positive(x)); },
       {-1, 4},
       {0, 3},
       {0, 0.375}},
      {"beside a factor that is infinite",
       [](const Tensor& x) {
         return positive(x) * vec({inf, 2});
       },
       {-1, 4},
       {0, 2},
       {0, 0}},
      {"one selected for each operand",
       [](const Tensor& x) {
         return ht::where(mask({false, true, true}), x, 0.0) / ht::where(mask({false, true, false}), x, 1.0);
       },
       {0, 2, 3},
       {0, 0, 1},
       {0, 0, 0}},
      {"union",
       [](const Tensor& x) { return ht::sqrt(positive(x) + ht::relu(x - 1.0)); },
       {-1, 2.5},
       {0, 0.5},
       {0, -0.125}},
      // broadcasting
      {"broadcast",
       [](const Tensor& x) {
         return ht::sqrt(ht::relu(x) + column(vec({0, 0})));
       },
       {-1, 4},
       {0, 0.5},
       {0, -1.0 / 16}},
      {"a selection that broadcasts",
       [](const Tensor& x) {
         return ht::sqrt(ht::where(column(mask({true, false})), ht::relu(x), 0.0));
       },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"a maximum that broadcasts",
       [](const Tensor& x) {
         return ht::sqrt(ht::maximum(column(vec({0, 9})), x));
       },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      // relu, leaky_relu, abs, clamp, maximum, minimum, masked, weigh
      {"relu", [](const Tensor& x) { return ht::sqrt(ht::relu(x)); }, {-1, 4}, {0, 0.25}, {0, -1.0 / 32}},
      {"leaky_relu hands on",
       [](const Tensor& x) { return ht::sqrt(ht::leaky_relu(ht::relu(x), 0.5)); },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"abs", [](const Tensor& x) { return ht::sqrt(ht::abs(x)); }, {0, -4}, {0, -0.25}, {0, -1.0 / 32}},
      {"clamp",
       [](const Tensor& x) { return ht::sqrt(ht::clamp(x, 0.0, 1.0)); },
       {-1, 0.25, 2},
       {0, 1, 0},
       {0, -2, 0}},
      {"clamp to a bound that varies",
       [](const Tensor& x) {
         return ht::sqrt(ht::clamp(vec({2, 0}), x, vec({3, 3})));
       },
       {2.25, -1},
       {1.0 / 3, 0},
       {-2.0 / 27, 0}},
      {"maximum",
       [](const Tensor& x) { return ht::sqrt(ht::maximum(x, zeros(2))); },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"minimum",
       [](const Tensor& x) { return ht::sqrt(-ht::minimum(x, zeros(2))); },
       {1, -4},
       {0, -0.25},
       {0, -1.0 / 32}},
      {"masked",
       [](const Tensor& x) {
         return ht::sqrt(ht::masked(x, vec({-1, 1})));
       },
       {2, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"weights of 0",
       [](const Tensor& x) {
         return ht::sqrt(ht::weigh(vec({0, 1}), x));
       },
       {2, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"weights that are selected",
       [](const Tensor& x) {
         return ht::sqrt(ht::weigh(positive(x), vec({2, 1})));
       },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      // what places elements among others that do not vary
      {"pad",
       [](const Tensor& x) {
         return ht::sqrt(ht::pad(x, {{1, 1}}));
       },
       {4},
       {0.25},
       {-1.0 / 32}},
      {"concatenate",
       [](const Tensor& x) {
         return ht::sqrt(ht::concatenate({zeros(2), x}, 0));
       },
       {4},
       {0.25},
       {-1.0 / 32}},
      {"concatenate with what is selected",
       [](const Tensor& x) {
         return ht::sqrt(ht::concatenate({ht::relu(x), ht::square(x)}, 0));
       },
       {-1, 4},
       {-1, 1.25},
       {0, -1.0 / 32}},
      {"stack",
       [](const Tensor& x) {
         return ht::sqrt(ht::stack({zeros(1), x}));
       },
       {4},
       {0.25},
       {-1.0 / 32}},
      {"flatten",
       [](const Tensor& x) {
         return ht::sqrt(ht::flatten({x, zeros(2)}));
       },
       {4},
       {0.25},
       {-1.0 / 32}},
      {"scatter",
       [](const Tensor& x) { return ht::sqrt(ht::scatter_add(Shape{3}, 0, indices({1}), x)); },
       {4},
       {0.25},
       {-1.0 / 32}},
      {"scatter_labels",
       [](const Tensor& x) {
         return ht::sqrt(ht::scatter_labels(x, indices({1, 0}), 2));
       },
       {4, 1},
       {0.25, 0.5},
       {-1.0 / 32, -0.25}},
      {"diag",
       [](const Tensor& x) { return ht::sqrt(ht::diag(x)); },
       {4, 1},
       {0.25, 0.5},
       {-1.0 / 32, -0.25}},
      {"a triangle",
       [](const Tensor& x) { return ht::sqrt(ht::triu(square_of(x))); },
       {4, 1, 3, 4},
       {0.25, 0.5, 0, 0.25},
       {-1.0 / 32, -0.25, 0, -1.0 / 32}},
      {"places in a row",
       [](const Tensor& x) {
         return ht::sqrt(ht::pad(ht::diag(ht::pad(x, {{0, 1}})), {{1, 0}, {0, 1}}));
       },
       {4},
       {0.25},
       {-1.0 / 32}},
      // what moves elements moves what is known of them
      {"moved",
       [](const Tensor& x) {
         const Tensor y = ht::transpose(square_of(ht::relu(x)));
         return ht::sqrt(ht::contiguous(ht::roll(ht::flip(ht::repeat(y, 2, 0), {1}), 1, 0)));
       },
       {-1, 4, 1, -2},
       {0, 0.5, 1, 0},
       {0, -1.0 / 16, -0.5, 0}},
      {"parts",
       [](const Tensor& x) {
         const Tensor y = ht::relu(x);
         return ht::sqrt(ht::slice(y, 0, 0, 2)) + ht::sqrt(ht::gather(y, 0, indices({2, 2}))) +
                ht::sqrt(ht::diagonal(square_of(y)));
       },
       {-1, 4, 1, -1},
       {0, 0.25, 1, 0},
       {0, -1.0 / 32, -0.5, 0}},
      {"pieces",
       [](const Tensor& x) {
         const TensorList halves = ht::split(ht::relu(x), {2, 2}), rows = ht::unstack(square_of(ht::relu(x))),
                          cut = ht::unflatten(ht::relu(x), {Shape{2}, Shape{2}});
         return ht::sqrt(halves[0]) + ht::sqrt(rows[1]) + ht::sqrt(cut[1]);
       },
       {-1, 4, 1, -1},
       {0, 0.25, 1, 0},
       {0, -1.0 / 32, -0.5, 0}},
      {"labels' elements",
       [](const Tensor& x) {
         return ht::sqrt(ht::gather_labels(square_of(ht::relu(x)), indices({0, 1})));
       },
       {-1, 4, 1, 4},
       {0, 0, 0, 0.25},
       {0, 0, 0, -1.0 / 32}},
      {"a sum of what was not taken",
       [](const Tensor& x) { return ht::sqrt(ht::sum(square_of(ht::relu(x)), {1})); },
       {-1, -2, 1, 3},
       {0, 0, 0.25, 0.25},
       {0, 0, -1.0 / 16, -1.0 / 16}},
      {"cumulative sums",
       [](const Tensor& x) { return ht::sqrt(ht::cumulative_sum(ht::relu(x), 0)); },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"as float64 again",
       [](const Tensor& x) {
         return ht::sqrt(ht::astype(ht::astype(ht::relu(x), ht::Dtype::float32), ht::Dtype::float64));
       },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      // line by line
      {"log_softmax of rows that are NaN",
       [](const Tensor& x) {
         const Tensor rows = ht::where(column(mask({true, false})), square_of(x), no_number);
         return ht::slice(ht::log_softmax(rows), 1, 0, 1);
       },
       {0, std::log(3.0), 1, 2},
       {0.75, -0.75, 0, 0},
       {0, 0, 0, 0}},
      {"softmax of rows that are NaN",
       [](const Tensor& x) {
         const Tensor rows = ht::where(column(mask({true, false})), square_of(x), no_number);
         return ht::slice(ht::softmax(rows), 1, 0, 1);
       },
       {0, std::log(3.0), 1, 2},
       {3.0 / 16, -3.0 / 16, 0, 0},
       {0, 0, 0, 0}},
      {"losses of rows that are NaN",
       [](const Tensor& x) {
         const Tensor rows = ht::where(column(mask({true, false})), square_of(x), no_number);
         return ht::softmax_cross_entropy_losses(rows, indices({0, 1}));
       },
       {0, std::log(3.0), 1, 2},
       {-0.75, 0.75, 0, 0},
       {0, 0, 0, 0}},
      // a checkpoint passes it in and out
      {"into a checkpoint",
       [](const Tensor& x) {
         return ht::checkpoint([](const Tensor& y) { return ht::sqrt(y); }, ht::relu(x));
       },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      {"out of a checkpoint",
       [](const Tensor& x) {
         return ht::sqrt(ht::checkpoint([](const Tensor& y) { return ht::relu(y); }, x));
       },
       {-1, 4},
       {0, 0.25},
       {0, -1.0 / 32}},
      // before and after
      {"on both sides",
       [](const Tensor& x) {
         return ht::relu(ht::log(positive(x))) + ht::sqrt(ht::relu(ht::sqrt(positive(x)) - 1.0));
       },
       {-1, 0, 4},
       {0, 0, 0.25 + 0.125},
       {0, 0, -1.0 / 16 - 1.0 / 64 - 1.0 / 64}},
  };
  for (const Case& each : cases) expect_case(each);
}

TEST_CASE("Tangents of selections in a row, and joined, need no stack") {
  const auto root = [](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 20000; ++i) y = ht::relu(y);
    return ht::sum(ht::sqrt(y));
  };
  CHECK(ht::jvp(root, vec({-1, 4}), vec({1, 3})).second.item() == 0.75);
  const auto joined = [](const Tensor& x) {
    Tensor total = ht::relu(x);
    for (int i = 0; i < 5000; ++i) total = total + ht::relu(x);
    return ht::sum(ht::sqrt(total));
  };
  // Of sqrt(5001 x) at 5001.
  const auto linear = ht::linearize(joined, vec({-1, 5001})).second;
  CHECK(std::abs(linear(vec({1, 1})).item() - 0.5) < 1e-12);
  CHECK(std::abs(ht::jvp(joined, vec({-1, 5001}), vec({1, 1})).second.item() - 0.5) < 1e-12);
}

TEST_CASE("A fused sum of tangents does not take the support of one term") {
  // In a replay a term may be added to the tangent before it in one pass: nothing is known of the sum.
  const double slope = 1 - std::tanh(-1.0) * std::tanh(-1.0);
  const auto expect = [&](const Function& f) {
    const Function total = [f](const Tensor& x) { return ht::sum(ht::exp(f(x))); };
    const double want = slope * std::exp(std::tanh(-1.0));
    CHECK(std::abs(ht::linearize(total, vec({-1})).second(vec({1})).item() - want) < 1e-14);
    CHECK(std::abs(ht::jvp(total, vec({-1}), vec({1})).second.item() - want) < 1e-14);
  };
  expect([](const Tensor& x) {
    const Tensor y = ht::tanh(x);
    return y + ht::relu(x);
  });
  expect([](const Tensor& x) {
    const Tensor y = ht::tanh(x);
    return y + ht::clamp(x, 0.0, 1.0);
  });
  expect([](const Tensor& x) {
    const Tensor y = ht::tanh(x);
    return y + ht::maximum(x, zeros(1));
  });
  expect([](const Tensor& x) {
    const Tensor y = ht::tanh(x);
    return y + ht::masked(x, vec({-1}));
  });
  expect([](const Tensor& x) {
    const Tensor y = ht::tanh(x), z = ht::relu(x);
    return ht::tanh(x) + 0.0 * y + 2.0 * z;
  });
  expect([](const Tensor& x) {
    const Tensor z = ht::relu(x), y = ht::tanh(x), twice = 2.0 * z;
    return y + twice;
  });
  const auto honest = [](const Tensor& x) { return ht::sum(ht::sqrt(ht::relu(x) + ht::tanh(x) * 0.0)); };
  CHECK(std::isnan(ht::linearize(honest, vec({-1})).second(vec({1})).item()));
  CHECK(std::isnan(ht::jvp(honest, vec({-1}), vec({1})).second.item()));
}

TEST_CASE("what a selection was made by may not be written over before the derivative is complete") {
  const Tensor x = Tensor::from({-1.0, 4.0}, {2}), t = Tensor::ones({2});
  const auto through = [&](const std::function<Tensor(const Tensor&, Tensor&)>& select, const Tensor& by,
                           const Tensor& other) {
    return [=](const Tensor& at) {
      Tensor buffer = ht::concatenate({by}, 0);
      const Tensor selected = select(at, buffer);
      buffer.assign(other);
      return ht::sum(ht::sqrt(selected));
    };
  };
  const auto weighed = through([](const Tensor& at, Tensor& by) { return ht::weigh(by, at); },
                               Tensor::from({0.0, 1.0}, {2}), Tensor::ones({2}));
  CHECK(contains(thrown([&] { ht::jvp(weighed, x, t); }), "was overwritten by assign()"));
  const auto chosen = through([](const Tensor& at, Tensor& by) { return ht::where(by, at, 0.0); },
                              Tensor::from({false, true}, {2}), Tensor::from({true, true}, {2}));
  CHECK(contains(thrown([&] { ht::jvp(chosen, x, t); }), "was overwritten by assign()"));
  const auto clamped = through([](const Tensor& at, Tensor& by) { return ht::maximum(at, by); },
                               Tensor::zeros({2}), Tensor::full({2}, -5.0));
  CHECK(contains(thrown([&] { ht::jvp(clamped, x, t); }), "was overwritten by assign()"));
}
