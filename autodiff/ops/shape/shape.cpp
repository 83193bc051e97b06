// Other shapes over the same elements: views wherever the layout allows.
#include <algorithm>
#include <array>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/ops/shape/views.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

struct ReshapeAttributes {
  Shape input, output;
};
constexpr OpRule reshape_rule =
    moving({"reshape",
            [](Pull& pull) {
              pull.gradients[0] = reshape(pull.cotangent(), pull.attributes<ReshapeAttributes>().input);
            },
            [](Push& push) {
              push.results[0] = reshape(push.tangents[0], push.attributes<ReshapeAttributes>().output);
            },
            nullptr, nullptr, true,
            [](Push& push) {
              const Shape shape = stacked_shape(push.block, push.attributes<ReshapeAttributes>().output);
              push.results[0] = reshape(push.tangents[0], shape);
            }});

constexpr OpRule contiguous_rule =
    moving({"contiguous", [](Pull& pull) { pull.gradients[0] = std::move(pull.cotangents[0]); },
            [](Push& push) { push.results[0] = contiguous(push.tangents[0]); }, nullptr, nullptr, true});

struct PermuteAttributes {
  std::array<std::int8_t, max_rank> axes;
  int rank;
};
std::vector<std::int64_t> axes_of(const PermuteAttributes& at) {
  return {at.axes.begin(), at.axes.begin() + at.rank};
}
constexpr OpRule permute_rule =
    moving({"permute",
            [](Pull& pull) {
              const auto& at = pull.attributes<PermuteAttributes>();
              std::vector<std::int64_t> inverse(static_cast<std::size_t>(at.rank));
              for (int k = 0; k < at.rank; ++k)
                inverse[static_cast<std::size_t>(at.axes[static_cast<std::size_t>(k)])] = k;
              pull.gradients[0] = permute(pull.cotangent(), inverse);
            },
            [](Push& push) {
              push.results[0] = permute(push.tangents[0], axes_of(push.attributes<PermuteAttributes>()));
            },
            nullptr, nullptr, true,
            [](Push& push) {
              std::vector<std::int64_t> axes{0};
              for (const std::int64_t axis : axes_of(push.attributes<PermuteAttributes>()))
                axes.push_back(axis + 1);
              push.results[0] = permute(push.tangents[0], axes);
            }});

struct ExpandAttributes {
  Shape input, output;
};
constexpr OpRule expand_rule = moving(
    {"expand",
     [](Pull& pull) {
       pull.gradients[0] = sum_to(pull.cotangent(), pull.attributes<ExpandAttributes>().input);
     },
     [](Push& push) {
       push.results[0] = expand(push.tangents[0], push.attributes<ExpandAttributes>().output);
     },
     nullptr, nullptr, true,
     [](Push& push) {
       const auto& at = push.attributes<ExpandAttributes>();
       std::vector<std::int64_t> aligned(static_cast<std::size_t>(at.output.rank() - at.input.rank()), 1);
       aligned.insert(aligned.end(), at.input.begin(), at.input.end());
       const Shape each(std::span<const std::int64_t>{aligned});
       push.results[0] = expand(reshape(push.tangents[0], stacked_shape(push.block, each)),
                                stacked_shape(push.block, at.output));
     }});

Tensor permuted(const char* op, const Tensor& x, const std::vector<std::int64_t>& axes) {
  const Header& header = header_of(op, x);
  const Shape from = x.shape();
  if (axes.size() != static_cast<std::size_t>(from.rank()))
    fail(op, axes.size(), " axes given for shape ", from, " of rank ", from.rank());
  PermuteAttributes at{{}, from.rank()};
  std::array<bool, max_rank> seen{};
  std::array<std::int64_t, max_rank> extents{};
  Strides strides{};
  for (std::size_t k = 0; k < axes.size(); ++k) {
    const int axis = normalize_axis(op, axes[k], from);
    if (seen[static_cast<std::size_t>(axis)]) fail(op, "axis ", axis, " is named twice for shape ", from);
    seen[static_cast<std::size_t>(axis)] = true;
    at.axes[k] = static_cast<std::int8_t>(axis);
    extents[k] = from[axis];
    strides[k] = header.strides()[axis];
  }
  const Shape to(std::span<const std::int64_t>(extents.data(), axes.size()));
  return finish_one(permute_rule, {}, at, make_view(x, to, strides.data(), 0), x);
}

// `count` copies of each run of `run` elements, one after another; the result has `shape`.
Tensor repeat_runs(const Tensor& x, std::int64_t runs, std::int64_t run, std::int64_t count,
                   const Shape& shape) {
  return reshape(expand(reshape(x, Shape{runs, 1, run}), Shape{runs, count, run}), shape);
}

std::int64_t product_of(std::span<const std::int64_t> extents) { return Shape(extents).size(); }

std::int64_t checked_extent(const char* op, std::int64_t count, std::int64_t extent) {
  std::int64_t total = 0;
  if (count < 0) fail(op, "count ", count, " is negative");
  if (__builtin_mul_overflow(count, extent, &total)) fail(op, count, " times ", extent, " overflows");
  return total;
}

// Whether `shape`, of as many elements, can be read from x's memory in x's row-major order; if so, how.
bool find_view(const Tensor& x, const Shape& shape, Strides& strides) {
  const Header& header = *x.header();
  // Runs of x's axes that lie as one, innermost first; axes of `shape` must cut them evenly.
  struct Run {
    std::int64_t extent, stride;
  };
  std::array<Run, max_rank> runs{};
  std::size_t count = 0;
  for (int axis = header.rank - 1; axis >= 0; --axis) {
    const std::int64_t extent = header.extents()[axis], stride = header.strides()[axis];
    if (extent == 1) continue;
    if (count > 0 && stride == runs[count - 1].stride * runs[count - 1].extent)
      runs[count - 1].extent *= extent;
    else
      runs[count++] = {extent, stride};
  }
  std::size_t current = 0;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    const std::int64_t extent = shape[axis];
    strides[static_cast<std::size_t>(axis)] = 1;
    if (extent == 1) continue;
    if (current < count && runs[current].extent == 1) ++current;
    if (current == count || extent == 0 || runs[current].extent % extent != 0) return false;
    strides[static_cast<std::size_t>(axis)] = runs[current].stride;
    runs[current].stride *= extent;
    runs[current].extent /= extent;
  }
  return true;
}

}  // namespace
}  // namespace detail

using detail::finish_one;

Tensor reshape(const Tensor& x, const Shape& shape) {
  const detail::Header& header = detail::header_of("reshape", x);
  const Shape from = x.shape();
  if (from == shape) return x;
  if (shape.size() != header.size)
    fail("reshape", "shape ", from, " has ", header.size, " elements, ", shape, " has ", shape.size());
  detail::Strides strides{};
  Tensor view;
  if (!header.contiguous && detail::find_view(x, shape, strides))
    view = detail::make_view(x, shape, strides.data(), 0);
  else
    view = detail::make_view(detail::make_contiguous(x), shape, nullptr, 0);
  return finish_one(detail::reshape_rule, {}, detail::ReshapeAttributes{from, shape}, std::move(view), x);
}

Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> extents) {
  detail::header_of("reshape", x);
  std::vector<std::int64_t> resolved(extents);
  const auto wild = std::find(resolved.begin(), resolved.end(), -1);
  if (wild != resolved.end()) {
    *wild = 1;
    const std::int64_t rest = detail::shape_of("reshape", resolved).size();
    if (rest == 0 || x.size() % rest != 0)
      fail("reshape", "the ", x.size(), " elements of shape ", x.shape(), " do not divide into parts of ",
           rest);
    *wild = x.size() / rest;
  }
  return reshape(x, detail::shape_of("reshape", resolved));
}

Tensor squeeze(const Tensor& x, const std::vector<std::int64_t>& axes) {
  detail::header_of("squeeze", x);
  const Shape from = x.shape();
  std::array<bool, max_rank> gone{};
  for (const std::int64_t axis : axes) {
    const int a = normalize_axis("squeeze", axis, from);
    if (from[a] != 1) fail("squeeze", "axis ", a, " of shape ", from, " has extent ", from[a], ", not 1");
    if (gone[static_cast<std::size_t>(a)]) fail("squeeze", "axis ", axis, " is named twice for shape ", from);
    gone[static_cast<std::size_t>(a)] = true;
  }
  std::vector<std::int64_t> extents;
  for (int axis = 0; axis < from.rank(); ++axis)
    if (!gone[static_cast<std::size_t>(axis)]) extents.push_back(from[axis]);
  return reshape(x, Shape(std::span<const std::int64_t>(extents)));
}

Tensor squeeze(const Tensor& x) {
  detail::header_of("squeeze", x);
  std::vector<std::int64_t> extents;
  for (const std::int64_t extent : x.shape())
    if (extent != 1) extents.push_back(extent);
  return reshape(x, Shape(std::span<const std::int64_t>(extents)));
}

Tensor unsqueeze(const Tensor& x, std::int64_t axis) {
  detail::header_of("unsqueeze", x);
  const Shape from = x.shape();
  const std::int64_t place = axis < 0 ? axis + from.rank() + 1 : axis;
  if (place < 0 || place > from.rank())
    fail("unsqueeze", "place ", axis, " is out of range for shape ", from, ", which has ", from.rank() + 1,
         " places");
  std::vector<std::int64_t> extents(from.begin(), from.end());
  extents.insert(extents.begin() + place, 1);
  return reshape(x, detail::shape_of("unsqueeze", extents));
}

Tensor contiguous(const Tensor& x) {
  if (detail::header_of("contiguous", x).contiguous) return x;
  return finish_one(detail::contiguous_rule, {}, detail::NoAttributes{}, detail::make_contiguous(x), x);
}

Tensor permute(const Tensor& x, const std::vector<std::int64_t>& axes) {
  return detail::permuted("permute", x, axes);
}

Tensor transpose(const Tensor& x, const std::vector<std::int64_t>& axes) {
  return detail::permuted("transpose", x, axes);
}

Tensor transpose(const Tensor& x) {
  std::vector<std::int64_t> axes;
  for (int axis = detail::header_of("transpose", x).rank - 1; axis >= 0; --axis) axes.push_back(axis);
  return detail::permuted("transpose", x, axes);
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

Tensor repeat(const Tensor& x, std::int64_t count, std::int64_t axis) {
  detail::header_of("repeat", x);
  const Shape from = x.shape();
  const int a = normalize_axis("repeat", axis, from);
  const Shape to = detail::with_extent("repeat", from, a, detail::checked_extent("repeat", count, from[a]));
  if (count == 1) return x;
  const auto split = static_cast<std::size_t>(a) + 1;
  return detail::repeat_runs(x, detail::product_of(from.extents().first(split)),
                             detail::product_of(from.extents().subspan(split)), count, to);
}

Tensor tile(const Tensor& x, const std::vector<std::int64_t>& counts) {
  detail::header_of("tile", x);
  if (counts.size() != static_cast<std::size_t>(x.rank()))
    fail("tile", counts.size(), " counts given for shape ", x.shape(), " of rank ", x.rank());
  Shape to = x.shape();
  for (int axis = 0; axis < to.rank(); ++axis)
    to = detail::with_extent(
        "tile", to, axis, detail::checked_extent("tile", counts[static_cast<std::size_t>(axis)], to[axis]));
  Tensor result = x;
  for (int axis = to.rank() - 1; axis >= 0; --axis) {
    const std::int64_t count = counts[static_cast<std::size_t>(axis)];
    if (count == 1) continue;
    const Shape from = result.shape();
    const auto split = static_cast<std::size_t>(axis);
    result = detail::repeat_runs(result, detail::product_of(from.extents().first(split)),
                                 detail::product_of(from.extents().subspan(split)), count,
                                 from.with(axis, to[axis]));
  }
  return result;
}

}  // namespace hypertape
