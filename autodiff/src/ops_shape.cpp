#include <algorithm>
#include <array>

#include "checks.h"
#include "hypertape/autodiff/ops.h"
#include "node.h"

namespace hypertape {
namespace detail {
namespace {

using Strides = std::array<std::int64_t, max_rank>;

struct ReshapeAttributes {
  Shape input, output;
};
constexpr OpRule reshape_rule = {
    "reshape",
    [](Pull& pull) {
      pull.gradients[0] = reshape(pull.cotangent(), pull.attributes<ReshapeAttributes>().input);
    },
    [](Push& push) {
      push.results[0] = reshape(push.tangents[0], push.attributes<ReshapeAttributes>().output);
    }};

constexpr OpRule contiguous_rule = {"contiguous",
                                    [](Pull& pull) { pull.gradients[0] = std::move(pull.cotangents[0]); },
                                    [](Push& push) { push.results[0] = contiguous(push.tangents[0]); }};

struct TransposeAttributes {
  std::array<std::int64_t, max_rank> axes;
  int rank;
};
std::vector<std::int64_t> axes_of(const TransposeAttributes& at) {
  return {at.axes.begin(), at.axes.begin() + at.rank};
}
constexpr OpRule transpose_rule = {
    "transpose",
    [](Pull& pull) {
      const auto& at = pull.attributes<TransposeAttributes>();
      std::vector<std::int64_t> inverse(static_cast<std::size_t>(at.rank));
      for (int k = 0; k < at.rank; ++k)
        inverse[static_cast<std::size_t>(at.axes[static_cast<std::size_t>(k)])] = k;
      pull.gradients[0] = transpose(pull.cotangent(), inverse);
    },
    [](Push& push) {
      push.results[0] = transpose(push.tangents[0], axes_of(push.attributes<TransposeAttributes>()));
    }};

struct ExpandAttributes {
  Shape input, output;
};
constexpr OpRule expand_rule = {
    "expand",
    [](Pull& pull) {
      pull.gradients[0] = sum_to(pull.cotangent(), pull.attributes<ExpandAttributes>().input);
    },
    [](Push& push) {
      push.results[0] = expand(push.tangents[0], push.attributes<ExpandAttributes>().output);
    }};

struct SliceAttributes {
  int axis;
  std::int64_t start, stop, extent;
};
constexpr OpRule slice_rule = {"slice",
                               [](Pull& pull) {
                                 const auto& at = pull.attributes<SliceAttributes>();
                                 pull.gradients[0] = pad(pull.cotangent(), at.axis, at.start, at.extent);
                               },
                               [](Push& push) {
                                 const auto& at = push.attributes<SliceAttributes>();
                                 push.results[0] = slice(push.tangents[0], at.axis, at.start, at.stop);
                               }};
constexpr OpRule pad_rule = {"pad",
                             [](Pull& pull) {
                               const auto& at = pull.attributes<SliceAttributes>();
                               pull.gradients[0] = slice(pull.cotangent(), at.axis, at.start, at.stop);
                             },
                             [](Push& push) {
                               const auto& at = push.attributes<SliceAttributes>();
                               push.results[0] = pad(push.tangents[0], at.axis, at.start, at.extent);
                             }};

}  // namespace
}  // namespace detail

using detail::finish_one;

Tensor reshape(const Tensor& x, const Shape& shape) {
  const detail::Header& header = detail::header_of("reshape", x);
  const Shape from = x.shape();
  if (from == shape) return x;
  if (shape.size() != header.size)
    fail("reshape", "shape ", from, " has ", header.size, " elements, ", shape, " has ", shape.size());
  const Tensor row_major = detail::make_contiguous(x);
  return finish_one(detail::reshape_rule, {}, detail::ReshapeAttributes{from, shape},
                    detail::make_view(row_major, shape, nullptr, 0), x);
}

Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> extents) {
  detail::header_of("reshape", x);
  std::vector<std::int64_t> resolved(extents);
  const auto wild = std::find(resolved.begin(), resolved.end(), -1);
  if (wild != resolved.end()) {
    *wild = 1;
    const std::int64_t rest = Shape(std::span<const std::int64_t>(resolved)).size();
    if (rest == 0 || x.size() % rest != 0)
      fail("reshape", "the ", x.size(), " elements of shape ", x.shape(), " do not divide into parts of ",
           rest);
    *wild = x.size() / rest;
  }
  return reshape(x, Shape(std::span<const std::int64_t>(resolved)));
}

Tensor contiguous(const Tensor& x) {
  if (detail::header_of("contiguous", x).contiguous) return x;
  return finish_one(detail::contiguous_rule, {}, detail::NoAttributes{}, detail::make_contiguous(x), x);
}

Tensor transpose(const Tensor& x, const std::vector<std::int64_t>& axes) {
  const detail::Header& header = detail::header_of("transpose", x);
  const Shape from = x.shape();
  if (axes.size() != static_cast<std::size_t>(from.rank()))
    fail("transpose", axes.size(), " axes given for shape ", from, " of rank ", from.rank());
  detail::TransposeAttributes at{{}, from.rank()};
  std::array<bool, max_rank> seen{};
  std::array<std::int64_t, max_rank> extents{};
  detail::Strides strides{};
  for (std::size_t k = 0; k < axes.size(); ++k) {
    const int axis = normalize_axis("transpose", axes[k], from);
    if (seen[static_cast<std::size_t>(axis)])
      fail("transpose", "axis ", axis, " is named twice for shape ", from);
    seen[static_cast<std::size_t>(axis)] = true;
    at.axes[k] = axis;
    extents[k] = from[axis];
    strides[k] = header.strides()[axis];
  }
  const Shape to(std::span<const std::int64_t>(extents.data(), axes.size()));
  return finish_one(detail::transpose_rule, {}, at, detail::make_view(x, to, strides.data(), 0), x);
}

Tensor transpose(const Tensor& x) {
  std::vector<std::int64_t> axes;
  for (int axis = detail::header_of("transpose", x).rank - 1; axis >= 0; --axis) axes.push_back(axis);
  return transpose(x, axes);
}

Tensor expand(const Tensor& x, const Shape& shape) {
  const detail::Header& header = detail::header_of("expand", x);
  const Shape from = x.shape();
  if (from == shape) return x;
  const int missing = shape.rank() - from.rank();
  detail::Strides strides{};
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const std::int64_t extent = axis < missing ? 1 : from[axis - missing];
    if (missing < 0 || (extent != 1 && extent != shape[axis]))
      fail("expand", "shape ", from, " does not broadcast to ", shape);
    if (extent != 1) strides[static_cast<std::size_t>(axis)] = header.strides()[axis - missing];
  }
  if (missing < 0) fail("expand", "shape ", from, " does not broadcast to ", shape);
  return finish_one(detail::expand_rule, {}, detail::ExpandAttributes{from, shape},
                    detail::make_view(x, shape, strides.data(), 0), x);
}

Tensor slice(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t stop) {
  const detail::Header& header = detail::header_of("slice", x);
  const Shape from = x.shape();
  const int a = normalize_axis("slice", axis, from);
  if (start < 0 || start > stop || stop > from[a])
    fail("slice", "[", start, ", ", stop, ") is not within the ", from[a], " elements of axis ", a,
         " of shape ", from);
  detail::Strides strides{};
  std::copy_n(header.strides(), header.rank, strides.begin());
  return finish_one(
      detail::slice_rule, {}, detail::SliceAttributes{a, start, stop, from[a]},
      detail::make_view(x, from.with(a, stop - start), strides.data(), start * header.strides()[a]), x);
}

Tensor pad(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t extent) {
  const detail::Header& header = detail::header_of("pad", x);
  const Shape from = x.shape();
  const int a = normalize_axis("pad", axis, from);
  if (start < 0 || extent < from[a] || start > extent - from[a])
    fail("pad", "axis ", a, " of shape ", from, " does not fit at ", start, " into ", extent, " elements");
  Tensor result = Tensor::zeros(from.with(a, extent), header.dtype);
  detail::Strides strides{};
  std::copy_n(result.header()->strides(), header.rank, strides.begin());
  const Tensor inside =
      detail::make_view(result, from, strides.data(), start * strides[static_cast<std::size_t>(a)]);
  detail::backend_of(x).copy(detail::view_of(x), detail::view_of(inside));
  return finish_one(detail::pad_rule, {}, detail::SliceAttributes{a, start, start + from[a], extent},
                    std::move(result), x);
}

}  // namespace hypertape
