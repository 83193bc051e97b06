// Comparisons, logic on their results, and the selection that they are for.
#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/tape/node.h"

namespace hypertape {
namespace detail {
namespace {

void require_boolean(const char* op, const char* what, const Tensor& x) {
  const Header& header = header_of(op, x);
  if (header.dtype != Dtype::boolean)
    fail(op, what, " must be boolean, not ", header.dtype, " of shape ", x.shape());
}

void require_one_dtype(const char* op, const Tensor& a, const Tensor& b) {
  if (header_of(op, a).dtype != header_of(op, b).dtype)
    fail(op, "dtypes differ: ", a.dtype(), " of shape ", a.shape(), " and ", b.dtype(), " of shape ",
         b.shape(), "; convert one of them");
}

Tensor relate(const char* op, Relation relation, const Tensor& a, const Tensor& b) {
  Tensor result = make_tensor(broadcast_shapes(op, a.shape(), b.shape()), Dtype::boolean);
  backend_of(a)->relate(relation, view_of(a), view_of(b), view_of(result));
  return result;
}

Tensor compare(const char* op, Relation relation, const Tensor& a, const Tensor& b) {
  require_one_dtype(op, a, b);
  const bool ordered = relation != Relation::equal && relation != Relation::not_equal;
  if (ordered && a.header()->dtype == Dtype::boolean)
    fail(op, "booleans have no order; shapes ", a.shape(), " and ", b.shape());
  return relate(op, relation, a, b);
}

Tensor compare(const char* op, Relation relation, const Tensor& x, double number) {
  return relate(op, relation, x, number_like(op, x, number));
}

Tensor combine(const char* op, Relation relation, const Tensor& a, const Tensor& b) {
  require_boolean(op, "operands", a);
  require_boolean(op, "operands", b);
  return relate(op, relation, a, b);
}

struct WhereAttributes {
  Shape a, b, output;
};

Tensor zero_like(const Tensor& x) { return Tensor::scalar(0.0, x.dtype()); }

// The mask selects cotangents as it selected values, so that nothing of the branch not taken arrives.
constexpr OpRule where_rule =
    masking({"where",
             [](Pull& pull) {
               const auto& at = pull.attributes<WhereAttributes>();
               const Tensor &mask = pull.input(0), &t = pull.cotangent(), zero = zero_like(t);
               if (pull.needs(1)) pull.gradients[1] = sum_to(where(mask, t, zero), at.a);
               if (pull.needs(2)) pull.gradients[2] = sum_to(where(mask, zero, t), at.b);
             },
             [](Push& push) {
               const Tensor &a = push.tangents[1], &b = push.tangents[2];
               const Tensor zero = zero_like(a.defined() ? a : b);
               const Tensor chosen = where(push.input(0), a.defined() ? a : zero, b.defined() ? b : zero);
               push.results[0] = contiguous(expand(chosen, push.attributes<WhereAttributes>().output));
             }});

}  // namespace
}  // namespace detail

#define HYPERTAPE_COMPARISON(name)                                    \
  Tensor name(const Tensor& a, const Tensor& b) {                     \
    return detail::compare(#name, detail::Relation::name, a, b);      \
  }                                                                   \
  Tensor name(const Tensor& x, double number) {                       \
    return detail::compare(#name, detail::Relation::name, x, number); \
  }
HYPERTAPE_COMPARISON(less)
HYPERTAPE_COMPARISON(less_equal)
HYPERTAPE_COMPARISON(greater)
HYPERTAPE_COMPARISON(greater_equal)
HYPERTAPE_COMPARISON(equal)
HYPERTAPE_COMPARISON(not_equal)
#undef HYPERTAPE_COMPARISON

Tensor logical_and(const Tensor& a, const Tensor& b) {
  return detail::combine("logical_and", detail::Relation::both, a, b);
}
Tensor logical_or(const Tensor& a, const Tensor& b) {
  return detail::combine("logical_or", detail::Relation::either, a, b);
}
Tensor logical_not(const Tensor& x) {
  detail::require_boolean("logical_not", "operand", x);
  return detail::relate("logical_not", detail::Relation::not_equal, x, Tensor::scalar(1.0, Dtype::boolean));
}

Tensor where(const Tensor& mask, const Tensor& a, const Tensor& b) {
  detail::require_boolean("where", "mask", mask);
  detail::require_one_dtype("where", a, b);
  const Shape shape =
      broadcast_shapes("where", mask.shape(), broadcast_shapes("where", a.shape(), b.shape()));
  Tensor result = detail::make_tensor(shape, a.dtype());
  detail::backend_of(a)->select(detail::view_of(mask), detail::view_of(a), detail::view_of(b),
                                detail::view_of(result));
  return detail::finish_one(detail::where_rule, {1, 0}, detail::WhereAttributes{a.shape(), b.shape(), shape},
                            std::move(result), mask, a, b);
}
Tensor where(const Tensor& mask, const Tensor& a, double b) {
  return where(mask, a, detail::number_like("where", a, b));
}
Tensor where(const Tensor& mask, double a, const Tensor& b) {
  return where(mask, detail::number_like("where", b, a), b);
}

}  // namespace hypertape
