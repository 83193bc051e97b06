// ctest labels: threads kernels levels
//
// Softmax along any axis and losses: values against long double and another system, the ladder in logits,
// soft labels and weights, extreme logits by hand.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "ladder.h"
#include "naive.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Dtype;
using ht::LossWeights;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
using Values = std::vector<double>;

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, -2, 2, seed); }
Tensor positive(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, 0.3, 2, seed); }
// Rows that add up to 1.
Tensor distributions(const Shape& shape, std::uint64_t seed = 1) {
  return ht::softmax(sample(shape, -1, 1, seed));
}

Tensor labels_for(std::int64_t rows, std::int64_t classes) {
  std::vector<std::int64_t> values;
  for (std::int64_t n = 0; n < rows; ++n) values.push_back((n * 7 + 2) % classes);
  return Tensor::from(values, {rows});
}

// -log softmax(logits)[n, c] in long double.
std::vector<std::vector<long double>> naive_surprise(const Tensor& logits) {
  const Values z = elements(logits);
  const auto classes = static_cast<std::size_t>(logits.extent(1));
  std::vector<std::vector<long double>> result;
  for (std::size_t n = 0; n < z.size(); n += classes) {
    long double total = 0;
    for (std::size_t c = 0; c < classes; ++c) total += std::exp(static_cast<long double>(z[n + c]));
    result.emplace_back();
    for (std::size_t c = 0; c < classes; ++c) result.back().push_back(std::log(total) - z[n + c]);
  }
  return result;
}

bool near(double got, long double expected, double tolerance = 1e-14) {
  return std::abs(got - expected) <= tolerance * std::max(1.0L, std::abs(expected));
}

}  // namespace

TEST_CASE("softmax and log_softmax along each axis: values and ladder") {
  for (const Shape& shape : {Shape{5}, Shape{3, 4}, Shape{2, 3, 4}, Shape{4, 1}})
    for (int axis = 0; axis < shape.rank(); ++axis) {
      const Tensor x = uniform(shape), p = ht::softmax(x, axis), l = ht::log_softmax(x, axis - shape.rank());
      const Values values = elements(x), probabilities = elements(p), logs = elements(l);
      const Shape kept = shape.with(axis, 1);
      std::vector<long double> totals(static_cast<std::size_t>(kept.size()));
      std::size_t n = 0;
      naive::for_each_index(shape, [&](const naive::Index& index) {
        totals[naive::position(index, kept)] += std::exp(static_cast<long double>(values[n++]));
      });
      n = 0;
      naive::for_each_index(shape, [&](const naive::Index& index) {
        const long double expected = values[n] - std::log(totals[naive::position(index, kept)]);
        CHECK(near(logs[n], expected));
        CHECK(near(probabilities[n], std::exp(expected)));
        ++n;
      });
      const std::string name = naive::label("softmax", shape, {axis});
      expect_derivatives(name, [&](const TensorList& z) { return TensorList{ht::softmax(z[0], axis)}; }, {x});
      expect_derivatives("log_" + name,
                         [&](const TensorList& z) { return TensorList{ht::log_softmax(z[0], axis)}; }, {x});
    }
  expect_derivatives("log_softmax of a transpose",
                     [](const TensorList& z) { return TensorList{ht::log_softmax(ht::transpose(z[0]), 0)}; },
                     {uniform({4, 3})});
  CHECK(ladder::same_bits(ht::softmax(uniform({3, 4})), ht::softmax(uniform({3, 4}), 1)));
  CHECK(ht::softmax(Tensor::zeros({0, 3})).shape() == Shape{0, 3});
  ladder::Options options;
  options.max_order = 1;
  for (const int axis : {0, 1})
    expect_consistent(
        "large softmax", [&](const TensorList& z) { return TensorList{ht::softmax(z[0], axis)}; },
        {uniform({300, 200})}, options);
}

TEST_CASE("softmax and log_softmax where exp over- or underflows") {
  const Tensor x = Tensor::from({1e4, 0.0, -1e4, 1e300, 1e300, -inf}, {2, 3});
  CHECK(elements(ht::softmax(x)) == Values{1, 0, 0, 0.5, 0.5, 0});
  CHECK(elements(ht::log_softmax(x)) == Values{0, -1e4, -2e4, -std::log(2.0), -std::log(2.0), -inf});
  for (const bool logarithm : {false, true}) {
    const auto loss = [&](const Tensor& z) {
      const Tensor y = logarithm ? ht::slice(ht::log_softmax(z), 1, 0, 2) : ht::softmax(z);
      return ht::sum(ht::tanh(y));
    };
    CHECK_FALSE(ht::has_non_finite(ht::grad(loss, x)));
    CHECK_FALSE(ht::has_non_finite(ht::hvp(loss, x, uniform({2, 3}))));
    CHECK_FALSE(ht::has_non_finite(ht::jvp(
                                       [&](const Tensor& z) {
                                         return ht::hvp(loss, z, uniform({2, 3}));
                                       },
                                       x, uniform({2, 3}, 2))
                                       .second));
  }
  CHECK(std::isnan(elements(ht::softmax(Tensor::from({-inf, -inf})))[0]));
  CHECK(std::isnan(elements(ht::softmax(Tensor::from({std::nan(""), 1.0})))[1]));
}

TEST_CASE("cross entropy of each row, for integer labels and distributions") {
  for (const auto& [rows, classes] : {std::pair<std::int64_t, std::int64_t>{4, 3}, {1, 1}, {1, 5}, {5, 2}}) {
    const Tensor x = uniform({rows, classes}), labels = labels_for(rows, classes),
                 soft = distributions({rows, classes}, 2);
    const auto surprise = naive_surprise(x);
    const Values hard = elements(ht::softmax_cross_entropy_losses(x, labels)),
                 mixed = elements(ht::softmax_cross_entropy_losses(x, soft)), q = elements(soft);
    long double total = 0;
    for (std::size_t n = 0; n < surprise.size(); ++n) {
      const auto label = static_cast<std::size_t>(labels.to_vector<std::int64_t>()[n]);
      CHECK(near(hard[n], surprise[n][label]));
      long double expected = 0;
      for (std::size_t c = 0; c < surprise[n].size(); ++c)
        expected += q[n * surprise[n].size() + c] * surprise[n][c];
      CHECK(near(mixed[n], expected));
      total += expected / rows;
    }
    CHECK(near(ht::softmax_cross_entropy(x, soft).item(), total));
    CHECK(ladder::difference({ht::mean(ht::softmax_cross_entropy_losses(x, labels))},
                             {ht::softmax_cross_entropy(x, labels)}) <= 1e-15);
    CHECK(ladder::difference({ht::softmax_cross_entropy_losses(x, ht::one_hot(labels, classes))},
                             {ht::softmax_cross_entropy_losses(x, labels)}) <= 1e-14);
    const auto losses = [](const TensorList& z) {
      return TensorList{ht::softmax_cross_entropy_losses(z[0], z[1])};
    };
    const auto mean = [](const TensorList& z) { return TensorList{ht::softmax_cross_entropy(z[0], z[1])}; };
    expect_derivatives("losses of integer labels", losses, {x, labels});
    expect_derivatives("losses of distributions", losses, {x, soft});
    expect_derivatives("cross entropy of distributions", mean, {x, soft});
  }
  expect_derivatives("losses of a transpose's rows",
                     [](const TensorList& z) {
                       return TensorList{ht::softmax_cross_entropy_losses(ht::transpose(z[0]), z[1])};
                     },
                     {uniform({3, 4}), labels_for(4, 3)});
  ladder::Options options;
  options.max_order = 2;
  expect_consistent(
      "losses of 5000 rows",
      [](const TensorList& z) { return TensorList{ht::softmax_cross_entropy_losses(z[0], z[1])}; },
      {uniform({5000, 10}), labels_for(5000, 10)}, options);
  // torch.nn.functional.cross_entropy with probabilities
  CHECK(near(ht::softmax_cross_entropy(Tensor::from({0.5, -1.25, 2.0, 1.5, 0.25, -0.75}, {2, 3}),
                                       Tensor::from({0.2, 0.3, 0.5, 0.6, 0.1, 0.3}, {2, 3}))
                 .item(),
             1.3191472962546285L));
}

TEST_CASE("losses of rows with extreme logits, and their first three derivatives") {
  const Tensor labels = Tensor::from<std::int64_t>({0, 1, 2}), v = uniform({3, 3}, 2);
  for (const double size : {1e4, 1e300}) {
    const Tensor x = Tensor::from({size, -size, 0.0, size, -size, 0.0, size, size, -size}, {3, 3});
    const Values losses = elements(ht::softmax_cross_entropy_losses(x, labels));
    CHECK(losses[0] == 0.0);
    CHECK(losses[1] == 2 * size);
    const auto loss = [&](const Tensor& z) {
      return ht::sum(ht::tanh(ht::softmax_cross_entropy_losses(z, labels) / size));
    };
    const auto second = [&](const Tensor& z) { return ht::hvp(loss, z, v); };
    CHECK_FALSE(ht::has_non_finite(ht::grad(loss, x)));
    CHECK_FALSE(ht::has_non_finite(second(x)));
    CHECK_FALSE(ht::has_non_finite(ht::jvp(second, x, v).second));
  }
}

TEST_CASE("weights of samples and classes: the formula, and derivatives in them") {
  const std::int64_t rows = 4, classes = 3;
  const Tensor x = uniform({rows, classes}), labels = labels_for(rows, classes),
               soft = distributions({rows, classes}, 2), a = positive({rows}, 3), b = positive({classes}, 4);
  const auto surprise = naive_surprise(x);
  const Values sample_weights = elements(a), class_weights = elements(b),
               hot = elements(ht::one_hot(labels, classes)), q = elements(soft);
  for (const bool integers : {true, false})
    for (const bool by_sample : {true, false})
      for (const bool by_class : {true, false}) {
        const LossWeights weights{by_sample ? a : Tensor(), by_class ? b : Tensor()};
        long double total = 0, count = 0;
        for (std::size_t n = 0; n < 4; ++n)
          for (std::size_t c = 0; c < 3; ++c) {
            const long double w = (by_sample ? sample_weights[n] : 1.0L) *
                                  (by_class ? class_weights[c] : 1.0L) * (integers ? hot : q)[n * 3 + c];
            total += w * surprise[n][c];
            count += w;
          }
        CHECK(near(ht::softmax_cross_entropy(x, integers ? labels : soft, weights).item(), total / count));
        expect_derivatives("weighted cross entropy",
                           [&](const TensorList& z) {
                             const LossWeights given{by_sample ? z[2] : Tensor(), by_class ? z[3] : Tensor()};
                             return TensorList{ht::softmax_cross_entropy(z[0], z[1], given)};
                           },
                           {x, integers ? labels : soft, a, b});
      }
  // torch.nn.functional.cross_entropy(weight=...)
  const Tensor z = Tensor::from({0.5, -1.25, 2.0, 1.5, 0.25, -0.75}, {2, 3});
  const Tensor y = Tensor::from<std::int64_t>({2, 1});
  const auto loss = [&](const Tensor& at) {
    return ht::softmax_cross_entropy(at, y, {.classes = Tensor::from({0.5, 2.0, 1.25})});
  };
  CHECK(near(loss(z).item(), 1.0621915992898427L));
  const Values expected{0.06800776234901704, 0.011817977048629398, -0.07982573939764644,
                        0.44211713301604,    -0.48871593600144525, 0.046598802985405245};
  CHECK(ladder::difference({ht::grad(loss, z)}, {Tensor::from(expected, {2, 3})}) <= 1e-15);
}

TEST_CASE("samples of weight 0 count for nothing; the loss does not change when weights are scaled") {
  const Tensor x = uniform({4, 3}), labels = labels_for(4, 3);
  const Tensor masked = Tensor::from({1.0, 0.0, 1.0, 0.0}), kept = Tensor::from<std::int64_t>({0, 2});
  const auto weighted = [&](const Tensor& z, const Tensor& w) {
    return ht::softmax_cross_entropy(z, labels, {.samples = w});
  };
  CHECK(near(weighted(x, masked).item(),
             ht::softmax_cross_entropy(ht::index_select(x, 0, kept), ht::take(labels, kept)).item()));
  const Tensor g = ht::grad([&](const Tensor& z) { return weighted(z, masked); }, x);
  CHECK(elements(ht::slice(g, 0, 1, 2)) == Values{0, 0, 0});
  const Tensor w = positive({4});
  CHECK(near(weighted(x, w * 5.0).item(), weighted(x, w).item()));
  // Hence <w, dL/dw> = 0 (Euler).
  CHECK(std::abs(ht::dot(w, ht::grad([&](const Tensor& at) { return weighted(x, at); }, w)).item()) <= 1e-15);
  CHECK(std::isnan(weighted(x, Tensor::zeros({4})).item()));
}

TEST_CASE("weighted_mean: value and ladder") {
  const Tensor x = uniform({2, 3}), w = positive({2, 3}, 2);
  expect_derivatives("weighted_mean",
                     [](const TensorList& z) { return TensorList{ht::weighted_mean(z[0], z[1])}; }, {x, w});
  CHECK(near(ht::weighted_mean(x, Tensor::ones({2, 3})).item(), ht::mean(x).item()));
  CHECK(ht::weighted_mean(Tensor::from({1.0, 5.0}), Tensor::from({3.0, 1.0})).item() == 2.0);
}

TEST_CASE("mean_squared_error: value, weights, ladder") {
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{3, 4}, Shape{2, 3, 2}}) {
    const Tensor p = uniform(shape), t = uniform(shape, 2);
    long double total = 0;
    for (std::size_t i = 0; i < elements(p).size(); ++i) {
      const long double error = static_cast<long double>(elements(p)[i]) - elements(t)[i];
      total += error * error / static_cast<long double>(p.size());
    }
    CHECK(near(ht::mean_squared_error(p, t).item(), total));
    expect_derivatives("mean_squared_error",
                       [](const TensorList& z) { return TensorList{ht::mean_squared_error(z[0], z[1])}; },
                       {p, t});
    if (shape.rank() == 0) continue;
    const Tensor w = positive({shape[0]}, 3);
    CHECK(near(ht::mean_squared_error(p, t, Tensor::ones({shape[0]})).item(), total));
    expect_derivatives(
        "weighted mean_squared_error",
        [](const TensorList& z) { return TensorList{ht::mean_squared_error(z[0], z[1], z[2])}; }, {p, t, w});
  }
  CHECK(ht::mean_squared_error(Tensor::from({1.0, 2.0, 5.0, 5.0}, {2, 2}), Tensor::full({2, 2}, 1.0),
                               Tensor::from({3.0, 1.0}))
            .item() == 4.375);  // (3 * 0.5 + 1 * 16) / 4
}

TEST_CASE("binary_cross_entropy_with_logits: value, weights, ladder through 0") {
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{3, 4}}) {
    const Tensor z = uniform(shape), q = sample(shape, 0.1, 0.9, 2);
    long double total = 0;
    for (std::size_t i = 0; i < elements(z).size(); ++i) {
      const long double s = 1 / (1 + std::exp(-static_cast<long double>(elements(z)[i]))), t = elements(q)[i];
      total -= (t * std::log(s) + (1 - t) * std::log(1 - s)) / static_cast<long double>(z.size());
    }
    CHECK(near(ht::binary_cross_entropy_with_logits(z, q).item(), total));
    const auto run = [](const TensorList& x) {
      return TensorList{ht::binary_cross_entropy_with_logits(x[0], x[1])};
    };
    expect_derivatives("binary cross entropy", run, {z, q});
    // At a logit of 0, where the formula changes branches but the function does not.
    expect_derivatives("binary cross entropy at 0", run, {Tensor::zeros(shape), q});
    if (shape.rank() == 0) continue;
    expect_derivatives("weighted binary cross entropy",
                       [](const TensorList& x) {
                         return TensorList{ht::binary_cross_entropy_with_logits(x[0], x[1], x[2])};
                       },
                       {z, q, positive({shape[0]}, 3)});
  }
  // torch.nn.functional.binary_cross_entropy_with_logits
  CHECK(near(ht::binary_cross_entropy_with_logits(Tensor::from({0.5, -1.25, 2.0, 0.0}),
                                                  Tensor::from({0.25, 1.0, 0.0, 0.5}))
                 .item(),
             1.2927703142820994L));
  // s - q, s (1 - s) and s (1 - s) (1 - 2 s) at 0.
  const auto loss = [](const Tensor& z) {
    return ht::binary_cross_entropy_with_logits(z, Tensor::scalar(0.2));
  };
  const Tensor zero = Tensor::scalar(0.0), one = Tensor::scalar(1.0);
  CHECK(near(ht::grad(loss, zero).item(), 0.3L));
  CHECK(ht::hvp(loss, zero, one).item() == 0.25);
  CHECK(ht::jvp([&](const Tensor& z) { return ht::hvp(loss, z, one); }, zero, one).second.item() == 0.0);
}

TEST_CASE("binary_cross_entropy_with_logits of large logits") {
  for (const double size : {50.0, 1000.0, 1e300})
    for (const double sign : {1.0, -1.0})
      for (const double q : {0.0, 1.0, 0.25}) {
        const Tensor z = Tensor::scalar(sign * size);
        const auto loss = [&](const Tensor& at) {
          return ht::binary_cross_entropy_with_logits(at, Tensor::scalar(q));
        };
        const double expected = sign > 0 ? size * (1 - q) : size * q;
        CHECK(loss(z).item() == doctest::Approx(expected).epsilon(1e-15));
        CHECK(ht::grad(loss, z).item() == doctest::Approx((sign > 0 ? 1.0 : 0.0) - q).epsilon(1e-15));
        CHECK(std::abs(ht::hvp(loss, z, Tensor::scalar(1.0)).item()) <= 1e-20);
      }
  // What is left of the loss of a sure and right answer is log(1 + exp(-50)) = exp(-50) to 22 digits.
  const double rest = 1.9287498479639178e-22;  // exp(-50), by hand
  for (const double sign : {1.0, -1.0})
    CHECK(std::abs(ht::binary_cross_entropy_with_logits(Tensor::scalar(sign * 50.0),
                                                        Tensor::scalar(sign > 0 ? 1.0 : 0.0))
                           .item() /
                       rest -
                   1) < 1e-14);
}

TEST_CASE("losses refuse what does not fit, by name") {
  const Tensor x = uniform({4, 3}), labels = labels_for(4, 3), no, w = Tensor::ones({4}),
               single = Tensor::ones({4, 3}, Dtype::float32);
  const auto expect = [](const std::function<void()>& call, const std::string& text) {
    expect_text(thrown(call), text);
  };
  expect([&] { ht::softmax(x, 2); }, "[softmax]");
  expect([&] { ht::log_softmax(x, -3); }, "axis -3");
  expect(
      [&] {
        ht::softmax(Tensor::zeros({3, 0}));
      },
      "[softmax] needs elements along axis 1 of shape (3, 0)");
  expect([&] { ht::log_softmax(labels); }, "[log_softmax] needs float32 or float64");
  expect([&] { ht::log_softmax(no); }, "[log_softmax] operand is absent");
  expect([&] { ht::weighted_mean(x, w); }, "[weighted_mean] shapes differ: (4, 3) and (4)");
  expect([&] { ht::weighted_mean(x, single); }, "[weighted_mean] dtypes differ");
  expect([&] { ht::weighted_mean(Tensor::zeros({0}), Tensor::zeros({0})); },
         "[weighted_mean] of empty tensors");
  expect([&] { ht::weighted_mean(no, w); }, "[weighted_mean] operand is absent");

  for (const std::string op : {"softmax_cross_entropy", "softmax_cross_entropy_losses"}) {
    const auto call = [&](const Tensor& logits, const Tensor& y) {
      op == "softmax_cross_entropy" ? ht::softmax_cross_entropy(logits, y)
                                    : ht::softmax_cross_entropy_losses(logits, y);
    };
    const std::string name = "[" + op + "]";
    expect([&] { call(no, labels); }, name + " operand is absent");
    expect([&] { call(x, no); }, name + " operand is absent");
    expect([&] { call(no, x); }, name + " operand is absent");
    expect([&] { call(x, single); }, name + " dtypes differ: float64");
    expect([&] { call(x, uniform({4, 2})); }, name + " shapes differ: (4, 3) and (4, 2)");
    expect([&] { call(uniform({4}), uniform({4})); }, name + " needs rows of shape (N, C), not (4)");
    expect([&] { call(x, labels_for(5, 3)); }, name + " labels have shape (5), expected (4)");
    expect(
        [&] {
          call(x, Tensor::from<std::int64_t>({0, 1, 3, 7}));
        },
        name + " label 3 of row 2 is outside 0..2 (3 classes)");
    expect(
        [&] {
          call(Tensor::zeros({0, 3}), Tensor::zeros({0}, Dtype::int64));
        },
        name + " needs at least one row");
    expect([&] { call(Tensor::zeros({0, 3}), Tensor::zeros({0, 3})); }, name + " of empty tensors");
    expect([&] { call(x, Tensor::zeros({4}, Dtype::boolean)); },
           name + " needs float32 or float64, not boolean");
  }
  expect([&] { ht::softmax_cross_entropy(x, labels, {.samples = Tensor::ones({3})}); },
         "[softmax_cross_entropy] sample weights have shape (3), expected (4)");
  expect([&] { ht::softmax_cross_entropy(x, x, {.classes = w}); },
         "[softmax_cross_entropy] class weights have shape (4), expected (3)");
  expect([&] { ht::softmax_cross_entropy(x, labels, {.samples = labels}); },
         "[softmax_cross_entropy] needs float32 or float64, not int64");

  for (const std::string op : {"mean_squared_error", "binary_cross_entropy_with_logits"}) {
    const bool squared = op == "mean_squared_error";
    const auto call = [&](const Tensor& p, const Tensor& t) {
      squared ? ht::mean_squared_error(p, t) : ht::binary_cross_entropy_with_logits(p, t);
    };
    const auto weighted = [&](const Tensor& p, const Tensor& t, const Tensor& by) {
      squared ? ht::mean_squared_error(p, t, by) : ht::binary_cross_entropy_with_logits(p, t, by);
    };
    const std::string name = "[" + op + "]";
    expect([&] { call(no, x); }, name + " operand is absent");
    expect([&] { call(x, no); }, name + " operand is absent");
    expect([&] { call(x, single); }, name + " dtypes differ");
    // Never broadcast: (N) against (N, 1) is the classic mistake.
    expect([&] { call(uniform({4}), uniform({4, 1})); }, name + " shapes differ: (4) and (4, 1)");
    expect([&] { call(Tensor::zeros({0}), Tensor::zeros({0})); }, name + " of empty tensors");
    expect([&] { weighted(x, x, Tensor::ones({3})); }, name + " weights have shape (3), expected (4)");
    expect([&] { weighted(x, x, no); }, name + " operand is absent");
    expect([&] { weighted(Tensor::scalar(1), Tensor::scalar(1), w); }, name + " weights need samples");
  }
}
