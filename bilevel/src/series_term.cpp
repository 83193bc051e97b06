#include "series_term.h"

#include <cmath>
#include <limits>

#include "backend.h"
#include "linear_operator.h"
#include "method.h"

namespace hypertape::bilevel::detail {
namespace {

// A root of a sum of squares that neither overflowed nor vanished, or NaN.
double careful_root(double squares, Dtype dtype) {
  const double least = dtype == Dtype::float32 ? 1e-30 : 1e-280;
  return std::isfinite(squares) && squares > least ? std::sqrt(squares)
                                                   : std::numeric_limits<double>::quiet_NaN();
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
    hypertape::detail::backend_of(old).series_step(views);
    term.x.push_back(next);
  }
  const Dtype dtype = x.front().dtype();
  term.x_ax = total.x_ax;
  term.x_norm = careful_root(total.xx, dtype);
  term.ax_norm = careful_root(total.axax, dtype);
  term.residual = careful_root(total.rr, dtype);
  if (std::isnan(term.x_norm)) term.x_norm = norm(x);
  if (std::isnan(term.ax_norm)) term.ax_norm = norm(ax);
  if (std::isnan(term.residual)) term.residual = norm(plus(b, -1.0, ax));
  return term;
}

}  // namespace hypertape::bilevel::detail
