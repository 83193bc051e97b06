// Optimizer steps: shared between threads by fixed pieces, sums by the chunks of core/cpu/reduce/sum.cpp, so
// that they have the bits of `dot`.
#include <array>
#include <vector>

#include <hypertape/core/parallel.h>
#include "core/cpu/isa/loops.h"
#include "core/cpu/steps/kernels.h"
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

// Passes over memory that the steps take as long as, beside an addition.
constexpr int sgd_cost = 3, adam_cost = 12;

template <class T>
T number(const View& view) {
  return *view.as<T>();
}

// Sums of the chunks, added up first to last; nowhere if nobody asks for them.
template <class T>
struct ChunkSums {
  ChunkSums(const View& target, std::int64_t chunks)
      : target_(target.data ? target.as<T>() : nullptr),
        parts_(target_ && chunks > 1 ? static_cast<std::size_t>(chunks) : 0) {}
  T* at(std::int64_t chunk) noexcept { return parts_.empty() ? target_ : parts_.data() + chunk; }
  void finish() {
    if (!parts_.empty()) *target_ = loops<T>().sum(static_cast<std::int64_t>(parts_.size()), parts_.data());
  }

 private:
  T* target_;
  std::vector<T> parts_;
};

template <class T, class Body>
void share_step(std::int64_t size, int cost, const Body& body) {
  const Sharing sharing = Sharing::of(sizeof(T), cost);
  parallel_ranges(size, sharing.piece(size), body, sharing.call_size(size));
}

// Where sums fix the borders: body(first chunk, last chunk).
template <class Body>
void share_chunks(std::int64_t chunks, const Body& body) {
  parallel_ranges(chunks, 1, body, chunks <= 4 ? CallSize::brief : CallSize::any);
}

}  // namespace

template <class T>
void step_of_sgd(const SgdViews& step) {
  const T rate = number<T>(step.rate), momentum = number<T>(step.momentum);
  share_step<T>(step.w.size, sgd_cost, [&](std::int64_t begin, std::int64_t end) {
    optimizer_kernels<T>().sgd(end - begin, step.w.as<T>() + begin, step.v.as<T>() + begin,
                               step.push.as<T>() + begin, rate, momentum, step.next_w.as<T>() + begin,
                               step.next_v.as<T>() + begin);
  });
}

template <class T>
void step_back_of_sgd(const SgdBackViews& step) {
  const T rate = number<T>(step.rate), momentum = number<T>(step.momentum);
  const std::int64_t size = step.bar_w.size;
  const std::int64_t chunks = std::max<std::int64_t>(divide_up(size, reduction_chunk), 1);
  ChunkSums<T> rates(step.rate_sum, chunks), momenta(step.momentum_sum, chunks);
  share_chunks(chunks, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c) {
      const std::int64_t begin = c * reduction_chunk, count = std::min(size - begin, reduction_chunk);
      const auto at = [begin](const View& view) { return view.data ? view.as<T>() + begin : nullptr; };
      optimizer_kernels<T>().sgd_back(count, at(step.bar_w), at(step.bar_v), at(step.v), at(step.next_v),
                                      rate, momentum, at(step.bar_push), at(step.bar_v_before), rates.at(c),
                                      momenta.at(c));
    }
  });
  rates.finish();
  momenta.finish();
}

template <class T>
void step_tangent_of_sgd(const SgdTangentViews& step) {
  const T rate = number<T>(step.rate), momentum = number<T>(step.momentum);
  const auto if_given = [](const View& view) { return view.data ? view.as<T>() : nullptr; };
  const std::int64_t size = step.w_tangent.size;
  share_step<T>(size, sgd_cost, [&](std::int64_t begin, std::int64_t end) {
    const auto at = [begin](const View& view) { return view.data ? view.as<T>() + begin : nullptr; };
    optimizer_kernels<T>().sgd_tangent(end - begin, at(step.v), at(step.next_v), at(step.w_tangent),
                                       at(step.v_tangent), at(step.push_tangent), rate, momentum,
                                       if_given(step.rate_tangent), if_given(step.momentum_tangent),
                                       at(step.next_w_tangent), at(step.next_v_tangent));
  });
}

template <class T>
void step_of_adam(const AdamViews& step) {
  const typename OptimizerKernels<T>::Adam numbers = {
      number<T>(step.beta1),  number<T>(step.beta2),   number<T>(step.new1), number<T>(step.new2),
      number<T>(step.total2), number<T>(step.epsilon), number<T>(step.rate), static_cast<T>(step.least)};
  share_step<T>(step.w.size, adam_cost, [&](std::int64_t begin, std::int64_t end) {
    const auto at = [begin](const View& view) { return view.as<T>() + begin; };
    optimizer_kernels<T>().adam(end - begin, at(step.w), at(step.m), at(step.v), at(step.g), numbers,
                                at(step.next_w), at(step.next_m), at(step.next_v));
  });
}

template <class T>
void step_of_series(const SeriesViews& step) {
  const std::int64_t size = step.x.size, chunks = divide_up(size, reduction_chunk);
  std::vector<std::array<T, 4>> sums(static_cast<std::size_t>(chunks));
  share_chunks(chunks, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c) {
      const std::int64_t begin = c * reduction_chunk, count = std::min(size - begin, reduction_chunk);
      const auto at = [begin](const View& view) { return view.data ? view.as<T>() + begin : nullptr; };
      optimizer_kernels<T>().series(count, at(step.x), at(step.ax), at(step.b), at(step.step),
                                    static_cast<T>(step.rate), static_cast<T>(step.momentum), at(step.next_x),
                                    at(step.next_step), sums[static_cast<std::size_t>(c)].data());
    }
  });
  for (const std::array<T, 4>& each : sums) {
    step.sums->xx += static_cast<double>(each[0]);
    step.sums->axax += static_cast<double>(each[1]);
    step.sums->x_ax += static_cast<double>(each[2]);
    step.sums->rr += static_cast<double>(each[3]);
  }
}

#define HYPERTAPE_OPTIMIZER_STEPS(T)                            \
  template void step_of_sgd<T>(const SgdViews&);                \
  template void step_back_of_sgd<T>(const SgdBackViews&);       \
  template void step_tangent_of_sgd<T>(const SgdTangentViews&); \
  template void step_of_adam<T>(const AdamViews&);              \
  template void step_of_series<T>(const SeriesViews&);
HYPERTAPE_OPTIMIZER_STEPS(float)
HYPERTAPE_OPTIMIZER_STEPS(double)
#undef HYPERTAPE_OPTIMIZER_STEPS

}  // namespace hypertape::detail
