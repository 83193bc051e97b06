// ctest labels: threads kernels levels
//
// A layer as one operation: the bits of product, bias and activation one after another, in every mode; the
// ladder; and products of gradients that land on what is there already.
#include <doctest/doctest.h>

#include <cmath>
#include <sstream>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/memory.h>
#include "ladder.h"

namespace {

namespace ht = hypertape;
using ht::Activation;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::same_bits;
using ladder::sample;

constexpr Activation activations[] = {Activation::none, Activation::tanh, Activation::relu};

std::string label(const char* what, Activation activation, const Tensor& x) {
  std::ostringstream text;
  text << "linear " << what << ", activation " << static_cast<int>(activation) << ", x " << x.shape();
  return text.str();
}

Tensor one_after_another(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation activation) {
  Tensor y = ht::matmul(x, weight) + bias;
  if (activation == Activation::tanh) return ht::tanh(std::move(y));
  return activation == Activation::relu ? ht::relu(std::move(y)) : y;
}

// x, weight and bias whose sums stay at least 1 away from 0, for x and weight in [-1, 1].
TensorList operands(std::int64_t rows, std::int64_t in, std::int64_t out, std::uint64_t seed) {
  std::vector<double> bias;
  for (std::int64_t j = 0; j < out; ++j)
    bias.push_back((j % 2 ? 1.0 : -1.0) *
                   (static_cast<double>(in) + 1.0 + 0.25 * static_cast<double>(j % 3)));
  return {sample({rows, in}, -1, 1, seed), sample({in, out}, -1, 1, seed + 1), Tensor::from(bias, {out})};
}

}  // namespace

TEST_CASE("linear has the bits of product, bias and activation, and so have its derivatives") {
  const struct {
    std::int64_t rows, in, out;
  } sizes[] = {{1, 1, 1},   {3, 4, 5}, {200, 30, 50}, {7, 3, 1500},
               {33, 2, 64}, {0, 3, 2}, {3, 0, 2},     {3, 2, 0}};
  for (const auto& [rows, in, out] : sizes)
    for (const Activation activation : activations)
      for (const ht::Dtype dtype : {ht::Dtype::float64, ht::Dtype::float32}) {
        TensorList x;
        for (const Shape& shape : {Shape{rows, in}, Shape{in, out}, Shape{out}})
          x.push_back(ladder::converted(sample(shape, -1, 1, 3 + x.size()), dtype));
        const auto fused = [&](const TensorList& at) {
          return TensorList{ht::linear(at[0], at[1], at[2], activation)};
        };
        const auto parts = [&](const TensorList& at) {
          return TensorList{one_after_another(at[0], at[1], at[2], activation)};
        };
        INFO(label("bits", activation, x[0]));
        REQUIRE(same_bits(fused(x), parts(x)));
        const TensorList u{ladder::converted(sample({rows, out}, -1, 1, 9), dtype)};
        TensorList all;
        for (const Tensor& each : x) all.push_back(ladder::converted(sample(each.shape(), -1, 1, 17), dtype));
        CHECK(same_bits(ht::vjp(fused, x).second(u), ht::vjp(parts, x).second(u)));
        for (unsigned which = 1; which < 8; ++which) {  // tangents of some operands only
          TensorList v(3);
          for (std::size_t i = 0; i < 3; ++i)
            if (which >> i & 1u) v[i] = all[i];
          INFO("tangents " << which);
          CHECK(same_bits(ht::jvp(fused, x, v).second, ht::jvp(parts, x, v).second));
          CHECK(same_bits(ht::linearize(fused, x).second(v), ht::linearize(parts, x).second(v)));
          // With u as an operand: forward over reverse.
          const auto pulled = [&](const auto& f) {
            return [&](const TensorList& at) { return ht::vjp(f, at).second(u); };
          };
          CHECK(same_bits(ht::jvp(pulled(fused), x, v).second, ht::jvp(pulled(parts), x, v).second));
        }
      }
}

TEST_CASE("linear: the ladder") {
  for (const Activation activation : activations) {
    const auto f = [activation](const TensorList& at) {
      return TensorList{ht::linear(at[0], at[1], at[2], activation)};
    };
    TensorList x = operands(4, 3, 5, 1);
    ladder::expect_derivatives(label("of matrices", activation, x[0]), f, x);
    const auto square = [activation](const TensorList& at) {
      return TensorList{ht::linear(at[0], at[0], at[1], activation)};
    };
    ladder::expect_derivatives(label("of x twice", activation, x[0]), square,
                               {sample({3, 3}, -1, 1, 5), operands(1, 3, 3, 5)[2]});
    TensorList views{ht::transpose(sample({3, 4}, -1, 1, 2)), ht::transpose(sample({5, 3}, -1, 1, 3)),
                     ht::flip(x[2], {0})};
    ladder::expect_derivatives(label("of views", activation, x[0]), f, views);
    views[2] = ht::expand(Tensor::from({5.0}), Shape{5});
    ladder::expect_derivatives(label("of a broadcast bias", activation, x[0]), f, views);
    // Several blocks and pieces for threads.
    x = operands(70, 3, 40, 7);
    ladder::expect_consistent(label("in blocks", activation, x[0]), f, x);
  }
}

TEST_CASE("linear against long double") {
  const TensorList x = operands(6, 5, 7, 11);
  const std::vector<double> a = elements(x[0]), w = elements(x[1]), b = elements(x[2]);
  for (const Activation activation : activations) {
    const std::vector<double> got = elements(ht::linear(x[0], x[1], x[2] * 0.25, activation));
    for (std::size_t n = 0; n < 6; ++n)
      for (std::size_t j = 0; j < 7; ++j) {
        long double total = 0.25L * b[j], terms = std::abs(total);
        for (std::size_t k = 0; k < 5; ++k) {
          total += static_cast<long double>(a[n * 5 + k]) * w[k * 7 + j];
          terms += std::abs(static_cast<long double>(a[n * 5 + k]) * w[k * 7 + j]);
        }
        const long double y = activation == Activation::tanh   ? std::tanh(total)
                              : activation == Activation::relu ? std::max(total, 0.0L)
                                                               : total;
        CHECK(std::abs(got[n * 7 + j] - y) <= 1e-14L * terms);
      }
  }
}

TEST_CASE(
    "the gradient of a weight that is used twice is added up in place, with the same bits in every mode") {
  constexpr std::int64_t size = 512;
  const Tensor x = sample({8, size}, -1, 1, 1), bias = Tensor::zeros({size});
  const Tensor w = sample({size, size}, -0.05, 0.05, 2);
  const auto net = [&](const Tensor& weight) {
    return ht::sum(ht::linear(ht::linear(x, weight, bias, Activation::tanh), weight, bias));
  };
  const auto value = [&](const TensorList& at) { return net(at[0]); };
  const TensorList plain = ht::grad(value, TensorList{w});

  // By hand: the outer layer's product, and the inner one's added to it.
  const Tensor h = ht::linear(x, w, bias, Activation::tanh), g = Tensor::ones({8, size});
  const Tensor inner = ht::matmul(g, w, false, true) * (1.0 - h * h);
  const Tensor by_hand = ht::matmul_add(ht::matmul(h, g, true), x, inner, true);
  CHECK(ladder::difference(plain, {by_hand}) <= 1e-13 * ladder::norm({by_hand}));

  const auto checkpointed = [&](const TensorList& at) {
    const auto f = [&](const TensorList& inside) { return net(inside[0]); };
    return ht::checkpoint(f, at);
  };
  CHECK(same_bits(ht::grad(checkpointed, TensorList{w}), plain));
  const auto gradient = [&](const TensorList& at) { return ht::grad(value, at); };
  CHECK(same_bits(ht::jvp(gradient, TensorList{w}, TensorList{w}).first, plain));
  CHECK(same_bits(ht::vjp(gradient, TensorList{w}).first, plain));

  // A temporary for the second product would be a second matrix.
  const ht::PeakScope peak;
  ht::grad(value, TensorList{w});
  CHECK(static_cast<double>(peak.peak_bytes()) < 1.5 * static_cast<double>(size * size) * sizeof(double));
}

TEST_CASE("a product joins what a penalty has left, in place") {
  constexpr std::int64_t size = 512;
  const Tensor x = sample({4, size}, -1, 1, 1), w = sample({size, size}, -0.05, 0.05, 2);
  const auto loss = [&](const TensorList& at) {
    const Tensor fit = ht::sum(ht::square(ht::matmul(x, at[0])));
    return fit + 0.5 * ht::sum(ht::square(at[0]));
  };
  const TensorList plain = ht::grad(loss, TensorList{w});
  const Tensor expected = ht::matmul_add(w * 1.0, x, ht::matmul(x, w) * 2.0, true);
  CHECK(ladder::difference(plain, {expected}) <= 1e-13 * ladder::norm({expected}));
  const auto gradient = [&](const TensorList& at) { return ht::grad(loss, at); };
  CHECK(same_bits(ht::jvp(gradient, TensorList{w}, TensorList{w}).first, plain));
  CHECK(same_bits(ht::vjp(gradient, TensorList{w}).first, plain));
}

TEST_CASE("products write their pieces of a flat gradient, which has the bits of the copied pieces") {
  const std::vector<Shape> shapes{{200, 150}, {150}, {150, 100}, {100}};
  const Tensor flat = sample({200 * 150 + 150 + 150 * 100 + 100}, -0.1, 0.1, 1),
               x = sample({6, 200}, -1, 1, 2);
  const auto net = [&](const TensorList& w) {
    return ht::sum(ht::square(ht::linear(ht::linear(x, w[0], w[1], Activation::tanh), w[2], w[3])));
  };
  const auto of_flat = [&](const TensorList& at) { return net(ht::unflatten(at[0], shapes)); };
  const auto expect_pieces = [&](const auto& of_pieces, const auto& whole) {
    const TensorList pieces = ht::unflatten(flat, shapes);
    const Tensor copied = ht::flatten(ht::grad(of_pieces, pieces), shapes);
    const TensorList gradient = ht::grad(whole, TensorList{flat});
    CHECK(same_bits(gradient, {copied}));
    const auto g = [&](const TensorList& at) { return ht::grad(whole, at); };
    const auto [values, tangents] = ht::jvp(g, TensorList{flat}, TensorList{flat});
    CHECK(same_bits(values, gradient));
    const auto [again, pullback] = ht::vjp(g, TensorList{flat});
    CHECK(same_bits(again, gradient));
    // The Hessian by both routes: the recorded gradient's pieces are linked to their products.
    CHECK(ladder::difference(pullback({flat}), tangents) <= 1e-11 * ladder::norm(tangents));
  };
  expect_pieces(net, of_flat);
  // A second use of a piece, on which nothing may be lost, in either order; and a piece that nothing reaches.
  const auto with_penalty = [&](const TensorList& w) { return net(w) + ht::sum(ht::square(w[2])); };
  expect_pieces(with_penalty,
                [&](const TensorList& at) { return with_penalty(ht::unflatten(at[0], shapes)); });
  const auto used_before = [&](const TensorList& w) {
    const Tensor penalty = ht::sum(ht::square(w[2])), other = ht::sum(ht::square(ht::matmul(x, w[0])));
    return penalty + other + net(w);
  };
  expect_pieces(used_before, [&](const TensorList& at) { return used_before(ht::unflatten(at[0], shapes)); });
  // The sum that a product has left, taken up by a checkpoint, which keeps it where it is recorded.
  const Tensor y = sample({6, 150}, -1, 1, 3);
  const auto taken_up = [&](const TensorList& w) {
    const Tensor other = ht::checkpoint(
        [y](const TensorList& inside) { return ht::sum(ht::square(ht::matmul(y, inside[0]))); },
        TensorList{w[2]});
    return other + net(w);
  };
  const auto kept = [&](const TensorList& at) { return taken_up(ht::unflatten(at[0], shapes)); };
  expect_pieces(taken_up, kept);
  // What it keeps is not the gradient's memory, which its owner may write to.
  auto [gradient_of_kept, second] =
      ht::vjp([&](const TensorList& at) { return ht::grad(kept, at); }, TensorList{flat});
  gradient_of_kept[0].assign(Tensor::zeros({flat.size()}));
  const TensorList curved = ht::hvp(kept, TensorList{flat}, TensorList{flat});
  CHECK(ladder::difference(second({flat}), curved) <= 1e-11 * ladder::norm(curved));
  const auto first_only = [&](const TensorList& w) { return ht::sum(ht::square(ht::matmul(x, w[0]))); };
  const Tensor gradient = ht::grad(
      [&](const TensorList& at) { return first_only(ht::unflatten(at[0], shapes)); }, TensorList{flat})[0];
  const TensorList pieces = ht::unflatten(gradient, shapes);
  CHECK(same_bits(pieces[0], ht::grad(first_only, ht::unflatten(flat, shapes))[0]));
  CHECK(ladder::norm({pieces[1], pieces[2], pieces[3]}) == 0.0);

  // One piece as both factors: two products for one place.
  const Tensor both = ladder::sample({42}, -0.5, 0.5, 17);
  const auto piece = [](const Tensor& at, bool cut) {
    return cut ? ht::unflatten(at, {ht::Shape{6, 6}, ht::Shape{6}})
               : TensorList{ht::reshape(ht::slice(at, 0, 0, 36), {6, 6}), ht::slice(at, 0, 36, 42)};
  };
  for (const bool layer : {false, true}) {
    const auto of = [&](bool cut) {
      return [&piece, cut, layer](const Tensor& at) {
        const TensorList q = piece(at, cut);
        return ht::sum(
            ht::sin(layer ? ht::linear(q[0], q[0], q[1], Activation::tanh) : ht::matmul(q[0], q[0])));
      };
    };
    CAPTURE(layer);
    for (const auto& derivative : std::vector<std::function<Tensor(std::function<Tensor(const Tensor&)>)>>{
             [&](auto f) { return ht::grad(f, both); }, [&](auto f) { return ht::hvp(f, both, both); }}) {
      const Tensor expected = derivative(of(false)), got = derivative(of(true));
      CHECK(ladder::difference({got}, {expected}) <= 1e-13 * ladder::norm({expected}));
    }
  }

  // Pieces beside the vector would be a second one, also behind an inner scope.
  const auto inside = [&](const TensorList& at) { return ht::vjp(net, ht::unflatten(at[0], shapes)).first; };
  CHECK(same_bits(ht::grad(inside, TensorList{flat}), ht::grad(of_flat, TensorList{flat})));
  for (const bool nested : {false, true}) {
    CAPTURE(nested);
    const ht::PeakScope peak;
    nested ? ht::grad(inside, TensorList{flat}) : ht::grad(of_flat, TensorList{flat});
    CHECK(static_cast<double>(peak.peak_bytes()) < 1.5 * static_cast<double>(flat.size()) * sizeof(double));
  }
}

TEST_CASE("linear: derivatives with respect to the direction of a tangent") {
  const Tensor x = sample({5, 4}, -1.0, 1.0, 1), w = sample({4, 3}, -1.0, 1.0, 2),
               b = sample({3}, -1.0, 1.0, 3);
  const TensorList at = {x, w, b};
  const auto layer = [](const TensorList& p) {
    return ht::sum(ht::sin(ht::linear(p[0], p[1], p[2], Activation::tanh)));
  };
  const auto composed = [](const TensorList& p) {
    return ht::sum(ht::sin(ht::tanh(ht::matmul(p[0], p[1]) + p[2])));
  };
  for (std::size_t which = 0; which < at.size(); ++which) {
    CAPTURE(which);
    const auto along = [&](const auto& f) {
      return [&f, &at, which](const Tensor& v) {
        TensorList tangents(at.size());
        tangents[which] = v;
        return ht::square(ht::jvp(f, at, tangents).second);
      };
    };
    const Tensor v = sample(at[which].shape(), -1.0, 1.0, 5 + static_cast<unsigned>(which));
    const Tensor gradient = ht::grad(along(layer), v), expected = ht::grad(along(composed), v);
    REQUIRE(gradient.defined());
    CHECK(ladder::difference({gradient}, {expected}) <= 1e-13 * ladder::norm({expected}));
    const Tensor curved = ht::hvp(along(layer), v, v), expected_curved = ht::hvp(along(composed), v, v);
    CHECK(ladder::difference({curved}, {expected_curved}) <= 1e-13 * ladder::norm({expected_curved}));
  }
}
