// Tensors as values: making, viewing and reading them, and every way of asking for what cannot be.
#include <hypertape/core/tensor.h>

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <memory>
#include <sstream>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/memory.h>
#include "thrown.h"

namespace ht = hypertape;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;

namespace {

constexpr std::int64_t huge = std::int64_t{1} << 62;

void expect_error(const std::function<void()>& call, std::initializer_list<std::string> parts) {
  const std::string text = thrown(call);
  for (const std::string& part : parts) {
    const bool found = text.find(part) != std::string::npos;
    CHECK_MESSAGE(found, "expected \"" << part << "\" in: " << text);
  }
}

template <class T>
std::string printed(const T& value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

}  // namespace

TEST_CASE("tensors of every dtype hold what they were made from") {
  const std::vector<float> floats{1.5f, -2.5f};
  CHECK(Tensor::from(floats, {2}).to_vector<float>() == floats);
  CHECK(Tensor::from(floats, {2}).dtype() == Dtype::float32);
  const std::vector<std::int64_t> integers{std::numeric_limits<std::int64_t>::min(),
                                           std::int64_t{1} << 53 | 1};
  CHECK(Tensor::from(integers, {1, 2}).to_vector<std::int64_t>() == integers);
  const bool flags[] = {true, false, true};
  const Tensor mask = Tensor::from(std::span<const bool>(flags), {3});
  bool read[3] = {};
  mask.copy_to(std::span<bool>(read));
  CHECK(mask.dtype() == Dtype::boolean);
  CHECK((read[0] && !read[1] && read[2]));
  CHECK(Tensor::from({1.0, 2.0}).shape() == Shape{2});
  CHECK(Tensor::full({2, 2}, 3.5).to_vector<double>() == std::vector<double>(4, 3.5));
  CHECK(Tensor::zeros({2}, Dtype::int64).to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 0});
  CHECK(Tensor::ones({2}, Dtype::float32).to_vector<float>() == std::vector<float>{1, 1});
  const Tensor scalar = Tensor::scalar(2.5);
  CHECK(scalar.rank() == 0);
  CHECK(scalar.size() == 1);
  CHECK(scalar.item() == 2.5);
  CHECK(Tensor::full({1, 1}, 7, Dtype::int64).item() == 7.0);
  CHECK(Tensor::full({1}, 1, Dtype::boolean).item() == 1.0);
  CHECK(Tensor::scalar(0.1, Dtype::float32).item() == static_cast<double>(0.1f));
  expect_error([] { Tensor::from({1.0, 2.0, 3.0}, {2}); }, {"[tensor]", "3 values", "(2)"});
}

TEST_CASE("handles share, copies do not; moved-from and default handles are absent") {
  Tensor a = Tensor::ones({3});
  Tensor b = a;
  CHECK(b.shares_storage_with(a));
  const Tensor c = std::move(a);
  CHECK_FALSE(a.defined());  // NOLINT: what moving leaves behind is documented
  CHECK(c.shares_storage_with(b));
  const Tensor& same = b;
  b = same;
  CHECK(b.defined());
  b = Tensor();
  CHECK_FALSE(b.defined());
  CHECK_FALSE(b.shares_storage_with(c));
  CHECK_FALSE(Tensor().shares_storage_with(Tensor()));
  CHECK(sizeof(Tensor) == 8);
}

TEST_CASE("a boolean of rank 0 is a condition; every other tensor refuses to be one and names defined()") {
  const Tensor x = Tensor::from({1.0, -2.0});
  // Masks of both kinds exist: what is asked is their value.
  for (const bool truth : {true, false}) {
    const Tensor one = truth ? ht::any(ht::less(x, 0.0)) : ht::all(ht::less(x, 0.0));
    CHECK((one ? true : false) == truth);
    CHECK(!one == !truth);
    CHECK((one && one) == truth);
  }
  // A view into the middle of a mask, and a value that is being differentiated.
  CHECK(ht::reshape(ht::slice(ht::less(x, 0.0), 0, 1, 2), {}));
  CHECK_FALSE(ht::reshape(ht::slice(ht::less(x, 0.0), 0, 0, 1), {}));
  const Tensor slope = ht::grad(
      [](const Tensor& y) { return ht::all(ht::greater(y, 0.0)) ? 2.0 * y : 3.0 * y; }, Tensor::scalar(-1.0));
  CHECK(slope.item() == 3.0);

  const auto refused = [](const Tensor& tensor, std::initializer_list<std::string> parts) {
    const std::string text = thrown([&] { return static_cast<bool>(tensor); });
    CHECK(text.rfind("[bool] ", 0) == 0);
    expect_text(text, "defined()");
    for (const std::string& part : parts) expect_text(text, part);
  };
  refused(Tensor(), {"absent"});
  refused(ht::less(x, 0.0), {"boolean", "(2)", "any()"});
  refused(ht::slice(ht::less(x, 0.0), 0, 0, 1),
          {"boolean", "(1)"});  // a batch of one must not hide what two would show
  refused(Tensor::scalar(1.0), {"float64", "()"});
  refused(Tensor::scalar(0.0, Dtype::float32), {"float32"});
  refused(Tensor::scalar(1.0, Dtype::int64), {"int64"});
  refused(Tensor::zeros({0}, Dtype::boolean), {"(0)"});
}

TEST_CASE("shape queries, strides and contiguity") {
  const Tensor x = Tensor::zeros({2, 3, 4});
  CHECK(x.extent(0) == 2);
  CHECK(x.extent(-1) == 4);
  CHECK(x.strides() == std::vector<std::int64_t>{12, 4, 1});
  CHECK(x.is_contiguous());
  const Tensor turned = ht::transpose(x);
  CHECK(turned.strides() == std::vector<std::int64_t>{1, 4, 12});
  CHECK_FALSE(turned.is_contiguous());
  CHECK_FALSE(ht::slice(x, 2, 0, 2).is_contiguous());
  CHECK(ht::slice(x, 0, 1, 2).is_contiguous());
  // Axes of one element do not count, whatever their stride.
  CHECK(ht::transpose(Tensor::zeros({1, 5})).is_contiguous());
  CHECK(ht::slice(Tensor::zeros({5, 4}), 0, 2, 3).is_contiguous());
  const Tensor wide = ht::expand(Tensor::zeros({3, 1}), {2, 3, 4});
  CHECK(wide.strides() == std::vector<std::int64_t>{0, 1, 0});
  CHECK_FALSE(wide.is_contiguous());
  CHECK(ht::slice(x, 1, 1, 1).is_contiguous());
  expect_error([&] { x.extent(3); }, {"[extent]", "axis 3", "(2, 3, 4)"});
  expect_error([&] { x.extent(-4); }, {"[extent]", "axis -4"});
}

TEST_CASE("reading: item, data, to_vector and copy_to say what does not fit") {
  const Tensor x = Tensor::ones({2, 3});
  expect_error([&] { x.item(); }, {"[item]", "(2, 3)", "6 elements"});
  expect_error([&] { Tensor::zeros({0}).item(); }, {"[item]", "0 elements"});
  expect_error([&] { x.data<float>(); }, {"[data]", "float64", "float32"});
  expect_error([&] { ht::transpose(x).data<double>(); }, {"[data]", "(3, 2)", "strided"});
  expect_error([&] { x.to_vector<std::int64_t>(); }, {"[copy_to]", "float64", "int64"});
  std::vector<double> five(5);
  expect_error([&] { x.copy_to(std::span<double>(five)); },
               {"[copy_to]", "5 places", "6 elements", "(2, 3)"});
  CHECK(x.data<double>().size() == 6);
  CHECK(Tensor::zeros({0, 3}).data<double>().empty());
  CHECK(Tensor::zeros({0, 3}).to_vector<double>().empty());
  // item reads through a view's offset.
  CHECK(ht::slice(Tensor::from({1.0, 2.0, 3.0}), 0, 1, 2).item() == 2.0);
}

TEST_CASE("wrapped memory is read in place and its owner kept alive by any view") {
  auto owner = std::make_shared<std::vector<double>>(std::vector<double>{1, 2, 3, 4, 5, 6});
  const std::weak_ptr<std::vector<double>> watch = owner;
  const double* memory = owner->data();
  Tensor view;
  {
    const Tensor x = Tensor::wrap(std::span<const double>(*owner), {2, 3}, owner);
    CHECK(x.data<double>().data() == memory);
    view = ht::slice(ht::transpose(x), 0, 1, 2);
  }
  owner.reset();
  CHECK_FALSE(watch.expired());
  CHECK(view.to_vector<double>() == std::vector<double>{2, 5});
  const Tensor sum = view + 1.0;
  view = Tensor();
  CHECK(watch.expired());
  CHECK(sum.to_vector<double>() == std::vector<double>{3, 6});
  const std::vector<float> few{1};
  expect_error([&] { Tensor::wrap(std::span<const float>(few), {2}, nullptr); },
               {"[wrap]", "1 values", "(2)"});
  CHECK(Tensor::wrap(std::span<const float>(few), {1}, nullptr).item() == 1.0);
}

TEST_CASE("shapes refuse negative extents, overflow and more than 8 axes") {
  CHECK(Shape{}.size() == 1);
  CHECK(Shape{2, 0, 3}.size() == 0);
  CHECK(Shape{1, 1, 1, 1, 1, 1, 1, 2}.rank() == 8);
  expect_error([] { Shape({1, 1, 1, 1, 1, 1, 1, 1, 1}); }, {"[shape]", "rank 9", "8"});
  expect_error([] { Shape({2, -1}); }, {"[shape]", "-1"});
  expect_error([] { Shape({std::numeric_limits<std::int64_t>::min()}); }, {"[shape]", "negative"});
  expect_error([] { Shape({huge, 2}); }, {"[shape]", "64 bits"});
  expect_error([] { Shape({3037000500, 3037000500}); }, {"[shape]", "64 bits"});
  CHECK(Shape{huge}.size() == huge);
  // Nothing in it, but its strides could not be told.
  expect_error([] { Shape({0, huge, huge}); }, {"[shape]"});
  CHECK(Shape{0, huge}.size() == 0);
  CHECK(Shape{2, 3}.with(1, 5) == Shape{2, 5});
  expect_error([] { Shape({2, 3}).with(0, -2); }, {"[shape]", "-2"});
  CHECK(Shape{2, 3} != Shape{3, 2});
  CHECK(Shape{2} != Shape{2, 1});
}

TEST_CASE("tensors too large for memory are refused, and nothing is left behind") {
  const ht::MemoryStatistics before = ht::memory_statistics();
  expect_error([] { Tensor::zeros({huge}); }, {"do not fit"});
  expect_error([] { Tensor::zeros({std::int64_t{1} << 50}); }, {});
  CHECK(thrown([] { Tensor::zeros({std::int64_t{1} << 50}); }) != "nothing thrown");
  CHECK(ht::memory_statistics().live_blocks == before.live_blocks);
  // Nothing in them: fine, and usable.
  const Tensor empty = Tensor::zeros({0, huge});
  CHECK(empty.size() == 0);
  CHECK((empty + empty).shape() == Shape{0, huge});
  CHECK(ht::transpose(empty).shape() == Shape{huge, 0});
  CHECK(ht::sum(empty).item() == 0.0);
  CHECK(ht::matmul(Tensor::zeros({3, 0}), Tensor::zeros({0, 2})).to_vector<double>() ==
        std::vector<double>(6, 0.0));
  expect_error([&] { ht::sum(empty, {0}); }, {"do not fit"});
  expect_error([] { ht::matmul(Tensor::zeros({huge, 0}), Tensor::zeros({0, huge})); }, {"64 bits"});
  const Tensor one = Tensor::scalar(1.0);
  const Tensor all = ht::expand(one, {1 << 30, 1 << 30});  // a view: no memory
  CHECK(all.size() == std::int64_t{1} << 60);
  expect_error([&] { ht::reshape(all, {-1}) + 0.0; }, {});
  CHECK(thrown([&] { all + 0.0; }) != "nothing thrown");
  CHECK(ht::memory_statistics().live_blocks == before.live_blocks + 5);  // empty, one, all
}

TEST_CASE("every query and operation refuses the absent tensor by its own name") {
  const Tensor no, x = Tensor::ones({2, 3}), v = Tensor::ones({2}),
                   labels = Tensor::from<std::int64_t>({0, 1});
  const std::pair<const char*, std::function<void()>> calls[] = {
      {"shape", [&] { no.shape(); }},
      {"rank", [&] { no.rank(); }},
      {"extent", [&] { no.extent(0); }},
      {"size", [&] { no.size(); }},
      {"dtype", [&] { no.dtype(); }},
      {"strides", [&] { no.strides(); }},
      {"is_contiguous", [&] { no.is_contiguous(); }},
      {"item", [&] { no.item(); }},
      {"data", [&] { no.data<double>(); }},
      {"sum", [&] { ht::sum(no); }},
      {"sum", [&] { ht::sum(no, {0}); }},
      {"mean", [&] { ht::mean(no); }},
      {"mean", [&] { ht::mean(no, {0}); }},
      {"sum_to", [&] { ht::sum_to(no, {}); }},
      {"dot", [&] { ht::dot(no, x); }},
      {"dot", [&] { ht::dot(x, no); }},
      {"matmul", [&] { ht::matmul(no, x); }},
      {"matmul", [&] { ht::matmul(x, no); }},
      {"reshape", [&] { ht::reshape(no, {1}); }},
      {"reshape", [&] { ht::reshape(no, {-1}); }},
      {"transpose", [&] { ht::transpose(no); }},
      {"transpose", [&] { ht::transpose(no, {0}); }},
      {"expand", [&] { ht::expand(no, {1}); }},
      {"slice", [&] { ht::slice(no, 0, 0, 1); }},
      {"pad", [&] { ht::pad(no, 0, 0, 1); }},
      {"unflatten", [&] { ht::unflatten(no, {}); }},
      {"flatten",
       [&] {
         ht::flatten({x, no});
       }},
      {"unstack", [&] { ht::unstack(no); }},
      {"stack",
       [&] {
         ht::stack({no, x});
       }},
      {"gather_labels", [&] { ht::gather_labels(no, labels); }},
      {"gather_labels", [&] { ht::gather_labels(x, no); }},
      {"scatter_labels", [&] { ht::scatter_labels(no, labels, 3); }},
      {"scatter_labels", [&] { ht::scatter_labels(v, no, 3); }},
      {"softmax", [&] { ht::softmax(no); }},
      {"softmax_cross_entropy", [&] { ht::softmax_cross_entropy(no, labels); }},
      {"softmax_cross_entropy", [&] { ht::softmax_cross_entropy(x, no); }},
      {"softmax_cross_entropy_gradient", [&] { ht::softmax_cross_entropy_gradient(no, x, labels); }},
      {"softmax_cross_entropy_gradient", [&] { ht::softmax_cross_entropy_gradient(v, no, labels); }},
      {"softmax_cross_entropy_gradient", [&] { ht::softmax_cross_entropy_gradient(v, x, no); }},
      {"stop_gradient", [&] { ht::stop_gradient(no); }},
      {"has_non_finite", [&] { ht::has_non_finite(no); }}};
  for (const auto& [name, call] : calls) expect_error(call, {"[" + std::string(name) + "]", "absent"});
}

TEST_CASE("operations refuse integers and mixed dtypes, naming both") {
  const Tensor x = Tensor::ones({2, 2}), single = Tensor::ones({2, 2}, Dtype::float32);
  const Tensor integers = Tensor::zeros({2, 2}, Dtype::int64), flags = Tensor::zeros({2, 2}, Dtype::boolean);
  const Tensor labels = Tensor::from<std::int64_t>({0, 1});
  for (const Tensor& odd : {integers, flags}) {
    expect_error([&] { ht::sum(odd); }, {"[sum]", "float32 or float64"});
    expect_error([&] { ht::sum(odd, {0}); }, {"[sum]"});
    expect_error([&] { ht::mean(odd); }, {"[mean]"});
    expect_error([&] { ht::sum_to(odd, {}); }, {"[sum_to]"});
    expect_error([&] { ht::dot(odd, odd); }, {"[dot]"});
    expect_error([&] { ht::matmul(odd, odd); }, {"[matmul]"});
    expect_error([&] { ht::softmax(odd); }, {"[softmax]"});
    expect_error([&] { ht::softmax_cross_entropy(odd, labels); }, {"[softmax_cross_entropy]"});
    expect_error([&] { ht::gather_labels(odd, labels); }, {"[gather_labels]"});
    expect_error([&] { ht::has_non_finite(odd); }, {"[has_non_finite]"});
    // Views are for any dtype.
    CHECK(ht::transpose(odd).dtype() == odd.dtype());
    CHECK(ht::reshape(ht::transpose(odd), {4}).dtype() == odd.dtype());
    CHECK(ht::pad(odd, 0, 1, 4).dtype() == odd.dtype());
    CHECK(ht::unstack(odd).size() == 2);
    CHECK(ht::stack(ht::unstack(odd)).dtype() == odd.dtype());
    CHECK(ht::flatten({odd, odd}).size() == 8);
  }
  expect_error([&] { ht::dot(x, single); }, {"[dot]", "float64", "float32"});
  expect_error([&] { ht::matmul(single, x); }, {"[matmul]", "float64", "float32"});
  expect_error([&] { ht::flatten({x, single}); }, {"[flatten]", "float64", "float32"});
  expect_error([&] { ht::stack({x, single}); }, {"[stack]", "float64", "float32"});
  expect_error([&] { ht::softmax_cross_entropy_gradient(Tensor::scalar(1, Dtype::float32), x, labels); },
               {"[softmax_cross_entropy_gradient]", "float64", "float32"});
  expect_error([&] { ht::gather_labels(x, Tensor::ones({2})); }, {"[gather_labels]", "int64", "float64"});
}

TEST_CASE("operations refuse axes and shapes that do not fit, by name") {
  const Tensor x = Tensor::ones({2, 3}), labels = Tensor::from<std::int64_t>({0, 1});
  for (const std::int64_t axis : {2, -3, 100}) {
    const std::string text = "axis " + std::to_string(axis);
    expect_error([&] { ht::sum(x, {axis}); }, {"[sum]", text, "(2, 3)"});
    expect_error([&] { ht::mean(x, {axis}); }, {text, "(2, 3)"});
    expect_error([&] { ht::slice(x, axis, 0, 1); }, {"[slice]", text, "(2, 3)"});
    expect_error([&] { ht::pad(x, axis, 0, 9); }, {"[pad]", text, "(2, 3)"});
    expect_error([&] { ht::transpose(x, {0, axis}); }, {"[transpose]", text, "(2, 3)"});
  }
  expect_error([&] { ht::mean(x, {5}); }, {"[mean]"});
  expect_error([&] { ht::sum(x, {1, -1}); }, {"[sum]", "twice"});
  expect_error([&] { ht::transpose(x, {1, 1}); }, {"[transpose]", "twice"});
  expect_error([&] { ht::transpose(x, {0}); }, {"[transpose]", "1 axes", "rank 2"});
  expect_error([&] { ht::mean(Tensor::zeros({0, 3})); }, {"[mean]", "empty", "(0, 3)"});
  expect_error([&] { ht::mean(Tensor::zeros({0, 3}), {0}); }, {"[mean]", "empty"});
  CHECK(ht::mean(Tensor::zeros({0, 3}), {1}).shape() == Shape{0});  // no results, each of three elements
  expect_error([&] { ht::sum_to(x, {4}); }, {"[sum_to]", "(2, 3)", "(4)"});
  expect_error([&] { ht::sum_to(x, {1, 2, 3}); }, {"[sum_to]", "(1, 2, 3)"});
  expect_error([&] { ht::expand(x, {2, 4}); }, {"[expand]", "(2, 3)", "(2, 4)"});
  expect_error([&] { ht::expand(x, {3}); }, {"[expand]", "(3)"});
  expect_error([&] { ht::dot(x, Tensor::ones({3, 2})); }, {"[dot]", "(2, 3)", "(3, 2)"});
  expect_error([&] { ht::matmul(x, x); }, {"[matmul]", "(2, 3)", "3", "2"});
  expect_error([&] { ht::matmul(x, Tensor::ones({2})); }, {"[matmul]"});
  expect_error([&] { ht::matmul(x, Tensor::ones({3}), false, true); }, {"[matmul]", "vector"});
  expect_error([&] { ht::matmul(x, Tensor::scalar(1)); }, {"[matmul]", "()"});
  expect_error([&] { ht::matmul(Tensor::ones({1, 2, 3}), x); }, {"[matmul]", "(1, 2, 3)"});
  expect_error([&] { ht::reshape(x, {4}); }, {"[reshape]", "(2, 3)", "(4)"});
  expect_error([&] { ht::reshape(x, {4, -1}); }, {"[reshape]", "(2, 3)"});
  expect_error([&] { ht::reshape(x, {-1, -1}); }, {"negative"});
  expect_error([&] { ht::reshape(Tensor::zeros({0}), {0, -1}); }, {"[reshape]"});
  expect_error([&] { ht::slice(x, 1, 2, 4); }, {"[slice]", "[2, 4)", "(2, 3)"});
  expect_error([&] { ht::slice(x, 1, 2, 1); }, {"[slice]", "[2, 1)"});
  expect_error([&] { ht::slice(x, 1, -1, 2); }, {"[slice]", "[-1, 2)"});
  expect_error([&] { ht::pad(x, 1, 2, 4); }, {"[pad]", "(2, 3)"});
  expect_error([&] { ht::pad(x, 1, -1, 4); }, {"[pad]"});
  expect_error([&] { ht::pad(x, 1, 0, std::numeric_limits<std::int64_t>::min()); }, {"[pad]"});
  expect_error([&] { ht::slice(Tensor::scalar(1), 0, 0, 1); }, {"[slice]", "()"});
  expect_error([&] { ht::unflatten(x, {{6}}); }, {"[unflatten]", "(2, 3)"});
  expect_error([&] { ht::unflatten(Tensor::ones({5}), {{2}, {2}}); }, {"[unflatten]", "4", "5"});
  expect_error([&] { ht::unflatten(Tensor::ones({5}), {{huge}, {huge}}); }, {"[unflatten]", "overflow"});
  expect_error([&] { ht::flatten({x}, {{3, 2}}); }, {"[flatten]", "(2, 3)", "(3, 2)"});
  expect_error([&] { ht::flatten({x}, {}); }, {"[flatten]"});
  expect_error([&] { ht::unstack(Tensor::scalar(1)); }, {"[unstack]"});
  expect_error([&] { ht::stack({x, Tensor::ones({3})}); }, {"[stack]", "(3)", "(2, 3)"});
  expect_error([&] { ht::stack({x, Tensor()}); }, {"[stack]", "absent"});
  expect_error([&] { ht::stack(TensorList{}); }, {"[stack]"});
  expect_error([&] { ht::stack({Tensor::ones({1, 1, 1, 1, 1, 1, 1, 1})}); }, {"rank 9"});
  expect_error([&] { ht::gather_labels(Tensor::ones({2}), labels); }, {"[gather_labels]", "(2)"});
  expect_error([&] { ht::gather_labels(Tensor::ones({3, 2}), labels); }, {"[gather_labels]", "(2)", "(3)"});
  expect_error([&] { ht::scatter_labels(x, labels, 3); }, {"[scatter_labels]", "(2, 3)"});
  expect_error([&] { ht::scatter_labels(Tensor::ones({2}), labels, -1); }, {"negative"});
  expect_error([&] { ht::softmax(Tensor::scalar(1)); }, {"[softmax]"});
  expect_error(
      [&] {
        ht::softmax_cross_entropy(Tensor::ones({0, 3}), Tensor::zeros({0}, Dtype::int64));
      },
      {"[softmax_cross_entropy]", "(0, 3)"});
  expect_error([&] { ht::softmax_cross_entropy_gradient(Tensor::ones({2}), x, labels); },
               {"[softmax_cross_entropy_gradient]", "(2)"});
}

TEST_CASE("has_non_finite finds one bad element in any layout, and only there") {
  const double bad[] = {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                        std::numeric_limits<double>::quiet_NaN()};
  for (const double value : bad)
    for (const std::size_t place : {std::size_t{0}, std::size_t{57}, std::size_t{99}}) {
      std::vector<double> values(100, std::numeric_limits<double>::max());
      values[place] = value;
      const Tensor x = Tensor::from(values, {10, 10});
      const auto column = static_cast<std::int64_t>(place % 10);
      CHECK(ht::has_non_finite(x));
      CHECK(ht::has_non_finite(ht::transpose(x)));
      CHECK(ht::has_non_finite(ht::slice(x, 1, column, column + 1)));
      const std::int64_t other = (column + 1) % 10;
      CHECK_FALSE(ht::has_non_finite(ht::slice(x, 1, other, other + 1)));
    }
  CHECK_FALSE(ht::has_non_finite(Tensor::zeros({0})));
  CHECK(ht::has_non_finite(Tensor::scalar(std::numeric_limits<double>::infinity(), Dtype::float32)));
}

TEST_CASE("tensors, shapes and dtypes print readably") {
  CHECK(printed(Shape{2, 3}) == "(2, 3)");
  CHECK(printed(Shape{}) == "()");
  CHECK(printed(Dtype::boolean) == "boolean");
  CHECK(printed(Tensor()) == "Tensor(absent)");
  CHECK(printed(Tensor::from<std::int64_t>({1, 2})) == "Tensor(int64, (2), [1, 2])");
  CHECK(printed(ht::transpose(Tensor::from({1.0, 2.0, 3.0, 4.0}, {2, 2}))) ==
        "Tensor(float64, (2, 2), [1, 3, 2, 4])");
  CHECK(printed(Tensor::zeros({9})) == "Tensor(float64, (9), [0, 0, 0, 0, 0, 0, 0, 0, ...])");
}
