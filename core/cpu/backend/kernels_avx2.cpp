#define HYPERTAPE_LEVEL avx2
#include "core/cpu/elementwise/kernels.inc"
#include "core/cpu/isa/loops.inc"
#include "core/cpu/softmax/loops.inc"
#include "core/cpu/steps/kernels.inc"
