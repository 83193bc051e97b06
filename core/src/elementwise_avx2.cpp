#define HYPERTAPE_LEVEL avx2
#include "elementwise_kernels.inc"
#include "loops.inc"
#include "optimizer_kernels.inc"
