// Comparisons and selection: loops over operands that differ in dtype, or are no floating numbers.
#include <functional>
#include <utility>

#include <hypertape/core/parallel.h>
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

constexpr std::int64_t grain = 8192;

template <class T>
struct Source {
  const View& view;
};

// target[i] = body(source[i]...), every source broadcast to the target, which is contiguous.
template <class Out, class Body, class... In, std::size_t... k>
void map_elements(const View& target, const Body& body, std::index_sequence<k...>,
                  const Source<In>&... sources) {
  constexpr std::size_t operands = sizeof...(In) + 1;
  if (target.size == 0) return;
  const View* const views[] = {&sources.view..., &target};
  StridedWalk<static_cast<int>(operands)> walk;
  for (int axis = 0; axis < target.rank; ++axis) {
    std::array<std::int64_t, operands> steps{};
    for (std::size_t i = 0; i < operands; ++i) {
      const int own = axis - (target.rank - views[i]->rank);
      if (own >= 0 && views[i]->extents[own] != 1) steps[i] = views[i]->strides[own];
    }
    walk.add_axis(target.extents[axis], steps, static_cast<int>(operands));
  }
  const int inner = std::max(walk.rank - 1, 0);
  const std::int64_t length = walk.rank ? walk.extents[static_cast<std::size_t>(inner)] : 1;
  std::array<std::int64_t, operands> step{};
  bool unit = true;
  for (std::size_t i = 0; i < operands; ++i) {
    step[i] = walk.rank ? walk.strides[i][static_cast<std::size_t>(inner)] : 1;
    unit &= step[i] == 1;
  }
  const auto run_row = [&](const std::array<std::int64_t, operands>& offset) {
    parallel_ranges(length, grain, [&](std::int64_t begin, std::int64_t end) {
      Out* out = target.as<Out>() + offset[operands - 1];
      const auto run = [&](const In*... in) {
        if (unit)
          for (std::int64_t i = begin; i < end; ++i) out[i] = body(in[i]...);
        else
          for (std::int64_t i = begin; i < end; ++i) out[i] = body(in[i * step[k]]...);
      };
      run(sources.view.template as<const In>() + offset[k]...);
    });
  };
  const std::int64_t rows = walk.rank >= 2 ? walk.extents[0] : 1;
  const std::int64_t rows_per_piece = std::max<std::int64_t>(rows * grain / target.size, 1);
  if (length > grain || rows <= rows_per_piece) {
    walk.for_each(inner, run_row);
    return;
  }
  // Short rows: the outermost axis is what is shared out.
  parallel_ranges(rows, rows_per_piece, [&](std::int64_t first, std::int64_t last) {
    auto part = walk;
    part.extents[0] = last - first;
    part.for_each(inner, [&](std::array<std::int64_t, operands> offset) {
      for (std::size_t i = 0; i < operands; ++i) offset[i] += first * walk.strides[i][0];
      run_row(offset);
    });
  });
}

template <class T, class Body>
void relate_with(const Body& body, const View& a, const View& b, const View& target) {
  map_elements<bool>(target, body, std::index_sequence_for<T, T>(), Source<T>{a}, Source<T>{b});
}

}  // namespace

template <class T>
void relate_elements(Relation relation, const View& a, const View& b, const View& target) {
  switch (relation) {
    case Relation::less:
      return relate_with<T>(std::less<T>(), a, b, target);
    case Relation::less_equal:
      return relate_with<T>(std::less_equal<T>(), a, b, target);
    case Relation::greater:
      return relate_with<T>(std::greater<T>(), a, b, target);
    case Relation::greater_equal:
      return relate_with<T>(std::greater_equal<T>(), a, b, target);
    case Relation::equal:
      return relate_with<T>(std::equal_to<T>(), a, b, target);
    case Relation::not_equal:
      return relate_with<T>(std::not_equal_to<T>(), a, b, target);
    case Relation::both:
      return relate_with<T>([](T x, T y) { return (x != T(0)) & (y != T(0)); }, a, b, target);
    case Relation::either:
      return relate_with<T>([](T x, T y) { return (x != T(0)) | (y != T(0)); }, a, b, target);
  }
}

template <class T>
void select_elements(const View& mask, const View& a, const View& b, const View& target) {
  map_elements<T>(
      target, [](bool chosen, T x, T y) { return chosen ? x : y; }, std::index_sequence_for<bool, T, T>(),
      Source<bool>{mask}, Source<T>{a}, Source<T>{b});
}

#define HYPERTAPE_INSTANTIATE(T)                                                     \
  template void relate_elements<T>(Relation, const View&, const View&, const View&); \
  template void select_elements<T>(const View&, const View&, const View&, const View&);
HYPERTAPE_INSTANTIATE(float)
HYPERTAPE_INSTANTIATE(double)
HYPERTAPE_INSTANTIATE(std::int64_t)
HYPERTAPE_INSTANTIATE(bool)
#undef HYPERTAPE_INSTANTIATE

}  // namespace hypertape::detail
