#include "core/cpu/reversible/kernels.h"

#include "core/backend/digit_buffer.h"

namespace hypertape::detail::avx512 {
#include "core/cpu/reversible/kernels.inc"
}  // namespace hypertape::detail::avx512
