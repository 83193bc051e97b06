#define HYPERTAPE_LEVEL baseline
#include "elementwise_kernels.inc"
#include "loops.inc"
#include "optimizer_kernels.inc"
