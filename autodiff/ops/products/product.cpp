#include <array>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/tape/node.h"

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

void pull_a(Pull& pull, int input, const Tensor& b, const MatmulAttributes& at) {
  if (!pull.needs(input)) return;
  const Tensor& g = pull.cotangent();
  at.transpose_a ? pull_product(pull, input, b, g, at.transpose_b, true)
                 : pull_product(pull, input, g, b, false, !at.transpose_b);
}
void pull_b(Pull& pull, int input, const Tensor& a, const MatmulAttributes& at) {
  if (!pull.needs(input)) return;
  const Tensor& g = pull.cotangent();
  at.transpose_b ? pull_product(pull, input, g, a, true, at.transpose_a)
                 : pull_product(pull, input, a, g, !at.transpose_a, false);
}

void pull_matmul(Pull& pull) {
  const auto& at = pull.attributes<MatmulAttributes>();
  pull_a(pull, 0, pull.input(1), at);
  pull_b(pull, 1, pull.input(0), at);
}

// Adds the product to what is there, if anything is.
Tensor accumulate(Tensor total, const Tensor& a, const Tensor& b, const MatmulAttributes& at) {
  return total.defined() ? matmul_add(std::move(total), a, b, at.transpose_a, at.transpose_b)
                         : matmul(a, b, at.transpose_a, at.transpose_b);
}

// total + a' b + a b', any of which may be missing.
Tensor add_product_tangent(Tensor total, const Tensor* a_tangent, const Tensor& a, const Tensor* b_tangent,
                           const Tensor& b, const MatmulAttributes& at) {
  if (a_tangent) total = accumulate(std::move(total), *a_tangent, b, at);
  if (b_tangent) total = accumulate(std::move(total), a, *b_tangent, at);
  return total;
}
const Tensor* if_defined(const Tensor& tensor) { return tensor.defined() ? &tensor : nullptr; }

void push_matmul(Push& push) {
  push.results[0] =
      add_product_tangent({}, if_defined(push.tangents[0]), push.input(0), if_defined(push.tangents[1]),
                          push.input(1), push.attributes<MatmulAttributes>());
}

// A stack of tangents is a batch of products, against one matrix.
constexpr OpRule matmul_rule = {"matmul", pull_matmul, push_matmul, nullptr, nullptr, false, push_matmul};

// Inputs: c, a, b. The addend takes part as the identity.
void pull_matmul_add(Pull& pull) {
  const auto& at = pull.attributes<MatmulAttributes>();
  pull_a(pull, 1, pull.input(2), at);
  pull_b(pull, 2, pull.input(1), at);
  if (pull.needs(0)) pull.gradients[0] = std::move(pull.cotangents[0]);
}

void push_matmul_add(Push& push) {
  const auto& at = push.attributes<MatmulAttributes>();
  Tensor total = std::move(push.tangents[0]);
  if (push.tangents[1].defined()) total = accumulate(std::move(total), push.tangents[1], push.input(2), at);
  if (push.tangents[2].defined()) total = accumulate(std::move(total), push.input(1), push.tangents[2], at);
  push.results[0] = std::move(total);
}

constexpr OpRule matmul_add_rule = {"matmul_add", pull_matmul_add, push_matmul_add, nullptr,
                                    nullptr,      false,           push_matmul_add};

// Batches: the products' gradients have every batch axis of the result, of which an operand that was
// broadcast gets the sum.
struct BatchAttributes {
  MatmulAttributes matrices;
  Shape a, b;
};

// Extents before the last two.
std::span<const std::int64_t> batch_of(const Shape& shape) {
  return shape.extents().first(static_cast<std::size_t>(shape.rank() - 2));
}

Tensor folded_rows(const Tensor& x) {
  return reshape(x, {Shape(batch_of(x.shape())).size() * x.extent(-2), x.extent(-1)});
}

Tensor batch_gradient_a(const Tensor& g, const Tensor& b, const BatchAttributes& at) {
  return sum_to(gradient_a(g, b, at.matrices), at.a);
}
Tensor batch_gradient_b(const Tensor& g, const Tensor& a, const BatchAttributes& at) {
  // One matrix for all: the sum over the batch is part of the product's inner sum.
  if (Shape(batch_of(at.b)).size() == 1 && !at.matrices.transpose_a)
    return reshape(gradient_b(folded_rows(g), folded_rows(a), at.matrices), at.b);
  return sum_to(gradient_b(g, a, at.matrices), at.b);
}

void pull_batch(Pull& pull) {
  const auto& at = pull.attributes<BatchAttributes>();
  if (pull.needs(0)) pull.gradients[0] = batch_gradient_a(pull.cotangent(), pull.input(1), at);
  if (pull.needs(1)) pull.gradients[1] = batch_gradient_b(pull.cotangent(), pull.input(0), at);
}

void push_batch(Push& push) {
  const auto& at = push.attributes<BatchAttributes>().matrices;
  push.results[0] = add_product_tangent({}, if_defined(push.tangents[0]), push.input(0),
                                        if_defined(push.tangents[1]), push.input(1), at);
}

constexpr OpRule batch_rule = {"matmul", pull_batch, push_batch};

// Inputs: c, a, b.
void pull_batch_add(Pull& pull) {
  const auto& at = pull.attributes<BatchAttributes>();
  if (pull.needs(1)) pull.gradients[1] = batch_gradient_a(pull.cotangent(), pull.input(2), at);
  if (pull.needs(2)) pull.gradients[2] = batch_gradient_b(pull.cotangent(), pull.input(1), at);
  if (pull.needs(0)) pull.gradients[0] = std::move(pull.cotangents[0]);
}

void push_batch_add(Push& push) {
  const auto& at = push.attributes<BatchAttributes>().matrices;
  Tensor total = std::move(push.tangents[0]);
  if (push.tangents[1].defined()) total = accumulate(std::move(total), push.tangents[1], push.input(2), at);
  if (push.tangents[2].defined()) total = accumulate(std::move(total), push.input(1), push.tangents[2], at);
  push.results[0] = std::move(total);
}

constexpr OpRule batch_add_rule = {"matmul_add", pull_batch_add, push_batch_add};

Shape product_shape(const char* op, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  const Header &left = *a.header(), &right = *b.header();
  const std::int64_t *rows = left.extents() + left.rank - 2, *columns = right.extents() + right.rank - 2;
  const std::int64_t m = rows[transpose_a ? 1 : 0], k = rows[transpose_a ? 0 : 1];
  const std::int64_t inner = columns[transpose_b ? 1 : 0], n = columns[transpose_b ? 0 : 1];
  if (k != inner)
    fail(op, "inner extents differ: ", k, " of the first operand with shape ", a.shape(),
         transpose_a ? " transposed" : "", " and ", inner, " of the second with shape ", b.shape(),
         transpose_b ? " transposed" : "");
  if (left.rank == 2 && right.rank == 2) return Shape{m, n};
  const Shape batch_a(batch_of(a.shape())), batch_b(batch_of(b.shape()));
  std::vector<std::int64_t> extents;
  try {
    const Shape batch = broadcast_shapes(op, batch_a, batch_b);
    extents.assign(batch.begin(), batch.end());
  } catch (const Error&) {
    fail(op, "the batches ", batch_a, " of the first operand with shape ", a.shape(), " and ", batch_b,
         " of the second with shape ", b.shape(), " do not broadcast");
  }
  extents.push_back(m);
  extents.push_back(n);
  return Shape(std::span<const std::int64_t>(extents));
}

// The operand with the batch axes of `product`, as the backend wants it.
Tensor with_batch(const Tensor& x, const Shape& product) {
  const Header& header = *x.header();
  std::vector<std::int64_t> extents(product.begin(), product.end() - 2);
  extents.insert(extents.end(), header.extents() + header.rank - 2, header.extents() + header.rank);
  const Shape shape{std::span<const std::int64_t>(extents)};
  if (shape == x.shape()) return x;
  std::array<std::int64_t, max_rank> strides{};
  const int missing = shape.rank() - header.rank;
  for (int axis = missing; axis < shape.rank(); ++axis)
    if (axis >= shape.rank() - 2 || header.extents()[axis - missing] != 1)
      strides[static_cast<std::size_t>(axis)] = header.strides()[axis - missing];
  return make_view(x, shape, strides.data(), 0);
}

// target = op(a) op(b), added to what is there if `accumulate`.
void multiply_into(const Tensor& target, const Tensor& a, const Tensor& b, const MatmulAttributes& at,
                   bool accumulate) {
  const Shape shape = target.shape();
  const Tensor left = shape.rank() == 2 ? a : with_batch(a, shape);
  const Tensor right = shape.rank() == 2 ? b : with_batch(b, shape);
  backend_of(target)->product(view_of(left), at.transpose_a, view_of(right), at.transpose_b, view_of(target),
                              accumulate);
}

// Into `c`, memory of the product's shape, if it is given.
Tensor matmul_matrices(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Tensor c = {}) {
  const MatmulAttributes at{transpose_a, transpose_b};
  if (!c.defined())
    c = make_tensor(product_shape("matmul", a, b, transpose_a, transpose_b), a.header()->dtype);
  multiply_into(c, a, b, at, false);
  // Each operand's derivative needs the other one.
  const Saves saves{(links_of(b).any() ? 1u : 0u) | (links_of(a).any() ? 2u : 0u), 0};
  if (c.header()->rank == 2) return finish_one(matmul_rule, saves, at, std::move(c), a, b);
  if (!saves.inputs) return c;
  return finish_one(batch_rule, saves, BatchAttributes{at, a.shape(), b.shape()}, std::move(c), a, b);
}

}  // namespace

void pull_product(Pull& pull, int input, const Tensor& a, const Tensor& b, bool transpose_a,
                  bool transpose_b) {
  Tensor sum = pull.take_sum(input);
  const std::uint64_t scope = pull.tangent_alone(input);
  if (scope == 0) {
    pull.gradients[static_cast<std::size_t>(input)] =
        sum.defined() ? matmul_add(std::move(sum), a, b, transpose_a, transpose_b)
                      : matmul_matrices(a, b, transpose_a, transpose_b, pull.destination(input, a.dtype()));
    return;
  }
  Tensor total;
  if (sum.defined())
    if (const Tensor* tangent = find_tangent(*sum.header(), scope)) total = *tangent;
  sum = Tensor();  // the total now has its memory for itself
  const ScopeMask mask({scope, scope_bound()});
  pull.set_tangent(input,
                   add_product_tangent(std::move(total), find_tangent(*a.header(), scope), a,
                                       find_tangent(*b.header(), scope), b, {transpose_a, transpose_b}));
}

}  // namespace detail

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  detail::require_same_dtype("matmul", a, b);
  const int ranks[] = {a.header()->rank, b.header()->rank};
  if (ranks[0] >= 2 && ranks[1] >= 2) return detail::matmul_matrices(a, b, transpose_a, transpose_b);
  for (const int rank : ranks)
    if (rank < 1)
      fail("matmul", "needs operands of rank 1 or more, not shapes ", a.shape(), " and ", b.shape());
  if ((ranks[0] == 1 && transpose_a) || (ranks[1] == 1 && transpose_b))
    fail("matmul", "a vector cannot be transposed: shapes ", a.shape(), " and ", b.shape());
  const Tensor left = ranks[0] == 1 ? reshape(a, {1, a.size()}) : a;
  const Tensor right = ranks[1] == 1 ? reshape(b, {b.size(), 1}) : b;
  const Tensor c = detail::matmul_matrices(left, right, transpose_a, transpose_b);
  const Shape shape = c.shape();
  std::vector<std::int64_t> extents(shape.begin(), shape.end() - 2);
  if (ranks[0] != 1) extents.push_back(shape[shape.rank() - 2]);
  if (ranks[1] != 1) extents.push_back(shape[shape.rank() - 1]);
  return reshape(c, Shape(std::span<const std::int64_t>(extents)));
}

Tensor matmul_add(Operand c, const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  detail::require_same_dtype("matmul_add", a, b);
  detail::require_same_dtype("matmul_add", a, *c);
  if (a.rank() < 2 || b.rank() < 2)
    fail("matmul_add", "needs factors of rank 2 or more, not shapes ", a.shape(), " and ", b.shape());
  const Shape shape = detail::product_shape("matmul_add", a, b, transpose_a, transpose_b);
  if (c->shape() != shape) {
    if (broadcast_shapes("matmul_add", c->shape(), shape) != shape)
      fail("matmul_add", "the addend has shape ", c->shape(), ", the product ", shape);
    return matmul_add(expand(*c, shape), a, b, transpose_a, transpose_b);
  }
  // Lent memory outlives the addend, which is recorded like any other.
  const bool lends = detail::is_donatable(c) && !c->header()->tangents && c->header() != a.header() &&
                     c->header() != b.header();
  const Tensor addend = lends ? c.take() : *c;
  Tensor sum;
  if (lends) {
    sum = detail::make_alias(addend);
  } else {
    sum = detail::make_tensor(shape, addend.dtype());
    detail::backend_of(sum)->copy(detail::view_of(addend), detail::view_of(sum));
  }
  const detail::MatmulAttributes at{transpose_a, transpose_b};
  detail::multiply_into(sum, a, b, at, true);
  const detail::Saves saves{(detail::links_of(b).any() ? 2u : 0u) | (detail::links_of(a).any() ? 4u : 0u), 0};
  if (shape.rank() == 2)
    return detail::finish_one(detail::matmul_add_rule, saves, at, std::move(sum), addend, a, b);
  return detail::finish_one(detail::batch_add_rule, saves, detail::BatchAttributes{at, a.shape(), b.shape()},
                            std::move(sum), addend, a, b);
}

Tensor outer(const Tensor& a, const Tensor& b) {
  detail::require_same_dtype("outer", a, b);
  if (a.rank() != 1 || b.rank() != 1)
    fail("outer", "needs two vectors, not shapes ", a.shape(), " and ", b.shape());
  return matmul(reshape(a, {a.size(), 1}), reshape(b, {1, b.size()}));
}

}  // namespace hypertape
