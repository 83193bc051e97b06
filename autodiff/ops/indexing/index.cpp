// Indexing: gather and scatter_add, each the other's adjoint, and what is written with them.
#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/ops/indexing/indexing.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

struct IndexAttributes {
  const char* op;
  int axis;
  Shape shape;  ///< of what is indexed
};
constexpr auto name_from = [](const void* attributes) noexcept {
  return static_cast<const IndexAttributes*>(attributes)->op;
};

Tensor scatter_as(const char* op, const Shape& shape, int axis, const Tensor& indices, const Tensor& values);

constexpr OpRule gather_rule =
    selecting({"gather",
               [](Pull& pull) {
                 const auto& at = pull.attributes<IndexAttributes>();
                 pull.gradients[0] = scatter_as(at.op, at.shape, at.axis, pull.input(1), pull.cotangent());
               },
               [](Push& push) {
                 const auto& at = push.attributes<IndexAttributes>();
                 push.results[0] = gather_as(at.op, push.tangents[0], at.axis, push.input(1));
               },
               nullptr, name_from});

constexpr OpRule scatter_rule =
    placing({"scatter_add",
             [](Pull& pull) {
               const auto& at = pull.attributes<IndexAttributes>();
               pull.gradients[0] = gather_as(at.op, pull.cotangent(), at.axis, pull.input(1));
             },
             [](Push& push) {
               const auto& at = push.attributes<IndexAttributes>();
               push.results[0] = scatter_as(at.op, at.shape, at.axis, push.input(1), push.tangents[0]);
             },
             nullptr, name_from});

// Indices of the rank of `shape`, at most as long on the other axes, and within the axis.
void require_fitting(const char* op, const Shape& shape, int axis, const Tensor& indices) {
  const Shape by = header_of(op, indices).dtype == Dtype::int64 ? indices.shape() : shape;
  bool fits = by.rank() == shape.rank();
  for (int a = 0; fits && a < by.rank(); ++a) fits = a == axis || by[a] <= shape[a];
  if (!fits)
    fail(op, "indices of shape ", by, " do not fit axis ", axis, " of shape ", shape,
         ": they need its rank, and at most its extents on the other axes");
  require_indices(op, indices, shape[axis], "the ", shape[axis], " elements of axis ", axis, " of shape ",
                  shape);
}

Tensor scatter_as(const char* op, const Shape& shape, int axis, const Tensor& indices, const Tensor& values) {
  require_fitting(op, shape, axis, indices);
  Tensor result = make_tensor(shape, values.dtype());
  backend_of(values)->scatter_add(view_of(values), axis, view_of(indices), view_of(result));
  return finish_one(scatter_rule, {2, 0}, IndexAttributes{op, axis, shape}, std::move(result), values,
                    indices);
}

void require_vector(const char* op, const Tensor& indices) {
  if (header_of(op, indices).rank != 1) fail(op, "needs a vector of indices, not shape ", indices.shape());
}

}  // namespace

Tensor gather_as(const char* op, const Tensor& x, int axis, const Tensor& indices) {
  const Shape shape = x.shape();
  require_fitting(op, shape, axis, indices);
  Tensor result = make_tensor(indices.shape(), x.dtype());
  backend_of(x)->gather(view_of(x), axis, view_of(indices), view_of(result));
  return finish_one(gather_rule, {2, 0}, IndexAttributes{op, axis, shape}, std::move(result), x, indices);
}

}  // namespace detail

Tensor gather(const Tensor& x, std::int64_t axis, const Tensor& indices) {
  detail::header_of("gather", x);
  return detail::gather_as("gather", x, normalize_axis("gather", axis, x.shape()), indices);
}

Tensor scatter_add(const Shape& shape, std::int64_t axis, const Tensor& indices, const Tensor& values) {
  detail::require_floating("scatter_add", values);
  detail::header_of("scatter_add", indices);
  if (values.shape() != indices.shape())
    fail("scatter_add", "values have shape ", values.shape(), ", indices ", indices.shape());
  return detail::scatter_as("scatter_add", shape, normalize_axis("scatter_add", axis, shape), indices,
                            values);
}

Tensor scatter_add(Operand x, std::int64_t axis, const Tensor& indices, const Tensor& values) {
  detail::require_same_dtype("scatter_add", *x, values);
  return add(x, scatter_add(x->shape(), axis, indices, values));
}

Tensor index_select(const Tensor& x, std::int64_t axis, const Tensor& indices) {
  detail::header_of("index_select", x);
  const Shape shape = x.shape();
  const int a = normalize_axis("index_select", axis, shape);
  detail::require_vector("index_select", indices);
  // Here for the place of a bad index: what follows sees a broadcast view.
  detail::require_indices("index_select", indices, shape[a], "the ", shape[a], " elements of axis ", a,
                          " of shape ", shape);
  std::vector<std::int64_t> alone(static_cast<std::size_t>(shape.rank()), 1);
  alone[static_cast<std::size_t>(a)] = indices.size();
  const Tensor everywhere =
      expand(reshape(indices, Shape(std::span<const std::int64_t>(alone))), shape.with(a, indices.size()));
  return detail::gather_as("index_select", x, a, everywhere);
}

Tensor take(const Tensor& x, const Tensor& indices) {
  detail::header_of("take", x);
  detail::require_indices("take", indices, x.size(), "the ", x.size(), " elements of shape ", x.shape());
  return reshape(detail::gather_as("take", reshape(x, {x.size()}), 0, reshape(indices, {indices.size()})),
                 indices.shape());
}

Tensor one_hot(const Tensor& labels, std::int64_t classes, Dtype dtype) {
  if (!is_floating(dtype)) fail("one_hot", "makes float32 or float64, not ", dtype);
  if (detail::header_of("one_hot", labels).dtype != Dtype::int64)
    fail("one_hot", "labels must be int64, not ", labels.dtype());
  if (classes < 0) fail("one_hot", "needs a number of classes, not ", classes);
  const Shape shape = labels.shape();
  detail::require_indices("one_hot", labels, classes, "the ", classes, " classes");
  std::vector<std::int64_t> column(shape.begin(), shape.end()), full = column;
  column.push_back(1);
  full.push_back(classes);
  const Shape to = detail::shape_of("one_hot", full);
  const Tensor indices = reshape(labels, Shape(std::span<const std::int64_t>(column)));
  return scatter_add(to, -1, indices, expand(Tensor::scalar(1.0, dtype), indices.shape()));
}

}  // namespace hypertape
