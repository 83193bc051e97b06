// Inner loops of optimizer steps over unit-stride elements, compiled for each ISA level.
#pragma once

#include <cstdint>

namespace hypertape::detail {

/// Each result may be written over an operand. No fma: the bits are those of the operations one by one.
template <class T>
struct OptimizerKernels {
  /// next_v = momentum v + push;  next_w = -rate next_v + w.
  void (*sgd)(std::int64_t n, const T* w, const T* v, const T* push, T rate, T momentum, T* next_w,
              T* next_v);
  /// The cotangents of push and of v: bar_push = -rate bar_w + bar_v, bar_v_before = momentum bar_push. Where
  /// a place for it is given, also sums of this piece as `dot` of loops.h forms them: <bar_w, next_v> and
  /// <bar_push, v>.
  void (*sgd_back)(std::int64_t n, const T* bar_w, const T* bar_v, const T* v, const T* next_v, T rate,
                   T momentum, T* bar_push, T* bar_v_before, T* rate_sum, T* momentum_sum);
  /// The tangents of next_w and next_v from those of w, v and push, and from those of rate and momentum,
  /// either of which may be 0 and left out (null):  tv = tmomentum v + momentum tv + tpush,  tw = tw - trate
  /// next_v - rate tv. `v` and `next_v` are read only for what is not left out.
  void (*sgd_tangent)(std::int64_t n, const T* v, const T* next_v, const T* w_tangent, const T* v_tangent,
                      const T* push_tangent, T rate, T momentum, const T* rate_tangent,
                      const T* momentum_tangent, T* next_w_tangent, T* next_v_tangent);
  /// What `adam` reads and writes beside the tensors: numbers of the step.
  struct Adam {
    T beta1, beta2;  ///< shares that the averages keep
    T new1, new2;    ///< 1 - beta1, 1 - beta2
    T total2;        ///< 1 - product of all beta2
    T epsilon;
    T rate;   ///< -rate / (1 - product of all beta1)
    T least;  ///< a second moment below it counts as 0
  };
  /// m = beta1 m + new1 g;  v = beta2 v + new2 g^2;  w = rate m / (root(v / total2) + epsilon) + w.
  void (*adam)(std::int64_t n, const T* w, const T* m, const T* v, const T* g, const Adam& step, T* next_w,
               T* next_m, T* next_v);
  /// A step towards the x with A x = b:  r = b - ax;  next_step = rate r + momentum step;  next_x = next_step
  /// + x. Without momentum `step` and `next_step` are null. Also sums of this piece as `dot` forms them: <x,
  /// x>, <ax, ax>, <x, ax>, <r, r>.
  void (*series)(std::int64_t n, const T* x, const T* ax, const T* b, const T* step, T rate, T momentum,
                 T* next_x, T* next_step, T* sums);
};

template <class T>
const OptimizerKernels<T>& optimizer_kernels();

}  // namespace hypertape::detail
