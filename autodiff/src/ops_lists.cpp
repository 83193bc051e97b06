// One tensor to many and back, one node each: what keeps per-step hyperparameters and flat parameter vectors
// linear in the number of pieces.
#include "checks.h"
#include "hypertape/autodiff/ops.h"
#include "node.h"

namespace hypertape {
namespace detail {
namespace {

struct PiecesAttributes {
  std::vector<Shape> shapes;
};
constexpr auto destroy_pieces = [](void* attributes) noexcept {
  std::destroy_at(static_cast<PiecesAttributes*>(attributes));
};
struct RowsAttributes {
  Shape row;
  Dtype dtype;
};

std::vector<const Tensor*> pointers(const TensorList& list) {
  std::vector<const Tensor*> result;
  for (const Tensor& tensor : list) result.push_back(&tensor);
  return result;
}
std::vector<Tensor*> pointers(TensorList& list) {
  std::vector<Tensor*> result;
  for (Tensor& tensor : list) result.push_back(&tensor);
  return result;
}
TensorList list_of(std::span<const Tensor> tensors) { return {tensors.begin(), tensors.end()}; }
void move_into(std::span<Tensor> target, TensorList&& source) {
  for (std::size_t i = 0; i < source.size(); ++i) target[i] = std::move(source[i]);
}

constexpr OpRule unflatten_rule = {
    "unflatten",
    [](Pull& pull) {
      pull.gradients[0] = flatten(list_of(pull.cotangents), pull.attributes<PiecesAttributes>().shapes);
    },
    [](Push& push) {
      move_into(push.results, unflatten(push.tangents[0], push.attributes<PiecesAttributes>().shapes));
    },
    destroy_pieces};

constexpr OpRule flatten_rule = {
    "flatten",
    [](Pull& pull) {
      move_into(pull.gradients, unflatten(pull.cotangent(), pull.attributes<PiecesAttributes>().shapes));
    },
    [](Push& push) {
      push.results[0] = flatten(list_of(push.tangents), push.attributes<PiecesAttributes>().shapes);
    },
    destroy_pieces};

constexpr OpRule unstack_rule = {"unstack",
                                 [](Pull& pull) {
                                   const auto& at = pull.attributes<RowsAttributes>();
                                   pull.gradients[0] = stack(list_of(pull.cotangents), at.row, at.dtype);
                                 },
                                 [](Push& push) { move_into(push.results, unstack(push.tangents[0])); }};

constexpr OpRule stack_rule = {"stack",
                               [](Pull& pull) { move_into(pull.gradients, unstack(pull.cotangent())); },
                               [](Push& push) {
                                 const auto& at = push.attributes<RowsAttributes>();
                                 push.results[0] = stack(list_of(push.tangents), at.row, at.dtype);
                               }};

// The dtype of the first tensor that is there; all others must agree.
Dtype common_dtype(const char* op, const TensorList& list) {
  const Tensor* first = nullptr;
  for (const Tensor& tensor : list) {
    if (!tensor.defined()) continue;
    if (!first)
      first = &tensor;
    else if (tensor.dtype() != first->dtype())
      fail(op, "dtypes differ: ", first->dtype(), " of shape ", first->shape(), " and ", tensor.dtype(),
           " of shape ", tensor.shape());
  }
  return first ? first->dtype() : Dtype::float64;
}

// Copies (or zeros) each tensor into its run of a contiguous target.
void write_runs(const TensorList& list, const std::vector<Shape>& shapes, Tensor& target) {
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Tensor run = make_view(target, shapes[i], nullptr, offset);
    if (list[i].defined())
      backend_of(target).copy(view_of(list[i]), view_of(run));
    else
      backend_of(target).fill(view_of(run), 0.0);
    offset += shapes[i].size();
  }
}

}  // namespace
}  // namespace detail

TensorList unflatten(const Tensor& flat, const std::vector<Shape>& shapes) {
  const detail::Header& header = detail::header_of("unflatten", flat);
  if (header.rank != 1) fail("unflatten", "needs a vector, not shape ", flat.shape());
  std::int64_t total = 0;
  for (const Shape& shape : shapes)
    if (__builtin_add_overflow(total, shape.size(), &total)) fail("unflatten", "the pieces' sizes overflow");
  if (total != header.size)
    fail("unflatten", "the pieces hold ", total, " elements, the vector ", header.size);
  const Tensor row_major = detail::make_contiguous(flat);
  TensorList pieces;
  pieces.reserve(shapes.size());
  std::int64_t offset = 0;
  for (const Shape& shape : shapes) {
    pieces.push_back(detail::make_view(row_major, shape, nullptr, offset));
    offset += shape.size();
  }
  if (!detail::links_of(flat).any()) return pieces;
  const Tensor* in = &flat;
  detail::finish(detail::unflatten_rule, {}, detail::PiecesAttributes{shapes}, {&in, 1},
                 detail::pointers(pieces));
  return pieces;
}

Tensor flatten(const TensorList& pieces, const std::vector<Shape>& shapes) {
  if (pieces.size() != shapes.size())
    fail("flatten", pieces.size(), " tensors given with ", shapes.size(), " shapes");
  std::int64_t total = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].defined() && pieces[i].shape() != shapes[i])
      fail("flatten", "tensor ", i, " has shape ", pieces[i].shape(), ", not ", shapes[i]);
    if (__builtin_add_overflow(total, shapes[i].size(), &total))
      fail("flatten", "the pieces' sizes overflow");
  }
  Tensor flat = detail::make_tensor(Shape{total}, detail::common_dtype("flatten", pieces));
  detail::write_runs(pieces, shapes, flat);
  Tensor* out = &flat;
  detail::finish(detail::flatten_rule, {}, detail::PiecesAttributes{shapes}, detail::pointers(pieces),
                 {&out, 1});
  return flat;
}

Tensor flatten(const TensorList& pieces) {
  std::vector<Shape> shapes;
  for (const Tensor& piece : pieces) {
    detail::header_of("flatten", piece);
    shapes.push_back(piece.shape());
  }
  return flatten(pieces, shapes);
}

TensorList unstack(const Tensor& x) {
  const detail::Header& header = detail::header_of("unstack", x);
  if (header.rank == 0) fail("unstack", "needs a leading axis; the tensor is a scalar");
  const Shape row(
      std::span<const std::int64_t>(header.extents() + 1, static_cast<std::size_t>(header.rank - 1)));
  TensorList rows;
  rows.reserve(static_cast<std::size_t>(header.extents()[0]));
  for (std::int64_t i = 0; i < header.extents()[0]; ++i)
    rows.push_back(detail::make_view(x, row, header.strides() + 1, i * header.strides()[0]));
  if (rows.empty() || !detail::links_of(x).any()) return rows;
  const Tensor* in = &x;
  detail::finish(detail::unstack_rule, {}, detail::RowsAttributes{row, header.dtype}, {&in, 1},
                 detail::pointers(rows));
  return rows;
}

Tensor stack(const TensorList& rows, const Shape& row, Dtype dtype) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].defined()) continue;
    if (rows[i].shape() != row || rows[i].dtype() != dtype)
      fail("stack", "row ", i, " has shape ", rows[i].shape(), " and dtype ", rows[i].dtype(), ", not ", row,
           " and ", dtype);
  }
  std::vector<std::int64_t> extents{static_cast<std::int64_t>(rows.size())};
  extents.insert(extents.end(), row.begin(), row.end());
  Tensor result = detail::make_tensor(Shape(std::span<const std::int64_t>(extents)), dtype);
  detail::write_runs(rows, std::vector<Shape>(rows.size(), row), result);
  Tensor* out = &result;
  detail::finish(detail::stack_rule, {}, detail::RowsAttributes{row, dtype}, detail::pointers(rows),
                 {&out, 1});
  return result;
}

Tensor stack(const TensorList& rows) {
  if (rows.empty()) fail("stack", "needs at least one row, or the rows' shape and dtype");
  detail::header_of("stack", rows.front());
  return stack(rows, rows.front().shape(), rows.front().dtype());
}

}  // namespace hypertape
