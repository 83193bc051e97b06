// Shape algebra: random chains of views against a dense row-major model, and an Error exactly where the
// arguments do not fit.
#include <algorithm>
#include <optional>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>
#include <hypertape/core/tensor.h>
#include "fuzzing.h"

namespace {

using fuzzing::Input;
using fuzzing::require;
using hypertape::Error;
using hypertape::Shape;
using hypertape::Tensor;
using Extents = std::vector<std::int64_t>;

// A tensor and what it must hold.
struct Model {
  Extents shape;
  std::vector<double> values;
};

std::int64_t count(const Extents& shape) {
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  return size;
}

// The model of shape `shape` whose element at `index` is value(index).
template <class Value>
Model build(const Extents& shape, const Value& value) {
  Model result{shape, {}};
  Extents index(shape.size(), 0);
  for (std::int64_t n = count(shape); n > 0; --n) {
    result.values.push_back(value(index));
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      if (++index[axis] < shape[axis]) break;
      index[axis] = 0;
    }
  }
  return result;
}

double at(const Model& model, const Extents& index) {
  std::int64_t place = 0;
  for (std::size_t axis = 0; axis < index.size(); ++axis) place = place * model.shape[axis] + index[axis];
  return model.values[static_cast<std::size_t>(place)];
}

Shape shape_of(const Extents& extents) { return Shape(std::span<const std::int64_t>(extents)); }

Extents small_shape(Input& input) {
  Extents extents(static_cast<std::size_t>(input.up_to(4)));
  for (std::int64_t& extent : extents) extent = input.up_to(4);
  return extents;
}

std::optional<std::size_t> model_axis(std::int64_t axis, std::size_t rank) {
  const auto size = static_cast<std::int64_t>(rank);
  if (axis < -size || axis >= size) return std::nullopt;
  return static_cast<std::size_t>(axis < 0 ? axis + size : axis);
}

// The model's answer is absent where the arguments do not fit; the library must then throw, and only then.
template <class Call>
void step(Tensor& x, Model& model, const std::optional<Model>& expected, const Call& call) {
  Tensor result;
  try {
    result = call();
  } catch (const Error&) {
    require(!expected, "an operation is refused only where its arguments do not fit");
    return;
  }
  require(expected.has_value(), "arguments that do not fit are refused");
  require(result.shape() == shape_of(expected->shape), "the result has the model's shape");
  require(result.to_vector<double>() == expected->values, "the result has the model's elements");
  if (expected->values.size() <= 4096) {
    x = result;
    model = *expected;
  }
}

void apply(Input& input, Tensor& x, Model& model) {
  const std::size_t rank = model.shape.size();
  switch (input.up_to(6)) {
    case 0: {  // transpose by any axes
      std::vector<std::int64_t> axes(rank + (input.byte() == 0 ? 1 : 0));
      for (std::int64_t& axis : axes) axis = input.up_to(4) - (input.byte() > 250 ? 5 : 0);
      std::vector<std::size_t> places;
      bool valid = axes.size() == rank;
      for (const std::int64_t axis : axes) {
        const std::optional<std::size_t> place = model_axis(axis, rank);
        valid = valid && place && std::find(places.begin(), places.end(), *place) == places.end();
        places.push_back(place.value_or(0));
      }
      std::optional<Model> expected;
      if (valid) {
        Extents shape;
        for (const std::size_t place : places) shape.push_back(model.shape[place]);
        expected = build(shape, [&](const Extents& index) {
          Extents source(rank);
          for (std::size_t k = 0; k < rank; ++k) source[places[k]] = index[k];
          return at(model, source);
        });
      }
      step(x, model, expected, [&] { return hypertape::transpose(x, axes); });
      break;
    }
    case 1: {  // slice
      const std::int64_t axis = input.up_to(9) - 5, start = input.up_to(6) - 1, stop = input.up_to(6) - 1;
      const std::optional<std::size_t> place = model_axis(axis, rank);
      std::optional<Model> expected;
      if (place && 0 <= start && start <= stop && stop <= model.shape[*place]) {
        Extents shape = model.shape;
        shape[*place] = stop - start;
        expected = build(shape, [&](Extents index) {
          index[*place] += start;
          return at(model, index);
        });
      }
      step(x, model, expected, [&] { return hypertape::slice(x, axis, start, stop); });
      break;
    }
    case 2: {  // pad
      const std::int64_t axis = input.up_to(9) - 5, start = input.up_to(6) - 1, extent = input.up_to(9) - 1;
      const std::optional<std::size_t> place = model_axis(axis, rank);
      std::optional<Model> expected;
      if (place && start >= 0 && start + model.shape[*place] <= extent) {
        Extents shape = model.shape;
        shape[*place] = extent;
        expected = build(shape, [&](Extents index) {
          index[*place] -= start;
          return index[*place] >= 0 && index[*place] < model.shape[*place] ? at(model, index) : 0.0;
        });
      }
      step(x, model, expected, [&] { return hypertape::pad(x, axis, start, extent); });
      break;
    }
    case 3: {  // reshape
      const Extents shape = small_shape(input);
      std::optional<Model> expected;
      if (count(shape) == count(model.shape)) expected = Model{shape, model.values};
      step(x, model, expected, [&] { return hypertape::reshape(x, shape_of(shape)); });
      break;
    }
    case 4: {  // expand
      const Extents shape = small_shape(input);
      bool valid = shape.size() >= rank;
      for (std::size_t k = 0; valid && k < rank; ++k) {
        const std::int64_t wide = shape[shape.size() - rank + k];
        valid = model.shape[k] == wide || model.shape[k] == 1;
      }
      std::optional<Model> expected;
      if (valid)
        expected = build(shape, [&](const Extents& index) {
          Extents source(index.end() - static_cast<std::ptrdiff_t>(rank), index.end());
          for (std::size_t k = 0; k < rank; ++k)
            if (model.shape[k] == 1) source[k] = 0;
          return at(model, source);
        });
      step(x, model, expected, [&] { return hypertape::expand(x, shape_of(shape)); });
      break;
    }
    case 5: {  // contiguous: the same, and readable in place
      step(x, model, model, [&] { return hypertape::contiguous(x); });
      require(hypertape::contiguous(x).is_contiguous(), "contiguous tensors are");
      break;
    }
    case 6: {  // add a tensor that may broadcast; whole numbers, so that sums are exact
      const Extents other = small_shape(input);
      const Tensor ones = Tensor::ones(shape_of(other));
      Extents shape(std::max(rank, other.size()), 1);
      bool valid = true;
      for (std::size_t k = 0; k < shape.size(); ++k) {  // from the back
        const std::int64_t a = k < rank ? model.shape[rank - 1 - k] : 1;
        const std::int64_t b = k < other.size() ? other[other.size() - 1 - k] : 1;
        valid = valid && (a == b || a == 1 || b == 1);
        shape[shape.size() - 1 - k] = a == 1 ? b : a;
      }
      std::optional<Model> expected;
      if (valid)
        expected = build(shape, [&](const Extents& index) {
          Extents source(index.end() - static_cast<std::ptrdiff_t>(rank), index.end());
          for (std::size_t k = 0; k < rank; ++k)
            if (model.shape[k] == 1) source[k] = 0;
          return at(model, source) + 1.0;
        });
      step(x, model, expected, [&] { return hypertape::add(x, ones); });
      break;
    }
  }
}

// Extents of any size: nothing may overflow on the way to the error.
void any_extents(Input& input) {
  Extents extents(static_cast<std::size_t>(input.up_to(10)));
  for (std::int64_t& extent : extents) extent = input.byte() & 1 ? input.any() : input.small();
  // Products of the positive extents, as the strides of an empty shape need them too.
  __int128 product = 1;
  bool valid = extents.size() <= hypertape::max_rank;
  for (const std::int64_t extent : extents) {
    valid = valid && extent >= 0;
    if (valid && extent > 0) product *= extent;
    valid = valid && product <= INT64_MAX;
  }
  std::optional<Shape> shape;
  try {
    shape = shape_of(extents);
  } catch (const Error&) {
  }
  require(shape.has_value() == valid, "a shape is made exactly if its extents and their product fit");
  if (!shape) return;
  require(shape->rank() == static_cast<int>(extents.size()), "a shape has the rank it was given");
  const std::int64_t axis = input.small();
  const std::optional<std::size_t> place = model_axis(axis, extents.size());
  try {
    require(hypertape::normalize_axis("fuzz", axis, *shape) == static_cast<int>(place.value_or(99)),
            "axes count from either end");
  } catch (const Error&) {
    require(!place, "an axis is refused only out of range");
  }
  try {
    const Shape both = hypertape::broadcast_shapes("fuzz", *shape, Shape{2, 1, 3});
    require(both == hypertape::broadcast_shapes("fuzz", Shape{2, 1, 3}, *shape), "broadcasting is symmetric");
    require(hypertape::broadcast_shapes("fuzz", both, *shape) == both, "broadcasting is idempotent");
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  if (input.byte() & 1) {
    any_extents(input);
    return 0;
  }
  const Extents shape = small_shape(input);
  double next = 0.0;
  Model model = build(shape, [&](const Extents&) { return next++; });
  Tensor x = Tensor::from(model.values, shape_of(shape));
  for (int k = 0; k < 16 && !input.empty(); ++k) apply(input, x, model);
  return 0;
}
