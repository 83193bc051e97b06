// checkpoint: the bits of the plain function, derivatives of every order and in every nesting, less memory.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/memory.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::checkpoint;
using ht::grad;
using ht::hvp;
using ht::jvp;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ht::vjp;
using ladder::elements;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, -1, 1, seed); }

// Uses its inputs several times over, in products and elementwise.
TensorList block(const TensorList& x) {
  const Tensor h = ht::tanh(ht::matmul(x[0], x[1]) + x[0]);
  return {h * x[0] + ht::exp(h * 0.5), ht::matmul(h, x[1])};
}
TensorList checkpointed_block(const TensorList& x) { return checkpoint(block, x); }

// Shared weights through several blocks, and x used outside them too.
template <class Block>
Tensor net(const Block& run, const TensorList& x) {
  TensorList state{x[0], x[1]};
  for (int i = 0; i < 3; ++i) state[0] = ht::tanh(run(state)[0] * x[0]) + run({state[0], x[1]})[1] * 0.1;
  return ht::sum(state[0] * x[0]) + ht::sum(ht::square(x[1]));
}
Tensor plain_net(const TensorList& x) { return net(block, x); }
Tensor checkpointed_net(const TensorList& x) { return net(checkpointed_block, x); }

const TensorList& inputs() {
  static const TensorList x{uniform({3, 3}, 1), uniform({3, 3}, 2)};
  return x;
}

}  // namespace

TEST_CASE("the ladder of checkpointed functions") {
  expect_derivatives("a block", checkpointed_block, inputs());
  expect_derivatives(
      "a chain of blocks with shared weights",
      [](const TensorList& x) { return TensorList{checkpointed_net(x)}; }, inputs());
  expect_derivatives(
      "nested checkpoints",
      [](const TensorList& x) {
        return checkpoint([](const TensorList& y) { return checkpointed_block(checkpointed_block(y)); }, x);
      },
      inputs());
  expect_derivatives("one tensor in, one out",
                     [](const TensorList& x) {
                       return TensorList{checkpoint([](const Tensor& y) { return ht::exp(y) * y; }, x[0])};
                     },
                     {uniform({4})});
  expect_derivatives("the same tensor passed twice",
                     [](const TensorList& x) {
                       return checkpoint(block, TensorList{x[0], x[0]});
                     },
                     {inputs()[0]});
  expect_derivatives("a derivative inside",
                     [](const TensorList& x) {
                       return TensorList{checkpoint(
                           [](const Tensor& y) {
                             return grad([](const Tensor& z) { return ht::sum(ht::exp(z) * z * z); }, y);
                           },
                           x[0])};
                     },
                     {uniform({3})});
  expect_derivatives(
      "inside derivatives inside",
      [](const TensorList& x) {
        return TensorList{grad(
            [](const Tensor& y) {
              return ht::sum(checkpoint([](const Tensor& z) { return ht::exp(z) * z; }, y) * y);
            },
            x[0])};
      },
      {uniform({3})});
  expect_derivatives("an output that is an input, and one that depends on nothing",
                     [](const TensorList& x) {
                       const TensorList y = checkpoint(
                           [](const TensorList& z) {
                             return TensorList{z[0], Tensor::ones({2}, z[0].dtype())};
                           },
                           x);
                       return TensorList{y[0] * y[1] + x[0]};
                     },
                     {uniform({2})});
  expect_derivatives("an unused input",
                     [](const TensorList& x) {
                       return checkpoint([](const TensorList& z) { return TensorList{ht::exp(z[0])}; }, x);
                     },
                     {uniform({2}), uniform({3}, 2)});
  ladder::expect_consistent("an input whose gradient is not wanted",
                            [](const TensorList& x) {
                              return checkpoint(
                                  [](const TensorList& z) { return TensorList{ht::exp(z[0]) * z[1]}; },
                                  TensorList{x[0], ht::stop_gradient(x[0])});
                            },
                            {uniform({2})});
}

TEST_CASE("values and gradients have the bits of the function without a checkpoint") {
  const auto& x = inputs();
  const TensorList v{uniform({3, 3}, 3), uniform({3, 3}, 4)};
  CHECK(ladder::same_bits(checkpointed_net(x), plain_net(x)));
  CHECK(ladder::same_bits(grad(checkpointed_net, x), grad(plain_net, x)));
  CHECK(ladder::same_bits(jvp(checkpointed_net, x, v).second, jvp(plain_net, x, v).second));
  CHECK(
      ladder::same_bits(ht::linearize(checkpointed_net, x).second(v), ht::linearize(plain_net, x).second(v)));
  CHECK(ladder::same_bits(hvp(checkpointed_net, x, v), hvp(plain_net, x, v)));
  // One tensor on both inputs: its terms come in the order of the operations, not input by input.
  const auto twice = [](const auto& run) {
    return [&run](const Tensor& z) {
      const TensorList y = run({z, z});
      return ht::sum(ht::matmul(y[0], z) * y[1]);
    };
  };
  CHECK(ladder::same_bits(grad(twice(checkpointed_block), x[0]), grad(twice(block), x[0])));
  // Gradients as values inside outer scopes.
  const auto inside = [&](const auto& f) {
    return vjp([&](const TensorList& z) { return grad(f, z); }, x).first;
  };
  CHECK(ladder::same_bits(inside(checkpointed_net), inside(plain_net)));
  CHECK(ladder::same_bits(inside(checkpointed_net), grad(plain_net, x)));
  const auto single = [](TensorList list) {
    for (Tensor& tensor : list) tensor = ladder::converted(tensor, ht::Dtype::float32);
    return list;
  };
  CHECK(ladder::same_bits(grad(checkpointed_net, single(x)), grad(plain_net, single(x))));
}

TEST_CASE("second and third derivatives agree with those of the plain function") {
  const auto& x = inputs();
  const TensorList v{uniform({3, 3}, 3), uniform({3, 3}, 4)};
  const auto paired = [&](const TensorList& g) { return ht::dot(g[0], v[0]) + ht::dot(g[1], v[1]); };
  const auto second = [&](const auto& f) {
    return [&f, &paired](const TensorList& z) {
      return grad([&](const TensorList& y) { return paired(grad(f, y)); }, z);
    };
  };
  const auto third = [&](const auto& f) {
    return grad([&](const TensorList& z) { return paired(second(f)(z)); }, x);
  };
  const TensorList h = second(plain_net)(x), t = third(plain_net);
  CHECK(ladder::difference(second(checkpointed_net)(x), h) <= 1e-13 * ladder::norm(h));
  CHECK(ladder::difference(third(checkpointed_net), t) <= 1e-12 * ladder::norm(t));
}

TEST_CASE("a kept pullback runs again and again; integers pass through") {
  const auto f = [](const TensorList& x) {
    return checkpoint(
        [](const TensorList& z) {
          return TensorList{ht::gather_labels(ht::exp(z[0]), z[1]), z[1], Tensor(), z[0] * z[0]};
        },
        x);
  };
  const TensorList x{uniform({2, 3}), Tensor::from<std::int64_t>({2, 0})};
  const auto [y, pullback] = vjp(f, x);
  CHECK(y[1].to_vector<std::int64_t>() == std::vector<std::int64_t>{2, 0});
  CHECK_FALSE(y[2].defined());
  const TensorList u{uniform({2}, 5), Tensor(), Tensor(), Tensor()};
  const TensorList g = pullback(u);
  CHECK(ladder::same_bits(pullback(u), g));
  CHECK(ladder::same_bits(g[0], ht::scatter_labels(u[0], x[1], 3) * ht::exp(x[0])));
  CHECK_FALSE(g[1].defined());
}

TEST_CASE("a chain of checkpointed blocks needs less memory, and gives all of it back") {
  constexpr int blocks = 16;
  const Tensor x = sample({4096}, 0.1, 0.9, 1);
  const std::int64_t bytes = 4096 * 8;
  const auto work = [](const Tensor& z) {
    Tensor y = z;
    for (int i = 0; i < 8; ++i) y = ht::tanh(y * 1.25 + 0.1);
    return y;
  };
  const auto chain = [&](const auto& run) {
    return [&run, &work](const Tensor& z) {
      Tensor y = z;
      for (int k = 0; k < blocks; ++k) y = run(work, y);
      return ht::sum(y);
    };
  };
  const auto plainly = [](const auto& f, const Tensor& z) { return f(z); };
  const auto kept = [](const auto& f, const Tensor& z) { return checkpoint(f, z); };
  const auto measure = [&](const auto& derivative) {
    derivative();  // fills caches
    const ht::MemoryStatistics before = ht::memory_statistics();
    std::int64_t peak = 0;
    {
      const ht::PeakScope scope;
      derivative();
      peak = scope.peak_bytes();
    }
    const ht::MemoryStatistics after = ht::memory_statistics();
    CHECK(after.live_bytes == before.live_bytes);
    CHECK(after.live_blocks == before.live_blocks);
    return peak;
  };
  const auto with = chain(kept);
  const auto without = chain(plainly);
  CHECK(ladder::same_bits(grad(with, x), grad(without, x)));
  const std::int64_t full = measure([&] { grad(without, x); }), small = measure([&] { grad(with, x); });
  MESSAGE("gradient of " << blocks << " blocks of 8: " << full / bytes << " tensors, checkpointed "
                         << small / bytes);
  CHECK(full > 8 * blocks * bytes);
  // One state a block, what one block records, a few on the way.
  CHECK(small < (blocks + 8 + 8) * bytes);
  // Forward over reverse doubles both.
  CHECK(measure([&] { hvp(with, x, x); }) < 2 * (blocks + 8 + 10) * bytes);
  // Reverse over reverse: the gradient of a block is checkpointed too.
  const auto twice = [&](const auto& f) {
    return [&](const Tensor& z) { return ht::sum(ht::square(grad(f, z))); };
  };
  const std::int64_t full_twice = measure([&] { grad(twice(without), x); }),
                     small_twice = measure([&] { grad(twice(with), x); });
  MESSAGE("reverse over reverse: " << full_twice / bytes << " tensors, checkpointed " << small_twice / bytes);
  CHECK(small_twice < full_twice / 4);
  // Nested loops of scopes leave nothing behind either.
  measure([&] { jvp([&](const Tensor& z) { return grad(twice(with), z); }, x, x); });
}

TEST_CASE("a variable that is differentiated but not passed in is refused, others are kept") {
  const Tensor x = uniform({3}), w = uniform({3}, 2);
  const auto captured = [](const Tensor& z) {
    return ht::sum(checkpoint([z](const Tensor& y) { return ht::exp(y) * z; }, z * z));
  };
  expect_text(thrown([&] { grad(captured, x); }), "[checkpoint]");
  expect_text(thrown([&] { grad(captured, x); }), "not passed in");
  // Forward mode records nothing, so it may.
  CHECK(ladder::same_bits(jvp(captured, x, w).second,
                          jvp([](const Tensor& z) { return ht::sum(ht::exp(z * z) * z); }, x, w).second));
  const auto hidden = [](const Tensor& z) {
    return ht::sum(checkpoint(
        [z](const Tensor& y) { return y * grad([](const Tensor& q) { return ht::sum(q * q); }, z); }, z * z));
  };
  expect_text(thrown([&] { grad(hidden, x); }), "[checkpoint]");
  const auto tangent = [](const Tensor& z) {
    return ht::sum(checkpoint(
        [z](const Tensor& y) {
          return y * jvp([](const Tensor& q) { return q * q; }, z, Tensor::ones({3})).second;
        },
        z * z));
  };
  expect_text(thrown([&] { grad(tangent, x); }), "[checkpoint]");
  const auto constant = [&](const Tensor& z) {
    return ht::sum(
        checkpoint([w, c = ht::stop_gradient(z)](const Tensor& y) { return ht::exp(y) * w * c; }, z));
  };
  CHECK(ladder::same_bits(
      grad(constant, x),
      grad([&](const Tensor& z) { return ht::sum(ht::exp(z) * w * ht::stop_gradient(z)); }, x)));
  // The library is as good as new after an error.
  CHECK(ladder::same_bits(grad(checkpointed_net, inputs()), grad(plain_net, inputs())));
}

TEST_CASE("inputs overwritten before the second run are noticed, and errors of the function pass through") {
  Tensor x = uniform({3});
  const auto pullback =
      vjp([](const Tensor& z) { return checkpoint([](const Tensor& y) { return y * y; }, z); }, x).second;
  x.assign(uniform({3}, 9));
  expect_text(thrown([&] { pullback(Tensor::ones({3})); }), "[checkpoint] its input 0 of shape (3)");
  const auto failing = [](const Tensor& z) {
    return ht::sum(checkpoint(
        [](const Tensor& y) -> Tensor {
          return ht::matmul(y, Tensor::ones({5, 5}));
        },
        z));
  };
  expect_text(thrown([&] { grad(failing, x); }), "[matmul]");
  // It throws the second time only.
  const auto later = [](const Tensor& z) {
    auto runs = std::make_shared<int>(0);
    return ht::sum(checkpoint(
        [runs](const Tensor& y) -> Tensor {
          if (++*runs > 1) throw std::runtime_error("on purpose");
          return y * y;
        },
        z));
  };
  expect_text(thrown([&] { grad(later, x); }), "on purpose");
  const ht::MemoryStatistics before = ht::memory_statistics();
  for (int i = 0; i < 10; ++i) expect_text(thrown([&] { grad(later, x); }), "on purpose");
  CHECK(ht::memory_statistics().live_bytes == before.live_bytes);
  CHECK(ht::memory_statistics().live_blocks == before.live_blocks);
}
