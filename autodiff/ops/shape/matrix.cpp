// Diagonals and triangles of the matrices in the last two axes.
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

// The diagonal that starts `offset` columns right of the corner (or rows below it) of rows x columns
// matrices.
struct DiagonalAttributes {
  std::int64_t offset, rows, columns;
  std::int64_t length() const {
    const std::int64_t length =
        offset >= 0 ? std::min(rows, columns - offset) : std::min(columns, rows + offset);
    return std::max<std::int64_t>(length, 0);
  }
};

Tensor view_of_diagonal(const Tensor& x, const DiagonalAttributes& at) {
  const Header& header = *x.header();
  const int row = header.rank - 2;
  Strides strides = strides_of(header);
  const std::int64_t down = header.strides()[row], across = header.strides()[row + 1];
  strides[static_cast<std::size_t>(row)] = down + across;
  std::vector<std::int64_t> extents(header.extents(), header.extents() + row);
  extents.push_back(at.length());
  const std::int64_t start = at.offset >= 0 ? at.offset * across : -at.offset * down;
  return make_view(x, Shape(std::span<const std::int64_t>(extents)), strides.data(),
                   at.length() > 0 ? start : 0);
}

Tensor take_diagonal(const Tensor& x, const DiagonalAttributes& at);
Tensor place_diagonal(const Tensor& x, const DiagonalAttributes& at);

constexpr OpRule diagonal_rule =
    selecting({"diagonal",
               [](Pull& pull) {
                 pull.gradients[0] = place_diagonal(pull.cotangent(), pull.attributes<DiagonalAttributes>());
               },
               [](Push& push) {
                 push.results[0] = take_diagonal(push.tangents[0], push.attributes<DiagonalAttributes>());
               }});
constexpr OpRule diag_rule =
    placing({"diag",
             [](Pull& pull) {
               pull.gradients[0] = take_diagonal(pull.cotangent(), pull.attributes<DiagonalAttributes>());
             },
             [](Push& push) {
               push.results[0] = place_diagonal(push.tangents[0], push.attributes<DiagonalAttributes>());
             }});

Tensor take_diagonal(const Tensor& x, const DiagonalAttributes& at) {
  return finish_one(diagonal_rule, {}, at, view_of_diagonal(x, at), x);
}

Tensor place_diagonal(const Tensor& x, const DiagonalAttributes& at) {
  const Header& header = *x.header();
  std::vector<std::int64_t> extents(header.extents(), header.extents() + header.rank - 1);
  extents.push_back(at.rows);
  extents.push_back(at.columns);
  Tensor result = Tensor::zeros(Shape(std::span<const std::int64_t>(extents)), header.dtype);
  backend_of(x)->copy(view_of(x), view_of(view_of_diagonal(result, at)));
  return finish_one(diag_rule, {}, at, std::move(result), x);
}

struct TriangleAttributes {
  bool upper;
  std::int64_t diagonal;
};

// Its own adjoint.
Tensor triangle(const Tensor& x, const TriangleAttributes& at);
const char* name_of_triangle(const void* attributes) noexcept {
  return static_cast<const TriangleAttributes*>(attributes)->upper ? "triu" : "tril";
}
constexpr OpRule triangle_rule = masking(
    {"triangle",
     [](Pull& pull) {
       pull.gradients[0] = triangle(pull.cotangent(), pull.attributes<TriangleAttributes>());
     },
     [](Push& push) { push.results[0] = triangle(push.tangents[0], push.attributes<TriangleAttributes>()); },
     nullptr, name_of_triangle});

Tensor triangle(const Tensor& x, const TriangleAttributes& at) {
  const Header& header = *x.header();
  Tensor result = Tensor::zeros(x.shape(), header.dtype);
  const int row = header.rank - 2, column = row + 1;
  const std::int64_t rows = header.extents()[row], columns = header.extents()[column];
  const std::int64_t diagonal = std::clamp(at.diagonal, -rows, columns);
  // A row of every matrix at once.
  const auto part = [&](const Tensor& of, std::int64_t i, std::int64_t first, std::int64_t count) {
    const Header& source = *of.header();
    std::vector<std::int64_t> extents(source.extents(), source.extents() + row);
    extents.push_back(count);
    Strides strides = strides_of(source);
    const std::int64_t offset = i * source.strides()[row] + first * source.strides()[column];
    strides[static_cast<std::size_t>(row)] = source.strides()[column];
    return make_view(of, Shape(std::span<const std::int64_t>(extents)), strides.data(), offset);
  };
  for (std::int64_t i = 0; i < rows && header.size > 0; ++i) {
    const std::int64_t border = std::clamp<std::int64_t>(i + diagonal + (at.upper ? 0 : 1), 0, columns);
    const std::int64_t first = at.upper ? border : 0, count = at.upper ? columns - border : border;
    if (count > 0)
      backend_of(x)->copy(view_of(part(x, i, first, count)), view_of(part(result, i, first, count)));
  }
  return finish_one(triangle_rule, {}, at, std::move(result), x);
}

Tensor checked_triangle(const char* op, const Tensor& x, const TriangleAttributes& at) {
  if (header_of(op, x).rank < 2) fail(op, "needs matrices in the last two axes, not shape ", x.shape());
  return triangle(x, at);
}

}  // namespace
}  // namespace detail

Tensor diagonal(const Tensor& x, std::int64_t offset) {
  const detail::Header& header = detail::header_of("diagonal", x);
  if (header.rank < 2) fail("diagonal", "needs matrices in the last two axes, not shape ", x.shape());
  const std::int64_t rows = x.extent(-2), columns = x.extent(-1);
  return detail::take_diagonal(x, {std::clamp(offset, -rows, columns), rows, columns});
}

Tensor diag(const Tensor& x, std::int64_t offset) {
  const detail::Header& header = detail::header_of("diag", x);
  if (header.rank < 1) fail("diag", "needs an axis to place on the diagonal; the tensor is a scalar");
  std::int64_t extent = 0;
  if (offset == std::numeric_limits<std::int64_t>::min() ||
      __builtin_add_overflow(x.extent(-1), offset < 0 ? -offset : offset, &extent))
    fail("diag", "offset ", offset, " is too large");
  std::vector<std::int64_t> extents(header.extents(), header.extents() + header.rank - 1);
  extents.insert(extents.end(), 2, extent);
  detail::shape_of("diag", extents);
  return detail::place_diagonal(x, {offset, extent, extent});
}

Tensor tril(const Tensor& x, std::int64_t diagonal) {
  return detail::checked_triangle("tril", x, {false, diagonal});
}

Tensor triu(const Tensor& x, std::int64_t diagonal) {
  return detail::checked_triangle("triu", x, {true, diagonal});
}

}  // namespace hypertape
