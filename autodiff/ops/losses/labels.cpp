// Integer labels and the softmax cross entropy: fused operations, whose gradients are fused operations of
// their own, whose derivatives are written with public operations. Soft labels and weights:
// autodiff/ops/losses/losses.cpp.
#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"
#include "autodiff/ops/losses/integer_labels.h"
#include "autodiff/tape/support.h"

namespace hypertape {
namespace detail {
namespace {

struct ClassesAttributes {
  std::int64_t classes;
};

constexpr OpRule gather_rule =
    selecting({"gather_labels",
               [](Pull& pull) {
                 pull.gradients[0] = scatter_labels(pull.cotangent(), pull.input(1),
                                                    pull.attributes<ClassesAttributes>().classes);
               },
               [](Push& push) { push.results[0] = gather_labels(push.tangents[0], push.input(1)); }});

constexpr OpRule scatter_rule = placing(
    {"scatter_labels", [](Pull& pull) { pull.gradients[0] = gather_labels(pull.cotangent(), pull.input(1)); },
     [](Push& push) {
       push.results[0] =
           scatter_labels(push.tangents[0], push.input(1), push.attributes<ClassesAttributes>().classes);
     }});

Tensor one_like(const Tensor& x) { return Tensor::scalar(1.0, x.dtype()); }

constexpr OpRule cross_entropy_rule = {
    "softmax_cross_entropy",
    [](Pull& pull) {
      pull.gradients[0] = softmax_cross_entropy_gradient(pull.cotangent(), pull.input(0), pull.input(1));
    },
    [](Push& push) {
      const Tensor& x = push.input(0);
      push.results[0] = dot(softmax_cross_entropy_gradient(one_like(x), x, push.input(1)), push.tangents[0]);
    }};

// scale (diag(p) - p p') s for each row, p = softmax(logits): the losses' Hessian, symmetric in s. `scales`
// are those of the rows, or with `mean` one element, divided by their number.
Tensor apply_hessian(const Tensor& scales, bool mean, const Tensor& logits, const Tensor& s);

struct HessianAttributes {
  bool mean;
};

// What multiplies the rows, as a column or a scalar.
Tensor row_scales(const Tensor& scales, bool mean, std::int64_t rows) {
  return mean ? divide_scalar(scales, static_cast<double>(rows)) : reshape(scales, {rows, 1});
}

// (diag(p) - p p') s, and its derivative along q of p.
Tensor spread(const Tensor& p, const Tensor& s) { return p * (s - sum(p * s, {1}, true)); }
Tensor spread_along(const Tensor& p, const Tensor& q, const Tensor& s) {
  return q * (s - sum(p * s, {1}, true)) - p * sum(q * s, {1}, true);
}

// Gradients of one scale a row, and of what has rows: those that were not selected keep their zeros.
void select_rows(Pull& pull) {
  const std::int64_t rows = pull.cotangent().extent(0);
  for (std::size_t i = 0; i < pull.gradients.size(); ++i) {
    const Tensor& gradient = pull.gradients[i];
    if (gradient.defined())
      select_lines(pull, static_cast<int>(i), 1, gradient.rank() == 1 ? Shape{rows} : Shape{rows, 1});
  }
}

// Inputs: scales, logits, s.
constexpr OpRule hessian_rule = handling(
    {"softmax_cross_entropy_gradient",
     [](Pull& pull) {
       const Tensor &scales = pull.input(0), &x = pull.input(1), &s = pull.input(2), &t = pull.cotangent();
       const bool mean = pull.attributes<HessianAttributes>().mean;
       if (pull.needs(0)) {
         const Tensor products = spread(softmax(x), s) * t;
         pull.gradients[0] =
             mean ? reshape(divide_scalar(sum(products), static_cast<double>(x.extent(0))), scales.shape())
                  : sum(products, {1});
       }
       if (pull.needs(1)) {
         // The trilinear form t' (dp/dx)[s] is symmetric in s, t and dx.
         const Tensor p = softmax(x);
         pull.gradients[1] = row_scales(scales, mean, x.extent(0)) * spread_along(p, spread(p, t), s);
       }
       if (pull.needs(2)) pull.gradients[2] = apply_hessian(scales, mean, x, t);
       if (!mean) select_rows(pull);
     },
     [](Push& push) {
       const Tensor &scales = push.input(0), &x = push.input(1), &s = push.input(2);
       const bool mean = push.attributes<HessianAttributes>().mean;
       const Shape rows{x.extent(0), 1};
       PushedLines sum(push, !mean);
       if (push.tangents[0].defined()) sum.add(0, apply_hessian(push.tangents[0], mean, x, s), -1, rows);
       if (push.tangents[1].defined()) {
         const Tensor p = softmax(x);
         sum.add(1, row_scales(scales, mean, x.extent(0)) * spread_along(p, spread(p, push.tangents[1]), s),
                 1, rows);
       }
       if (push.tangents[2].defined()) sum.add(2, apply_hessian(scales, mean, x, push.tangents[2]), 1, rows);
       sum.finish();
     }});

Tensor apply_hessian(const Tensor& scales, bool mean, const Tensor& logits, const Tensor& s) {
  Tensor result = make_tensor(logits.shape(), logits.dtype());
  const Tensor rows = make_contiguous(logits), directions = make_contiguous(s);
  backend_of(logits)->softmax_cross_entropy_curvature(view_of(scales), mean, view_of(rows),
                                                      view_of(directions), view_of(result));
  return finish_one(hessian_rule, {7, 0}, HessianAttributes{mean}, std::move(result), scales, logits, s);
}

// Inputs: scale, logits, labels.
constexpr OpRule cross_entropy_gradient_rule = {
    "softmax_cross_entropy_gradient",
    [](Pull& pull) {
      const Tensor &scale = pull.input(0), &x = pull.input(1);
      if (pull.needs(0)) {
        const Tensor unit = softmax_cross_entropy_gradient(one_like(x), x, pull.input(2));
        pull.gradients[0] = reshape(dot(unit, pull.cotangent()), scale.shape());
      }
      if (pull.needs(1)) pull.gradients[1] = apply_hessian(scale, true, x, pull.cotangent());
    },
    [](Push& push) {
      Tensor total;
      if (push.tangents[0].defined())
        total = softmax_cross_entropy_gradient(push.tangents[0], push.input(1), push.input(2));
      if (push.tangents[1].defined()) {
        Tensor term = apply_hessian(push.input(0), true, push.input(1), push.tangents[1]);
        total = total.defined() ? add(std::move(total), std::move(term)) : std::move(term);
      }
      push.results[0] = std::move(total);
    }};

// The same for one loss a row, where scale has an element for each.
Tensor losses_gradient(const Tensor& scales, const Tensor& logits, const Tensor& labels);

constexpr OpRule losses_rule = handling(
    {"softmax_cross_entropy_losses",
     [](Pull& pull) {
       pull.gradients[0] = losses_gradient(pull.cotangent(), pull.input(0), pull.input(1));
       // A row that is left out, or counts with the weight 0, has no gradient, even where it is NaN.
       select_lines(pull, 0, -1, Shape{pull.input(1).size(), 1});
     },
     [](Push& push) {
       const Tensor &x = push.input(0), &labels = push.input(1);
       PushedLines lines(push);
       lines.add(
           0,
           sum(losses_gradient(Tensor::ones(labels.shape(), x.dtype()), x, labels) * push.tangents[0], {1}),
           1, labels.shape());
       lines.finish();
     }});

// Inputs: scales, logits, labels.
constexpr OpRule losses_gradient_rule =
    handling({"softmax_cross_entropy_losses",
              [](Pull& pull) {
                const Tensor &scales = pull.input(0), &x = pull.input(1), &labels = pull.input(2);
                if (pull.needs(0)) {
                  const Tensor unit = losses_gradient(Tensor::ones(scales.shape(), x.dtype()), x, labels);
                  pull.gradients[0] = sum(unit * pull.cotangent(), {1});
                }
                if (pull.needs(1)) pull.gradients[1] = apply_hessian(scales, false, x, pull.cotangent());
                select_rows(pull);
              },
              [](Push& push) {
                const Shape rows{push.input(1).extent(0), 1};
                PushedLines sum(push);
                if (push.tangents[0].defined())
                  sum.add(0, losses_gradient(push.tangents[0], push.input(1), push.input(2)), -1, rows);
                if (push.tangents[1].defined())
                  sum.add(1, apply_hessian(push.input(0), false, push.input(1), push.tangents[1]), 1, rows);
                sum.finish();
              }});

Tensor losses_gradient(const Tensor& scales, const Tensor& logits, const Tensor& labels) {
  Tensor result = make_tensor(logits.shape(), logits.dtype());
  const Tensor rows = make_contiguous(logits);
  backend_of(logits)->softmax_cross_entropy_gradient(view_of(scales), false, view_of(rows), view_of(labels),
                                                     view_of(result));
  return finish_one(losses_gradient_rule, {7, 0}, NoAttributes{}, std::move(result), scales, logits, labels);
}

void require_labels(const char* op, const Tensor& labels, std::int64_t rows, std::int64_t classes) {
  const Header& header = header_of(op, labels);
  if (header.dtype != Dtype::int64) fail(op, "labels must be int64, not ", header.dtype);
  if (header.rank != 1 || header.extents()[0] != rows)
    fail(op, "labels have shape ", labels.shape(), ", expected (", rows, ")");
  const OutsideIndex found = backend_of(labels)->first_outside(view_of(labels), classes);
  if (found.position >= 0)
    fail(op, "label ", found.value, " of row ", found.position, " is outside 0..", classes - 1, " (", classes,
         " classes)");
}

void require_rows(const char* op, const Tensor& rows, const Tensor& labels) {
  require_floating(op, rows);
  if (rows.rank() != 2) fail(op, "needs rows of shape (N, C), not ", rows.shape());
  require_labels(op, labels, rows.extent(0), rows.extent(1));
}

void require_nonempty(const char* op, const Tensor& rows) {
  if (rows.size() == 0) fail(op, "needs at least one row and one class, not shape ", rows.shape());
}

}  // namespace
}  // namespace detail

using detail::backend_of;
using detail::finish_one;
using detail::make_contiguous;
using detail::make_tensor;
using detail::view_of;

Tensor gather_labels(const Tensor& rows, const Tensor& labels) {
  detail::require_rows("gather_labels", rows, labels);
  Tensor result = make_tensor(Shape{rows.extent(0)}, rows.dtype());
  backend_of(rows)->gather_labels(view_of(rows), view_of(labels), view_of(result));
  return finish_one(detail::gather_rule, {2, 0}, detail::ClassesAttributes{rows.extent(1)}, std::move(result),
                    rows, labels);
}

Tensor scatter_labels(const Tensor& values, const Tensor& labels, std::int64_t classes) {
  detail::require_floating("scatter_labels", values);
  if (values.rank() != 1) fail("scatter_labels", "needs a vector, not shape ", values.shape());
  const std::array<std::int64_t, 2> extents{values.size(), classes};
  const Shape shape = detail::shape_of("scatter_labels", extents);
  detail::require_labels("scatter_labels", labels, values.size(), classes);
  Tensor result = make_tensor(shape, values.dtype());
  backend_of(values)->scatter_labels(view_of(values), view_of(labels), view_of(result));
  return finish_one(detail::scatter_rule, {2, 0}, detail::ClassesAttributes{classes}, std::move(result),
                    values, labels);
}

namespace detail {

Tensor integer_cross_entropy(const Tensor& logits, const Tensor& labels) {
  require_rows("softmax_cross_entropy", logits, labels);
  require_nonempty("softmax_cross_entropy", logits);
  Tensor result = make_tensor(Shape{}, logits.dtype());
  const Tensor rows = make_contiguous(logits);
  backend_of(logits)->softmax_cross_entropy(view_of(rows), view_of(labels), view_of(result));
  return finish_one(cross_entropy_rule, {3, 0}, NoAttributes{}, std::move(result), logits, labels);
}

Tensor integer_cross_entropy_losses(const char* op, const Tensor& logits, const Tensor& labels) {
  require_rows(op, logits, labels);
  require_nonempty(op, logits);
  Tensor result = make_tensor(Shape{logits.extent(0)}, logits.dtype());
  const Tensor rows = make_contiguous(logits);
  backend_of(logits)->softmax_cross_entropy_losses(view_of(rows), view_of(labels), view_of(result));
  return finish_one(losses_rule, {3, 0}, NoAttributes{}, std::move(result), logits, labels);
}

}  // namespace detail

Tensor softmax_cross_entropy_gradient(const Tensor& scale, const Tensor& logits, const Tensor& labels) {
  detail::require_rows("softmax_cross_entropy_gradient", logits, labels);
  detail::require_nonempty("softmax_cross_entropy_gradient", logits);
  detail::require_same_dtype("softmax_cross_entropy_gradient", scale, logits);
  if (scale.size() != 1)
    fail("softmax_cross_entropy_gradient", "scale must be one element, not shape ", scale.shape());
  Tensor result = make_tensor(logits.shape(), logits.dtype());
  const Tensor rows = make_contiguous(logits);
  backend_of(logits)->softmax_cross_entropy_gradient(view_of(scale), true, view_of(rows), view_of(labels),
                                                     view_of(result));
  return finish_one(detail::cross_entropy_gradient_rule, {7, 0}, detail::NoAttributes{}, std::move(result),
                    scale, logits, labels);
}

}  // namespace hypertape
