// One tensor to many and back, one node each: what keeps per-step hyperparameters and flat parameter vectors
// linear in the number of pieces.
#include <algorithm>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/ops/shape/views.h"
#include "autodiff/tape/node.h"

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
  int axis;  ///< of the joined tensor
};
// Pieces of these extents along one axis of `whole`.
struct JoinAttributes {
  std::vector<std::int64_t> sizes;
  Shape whole;
  Dtype dtype;
  int axis;
};
constexpr auto destroy_join = [](void* attributes) noexcept {
  std::destroy_at(static_cast<JoinAttributes*>(attributes));
};
TensorList take_pieces(const Tensor& x, const JoinAttributes& at);
Tensor join_pieces(const TensorList& pieces, const JoinAttributes& at);

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

void pull_unflatten(Pull& pull);

constexpr OpRule unflatten_rule = selecting(
    {"unflatten", pull_unflatten,
     [](Push& push) {
       move_into(push.results, unflatten(push.tangents[0], push.attributes<PiecesAttributes>().shapes));
     },
     destroy_pieces, nullptr, true});

constexpr OpRule flatten_rule = placing(
    {"flatten",
     [](Pull& pull) {
       move_into(pull.gradients, unflatten(pull.cotangent(), pull.attributes<PiecesAttributes>().shapes));
     },
     [](Push& push) {
       push.results[0] = flatten(list_of(push.tangents), push.attributes<PiecesAttributes>().shapes);
     },
     destroy_pieces});

constexpr OpRule unstack_rule = selecting({"unstack",
                                           [](Pull& pull) {
                                             const auto& at = pull.attributes<RowsAttributes>();
                                             pull.gradients[0] =
                                                 stack(list_of(pull.cotangents), at.row, at.dtype, at.axis);
                                           },
                                           [](Push& push) {
                                             const auto& at = push.attributes<RowsAttributes>();
                                             move_into(push.results, unstack(push.tangents[0], at.axis));
                                           },
                                           nullptr, nullptr, true});

constexpr OpRule stack_rule = placing({"stack",
                                       [](Pull& pull) {
                                         const auto& at = pull.attributes<RowsAttributes>();
                                         move_into(pull.gradients, unstack(pull.cotangent(), at.axis));
                                       },
                                       [](Push& push) {
                                         const auto& at = push.attributes<RowsAttributes>();
                                         push.results[0] =
                                             stack(list_of(push.tangents), at.row, at.dtype, at.axis);
                                       }});

constexpr OpRule split_rule =
    selecting({"split",
               [](Pull& pull) {
                 pull.gradients[0] = join_pieces(list_of(pull.cotangents), pull.attributes<JoinAttributes>());
               },
               [](Push& push) {
                 move_into(push.results, take_pieces(push.tangents[0], push.attributes<JoinAttributes>()));
               },
               destroy_join, nullptr, true});

constexpr OpRule concatenate_rule =
    placing({"concatenate",
             [](Pull& pull) {
               move_into(pull.gradients, take_pieces(pull.cotangent(), pull.attributes<JoinAttributes>()));
             },
             [](Push& push) {
               push.results[0] = join_pieces(list_of(push.tangents), push.attributes<JoinAttributes>());
             },
             destroy_join});

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

bool lies_in(const Tensor& run, const Tensor& tensor) {
  return tensor.defined() && tensor.shares_storage_with(run) && tensor.header()->data == run.header()->data &&
         tensor.header()->contiguous;
}

// Copies (or zeros) each tensor into its run of a contiguous target, unless it is there already.
void write_runs(const TensorList& list, const std::vector<Shape>& shapes, Tensor& target) {
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < list.size(); offset += shapes[i++].size()) {
    const Tensor run = make_view(target, shapes[i], nullptr, offset);
    if (lies_in(run, list[i])) continue;
    if (list[i].defined())
      backend_of(target)->copy(view_of(list[i]), view_of(run));
    else
      backend_of(target)->fill(view_of(run), 0.0);
  }
}

// Elements [start, start + count) of one axis.
Tensor view_of_range(const Tensor& x, int axis, std::int64_t start, std::int64_t count) {
  const Header& header = *x.header();
  return make_view(x, x.shape().with(axis, count), strides_of(header).data(), start * header.strides()[axis]);
}

TensorList take_pieces(const Tensor& x, const JoinAttributes& at) {
  TensorList pieces;
  pieces.reserve(at.sizes.size());
  std::int64_t start = 0;
  for (const std::int64_t size : at.sizes) {
    pieces.push_back(view_of_range(x, at.axis, start, size));
    start += size;
  }
  if (pieces.empty() || !links_of(x).any()) return pieces;
  const Tensor* in = &x;
  finish(split_rule, {}, JoinAttributes(at), {&in, 1}, pointers(pieces));
  return pieces;
}

Tensor join_pieces(const TensorList& pieces, const JoinAttributes& at) {
  const bool full =
      std::all_of(pieces.begin(), pieces.end(), [](const Tensor& piece) { return piece.defined(); });
  Tensor result = full ? make_tensor(at.whole, at.dtype) : Tensor::zeros(at.whole, at.dtype);
  std::int64_t start = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].defined())
      backend_of(result)->copy(view_of(pieces[i]),
                               view_of(view_of_range(result, at.axis, start, at.sizes[i])));
    start += at.sizes[i];
  }
  Tensor* out = &result;
  finish(concatenate_rule, {}, JoinAttributes(at), pointers(pieces), {&out, 1});
  return result;
}

Tensor flatten_into(Tensor flat, const TensorList& pieces, const std::vector<Shape>& shapes) {
  write_runs(pieces, shapes, flat);
  Tensor* out = &flat;
  finish(flatten_rule, {}, PiecesAttributes{shapes}, pointers(pieces), {&out, 1});
  return flat;
}

// Whether the pieces that were given out to be written hold the cotangents. If one does not, a rule went on
// from what it holds, which somebody may have kept: it must not be written over.
bool filled_as_given(const Joined& joined, const TensorList& pieces, const std::vector<Shape>& shapes) {
  std::int64_t offset = 0;
  std::uint64_t given = joined.given;
  for (std::size_t i = 0; given != 0; offset += shapes[i++].size(), given >>= 1)
    if ((given & 1u) && !lies_in(make_view(joined.vector, shapes[i], nullptr, offset), pieces[i]))
      return false;
  return true;
}

void pull_unflatten(Pull& pull) {
  const auto& shapes = pull.attributes<PiecesAttributes>().shapes;
  const TensorList pieces = list_of(pull.cotangents);
  pull.gradients[0] = pull.joined && filled_as_given(*pull.joined, pieces, shapes)
                          ? flatten_into(pull.joined->vector, pieces, shapes)
                          : flatten(pieces, shapes);
}

}  // namespace

Piece piece_of(Node& node, std::uint32_t output) noexcept {
  if (node.rule != &unflatten_rule) return {nullptr, 0, 0};
  const auto& shapes = static_cast<const PiecesAttributes*>(node.attributes())->shapes;
  Piece piece{&shapes[output], 0, 0};
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    if (i == output) piece.offset = piece.total;
    piece.total += shapes[i].size();
  }
  return piece;
}

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
  return detail::flatten_into(detail::make_tensor(Shape{total}, detail::common_dtype("flatten", pieces)),
                              pieces, shapes);
}

Tensor flatten(const TensorList& pieces) {
  std::vector<Shape> shapes;
  for (const Tensor& piece : pieces) {
    detail::header_of("flatten", piece);
    shapes.push_back(piece.shape());
  }
  return flatten(pieces, shapes);
}

TensorList unstack(const Tensor& x, std::int64_t axis) {
  const detail::Header& header = detail::header_of("unstack", x);
  if (header.rank == 0) fail("unstack", "needs an axis to cut; the tensor is a scalar");
  const int a = normalize_axis("unstack", axis, x.shape());
  std::vector<std::int64_t> extents, strides;
  for (int k = 0; k < header.rank; ++k) {
    if (k == a) continue;
    extents.push_back(header.extents()[k]);
    strides.push_back(header.strides()[k]);
  }
  const Shape row{std::span<const std::int64_t>(extents)};
  auto rows = detail::list_of<TensorList>(header.extents()[a]);
  for (std::int64_t i = 0; i < header.extents()[a]; ++i)
    rows[static_cast<std::size_t>(i)] = detail::make_view(x, row, strides.data(), i * header.strides()[a]);
  if (rows.empty() || !detail::links_of(x).any()) return rows;
  const Tensor* in = &x;
  detail::finish(detail::unstack_rule, {}, detail::RowsAttributes{row, header.dtype, a}, {&in, 1},
                 detail::pointers(rows));
  return rows;
}

Tensor stack(const TensorList& rows, const Shape& row, Dtype dtype, std::int64_t axis) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].defined()) continue;
    if (rows[i].shape() != row || rows[i].dtype() != dtype)
      fail("stack", "row ", i, " has shape ", rows[i].shape(), " and dtype ", rows[i].dtype(), ", not ", row,
           " and ", dtype);
  }
  const std::int64_t place = axis < 0 ? axis + row.rank() + 1 : axis;
  if (place < 0 || place > row.rank())
    fail("stack", "place ", axis, " is out of range for rows of shape ", row, ", which have ", row.rank() + 1,
         " places");
  const int a = static_cast<int>(place);
  std::vector<std::int64_t> extents(row.begin(), row.end());
  extents.insert(extents.begin() + place, static_cast<std::int64_t>(rows.size()));
  Tensor result = detail::make_tensor(detail::shape_of("stack", extents), dtype);
  if (a == 0) {
    detail::write_runs(rows, std::vector<Shape>(rows.size(), row), result);
  } else {
    const TensorList places = unstack(result, a);
    const Tensor zero = detail::make_view(Tensor::zeros(Shape{}, dtype), row, detail::Strides{}.data(), 0);
    for (std::size_t i = 0; i < rows.size(); ++i)
      detail::backend_of(result)->copy(detail::view_of(rows[i].defined() ? rows[i] : zero),
                                       detail::view_of(places[i]));
  }
  Tensor* out = &result;
  detail::finish(detail::stack_rule, {}, detail::RowsAttributes{row, dtype, a}, detail::pointers(rows),
                 {&out, 1});
  return result;
}

Tensor stack(const TensorList& rows, std::int64_t axis) {
  if (rows.empty()) fail("stack", "needs at least one row, or the rows' shape and dtype");
  for (const Tensor& row : rows) detail::header_of("stack", row);
  return stack(rows, rows.front().shape(), rows.front().dtype(), axis);
}

Tensor concatenate(const TensorList& pieces, std::int64_t axis) {
  if (pieces.empty()) fail("concatenate", "needs at least one tensor");
  const detail::Header& first = detail::header_of("concatenate", pieces.front());
  if (first.rank == 0) fail("concatenate", "needs an axis to join along; tensor 0 is a scalar: use stack");
  const Shape shape = pieces.front().shape();
  const int a = normalize_axis("concatenate", axis, shape);
  detail::JoinAttributes at{{}, shape, first.dtype, a};
  std::int64_t total = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const detail::Header& header = detail::header_of("concatenate", pieces[i]);
    const Shape own = pieces[i].shape();
    if (header.dtype != first.dtype)
      fail("concatenate", "dtypes differ: ", first.dtype, " of tensor 0 and ", header.dtype, " of tensor ", i,
           "; convert one of them");
    if (own.rank() != shape.rank() || own.with(a, shape[a]) != shape)
      fail("concatenate", "tensor ", i, " of shape ", own, " does not continue tensor 0 of shape ", shape,
           " along axis ", a);
    at.sizes.push_back(own[a]);
    if (__builtin_add_overflow(total, own[a], &total)) fail("concatenate", "the tensors' extents overflow");
  }
  at.whole = detail::with_extent("concatenate", shape, a, total);
  return detail::join_pieces(pieces, at);
}

TensorList split(const Tensor& x, const std::vector<std::int64_t>& sizes, std::int64_t axis) {
  const detail::Header& header = detail::header_of("split", x);
  const Shape shape = x.shape();
  const int a = normalize_axis("split", axis, shape);
  std::int64_t total = 0;
  for (const std::int64_t size : sizes) {
    if (size < 0) fail("split", "a piece cannot have ", size, " elements");
    if (__builtin_add_overflow(total, size, &total)) fail("split", "the pieces' sizes overflow");
  }
  if (total != shape[a])
    fail("split", "the pieces hold ", total, " elements, axis ", a, " of shape ", shape, " has ", shape[a]);
  return detail::take_pieces(x, {sizes, shape, header.dtype, a});
}

TensorList split_evenly(const Tensor& x, std::int64_t count, std::int64_t axis) {
  detail::header_of("split_evenly", x);
  const Shape shape = x.shape();
  const int a = normalize_axis("split_evenly", axis, shape);
  if (count < 1 || shape[a] % count != 0)
    fail("split_evenly", "the ", shape[a], " elements of axis ", a, " of shape ", shape,
         " do not divide into ", count, " equal pieces; use split with their sizes");
  auto sizes = detail::list_of<std::vector<std::int64_t>>(count);
  for (std::int64_t& size : sizes) size = shape[a] / count;
  return split(x, sizes, axis);
}

}  // namespace hypertape
