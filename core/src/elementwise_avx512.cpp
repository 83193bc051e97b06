#define HYPERTAPE_LEVEL avx512
#include "elementwise_kernels.inc"
#include "loops.inc"
#include "optimizer_kernels.inc"
