#include "bilevel/minimum/series_term.h"

#include <cmath>
#include <limits>

#include "bilevel/minimum/linear_operator.h"
#include "bilevel/run/method.h"
#include "core/backend/backend.h"

namespace hypertape::bilevel::detail {
namespace {

// A root of a sum of squares that neither overflowed nor vanished, or NaN.
double careful_root(double squares, Dtype dtype) {
  const double least = dtype == Dtype::float32 ? 1e-30 : 1e-280;
  return std::isfinite(squares) && squares > least ? std::sqrt(squares)
                                                   : std::numeric_limits<double>::quiet_NaN();
}

void measure_carefully(const TensorList& x, const TensorList& ax, SeriesTerm& term) {
  const double x_norm = norm(x), ax_norm = norm(ax);
  if (x_norm == 0.0) return;
  term.stretch = ax_norm / x_norm;
  if (ax_norm == 0.0) return;
  const Scaled from(x), to(ax);
  term.cosine = inner_product(from.vector(), to.vector()) / (from.size() * to.size());
}

}  // namespace

SeriesTerm series_term(const TensorList& x, const TensorList& ax, const TensorList& b, const TensorList& step,
                       double rate, double momentum) {
  using hypertape::detail::make_contiguous, hypertape::detail::make_tensor, hypertape::detail::view_of;
  SeriesTerm term;
  hypertape::detail::SeriesSums total;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Tensor old = make_contiguous(x[i]), product = make_contiguous(ax[i]), right = make_contiguous(b[i]);
    const Tensor next = make_tensor(old.shape(), old.dtype());
    hypertape::detail::SeriesViews views{view_of(old), view_of(product), view_of(right), view_of(next)};
    Tensor last, moved;
    if (momentum != 0.0) {
      views.step = view_of(last = make_contiguous(step[i]));
      views.next_step = view_of(moved = make_tensor(old.shape(), old.dtype()));
      term.step.push_back(moved);
    }
    views.rate = rate;
    views.momentum = momentum;
    views.sums = &total;
    hypertape::detail::backend_of(old)->series_step(views);
    term.x.push_back(next);
  }
  const Dtype dtype = x.front().dtype();
  const double x_norm = careful_root(total.xx, dtype), ax_norm = careful_root(total.axax, dtype);
  if (!std::isnan(x_norm) && !std::isnan(ax_norm)) {
    term.stretch = ax_norm / x_norm;
    term.cosine = total.x_ax / x_norm / ax_norm;
  } else {
    measure_carefully(x, ax, term);
  }
  term.residual = careful_root(total.rr, dtype);
  if (std::isnan(term.residual)) term.residual = norm(plus(b, -1.0, ax));
  return term;
}

}  // namespace hypertape::bilevel::detail
