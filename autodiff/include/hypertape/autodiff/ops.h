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

#include "hypertape/core/export.h"
#include "hypertape/core/tensor.h"

namespace hypertape {

// --- Elementwise; shapes broadcast. The list with its meaning: core/elementwise.def
#define HYPERTAPE_UNARY(Op, name) HYPERTAPE_API Tensor name(Operand x);
#define HYPERTAPE_BINARY(Op, name) HYPERTAPE_API Tensor name(Operand a, Operand b);
#define HYPERTAPE_TERNARY(Op, name) HYPERTAPE_API Tensor name(Operand a, Operand b, Operand c);
#define HYPERTAPE_WITH_SCALAR(Op, name) HYPERTAPE_API Tensor name(Operand x, double scalar);
#include "hypertape/core/elementwise.def"

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
/// op(a) op(b), where op transposes the last two axes of an operand of rank 2 and above if asked. Axes before
/// the last two are a batch and broadcast against each other; each of its products has the bits that it would
/// have alone. A vector (rank 1) counts as a row on the left and a column on the right and leaves no axis.
HYPERTAPE_API Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a = false,
                            bool transpose_b = false);

/// c + op(a) op(b), the product accumulated straight onto c; a and b of rank 2 and above, c of the product's
/// shape (or broadcasting to it: a bias).
HYPERTAPE_API Tensor matmul_add(Operand c, const Tensor& a, const Tensor& b, bool transpose_a = false,
                                bool transpose_b = false);

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
/// x's elements at start, start + step, ... of one axis of a tensor of zeros with that axis `extent` long;
/// adjoint of slice.
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
