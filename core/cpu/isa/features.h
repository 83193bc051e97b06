// What the CPU offers, and which instruction set the kernels use.
#pragma once

#include <string>

namespace hypertape::detail {

/// Levels for which kernels are compiled; each includes those before it.
enum class Isa {
  baseline,  ///< what the compiler's default target has (SSE2 on x86-64)
  avx2,      ///< AVX2 and FMA
  avx512     ///< AVX-512 F, BW, DQ and VL
};

/// The level in use, chosen once: the CPU's best, or what the environment variable HYPERTAPE_ISA names.
/// Error when HYPERTAPE_ISA is an unknown word or a level that this CPU lacks.
Isa active_isa();

/// The CPU's best level, whatever HYPERTAPE_ISA says.
Isa hardware_isa() noexcept;

const char* isa_name(Isa isa) noexcept;

/// Multiply-adds of 64-byte vectors that this CPU begins in a cycle.
double wide_multiply_adds_per_cycle() noexcept;

/// Why active_isa() is what it is, for `hypertape info`.
std::string isa_reason();

/// The CPU's name for itself, or "unknown".
std::string cpu_model();

/// Space-separated names of the features that matter to numerical kernels.
std::string cpu_feature_list();

}  // namespace hypertape::detail
