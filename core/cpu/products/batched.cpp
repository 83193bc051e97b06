// Products of strided views: how each operand is read as row-major matrices with a leading dimension.
#include <algorithm>

#include <hypertape/core/error.h>
#include "core/cpu/products/product.h"
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

// The last two axes of a view as product() sees them: unit stride along one axis. In front of them, the steps
// from matrix to matrix.
struct Matrices {
  const void* data;
  std::int64_t leading;
  bool transposed;
  std::array<std::int64_t, max_rank> steps{};
};

bool as_matrices(const View& view, Matrices& matrices) {
  const int row = view.rank - 2, column = view.rank - 1;
  const std::int64_t rows = view.extents[row], columns = view.extents[column];
  const std::int64_t down = view.strides[row], across = view.strides[column];
  if ((across == 1 || columns == 1) && (down >= columns || rows == 1))
    matrices = {view.data, rows == 1 ? std::max<std::int64_t>(columns, 1) : down, false};
  else if ((down == 1 || rows == 1) && (across >= rows || columns == 1))
    matrices = {view.data, columns == 1 ? std::max<std::int64_t>(rows, 1) : across, true};
  else
    return false;
  std::copy_n(view.strides, row, matrices.steps.begin());
  return true;
}

// A row-major copy, without repeating matrices that the view only broadcasts.
Matrices compact(const View& view, Tensor& copy) {
  std::array<std::int64_t, max_rank> extents{};
  std::copy_n(view.extents, view.rank, extents.begin());
  for (std::size_t axis = 0; axis + 2 < static_cast<std::size_t>(view.rank); ++axis)
    if (view.strides[axis] == 0) extents[axis] = 1;
  const Shape shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(view.rank)));
  copy = make_tensor(shape, view.dtype);
  View once = view;
  once.extents = extents.data();
  once.size = shape.size();
  once.contiguous = false;
  BackendCall(cpu_backend())->copy(once, view_of(copy));
  Matrices matrices;
  as_matrices(view_of(copy), matrices);
  for (std::size_t axis = 0; axis + 2 < static_cast<std::size_t>(view.rank); ++axis)
    if (view.strides[axis] == 0) matrices.steps[axis] = 0;
  return matrices;
}

template <class T>
void run(const Matrices& a, bool transpose_a, const Matrices& b, bool transpose_b, std::int64_t k,
         const View& target, bool accumulate) {
  const int leading = target.rank - 2;
  const std::int64_t m = target.extents[leading], n = target.extents[leading + 1];
  const T *left = static_cast<const T*>(a.data), *right = static_cast<const T*>(b.data);
  if (leading == 0) {
    product<T>(transpose_a, transpose_b, m, n, k, left, a.leading, right, b.leading, target.as<T>(),
               std::max<std::int64_t>(n, 1), accumulate);
    return;
  }
  ProductBatch batch;
  for (int axis = 0; axis < leading; ++axis) {
    const auto at = static_cast<std::size_t>(axis);
    batch.add_axis(target.extents[axis], a.steps[at], b.steps[at]);
  }
  product_batch<T>(batch, transpose_a, transpose_b, m, n, k, left, a.leading, right, b.leading,
                   target.as<T>(), accumulate);
}

}  // namespace

void run_product(const View& a, bool transpose_a, const View& b, bool transpose_b, const View& target,
                 bool accumulate) {
  Matrices left, right;
  Tensor left_copy, right_copy;
  // A transposed layout is read where it is, unless the bits would follow it.
  const bool as_stored = transposes_keep_bits();
  if (!as_matrices(a, left) || (left.transposed && !as_stored)) left = compact(a, left_copy);
  if (!as_matrices(b, right) || (right.transposed && !as_stored)) right = compact(b, right_copy);
  const std::int64_t k = a.extents[a.rank - (transpose_a ? 2 : 1)];
  transpose_a ^= left.transposed;
  transpose_b ^= right.transposed;
  if (target.dtype == Dtype::float32)
    run<float>(left, transpose_a, right, transpose_b, k, target, accumulate);
  else if (target.dtype == Dtype::float64)
    run<double>(left, transpose_a, right, transpose_b, k, target, accumulate);
  else
    fail("matmul", "needs float32 or float64, not ", target.dtype);
}

}  // namespace hypertape::detail
