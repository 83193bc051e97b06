// One term of a Neumann series on plain vectors, and what is asked of it, in one pass over memory.
#pragma once

#include <hypertape/core/tensor.h>

namespace hypertape::bilevel::detail {

struct SeriesTerm {
  TensorList step;        ///< momentum step + rate (b - A x)
  TensorList x;           ///< x + step
  double stretch = 0.0;   ///< |A x| / |x| of the old x, 0 where x is 0
  double cosine = 0.0;    ///< x'Ax / (|x| |A x|), 0 where one of them is
  double residual = 0.0;  ///< |b - A x|
};

/// The vectors have the bits of the public operations b - A x, times, plus; the numbers are the same for
/// every number of threads, but not those of norm() to the last bit.
SeriesTerm series_term(const TensorList& x, const TensorList& ax, const TensorList& b, const TensorList& step,
                       double rate, double momentum);

}  // namespace hypertape::bilevel::detail
