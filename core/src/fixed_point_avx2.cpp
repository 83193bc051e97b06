#include "fixed_point_kernels.h"

#include "digit_buffer.h"

namespace hypertape::detail::avx2 {
#include "fixed_point_kernels.inc"
}  // namespace hypertape::detail::avx2
