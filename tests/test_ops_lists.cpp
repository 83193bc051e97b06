// Lists of tensors, labels and the softmax cross entropy: values by naive loops in long double, the ladder.
#include <doctest/doctest.h>

#include <cmath>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;
using ladder::elements;
using ladder::expect_consistent;
using ladder::expect_derivatives;
using ladder::sample;

namespace {

Tensor uniform(const Shape& shape, std::uint64_t seed = 1) { return sample(shape, -2, 2, seed); }

Tensor labels_for(std::int64_t rows, std::int64_t classes) {
  std::vector<std::int64_t> labels;
  for (std::int64_t n = 0; n < rows; ++n) labels.push_back((n * 7 + 3) % classes);
  return Tensor::from(labels, Shape{rows});
}

struct Row {
  std::vector<long double> softmax;
  long double log_total;  ///< log(sum(exp(x)))
};

std::vector<Row> naive_softmax(const Tensor& x) {
  const std::vector<double> values = elements(x);
  const auto classes = static_cast<std::size_t>(x.extent(-1));
  std::vector<Row> rows;
  for (std::size_t begin = 0; begin < values.size(); begin += classes) {
    Row row{{}, 0};
    long double highest = values[begin], total = 0;
    for (std::size_t c = 0; c < classes; ++c) highest = std::max<long double>(highest, values[begin + c]);
    for (std::size_t c = 0; c < classes; ++c) {
      row.softmax.push_back(std::exp(values[begin + c] - highest));
      total += row.softmax.back();
    }
    for (long double& p : row.softmax) p /= total;
    row.log_total = highest + std::log(total);
    rows.push_back(std::move(row));
  }
  return rows;
}

void expect_all_finite(const TensorList& list) {
  for (const Tensor& x : list)
    if (x.defined() && ht::is_floating(x.dtype())) CHECK_FALSE(ht::has_non_finite(x));
}

}  // namespace

TEST_CASE("unflatten cuts a vector into views, flatten joins them") {
  const std::vector<Shape> shapes{{2, 3}, {}, {0}, {4}, {1, 1}};
  const Tensor flat = uniform({12});
  const TensorList pieces = ht::unflatten(flat, shapes);
  REQUIRE(pieces.size() == 5);
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    CHECK(pieces[i].shape() == shapes[i]);
    CHECK(pieces[i].shares_storage_with(flat));
  }
  CHECK(pieces[1].item() == elements(flat)[6]);
  CHECK(ladder::same_bits(ht::flatten(pieces), flat));
  const auto cut = [&](const TensorList& x) { return ht::unflatten(x[0], shapes); };
  expect_derivatives("unflatten", cut, {flat});
  expect_derivatives("unflatten of a view", cut, {ht::slice(uniform({40}), 0, 3, 15)});
  expect_derivatives(
      "unflatten of a strided view",
      [&](const TensorList& x) { return ht::unflatten(ht::reshape(ht::slice(x[0], 1, 2, 3), {12}), shapes); },
      {uniform({12, 5})});
  expect_derivatives(
      "flatten", [](const TensorList& x) { return TensorList{ht::flatten(x)}; }, pieces);
  expect_derivatives("flatten of transposes",
                     [](const TensorList& x) {
                       return TensorList{ht::flatten({ht::transpose(x[0]), x[1], x[0]})};
                     },
                     {uniform({2, 3}), uniform({4})});
  CHECK(ht::flatten(TensorList{}).shape() == Shape{0});
  CHECK(ht::unflatten(Tensor::zeros({0}), {}).empty());
}

TEST_CASE("pieces that nothing uses leave zeros in the flat gradient, and pieces without path none at all") {
  const std::vector<Shape> shapes{{2}, {3}, {1}};
  const Tensor flat = uniform({6});
  const auto middle = [&](const TensorList& x) {
    return TensorList{ht::square(ht::unflatten(x[0], shapes)[1])};
  };
  expect_derivatives("one piece of three", middle, {flat});
  const std::vector<double> g =
      elements(ht::grad([&](const Tensor& x) { return ht::sum(ht::unflatten(x, shapes)[1]); }, flat));
  CHECK(g == std::vector<double>{0, 0, 1, 1, 1, 0});
  CHECK_FALSE(ht::grad(
                  [&](const Tensor& x) {
                    ht::unflatten(x, shapes);
                    return Tensor::scalar(1.0);
                  },
                  flat)
                  .defined());
}

TEST_CASE("flatten counts an absent piece as zeros, and gives it no derivative") {
  const std::vector<Shape> shapes{{2}, {3}, {1}};
  const Tensor a = uniform({2}, 2), b = uniform({1}, 3);
  const Tensor flat = ht::flatten({a, Tensor(), b}, shapes);
  CHECK(elements(flat) == std::vector<double>{elements(a)[0], elements(a)[1], 0, 0, 0, elements(b)[0]});
  expect_derivatives("flatten with an absent piece",
                     [&](const TensorList& x) {
                       return TensorList{ht::flatten({x[0], Tensor(), x[1]}, shapes)};
                     },
                     {a, b});
  const TensorList g =
      ht::grad([&](const TensorList& x) { return ht::sum(ht::square(ht::flatten(x, shapes))); },
               TensorList{a, Tensor(), b});
  CHECK(g[0].defined());
  CHECK_FALSE(g[1].defined());
  // float32 all the way, also where only an absent piece comes first.
  const Tensor single = ht::flatten({Tensor(), Tensor::ones({3}, ht::Dtype::float32), Tensor()}, shapes);
  CHECK(single.dtype() == ht::Dtype::float32);
}

TEST_CASE("unstack gives rows as views, stack joins them") {
  const auto rows = [](const TensorList& x) { return ht::unstack(x[0]); };
  for (const Shape& shape : {Shape{4}, Shape{3, 2}, Shape{2, 3, 2}, Shape{1, 5}, Shape{3, 0}}) {
    const Tensor x = uniform(shape);
    const TensorList list = ht::unstack(x);
    REQUIRE(static_cast<std::int64_t>(list.size()) == shape[0]);
    for (const Tensor& row : list) CHECK(row.shares_storage_with(x));
    CHECK(ladder::same_bits(ht::stack(list), x));
    expect_derivatives("unstack", rows, {x});
    expect_derivatives(
        "stack", [](const TensorList& at) { return TensorList{ht::stack(at)}; }, list);
  }
  CHECK(ht::unstack(Tensor::zeros({0, 3})).empty());
  expect_derivatives("unstack of a transpose", rows, {ht::transpose(uniform({2, 3}))});
  expect_derivatives("one row of four",
                     [](const TensorList& x) { return TensorList{ht::exp(ht::unstack(x[0])[2])}; },
                     {uniform({4, 3})});
  expect_derivatives("rows used twice",
                     [](const TensorList& x) {
                       const TensorList list = ht::unstack(x[0]);
                       return TensorList{list[0] * list[1], list[1] + list[2] * list[0]};
                     },
                     {uniform({3, 2})});
  expect_derivatives("a row stacked twice",
                     [](const TensorList& x) {
                       return TensorList{ht::stack({x[0], x[1], x[0]})};
                     },
                     {uniform({3}, 2), uniform({3}, 3)});
}

TEST_CASE("stack counts an absent row as zeros, and gives it no derivative") {
  const Tensor a = uniform({2}, 2), b = uniform({2}, 3);
  const Tensor stacked = ht::stack({a, Tensor(), b}, {2}, ht::Dtype::float64);
  CHECK(stacked.shape() == Shape{3, 2});
  CHECK(elements(ht::slice(stacked, 0, 1, 2)) == std::vector<double>{0, 0});
  ladder::Options options;
  options.float32 = false;  // the row's dtype is named
  expect_derivatives(
      "stack with an absent row",
      [](const TensorList& x) {
        return TensorList{ht::stack({x[0], Tensor(), x[1]}, {2}, ht::Dtype::float64)};
      },
      {a, b}, options);
  const TensorList g =
      ht::grad([](const TensorList& x) { return ht::sum(ht::square(ht::stack(x, {2}, ht::Dtype::float64))); },
               TensorList{a, Tensor(), b});
  CHECK(g[0].defined());
  CHECK_FALSE(g[1].defined());
  CHECK(ht::stack({}, {2}, ht::Dtype::float32).shape() == Shape{0, 2});
}

TEST_CASE("gather_labels and scatter_labels: by index, and adjoint") {
  for (const auto& [rows, classes] : {std::pair<std::int64_t, std::int64_t>{4, 3}, {1, 1}, {5, 7}, {0, 3}}) {
    const Tensor x = uniform({rows, classes}), labels = labels_for(rows, classes), y = uniform({rows}, 2);
    const std::vector<double> values = elements(x), got = elements(ht::gather_labels(x, labels)),
                              spread = elements(ht::scatter_labels(y, labels, classes));
    const std::vector<std::int64_t> at = labels.to_vector<std::int64_t>();
    for (std::int64_t n = 0; n < rows; ++n) {
      CHECK(got[static_cast<std::size_t>(n)] ==
            values[static_cast<std::size_t>(n * classes + at[static_cast<std::size_t>(n)])]);
      for (std::int64_t c = 0; c < classes; ++c)
        CHECK(spread[static_cast<std::size_t>(n * classes + c)] ==
              (c == at[static_cast<std::size_t>(n)] ? elements(y)[static_cast<std::size_t>(n)] : 0.0));
    }
    expect_derivatives("gather_labels",
                       [](const TensorList& z) { return TensorList{ht::gather_labels(z[0], z[1])}; },
                       {x, labels});
    expect_derivatives("scatter_labels",
                       [&, classes = classes](const TensorList& z) {
                         return TensorList{ht::scatter_labels(z[0], z[1], classes)};
                       },
                       {y, labels});
  }
  const Tensor labels = labels_for(3, 4);
  expect_derivatives(
      "gather_labels of a transpose",
      [&](const TensorList& z) { return TensorList{ht::gather_labels(ht::transpose(z[0]), labels)}; },
      {uniform({4, 3})});
  // Labels that are a strided view.
  const Tensor pairs = Tensor::from<std::int64_t>({1, 9, 0, 9, 2, 9}, {3, 2});
  const Tensor column = ht::reshape(ht::slice(pairs, 1, 0, 1), {3});
  expect_derivatives("gather_labels by a view",
                     [&](const TensorList& z) { return TensorList{ht::gather_labels(z[0], column)}; },
                     {uniform({3, 4})});
}

TEST_CASE("labels out of range are named, with their place") {
  const Tensor x = uniform({3, 4});
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const ht::Error& error) {
      return error.what();
    }
    return "nothing thrown";
  };
  for (const std::int64_t bad : {std::int64_t{4}, std::int64_t{-1}, std::int64_t{1} << 40}) {
    const Tensor labels = Tensor::from<std::int64_t>({0, bad, 3}, {3});
    const std::string texts[] = {message([&] { ht::gather_labels(x, labels); }),
                                 message([&] { ht::scatter_labels(uniform({3}), labels, 4); }),
                                 message([&] { ht::softmax_cross_entropy(x, labels); }), message([&] {
                                   ht::softmax_cross_entropy_gradient(Tensor::scalar(1), x, labels);
                                 })};
    for (const std::string& text : texts) {
      INFO(text);
      CHECK(text.find(std::to_string(bad)) != std::string::npos);
      CHECK(text.find("label") != std::string::npos);
    }
  }
}

TEST_CASE("softmax: rows against long double, ladder") {
  for (const Shape& shape : {Shape{1}, Shape{5}, Shape{3, 4}, Shape{2, 3, 4}, Shape{4, 1}, Shape{30, 10}}) {
    const Tensor x = uniform(shape) * 3.0;
    const std::vector<double> got = elements(ht::softmax(x));
    std::size_t i = 0;
    for (const Row& row : naive_softmax(x))
      for (const long double p : row.softmax) CHECK(std::abs(got[i++] - p) <= 1e-14L * p);
    if (x.size() < 100)
      expect_derivatives("softmax", [](const TensorList& z) { return TensorList{ht::softmax(z[0])}; },
                         {uniform(shape)});
  }
  expect_derivatives("softmax of a transpose",
                     [](const TensorList& z) { return TensorList{ht::softmax(ht::transpose(z[0]))}; },
                     {uniform({4, 3})});
}

TEST_CASE("softmax_cross_entropy and its gradient: values against long double, ladder") {
  for (const auto& [rows, classes] :
       {std::pair<std::int64_t, std::int64_t>{4, 3}, {1, 1}, {1, 5}, {5, 2}, {33, 10}}) {
    const Tensor x = uniform({rows, classes}) * 2.0, labels = labels_for(rows, classes);
    const std::vector<std::int64_t> at = labels.to_vector<std::int64_t>();
    const std::vector<Row> naive = naive_softmax(x);
    long double loss = 0, terms = 0;
    const std::vector<double> values = elements(x), gradient = elements(ht::softmax_cross_entropy_gradient(
                                                        Tensor::scalar(1.5), x, labels));
    for (std::size_t n = 0; n < naive.size(); ++n) {
      const long double logit =
          values[n * static_cast<std::size_t>(classes) + static_cast<std::size_t>(at[n])];
      loss += (naive[n].log_total - logit) / rows;
      terms += (std::abs(naive[n].log_total) + std::abs(logit)) / rows;
      for (std::size_t c = 0; c < static_cast<std::size_t>(classes); ++c) {
        const long double hot = static_cast<std::int64_t>(c) == at[n] ? 1 : 0;
        const long double expected = 1.5L / rows * (naive[n].softmax[c] - hot);
        CHECK(std::abs(gradient[n * static_cast<std::size_t>(classes) + c] - expected) <=
              1e-14L * 1.5L / rows);
      }
    }
    CHECK(std::abs(ht::softmax_cross_entropy(x, labels).item() - loss) <= 1e-14L * terms);
    CHECK(ht::softmax_cross_entropy(x, labels).rank() == 0);
    if (rows > 10) continue;
    expect_derivatives("softmax_cross_entropy",
                       [](const TensorList& z) { return TensorList{ht::softmax_cross_entropy(z[0], z[1])}; },
                       {x, labels});
    for (const Shape& shape : {Shape{}, Shape{1}, Shape{1, 1}})
      expect_derivatives("softmax_cross_entropy_gradient",
                         [](const TensorList& z) {
                           return TensorList{ht::softmax_cross_entropy_gradient(z[0], z[1], z[2])};
                         },
                         {sample(shape, 0.5, 2, 3), x, labels});
  }
  const Tensor labels = labels_for(3, 4);
  expect_derivatives(
      "softmax_cross_entropy of a transpose",
      [&](const TensorList& z) { return TensorList{ht::softmax_cross_entropy(ht::transpose(z[0]), labels)}; },
      {uniform({4, 3})});
  ladder::Options options;
  options.max_order = 2;
  expect_consistent(
      "softmax_cross_entropy of 5000 rows",
      [](const TensorList& z) { return TensorList{ht::softmax_cross_entropy(z[0], z[1])}; },
      {uniform({5000, 10}), labels_for(5000, 10)}, options);
}

TEST_CASE("the fused cross entropy agrees with its composition") {
  const Tensor x = uniform({6, 5}), labels = labels_for(6, 5);
  const auto fused = [&](const Tensor& z) { return ht::softmax_cross_entropy(z, labels); };
  const auto composed = [&](const Tensor& z) {
    return -ht::mean(ht::log(ht::gather_labels(ht::softmax(z), labels)));
  };
  const Tensor v = uniform({6, 5}, 2);
  CHECK(std::abs(fused(x).item() - composed(x).item()) <= 1e-14);
  CHECK(ladder::difference({ht::grad(fused, x)}, {ht::grad(composed, x)}) <= 1e-15);
  CHECK(ladder::difference({ht::hvp(fused, x, v)}, {ht::hvp(composed, x, v)}) <= 1e-14);
}

TEST_CASE("extreme logits keep the loss and its first three derivatives finite") {
  for (const double size : {1e4, 1e300}) {
    const Tensor labels = Tensor::from<std::int64_t>({0, 1, 2}, {3});
    const Tensor x = Tensor::from({size, -size, 0.0, size, -size, 0.0, size, size, -size}, {3, 3});
    const Tensor v = uniform({3, 3}, 2), w = uniform({3, 3}, 3);
    const auto loss = [&](const Tensor& z) { return ht::softmax_cross_entropy(z, labels); };
    // Rows: the right class wins by size, loses by 2 size, loses by 2 size to a tie of two.
    const double expected = (0.0 + 2.0 * size + (2.0 * size + (size < 1e10 ? std::log(2.0) : 0.0))) / 3.0;
    CHECK(loss(x).item() == doctest::Approx(expected).epsilon(1e-14));
    const Tensor g = ht::grad(loss, x);
    expect_all_finite({ht::softmax(x), g, ht::hvp(loss, x, v)});
    expect_all_finite({ht::jvp([&](const Tensor& z) { return ht::hvp(loss, z, v); }, x, w).second});
    CHECK(elements(g)[0] == 0.0);
    CHECK(elements(g)[3] == doctest::Approx(1.0 / 3).epsilon(1e-15));
    CHECK(elements(g)[4] == doctest::Approx(-1.0 / 3).epsilon(1e-15));
    CHECK(elements(g)[6] == doctest::Approx(1.0 / 6).epsilon(1e-15));
  }
}

TEST_CASE("stack and unstack along any axis") {
  const Tensor x = uniform({2, 3, 4});
  for (const std::int64_t axis : {0, 1, 2, -1, -2, -3}) {
    const TensorList list = ht::unstack(x, axis);
    REQUIRE(static_cast<std::int64_t>(list.size()) == x.extent(axis));
    for (std::size_t i = 0; i < list.size(); ++i) {
      const auto place = static_cast<std::int64_t>(i);
      CHECK(list[i].shares_storage_with(x));
      CHECK(elements(list[i]) == elements(ht::slice(x, axis, place, place + 1)));
    }
    CHECK(ladder::same_bits(ht::stack(list, axis), x));
    expect_derivatives("unstack", [&](const TensorList& z) { return ht::unstack(z[0], axis); }, {x});
    expect_derivatives(
        "stack", [&](const TensorList& z) { return TensorList{ht::stack(z, axis)}; }, list);
    expect_derivatives("some rows only",
                       [&](const TensorList& z) {
                         const TensorList rows = ht::unstack(z[0], axis);
                         return TensorList{rows[1] * rows[0]};
                       },
                       {x});
  }
  const Tensor holed = ht::stack({uniform({2}), Tensor(), uniform({2}, 2)}, {2}, ht::Dtype::float64, 1);
  CHECK(holed.shape() == Shape{2, 3});
  CHECK(elements(ht::slice(holed, 1, 1, 2)) == std::vector<double>{0, 0});
  CHECK(ht::stack({Tensor::scalar(1), Tensor::scalar(2)}, -1).shape() == Shape{2});
  expect_text(thrown([&] { ht::stack({uniform({2})}, 2); }), "[stack]");
  expect_text(thrown([&] { ht::unstack(x, 3); }), "[unstack]");
}

TEST_CASE("concatenate joins along an axis, split cuts into views") {
  const std::vector<std::int64_t> sizes{2, 0, 1, 3};
  for (const std::int64_t axis : {0, 1, 2, -2}) {
    const Shape whole = Shape{2, 3, 2}.with(ht::normalize_axis("test", axis, {2, 3, 2}), 6);
    const Tensor x = uniform(whole);
    const TensorList pieces = ht::split(x, sizes, axis);
    REQUIRE(pieces.size() == 4);
    std::int64_t start = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      CHECK(pieces[i].shares_storage_with(x));
      CHECK(pieces[i].extent(axis) == sizes[i]);
      CHECK(elements(pieces[i]) == elements(ht::slice(x, axis, start, start + sizes[i])));
      start += sizes[i];
    }
    CHECK(ladder::same_bits(ht::concatenate(pieces, axis), x));
    expect_derivatives("split", [&](const TensorList& z) { return ht::split(z[0], sizes, axis); }, {x});
    expect_derivatives(
        "concatenate", [&](const TensorList& z) { return TensorList{ht::concatenate(z, axis)}; }, pieces);
    expect_derivatives(
        "one piece of a split",
        [&](const TensorList& z) { return TensorList{ht::exp(ht::split(z[0], sizes, axis)[2])}; }, {x});
    CHECK(ladder::same_bits(ht::split_evenly(x, 3, axis), ht::split(x, {2, 2, 2}, axis)));
  }
  expect_derivatives("a tensor joined with itself and its square",
                     [](const TensorList& z) {
                       return TensorList{ht::concatenate({z[0], ht::square(z[0]), z[0]}, 1)};
                     },
                     {uniform({2, 2})});
  expect_derivatives("transposes joined",
                     [](const TensorList& z) {
                       return TensorList{ht::concatenate({ht::transpose(z[0]), z[1]}, -1)};
                     },
                     {uniform({2, 3}), uniform({3, 1}, 2)});
  expect_consistent("joined with a constant",
                    [](const TensorList& z) {
                      return TensorList{ht::concatenate({ht::stop_gradient(z[0]), z[0]})};
                    },
                    {uniform({3})}, {.max_order = 2});
  CHECK(ht::concatenate({Tensor::from<std::int64_t>({1}), Tensor::from<std::int64_t>({2, 3})})
            .to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 2, 3});
  CHECK(ht::split(Tensor::zeros({0, 2}), {}, 0).empty());
}

TEST_CASE("concatenate and split refuse what does not fit, by name") {
  const Tensor x = uniform({2, 3});
  expect_text(thrown([&] { ht::concatenate({}); }), "[concatenate]");
  expect_text(thrown([&] { ht::concatenate({x, Tensor()}); }), "absent");
  expect_text(thrown([&] { ht::concatenate({x, uniform({2, 4})}); }), "tensor 1 of shape (2, 4)");
  expect_text(thrown([&] { ht::concatenate({x, uniform({3})}); }), "(3)");
  expect_text(thrown([&] { ht::concatenate({x, Tensor::ones({2, 3}, ht::Dtype::float32)}); }), "float32");
  expect_text(thrown([&] { ht::concatenate({Tensor::scalar(1)}); }), "scalar");
  expect_text(thrown([&] { ht::concatenate({x}, 2); }), "[concatenate]");
  expect_text(thrown([&] { ht::split(x, {1, 1}, 1); }), "hold 2 elements");
  expect_text(thrown([&] { ht::split(x, {4, -1}, 1); }), "-1");
  expect_text(thrown([&] { ht::split_evenly(x, 2, 1); }), "(2, 3)");
  expect_text(thrown([&] { ht::split_evenly(x, 0, 1); }), "[split_evenly]");
}
