// Parts of an axis, and parts put back in their place: slice, pad, flip, roll.
#include <algorithm>
#include <array>
#include <limits>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/ops/shape/views.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

// `count` elements start, start + step, ... of an axis that is `extent` long.
struct SliceAttributes {
  int axis;
  std::int64_t start, step, count, extent;
};

// Those elements as a view.
Tensor view_of_part(const Tensor& x, const SliceAttributes& at) {
  const Header& header = *x.header();
  Strides strides = strides_of(header);
  const std::int64_t stride = header.strides()[at.axis];
  if (at.count > 1) strides[static_cast<std::size_t>(at.axis)] = stride * at.step;
  return make_view(x, x.shape().with(at.axis, at.count), strides.data(),
                   at.count > 0 ? at.start * stride : 0);
}

Tensor take_part(const Tensor& x, const SliceAttributes& at);
Tensor place_part(const Tensor& x, const SliceAttributes& at);

constexpr OpRule slice_rule = selecting(
    {"slice",
     [](Pull& pull) { pull.gradients[0] = place_part(pull.cotangent(), pull.attributes<SliceAttributes>()); },
     [](Push& push) { push.results[0] = take_part(push.tangents[0], push.attributes<SliceAttributes>()); }});
constexpr OpRule pad_rule = placing(
    {"pad",
     [](Pull& pull) { pull.gradients[0] = take_part(pull.cotangent(), pull.attributes<SliceAttributes>()); },
     [](Push& push) { push.results[0] = place_part(push.tangents[0], push.attributes<SliceAttributes>()); }});

Tensor take_part(const Tensor& x, const SliceAttributes& at) {
  return finish_one(slice_rule, {}, at, view_of_part(x, at), x);
}

Tensor place_part(const Tensor& x, const SliceAttributes& at) {
  Tensor result = Tensor::zeros(x.shape().with(at.axis, at.extent), x.header()->dtype);
  backend_of(x)->copy(view_of(x), view_of(view_of_part(result, at)));
  return finish_one(pad_rule, {}, at, std::move(result), x);
}

struct MarginsAttributes {
  Margins margins;
};
constexpr OpRule pad_margins_rule = placing(
    {"pad",
     [](Pull& pull) {
       const Margins& margins = pull.attributes<MarginsAttributes>().margins;
       Tensor inside = pull.cotangent();
       for (std::size_t axis = 0; axis < margins.size(); ++axis) {
         const auto [before, after] = margins[axis];
         const auto a = static_cast<std::int64_t>(axis);
         if (before != 0 || after != 0) inside = slice(inside, a, before, inside.extent(a) - after);
       }
       pull.gradients[0] = std::move(inside);
     },
     [](Push& push) {
       push.results[0] = pad(push.tangents[0], push.attributes<MarginsAttributes>().margins);
     },
     [](void* attributes) noexcept { std::destroy_at(static_cast<MarginsAttributes*>(attributes)); }});

struct FlipAttributes {
  unsigned axes;  // bits
};

// Its own adjoint.
Tensor flip_axes(const Tensor& x, const FlipAttributes& at);
constexpr OpRule flip_rule = moving(
    {"flip",
     [](Pull& pull) { pull.gradients[0] = flip_axes(pull.cotangent(), pull.attributes<FlipAttributes>()); },
     [](Push& push) { push.results[0] = flip_axes(push.tangents[0], push.attributes<FlipAttributes>()); }});

Tensor flip_axes(const Tensor& x, const FlipAttributes& at) {
  const Header& header = *x.header();
  Strides strides = strides_of(header);
  std::int64_t offset = 0;
  for (int axis = 0; axis < header.rank; ++axis) {
    if (!(at.axes >> axis & 1u)) continue;
    std::int64_t& stride = strides[static_cast<std::size_t>(axis)];
    if (header.size > 0) offset += (header.extents()[axis] - 1) * stride;
    stride = -stride;
  }
  return finish_one(flip_rule, {}, at, make_view(x, x.shape(), strides.data(), offset), x);
}

struct RollAttributes {
  int axis;
  std::int64_t shift;
};
Tensor roll_axis(const Tensor& x, int axis, std::int64_t shift);
constexpr OpRule roll_rule = moving({"roll",
                                     [](Pull& pull) {
                                       const auto& at = pull.attributes<RollAttributes>();
                                       const std::int64_t extent = pull.cotangent().extent(at.axis);
                                       pull.gradients[0] =
                                           roll_axis(pull.cotangent(), at.axis, extent - at.shift);
                                     },
                                     [](Push& push) {
                                       const auto& at = push.attributes<RollAttributes>();
                                       push.results[0] = roll_axis(push.tangents[0], at.axis, at.shift);
                                     }});

// 0 < shift < extent.
Tensor roll_axis(const Tensor& x, int axis, std::int64_t shift) {
  const Header& header = *x.header();
  Tensor result = make_like(header);
  const std::int64_t extent = header.extents()[axis], kept = extent - shift;
  const auto move = [&](std::int64_t from, std::int64_t to, std::int64_t count) {
    backend_of(x)->copy(view_of(view_of_part(x, {axis, from, 1, count, extent})),
                        view_of(view_of_part(result, {axis, to, 1, count, extent})));
  };
  move(0, shift, kept);
  move(kept, 0, shift);
  return finish_one(roll_rule, {}, RollAttributes{axis, shift}, std::move(result), x);
}

}  // namespace
}  // namespace detail

Tensor slice(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t stop, std::int64_t step) {
  detail::header_of("slice", x);
  const Shape from = x.shape();
  const int a = normalize_axis("slice", axis, from);
  const std::int64_t extent = from[a];
  if (step == 0) fail("slice", "a step of 0 does not move along axis ", a, " of shape ", from);
  if (step > 0 && (start < 0 || start > stop || stop > extent))
    fail("slice", "[", start, ", ", stop, ") is not within the ", extent, " elements of axis ", a,
         " of shape ", from);
  if (step < 0 && (stop < -1 || stop > start || start >= extent))
    fail("slice", "going back from ", start, " to above ", stop, " is not within the ", extent,
         " elements of axis ", a, " of shape ", from);
  // -(smallest int64) does not exist; no axis is long enough for the difference to matter.
  const std::int64_t stride = step > 0 ? step : -std::max(step, -std::numeric_limits<std::int64_t>::max());
  const std::int64_t span = step > 0 ? stop - start : start - stop;
  const std::int64_t count = span == 0 ? 0 : (span - 1) / stride + 1;
  return detail::take_part(x, {a, start, step, count, extent});
}

Tensor pad(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t extent, std::int64_t step) {
  detail::header_of("pad", x);
  const Shape from = x.shape();
  const int a = normalize_axis("pad", axis, from);
  const std::int64_t count = from[a];
  if (step == 0) fail("pad", "a step of 0 does not move along axis ", a, " of shape ", from);
  std::int64_t last = start;
  bool fits = extent >= 0;
  if (count == 0)
    fits = fits && (step > 0 ? start >= 0 && start <= extent : start >= -1 && start < extent);
  else
    fits = fits && !__builtin_mul_overflow(count - 1, step, &last) &&
           !__builtin_add_overflow(last, start, &last) && start >= 0 && start < extent && last >= 0 &&
           last < extent;
  if (!fits)
    fail("pad", "axis ", a, " of shape ", from, " does not fit at ", start, " into ", extent,
         " elements in steps of ", step);
  detail::with_extent("pad", from, a, extent);
  return detail::place_part(x, {a, start, step, count, extent});
}

Tensor pad(const Tensor& x, const Margins& margins) {
  const detail::Header& header = detail::header_of("pad", x);
  const Shape from = x.shape();
  if (margins.size() != static_cast<std::size_t>(from.rank()))
    fail("pad", margins.size(), " pairs of margins given for shape ", from, " of rank ", from.rank());
  Shape to = from;
  for (std::size_t axis = 0; axis < margins.size(); ++axis) {
    const auto [before, after] = margins[axis];
    std::int64_t extent = from[static_cast<int>(axis)];
    if (before < 0 || after < 0)
      fail("pad", "margins ", before, " and ", after, " of axis ", axis, " of shape ", from,
           " must not be negative; use slice to cut");
    if (__builtin_add_overflow(extent, before, &extent) || __builtin_add_overflow(extent, after, &extent))
      fail("pad", "margins ", before, " and ", after, " of axis ", axis, " of shape ", from, " overflow");
    to = detail::with_extent("pad", to, static_cast<int>(axis), extent);
  }
  Tensor result = Tensor::zeros(to, header.dtype);
  const detail::Strides strides = detail::strides_of(*result.header());
  std::int64_t offset = 0;
  for (std::size_t axis = 0; axis < margins.size() && header.size > 0; ++axis)
    offset += margins[axis].first * strides[axis];
  const Tensor inside = detail::make_view(result, from, strides.data(), offset);
  detail::backend_of(x)->copy(detail::view_of(x), detail::view_of(inside));
  if (!detail::links_of(x).any()) return result;
  return detail::finish_one(detail::pad_margins_rule, {}, detail::MarginsAttributes{margins},
                            std::move(result), x);
}

Tensor flip(const Tensor& x, const std::vector<std::int64_t>& axes) {
  detail::header_of("flip", x);
  const Shape from = x.shape();
  detail::FlipAttributes at{0};
  for (const std::int64_t axis : axes) {
    const unsigned bit = 1u << normalize_axis("flip", axis, from);
    if (at.axes & bit) fail("flip", "axis ", axis, " is named twice for shape ", from);
    at.axes |= bit;
  }
  return detail::flip_axes(x, at);
}

Tensor roll(const Tensor& x, std::int64_t shift, std::int64_t axis) {
  detail::header_of("roll", x);
  const Shape from = x.shape();
  const int a = normalize_axis("roll", axis, from);
  if (from.size() == 0 || shift % from[a] == 0) return x;
  const std::int64_t forward = shift % from[a];
  return detail::roll_axis(x, a, forward < 0 ? forward + from[a] : forward);
}

}  // namespace hypertape
