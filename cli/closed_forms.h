// Hypergradients of converged inner problems, in closed form: dense solves in long double that share nothing
// with the library, for the comparison to be measured against.
//
// For w*(h) = argmin f(w, h) and F(w*, h):  dF/dh = F_h - f_hw q  with  f_ww q = F_w, all at w*.
#pragma once

#include <cstddef>
#include <vector>

namespace hypertape {

/// What a closed form yields; matrices everywhere are row-major.
struct ClosedForm {
  double value = 0.0;              ///< F(w*, h)
  std::vector<double> parameters;  ///< w*
  std::vector<double> gradient;    ///< dF/dh
  /// The Hessian's eigenvalues at w* lie between these, along the way from 0 below the upper one.
  double least_curvature = 0.0, most_curvature = 0.0;
};

/// f = 1/2 w'Aw - w'(b + Bh);  F = 1/2 |w - c|^2 + d'h. A (n, n) symmetric positive definite, B (n, m).
struct QuadraticNumbers {
  std::vector<double> a, b_matrix, b, c, d, h;
};
ClosedForm closed_form(const QuadraticNumbers& numbers);

/// f = 1/(2N) |Xw - y|^2 + 1/2 sum_j penalty_j w_j^2;  F = 1/(2M) |X'w - y'|^2 on other samples. X (N, p).
struct RegressionNumbers {
  std::vector<double> x, y, x_outer, y_outer, penalties;
};
/// The gradient is that with respect to the penalties.
ClosedForm closed_form(const RegressionNumbers& numbers);

/// f = mean softmax cross entropy of XW + 1/2 sum_jc penalty_j W_jc^2;  F = mean cross entropy on other
/// samples. X (N, p), labels 0 .. classes - 1, W (p, classes).
struct LogisticNumbers {
  std::vector<double> x, x_outer;
  std::vector<std::size_t> labels, labels_outer;
  std::vector<double> penalties;
  std::size_t classes = 2;
};
/// The gradient is that with respect to the penalties. w* by Newton's method.
ClosedForm closed_form(const LogisticNumbers& numbers);

}  // namespace hypertape
