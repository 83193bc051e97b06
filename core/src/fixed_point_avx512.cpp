#include "fixed_point_kernels.h"

#include "digit_buffer.h"

namespace hypertape::detail::avx512 {
#include "fixed_point_kernels.inc"
}  // namespace hypertape::detail::avx512
