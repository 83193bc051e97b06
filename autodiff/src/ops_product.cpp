#include "checks.h"
#include "hypertape/autodiff/ops.h"
#include "node.h"

namespace hypertape {
namespace detail {
namespace {

struct MatmulAttributes {
  bool transpose_a, transpose_b;
};

// C = op(A) op(B):  dA = G op(B)' and dB = op(A)' G, each transposed again if its operand was.
Tensor gradient_a(const Tensor& g, const Tensor& b, const MatmulAttributes& at) {
  return at.transpose_a ? matmul(b, g, at.transpose_b, true) : matmul(g, b, false, !at.transpose_b);
}
Tensor gradient_b(const Tensor& g, const Tensor& a, const MatmulAttributes& at) {
  return at.transpose_b ? matmul(g, a, true, at.transpose_a) : matmul(a, g, !at.transpose_a, false);
}

void pull_matmul(Pull& pull) {
  const auto& at = pull.attributes<MatmulAttributes>();
  if (pull.needs(0)) pull.gradients[0] = gradient_a(pull.cotangent(), pull.input(1), at);
  if (pull.needs(1)) pull.gradients[1] = gradient_b(pull.cotangent(), pull.input(0), at);
}

// Adds the product to what is there, if anything is.
Tensor accumulate(Tensor total, const Tensor& a, const Tensor& b, const MatmulAttributes& at) {
  return total.defined() ? matmul_add(std::move(total), a, b, at.transpose_a, at.transpose_b)
                         : matmul(a, b, at.transpose_a, at.transpose_b);
}

void push_matmul(Push& push) {
  const auto& at = push.attributes<MatmulAttributes>();
  Tensor total;
  if (push.tangents[0].defined()) total = accumulate(std::move(total), push.tangents[0], push.input(1), at);
  if (push.tangents[1].defined()) total = accumulate(std::move(total), push.input(0), push.tangents[1], at);
  push.results[0] = std::move(total);
}

constexpr OpRule matmul_rule = {"matmul", pull_matmul, push_matmul};

// Inputs: c, a, b. The addend takes part as the identity.
void pull_matmul_add(Pull& pull) {
  const auto& at = pull.attributes<MatmulAttributes>();
  if (pull.needs(1)) pull.gradients[1] = gradient_a(pull.cotangent(), pull.input(2), at);
  if (pull.needs(2)) pull.gradients[2] = gradient_b(pull.cotangent(), pull.input(1), at);
  if (pull.needs(0)) pull.gradients[0] = std::move(pull.cotangents[0]);
}

void push_matmul_add(Push& push) {
  const auto& at = push.attributes<MatmulAttributes>();
  Tensor total = push.tangents[0];
  if (push.tangents[1].defined()) total = accumulate(std::move(total), push.tangents[1], push.input(2), at);
  if (push.tangents[2].defined()) total = accumulate(std::move(total), push.input(1), push.tangents[2], at);
  push.results[0] = std::move(total);
}

constexpr OpRule matmul_add_rule = {"matmul_add", pull_matmul_add, push_matmul_add};

Shape product_shape(const char* op, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  const Header &left = *a.header(), &right = *b.header();
  const std::int64_t m = left.extents()[transpose_a ? 1 : 0], k = left.extents()[transpose_a ? 0 : 1];
  const std::int64_t inner = right.extents()[transpose_b ? 1 : 0], n = right.extents()[transpose_b ? 0 : 1];
  if (k != inner)
    fail(op, "inner extents differ: ", k, " of the first operand with shape ", a.shape(),
         transpose_a ? " transposed" : "", " and ", inner, " of the second with shape ", b.shape(),
         transpose_b ? " transposed" : "");
  return Shape{m, n};
}

Tensor matmul_matrices(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  Tensor c = make_tensor(product_shape("matmul", a, b, transpose_a, transpose_b), a.header()->dtype);
  backend_of(c).product(view_of(a), transpose_a, view_of(b), transpose_b, view_of(c), false);
  // Each operand's derivative needs the other one.
  const Saves saves{(links_of(b).any() ? 1u : 0u) | (links_of(a).any() ? 2u : 0u), 0};
  return finish_one(matmul_rule, saves, MatmulAttributes{transpose_a, transpose_b}, std::move(c), a, b);
}

}  // namespace
}  // namespace detail

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  detail::require_same_dtype("matmul", a, b);
  const int ranks[] = {a.header()->rank, b.header()->rank};
  if (ranks[0] == 2 && ranks[1] == 2) return detail::matmul_matrices(a, b, transpose_a, transpose_b);
  for (const int rank : ranks)
    if (rank < 1 || rank > 2)
      fail("matmul", "needs operands of rank 1 or 2, not shapes ", a.shape(), " and ", b.shape());
  if ((ranks[0] == 1 && transpose_a) || (ranks[1] == 1 && transpose_b))
    fail("matmul", "a vector cannot be transposed: shapes ", a.shape(), " and ", b.shape());
  const Tensor left = ranks[0] == 1 ? reshape(a, {1, a.size()}) : a;
  const Tensor right = ranks[1] == 1 ? reshape(b, {b.size(), 1}) : b;
  const Tensor c = detail::matmul_matrices(left, right, transpose_a, transpose_b);
  if (ranks[0] == 1 && ranks[1] == 1) return reshape(c, Shape{});
  return reshape(c, Shape{ranks[0] == 1 ? c.extent(1) : c.extent(0)});
}

Tensor matmul_add(Operand c, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  detail::require_same_dtype("matmul_add", a, b);
  detail::require_same_dtype("matmul_add", a, *c);
  if (a.rank() != 2 || b.rank() != 2)
    fail("matmul_add", "needs factors of rank 2, not shapes ", a.shape(), " and ", b.shape());
  const Shape shape = detail::product_shape("matmul_add", a, b, transpose_a, transpose_b);
  if (c->shape() != shape) {
    if (broadcast_shapes("matmul_add", c->shape(), shape) != shape)
      fail("matmul_add", "the addend has shape ", c->shape(), ", the product ", shape);
    return matmul_add(expand(*c, shape), a, b, transpose_a, transpose_b);
  }
  const detail::Header& addend = *c->header();
  Tensor sum;
  if (detail::is_donatable(c) && !addend.node && !addend.tangents && c->header() != a.header() &&
      c->header() != b.header()) {
    sum = c.take();
  } else {
    sum = detail::make_tensor(shape, addend.dtype);
    detail::backend_of(sum).copy(detail::view_of(*c), detail::view_of(sum));
  }
  detail::backend_of(sum).product(detail::view_of(a), transpose_a, detail::view_of(b), transpose_b,
                                  detail::view_of(sum), true);
  const detail::Saves saves{(detail::links_of(b).any() ? 2u : 0u) | (detail::links_of(a).any() ? 4u : 0u), 0};
  const detail::MatmulAttributes attributes{transpose_a, transpose_b};
  // A donated addend had no links: an absent operand stands for it.
  return detail::finish_one(detail::matmul_add_rule, saves, attributes, std::move(sum), *c, a, b);
}

}  // namespace hypertape
