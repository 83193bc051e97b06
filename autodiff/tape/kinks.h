// Kinks whose second derivatives are lost: norm, standard_deviation and abs at 0 (KinkWatch in
// derivatives.h).
#pragma once

#include <hypertape/core/tensor.h>

namespace hypertape::detail {

/// Whether a KinkWatch lives on this thread.
bool kinks_are_watched() noexcept;
/// To be called by a rule that differentiates `op` at `x`: if somebody watches, x itself is being
/// differentiated, so that this is the second order, and an element of `at` is 0, the operation met its kink.
void note_kinks(const char* op, const Tensor& x, const Tensor& at);

/// norm by the name of another operation.
Tensor norm_as(const char* op, const Tensor& x, const Shape& kept, const Shape& output);

}  // namespace hypertape::detail
