// Differentiable operations on tensors.
//
// Every operation: refuses absent operands, mixed dtypes (naming both) and shapes that do not fit, before
// anything is written; is differentiable to any order in its floating operands; gives the same bits whether
// or not a derivative is being recorded, and on any number of threads. An operand passed with std::move may
// lend its memory to the result. Operands are float32 or float64 unless said otherwise.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <hypertape/core/export.h>
#include <hypertape/core/tensor.h>

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
#include <hypertape/core/elementwise.def>

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
/// The branch not taken has no influence on value or derivatives, NaN and infinite slopes included (the rule:
/// docs/autodiff.md, "What a selection left out").
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
/// Mean over `axes`; Error where they have no elements.
HYPERTAPE_API Tensor mean(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// Product of all elements, or over `axes`; 1 for none. Multiplied pairwise, never divided: derivatives of
/// any order hold with any number of zeros among the factors.
HYPERTAPE_API Tensor prod(const Tensor& x);
HYPERTAPE_API Tensor prod(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// Mean squared deviation from the mean: the sum of squares divided by (count - correction); correction 0 is
/// the population's variance, 1 the unbiased estimate. Error unless 0 <= correction < count.
HYPERTAPE_API Tensor variance(const Tensor& x);
HYPERTAPE_API Tensor variance(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false,
                              std::int64_t correction = 0);
// The parentheses around max and min keep off macros of these names.
/// Largest (smallest) element. The first of equals, row-major, is taken and gets all of the gradient, at
/// every order. A NaN beats every number, the first one wins. Error for no elements.
HYPERTAPE_API Tensor(max)(const Tensor& x);
HYPERTAPE_API Tensor(max)(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
HYPERTAPE_API Tensor(min)(const Tensor& x);
HYPERTAPE_API Tensor(min)(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// Where max (min) finds its element: its position along one axis, or row-major in all of x. int64.
HYPERTAPE_API Tensor argmax(const Tensor& x);
HYPERTAPE_API Tensor argmax(const Tensor& x, std::int64_t axis, bool keep = false);
HYPERTAPE_API Tensor argmin(const Tensor& x);
HYPERTAPE_API Tensor argmin(const Tensor& x, std::int64_t axis, bool keep = false);
/// log(sum(exp(x))) without overflow. Of nothing, or of -inf alone: -inf, with gradient 0. A maximum of +inf
/// gives +inf, whose gradient is NaN.
HYPERTAPE_API Tensor logsumexp(const Tensor& x);
HYPERTAPE_API Tensor logsumexp(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// Sum of squares; 0 for none. Smooth everywhere: take it, and not square(norm(x)), where x may be 0.
HYPERTAPE_API Tensor squared_norm(const Tensor& x);
HYPERTAPE_API Tensor squared_norm(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// Root of the variance; 0, with derivatives 0, where all elements are equal. That is a kink (KinkWatch):
/// take the variance where a smooth function of it is wanted. Error unless 0 <= correction < count.
HYPERTAPE_API Tensor standard_deviation(const Tensor& x);
HYPERTAPE_API Tensor standard_deviation(const Tensor& x, const std::vector<std::int64_t>& axes,
                                        bool keep = false, std::int64_t correction = 0);
/// Euclidean norm, scaled where squares would overflow or underflow; 0 for none. Its derivatives at a norm of
/// 0 are 0: a kink (KinkWatch), where second derivatives of smooth functions of the norm are lost.
HYPERTAPE_API Tensor norm(const Tensor& x);
HYPERTAPE_API Tensor norm(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// Sums of the elements up to and including each one along an axis; with `reverse`, from it to the end. Each
/// is the other's adjoint.
HYPERTAPE_API Tensor cumulative_sum(const Tensor& x, std::int64_t axis, bool reverse = false);
/// Whether any (all) of a boolean tensor's elements are true: boolean, no elements giving false (true).
HYPERTAPE_API Tensor any(const Tensor& x);
HYPERTAPE_API Tensor any(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
HYPERTAPE_API Tensor all(const Tensor& x);
HYPERTAPE_API Tensor all(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// How many of a boolean tensor's elements are true: int64.
HYPERTAPE_API Tensor count(const Tensor& x);
HYPERTAPE_API Tensor count(const Tensor& x, const std::vector<std::int64_t>& axes, bool keep = false);
/// Adds up what broadcasting to x's shape would have repeated; the adjoint of expand.
HYPERTAPE_API Tensor sum_to(const Tensor& x, const Shape& shape);
/// sum(a * b) without the intermediate tensor; one shape.
HYPERTAPE_API Tensor dot(const Tensor& a, const Tensor& b);

// --- Products
/// op(a) op(b), where op transposes the last two axes of an operand of rank 2 and above if asked. Axes before
/// the last two are a batch and broadcast against each other; each of its products has the bits that it would
/// have alone. A vector (rank 1) counts as a row on the left and a column on the right and leaves no axis.
HYPERTAPE_API Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false,
                            bool transpose_b = false);

/// c + op(a) op(b), the product accumulated straight onto c; a and b of rank 2 and above, c of the product's
/// shape (or broadcasting to it: a bias).
HYPERTAPE_API Tensor matmul_add(Operand c, const Tensor& a, const Tensor& b, bool transpose_a = false,
                                bool transpose_b = false);

/// What a layer applies to its sums.
enum class Activation : std::uint8_t { none, tanh, relu };

/// activation(x weight + bias) as one operation: x (N, in), weight (in, out), bias (out). Values and
/// derivatives have the bits of matmul, add and the activation one after another.
HYPERTAPE_API Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                            Activation activation = Activation::none);

/// a[i] b[j] at [i, j], for vectors a and b.
HYPERTAPE_API Tensor outer(const Tensor& a, const Tensor& b);

/// Sums of products in Einstein's notation: each operand's axes are named by letters, an index that the
/// output does not name is summed over.
///
///     einsum("ij,jk->ik", {a, b})      matmul(a, b)
///     einsum("ii->i", {a})             diagonal(a); "ii" its sum
///     einsum("...ij,...j", {a, x})     products of matrices and vectors; the leading axes broadcast
///
/// Without "->" the output is "..." (if an operand has it) and the indices that occur once, in alphabetical
/// order, capitals first. "..." stands for any number of axes, which broadcast as everywhere; a letter's
/// extents must agree. Operands are contracted in pairs from left to right, and no intermediate result may
/// have more than `max_rank` axes. Error if the equation does not parse or does not fit the shapes.
HYPERTAPE_API Tensor einsum(std::string_view equation, const TensorList& operands);

// --- Shape: views wherever the layout allows; any dtype. Negative axes count from the back
/// Same elements in row-major order, another shape of the same size; one extent may be -1.
HYPERTAPE_API Tensor reshape(const Tensor& x, std::initializer_list<std::int64_t> extents);
HYPERTAPE_API Tensor reshape(const Tensor& x, const Shape& shape);
/// Without the axes of extent 1, or without those named, whose extents must be 1.
HYPERTAPE_API Tensor squeeze(const Tensor& x);
HYPERTAPE_API Tensor squeeze(const Tensor& x, const std::vector<std::int64_t>& axes);
/// With a new axis of extent 1 at place `axis` of the result; -1 is the last.
HYPERTAPE_API Tensor unsqueeze(const Tensor& x, std::int64_t axis);
/// x in row-major order without gaps: x itself if it is so already, else a copy.
HYPERTAPE_API Tensor contiguous(const Tensor& x);
/// Axis k of the result is axis `axes[k]` of x; every axis once.
HYPERTAPE_API Tensor permute(const Tensor& x, const std::vector<std::int64_t>& axes);
/// permute by its other name.
HYPERTAPE_API Tensor transpose(const Tensor& x, const std::vector<std::int64_t>& axes);
/// Axes reversed.
HYPERTAPE_API Tensor transpose(const Tensor& x);
/// Broadcasts to `shape` without copying.
HYPERTAPE_API Tensor expand(const Tensor& x, const Shape& shape);
/// Elements start, start + step, ... before `stop` of one axis, 0 <= start <= stop <= extent. With a negative
/// step they go back from start to above stop, -1 <= stop <= start < extent.
HYPERTAPE_API Tensor slice(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t stop,
                           std::int64_t step = 1);
/// Zeros, one axis `extent` long, with x's elements at start, start + step, ... of that axis; the adjoint of
/// slice.
HYPERTAPE_API Tensor pad(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t extent,
                         std::int64_t step = 1);
/// Zeros before and after each axis of x.
using Margins = std::vector<std::pair<std::int64_t, std::int64_t>>;
HYPERTAPE_API Tensor pad(const Tensor& x, const Margins& margins);
/// Elements of these axes in reverse order; a view.
HYPERTAPE_API Tensor flip(const Tensor& x, const std::vector<std::int64_t>& axes);
/// Elements moved forward by `shift` (back if negative) along one axis, those beyond its end to its start.
HYPERTAPE_API Tensor roll(const Tensor& x, std::int64_t shift, std::int64_t axis);
/// Each element of one axis `count` times in a row.
HYPERTAPE_API Tensor repeat(const Tensor& x, std::int64_t count, std::int64_t axis);
/// The whole of x counts[k] times one after another along axis k.
HYPERTAPE_API Tensor tile(const Tensor& x, const std::vector<std::int64_t>& counts);

// --- Matrices in the last two axes, any number of axes before them; any dtype
/// Elements [i, i + offset] of each matrix (for negative offsets [i - offset, i]), as the last axis; a view.
HYPERTAPE_API Tensor diagonal(const Tensor& x, std::int64_t offset = 0);
/// Square matrices of zeros with the last axis of x on that diagonal.
HYPERTAPE_API Tensor diag(const Tensor& x, std::int64_t offset = 0);
/// Elements [i, j] with j <= i + diagonal, zero elsewhere.
HYPERTAPE_API Tensor tril(const Tensor& x, std::int64_t diagonal = 0);
/// Elements [i, j] with j >= i + diagonal, zero elsewhere.
HYPERTAPE_API Tensor triu(const Tensor& x, std::int64_t diagonal = 0);

// --- Dtypes
/// The elements in another dtype; x itself if it has it already. Differentiable between float32 and float64,
/// whose derivatives are converted back; constant otherwise. To int64 floating numbers lose their fraction;
/// Error if one is NaN or out of range. To boolean: whether an element is not 0.
HYPERTAPE_API Tensor astype(const Tensor& x, Dtype dtype);

// --- Lists
/// Cuts a vector into tensors of the given shapes, views of it. One node whatever the number of pieces: its
/// backward makes one flat vector.
HYPERTAPE_API TensorList unflatten(const Tensor& flat, const std::vector<Shape>& shapes);
/// The elements of all tensors, one after another, as a vector. An absent tensor counts as zeros of its
/// shape.
HYPERTAPE_API Tensor flatten(const TensorList& pieces, const std::vector<Shape>& shapes);
HYPERTAPE_API Tensor flatten(const TensorList& pieces);
/// x[0], x[1], ... along one axis, views of it. One node: each row's cotangent is written in its place.
HYPERTAPE_API TensorList unstack(const Tensor& x, std::int64_t axis = 0);
/// Tensors of one shape as rows along a new axis, at place `axis` of the result. An absent tensor counts as
/// zeros if `row` gives the shape.
HYPERTAPE_API Tensor stack(const TensorList& rows, std::int64_t axis = 0);
HYPERTAPE_API Tensor stack(const TensorList& rows, const Shape& row, Dtype dtype, std::int64_t axis = 0);
/// At least one tensor, joined along an axis that they have; the other extents agree.
HYPERTAPE_API Tensor concatenate(const TensorList& pieces, std::int64_t axis = 0);
/// Pieces of the given extents along one axis, views of x. One node, like unstack.
HYPERTAPE_API TensorList split(const Tensor& x, const std::vector<std::int64_t>& sizes,
                               std::int64_t axis = 0);
/// `count` pieces of one size.
HYPERTAPE_API TensorList split_evenly(const Tensor& x, std::int64_t count, std::int64_t axis = 0);

// --- Optimizer steps
/// What one step leaves.
struct SgdStep {
  Tensor weights, velocity;
};
/// velocity <- momentum velocity + push; weights <- weights - rate velocity, with the new velocity. One shape
/// for the tensors; rate and momentum have rank 0. One pass over memory, into that of operands handed over;
/// so is its pullback, sums for rate and momentum included.
HYPERTAPE_API SgdStep sgd_step(Operand weights, Operand velocity, Operand push, const Tensor& rate,
                               const Tensor& momentum);

// --- Labels: int64 tensors of shape (N), values 0..C-1; Error names the first label out of range
/// rows[n, labels[n]], shape (N), of rows (N, C).
HYPERTAPE_API Tensor gather_labels(const Tensor& rows, const Tensor& labels);
/// (N, classes) zeros with values[n] at [n, labels[n]]; the adjoint of gather_labels.
HYPERTAPE_API Tensor scatter_labels(const Tensor& values, const Tensor& labels, std::int64_t classes);
/// labels.shape() + (classes) zeros with a one at each label; labels of any shape, a constant.
HYPERTAPE_API Tensor one_hot(const Tensor& labels, std::int64_t classes, Dtype dtype = Dtype::float64);

// --- Indexing: int64 indices from 0 to extent - 1; Error names the first one outside, with its place.
// Gathered tensors are of any dtype. What meets in one element is added up in the order of the indices.
/// result[.., i, ..] = x[.., indices[.., i, ..], ..] along the axis. Indices have x's rank and, on other
/// axes, at most its extents; the result has their shape.
HYPERTAPE_API Tensor gather(const Tensor& x, std::int64_t axis, const Tensor& indices);
/// Zeros of `shape` to which values[.., i, ..] is added at [.., indices[.., i, ..], ..]; values have the
/// indices' shape. The adjoint of gather.
HYPERTAPE_API Tensor scatter_add(const Shape& shape, std::int64_t axis, const Tensor& indices,
                                 const Tensor& values);
/// The same, added to x.
HYPERTAPE_API Tensor scatter_add(Operand x, std::int64_t axis, const Tensor& indices, const Tensor& values);
/// Whole slices of one axis, in the order of a vector of indices: rows of an embedding, a minibatch.
HYPERTAPE_API Tensor index_select(const Tensor& x, std::int64_t axis, const Tensor& indices);
/// Elements by their row-major positions in x; indices of any shape, which is the result's.
HYPERTAPE_API Tensor take(const Tensor& x, const Tensor& indices);

// --- Softmax and losses. A mean over N samples, the first axis, takes weights (N) where given: sum(w l) /
// sum(w), differentiable in them, too; NaN where they add up to 0. A sample, label or class of weight exactly
// 0 is left out, even where its loss is infinite or NaN (weigh)
/// exp(x) / sum(exp(x)) along the axis; NaN where that is -inf alone.
HYPERTAPE_API Tensor softmax(const Tensor& x, std::int64_t axis = -1);
/// log(softmax(x)) without underflow.
HYPERTAPE_API Tensor log_softmax(const Tensor& x, std::int64_t axis = -1);
/// weights * x, and exactly 0 where a weight is 0, whatever x is: 0 log 0 = 0. Shapes broadcast. There x has
/// no influence; the derivative in the weight itself is x.
HYPERTAPE_API Tensor weigh(const Tensor& weights, const Tensor& x);
/// sum(weights * x) / sum(weights), rank 0; one shape, not empty. Elements of weight 0 are left out, NaN
/// included.
HYPERTAPE_API Tensor weighted_mean(const Tensor& x, const Tensor& weights);

/// Weights of a cross entropy; absent ones count as ones.
struct LossWeights {
  Tensor samples{};  ///< (N)
  Tensor classes{};  ///< (C)
};
/// Losses l[n] = -log softmax(logits)[n, labels[n]], shape (N), of logits (N, C), N and C at least 1. Labels
/// are int64 of shape (N), or distributions in the logits' shape and dtype, rows that add up to 1: then l[n]
/// = -sum_c labels[n, c] log softmax(logits)[n, c].
HYPERTAPE_API Tensor softmax_cross_entropy_losses(const Tensor& logits, const Tensor& labels);
/// Their mean, rank 0.
HYPERTAPE_API Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels);
/// Their mean by sample weights. With class weights, the term of class c in sample n counts w[n, c] =
/// samples[n] classes[c] labels[n, c] (one-hot if int64): the sum of w[n, c] (-log softmax(logits)[n, c])
/// over both, divided by that of w[n, c].
HYPERTAPE_API Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels,
                                           const LossWeights& weights);
/// scale / N * (softmax(logits) - one_hot(labels)): the gradient of the mean for int64 labels times `scale`
/// (one element).
HYPERTAPE_API Tensor softmax_cross_entropy_gradient(const Tensor& scale, const Tensor& logits,
                                                    const Tensor& labels);
/// Mean of (prediction - target)^2, rank 0; one shape.
HYPERTAPE_API Tensor mean_squared_error(const Tensor& prediction, const Tensor& target);
HYPERTAPE_API Tensor mean_squared_error(const Tensor& prediction, const Tensor& target,
                                        const Tensor& weights);
/// Mean of -q log s(z) - (1 - q) log(1 - s(z)) for logits z and probabilities q of one shape, s the logistic
/// function; finite for finite logits of any size.
HYPERTAPE_API Tensor binary_cross_entropy_with_logits(const Tensor& logits, const Tensor& targets);
HYPERTAPE_API Tensor binary_cross_entropy_with_logits(const Tensor& logits, const Tensor& targets,
                                                      const Tensor& weights);

// --- Derivatives
/// The same values, constant for every derivative.
HYPERTAPE_API Tensor stop_gradient(const Tensor& x);

/// Whether any element is infinite or NaN. Not differentiable.
HYPERTAPE_API bool has_non_finite(const Tensor& x);

}  // namespace hypertape
