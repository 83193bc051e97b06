// ctest labels: threads kernels
//
// Indexing: values against naive loops, the ladder, repeated and empty indices, order of additions, errors.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <random>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include "ladder.h"
#include "naive.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using naive::Index;

namespace {

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return ladder::sample(shape, -2, 2, seed); }

Tensor random_indices(const Shape& shape, std::int64_t bound, std::uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::vector<std::int64_t> values(static_cast<std::size_t>(shape.size()));
  for (std::int64_t& value : values)
    value = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(bound));
  return Tensor::from(values, shape);
}

std::vector<double> naive_gather(const Tensor& x, int axis, const Tensor& indices) {
  const std::vector<double> values = elements(x);
  const std::vector<std::int64_t> at = indices.to_vector<std::int64_t>();
  std::vector<double> result;
  naive::for_each_index(indices.shape(), [&](Index index) {
    index[static_cast<std::size_t>(axis)] = at[result.size()];
    std::int64_t place = 0;
    for (int a = 0; a < x.rank(); ++a) place = place * x.extent(a) + index[static_cast<std::size_t>(a)];
    result.push_back(values[static_cast<std::size_t>(place)]);
  });
  return result;
}

// Term after term in row-major order of the values, hence in ascending order along the axis.
std::vector<double> naive_scatter(const Shape& shape, int axis, const Tensor& indices, const Tensor& values) {
  const std::vector<double> terms = elements(values);
  const std::vector<std::int64_t> at = indices.to_vector<std::int64_t>();
  std::vector<double> result(static_cast<std::size_t>(shape.size()));
  std::size_t n = 0;
  naive::for_each_index(indices.shape(), [&](Index index) {
    index[static_cast<std::size_t>(axis)] = at[n];
    std::int64_t place = 0;
    for (int a = 0; a < shape.rank(); ++a) place = place * shape[a] + index[static_cast<std::size_t>(a)];
    result[static_cast<std::size_t>(place)] += terms[n++];
  });
  return result;
}

struct IndexCase {
  Shape shape, indices;
  int axis;
};
const std::vector<IndexCase> cases = {{{5}, {7}, 0},
                                      {{5}, {1}, 0},
                                      {{3, 4}, {3, 2}, 1},
                                      {{3, 4}, {6, 4}, 0},
                                      {{3, 4}, {2, 3}, 0},
                                      {{3, 4}, {2, 9}, 1},
                                      {{2, 3, 4}, {2, 5, 4}, 1},
                                      {{2, 3, 4}, {1, 3, 2}, 2},
                                      {{2, 3, 4}, {4, 2, 3}, 0},
                                      {{3, 1, 2}, {3, 4, 2}, 1},
                                      {{3, 4}, {0, 4}, 0},
                                      {{3, 4}, {3, 0}, 1},
                                      {{0, 4}, {0, 2}, 1}};

std::int64_t bound_of(const IndexCase& at) { return std::max<std::int64_t>(at.shape[at.axis], 1); }

}  // namespace

TEST_CASE("gather and scatter_add: values, ladder, each the other's adjoint") {
  for (const IndexCase& at : cases) {
    const Tensor x = uniform(at.shape), indices = random_indices(at.indices, bound_of(at)),
                 y = uniform(at.indices, 2);
    const std::string name = naive::label("gather", at.shape, {at.axis});
    const Tensor gathered = ht::gather(x, at.axis, indices);
    CHECK(gathered.shape() == at.indices);
    CHECK(elements(gathered) == naive_gather(x, at.axis, indices));
    const Tensor scattered = ht::scatter_add(at.shape, at.axis, indices, y);
    CHECK(scattered.shape() == at.shape);
    CHECK(elements(scattered) == naive_scatter(at.shape, at.axis, indices, y));
    CHECK(std::abs(ladder::pairing({gathered}, {y}) - ladder::pairing({x}, {scattered})) <= 1e-13);
    expect_derivatives(name, [&](const TensorList& z) { return TensorList{ht::gather(z[0], at.axis, z[1])}; },
                       {x, indices});
    expect_derivatives(
        "adjoint of " + name,
        [&](const TensorList& z) { return TensorList{ht::scatter_add(at.shape, at.axis, z[1], z[0])}; },
        {y, indices});
    expect_derivatives(
        "scatter_add onto x, " + name,
        [&](const TensorList& z) { return TensorList{ht::scatter_add(z[0], at.axis, z[2], z[1])}; },
        {x, y, indices});
    CHECK(ladder::same_bits(ht::gather(x, at.axis - at.shape.rank(), indices), gathered));
  }
  // torch.gather and torch.scatter_add
  const Tensor x = Tensor::from({1.0, 2.0, 4.0, 0.0, 0.0, 5.0}, {2, 3});
  const Tensor indices = Tensor::from<std::int64_t>({0, 2, 0, 1, 1, 2}, {2, 3});
  CHECK(elements(ht::gather(x, 1, indices)) == std::vector<double>{1, 4, 1, 0, 0, 5});
  CHECK(elements(ht::scatter_add({3, 3}, 0, indices, x)) == std::vector<double>{1, 0, 4, 0, 0, 0, 0, 2, 5});
}

TEST_CASE("gather and scatter_add of views, by views, of one axis that stands for all") {
  const Tensor x = uniform({4, 3, 5}), indices = random_indices({6, 5, 4}, 3);
  const Tensor turned_indices = ht::transpose(random_indices({4, 2, 5}, 3), {2, 1, 0});
  const auto run = [&](const Tensor& by) {
    return [by](const TensorList& z) {
      return TensorList{ht::gather(ht::transpose(z[0], {2, 1, 0}), 1, by)};
    };
  };
  const Tensor turned = ht::contiguous(ht::transpose(x, {2, 1, 0}));
  CHECK(elements(run(turned_indices)({x})[0]) == naive_gather(turned, 1, ht::contiguous(turned_indices)));
  expect_derivatives("gather of a transpose by a transpose", run(turned_indices), {x});
  const Tensor every = ht::expand(random_indices({3, 1}, 3), {5, 3, 4});
  CHECK(elements(run(every)({x})[0]) == naive_gather(turned, 1, ht::contiguous(every)));
  expect_derivatives("gather by a broadcast column", run(every), {x});
  const Tensor cut = ht::slice(ht::slice(indices, 0, 1, 4), 2, 1, 4);
  const auto scatter = [&](const TensorList& z) {
    return TensorList{ht::scatter_add({3, 6, 3}, 0, cut, ht::transpose(z[0], {2, 0, 1}))};
  };
  const Tensor values = uniform({5, 3, 3}, 3);
  CHECK(elements(scatter({values})[0]) ==
        naive_scatter({3, 6, 3}, 0, ht::contiguous(cut), ht::contiguous(ht::transpose(values, {2, 0, 1}))));
  expect_derivatives("scatter_add of a transpose by a slice", scatter, {values});
  const Tensor one = Tensor::scalar(1.5);
  CHECK(elements(ht::scatter_add({3}, 0, Tensor::from<std::int64_t>({1, 1, 2}), ht::expand(one, {3}))) ==
        std::vector<double>{0, 3, 1.5});
}

TEST_CASE("indices of several thousand: blocks and threads, same bits") {
  const IndexCase large[] = {{{1000}, {100'003}, 0},          {{50'000}, {40'000}, 0},
                             {{300, 64}, {2000, 64}, 0},      {{64, 300}, {64, 2000}, 1},
                             {{40, 30, 50}, {40, 70, 50}, 1}, {{3, 40'000}, {9, 40'000}, 0}};
  for (const IndexCase& at : large) {
    const Tensor x = uniform(at.shape), indices = random_indices(at.indices, bound_of(at)),
                 y = uniform(at.indices, 2);
    CHECK(elements(ht::gather(x, at.axis, indices)) == naive_gather(x, at.axis, indices));
    CHECK(elements(ht::scatter_add(at.shape, at.axis, indices, y)) ==
          naive_scatter(at.shape, at.axis, indices, y));
    ladder::Options options;
    options.max_order = 1;
    expect_consistent(
        naive::label("gather", at.shape, {at.axis}),
        [&](const TensorList& z) { return TensorList{ht::gather(z[0], at.axis, z[1])}; }, {x, indices},
        options);
    if (at.shape.rank() == 2) {
      const std::int64_t count = at.shape.size() > 100'000 ? 9 : 5000;
      const Tensor by = random_indices({count}, bound_of(at), 3);
      expect_consistent(
          naive::label("index_select", at.shape, {at.axis}),
          [&](const TensorList& z) { return TensorList{ht::index_select(z[0], at.axis, z[1])}; }, {x, by},
          options);
    }
  }
}

TEST_CASE("whole rows, longer and shorter than what is fetched ahead, contiguous and not") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64, Dtype::int64})
    for (const std::int64_t length : {1, 7, 64, 150, 700})
      for (const std::int64_t rows : {1, 8, 9, 40})
        for (const bool turned : {false, true}) {
          const Shape shape{20, length};
          const Tensor numbers = ht::round(8.0 * uniform(turned ? Shape{length, 20} : shape));
          const Tensor x = ht::astype(turned ? ht::transpose(numbers) : numbers, dtype);
          const Tensor at = random_indices({rows}, 20),
                       each = ht::expand(ht::unsqueeze(at, 1), {rows, length});
          const Tensor taken = ht::index_select(x, 0, at);
          const auto shown = [](const Tensor& z) { return ht::astype(z, Dtype::float64); };
          CHECK(elements(shown(taken)) == naive_gather(shown(x), 0, each));
          if (dtype == Dtype::int64) continue;
          const Tensor terms = ht::slice(ht::concatenate({taken, taken + 1.0}, 1), 1, 0, length);
          CHECK(elements(ht::scatter_add(shape, 0, each, terms)) == naive_scatter(shape, 0, each, terms));
        }
}

TEST_CASE(
    "rows of the target are shared between threads: any number of them, all alike, too many or too wide") {
  struct Case {
    std::int64_t target_rows, rows, columns;
    bool alike;
  };
  for (const Case& at : {Case{700, 1500, 30, false}, Case{1, 900, 100, false}, Case{3, 513, 100, true},
                         Case{50, 3000, 800, false}, Case{50, 2100, 1100, false}}) {
    const Tensor one = random_indices({at.rows}, at.alike ? 1 : at.target_rows);
    const Tensor indices = ht::expand(ht::unsqueeze(one, 1), {at.rows, at.columns});
    const Tensor values = uniform({at.rows, at.columns});
    const auto expected = naive_scatter({at.target_rows, at.columns}, 0, indices, values);
    for (int threads = 1; threads <= ht::available_cpus(); ++threads) {
      const ladder::Threads use(threads);
      CHECK(elements(ht::scatter_add({at.target_rows, at.columns}, 0, indices, values)) == expected);
    }
  }
}

TEST_CASE("repeated indices are added in their order") {
  // In any other order the ones are lost, or not all lost.
  const Tensor values = Tensor::from({1e16, 1.0, -1e16, 1.0, 1.0});
  const Tensor same = Tensor::from<std::int64_t>({2, 2, 2, 2, 2});
  CHECK(elements(ht::scatter_add({3}, 0, same, values)) == std::vector<double>{0, 0, 2});
  const Tensor rows = ht::expand(ht::reshape(values, {5, 1}), {5, 40});
  CHECK(elements(ht::scatter_add({3, 40}, 0, ht::expand(ht::reshape(same, {5, 1}), {5, 40}),
                                 rows))[2 * 40 + 7] == 2.0);
  const Tensor g =
      ht::grad([&](const Tensor& z) { return ht::dot(ht::take(z, same), values); }, uniform({3}));
  CHECK(elements(g) == std::vector<double>{0, 0, 2});
}

TEST_CASE("index_select, take and one_hot: values and ladder") {
  const Tensor x = uniform({3, 4, 2});
  for (int axis = 0; axis < 3; ++axis)
    for (const std::int64_t count : {0, 1, 2, 7}) {
      const Tensor by = random_indices({count}, x.extent(axis), 4);
      Shape one = Shape{1, 1, 1}.with(axis, count);
      const Tensor everywhere = ht::contiguous(ht::expand(ht::reshape(by, one), x.shape().with(axis, count)));
      const Tensor got = ht::index_select(x, axis, by);
      CHECK(got.shape() == x.shape().with(axis, count));
      CHECK(elements(got) == naive_gather(x, axis, everywhere));
      CHECK(ladder::same_bits(got, ht::index_select(x, axis - 3, by)));
      expect_derivatives(naive::label("index_select", x.shape(), {axis}),
                         [&](const TensorList& z) { return TensorList{ht::index_select(z[0], axis, z[1])}; },
                         {x, by});
    }
  expect_derivatives(
      "index_select of a transpose",
      [](const TensorList& z) { return TensorList{ht::index_select(ht::transpose(z[0]), 0, z[1])}; },
      {uniform({3, 4}), random_indices({5}, 4)});

  for (const Shape& shape : {Shape{}, Shape{0}, Shape{5}, Shape{2, 3}}) {
    const Tensor by = random_indices(shape, 24, 5);
    std::vector<double> expected;
    for (const std::int64_t place : by.to_vector<std::int64_t>())
      expected.push_back(elements(x)[static_cast<std::size_t>(place)]);
    CHECK(elements(ht::take(x, by)) == expected);
    CHECK(ht::take(x, by).shape() == shape);
    expect_derivatives("take", [](const TensorList& z) { return TensorList{ht::take(z[0], z[1])}; }, {x, by});
    expect_derivatives("take from a transpose",
                       [](const TensorList& z) { return TensorList{ht::take(ht::transpose(z[0]), z[1])}; },
                       {x, by});
  }
  CHECK(ht::take(Tensor::scalar(3.0), Tensor::from<std::int64_t>({0, 0})).shape() == Shape{2});

  const Tensor labels = Tensor::from<std::int64_t>({2, 0, 1, 2}, {2, 2});
  const Tensor hot = ht::one_hot(labels, 3, Dtype::float32);
  CHECK(hot.shape() == Shape{2, 2, 3});
  CHECK(hot.to_vector<float>() == std::vector<float>{0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1});
  CHECK(ht::one_hot(Tensor::zeros({0}, Dtype::int64), 3).shape() == Shape{0, 3});
  CHECK(ht::one_hot(Tensor::zeros({}, Dtype::int64), 2).shape() == Shape{2});
  CHECK(ht::one_hot(labels, 3).dtype() == Dtype::float64);
}

TEST_CASE("a minibatch: rows of any dtype by the same indices") {
  const Tensor labels = Tensor::from<std::int64_t>({5, 6, 7, 8}), by = Tensor::from<std::int64_t>({3, 0, 3});
  CHECK(ht::index_select(labels, 0, by).to_vector<std::int64_t>() == std::vector<std::int64_t>{8, 5, 8});
  CHECK(ht::take(labels, by).to_vector<std::int64_t>() == std::vector<std::int64_t>{8, 5, 8});
  const std::array<bool, 4> mask = {true, false, false, false};
  std::array<bool, 3> got{};
  ht::gather(Tensor::from(std::span<const bool>(mask), {4}), 0, by).copy_to(std::span<bool>(got));
  CHECK(got == std::array<bool, 3>{false, true, false});
  // The indices of an argmax pick the maxima.
  const Tensor x = uniform({6, 5});
  CHECK(ladder::same_bits(ht::gather(x, 1, ht::argmax(x, 1, true)), ht::max(x, {1}, true)));
  CHECK(ladder::same_bits(ht::reshape(ht::gather(x, 1, ht::argmax(x, 1, true)), {6}),
                          ht::gather_labels(x, ht::argmax(x, 1))));
}

TEST_CASE("an index outside is named with its place; nothing is read or written") {
  const Tensor x = uniform({3, 4});
  for (const std::int64_t bad : {std::int64_t{4}, std::int64_t{-1}, std::int64_t{1} << 40}) {
    const std::string text = "index " + std::to_string(bad) + " at ";
    const Tensor indices = Tensor::from<std::int64_t>({0, 3, bad, 0, bad, 0}, {2, 3});
    const Tensor row = Tensor::from<std::int64_t>({0, bad, bad});
    const auto gathered = thrown([&] { ht::gather(x, 1, indices); });
    expect_text(gathered,
                "[gather] " + text + "(0, 2) is not within the 4 elements of axis 1 of shape (3, 4)");
    expect_text(thrown([&] {
                  ht::scatter_add({3, 4}, 1, indices, uniform({2, 3}));
                }),
                "[scatter_add] " + text + "(0, 2)");
    expect_text(thrown([&] { ht::index_select(x, 1, row); }),
                "[index_select] " + text + "(1) is not within the 4 elements of axis 1");
    expect_text(thrown([&] { ht::one_hot(row, 4); }),
                "[one_hot] " + text + "(1) is not within the 4 classes");
    if (bad != 4)
      expect_text(thrown([&] { ht::take(x, row); }),
                  "[take] " + text + "(1) is not within the 12 elements of shape (3, 4)");
    // A view shows another place, and hides what is not in it.
    expect_text(thrown([&] { ht::gather(ht::transpose(x), 0, ht::transpose(indices)); }), text + "(1, 1)");
    CHECK(ht::gather(x, 1, ht::slice(indices, 1, 0, 1)).size() == 2);
  }
  expect_text(thrown([] {
                ht::gather(Tensor::zeros({3, 0}), 1, Tensor::zeros({3, 1}, Dtype::int64));
              }),
              "index 0 at (0, 0) is not within the 0 elements of axis 1 of shape (3, 0)");
  // Far into a long vector.
  std::vector<std::int64_t> long_row(100'000, 1);
  long_row[77'777] = 3;
  expect_text(thrown([&] { ht::index_select(x, 0, Tensor::from(long_row, {100'000})); }),
              "index 3 at (77777)");
}

TEST_CASE("indexing refuses what does not fit, by name") {
  const Tensor x = uniform({3, 4}), no, indices = Tensor::zeros({3, 4}, Dtype::int64),
               row = Tensor::zeros({2}, Dtype::int64);
  for (const auto& [op, call] :
       {std::pair<const char*, std::function<void(const Tensor&, const Tensor&)>>{
            "gather", [](const Tensor&a, const Tensor&b) { ht::gather(a, 0, b); }},
        {"index_select", [](const Tensor&a, const Tensor&b) { ht::index_select(a, 0, b); }},
        {"take", [](const Tensor&a, const Tensor&b) { ht::take(a, b); }},
        {"scatter_add", [](const Tensor&a, const Tensor&b) {
           ht::scatter_add({3, 4}, 0, b, a);
         }}}) {
    const std::string name = "[" + std::string(op) + "]";
    const Tensor& fitting = name == "[index_select]" ? row : indices;
    expect_text(thrown([&, &call = call] { call(no, fitting); }), name + " operand is absent");
    expect_text(thrown([&, &call = call] { call(x, no); }), name + " operand is absent");
    expect_text(thrown([&, &call = call] { call(x, name == "[index_select]" ? uniform({2}) : x); }),
                name + " indices must be int64, not float64");
  }
  expect_text(thrown([&] { ht::gather(x, 2, indices); }), "[gather]");
  expect_text(thrown([&] { ht::gather(x, 2, indices); }), "axis 2");
  expect_text(thrown([&] { ht::gather(x, 0, row); }),
              "[gather] indices of shape (2) do not fit axis 0 of shape (3, 4)");
  expect_text(thrown([&] { ht::gather(x, 0, Tensor::zeros({3, 5}, Dtype::int64)); }), "(3, 5) do not fit");
  expect_text(thrown([&] { ht::index_select(x, 0, indices); }), "[index_select] needs a vector of indices");
  expect_text(thrown([&] { ht::index_select(Tensor::scalar(1), 0, row); }), "[index_select]");
  expect_text(thrown([&] {
                ht::scatter_add({3, 4}, 0, indices, uniform({3, 3}));
              }),
              "[scatter_add] values have shape (3, 3), indices (3, 4)");
  expect_text(thrown([&] { ht::scatter_add({2, 2}, 0, indices, x); }), "do not fit");
  expect_text(thrown([&] { ht::scatter_add({3, 4}, 0, indices, indices); }), "needs float32 or float64");
  expect_text(thrown([&] {
                ht::scatter_add(Tensor::ones({3, 4}, Dtype::float32), 0, indices, x);
              }),
              "[scatter_add] dtypes differ: float32");
  expect_text(thrown([&] { ht::one_hot(x, 3); }), "[one_hot] labels must be int64, not float64");
  expect_text(thrown([&] { ht::one_hot(row, -1); }), "[one_hot]");
  expect_text(thrown([&] { ht::one_hot(row, 3, Dtype::int64); }), "[one_hot] makes float32 or float64");
}
