// Derivatives as functions of functions: compositions, closures, paths that do not exist, kept pullbacks.
#include <hypertape/autodiff/derivatives.h>

#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::grad;
using ht::jvp;
using ht::linearize;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ht::vjp;
using ladder::elements;
using ladder::sample;

namespace {

using Scalar = std::function<Tensor(const Tensor&)>;

Tensor number(double value) { return Tensor::scalar(value); }

/// The four ways to differentiate a scalar function.
enum Way { by_grad, by_jvp, by_vjp, by_linearize };
constexpr Way ways[] = {by_grad, by_jvp, by_vjp, by_linearize};
const char* const way_names[] = {"grad", "jvp", "vjp", "linearize"};

Scalar differentiate(Way way, Scalar f) {
  return [way, f = std::move(f)](const Tensor& x) -> Tensor {
    switch (way) {
      case by_grad:
        return grad(f, x);
      case by_jvp:
        return jvp(f, x, number(1)).second;
      case by_vjp:
        return vjp(f, x).second(number(1));
      case by_linearize:
        return linearize(f, x).second(number(1));
    }
    return {};
  };
}

struct ClosedForm {
  const char* name;
  Scalar f;
  double x;
  double derivatives[4];  ///< orders 0 to 3, worked by hand
};

std::vector<ClosedForm> closed_forms() {
  const double x = 0.7, e = std::exp(2 * x), t = std::tanh(x), s = 1 - t * t;
  return {
      // x^3 e^(2x)
      {"x^3 exp(2x)",
       [](const Tensor& z) { return z * z * z * ht::exp(2.0 * z); },
       x,
       {x * x * x * e, (3 * x * x + 2 * x * x * x) * e, (6 * x + 12 * x * x + 4 * x * x * x) * e,
        (6 + 36 * x + 36 * x * x + 8 * x * x * x) * e}},
      {"tanh", [](const Tensor& z) { return ht::tanh(z); }, x, {t, s, -2 * t * s, -2 * s * (1 - 3 * t * t)}},
      {"log",
       [](const Tensor& z) { return ht::log(z); },
       x,
       {std::log(x), 1 / x, -1 / (x * x), 2 / (x * x * x)}},
      {"1/x",
       [](const Tensor& z) { return 1.0 / z; },
       x,
       {1 / x, -1 / (x * x), 2 / (x * x * x), -6 / (x * x * x * x)}},
      {"x/x^3 by division",
       [](const Tensor& z) { return z / (ht::square(z) * z); },
       x,
       {1 / (x * x), -2 / (x * x * x), 6 / std::pow(x, 4), -24 / std::pow(x, 5)}},
      {"x^5 by squares",
       [](const Tensor& z) { return ht::square(ht::square(z)) * z; },
       x,
       {std::pow(x, 5), 5 * std::pow(x, 4), 20 * std::pow(x, 3), 60 * x * x}},
  };
}

void expect_near(const Tensor& got, double expected) {
  REQUIRE(got.defined());
  CHECK(std::abs(got.item() - expected) <= 1e-12 * std::max(1.0, std::abs(expected)));
}

}  // namespace

TEST_CASE("every composition of grad, jvp, vjp and linearize up to third order, against closed forms") {
  for (const ClosedForm& form : closed_forms()) {
    const Tensor x = number(form.x);
    expect_near(form.f(x), form.derivatives[0]);
    for (const Way a : ways) {
      const Scalar first = differentiate(a, form.f);
      INFO(form.name << ": " << std::string(way_names[a]));
      expect_near(first(x), form.derivatives[1]);
      for (const Way b : ways) {
        const Scalar second = differentiate(b, first);
        INFO("then " << std::string(way_names[b]));
        expect_near(second(x), form.derivatives[2]);
        for (const Way c : ways) {
          INFO("then " << std::string(way_names[c]));
          expect_near(differentiate(c, second)(x), form.derivatives[3]);
        }
      }
    }
  }
}

TEST_CASE("fourth and fifth derivatives, all of them compositions of grad and jvp") {
  // exp(2x): derivative k is 2^k exp(2x).
  const Scalar f = [](const Tensor& z) { return ht::exp(2.0 * z); };
  for (unsigned bits = 0; bits < 32; ++bits) {
    Scalar d = f;
    for (int order = 0; order < 5; ++order) d = differentiate(bits >> order & 1u ? by_grad : by_jvp, d);
    expect_near(d(number(0.3)), 32 * std::exp(0.6));
  }
}

TEST_CASE("closures over variables that are being differentiated are not confused") {
  // Perturbation confusion (Siskind and Pearlmutter 2005): the inner derivative must not see the outer's.
  for (const Way outer : ways)
    for (const Way inner : ways) {
      INFO(std::string(way_names[outer]) << " of " << std::string(way_names[inner]));
      const auto d = [&](Scalar f) { return differentiate(outer, std::move(f)); };
      const auto inside = [&](Scalar f, const Tensor& at) { return differentiate(inner, std::move(f))(at); };
      // d/dx x * [d/dy (x + y)] = 1
      expect_near(d([&](const Tensor& x) {
                    return x * inside([&](const Tensor& y) { return x + y; }, number(1));
                  })(number(1)),
                  1);
      // d/dx x * [d/dy (x y) at 2] = 2x
      expect_near(d([&](const Tensor& x) {
                    return x * inside([&](const Tensor& y) { return x * y; }, number(2));
                  })(number(3)),
                  6);
      // d/dx [d/dy (x y^2) at y = x] = 4x
      expect_near(d([&](const Tensor& x) { return inside([&](const Tensor& y) { return x * y * y; }, x); })(
                      number(3)),
                  12);
      // The same x under both names inside: d/dx [d/dy (y^2 x) at y = x^2] = d/dx 2 x^3 = 6 x^2
      expect_near(d([&](const Tensor& x) {
                    return inside([&](const Tensor& y) { return ht::square(y) * x; }, x * x);
                  })(number(2)),
                  24);
      // tanh through a closure: d/dx [d/dy tanh(x y) at 1] = d/dx x (1 - tanh(x)^2)
      const double t = std::tanh(0.5), s = 1 - t * t;
      expect_near(d([&](const Tensor& x) {
                    return inside([&](const Tensor& y) { return ht::tanh(x * y); }, number(1));
                  })(number(0.5)),
                  s - 2 * 0.5 * t * s);
      for (const Way innermost : ways) {
        // d/dx x [d/dy y [d/dz (x y z) at y] at x] = d/dx 2 x^3 = 6 x^2
        expect_near(d([&](const Tensor& x) {
                      return x * inside(
                                     [&](const Tensor& y) {
                                       return y * differentiate(innermost, [&](const Tensor& z) {
                                                return x * y * z;
                                              })(y);
                                     },
                                     x);
                    })(number(2)),
                    24);
      }
    }
}

TEST_CASE("an inner derivative of something that only the outer variable enters is absent") {
  const Tensor g = grad(
      [](const Tensor& x) {
        CHECK_FALSE(grad([&](const Tensor&) { return x * x; }, number(1)).defined());
        CHECK_FALSE(jvp([&](const Tensor&) { return x * x; }, number(1), number(1)).second.defined());
        CHECK_FALSE(vjp([&](const Tensor&) { return x * x; }, number(1)).second(number(1)).defined());
        CHECK_FALSE(linearize([&](const Tensor&) { return x * x; }, number(1)).second(number(1)).defined());
        return vjp([&](const Tensor&) { return x * x; }, number(1)).first;
      },
      number(3));
  expect_near(g, 6);
}

TEST_CASE("without a path the derivative is absent, never zeros") {
  const Tensor x = sample({3}, -1, 1, 1), y = sample({3}, -1, 1, 2);
  const TensorList g = grad([](const TensorList& z) { return ht::sum(z[0]); }, TensorList{x, y});
  CHECK(g[0].defined());
  CHECK_FALSE(g[1].defined());
  CHECK_FALSE(grad([](const Tensor&) { return Tensor::scalar(1.0); }, x).defined());
  CHECK_FALSE(grad([](const Tensor& z) { return ht::sum(ht::stop_gradient(z)); }, x).defined());
  CHECK_FALSE(jvp([](const Tensor& z) { return ht::stop_gradient(z); }, x, y).second.defined());
  CHECK_FALSE(ht::hvp([](const Tensor& z) { return ht::sum(z); }, x, y).defined());
  CHECK_FALSE(jvp([](const TensorList& z) { return z[0] * z[1]; }, TensorList{x, y}, TensorList{{}, {}})
                  .second.defined());
  // A path whose derivative happens to be zero is there.
  const Tensor zero = grad([](const Tensor& z) { return ht::sum(z * 0.0); }, x);
  REQUIRE(zero.defined());
  CHECK(elements(zero) == std::vector<double>{0, 0, 0});
  // Of several outputs, the cotangents that are absent count as zero.
  const auto two = [](const TensorList& z) { return TensorList{z[0] * 2.0, z[1] * 3.0}; };
  const auto pullback = vjp(two, TensorList{x, y}).second;
  const TensorList half = pullback({Tensor(), y});
  CHECK_FALSE(half[0].defined());
  CHECK(ladder::same_bits(half[1], y * 3.0));
  const TensorList none = pullback({Tensor(), Tensor()});
  CHECK_FALSE(none[0].defined());
  CHECK_FALSE(none[1].defined());
}

TEST_CASE("an absent input passes through, integers are never differentiated") {
  const Tensor x = sample({3, 4}, -1, 1, 1), labels = Tensor::from<std::int64_t>({0, 3, 1});
  const auto loss = [](const TensorList& z) {
    CHECK_FALSE(z[2].defined());
    return ht::softmax_cross_entropy(z[0], z[1]);
  };
  const TensorList g = grad(loss, TensorList{x, labels, Tensor()});
  CHECK(g[0].defined());
  CHECK_FALSE(g[1].defined());
  CHECK_FALSE(g[2].defined());
  // Second order through index arrays (MLX issue 4114).
  const TensorList v{sample({3, 4}, -1, 1, 2), Tensor(), Tensor()};
  const TensorList hv = ht::hvp(loss, TensorList{x, labels, Tensor()}, v);
  CHECK(hv[0].defined());
  CHECK_FALSE(hv[1].defined());
  expect_text(thrown([&] { grad([](const Tensor& z) { return z; }, Tensor::from<std::int64_t>({1})); }),
              "int64");
  expect_text(
      thrown([&] {
        jvp(loss, TensorList{x, labels, Tensor()}, TensorList{{}, Tensor::from<std::int64_t>({1, 1, 1}), {}});
      }),
      "int64");
}

TEST_CASE("functions that return their argument, a constant, or one tensor twice") {
  const Tensor x = sample({3}, -1, 1, 1), u = sample({3}, -1, 1, 2), w = sample({3}, -1, 1, 3);
  const auto [y, pullback] = vjp([](const Tensor& z) { return z; }, x);
  CHECK(ladder::same_bits(y, x));
  CHECK(ladder::same_bits(pullback(u), u));
  CHECK(ladder::same_bits(jvp([](const Tensor& z) { return z; }, x, u).second, u));
  CHECK(ladder::same_bits(linearize([](const Tensor& z) { return z; }, x).second(u), u));
  const auto twice = [](const TensorList& z) {
    const Tensor a = ht::exp(z[0]);
    return TensorList{a, a, z[0]};
  };
  const TensorList got = vjp(twice, TensorList{x}).second({u, w, u});
  CHECK(ladder::difference(got, {ht::exp(x) * (u + w) + u}) <= 1e-15);
  expect_near(grad([](const Tensor& z) { return z; }, number(2)), 1);
  // A leaf that is itself a computed tensor of an outer scope.
  expect_near(
      grad([](const Tensor& z) { return grad([](const Tensor& q) { return q * q * q; }, z * z); }, number(2)),
      6 * 4 * 4);
  // One tensor given twice as input: two separate variables.
  const TensorList both =
      grad([](const TensorList& z) { return z[0] * z[0] * z[1]; }, TensorList{number(2), number(2)});
  expect_near(both[0], 8);
  expect_near(both[1], 4);
}

TEST_CASE("a kept pullback may be called again, later, and differentiated in its cotangent") {
  const Tensor x = sample({4}, 0.5, 2, 1), u = sample({4}, -1, 1, 2), w = sample({4}, -1, 1, 3);
  const auto f = [](const Tensor& z) { return ht::exp(z) * ht::log(z); };
  const auto [y, pullback] = vjp(f, x);
  const Tensor first = pullback(u);
  CHECK(ladder::same_bits(pullback(u), first));
  CHECK(ladder::same_bits(first, vjp(f, x).second.consume(u)));
  // <w, J' u> is linear in u with gradient J w, by every way, inside newer scopes and two deep.
  const Tensor jw = jvp(f, x, w).second;
  const auto paired = [&, pull = pullback](const Tensor& c) { return ht::dot(w, pull(c)); };
  CHECK(ladder::difference({grad(paired, u)}, {jw}) <= 1e-14);
  CHECK(ladder::difference({grad(paired, u)}, {jw}) <= 1e-14);
  CHECK(std::abs(jvp(paired, u, u).second.item() - ht::dot(jw, u).item()) <= 1e-14);
  const auto cubed = [&, pull = pullback](const Tensor& c) { return ht::sum(pull(c) * pull(c) * pull(c)); };
  const Tensor j = pullback(Tensor::ones({4}));  // the diagonal
  CHECK(ladder::difference({ht::hvp(cubed, u, w)}, {6.0 * j * j * j * u * w}) <= 1e-11);
  // The same of linearize.
  const auto linear = linearize(f, x).second;
  CHECK(ladder::difference({grad([&](const Tensor& c) { return ht::dot(w, linear(c)); }, u)},
                           {pullback(w)}) <= 1e-14);
  CHECK(ladder::difference({linear(u)}, {jvp(f, x, u).second}) <= 1e-15);
}

TEST_CASE("pullbacks made inside an outer scope carry the outer derivative") {
  const Tensor x = sample({4}, 0.5, 2, 1), u = sample({4}, -1, 1, 2), w = sample({4}, -1, 1, 3);
  const auto f = [](const Tensor& z) { return ht::exp(z) * z; };
  // J = diag((1 + x) e^x), dJ/dx = diag((2 + x) e^x)
  const Tensor j = (1.0 + x) * ht::exp(x), dj = (2.0 + x) * ht::exp(x);
  const auto through = [&](const Tensor& z) {
    const auto pullback = vjp(f, z).second;
    return ht::dot(w, pullback(u) * pullback(2.0 * u));  // 2 sum w u^2 J^2
  };
  CHECK(ladder::difference({grad(through, x)}, {4.0 * w * u * u * j * dj}) <= 1e-11);
  CHECK(std::abs(jvp(through, x, w).second.item() - ht::dot(4.0 * w * u * u * j * dj, w).item()) <= 1e-11);
  const auto linearly = [&](const Tensor& z) {
    const auto linear = linearize(f, z).second;
    return ht::dot(w, linear(u) * linear(z));  // sum w u x J^2
  };
  CHECK(ladder::difference({grad(linearly, x)}, {w * u * (j * j + 2.0 * x * j * dj)}) <= 1e-11);
  const auto consumed = [&](const Tensor& z) { return ht::dot(w, vjp(f, z).second.consume(u)); };
  CHECK(ladder::difference({grad(consumed, x)}, {w * u * dj}) <= 1e-12);
  // Cotangents that depend on the outer variable.
  const auto both = [&](const Tensor& z) { return ht::dot(w, vjp(f, z).second(ht::square(z))); };
  CHECK(ladder::difference({grad(both, x)}, {w * (2.0 * x * j + x * x * dj)}) <= 1e-11);
}

TEST_CASE("consume adds to what was accumulated, and a consumed pullback says so") {
  const Tensor x = sample({4}, -1, 1, 1), u = sample({4}, -1, 1, 2), start = sample({4}, -1, 1, 3);
  auto pullback = vjp([](const Tensor& z) { return z * z; }, x).second;
  CHECK(ladder::difference({pullback.consume(u, {start})}, {start + 2.0 * x * u}) <= 1e-15);
  expect_text(thrown([&] { pullback(u); }), "[pullback]");
  expect_text(thrown([&] { pullback(u); }), "consumed");
  expect_text(thrown([&] { pullback.consume(u); }), "consumed");
}

TEST_CASE("a pullback refuses cotangents that do not fit, and can still be used") {
  const auto pullback = vjp(
                            [](const TensorList& z) {
                              return TensorList{z[0] * 2.0, ht::sum(z[0])};
                            },
                            TensorList{Tensor::ones({2, 3})})
                            .second;
  expect_text(thrown([&] { pullback({Tensor::ones({2, 3})}); }), "1 cotangents given for 2 outputs");
  expect_text(thrown([&] { pullback({Tensor::ones({3, 2}), Tensor()}); }), "(3, 2)");
  expect_text(thrown([&] { pullback({Tensor::ones({2, 3}, ht::Dtype::float32), Tensor()}); }), "float32");
  CHECK(elements(pullback({Tensor(), number(1)})[0]) == std::vector<double>(6, 1.0));
  const auto one =
      vjp([](const TensorList& z) { return TensorList{z[0] * 2.0}; }, TensorList{Tensor::ones({2})}).second;
  expect_text(thrown([&] { one({}); }), "0 cotangents given for 1 outputs");
  expect_text(thrown([&] { grad([](const Tensor& z) { return z; }, Tensor::ones({2})); }),
              "[value_and_grad]");
  expect_text(thrown([&] { grad([](const Tensor& z) { return z; }, Tensor::ones({2})); }), "(2)");
  const auto id = [](const Tensor& z) { return z; };
  expect_text(thrown([&] { jvp(id, Tensor::ones({2}), Tensor::ones({3})); }), "(3)");
  expect_text(thrown([&] { jvp(id, Tensor::ones({2}), Tensor::ones({2}, ht::Dtype::float32)); }), "float32");
  const auto linear = linearize(id, Tensor::ones({2})).second;
  expect_text(thrown([&] { linear(Tensor::ones({3})); }), "(3)");
  expect_text(thrown([&] { linear(Tensor::ones({2}, ht::Dtype::float32)); }), "float32");
}

TEST_CASE("auxiliary results come along undifferentiated, yet linked to outer scopes") {
  const Tensor x = sample({3}, 0.5, 2, 1);
  const auto with_tensor = [](const Tensor& z) { return std::pair(ht::sum(z * z), ht::exp(z)); };
  const auto [both, g] = ht::value_and_grad(with_tensor, x);
  CHECK(ladder::same_bits(both.second, ht::exp(x)));
  CHECK(ladder::same_bits(g, 2.0 * x));
  const auto with_list = [](const Tensor& z) {
    return std::pair(ht::sum(z), TensorList{z, Tensor(), z * 3.0});
  };
  const auto list = ht::value_and_grad(with_list, x).first.second;
  CHECK(ladder::same_bits(list[0], x));
  CHECK_FALSE(list[1].defined());
  const auto with_text = [](const Tensor& z) { return std::pair(ht::sum(z), std::string("seen")); };
  CHECK(ht::value_and_grad(with_text, x).first.second == "seen");
  // The auxiliary result has left the inner scope but not the outer: d/dx sum(exp(x)) comes through it.
  const Tensor outer =
      grad([&](const Tensor& z) { return ht::sum(ht::value_and_grad(with_tensor, z).first.second); }, x);
  CHECK(ladder::same_bits(outer, ht::exp(x)));
  const Tensor pushed =
      jvp([&](const Tensor& z) { return ht::value_and_grad(with_tensor, z).first.second; }, x, x).second;
  CHECK(ladder::difference({pushed}, {x * ht::exp(x)}) <= 1e-15);
  // It is constant afterwards.
  CHECK_FALSE(grad([&, &both = both](const Tensor&) { return ht::sum(both.second); }, x).defined());
}

TEST_CASE("stop_gradient is constant for every derivative, in every order, and exact") {
  const Tensor x = number(3);
  const Scalar f = [](const Tensor& z) { return ht::stop_gradient(z) * z * z; };
  CHECK(f(x).item() == 27);
  for (const Way a : ways) {
    expect_near(differentiate(a, f)(x), 18);
    for (const Way b : ways) expect_near(differentiate(b, differentiate(a, f))(x), 6);
  }
  // Stopping an outer variable inside an inner derivative.
  expect_near(grad(
                  [](const Tensor& z) {
                    return grad([&](const Tensor& y) { return ht::stop_gradient(z) * y * z; }, number(1));
                  },
                  x),
              3);
}
