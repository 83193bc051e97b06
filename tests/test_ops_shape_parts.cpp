// ctest labels: threads
//
// Parts of axes: steps, margins, reversal, rotation and repetition. Values by index arithmetic written out
// here, then the ladder; and what is a view.
#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <numeric>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

using Index = std::vector<std::int64_t>;

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, -2, 2, seed); }

std::size_t place_of(const Index& index, const Shape& shape) {
  std::int64_t at = 0;
  for (int axis = 0; axis < shape.rank(); ++axis)
    at = at * shape[axis] + index[static_cast<std::size_t>(axis)];
  return static_cast<std::size_t>(at);
}

// The tensor of `shape` whose element at each index is x's at source(index), or 0 where source gives an empty
// index.
std::vector<double> gathered(const Tensor& x, const Shape& shape,
                             const std::function<Index(const Index&)>& source) {
  const std::vector<double> values = elements(x);
  std::vector<double> result;
  Index index(static_cast<std::size_t>(shape.rank()));
  for (std::int64_t n = 0; n < shape.size(); ++n) {
    const Index from = source(index);
    result.push_back(from.empty() ? 0.0 : values[place_of(from, x.shape())]);
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      auto& i = index[static_cast<std::size_t>(axis)];
      if (++i < shape[axis]) break;
      i = 0;
    }
  }
  return result;
}

// Values against index arithmetic, and the ladder.
void expect_gathered(const char* name, const ladder::Function& f, const Tensor& x, const Shape& shape,
                     const std::function<Index(const Index&)>& source) {
  INFO(name);
  const Tensor y = f({x})[0];
  CHECK(y.shape() == shape);
  CHECK(elements(y) == gathered(x, shape, source));
  expect_derivatives(name, f, {x});
}

}  // namespace

TEST_CASE("slice with any step: every start, stop and step of an axis, as a view") {
  const Tensor x = uniform({2, 5, 3});
  for (const std::int64_t step : {2, 3, 7, -1, -2, -4}) {
    for (std::int64_t start = step > 0 ? 0 : -1; start <= (step > 0 ? 5 : 4); ++start) {
      for (std::int64_t stop = step > 0 ? start : -1; step > 0 ? stop <= 5 : stop <= start; ++stop) {
        std::int64_t count = 0;
        for (std::int64_t i = start; step > 0 ? i < stop : i > stop; i += step) ++count;
        const auto cut = [&](const TensorList& at) {
          return TensorList{ht::slice(at[0], 1, start, stop, step)};
        };
        CHECK(cut({x})[0].shares_storage_with(x));
        expect_gathered("slice with a step", cut, x, {2, count, 3}, [&](const Index& i) {
          return Index{i[0], start + i[1] * step, i[2]};
        });
        // The adjoint places what slice took.
        const Tensor y = uniform({2, count, 3}, 2);
        CHECK(ladder::pairing(cut({x}), {y}) ==
              doctest::Approx(ladder::pairing({x}, {ht::pad(y, 1, start, 5, step)})).epsilon(1e-12));
      }
    }
  }
  expect_derivatives("pad with a step",
                     [](const TensorList& at) { return TensorList{ht::pad(at[0], 1, 7, 9, -3)}; },
                     {uniform({2, 3})});
  CHECK(elements(ht::pad(Tensor::from({1.0, 2.0}), 0, 3, 5, -2)) == std::vector<double>{0, 2, 0, 1, 0});
  // Steps that no axis is long enough for.
  constexpr std::int64_t far = std::numeric_limits<std::int64_t>::max();
  CHECK(elements(ht::slice(Tensor::from({1.0, 2.0}), 0, 0, 2, far)) == std::vector<double>{1});
  CHECK(elements(ht::slice(Tensor::from({1.0, 2.0}), 0, 1, -1, -far - 1)) == std::vector<double>{2});
  CHECK(ht::slice(Tensor::zeros({0, 3}), 0, -1, -1, -1).shape() == Shape{0, 3});
  CHECK(ht::slice(Tensor::from<std::int64_t>({1, 2, 3}), 0, 2, -1, -2).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{3, 1});
}

TEST_CASE("operations read views that run backwards") {
  const auto back = [](const Tensor& x) { return ht::flip(x, {0, 1}); };
  expect_derivatives("elementwise",
                     [&](const TensorList& at) { return TensorList{ht::exp(back(at[0])) * at[0]}; },
                     {uniform({3, 4})});
  expect_derivatives(
      "products",
      [&](const TensorList& at) { return TensorList{ht::matmul(back(at[0]), ht::flip(at[0], {1}), true)}; },
      {uniform({3, 4})});
  expect_derivatives("sums", [&](const TensorList& at) { return TensorList{ht::sum(back(at[0]), {0})}; },
                     {uniform({3, 4})});
  expect_derivatives("reshape",
                     [&](const TensorList& at) {
                       return TensorList{ht::reshape(back(at[0]), {2, 6})};
                     },
                     {uniform({3, 4})});
  expect_derivatives("a leaf", [](const TensorList& at) { return TensorList{ht::tanh(at[0])}; },
                     {ht::slice(uniform({4, 5}), 1, 4, -1, -2)});
  CHECK(ht::has_non_finite(back(Tensor::from({0.0, std::numeric_limits<double>::infinity()}, {2, 1}))));
  Tensor target = Tensor::zeros({3});
  ht::flip(target, {0}).assign(Tensor::from({1.0, 2.0, 3.0}));
  CHECK(elements(target) == std::vector<double>{3, 2, 1});
}

TEST_CASE("large strided copies: every element, on any number of threads") {
  const Tensor x = uniform({70, 60, 50});
  for (const int threads : {1, 2}) {
    const ladder::Threads count(threads);
    const Tensor turned = ht::permute(ht::flip(x, {1}), {2, 0, 1});
    CHECK(elements(ht::contiguous(turned)) == gathered(x, {50, 70, 60}, [](const Index& i) {
            return Index{i[1], 59 - i[2], i[0]};
          }));
    CHECK(elements(ht::pad(turned, {{1, 0}, {0, 2}, {0, 0}})) ==
          gathered(x, {51, 72, 60}, [](const Index& i) {
            return i[0] == 0 || i[1] >= 70 ? Index{} : Index{i[1], 59 - i[2], i[0] - 1};
          }));
    CHECK(elements(ht::astype(ht::astype(turned, ht::Dtype::float32), ht::Dtype::float64)) ==
          elements(ht::astype(ht::astype(ht::contiguous(turned), ht::Dtype::float32), ht::Dtype::float64)));
  }
}

TEST_CASE("pad with margins on several axes") {
  const Tensor x = uniform({2, 3});
  for (const ht::Margins& margins : {ht::Margins{{1, 2}, {3, 0}}, {{0, 0}, {0, 1}}, {{0, 0}, {0, 0}}}) {
    const Shape to{2 + margins[0].first + margins[0].second, 3 + margins[1].first + margins[1].second};
    expect_gathered(
        "pad with margins", [&](const TensorList& at) { return TensorList{ht::pad(at[0], margins)}; }, x, to,
        [&](const Index& i) {
          const std::int64_t row = i[0] - margins[0].first, column = i[1] - margins[1].first;
          return row < 0 || row >= 2 || column < 0 || column >= 3 ? Index{} : Index{row, column};
        });
  }
  CHECK(elements(ht::pad(Tensor::zeros({0, 1}), {{1, 0}, {0, 2}})) == std::vector<double>{0, 0, 0});
  CHECK(ht::pad(Tensor::scalar(2.0), ht::Margins{}).item() == 2.0);
  expect_derivatives("pad of a transpose",
                     [](const TensorList& at) {
                       return TensorList{ht::square(ht::pad(ht::transpose(at[0]), {{1, 1}, {2, 1}}))};
                     },
                     {x});
}

TEST_CASE("flip reverses axes without copying") {
  const Tensor x = uniform({2, 3, 4});
  for (unsigned bits = 0; bits < 8; ++bits) {
    Index axes;
    for (int axis = 0; axis < 3; ++axis)
      if (bits >> axis & 1u) axes.push_back(axis == 2 ? -1 : axis);
    const auto turn = [&](const TensorList& at) { return TensorList{ht::flip(at[0], axes)}; };
    CHECK(turn({x})[0].shares_storage_with(x));
    expect_gathered("flip", turn, x, x.shape(), [&](const Index& i) {
      Index from = i;
      for (std::size_t axis = 0; axis < 3; ++axis)
        if (bits >> axis & 1u) from[axis] = x.extent(static_cast<std::int64_t>(axis)) - 1 - i[axis];
      return from;
    });
  }
  CHECK(ht::flip(Tensor::zeros({0, 2}), {0, 1}).shape() == Shape{0, 2});
  CHECK(ht::flip(Tensor::scalar(3.0), {}).item() == 3.0);
}

TEST_CASE("roll moves elements round an axis") {
  const Tensor x = uniform({3, 5});
  for (const std::int64_t axis : {0, 1})
    for (const std::int64_t shift : {0, 1, 2, 5, 7, -1, -4, -13}) {
      expect_gathered(
          "roll", [&](const TensorList& at) { return TensorList{ht::roll(at[0], shift, axis)}; }, x,
          x.shape(),
          [&](const Index& i) {
            Index from = i;
            const std::int64_t n = x.extent(axis);
            auto& moved = from[static_cast<std::size_t>(axis)];
            moved = ((moved - shift) % n + n) % n;
            return from;
          });
    }
  CHECK(ht::roll(Tensor::zeros({0, 2}), 1, 0).shape() == Shape{0, 2});
  expect_derivatives("roll of a transpose",
                     [](const TensorList& at) {
                       return TensorList{ht::roll(ht::transpose(at[0]), 2, -1) * ht::transpose(at[0])};
                     },
                     {uniform({4, 3})});
}

TEST_CASE("repeat and tile") {
  const Tensor x = uniform({2, 3});
  for (const std::int64_t axis : {0, 1})
    for (const std::int64_t count : {0, 1, 3})
      expect_gathered(
          "repeat", [&](const TensorList& at) { return TensorList{ht::repeat(at[0], count, axis)}; }, x,
          x.shape().with(static_cast<int>(axis), count * x.extent(axis)),
          [&](const Index& i) {
            Index from = i;
            from[static_cast<std::size_t>(axis)] /= count;
            return from;
          });
  for (const Index& counts : {Index{1, 1}, Index{2, 1}, Index{1, 3}, Index{3, 2}, Index{0, 2}})
    expect_gathered(
        "tile", [&](const TensorList& at) { return TensorList{ht::tile(at[0], counts)}; }, x,
        {2 * counts[0], 3 * counts[1]},
        [&](const Index& i) {
          return Index{i[0] % 2, i[1] % 3};
        });
  // Of the highest rank there is.
  const Tensor deep = uniform({1, 2, 1, 2, 1, 1, 2, 1});
  CHECK(ht::tile(deep, {2, 1, 1, 2, 1, 1, 1, 3}).shape() == Shape{2, 2, 1, 4, 1, 1, 2, 3});
  CHECK(ht::tile(Tensor::scalar(1.5), {}).item() == 1.5);
  CHECK(ht::tile(Tensor::zeros({0, 2}), {3, 2}).shape() == Shape{0, 4});
  expect_derivatives("tile of a transpose",
                     [](const TensorList& at) {
                       return TensorList{ht::tile(ht::transpose(at[0]), {2, 2})};
                     },
                     {x});
}

TEST_CASE("squeeze, unsqueeze and reshape are views wherever strides allow") {
  const Tensor x = uniform({1, 2, 1, 3});
  CHECK(ht::squeeze(x).shape() == Shape{2, 3});
  CHECK(ht::squeeze(x, {0}).shape() == Shape{2, 1, 3});
  CHECK(ht::squeeze(x, {-2, 0}).shape() == Shape{2, 3});
  CHECK(ht::squeeze(Tensor::zeros({1, 0})).shape() == Shape{0});
  CHECK(ht::squeeze(Tensor::scalar(1)).shape() == Shape{});
  CHECK(ht::unsqueeze(x, 0).shape() == Shape{1, 1, 2, 1, 3});
  CHECK(ht::unsqueeze(x, -1).shape() == Shape{1, 2, 1, 3, 1});
  CHECK(ht::unsqueeze(Tensor::scalar(1), 0).shape() == Shape{1});
  const Tensor turned = ht::transpose(uniform({2, 3, 4}), {2, 1, 0});
  CHECK(ht::unsqueeze(turned, 1).shares_storage_with(turned));
  CHECK(ht::squeeze(ht::unsqueeze(turned, 1)).shares_storage_with(turned));
  expect_derivatives("unsqueeze and squeeze of a transpose",
                     [](const TensorList& at) {
                       const Tensor y = ht::unsqueeze(ht::transpose(at[0]), 1);
                       return TensorList{ht::squeeze(y * y, {1}), y};
                     },
                     {uniform({2, 3})});
  // An axis cut in two, and two axes that lie as one, of strided tensors; a copy only where nothing else will
  // do. Elements by their row-major place in every case.
  const Tensor cut = ht::slice(uniform({4, 6, 5}), 2, 1, 4);
  const std::pair<Shape, bool> cases[] = {{{2, 2, 6, 3}, true}, {{24, 3}, true},  {{4, 2, 3, 3}, true},
                                          {{4, 18}, false},     {{72}, false},    {{3, 24}, false},
                                          {{8, 3, 1, 3}, true}, {{12, 6}, false}, {{2, 12, 3, 1}, true}};
  for (const auto& [shape, view] : cases) {
    const Tensor y = ht::reshape(cut, shape);
    CHECK(y.shares_storage_with(cut) == view);
    CHECK(elements(y) == elements(cut));
    expect_derivatives("reshape of a slice",
                       [&, to = shape](const TensorList& at) {
                         return TensorList{ht::reshape(ht::slice(at[0], 2, 1, 4), to)};
                       },
                       {uniform({4, 6, 5})}, {.max_order = 2});
  }
  const Tensor row = ht::expand(uniform({3}), {2, 4, 3});
  CHECK(ht::reshape(row, {8, 3}).shares_storage_with(row));
  CHECK_FALSE(ht::reshape(row, {24}).shares_storage_with(row));
  CHECK(elements(ht::reshape(row, {24})) == elements(row));
}

TEST_CASE("permute is transpose by axes") {
  const Tensor x = uniform({2, 3, 4});
  CHECK(ladder::same_bits(ht::permute(x, {2, 0, 1}), ht::transpose(x, {2, 0, 1})));
  expect_text(thrown([&] { ht::permute(x, {0, 1}); }), "[permute]");
  expect_text(thrown([&] { ht::transpose(x, {0, 1}); }), "[transpose]");
}

TEST_CASE("what does not fit is refused by name, with the shape") {
  const Tensor x = uniform({2, 3});
  const auto expect = [](const std::function<void()>& call, const char* op, const char* part) {
    const std::string text = thrown(call);
    expect_text(text, op);
    expect_text(text, part);
  };
  expect([&] { ht::slice(x, 0, 0, 2, 0); }, "[slice]", "step of 0");
  expect([&] { ht::slice(x, 1, 2, -2, -1); }, "[slice]", "(2, 3)");
  expect([&] { ht::slice(x, 1, 3, 0, -1); }, "[slice]", "3");
  expect([&] { ht::slice(x, 1, 0, 2, -1); }, "[slice]", "2");
  expect([&] { ht::pad(x, 1, 0, 4, 2); }, "[pad]", "steps of 2");
  expect([&] { ht::pad(x, 1, 1, 4, -1); }, "[pad]", "(2, 3)");
  expect([&] { ht::pad(x, 1, 0, 9, 0); }, "[pad]", "step of 0");
  const Tensor empty = ht::slice(x, 1, 0, 0);
  CHECK(ht::pad(empty, 1, 3, 3).shape() == Shape{2, 3});
  for (const std::int64_t start : {-1, 4})
    expect([&] { ht::pad(empty, 1, start, 3); }, "[pad]", "does not fit");
  expect([&] { ht::pad(x, ht::Margins{{0, 1}}); }, "[pad]", "(2, 3)");
  expect([&] { ht::pad(x, {{0, 1}, {-1, 0}}); }, "[pad]", "negative");
  expect([&] { ht::flip(x, {0, -2}); }, "[flip]", "twice");
  expect([&] { ht::flip(x, {2}); }, "[flip]", "(2, 3)");
  expect([&] { ht::roll(x, 1, 2); }, "[roll]", "(2, 3)");
  expect([&] { ht::repeat(x, -1, 0); }, "[repeat]", "-1");
  expect([&] { ht::tile(x, {2}); }, "[tile]", "(2, 3)");
  expect([&] { ht::tile(x, {2, -2}); }, "[tile]", "-2");
  expect([&] { ht::squeeze(x, {0}); }, "[squeeze]", "extent 2");
  expect([&] { ht::squeeze(Tensor::zeros({1}), {0, 0}); }, "[squeeze]", "twice");
  expect([&] { ht::unsqueeze(x, 3); }, "[unsqueeze]", "(2, 3)");
  expect([&] { ht::unsqueeze(x, -4); }, "[unsqueeze]", "(2, 3)");
  expect([&] { ht::flip(Tensor(), {0}); }, "[flip]", "absent");
}
