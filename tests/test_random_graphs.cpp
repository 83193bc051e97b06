// Random graphs of every operation: what tests written by hand did not think of. A failure prints its seed;
// HYPERTAPE_GRAPH_SEED=<seed> runs that graph alone, HYPERTAPE_GRAPHS=<count> more of them.
#include <doctest/doctest.h>

#include <cstdlib>
#include <random>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "ladder.h"

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;

namespace {

/// A program of a few steps on a pool of tensors. The same seed takes the same steps whatever the values are,
/// since only shapes steer it. Values stay within (-2, 2), so that any depth is well conditioned.
class RandomGraph {
 public:
  explicit RandomGraph(std::uint64_t seed) : seed_(seed) {}

  TensorList inputs() const {
    return {ladder::sample({3, 4}, -1, 1, seed_), ladder::sample({4}, -1, 1, seed_ + 1),
            ladder::sample({4, 3}, -1, 1, seed_ + 2), ladder::sample({}, 0.3, 1, seed_ + 3),
            ht::transpose(ladder::sample({4, 3}, -1, 1, seed_ + 4))};
  }

  TensorList operator()(const TensorList& inputs) const {
    std::mt19937_64 random(seed_);
    TensorList pool = inputs;
    const auto below = [&](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
    // Later tensors are likelier, so that graphs grow deep as well as wide.
    const auto pick = [&]() -> Tensor {
      const std::size_t a = below(pool.size()), b = below(pool.size());
      return pool[std::max(a, b)];
    };
    const std::size_t steps = 4 + below(14);
    for (std::size_t step = 0; step < steps; ++step) {
      const Tensor x = pick(), y = pick();
      for (Tensor& made : apply(below(operations), x, y, below(1000))) pool.push_back(std::move(made));
    }
    // Some results of the last steps; a few may not depend on every input, or on none.
    const std::size_t count = 1 + below(3);
    return {pool.end() - static_cast<std::ptrdiff_t>(std::min(count, pool.size())), pool.end()};
  }

 private:
  static constexpr std::size_t operations = 35 + 21;

  static bool broadcast(const Tensor& x, const Tensor& y) {
    for (std::int64_t axis = -1; axis >= -std::min(x.rank(), y.rank()); --axis) {
      const std::int64_t a = x.extent(axis), b = y.extent(axis);
      if (a != b && a != 1 && b != 1) return false;
    }
    return true;
  }
  // Keeps values small, whatever was done to them; smooth, so that all derivatives exist.
  static Tensor tame(const Tensor& x) { return ht::tanh(x); }
  // Within (0.6, 2.8): for logarithms and denominators.
  static Tensor positive(const Tensor& x) { return ht::exp(ht::tanh(x) * 0.5); }

  static Tensor combine(std::size_t op, const Tensor& x, const Tensor& y) {
    switch (op) {
      case 0:
        return tame(x + y);
      case 1:
        return tame(x - y);
      case 2:
        return tame(x * y);
      case 3:
        return tame(x / positive(y));
      case 4:
        return tame(ht::weighted_square(x, y));
      case 5:
        return tame(ht::multiply_add(x, y, x));
      default:
        return ht::masked(tame(x), y);
    }
  }

  static TensorList apply(std::size_t op, const Tensor& x, const Tensor& y, std::size_t choice) {
    const int rank = x.rank();
    const std::int64_t axis = rank ? static_cast<std::int64_t>(choice) % rank : 0;
    if (op >= 35) return more(op - 35, x, y, choice);
    if (op <= 6) return {combine(op, x, broadcast(x, y) ? y : tame(ht::sum(y)))};
    switch (op) {
      case 7:
        return {-x};
      case 8:
        return {tame(ht::square(x))};
      case 9:
        return {tame(ht::exp(x))};
      case 10:
        return {ht::log(positive(x))};
      case 11:
        return {ht::tanh(x)};
      case 12:
        return {ht::relu(x)};
      case 13:
        return {tame(x * 0.7 + 0.1)};
      case 14:
        return {tame(1.3 / positive(x) - 0.2)};
      case 15:
        return {tame(x / -1.7)};
      case 16:
        return {tame(ht::sum(x))};
      case 17:
        return rank ? TensorList{tame(ht::sum(x, {axis}, choice % 2 == 0))} : TensorList{};
      case 18:
        return x.size() ? TensorList{ht::mean(x)} : TensorList{};
      case 19:
        return rank && x.size() ? TensorList{ht::mean(x, {axis})} : TensorList{};
      case 20:
        return {tame(ht::dot(x, tame(x)))};
      case 21:
        return {tame(ht::dot(ht::reshape(x, {-1}), ht::reshape(x, {x.size()})))};
      case 22:
        return product(x, y, choice);
      case 23:
        return {ht::transpose(x)};
      case 24:
        return {ht::reshape(ht::transpose(x), {x.size()})};
      case 25:
        return rank ? TensorList{ht::slice(x, axis, static_cast<std::int64_t>(choice) % (x.extent(axis) + 1),
                                           x.extent(axis))}
                    : TensorList{};
      case 26:
        return rank && x.size() < 60 ? TensorList{ht::pad(x, axis, 1, x.extent(axis) + 2)} : TensorList{};
      case 27:
        return rank < 3 && x.size() < 60 ? TensorList{expanded(x)} : TensorList{};
      case 28:
        return pieces(x, choice);
      case 29:
        return rank && x.size() && x.extent(0) < 6 ? rows(x, choice) : TensorList{};
      case 30:
        return rank && x.size() ? TensorList{ht::softmax(x)} : TensorList{};
      case 31:
        return x.size() ? TensorList{reduced(x, choice)} : TensorList{};
      case 32:
        return rank ? indexed(x, choice) : TensorList{};
      case 33:
        return rank && x.size() ? TensorList{tame(loss(x, choice))} : TensorList{};
      default:
        return rank == 2 && x.size() ? labelled(x, choice) : TensorList{ht::stop_gradient(x)};
    }
  }

  static Tensor function(const Tensor& x, std::size_t choice) {
    switch (choice % 16) {
      case 0:
        return tame(ht::expm1(x));
      case 1:
        return tame(ht::log1p(positive(x)));
      case 2:
        return tame(ht::sqrt(positive(x)));
      case 3:
        return tame(ht::rsqrt(positive(x)));
      case 4:
        return ht::abs(x);
      case 5:
        return ht::sin(x);
      case 6:
        return ht::cos(x);
      case 7:
        return ht::erf(x);
      case 8:
        return ht::sigmoid(x);
      case 9:
        return tame(ht::softplus(x));
      case 10:
        return tame(ht::silu(x));
      case 11:
        return tame(ht::gelu(x));
      case 12:
        return tame(ht::gelu_tanh(x));
      case 13:
        return ht::leaky_relu(x, 0.3);
      case 14:
        return tame(ht::pow(positive(x), 1.7));
      default:
        return ht::clamp(x, -0.5, 0.6);
    }
  }
  static Tensor pair(const Tensor& x, const Tensor& y, std::size_t choice) {
    switch (choice % 6) {
      case 0:
        return ht::maximum(x, y);
      case 1:
        return ht::minimum(x, y);
      case 2:
        return tame(ht::pow(positive(x), y));
      case 3:
        return tame(ht::atan2(x, positive(y)));
      case 4:
        return ht::where(ht::less(x, y), x, tame(y * 2.0));
      default:
        return ht::clamp(tame(x), Tensor::scalar(-0.4), tame(positive(y)));
    }
  }
  static TensorList more(std::size_t op, const Tensor& x, const Tensor& y, std::size_t choice) {
    const int rank = x.rank();
    const std::int64_t axis = rank ? static_cast<std::int64_t>(choice) % rank : 0;
    const auto number = static_cast<std::int64_t>(choice);
    const bool filled = rank > 0 && x.size() > 0, small = x.size() < 60;
    if (op < 4) return {function(x, choice + op)};
    if (op < 6) return {pair(x, broadcast(x, y) ? y : tame(ht::sum(y)), choice + op)};
    if (!filled || rank > 4) return {};
    const std::int64_t extent = x.extent(axis);
    const auto indices = [&](std::int64_t count) {
      std::vector<std::int64_t> values;
      for (std::int64_t k = 0; k < count; ++k) values.push_back((3 * k + number) % extent);
      return Tensor::from(values, {count});
    };
    switch (op) {
      case 6:
        return {ht::slice(x, axis, 0, extent, 2), ht::slice(x, axis, extent - 1, -1, -1)};
      case 7:
        return {ht::flip(x, {axis}), ht::roll(x, number % 5 - 2, axis)};
      case 8:
        return small ? TensorList{ht::repeat(x, 2, axis)} : TensorList{};
      case 9:
        return small ? TensorList{ht::concatenate({x, tame(x), x}, axis)} : TensorList{};
      case 10:
        return ht::split(x, {extent / 2, extent - extent / 2}, axis);
      case 11:
        return rank >= 2 ? TensorList{choice % 2 ? ht::tril(x, number % 3 - 1) : ht::triu(x, number % 3 - 1)}
                         : TensorList{ht::diag(x, number % 3 - 1)};
      case 12:
        return rank >= 2 ? TensorList{ht::diagonal(x)} : TensorList{ht::unsqueeze(x, number % 2)};
      case 13:
        return small ? TensorList{ht::index_select(x, axis, indices(3)), ht::take(x, indices(2))}
                     : TensorList{};
      case 14:
        return {tame(ht::scatter_add(x, axis, shuffled(x, axis, number), tame(x))),
                ht::gather(x, axis, shuffled(x, axis, number))};
      case 15:
        return small && rank == 2 ? TensorList{batched(x, choice)} : TensorList{};
      case 16:
        return rank == 1 && small ? TensorList{tame(ht::einsum("i,j->ij", {x, x}))}
               : rank == 2        ? TensorList{tame(ht::einsum("ij,kj->i", {x, x}))}
                                  : TensorList{tame(ht::einsum("...i,...i->...", {x, x}))};
      case 17:
        return {tame(ht::mean_squared_error(x, tame(x))),
                tame(ht::binary_cross_entropy_with_logits(x, ht::sigmoid(x)))};
      case 18:
        return small ? views(x, choice) : TensorList{};
      case 19:
        return sums_of_views(x, choice);
      default:
        return {ht::checkpoint([](const Tensor& z) { return tame(ht::exp(z) * ht::sin(z)); }, x)};
    }
  }
  // Backwards, with gaps, turned around, repeated.
  static TensorList views(const Tensor& x, std::size_t choice) {
    const std::int64_t axis = static_cast<std::int64_t>(choice) % x.rank(), extent = x.extent(axis);
    switch (choice / 8 % 4) {
      case 0:
        return {ht::flip(ht::contiguous(ht::flip(x, {axis})), {axis})};
      case 1:
        return {ht::slice(ht::repeat(x, 2, axis), axis, 1, 2 * extent, 2)};
      case 2:
        return {ht::transpose(ht::contiguous(ht::transpose(x)))};
      default:
        return {ht::expand(ht::sum(x, {axis}, true) * 0.1, x.shape())};
    }
  }
  static TensorList sums_of_views(const Tensor& x, std::size_t choice) {
    const std::int64_t axis = static_cast<std::int64_t>(choice) % x.rank();
    const Tensor view = views(x, choice / 2)[0];
    if (choice % 4 == 0 && x.rank() == 2 && x.extent(0) == x.extent(1))
      return {tame(ht::einsum("aa->", {view}))};
    return {tame(ht::sum(view)), tame(ht::sum(view, {axis})), tame(ht::norm(positive(view))),
            tame(ht::sum(ht::flip(view, {axis})))};
  }
  // Indices into one axis, in x's shape, some of them repeated.
  static Tensor shuffled(const Tensor& x, std::int64_t axis, std::int64_t number) {
    std::vector<std::int64_t> values;
    for (std::int64_t k = 0; k < x.size(); ++k) values.push_back((5 * k + number) % x.extent(axis));
    return Tensor::from(values, x.shape());
  }
  static Tensor batched(const Tensor& x, std::size_t choice) {
    const Tensor left = ht::unsqueeze(ht::unsqueeze(x, 0), 0);
    const Tensor right = ht::stack({x, tame(x)});
    return tame(ht::matmul(left, right, choice % 2 == 0, choice % 2 == 1));
  }

  static TensorList product(const Tensor& x, const Tensor& y, std::size_t choice) {
    if (x.rank() < 1 || x.rank() > 2 || y.rank() < 1 || y.rank() > 2) return {};
    if (x.rank() == 1 && y.rank() == 1)
      return x.size() == y.size() ? TensorList{tame(ht::matmul(x, y))} : TensorList{};
    const bool ta = x.rank() == 2 && choice % 2, tb = y.rank() == 2 && choice / 2 % 2;
    const std::int64_t inner = x.extent(ta ? 0 : -1), other = y.extent(y.rank() == 2 && tb ? 1 : 0);
    if (inner == other) return {tame(ht::matmul(x, y, ta, tb))};
    return x.rank() == 2 ? TensorList{tame(ht::matmul(x, x, choice % 2, choice % 2 == 0))} : TensorList{};
  }
  static Tensor expanded(const Tensor& x) {
    const Shape shape = x.shape();
    std::vector<std::int64_t> extents{2};
    extents.insert(extents.end(), shape.begin(), shape.end());
    return ht::expand(x, Shape(std::span<const std::int64_t>(extents)));
  }
  static TensorList pieces(const Tensor& x, std::size_t choice) {
    const std::int64_t first = static_cast<std::int64_t>(choice) % (x.size() + 1);
    const std::vector<Shape> shapes{{first}, {x.size() - first, 1}};
    TensorList cut = ht::unflatten(ht::reshape(x, {x.size()}), shapes);
    if (choice % 3 == 0) return {ht::flatten({cut[0], Tensor()}, shapes)};
    if (choice % 3 == 1) return {ht::flatten({cut[0] * 2.0, tame(cut[1])})};
    return cut;
  }
  static TensorList rows(const Tensor& x, std::size_t choice) {
    TensorList list = ht::unstack(x);
    if (choice % 3 == 0) return {ht::stack({list.back(), tame(list.front())})};
    if (choice % 3 == 1)
      return {ht::stack({Tensor(), list.front()}, list.front().shape(), list.front().dtype())};
    return list;
  }
  static Tensor reduced(const Tensor& x, std::size_t choice) {
    std::vector<std::int64_t> axes;
    for (int axis = 0; axis < x.rank(); ++axis)
      if (choice / 16 >> axis & 1u) axes.push_back(axis);
    const bool keep = choice % 2 == 0;
    switch (choice / 2 % 6) {
      case 0:
        return ht::max(x, axes, keep);
      case 1:
        return ht::min(x, axes, keep);
      case 2:
        return tame(ht::prod(x, axes, keep));
      case 3:
        return tame(ht::variance(x, axes, keep));
      case 4:
        return tame(ht::logsumexp(x, axes, keep));
      default:
        return tame(ht::norm(positive(x), axes, keep));
    }
  }
  static TensorList indexed(const Tensor& x, std::size_t choice) {
    const auto n = static_cast<std::int64_t>(choice);
    const std::int64_t axis = n % x.rank(), extent = x.extent(axis);
    if (choice % 4 == 0) return {tame(ht::cumulative_sum(x, axis, choice % 8 == 0))};
    if (x.size() == 0) return {};
    const Tensor three = Tensor::from<std::int64_t>({n % extent, (n + 1) % extent, n % extent});
    if (choice % 4 == 1) return x.size() < 60 ? TensorList{ht::index_select(x, axis, three)} : TensorList{};
    if (choice % 4 == 2) return {ht::take(x, three)};
    const Tensor first = ht::reshape(ht::slice(x, axis, 0, 1), {x.size() / extent});
    const Tensor zeros = Tensor::zeros(first.shape(), ht::Dtype::int64);
    return {tame(ht::scatter_add({2}, 0, zeros, first)), ht::gather(first, 0, zeros)};
  }
  static Tensor loss(const Tensor& x, std::size_t choice) {
    const std::int64_t axis = static_cast<std::int64_t>(choice) % x.rank();
    const Tensor rows = ht::reshape(x, {x.extent(0), x.size() / x.extent(0)});
    const Tensor weights = positive(ht::mean(rows, {1}));
    switch (choice / 8 % 5) {
      case 0:
        return ht::log_softmax(x, axis);
      case 1:
        return ht::softmax(x, axis);
      case 2:
        return ht::softmax_cross_entropy(rows, ht::softmax(tame(rows * 2.0)), {.samples = weights});
      case 3:
        return ht::mean_squared_error(x, ht::tanh(x), weights);
      default:
        return ht::binary_cross_entropy_with_logits(x, ht::square(ht::tanh(x)), weights);
    }
  }
  static TensorList labelled(const Tensor& x, std::size_t choice) {
    std::vector<std::int64_t> values;
    for (std::int64_t n = 0; n < x.extent(0); ++n)
      values.push_back((n + static_cast<std::int64_t>(choice)) % x.extent(1));
    const Tensor labels = Tensor::from(values, {x.extent(0)});
    if (choice % 4 == 0) return {ht::softmax_cross_entropy(x, labels)};
    if (choice % 4 == 1) return {ht::softmax_cross_entropy_gradient(tame(ht::sum(x)), x, labels)};
    if (choice % 4 == 2) return {ht::gather_labels(x, labels)};
    return {ht::scatter_labels(ht::gather_labels(x, labels), labels, x.extent(1) + 1)};
  }

  std::uint64_t seed_;
};

std::uint64_t from_environment(const char* name, std::uint64_t fallback) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : fallback;
}

}  // namespace

TEST_CASE("random graphs: adjoint, five routes to H v, symmetric, same bits in every mode") {
  const std::uint64_t only = from_environment("HYPERTAPE_GRAPH_SEED", 0);
  const std::uint64_t count = only ? 1 : from_environment("HYPERTAPE_GRAPHS", 10000);
  for (std::uint64_t n = 0; n < count; ++n) {
    const std::uint64_t seed = only ? only : 1000 + 10 * n;
    const RandomGraph graph(seed);
    ladder::Options options;
    options.seed = seed;
    ladder::expect_consistent("random graph " + std::to_string(seed), graph, graph.inputs(), options);
  }
}

TEST_CASE("random graphs give the same bits when their inputs are recorded by several nested derivatives") {
  for (std::uint64_t seed = 5000; seed < 5100; ++seed) {
    const RandomGraph graph(seed);
    const TensorList x = graph.inputs(), expected = graph(x);
    // Five scopes, recorded and with tangents in turn.
    std::function<TensorList(const TensorList&)> nested = graph;
    for (int depth = 0; depth < 5; ++depth)
      nested = [inner = nested, depth](const TensorList& z) {
        if (depth % 2 == 0) return ht::vjp(inner, z).first;
        return ht::jvp(inner, z, z).first;
      };
    CHECK_MESSAGE(ladder::same_bits(nested(x), expected), "seed " << seed);
  }
}
