#include "core/backend/fixed_point.h"

#include <atomic>
#include <cmath>
#include <cstddef>
#include <vector>

#include <hypertape/core/error.h>
#include <hypertape/core/parallel.h>
#include "core/base/divide_up.h"
#include "core/cpu/reversible/kernels.h"

namespace hypertape::detail {
namespace {

// Elements per parallel piece: 52 bytes each pass through the caches in about 10 microseconds.
constexpr std::int64_t grain = 1 << 14;
// Borders of the hashed pieces are part of the hash's value.
constexpr std::int64_t hash_grain = 1 << 14;

const FixedPointKernels& active_kernels() {
  static const FixedPointKernels& kernels = fixed_point_kernels(active_isa());
  return kernels;
}

template <class T>
void check_weights(const char* operation, std::span<const MomentumSegment<T>> segments) {
  for (std::size_t k = 0; k < segments.size(); ++k) {
    const auto& segment = segments[k];
    if (segment.v.size() != segment.w.size()) {
      fail(operation, "parameter ", k, " has ", segment.w.size(), " weights and ", segment.v.size(),
           " velocities; the two must be as many");
    }
    if (!std::isfinite(segment.rate)) {
      fail(operation, "the learning rate of parameter ", k, " is ", segment.rate, "; it must be finite");
    }
  }
}

template <class T>
void check_step(const char* operation, const DigitBuffer& digits, std::uint32_t numerator,
                std::span<const MomentumSegment<T>> segments) {
  require_momentum(operation, numerator);
  check_weights(operation, segments);
  std::size_t total = 0;
  for (std::size_t k = 0; k < segments.size(); ++k) {
    if (segments[k].gradient.size() != segments[k].w.size()) {
      fail(operation, "parameter ", k, " has ", segments[k].w.size(), " weights and ",
           segments[k].gradient.size(), " gradients; the two must be as many");
    }
    total += segments[k].w.size();
  }
  if (total != digits.size()) {
    fail(operation, "the parameters have ", total, " elements, the digit buffer ", digits.size(),
         "; make the buffer for all of them");
  }
}

// Calls kernel(segment, first element in it, first element of all, size) on pieces of all segments. True if
// any call returned true.
template <class T, class Kernel>
bool any_piece(std::span<const MomentumSegment<T>> segments, const Kernel& kernel) {
  std::atomic<bool> any = false;
  std::int64_t offset = 0;
  for (const auto& segment : segments) {
    const auto size = static_cast<std::int64_t>(segment.w.size());
    parallel_ranges(size, grain, [&](std::int64_t begin, std::int64_t end) {
      if (kernel(segment, begin, offset + begin, end - begin)) any.store(true, std::memory_order_relaxed);
    });
    offset += size;
  }
  return any.load(std::memory_order_relaxed);
}

// Scaling by powers of two is exact.
template <class T>
double scaled_rate(const MomentumSegment<T>& segment) {
  return std::ldexp(segment.rate, segment.weight_bits - segment.velocity_bits);
}

template <class T>
MomentumStep momentum_step(std::uint32_t numerator, bool dampened, const MomentumSegment<T>& segment) {
  const double share = dampened ? 1.0 - effective_momentum(numerator) : 1.0;
  return {numerator, 1.0 / numerator, std::ldexp(share, segment.velocity_bits), scaled_rate(segment)};
}

template <class T>
bool reverse_weights(std::span<const MomentumSegment<T>> segments) {
  const auto kernel = active_kernels().reverse_weights;
  return any_piece(segments, [=](const auto& segment, std::int64_t begin, std::int64_t, std::int64_t size) {
    return kernel(segment.w.data() + begin, segment.v.data() + begin, size, scaled_rate(segment));
  });
}

template <class T>
bool reverse_velocities(DigitBuffer& digits, std::uint32_t numerator, bool dampened,
                        std::span<const MomentumSegment<T>> segments) {
  const MomentumKernels<T>& kernels = active_kernels().of<T>();
  const auto kernel =
      numerator < smallest_fast_numerator ? kernels.reverse_velocities_small : kernels.reverse_velocities;
  digits.begin_reverse(numerator);
  std::uint64_t* words = digits.live().data();
  const bool fault = any_piece(
      segments, [=](const auto& segment, std::int64_t begin, std::int64_t offset, std::int64_t size) {
        return kernel(segment.v.data() + begin, words + offset, segment.gradient.data() + begin, size,
                      momentum_step(numerator, dampened, segment));
      });
  digits.end_reverse();
  return fault;
}

template <class T>
StepFault classify(std::span<const MomentumSegment<T>> segments) {
  for (const auto& segment : segments) {
    for (const T g : segment.gradient) {
      if (!std::isfinite(g)) return StepFault::non_finite;
    }
  }
  return StepFault::overflow;
}

}  // namespace

const FixedPointKernels& fixed_point_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512) return avx512::fixed_point_kernels;
  if (isa == Isa::avx2) return avx2::fixed_point_kernels;
#endif
  return static_cast<void>(isa), baseline::fixed_point_kernels;
}

template <class T>
StepFault momentum_forward(DigitBuffer& digits, std::uint32_t numerator, bool dampened,
                           std::span<const MomentumSegment<T>> segments) {
  check_step("momentum_forward", digits, numerator, segments);
  const MomentumKernels<T>& kernels = active_kernels().of<T>();
  const auto kernel = numerator < smallest_fast_numerator ? kernels.forward_small : kernels.forward;
  digits.begin_forward(numerator);
  std::uint64_t* words = digits.live().data();
  const bool fault = any_piece(
      segments, [=](const auto& segment, std::int64_t begin, std::int64_t offset, std::int64_t size) {
        return kernel(segment.w.data() + begin, segment.v.data() + begin, words + offset,
                      segment.gradient.data() + begin, size, momentum_step(numerator, dampened, segment));
      });
  if (!fault) return StepFault::none;
  // The map is invertible even out of range, so that only a step that fails pays for being taken back.
  reverse_weights(segments);
  reverse_velocities(digits, numerator, dampened, segments);
  return classify(segments);
}

template <class T>
StepFault momentum_reverse_weights(std::span<const MomentumSegment<T>> segments) {
  check_weights("momentum_reverse_weights", segments);
  return reverse_weights(segments) ? StepFault::overflow : StepFault::none;
}

template <class T>
StepFault momentum_reverse_velocities(DigitBuffer& digits, std::uint32_t numerator, bool dampened,
                                      std::span<const MomentumSegment<T>> segments) {
  check_step("momentum_reverse_velocities", digits, numerator, segments);
  return reverse_velocities(digits, numerator, dampened, segments) ? classify(segments) : StepFault::none;
}

template <class T>
void to_fixed(std::span<const T> values, std::span<std::int64_t> fixed, int bits) {
  const double limit = std::ldexp(1.0, 62 - bits), one = std::ldexp(1.0, bits);
  if (values.size() != fixed.size()) {
    fail("to_fixed", values.size(), " values for ", fixed.size(), " integers; the two must be as many");
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!(std::abs(static_cast<double>(values[i])) < limit)) {
      fail("to_fixed", "element ", i, " is ", values[i], "; fixed-point state of ", bits,
           " fraction bits holds finite values below ", limit, " in magnitude");
    }
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    fixed[i] = static_cast<std::int64_t>(static_cast<double>(values[i]) * one);
  }
}

template <class T>
void from_fixed(std::span<const std::int64_t> fixed, std::span<T> values, int bits) {
  if (values.size() != fixed.size()) {
    fail("from_fixed", fixed.size(), " integers for ", values.size(), " values; the two must be as many");
  }
  const MomentumKernels<T>& kernels = active_kernels().of<T>();
  parallel_ranges(static_cast<std::int64_t>(fixed.size()), grain, [&](std::int64_t begin, std::int64_t end) {
    kernels.from_fixed(fixed.data() + begin, values.data() + begin, end - begin, std::ldexp(1.0, -bits));
  });
}

std::uint64_t hash_fixed(std::span<const std::int64_t> fixed) {
  const auto size = static_cast<std::int64_t>(fixed.size());
  std::vector<std::int64_t> pieces(static_cast<std::size_t>(divide_up(size, hash_grain)));
  const FixedPointKernels& kernels = active_kernels();
  parallel_ranges(size, hash_grain, [&](std::int64_t begin, std::int64_t end) {
    pieces[static_cast<std::size_t>(begin / hash_grain)] =
        static_cast<std::int64_t>(kernels.hash(fixed.data() + begin, end - begin));
  });
  return kernels.hash(pieces.data(), static_cast<std::int64_t>(pieces.size()));
}

template StepFault momentum_forward<float>(DigitBuffer&, std::uint32_t, bool,
                                           std::span<const MomentumSegment<float>>);
template StepFault momentum_forward<double>(DigitBuffer&, std::uint32_t, bool,
                                            std::span<const MomentumSegment<double>>);
template StepFault momentum_reverse_weights<float>(std::span<const MomentumSegment<float>>);
template StepFault momentum_reverse_weights<double>(std::span<const MomentumSegment<double>>);
template StepFault momentum_reverse_velocities<float>(DigitBuffer&, std::uint32_t, bool,
                                                      std::span<const MomentumSegment<float>>);
template StepFault momentum_reverse_velocities<double>(DigitBuffer&, std::uint32_t, bool,
                                                       std::span<const MomentumSegment<double>>);
template void to_fixed<float>(std::span<const float>, std::span<std::int64_t>, int);
template void to_fixed<double>(std::span<const double>, std::span<std::int64_t>, int);
template void from_fixed<float>(std::span<const std::int64_t>, std::span<float>, int);
template void from_fixed<double>(std::span<const std::int64_t>, std::span<double>, int);

}  // namespace hypertape::detail
