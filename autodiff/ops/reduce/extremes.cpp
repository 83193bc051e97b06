// Largest and smallest elements: their places found by a kernel, then gathered, so that the derivatives of
// every order are those of gather. Where nobody asks for derivatives, places are not looked for.
#include <algorithm>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/indexing/indexing.h"
#include "autodiff/ops/reduce/axes.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

struct OneAxis {
  Tensor x;
  int axis;
};

// The reduced axes as one, its elements in the row-major order of x.
OneAxis merge_reduced(const Tensor& x, const ReducedAxes& over) {
  std::vector<std::int64_t> order, extents, last;
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (over.reduced[static_cast<std::size_t>(axis)]) {
      last.push_back(axis);
    } else {
      order.push_back(axis);
      extents.push_back(x.extent(axis));
    }
  }
  if (last.size() == 1) return {x, static_cast<int>(last.front())};
  const int axis = static_cast<int>(order.size());
  order.insert(order.end(), last.begin(), last.end());
  extents.push_back(over.count);
  const bool in_place = std::is_sorted(order.begin(), order.end());
  return {reshape(in_place ? x : transpose(x, order), Shape(std::span<const std::int64_t>(extents))), axis};
}

Tensor position_of_extreme(const Tensor& x, int axis, bool largest) {
  Tensor positions = make_tensor(x.shape().with(axis, 1), Dtype::int64);
  backend_of(x)->arg_extreme(view_of(x), axis, largest, view_of(positions));
  return positions;
}

Tensor extreme(const char* op, const Tensor& x, const std::vector<std::int64_t>& axes, bool keep,
               bool largest) {
  require_floating(op, x);
  const ReducedAxes over = reduced_axes(op, x, axes, keep);
  if (over.count == 0) fail(op, "of no elements: shape ", x.shape(), " gives ", over.output);
  if (axes.empty()) return x;
  const OneAxis one = merge_reduced(x, over);
  if (!links_of(x).any()) {
    Tensor best = make_tensor(one.x.shape().with(one.axis, 1), x.dtype());
    backend_of(x)->extreme(view_of(one.x), one.axis, largest, false, view_of(best));
    return reshape(best, over.output);
  }
  return reshape(gather_as(op, one.x, one.axis, position_of_extreme(one.x, one.axis, largest)), over.output);
}

Tensor arg_extreme(const char* op, const Tensor& x, std::int64_t axis, bool keep, bool largest) {
  require_floating(op, x);
  const ReducedAxes over = reduced_axes(op, x, {axis}, keep);
  if (over.count == 0) fail(op, "of no elements: axis ", axis, " of shape ", x.shape());
  return reshape(position_of_extreme(x, normalize_axis(op, axis, x.shape()), largest), over.output);
}

Tensor arg_extreme(const char* op, const Tensor& x, bool largest) {
  require_floating(op, x);
  return arg_extreme(op, reshape(x, {x.size()}), 0, false, largest);
}

}  // namespace
}  // namespace detail

Tensor max(const Tensor& x) { return max(x, detail::all_axes("max", x)); }
Tensor max(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  return detail::extreme("max", x, axes, keep, true);
}
Tensor min(const Tensor& x) { return min(x, detail::all_axes("min", x)); }
Tensor min(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep) {
  return detail::extreme("min", x, axes, keep, false);
}
Tensor argmax(const Tensor& x) { return detail::arg_extreme("argmax", x, true); }
Tensor argmax(const Tensor& x, std::int64_t axis, bool keep) {
  return detail::arg_extreme("argmax", x, axis, keep, true);
}
Tensor argmin(const Tensor& x) { return detail::arg_extreme("argmin", x, false); }
Tensor argmin(const Tensor& x, std::int64_t axis, bool keep) {
  return detail::arg_extreme("argmin", x, axis, keep, false);
}

}  // namespace hypertape
