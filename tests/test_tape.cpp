// What the tape holds and lets go: long chains, memory, mutation, donation.
#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <optional>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::grad;
using ht::jvp;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ht::vjp;
using ladder::elements;
using ladder::same_bits;
using ladder::sample;

namespace {

Tensor chain(const Tensor& x, int length) {
  Tensor y = x;
  for (int i = 0; i < length; ++i) y = y * 1.000001;
  return y;
}

Tensor perceptron(const TensorList& w, const Tensor& x, const Tensor& labels) {
  Tensor y = x;
  for (std::size_t layer = 0; layer + 1 < w.size(); ++layer) y = ht::tanh(ht::matmul(y, w[layer]));
  return ht::softmax_cross_entropy(ht::matmul(y, w.back()), labels);
}

struct Level {
  std::int64_t bytes, blocks;
  bool operator==(const Level&) const = default;
};
Level level() {
  const ht::MemoryStatistics now = ht::memory_statistics();
  return {now.live_bytes, now.live_blocks};
}

// Above the size from which a rule looks for the sum that its gradient will join.
constexpr std::int64_t many = 2000;

// d tanh / dx, which one pass of a kernel adds to such a sum.
Tensor slope(const Tensor& x) {
  const Tensor y = ht::tanh(x);
  return 1.0 - y * y;
}

}  // namespace

TEST_CASE(
    "a chain of 1,000,000 operations: recorded, differentiated, replayed and dropped without recursion") {
  constexpr int length = 1'000'000;
  const Tensor x = Tensor::scalar(2.0);
  const double slope = elements(chain(Tensor::scalar(1.0), length))[0];
  const auto f = [](const Tensor& z) { return chain(z, length); };
  CHECK(grad(f, x).item() == doctest::Approx(slope).epsilon(1e-9));
  CHECK(jvp(f, x, Tensor::scalar(1.0)).second.item() == doctest::Approx(slope).epsilon(1e-9));
  const Level before = level();
  { const auto unused = vjp(f, x); }  // teardown alone
  CHECK(level() == before);
  {
    const auto [y, linear] = ht::linearize(f, x);
    CHECK(linear(Tensor::scalar(1.0)).item() == doctest::Approx(slope).epsilon(1e-9));
  }
  CHECK(level() == before);
}

TEST_CASE("long chains with saved tensors, of second order, through custom functions and lists") {
  const Tensor x = Tensor::scalar(0.5);
  const auto tanhs = [](const Tensor& z) {
    Tensor y = z;
    for (int i = 0; i < 100'000; ++i) y = ht::tanh(y) * 1.5;
    return y;
  };
  const Level before = level();
  CHECK(grad(tanhs, x).defined());
  CHECK(ht::hvp(tanhs, x, x).defined());
  CHECK(grad([&](const Tensor& z) { return grad(tanhs, z); }, x).defined());
  CHECK(grad([&](const Tensor& z) { return jvp(tanhs, z, Tensor::scalar(1.0)).second; }, x).defined());
  const auto custom = [](const Tensor& z) {
    Tensor y = z;
    for (int i = 0; i < 100'000; ++i)
      y = ht::custom_vjp("same", {y}, [](const TensorList& in) {
        return ht::CustomVjp{{in[0] * 1.0}, [](const TensorList& u) { return u; }};
      })[0];
    return y;
  };
  CHECK(grad(custom, x).item() == 1.0);
  { const auto unused = vjp(custom, x); }
  const auto lists = [](const Tensor& z) {
    Tensor y = ht::reshape(z, {1});
    for (int i = 0; i < 100'000; ++i) y = ht::flatten(ht::unflatten(y, {{1}}));
    return y;
  };
  CHECK(grad(lists, x).item() == 1.0);
  CHECK(level() == before);
}

TEST_CASE("live bytes and blocks return to where they were after loops of higher derivatives") {
  const Tensor x = sample({8, 5}, -1, 1, 1), labels = Tensor::from<std::int64_t>({0, 1, 2, 0, 1, 2, 0, 1});
  const TensorList w{sample({5, 4}, -1, 1, 2), sample({4, 3}, -1, 1, 3)},
      v{sample({5, 4}, -1, 1, 4), sample({4, 3}, -1, 1, 5)};
  const auto loss = [&](const TensorList& z) { return perceptron(z, x, labels); };
  const auto gradient = [&](const TensorList& z) { return grad(loss, z); };
  const auto curved = [&](const TensorList& z) {
    const TensorList g = gradient(z);
    return ht::dot(g[0], v[0]) + ht::dot(g[1], v[1]);
  };
  const std::function<void()> computations[] = {
      [&] { gradient(w); }, [&] { ht::hvp(loss, w, v); }, [&] { grad(curved, w); },
      [&] { jvp([&](const TensorList& z) { return ht::hvp(loss, z, v); }, w, v); },
      [&] { grad([&](const TensorList& z) { return ht::sum(grad(curved, z)[0]); }, w); },
      [&] { ht::linearize(gradient, w).second(v); }, [&] { vjp(gradient, w).second(v); },
      [&] {
        const auto kept = vjp(loss, w).second;
        kept(Tensor::scalar(1.0));
        kept(Tensor::scalar(2.0));
      },
      // Dropped half way: nobody asks for the derivative. Tangents that outer scopes record lead back to the
      // outputs that carry them.
      [&] { vjp(curved, w); }, [&] { jvp(curved, w, v); },
      [&] { vjp([&](const TensorList& z) { return jvp(loss, z, v).second; }, w); },
      [&] { vjp([&](const TensorList& z) { return jvp(loss, z, v).first; }, w); },
      [&] { vjp([&](const TensorList& z) { return ht::hvp(loss, z, v)[0]; }, w); },
      [&] { vjp([&](const TensorList& z) { return jvp(gradient, z, v).first; }, w); },
      [&] { grad([&](const TensorList& z) { return ht::sum(jvp(gradient, z, v).first[0]); }, w); },
      [&] { jvp([&](const TensorList& z) { return vjp(gradient, z).first; }, w, v); },
      [&] { vjp([&](const TensorList& z) { return ht::linearize(gradient, z).second(v); }, w); }};
  for (const std::function<void()>& compute : computations) {
    INFO("computation " << &compute - computations);
    compute();
    const Level before = level();
    for (int i = 0; i < 25; ++i) compute();
    CHECK(level() == before);
  }
}

TEST_CASE("a result carries no graph out of the derivative that made it") {
  const Tensor x = sample({1000}, -1, 1, 1);
  const Level before = level();
  std::optional<Tensor> kept = grad([](const Tensor& z) { return ht::sum(ht::exp(ht::exp(ht::exp(z)))); }, x);
  const Level one{before.bytes, before.blocks + 2};  // header and storage
  CHECK(level().blocks == one.blocks);
  kept = ht::hvp([](const Tensor& z) { return ht::sum(ht::exp(ht::exp(ht::exp(z)))); }, x, x);
  CHECK(level().blocks == one.blocks);
  kept = jvp([](const Tensor& z) { return ht::exp(ht::exp(z)); }, x, x).first;
  CHECK(level().blocks == one.blocks);
  kept.reset();
  CHECK(level() == before);
}

TEST_CASE("grad frees each saved tensor as its rule consumes it") {
  // 200 squares of 80 kB each; the backward pass must not add a second set of them.
  const Tensor x = sample({10'000}, -1, 1, 1);
  const auto f = [](const Tensor& z) {
    Tensor y = z;
    for (int i = 0; i < 200; ++i) y = ht::square(y) + 0.1;
    return ht::sum(y);
  };
  const ht::PeakScope forward;
  { const auto kept = vjp(f, x); }
  const std::int64_t recorded = forward.peak_bytes();
  const ht::PeakScope whole;
  grad(f, x);
  CHECK(whole.peak_bytes() < recorded + 6 * 90'000);
}

TEST_CASE("a consumed pullback holds nothing, even while it lives") {
  const Tensor x = sample({10'000}, -1, 1, 1);
  const Level before = level();
  auto [y, pullback] = vjp([](const Tensor& z) { return ht::exp(ht::exp(z)); }, x);
  y = Tensor();
  pullback.consume(x);
  CHECK(level() == before);
}

TEST_CASE("an inner backward does not walk the graph of the outer variables it uses") {
  const Tensor x = sample({3}, -1, 1, 1);
  int walked = 0;
  const auto f = [&](const Tensor& z) {
    const Tensor c = ht::custom_vjp("counted", {z}, [&](const TensorList& in) {
      return ht::CustomVjp{{in[0] * 2.0}, [&](const TensorList& u) {
                             ++walked;
                             return TensorList{u[0] * 2.0};
                           }};
    })[0];
    // flatten gives all of its pieces a gradient, whoever needs one.
    const Tensor g = grad(
        [&](const Tensor& y) {
          return ht::sum(ht::square(ht::flatten({y, c})));
        },
        Tensor::ones({2}));
    CHECK(walked == 0);
    return ht::sum(g) + ht::sum(c);
  };
  CHECK(elements(grad(f, x)) == std::vector<double>{2, 2, 2});
  CHECK(walked == 1);
}

TEST_CASE("assign to a saved tensor is detected, naming operation and shape") {
  struct Case {
    const char* op;
    std::function<Tensor(const Tensor& leaf, const Tensor& other)> f;
  };
  const Case cases[] = {
      {"multiply", [](const Tensor& z, const Tensor& c) { return ht::sum(z * c); }},
      {"divide", [](const Tensor& z, const Tensor& c) { return ht::sum(z / c); }},
      {"matmul", [](const Tensor& z, const Tensor& c) { return ht::sum(ht::matmul(z, c)); }},
      {"dot", [](const Tensor& z, const Tensor& c) { return ht::dot(z, c); }},
  };
  for (const Case& one : cases) {
    INFO(one.op);
    const Tensor x = sample({3, 3}, 0.5, 1, 1);
    Tensor c = sample({3, 3}, 0.5, 1, 2);
    const auto pullback = vjp([&](const Tensor& z) { return one.f(z, c); }, x).second;
    const Tensor before = pullback(Tensor::scalar(1.0));
    c.assign(Tensor::ones({3, 3}));
    const std::string text = thrown([&] { pullback(Tensor::scalar(1.0)); });
    expect_text(text, "[" + std::string(one.op) + "]");
    expect_text(text, "(3, 3)");
    expect_text(text, "assign()");
    // The gradient taken before is untouched.
    CHECK(before.defined());
  }
  // A view of the saved tensor counts, a copy does not.
  const Tensor x = sample({3, 3}, 0.5, 1, 1);
  Tensor c = sample({3, 3}, 0.5, 1, 2);
  const Tensor copy = ladder::converted(c, ht::Dtype::float64);
  const auto pullback = vjp([&](const Tensor& z) { return ht::sum(z * c); }, x).second;
  Tensor row = ht::slice(c, 0, 0, 1);
  row.assign(Tensor::zeros({1, 3}));
  CHECK(elements(c)[0] == 0.0);
  expect_text(thrown([&] { pullback(Tensor::scalar(1.0)); }), "assign()");
  const auto safe = vjp([&](const Tensor& z) { return ht::sum(z * copy); }, x).second;
  c.assign(copy);
  CHECK(same_bits(safe(Tensor::scalar(1.0)), copy));
  // The inputs of a kept pullback themselves.
  Tensor input = sample({3}, 0.5, 1, 3);
  const auto of_input = vjp([](const Tensor& z) { return ht::sum(ht::square(z)); }, input).second;
  input.assign(Tensor::zeros({3}));
  expect_text(thrown([&] { of_input(Tensor::scalar(1.0)); }), "[square]");
  const auto linear = ht::linearize([&](const Tensor& z) { return z * c; }, x).second;
  c.assign(copy);
  expect_text(thrown([&] { linear(x); }), "[multiply]");
}

TEST_CASE("assign writes every layout and refuses what it must") {
  Tensor c = Tensor::zeros({2, 3});
  c.assign(Tensor::from({1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, {2, 3}));
  CHECK(elements(c) == std::vector<double>{1, 2, 3, 4, 5, 6});
  Tensor turned = ht::transpose(c);
  turned.assign(Tensor::from({1.0, 4.0, 2.0, 5.0, 3.0, 7.0}, {3, 2}));
  CHECK(elements(c) == std::vector<double>{1, 2, 3, 4, 5, 7});
  Tensor square = Tensor::from({1.0, 2.0, 3.0, 4.0}, {2, 2});
  square.assign(ht::transpose(square));  // overlapping
  CHECK(elements(square) == std::vector<double>{1, 3, 2, 4});
  expect_text(thrown([&] { c.assign(Tensor::zeros({3, 2})); }), "(3, 2)");
  expect_text(thrown([&] { c.assign(Tensor::zeros({2, 3}, ht::Dtype::float32)); }), "float32");
  expect_text(thrown([&] { c.assign(Tensor()); }), "absent");
  expect_text(thrown([&] { Tensor().assign(c); }), "absent");
  Tensor wide = ht::expand(Tensor::zeros({3}), {2, 3});
  expect_text(thrown([&] { wide.assign(c); }), "broadcast");
  const std::vector<double> memory{1, 2};
  Tensor wrapped = Tensor::wrap(std::span<const double>(memory), {2}, nullptr);
  expect_text(thrown([&] { wrapped.assign(Tensor::zeros({2})); }), "read-only");
  Tensor view = ht::slice(wrapped, 0, 0, 1);
  expect_text(thrown([&] { view.assign(Tensor::zeros({1})); }), "read-only");
  CHECK(memory == std::vector<double>{1, 2});
  grad(
      [&](const Tensor& z) {
        Tensor leaf = z, made = z * 2.0;
        expect_text(thrown([&] { leaf.assign(c); }), "derivative");
        expect_text(thrown([&] { made.assign(c); }), "derivative");
        return ht::sum(z);
      },
      c);
  jvp(
      [&](const Tensor& z) {
        Tensor moved = z * 2.0;
        expect_text(thrown([&] { moved.assign(c); }), "derivative");
        return z;
      },
      c, c);
  CHECK(elements(c) == std::vector<double>{1, 2, 3, 4, 5, 7});
}

TEST_CASE("donation reuses memory that nobody else holds, and only that") {
  Tensor a = sample({1000}, 0.5, 1, 1);
  const Tensor expected = ht::exp(a);
  const void* memory = a.data<double>().data();
  const Tensor b = ht::exp(std::move(a));
  CHECK(b.data<double>().data() == memory);
  CHECK(same_bits(b, expected));
  // Another handle, a view, a graph or foreign memory hold it: not touched.
  Tensor c = sample({1000}, 0.5, 1, 2);
  const Tensor kept = ladder::converted(c, ht::Dtype::float64);
  {
    const Tensor handle = c;
    ht::exp(Tensor(handle));
    Tensor given = handle;
    ht::exp(std::move(given));
    CHECK(same_bits(handle, kept));
  }
  {
    const Tensor part = ht::slice(c, 0, 10, 20);
    const Tensor e = ht::exp(std::move(c));
    CHECK(same_bits(part, ht::slice(kept, 0, 10, 20)));
    CHECK_FALSE(e.shares_storage_with(part));
  }
  const std::vector<double> foreign{1, 2, 3};
  ht::exp(Tensor::wrap(std::span<const double>(foreign), {3}, nullptr));
  ht::multiply(Tensor::wrap(std::span<const double>(foreign), {3}, nullptr), Tensor::ones({3}));
  CHECK(foreign == std::vector<double>{1, 2, 3});
}

TEST_CASE("donated operands inside functions that are differentiated give the same bits") {
  const Tensor x = sample({64}, 0.5, 1, 3), v = sample({64}, -1, 1, 4);
  const auto careful = [](const Tensor& z) {
    const Tensor a = ht::exp(z), b = a * z, c = b / a, d = ht::tanh(c), e = d + b;
    return ht::sum(ht::square(e));
  };
  const auto giving = [](const Tensor& z) {
    Tensor a = ht::exp(z);
    Tensor b = ht::multiply(a, z);
    Tensor c = ht::divide(b, std::move(a));
    Tensor d = ht::tanh(std::move(c));
    Tensor e = ht::add(std::move(d), std::move(b));
    return ht::sum(ht::square(std::move(e)));
  };
  CHECK(same_bits(careful(x), giving(x)));
  CHECK(same_bits(grad(careful, x), grad(giving, x)));
  CHECK(same_bits(ht::hvp(careful, x, v), ht::hvp(giving, x, v)));
  CHECK(same_bits(jvp(careful, x, v).first, jvp(giving, x, v).first));
  // A leaf given away inside f must survive outside.
  const Tensor before = ladder::converted(x, ht::Dtype::float64);
  const auto reckless = [](const TensorList& z) {
    TensorList mine = z;
    return ht::sum(ht::exp(std::move(mine[0])));
  };
  grad(reckless, TensorList{x});
  reckless({x});
  CHECK(same_bits(x, before));
  // A cotangent handed to a pullback survives too.
  const auto pullback = vjp([](const Tensor& z) { return (z + 1.0) + (z + 2.0); }, x).second;
  pullback(v);
  pullback(v);
  CHECK(same_bits(pullback(v), v + v));
  CHECK(same_bits(v, sample({64}, -1, 1, 4)));
}

TEST_CASE("a gradient joins a sum in place only where nobody else can see the sum") {
  const Tensor x = sample({many}, -1, 1, 1), c = sample({many}, -1, 1, 2);
  const Tensor kept = ladder::converted(c, ht::Dtype::float64), expected = c + slope(x);
  SUBCASE("the sum is the gradient of another variable too") {
    const TensorList gradients = grad(
        [&](const TensorList& at) {
          const Tensor first = ht::sum(ht::tanh(at[0]));
          return first + ht::dot(c, at[0] + at[1]);
        },
        TensorList{x, c});
    CHECK(ladder::difference({gradients[0]}, {expected}) <= 1e-15 * ladder::norm({expected}));
    CHECK(same_bits(gradients[1], c));
  }
  SUBCASE("the sum is the caller's cotangent") {
    const auto pullback = vjp(
                              [](const TensorList& at) {
                                return TensorList{ht::tanh(at[0]), at[0]};
                              },
                              TensorList{x})
                              .second;
    for (int again = 0; again < 2; ++again)
      CHECK(ladder::difference(pullback({Tensor::ones({many}), c}), {expected}) <=
            1e-15 * ladder::norm({expected}));
  }
  SUBCASE("the sum is a view of the caller's cotangent") {
    const Tensor table = ht::reshape(c, {many / 50, 50});
    const auto both = [](const TensorList& at) {
      const Tensor first = ht::tanh(at[0]);
      return TensorList{first, ht::reshape(at[0], {many / 50, 50})};
    };
    const TensorList gradient = vjp(both, TensorList{x}).second({Tensor::ones({many}), table});
    CHECK(ladder::difference(gradient, {expected}) <= 1e-15 * ladder::norm({expected}));
  }
  SUBCASE("the sum is the caller's tangent") {
    const auto linear = ht::linearize(
                            [](const Tensor& at) {
                              const Tensor first = ht::tanh(at);
                              return first + at;
                            },
                            x)
                            .second;
    const Tensor pushed = c + c * slope(x);
    for (int again = 0; again < 2; ++again)
      CHECK(ladder::difference({linear(c)}, {pushed}) <= 1e-15 * ladder::norm({pushed}));
  }
  CHECK(same_bits(c, kept));
}

TEST_CASE("a gradient does not join a sum in place whose elements share memory, or that is foreign") {
  const Tensor x = sample({many}, -1, 1, 1);
  const auto after_tanh = [&](const auto& rest) {
    return grad(
        [&](const Tensor& at) {
          const Tensor first = ht::sum(ht::tanh(at));
          return first + rest(at);
        },
        x);
  };
  // One number stands for all.
  const Tensor threes = 3.0 + slope(x);
  CHECK(ladder::difference({after_tanh([](const Tensor& at) { return 3.0 * ht::sum(at); })}, {threes}) <=
        1e-15 * ladder::norm({threes}));

  const std::vector<double> memory(static_cast<std::size_t>(many), 2.0);
  const auto doubled = [&](const Tensor& at) {
    return ht::custom_vjp("doubled", {at}, [&](const TensorList& plain) -> ht::CustomVjp {
      return {{2.0 * ht::sum(plain[0])}, [&](const TensorList&) {
                return TensorList{Tensor::wrap(std::span<const double>(memory), {many}, nullptr)};
              }};
    })[0];
  };
  const Tensor twos = 2.0 + slope(x);
  CHECK(ladder::difference({after_tanh(doubled)}, {twos}) <= 1e-15 * ladder::norm({twos}));
  CHECK(memory == std::vector<double>(static_cast<std::size_t>(many), 2.0));
}

TEST_CASE("a gradient that joins a sum of outer variables leaves them their derivatives") {
  const Tensor x = sample({many}, -1, 1, 1), u = sample({many}, -1, 1, 2), v = sample({many}, -1, 1, 3);
  // u + slope(x), of which only the first part depends on u.
  const auto gradient = [&](const Tensor& outer) {
    return grad(
        [&](const Tensor& at) {
          const Tensor first = ht::sum(ht::tanh(at));
          return first + ht::dot(outer, at);
        },
        x);
  };
  const Tensor expected = u + slope(x);
  const auto [value, pullback] = vjp(gradient, u);
  CHECK(ladder::difference({value}, {expected}) <= 1e-15 * ladder::norm({expected}));
  CHECK(same_bits(pullback(v), v));
  const auto [again, tangent] = jvp(gradient, u, v);
  CHECK(same_bits(again, value));
  CHECK(same_bits(tangent, v));

  // Forward: the tangent of l x^2 is that of l times x^2, which is linked, and 2 l x times that of x.
  const auto along = [&](const Tensor& outer) {
    return jvp([](const TensorList& at) { return ht::weighted_square(at[0], at[1]); }, TensorList{u, x},
               TensorList{outer, v})
        .second;
  };
  const Tensor square = ht::square(x), pushed = u * square + u * (2.0 * x) * v;
  const auto [sum, back] = vjp(along, u);
  CHECK(ladder::difference({sum}, {pushed}) <= 1e-15 * ladder::norm({pushed}));
  CHECK(ladder::difference({back(v)}, {v * square}) <= 1e-15 * ladder::norm({square}));
}
