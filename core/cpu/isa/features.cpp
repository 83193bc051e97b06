#include "core/cpu/isa/features.h"

#include <cstdlib>
#include <cstring>
#include <string_view>

#include <hypertape/core/error.h>

#if defined(__x86_64__)
#include <cpuid.h>
#else
#include <fstream>
#endif

namespace hypertape::detail {
namespace {

#if defined(__x86_64__)

// __builtin_cpu_supports also asks the operating system whether it saves the registers.
Isa detect_isa() noexcept {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::baseline;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Isa::avx512;
  }
  return Isa::avx2;
}

std::string read_cpu_model() {
  constexpr unsigned first_leaf = 0x80000002U;  // three leaves of 16 characters each
  char text[49] = {};
  for (unsigned leaf = 0; leaf < 3; ++leaf) {
    unsigned registers[4];
    if (__get_cpuid(first_leaf + leaf, &registers[0], &registers[1], &registers[2], &registers[3]) == 0) {
      return "unknown";
    }
    std::memcpy(text + 16 * leaf, registers, 16);
  }
  std::string_view name = text;
  while (!name.empty() && name.front() == ' ') name.remove_prefix(1);
  while (!name.empty() && name.back() == ' ') name.remove_suffix(1);
  return name.empty() ? "unknown" : std::string(name);
}

std::string read_feature_list() {
  __builtin_cpu_init();
  std::string list;
  const auto add = [&](const char* name, bool present) {
    if (!present) return;
    if (!list.empty()) list += ' ';
    list += name;
  };
  // The builtin takes literals only, hence no loop.
  add("sse2", __builtin_cpu_supports("sse2") != 0);
  add("sse4.2", __builtin_cpu_supports("sse4.2") != 0);
  add("avx", __builtin_cpu_supports("avx") != 0);
  add("fma", __builtin_cpu_supports("fma") != 0);
  add("avx2", __builtin_cpu_supports("avx2") != 0);
  add("avx512f", __builtin_cpu_supports("avx512f") != 0);
  add("avx512bw", __builtin_cpu_supports("avx512bw") != 0);
  add("avx512dq", __builtin_cpu_supports("avx512dq") != 0);
  add("avx512vl", __builtin_cpu_supports("avx512vl") != 0);
  add("avx512vnni", __builtin_cpu_supports("avx512vnni") != 0);
  return list;
}

#else

Isa detect_isa() noexcept { return Isa::baseline; }

std::string read_cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string read_feature_list() { return ""; }

#endif

struct Choice {
  Isa isa;
  std::string reason;
};

Choice choose_isa() {
  const Isa best = hardware_isa();
  const char* wish = std::getenv("HYPERTAPE_ISA");
  if (wish == nullptr || *wish == '\0') return {best, "best level of this CPU"};
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (std::string_view(wish) != isa_name(isa)) continue;
    if (isa > best) {
      fail("HYPERTAPE_ISA", "this CPU (", cpu_model(), ") has no ", wish, ", its best level is ",
           isa_name(best), "; set HYPERTAPE_ISA to that or unset it");
    }
    return {isa, std::string("HYPERTAPE_ISA=") + wish};
  }
  fail("HYPERTAPE_ISA", "unknown level \"", wish, "\"; use baseline, avx2 or avx512");
}

// When choose_isa throws, the next call tries again.
const Choice& choice() {
  static const Choice chosen = choose_isa();
  return chosen;
}

}  // namespace

Isa hardware_isa() noexcept {
  static const Isa best = detect_isa();
  return best;
}

double wide_multiply_adds_per_cycle() noexcept {
#if defined(__x86_64__)
  static const bool halves = [] {  // Zen 4 computes them in two halves; Zen 3 has none
    __builtin_cpu_init();
    return __builtin_cpu_is("amdfam19h") != 0;
  }();
  return halves ? 1 : 2;
#else
  return 2;
#endif
}

Isa active_isa() { return choice().isa; }

std::string isa_reason() { return choice().reason; }

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::baseline:
      return "baseline";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "unknown";
}

std::string cpu_model() {
  static const std::string model = read_cpu_model();
  return model;
}

std::string cpu_feature_list() {
  static const std::string list = read_feature_list();
  return list;
}

}  // namespace hypertape::detail
