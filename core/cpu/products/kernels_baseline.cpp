// Product kernels for any CPU, on the compiler's own 16-byte vectors; see core/cpu/products/tile.h. Multiply
// and add round separately here, since a fused one would be a library call on a CPU without the instruction.
#include "core/cpu/products/tile.h"

namespace hypertape::detail {
namespace {

template <class T, class V>
struct Portable {
  using Element = T;
  using Vector = V;
  static constexpr int lanes = 16 / static_cast<int>(sizeof(T));
  static constexpr bool many_registers = false;
  static constexpr int most_vectors = 3;
  static constexpr int usual_vectors = 2;
  static constexpr int most_rows[] = {0, 12, 6, 4};

  static Vector zero() { return Vector{}; }
  static Vector load(const T* from) {
    Vector x;
    __builtin_memcpy(&x, from, sizeof x);
    return x;
  }
  static Vector broadcast(const T* from) { return Vector{} + *from; }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return c + a * b; }
  static Vector add(Vector a, Vector b) { return a + b; }
  static void store(T* to, Vector x) { __builtin_memcpy(to, &x, sizeof x); }
  static Vector load_part(const T* from, int count) {
    Vector x{};
    for (int lane = 0; lane < lanes; ++lane) {
      if (lane < count) x[lane] = from[lane];
    }
    return x;
  }
  static void store_part(T* to, Vector x, int count, bool accumulate) {
    if (count == lanes) {
      store(to, accumulate ? load(to) + x : x);
      return;
    }
    for (int lane = 0; lane < count; ++lane) to[lane] = accumulate ? to[lane] + x[lane] : x[lane];
  }

  static Vector load_quads(const T* const* from, int offset) { return load(from[0] + offset); }
  static void transpose_quads(Vector* x) {
    if constexpr (lanes == 2) {
      const Vector low = __builtin_shufflevector(x[0], x[1], 0, 2);
      x[1] = __builtin_shufflevector(x[0], x[1], 1, 3);
      x[0] = low;
    } else {
      const Vector a = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
      const Vector b = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
      const Vector c = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
      const Vector d = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
      x[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
      x[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
      x[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
      x[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
    }
  }
};

using Float32 = Portable<float, float __attribute__((vector_size(16)))>;
using Float64 = Portable<double, double __attribute__((vector_size(16)))>;

}  // namespace

const ProductKernels<float>& baseline_kernels_f32() { return kernels<Float32>; }
const ProductKernels<double>& baseline_kernels_f64() { return kernels<Float64>; }

}  // namespace hypertape::detail
