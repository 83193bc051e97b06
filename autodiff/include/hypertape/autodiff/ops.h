// Differentiable operations on tensors.
//
// Every operation: refuses absent operands, mixed dtypes (naming both) and shapes that do not fit, before
// anything is written; is differentiable to any order in its floating operands; gives the same bits whether
// or not a derivative is being recorded, and on any number of threads. An operand passed with std::move may
// lend its memory to the result. Operands are float32 or float64 unless said otherwise.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hypertape/core/export.h"
#include "hypertape/core/tensor.h"

namespace hypertape {

// --- Elementwise; shapes broadcast. The list: core/elementwise.def
//
// Where a derivative does not exist, it is:
//
//   abs 0 at 0; relu 0 at 0; leaky_relu(x, slope) the slope at 0
//   maximum, minimum                half for each operand where they are equal
//   clamp(x, low, high)             at a bound as inside: 1 in x, 0 in the bound; the result is high where
//                                   low > high
//   sqrt, rsqrt, log, log1p         infinite at the border of the domain; NaN if the cotangent is 0 there
//   pow(a, b)                       in a: b a^(b-1), 0 where a = b = 0; in b: a^b log(a), 0 where a = 0 and
//                                   b >= 0, NaN for a < 0
//   atan2(y, x)                     NaN at the origin
//   floor, round, sign              absent everywhere (no path), like second derivatives of piecewise linear
//                                   functions
//
// NaN operands give NaN; `pow` gives 1 for x^0 and 1^x even then, as in C. round takes halves to even. gelu
// is x Phi(x), gelu_tanh its approximation by tanh. sin and cos are NaN for |x| > 2^30, beyond which argument
// reduction would not be exact.
#define HYPERTAPE_UNARY(Op, name) HYPERTAPE_API Tensor name(Operand x);
#define HYPERTAPE_BINARY(Op, name) HYPERTAPE_API Tensor name(Operand a, Operand b);
#define HYPERTAPE_TERNARY(Op, name) HYPERTAPE_API Tensor name(Operand a, Operand b, Operand c);
#define HYPERTAPE_WITH_SCALAR(Op, name) HYPERTAPE_API Tensor name(Operand x, double scalar);
#include "hypertape/core/elementwise.def"

/// x^exponent. `square`, `sqrt` and `rsqrt` are faster where they apply.
inline Tensor pow(Operand x, double exponent) { return pow_scalar(x, exponent); }
/// Constant bounds; Error unless low <= high.
HYPERTAPE_API Tensor clamp(Operand x, double low, double high);

// A C++ number takes the tensor's dtype.
inline Tensor operator+(Operand a, Operand b) { return add(a, b); }
inline Tensor operator-(Operand a, Operand b) { return subtract(a, b); }
inline Tensor operator*(Operand a, Operand b) { return multiply(a, b); }
inline Tensor operator/(Operand a, Operand b) { return divide(a, b); }
inline Tensor operator-(Operand x) { return negate(x); }
inline Tensor operator+(Operand x, double c) { return add_scalar(x, c); }
inline Tensor operator+(double c, Operand x) { return add_scalar(x, c); }
inline Tensor operator-(Operand x, double c) { return add_scalar(x, -c); }
inline Tensor operator-(double c, Operand x) { return add_scalar(negate(x), c); }
inline Tensor operator*(Operand x, double c) { return multiply_scalar(x, c); }
inline Tensor operator*(double c, Operand x) { return multiply_scalar(x, c); }
inline Tensor operator/(Operand x, double c) { return divide_scalar(x, c); }
inline Tensor operator/(double c, Operand x) { return scalar_divide(x, c); }

// --- Comparisons, boolean tensors; shapes broadcast. Operands of one dtype, int64 included, and booleans for
// (not_)equal. A C++ number takes the tensor's dtype: Error if that is int64 and the number is none.
// Comparing with NaN gives false, but true for not_equal. Not differentiable.
HYPERTAPE_API Tensor less(const Tensor& a, const Tensor& b);
HYPERTAPE_API Tensor less(const Tensor& x, double number);
HYPERTAPE_API Tensor less_equal(const Tensor& a, const Tensor& b);
HYPERTAPE_API Tensor less_equal(const Tensor& x, double number);
HYPERTAPE_API Tensor greater(const Tensor& a, const Tensor& b);
HYPERTAPE_API Tensor greater(const Tensor& x, double number);
HYPERTAPE_API Tensor greater_equal(const Tensor& a, const Tensor& b);
HYPERTAPE_API Tensor greater_equal(const Tensor& x, double number);
HYPERTAPE_API Tensor equal(const Tensor& a, const Tensor& b);
HYPERTAPE_API Tensor equal(const Tensor& x, double number);
HYPERTAPE_API Tensor not_equal(const Tensor& a, const Tensor& b);
HYPERTAPE_API Tensor not_equal(const Tensor& x, double number);
/// Of boolean tensors.
HYPERTAPE_API Tensor logical_and(const Tensor& a, const Tensor& b);
HYPERTAPE_API Tensor logical_or(const Tensor& a, const Tensor& b);
HYPERTAPE_API Tensor logical_not(const Tensor& x);
/// mask ? a : b for each element; the three shapes broadcast, mask is boolean, a and b have one dtype (any).
/// The branch not taken has no influence on value or derivatives, NaN included.
HYPERTAPE_API Tensor where(const Tensor& mask, const Tensor& a, const Tensor& b);
HYPERTAPE_API Tensor where(const Tensor& mask, const Tensor& a, double b);
HYPERTAPE_API Tensor where(const Tensor& mask, double a, const Tensor& b);

// --- Reductions
/// Sum of all elements, rank 0; 0 for an empty tensor.
HYPERTAPE_API Tensor sum(const Tensor& x);
/// Sum over `axes` (negative ones count from the back; none may repeat); `keep` leaves them with extent 1.
HYPERTAPE_API Tensor sum(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// Mean of all elements, rank 0; Error for an empty tensor.
HYPERTAPE_API Tensor mean(const Tensor& x);
/// Mean over `axes`.
HYPERTAPE_API Tensor mean(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// Adds up what broadcasting to x's shape would have repeated; the adjoint of expand.
HYPERTAPE_API Tensor sum_to(const Tensor& x, const Shape& shape);
/// sum(a * b) without the intermediate tensor; one shape.
HYPERTAPE_API Tensor dot(const Tensor& a, const Tensor& b);

// --- Products
/// op(a) op(b), where op transposes a rank-2 operand if asked. Ranks 2 and 2, or a vector (rank 1) on either
/// side, which counts as a row on the left and a column on the right and leaves no axis.
HYPERTAPE_API Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false,
                            bool transpose_b = false);

/// c + op(a) op(b), the product accumulated straight onto c; a and b of rank 2, c of the product's shape (or
/// broadcasting to it: a bias).
HYPERTAPE_API Tensor matmul_add(Operand c, const Tensor& a, const Tensor& b, bool transpose_a = false,
                                bool transpose_b = false);

// --- Shape: views wherever the layout allows; any dtype
/// Same elements in row-major order, another shape of the same size; one extent may be -1.
HYPERTAPE_API Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> extents);
HYPERTAPE_API Tensor reshape(const Tensor& x, const Shape& shape);
/// x in row-major order without gaps: x itself if it is so already, else a copy.
HYPERTAPE_API Tensor contiguous(const Tensor& x);
/// Axes reversed.
HYPERTAPE_API Tensor transpose(const Tensor& x);
/// Axis k of the result is axis `axes[k]` of x; every axis once.
HYPERTAPE_API Tensor transpose(const Tensor& x, const std::vector<std::int64_t>& axes);
/// Broadcasts to `shape` without copying.
HYPERTAPE_API Tensor expand(const Tensor& x, const Shape& shape);
/// Elements [start, stop) of one axis; 0 <= start <= stop <= extent.
HYPERTAPE_API Tensor slice(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t stop);
/// x at [start, start + its extent) of one axis of a tensor of zeros with that axis `extent` long; adjoint of
/// slice.
HYPERTAPE_API Tensor pad(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t extent);

// --- Lists
/// Cuts a vector into tensors of the given shapes, views of it. One node whatever the number of pieces: its
/// backward makes one flat vector.
HYPERTAPE_API TensorList unflatten(const Tensor& flat, const std::vector<Shape>& shapes);
/// The elements of all tensors, one after another, as a vector. An absent tensor counts as zeros of its
/// shape.
HYPERTAPE_API Tensor flatten(const TensorList& pieces, const std::vector<Shape>& shapes);
HYPERTAPE_API Tensor flatten(const TensorList& pieces);
/// x[0], x[1], ... along the first axis, views of it. One node: each row's cotangent is written in its place.
HYPERTAPE_API TensorList unstack(const Tensor& x);
/// Tensors of one shape as rows along a new first axis. An absent tensor counts as zeros if `row` gives the
/// shape.
HYPERTAPE_API Tensor stack(const TensorList& rows);
HYPERTAPE_API Tensor stack(const TensorList& rows, const Shape& row, Dtype dtype);

// --- Labels: int64 tensors of shape (N), values 0..C-1; Error names the first label out of range
/// rows[n, labels[n]], shape (N), of rows (N, C).
HYPERTAPE_API Tensor gather_labels(const Tensor& rows, const Tensor& labels);
/// (N, classes) zeros with values[n] at [n, labels[n]]; the adjoint of gather_labels.
HYPERTAPE_API Tensor scatter_labels(const Tensor& values, const Tensor& labels, std::int64_t classes);
/// exp(x) / sum(exp(x)) along the last axis.
HYPERTAPE_API Tensor softmax(const Tensor& x);
/// Mean over n of -log softmax(logits)[n, labels[n]], rank 0; logits (N, C), N and C at least 1.
HYPERTAPE_API Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels);
/// scale / N * (softmax(logits) - one_hot(labels)): the gradient of the above times `scale` (one element).
HYPERTAPE_API Tensor softmax_cross_entropy_gradient(const Tensor& scale, const Tensor& logits,
                                                    const Tensor& labels);

// --- Derivatives
/// The same values, constant for every derivative.
HYPERTAPE_API Tensor stop_gradient(const Tensor& x);

/// Whether any element is infinite or NaN. Not differentiable.
HYPERTAPE_API bool has_non_finite(const Tensor& x);

}  // namespace hypertape
