#include "bilevel/minimum/linear_operator.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/error.h>

namespace hypertape::bilevel {

std::string_view name_of(LinearStatus status) noexcept {
  switch (status) {
    case LinearStatus::converged:
      return "converged";
    case LinearStatus::not_converged:
      return "not converged";
    case LinearStatus::negative_curvature:
      return "negative curvature";
    case LinearStatus::diverging:
      return "diverging";
    case LinearStatus::singular:
      return "singular";
    case LinearStatus::not_finite:
      return "not finite";
    case LinearStatus::out_of_range:
      return "out of range";
  }
  return "unknown";
}

namespace {

CurvatureOperator hessian_of(const char* operation, const std::function<Tensor(const TensorList&)>& loss,
                             const TensorList& w, const char* of_what) {
  if (!loss) fail(operation, "there is no loss");
  bool depends = false;
  auto [gradient, linear] = linearize(
      [&](const TensorList& x) {
        TensorList g = grad(loss, x);
        for (const Tensor& each : g) depends |= each.defined();
        detail::fill_absent(g, x);
        return g;
      },
      w);
  if (!depends) fail(operation, "the loss does not depend on the ", of_what);
  return {[linear = linear](const TensorList& v) { return linear(v); },
          [linear = linear](const TensorList& v) { return linear.block(v); }};
}

// Absent: no path, hence zeros.
bool all_absent(const TensorList& list) {
  return std::none_of(list.begin(), list.end(), [](const Tensor& each) { return each.defined(); });
}

}  // namespace

CurvatureOperator hessian_operator(std::function<Tensor(const TensorList& w)> loss, const TensorList& w) {
  return hessian_of("hessian_operator", loss, w, "parameters");
}

CurvatureOperator gauss_newton_operator(std::function<TensorList(const TensorList& w)> model,
                                        std::function<Tensor(const TensorList& outputs)> loss,
                                        const TensorList& w) {
  constexpr const char* name = "gauss_newton_operator";
  using Pullback = PullbackOf<TensorList, TensorList>;
  using Linear = LinearOf<TensorList, TensorList>;
  if (!model) fail(name, "there is no model");
  // One record for both directions.
  hypertape::detail::RecordedFunction recorded = hypertape::detail::record_function(model, w);
  const TensorList& outputs = recorded.values;
  for (std::size_t k = 0; k < outputs.size(); ++k)
    if (!outputs[k].defined()) fail(name, "the model's output ", k, " is absent");
  const Pullback pullback(recorded.state);
  const Linear linear(recorded.state);
  const CurvatureOperator hessian = hessian_of(name, loss, outputs, "model's outputs");
  // The pullback is linear in its cotangents: recorded itself, it takes them in blocks. Only then.
  const auto transposed = std::make_shared<std::optional<Linear>>();
  return {[=](const TensorList& v) {
            const TensorList curved = hessian(linear(v));
            return all_absent(curved) ? TensorList(v.size()) : pullback(curved);
          },
          [=](const TensorList& v) {
            const TensorList curved = hessian.block(linear.block(v));
            if (all_absent(curved)) return TensorList(v.size());
            if (!*transposed)
              *transposed = linearize([&](const TensorList& u) { return pullback(u); }, outputs).second;
            return (*transposed)->block(curved);
          }};
}

namespace detail {

void require_vector(const char* operation, const TensorList& b) {
  if (b.empty()) fail(operation, "the right-hand side has no tensors");
  for (std::size_t i = 0; i < b.size(); ++i) {
    if (!b[i].defined()) fail(operation, "tensor ", i, " of the right-hand side is absent");
    if (!is_floating(b[i].dtype())) fail(operation, "the right-hand side is ", b[i].dtype());
    if (b[i].dtype() != b[0].dtype())
      fail(operation, "the right-hand side mixes ", b[0].dtype(), " and ", b[i].dtype());
  }
}

double inner_product(const TensorList& a, const TensorList& b) {
  double total = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) total += dot(a[i], b[i]).item();
  return total;
}

TensorList plus(const TensorList& y, double factor, const TensorList& x) {
  TensorList sum(y.size());
  for (std::size_t i = 0; i < y.size(); ++i)
    sum[i] = multiply_add(Tensor::scalar(factor, x[i].dtype()), x[i], y[i]);
  return sum;
}

TensorList times(const TensorList& x, double factor) {
  TensorList scaled;
  for (const Tensor& each : x) scaled.push_back(each * factor);
  return scaled;
}

TensorList zeros_like(const TensorList& x) {
  TensorList zeros;
  for (const Tensor& each : x) zeros.push_back(Tensor::zeros(each.shape(), each.dtype()));
  return zeros;
}

double attainable(double tolerance, const TensorList& b) {
  const double rounding = b[0].dtype() == Dtype::float32
                              ? static_cast<double>(std::numeric_limits<float>::epsilon())
                              : std::numeric_limits<double>::epsilon();
  return std::max(tolerance, 16.0 * rounding);
}

Operator::Operator(const char* operation, const LinearMap& a, double damping, bool differentiable)
    : operation_(operation), a_(a), damping_(damping), differentiable_(differentiable) {
  if (!a) fail(operation, "there is no operator");
}

TensorList Operator::operator()(const TensorList& x) {
  ++products_;
  TensorList y = a_(x);
  if (!differentiable_) require_plain(operation_, y);
  if (y.size() != x.size()) fail(operation_, "the operator returned ", y.size(), " tensors for ", x.size());
  fill_absent(y, x);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (y[i].shape() != x[i].shape() || y[i].dtype() != x[i].dtype())
      fail(operation_, "the operator turned tensor ", i, " from ", x[i].dtype(), " ", x[i].shape(), " into ",
           y[i].dtype(), " ", y[i].shape());
  if (damping_ != 0.0) y = plus(y, damping_, x);
  if (!normalises_) return y;
  constexpr int harmless = 8;
  if (products_ == 1) {
    const double stretch = norm(y) / norm(x);
    if (stretch > 0.0 && std::isfinite(stretch) && std::abs(std::ilogb(stretch)) > harmless)
      exponent_ = std::ilogb(stretch);
  }
  return shifted(y, -exponent_);
}

TensorList shifted(const TensorList& x, int exponent) {
  constexpr int largest = 60;
  TensorList result = x;
  while (exponent != 0) {
    const int step = std::clamp(exponent, -largest, largest);
    result = times(result, std::ldexp(1.0, step));
    exponent -= step;
  }
  return result;
}

namespace {
int excess(double size) {
  constexpr int harmless = 30;
  return size > 0.0 && std::isfinite(size) && std::abs(std::ilogb(size)) > harmless ? std::ilogb(size) : 0;
}
}  // namespace

int Scaled::exponent_of(const TensorList& b) { return excess(norm(b)); }

Scaled::Scaled(const TensorList& b)
    : original_(norm(b)), size_(original_), exponent_(excess(original_)), scaled_(shifted(b, -exponent_)) {
  if (exponent_ != 0) size_ = norm(scaled_);
}

bool Scaled::restore(const TensorList& x, int a_exponent, TensorList& restored) const {
  const int exponent = exponent_ - a_exponent;
  restored = shifted(x, exponent);
  if (exponent == 0) return true;
  constexpr double digits = 1e-3;  // those that vanishing elements may cost
  const double size = norm(x);
  return size == 0.0 || std::abs(std::ldexp(norm(restored), -exponent) / size - 1.0) < digits;
}

bool Scaled::is_settled(LinearSolution& solution) const {
  if (std::isfinite(original_) && original_ > 0.0) return false;
  solution.x = zeros_like(scaled_);
  solution.status = original_ == 0.0 ? LinearStatus::converged : LinearStatus::not_finite;
  solution.residuals = {original_ == 0.0 ? 0.0 : 1.0};
  return true;
}

}  // namespace detail
}  // namespace hypertape::bilevel
