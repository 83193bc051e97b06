// ctest labels: threads levels
// The fused SGD step: its bits are those of the operations it stands for, forward and back; gradients that
// are added up where they are made; memory that is handed over.
#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <utility>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/parallel.h>
#include <hypertape/optim/step.h>
#include "ladder.h"

namespace {

namespace ht = hypertape;
using ht::Dtype;
using ht::NamedTensors;
using ht::SgdStep;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ht::optim::State;
using ht::optim::Step;
using ladder::same_bits;
using ladder::sample;

constexpr std::size_t weights = 0, velocity = 1, push = 2, rate = 3, momentum = 4;

TensorList fused(const TensorList& x) {
  const SgdStep next = ht::sgd_step(x[weights], x[velocity], x[push], x[rate], x[momentum]);
  return {next.weights, next.velocity};
}

TensorList composed(const TensorList& x) {
  const Tensor v = ht::multiply_add(x[momentum], x[velocity], x[push]);
  return {ht::multiply_add(ht::negate(x[rate]), v, x[weights]), v};
}

TensorList operands(const Shape& shape, Dtype dtype = Dtype::float64) {
  TensorList x = {sample(shape, -2, 2, 1), sample(shape, -2, 2, 2), sample(shape, -2, 2, 3),
                  Tensor::scalar(0.3), Tensor::scalar(0.7)};
  for (Tensor& each : x) each = ladder::converted(each, dtype);
  return x;
}

TensorList some_of(const TensorList& list, unsigned mask) {
  TensorList some(list.size());
  for (std::size_t i = 0; i < list.size(); ++i)
    if (mask >> i & 1u) some[i] = list[i];
  return some;
}

Tensor fresh(const Tensor& x) { return x + 0.0; }

}  // namespace

TEST_CASE("sgd_step: worked by hand, and the bits of the operations one by one") {
  // v = 0.5 * 4 + 3 = 5;  w = 1 - 0.25 * 5.
  const SgdStep next = ht::sgd_step(Tensor::scalar(1.0), Tensor::scalar(4.0), Tensor::scalar(3.0),
                                    Tensor::scalar(0.25), Tensor::scalar(0.5));
  CHECK(next.velocity.item() == 5.0);
  CHECK(next.weights.item() == -0.25);
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const Shape& shape : {Shape{}, Shape{0, 3}, Shape{7}, Shape{40, 1001}}) {
      const TensorList x = operands(shape, dtype);
      CHECK(same_bits(fused(x), composed(x)));
    }
}

TEST_CASE("sgd_step: derivatives of all orders and modes") {
  const TensorList x = operands({2, 3});
  ladder::Options options;
  options.given = [](TensorList&& own) {
    const SgdStep next = ht::sgd_step(std::move(own[weights]), std::move(own[velocity]), std::move(own[push]),
                                      own[rate], own[momentum]);
    return TensorList{next.weights, next.velocity};
  };
  ladder::expect_derivatives("sgd_step", fused, x, options);
  ladder::expect_derivatives("sgd_step of scalars", fused, operands({}));
  const auto of_views = [](const TensorList& y) {
    return fused({ht::transpose(y[0]), ht::slice(y[1], 1, 1, 3), ht::expand(y[2], {3, 2}), y[3], y[4]});
  };
  ladder::expect_consistent("sgd_step of views", of_views,
                            {x[0], sample({3, 5}, -2, 2, 5), sample({2}, -2, 2, 6), x[3], x[4]});
  ladder::expect_consistent("sgd_step of one tensor thrice",
                            [](const TensorList& y) {
                              return fused({y[0], y[0], y[0], y[1], y[1]});
                            },
                            {x[0], x[3]});
  ladder::expect_consistent("sgd_step of nothing", fused, operands({0, 3}));
  // Some of the operands constant.
  for (const unsigned mask : {1u, 2u, 4u, 8u, 16u, 6u, 7u, 15u, 23u, 24u}) {
    TensorList variables;
    for (std::size_t i = 0; i < x.size(); ++i)
      if (mask >> i & 1u) variables.push_back(x[i]);
    ladder::expect_consistent(
        "sgd_step in operands " + std::to_string(mask),
        [&](const TensorList& y) {
          TensorList all = x;
          std::size_t next = 0;
          for (std::size_t i = 0; i < x.size(); ++i)
            if (mask >> i & 1u) all[i] = y[next++];
          return fused(all);
        },
        variables);
  }
}

TEST_CASE(
    "sgd_step: the fused pullback has the bits of the operations one by one, on any number of threads") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{31}, Shape{5, 3277}, Shape{40, 1001}}) {
      const TensorList x = operands(shape, dtype), bars = {ladder::converted(sample(shape, -1, 1, 8), dtype),
                                                           ladder::converted(sample(shape, -1, 1, 9), dtype)};
      for (unsigned variables = 1; variables < 32; ++variables) {
        if (shape.size() > 100 && variables != 31 && variables != 15 && variables != 23 && variables != 7)
          continue;
        const auto pulled = [&](const auto& f, unsigned cotangents) {
          auto [next, pullback] = ht::vjp(
              [&](const TensorList& y) {
                TensorList all = x;
                for (std::size_t i = 0; i < x.size(); ++i)
                  if (variables >> i & 1u) all[i] = y[i];
                return f(all);
              },
              x);
          return pullback.consume(some_of({fresh(bars[0]), fresh(bars[1])}, cotangents));
        };
        for (const unsigned cotangents : {1u, 2u, 3u}) {
          CAPTURE(shape);
          CAPTURE(variables);
          CAPTURE(cotangents);
          const TensorList expected = pulled(composed, cotangents);
          for (const int threads : {1, 2}) {
            const ladder::Threads set(threads);
            CHECK(same_bits(pulled(fused, cotangents), expected));
          }
        }
      }
    }
}

TEST_CASE(
    "sgd_step: the fused tangents have the bits of the operations one by one, on any number of threads") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{31}, Shape{40, 1001}}) {
      const TensorList x = operands(shape, dtype);
      TensorList all = {sample(shape, -1, 1, 11), sample(shape, -1, 1, 12), sample(shape, -1, 1, 13),
                        Tensor::scalar(0.4), Tensor::scalar(-0.6)};
      for (Tensor& each : all) each = ladder::converted(each, dtype);
      for (unsigned given = 1; given < 32; ++given) {
        const TensorList t = some_of(all, given);
        const auto plus = [](const Tensor& sum, const Tensor& term) {
          return sum.defined() ? sum + term : term;
        };
        Tensor v, w = t[weights];
        if (t[momentum].defined()) v = t[momentum] * x[velocity];
        if (t[velocity].defined()) v = plus(v, x[momentum] * t[velocity]);
        if (t[push].defined()) v = plus(v, t[push]);
        if (t[rate].defined()) w = plus(w, -t[rate] * fused(x)[1]);
        if (v.defined()) w = plus(w, -x[rate] * v);
        for (const int threads : {1, 2}) {
          CAPTURE(shape);
          CAPTURE(given);
          const ladder::Threads set(threads);
          CHECK(same_bits(ht::jvp(fused, x, t).second, {w, v}));
          // The tape holds no more of the operands than what these tangents need.
          TensorList variables, along;
          for (std::size_t i = 0; i < x.size(); ++i) {
            if (!t[i].defined()) continue;
            variables.push_back(x[i]);
            along.push_back(t[i]);
          }
          const auto of_variables = [&](const TensorList& y) {
            TensorList operands = x;
            std::size_t next = 0;
            for (std::size_t i = 0; i < x.size(); ++i)
              if (t[i].defined()) operands[i] = y[next++];
            return fused(operands);
          };
          CHECK(same_bits(ht::linearize(of_variables, variables).second(along), {w, v}));
        }
      }
    }
}

TEST_CASE("sgd_step: results take the memory that is handed over, and no other") {
  const TensorList x = operands({50});
  const auto own = [&] {
    TensorList mine;
    for (const Tensor& each : x) mine.push_back(fresh(each));
    return mine;
  };
  const auto address = [](const Tensor& t) { return t.data<double>().data(); };
  TensorList mine = own();
  const double *w = address(mine[weights]), *v = address(mine[velocity]), *g = address(mine[push]);
  SgdStep next = ht::sgd_step(std::move(mine[weights]), std::move(mine[velocity]), std::move(mine[push]),
                              mine[rate], mine[momentum]);
  CHECK(address(next.weights) == w);
  CHECK(address(next.velocity) == v);
  CHECK(same_bits({next.weights, next.velocity}, composed(x)));

  // Somebody else holds weights and velocity: only the gradient's memory is free.
  mine = own();
  g = address(mine[push]);
  const Tensor kept_weights = mine[weights], kept_view = ht::slice(mine[velocity], 0, 0, 10);
  next = ht::sgd_step(std::move(mine[weights]), std::move(mine[velocity]), std::move(mine[push]), mine[rate],
                      mine[momentum]);
  CHECK(address(next.velocity) == g);
  CHECK(address(next.weights) != address(kept_weights));
  CHECK(same_bits(kept_weights, x[weights]));
  CHECK(same_bits(kept_view, ht::slice(x[velocity], 0, 0, 10)));
  CHECK(same_bits({next.weights, next.velocity}, composed(x)));

  // One tensor given twice: neither result may be written over it.
  Tensor twice = fresh(x[weights]);
  next = ht::sgd_step(std::move(twice), std::move(twice), fresh(x[push]), x[rate], x[momentum]);
  CHECK(same_bits({next.weights, next.velocity},
                  composed({x[weights], x[weights], x[push], x[rate], x[momentum]})));

  // A recorded step needs the old velocity for the momentum's derivative.
  const TensorList gradients = ht::grad(
      [&](const TensorList& y) {
        TensorList all = own();
        const SgdStep step =
            ht::sgd_step(std::move(all[weights]), std::move(all[velocity]), std::move(all[push]), y[0], y[1]);
        return ht::sum(step.weights) + ht::sum(step.velocity);
      },
      TensorList{x[rate], x[momentum]});
  const TensorList expected = ht::grad(
      [&](const TensorList& y) {
        const TensorList step = composed({x[weights], x[velocity], x[push], y[0], y[1]});
        return ht::sum(step[0]) + ht::sum(step[1]);
      },
      TensorList{x[rate], x[momentum]});
  CHECK(same_bits(gradients, expected));
}

TEST_CASE("optim: a state that is handed over gives the same bits, and one that is not stays as it was") {
  std::vector<Step> steps;
  for (const bool nesterov : {false, true})
    for (const double decay : {0.0, 0.25})
      for (const bool dampened : {false, true})
        steps.push_back(ht::optim::sgd({.rate = 0.1,
                                        .momentum = 0.5,
                                        .dampened = dampened,
                                        .weight_decay = decay,
                                        .nesterov = nesterov}));
  for (const bool decoupled : {false, true})
    steps.push_back(ht::optim::adam({.weight_decay = 0.25, .decoupled = decoupled}));
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const Step& step : steps) {
      CAPTURE(step.name);
      const TensorList w = {ladder::converted(sample({33}, -1, 1, 1), dtype),
                            ladder::converted(sample({4, 5}, -1, 1, 2), dtype)};
      const TensorList g = {ladder::converted(sample({33}, -1, 1, 3), dtype),
                            ladder::converted(sample({4, 5}, -1, 1, 4), dtype)};
      const State start = {w, step.initial_buffers(w)};
      State kept = start, lent = {{fresh(w[0]), fresh(w[1])}, step.initial_buffers(w)};
      for (int t = 0; t < 3; ++t) {
        const State before = kept;
        TensorList copies;
        for (const TensorList* list : {&before.parameters, &before.buffers})
          for (const Tensor& each : *list) copies.push_back(fresh(each));
        kept = step.update(before, g, {});
        TensorList still = before.parameters;
        still.insert(still.end(), before.buffers.begin(), before.buffers.end());
        CHECK(same_bits(still, copies));
        lent = step.update(std::move(lent), {fresh(g[0]), fresh(g[1])}, {});
        CHECK(same_bits(lent.parameters, kept.parameters));
        CHECK(same_bits(lent.buffers, kept.buffers));
      }
    }
}

TEST_CASE("optim: Adam broadcasts a gradient of fewer elements") {
  const Step step = ht::optim::adam({.rate = 0.01});
  const Tensor w = sample({50}, -1, 1, 1);
  const State state = {{w}, step.initial_buffers({w})};
  const State narrow = step.update(state, {Tensor::full({1}, 0.25)}, {});
  const State whole = step.update(state, {Tensor::full({50}, 0.25)}, {});
  CHECK(same_bits(narrow.parameters, whole.parameters));
  CHECK(same_bits(narrow.buffers, whole.buffers));
}

TEST_CASE("optim: Adam in one pass has the bits of Adam recorded, second moments of 0 and NaN included") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64}) {
    Tensor g = ladder::converted(sample({20000}, -1, 1, 3), dtype);
    g = ht::concatenate({g, Tensor::zeros({9}, dtype), Tensor::full({1}, 1e-30, dtype),
                         Tensor::full({1}, std::numeric_limits<double>::quiet_NaN(), dtype)});
    const Tensor w = ladder::converted(sample(g.shape(), -1, 1, 1), dtype);
    const Step step = ht::optim::adam({.rate = "rate", .weight_decay = 0.125, .decoupled = true});
    const Tensor a_rate = Tensor::scalar(0.01, dtype);
    State plain = {{w}, step.initial_buffers({w})};
    for (int t = 0; t < 3; ++t) {
      State recorded;
      (void)ht::vjp(
          [&](const Tensor& r) {
            recorded = step.update(plain, {g}, {{"rate", r}});
            return recorded.parameters[0];
          },
          a_rate);
      plain = step.update(std::move(plain), {g}, {{"rate", a_rate}});
      CHECK(same_bits(plain.parameters, recorded.parameters));
      CHECK(same_bits(plain.buffers, recorded.buffers));
    }
  }
}

TEST_CASE("walk: a gradient that is added to what arrived before has the bits of the addition") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for (const Shape& shape : {Shape{1023}, Shape{1025}, Shape{30, 1111}}) {
      const auto drawn = [&](std::uint64_t seed) {
        return ladder::converted(sample(shape, 0.3, 2, seed), dtype);
      };
      const Tensor x = drawn(1), a = drawn(2), b = drawn(3), c = drawn(4);
      // Last operation first: c, then b, then a.
      const auto f = [&](const Tensor& y) {
        const Tensor first = ht::dot(a, ht::tanh(y)), second = ht::dot(b, ht::exp(y));
        return first + second + ht::dot(c, ht::square(y));
      };
      const auto alone = [](const Tensor& factor, const auto& op, const Tensor& y) {
        return ht::grad([&](const Tensor& z) { return ht::dot(factor, op(z)); }, y);
      };
      const Tensor expected = alone(
                                  c, [](const Tensor& z) { return ht::square(z); }, x) +
                              alone(
                                  b, [](const Tensor& z) { return ht::exp(z); }, x) +
                              alone(
                                  a, [](const Tensor& z) { return ht::tanh(z); }, x);
      for (const int threads : {1, 2}) {
        const ladder::Threads set(threads);
        CHECK(same_bits(ht::grad(f, x), expected));
      }
    }
  // Through an outer derivative, views, a variable used twice by one operation, and a shared cotangent.
  const Tensor x = sample({1100}, 0.3, 2, 1), l = sample({1100}, 0.3, 2, 2);
  ladder::expect_consistent(
      "sums of gradients",
      [](const TensorList& y) {
        const Tensor penalty =
            ht::sum(ht::weighted_square(y[1], y[0])) + ht::sum(ht::weighted_square(y[0], y[0]));
        const Tensor shared = y[0] + ht::tanh(y[0]);
        return TensorList{penalty + ht::sum(shared * ht::exp(ht::slice(shared, 0, 0, 1100)))};
      },
      {x, l});
}

TEST_CASE("matmul_add: a recorded addend lends its memory, unless its own rule has saved it") {
  const Tensor a = sample({3, 4}, -1, 1, 1), b = sample({4, 2}, -1, 1, 2), c = sample({3, 2}, -1, 1, 3);
  const auto loss = [&](const TensorList& x, bool saved, bool lend, bool* lent) {
    Tensor addend = saved ? ht::exp(x[0]) : x[0] * 3.0;
    const Tensor other = lend ? Tensor() : addend;
    const double* before = addend.data<double>().data();
    const Tensor sum = ht::matmul_add(std::move(addend), x[1], x[2]);
    if (lent) *lent = sum.data<double>().data() == before;
    return ht::sum(ht::square(sum));
  };
  for (const bool saved : {false, true}) {
    bool lent = saved;
    const TensorList got =
        ht::grad([&](const TensorList& x) { return loss(x, saved, true, &lent); }, TensorList{c, a, b});
    CHECK(lent == !saved);
    bool kept = true;
    const TensorList expected =
        ht::grad([&](const TensorList& x) { return loss(x, saved, false, &kept); }, TensorList{c, a, b});
    CHECK(!kept);
    CHECK(same_bits(got, expected));
  }
}

TEST_CASE("walk: products are added to the gradient that arrived before, in every mode") {
  ladder::expect_consistent(
      "weights used twice",
      [](const TensorList& y) {
        const Tensor hidden = ht::tanh(ht::matmul(y[0], y[1]));
        const Tensor again = ht::matmul_add(hidden, y[0], y[1]);
        return TensorList{ht::matmul(again, y[1], false, true), ht::sum(ht::weighted_square(y[1], y[1]))};
      },
      {sample({3, 4}, -1, 1, 1), sample({4, 5}, -1, 1, 2)});
}
