#include "series_term.h"

#include <cmath>
#include <limits>
#include <vector>

#include "backend.h"
#include "hypertape/autodiff/ops.h"
#include "hypertape/core/parallel.h"
#include "linear_operator.h"
#include "method.h"

namespace hypertape::bilevel::detail {
namespace {

using hypertape::detail::ElementwiseCode;

// Elements that the steps of one block share in the second-level cache.
constexpr std::int64_t block_size = 16384;

struct Sums {
  double xx = 0.0, axax = 0.0, x_ax = 0.0, rr = 0.0;
  void operator+=(const Sums& other) {
    xx += other.xx;
    axax += other.axax;
    x_ax += other.x_ax;
    rr += other.rr;
  }
};

Tensor part(const Tensor& vector, std::int64_t begin, std::int64_t end) {
  return hypertape::detail::make_view(vector, Shape{end - begin}, nullptr, begin);
}

void add_into(const Tensor& target, const Tensor& a, const Tensor& b) {
  hypertape::detail::ElementwiseCall call;
  call.kernel = hypertape::detail::elementwise_kernels(ElementwiseCode::add).value;
  call.inputs[0] = &a;
  call.inputs[1] = &b;
  call.input_count = 2;
  call.outputs[0] = &target;
  call.output_count = 1;
  hypertape::detail::backend_of(target).elementwise(call);
}

// A root of a sum of squares that neither overflowed nor vanished, or NaN.
double careful_root(double squares, Dtype dtype) {
  const double least = dtype == Dtype::float32 ? 1e-30 : 1e-280;
  return std::isfinite(squares) && squares > least ? std::sqrt(squares)
                                                   : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

SeriesTerm series_term(const TensorList& x, const TensorList& ax, const TensorList& b, const TensorList& step,
                       double rate, double momentum) {
  using hypertape::detail::make_contiguous;
  SeriesTerm term;
  Sums total;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Tensor old = make_contiguous(x[i]), product = make_contiguous(ax[i]), right = make_contiguous(b[i]);
    const Tensor last = momentum == 0.0 ? Tensor() : make_contiguous(step[i]);
    const Tensor next = hypertape::detail::make_tensor(old.shape(), old.dtype());
    const Tensor moved =
        momentum == 0.0 ? Tensor() : hypertape::detail::make_tensor(old.shape(), old.dtype());
    const std::int64_t size = old.size(), blocks = (size + block_size - 1) / block_size;
    std::vector<Sums> sums(static_cast<std::size_t>(blocks));
    parallel_ranges(size, block_size, [&](std::int64_t begin, std::int64_t end) {
      const auto of = [&](const Tensor& vector) { return part(vector, begin, end); };
      const Tensor x_part = of(old), ax_part = of(product);
      Tensor r = subtract(of(right), ax_part);
      sums[static_cast<std::size_t>(begin / block_size)] = {dot(x_part, x_part).item(),
                                                            dot(ax_part, ax_part).item(),
                                                            dot(x_part, ax_part).item(), dot(r, r).item()};
      Tensor length = multiply_scalar(std::move(r), rate);
      if (momentum != 0.0) {
        add_into(of(moved), length, multiply_scalar(of(last), momentum));
        length = of(moved);
      }
      add_into(of(next), length, x_part);
    });
    for (const Sums& each : sums) total += each;
    term.x.push_back(next);
    if (momentum != 0.0) term.step.push_back(moved);
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
