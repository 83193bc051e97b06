// The embedder's memory as tensors: read where it lies, kept alive, never written, differentiated like any
// other.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>
#include "ladder.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ladder::same_bits;

template <class T>
Tensor wrapped(const std::vector<T>& values, const Shape& shape) {
  return Tensor::wrap(std::span<const T>(values), shape, nullptr);
}

std::vector<double> counted(std::size_t size) {
  std::vector<double> values(size);
  for (std::size_t i = 0; i < size; ++i) values[i] = 0.25 * static_cast<double>(i) - 3.0;
  return values;
}

}  // namespace

TEST_CASE(
    "wrap: memory at any element's address gives the bits of a copy, in elementwise loops and products") {
  // Neither the start nor the rows of 7 and 33 lie on a vector's border.
  const std::vector<double> memory = counted(33 * 7 + 16);
  for (std::size_t offset = 0; offset < 9; ++offset) {
    const std::span<const double> piece = std::span(memory).subspan(offset, 33 * 7);
    const Tensor x = Tensor::wrap(piece, {33, 7}, nullptr), copy = Tensor::from(piece, {33, 7});
    CHECK(x.data<double>().data() == memory.data() + offset);
    CHECK(same_bits(ht::tanh(x) * x + ht::sum(x, {0}), ht::tanh(copy) * copy + ht::sum(copy, {0})));
    CHECK(same_bits(ht::matmul(x, x, true), ht::matmul(copy, copy, true)));
    CHECK(same_bits(ht::matmul(x, x, false, true), ht::matmul(copy, copy, false, true)));
  }
}

TEST_CASE("wrap: an address between elements is refused, one of the type's alignment is not") {
  alignas(8) std::array<std::byte, 40> bytes{};
  const auto at = [&](std::size_t offset) {
    return std::span(reinterpret_cast<const double*>(bytes.data() + offset), 2);
  };
  expect_text(thrown([&] { Tensor::wrap(at(4), {2}, nullptr); }), "[wrap]");
  expect_text(thrown([&] { Tensor::wrap(at(1), {2}, nullptr); }), "multiple of the 8 bytes of a float64");
  CHECK(Tensor::wrap(at(8), {2}, nullptr).size() == 2);
}

TEST_CASE("wrap: counts that do not fit the shape are refused and the owner is let go") {
  auto owner = std::make_shared<std::vector<double>>(counted(6));
  const std::span<const double> memory(*owner);
  const ht::MemoryStatistics before = ht::memory_statistics();
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{7}, Shape{2, 4}, Shape{0}}) {
    const std::string text = thrown([&] { Tensor::wrap(memory, shape, owner); });
    expect_text(text, "[wrap] 6 values given for shape ");
  }
  CHECK(owner.use_count() == 1);
  CHECK(ht::memory_statistics().live_blocks == before.live_blocks);
}

TEST_CASE("wrap: empty memory, scalars, integers and masks") {
  const std::vector<double> none;
  const Tensor empty = wrapped(none, {0, 3});
  CHECK(empty.shape() == Shape{0, 3});
  CHECK(ht::sum(empty).item() == 0.0);
  CHECK(Tensor::wrap(std::span<const double>(), {0}, nullptr).size() == 0);
  const std::vector<double> one{2.5};
  CHECK(wrapped(one, {}).item() == 2.5);

  const std::vector<std::int64_t> integers{1, 0, std::int64_t{1} << 53 | 1};
  const Tensor labels = wrapped(integers, {3});
  CHECK(labels.dtype() == Dtype::int64);
  CHECK(labels.to_vector<std::int64_t>() == integers);
  const std::vector<double> rows = counted(4);
  CHECK(ht::gather_labels(wrapped(rows, {2, 2}), ht::slice(labels, 0, 0, 2)).to_vector<double>() ==
        std::vector<double>{rows[1], rows[2]});

  const std::array<bool, 3> flags{true, false, true};
  std::array<bool, 3> read{};
  Tensor::wrap(std::span<const bool>(flags), {3}, nullptr).copy_to(std::span<bool>(read));
  CHECK(read == flags);

  const std::vector<float> floats{1.5f, -2.0f};
  CHECK(ht::sum(wrapped(floats, {2})).item() == -0.5);
  expect_text(thrown([&] { wrapped(floats, {2}).data<double>(); }), "float32");
}

TEST_CASE("wrap: nothing writes to the memory, whatever is handed over to the operations") {
  const std::vector<double> memory = counted(12), before = memory;
  const auto fresh = [&] { return wrapped(memory, {3, 4}); };
  ht::add(fresh(), fresh());
  ht::multiply_add(fresh(), fresh(), fresh());
  ht::tanh(ht::negate(fresh()));
  ht::matmul_add(fresh(), Tensor::ones({3, 2}), Tensor::ones({2, 4}));
  ht::grad([](const Tensor& x) { return ht::sum(ht::square(x) * x); }, fresh());
  ht::hvp([](const Tensor& x) { return ht::sum(ht::exp(x)); }, fresh(), fresh());
  CHECK(std::memcmp(memory.data(), before.data(), sizeof(double) * memory.size()) == 0);
  Tensor x = fresh();
  expect_text(thrown([&] { x.assign(Tensor::zeros({3, 4})); }), "[assign]");
  CHECK(memory == before);
}

TEST_CASE(
    "wrap: derivatives at wrapped inputs, with wrapped constants and wrapped tangents, have the usual bits") {
  const std::vector<double> a = counted(20), b = counted(35), v = counted(20);
  const auto f = [](const Tensor& w, const Tensor& c) {
    return ht::sum(ht::tanh(ht::matmul(c, w)) * ht::matmul(c, w));
  };
  const Tensor w = wrapped(a, {5, 4}), c = wrapped(b, {7, 5}), direction = wrapped(v, {5, 4});
  const Tensor own_w = Tensor::from(a, {5, 4}), own_c = Tensor::from(b, {7, 5}),
               own_direction = Tensor::from(v, {5, 4});
  const auto at = [&](const Tensor& constant) {
    return [&f, &constant](const Tensor& x) { return f(x, constant); };
  };
  CHECK(same_bits(ht::grad(at(c), w), ht::grad(at(own_c), own_w)));
  CHECK(same_bits(ht::hvp(at(c), w, direction), ht::hvp(at(own_c), own_w, own_direction)));
  // Wrapped inside the function that is differentiated: a constant.
  const Tensor g = ht::grad([&](const Tensor& x) { return ht::dot(x, wrapped(a, {5, 4})); }, own_w);
  CHECK(g.to_vector<double>() == a);
}

TEST_CASE("wrap: the owner lives as long as a view, a recorded graph or a saved operand needs the memory") {
  auto owner = std::make_shared<std::vector<double>>(counted(6));
  const std::weak_ptr<std::vector<double>> watch = owner;
  const std::vector<double> expected = *owner;
  const auto make = [&] { return Tensor::wrap(std::span<const double>(*owner), {6}, owner); };
  {
    auto [value, pullback] = ht::vjp([c = make()](const Tensor& x) { return x * c; }, Tensor::ones({6}));
    owner.reset();
    CHECK_FALSE(watch.expired());  // the product saved it
    CHECK(pullback(Tensor::ones({6})).to_vector<double>() == expected);
  }
  CHECK(watch.expired());

  // The last view may go on another thread's derivative, or with an exception.
  owner = std::make_shared<std::vector<double>>(expected);
  const std::weak_ptr<std::vector<double>> second = owner;
  const std::string text = thrown(
      [&, x = make()] { ht::grad([](const Tensor& y) { return ht::matmul(y, Tensor::ones({5})); }, x); });
  expect_text(text, "[matmul]");
  CHECK_FALSE(second.expired());
  owner.reset();
  CHECK(second.expired());
}

TEST_CASE("wrap: padded rows and columns-first matrices are views of the memory, without a copy") {
  // Rows of 3 values at a pitch of 5, from the second row on; and the same numbers column after column.
  const std::vector<double> padded = counted(20);
  const Tensor rows = ht::slice(ht::slice(wrapped(padded, {4, 5}), 1, 0, 3), 0, 1, 4);
  CHECK(rows.strides() == std::vector<std::int64_t>{5, 1});
  CHECK(rows.to_vector<double>() == std::vector<double>{padded[5], padded[6], padded[7], padded[10],
                                                        padded[11], padded[12], padded[15], padded[16],
                                                        padded[17]});
  const Tensor columns_first = ht::transpose(wrapped(padded, {4, 5}));
  CHECK(columns_first.strides() == std::vector<std::int64_t>{1, 5});
  const Tensor x = ht::contiguous(rows);
  CHECK(same_bits(ht::matmul(rows, rows), ht::matmul(x, x)));
  CHECK(same_bits(ht::grad([](const Tensor& y) { return ht::sum(ht::exp(y)); }, rows),
                  ht::grad([](const Tensor& y) { return ht::sum(ht::exp(y)); }, x)));
}
