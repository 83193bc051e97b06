// Softmax along any axis and the softmax cross entropy of integer labels. Lines that are no rows are walked
// side by side where neighbours lie beside each other, else brought together as rows first; all three have
// the same bits.
#include <memory>

#include <hypertape/core/parallel.h>
#include "core/cpu/isa/loops.h"
#include "core/cpu/views.h"
#include "core/memory/scratch.h"

namespace hypertape::detail {
namespace {

// Elements worth a thread of their own.
template <class T>
constexpr std::int64_t softmax_grain = 16384 / static_cast<std::int64_t>(sizeof(T));

// Rows for one thread, in pieces as even as they can be.
template <class T>
std::int64_t rows_per_piece(std::int64_t rows, std::int64_t length) {
  constexpr std::int64_t grain = softmax_grain<T>;
  const std::int64_t pieces = std::max<std::int64_t>(divide_up(rows * length, grain), 1);
  return std::max<std::int64_t>(divide_up(rows, pieces), 1);
}

// body(first row, rows)
template <class T, class Body>
void share_rows(std::int64_t rows, std::int64_t length, const Body& body) {
  const auto run = [&](std::int64_t begin, std::int64_t end) { body(begin, end - begin); };
  parallel_ranges(rows, rows_per_piece<T>(rows, length), run,
                  rows * length <= 8 * softmax_grain<T> ? CallSize::brief : CallSize::any);
}

// A view whose lines along `axis` are its rows, as a copy unless they are so already.
template <class T>
class Rows {
 public:
  Rows(const View& view, int axis) : moved_(view) {
    int to = 0;
    for (int a = 0; a < view.rank; ++a)
      if (a != axis) set(to++, view, a);
    if (view.rank > 0) set(to, view, axis);
    moved_.extents = extents_.data();
    moved_.strides = strides_.data();
    std::int64_t step = 1;
    bool in_place = true;
    for (int a = view.rank - 1; a >= 0; --a) {
      const auto at = static_cast<std::size_t>(a);
      in_place &= extents_[at] == 1 || strides_[at] == step;
      contiguous_[at] = step;
      step *= extents_[at];
    }
    moved_.contiguous = in_place;
    data_ = view.as<T>();
    if (!in_place) data_ = (scratch_ = std::make_unique<Scratch<T>>(view.size))->get();
  }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  const T* read() const {
    if (scratch_) copy_elements<T, T>(moved_, together());
    return data_;
  }
  T* data() const noexcept { return data_; }
  void write_back() const {
    if (scratch_) copy_elements<T, T>(together(), moved_);
  }

 private:
  void set(int to, const View& view, int from) {
    extents_[static_cast<std::size_t>(to)] = view.extents[from];
    strides_[static_cast<std::size_t>(to)] = view.strides[from];
  }
  View together() const noexcept {
    View view = moved_;
    view.data = data_;
    view.strides = contiguous_.data();
    view.contiguous = true;
    return view;
  }

  View moved_;
  std::array<std::int64_t, max_rank> extents_{}, strides_{}, contiguous_{};
  std::unique_ptr<Scratch<T>> scratch_;
  T* data_;
};

// Lines along an axis of contiguous arrays, as many beside each other as the axes behind it have positions.
template <class T>
struct Across {
  std::int64_t length, beside;
  Across(const View& view, int axis) : length(view.extents[axis]), beside(1) {
    for (int a = axis + 1; a < view.rank; ++a) beside *= view.extents[a];
  }
  /// Fewer than a vector's leave too many of its lanes empty.
  bool worthwhile() const noexcept { return beside * static_cast<std::int64_t>(sizeof(T)) >= 64; }

  /// body(lines, offset of the first) for groups of neighbours, shared between threads.
  template <class Body>
  void share(std::int64_t size, const Body& body) const {
    constexpr std::int64_t grain = softmax_grain<T>, widest = SoftmaxLoops<T>::widest;
    const std::int64_t groups = divide_up(beside, widest);
    const std::int64_t width = std::min(divide_up(divide_up(beside, groups), 16) * 16, beside);
    const std::int64_t all = size / (length * beside) * groups;
    const std::int64_t elements = length * width;
    parallel_ranges(all, std::max<std::int64_t>(grain / elements, 1),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t group = begin; group < end; ++group) {
                        const std::int64_t first = group % groups * width;
                        body(std::min(width, beside - first), group / groups * length * beside + first);
                      }
                    });
  }
};

}  // namespace

template <class T>
void softmax_rows(const View& source, int axis, bool logarithm, const View& target) {
  if (target.size == 0) return;
  if (const Across<T> lines(source, axis); source.contiguous && target.contiguous && lines.worthwhile()) {
    const SoftmaxLoops<T>& loops = softmax_loops<T>();
    const auto loop = logarithm ? loops.log_softmax_across : loops.softmax_across;
    return lines.share(target.size, [&](std::int64_t count, std::int64_t at) {
      loop(count, lines.length, lines.beside, source.as<T>() + at, target.as<T>() + at);
    });
  }
  const std::int64_t length = source.extents[axis], rows = source.size / length;
  const Rows<T> from(source, axis), to(target, axis);
  const T* x = from.read();
  T* y = to.data();
  const auto loop = logarithm ? softmax_loops<T>().log_softmax : softmax_loops<T>().softmax;
  share_rows<T>(rows, length, [&](std::int64_t first, std::int64_t count) {
    loop(count, length, x + first * length, y + first * length);
  });
  to.write_back();
}

template <class T>
void softmax_derivative_rows(SoftmaxDerivative kind, const View& result, const View& t, int axis,
                             const View& target) {
  if (target.size == 0) return;
  if (const Across<T> lines(target, axis);
      result.contiguous && t.contiguous && target.contiguous && lines.worthwhile()) {
    const SoftmaxLoops<T>& loops = softmax_loops<T>();
    const auto loop = kind == SoftmaxDerivative::softmax            ? loops.softmax_slope_across
                      : kind == SoftmaxDerivative::log_softmax_pull ? loops.log_softmax_pull_across
                                                                    : loops.log_softmax_push_across;
    return lines.share(target.size, [&](std::int64_t count, std::int64_t at) {
      loop(count, lines.length, lines.beside, result.as<T>() + at, t.as<T>() + at, target.as<T>() + at);
    });
  }
  const std::int64_t length = target.extents[axis], rows = target.size / length;
  const Rows<T> results(result, axis), directions(t, axis), to(target, axis);
  const T *p = results.read(), *d = directions.read();
  T* y = to.data();
  const SoftmaxLoops<T>& loops = softmax_loops<T>();
  const auto loop = kind == SoftmaxDerivative::softmax            ? loops.softmax_slope
                    : kind == SoftmaxDerivative::log_softmax_pull ? loops.log_softmax_pull
                                                                  : loops.log_softmax_push;
  share_rows<T>(rows, length, [&](std::int64_t first, std::int64_t count) {
    const std::int64_t at = first * length;
    loop(count, length, p + at, d + at, y + at);
  });
  to.write_back();
}

template <class T>
void cross_entropy_loss_rows(const View& logits, const View& labels, const View& target) {
  const std::int64_t length = logits.extents[1], step = labels.strides[0];
  share_rows<T>(logits.extents[0], length, [&](std::int64_t first, std::int64_t count) {
    softmax_loops<T>().losses(count, length, logits.as<T>() + first * length,
                              labels.as<std::int64_t>() + first * step, step, target.as<T>() + first);
  });
}

template <class T>
void cross_entropy_rows(const View& logits, const View& labels, const View& target) {
  const std::int64_t rows = logits.extents[0];
  const Scratch<T> losses(rows);
  View each = target;
  each.data = losses.get();
  cross_entropy_loss_rows<T>(logits, labels, each);
  *target.as<T>() = loops<T>().sum(rows, losses.get()) / static_cast<T>(rows);
}

namespace {
// What multiplies the rows: a number each, or one over the number of rows for all.
template <class T>
struct RowScales {
  RowScales(const View& scales, bool mean, std::int64_t rows)
      : whole(mean ? *scales.as<T>() / static_cast<T>(rows) : T(0)),
        each(mean ? &whole : scales.as<T>()),
        step(mean ? 0 : scales.strides[0]) {}
  RowScales(const RowScales&) = delete;
  RowScales& operator=(const RowScales&) = delete;
  T whole;
  const T* each;
  std::int64_t step;
};
}  // namespace

template <class T>
void cross_entropy_gradient_rows(const View& scales, bool mean, const View& logits, const View& labels,
                                 const View& target) {
  const std::int64_t length = logits.extents[1], step = labels.strides[0];
  const RowScales<T> by(scales, mean, logits.extents[0]);
  share_rows<T>(logits.extents[0], length, [&](std::int64_t first, std::int64_t count) {
    softmax_loops<T>().loss_gradient(count, length, logits.as<T>() + first * length,
                                     labels.as<std::int64_t>() + first * step, step,
                                     by.each + first * by.step, by.step, target.as<T>() + first * length);
  });
}

template <class T>
void cross_entropy_curvature_rows(const View& scales, bool mean, const View& logits, const View& t,
                                  const View& target) {
  const std::int64_t length = logits.extents[1];
  const RowScales<T> by(scales, mean, logits.extents[0]);
  share_rows<T>(logits.extents[0], length, [&](std::int64_t first, std::int64_t count) {
    const std::int64_t at = first * length;
    softmax_loops<T>().loss_curvature(count, length, logits.as<T>() + at, t.as<T>() + at,
                                      by.each + first * by.step, by.step, target.as<T>() + at);
  });
}

#define HYPERTAPE_SOFTMAX(T)                                                                               \
  template void softmax_rows<T>(const View&, int, bool, const View&);                                      \
  template void softmax_derivative_rows<T>(SoftmaxDerivative, const View&, const View&, int, const View&); \
  template void cross_entropy_rows<T>(const View&, const View&, const View&);                              \
  template void cross_entropy_loss_rows<T>(const View&, const View&, const View&);                         \
  template void cross_entropy_gradient_rows<T>(const View&, bool, const View&, const View&, const View&);  \
  template void cross_entropy_curvature_rows<T>(const View&, bool, const View&, const View&, const View&);
HYPERTAPE_SOFTMAX(float)
HYPERTAPE_SOFTMAX(double)
#undef HYPERTAPE_SOFTMAX

}  // namespace hypertape::detail
