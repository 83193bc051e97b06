// Rows and integer labels: gather, scatter, and the fused softmax cross entropy. Rows are
// contiguous and labels checked here.
#include <cmath>

#include "cpu_loops.h"
#include "elementwise_code.h"
#include "hypertape/core/parallel.h"
#include "loops.h"
#include "scalar_math.h"

namespace hypertape::detail {
namespace {

std::int64_t label_at(const View& labels, std::int64_t row) {
  return labels.as<std::int64_t>()[row * labels.strides[0]];
}

template <class T>
T row_max(const T* row, std::int64_t n) {
  // A NaN anywhere must survive: `!(x <= m)` takes it, and nothing compares below it afterwards.
  T m = row[0];
  for (std::int64_t j = 1; j < n; ++j)
    if (!(row[j] <= m)) m = m != m ? m : row[j];
  return m;
}

// Rows that are worth a thread of their own.
std::int64_t rows_per_piece(std::int64_t classes) { return std::max<std::int64_t>(512 / classes, 1); }

// exponentials = exp(row - its maximum) for rows [begin, end): all rows in one vectorised call, however short
// they are.
template <class T>
void shifted_exponentials(const View& logits, std::int64_t begin, std::int64_t end, T* maxima,
                          T* exponentials) {
  const std::int64_t classes = logits.extents[1];
  for (std::int64_t i = begin; i < end; ++i) {
    const T* row = logits.as<T>() + i * classes;
    const T maximum = maxima[i - begin] = row_max(row, classes);
    for (std::int64_t j = 0; j < classes; ++j) exponentials[(i - begin) * classes + j] = row[j] - maximum;
  }
  const ElementwiseKernels exp = elementwise_kernels(ElementwiseCode::exp).value;
  const void* in[] = {exponentials};
  void* out[] = {exponentials};
  (sizeof(T) == 4 ? exp.float32 : exp.float64)((end - begin) * classes, in, out, 0.0);
}

// Scratch memory of the pool, so that it is accounted.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t size)
      : data_(static_cast<T*>(allocate_bytes(static_cast<std::size_t>(size) * sizeof(T)))) {}
  ~Scratch() { release_bytes(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const noexcept { return data_; }

 private:
  T* data_;
};

}  // namespace

template <class T>
void gather_label_elements(const View& rows, const View& labels, const View& target) {
  for (std::int64_t i = 0; i < rows.extents[0]; ++i) {
    const std::int64_t label = label_at(labels, i);
    target.as<T>()[i] = rows.as<T>()[i * rows.strides[0] + label * rows.strides[1]];
  }
}

template <class T>
void scatter_label_elements(const View& values, const View& labels, const View& target) {
  fill_elements<T>(target, 0.0);
  for (std::int64_t i = 0; i < target.extents[0]; ++i) {
    const std::int64_t label = label_at(labels, i);
    target.as<T>()[i * target.extents[1] + label] = values.as<T>()[i * values.strides[0]];
  }
}

template <class T>
void cross_entropy_loss_rows(const View& logits, const View& labels, const View& target) {
  const std::int64_t rows = logits.extents[0], classes = logits.extents[1];
  T* losses = target.as<T>();
  parallel_ranges(rows, rows_per_piece(classes), [&](std::int64_t begin, std::int64_t end) {
    const Scratch<T> maxima(end - begin), exponentials((end - begin) * classes);
    shifted_exponentials(logits, begin, end, maxima.get(), exponentials.get());
    for (std::int64_t i = begin; i < end; ++i) {
      const T total = loops<T>().sum(classes, exponentials.get() + (i - begin) * classes);
      losses[i] =
          math::log(total) - (logits.as<T>()[i * classes + label_at(labels, i)] - maxima.get()[i - begin]);
    }
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
// factor(i) scales row i.
template <class T, class Factor>
void scaled_gradient_rows(const View& logits, const View& labels, const View& target, const Factor& factor) {
  const std::int64_t rows = logits.extents[0], classes = logits.extents[1];
  parallel_ranges(rows, rows_per_piece(classes), [&](std::int64_t begin, std::int64_t end) {
    const Scratch<T> maxima(end - begin);
    shifted_exponentials(logits, begin, end, maxima.get(), target.as<T>() + begin * classes);
    for (std::int64_t i = begin; i < end; ++i) {
      T* out = target.as<T>() + i * classes;
      const T scale = factor(i);
      const std::int64_t label = label_at(labels, i);
      const T inverse = T(1) / loops<T>().sum(classes, out);
      for (std::int64_t j = 0; j < classes; ++j)
        out[j] = scale * (out[j] * inverse - (j == label ? T(1) : T(0)));
    }
  });
}
}  // namespace

template <class T>
void cross_entropy_backward_rows(const View& scale, const View& logits, const View& labels,
                                 const View& target) {
  const T factor = *scale.as<T>() / static_cast<T>(logits.extents[0]);
  scaled_gradient_rows<T>(logits, labels, target, [factor](std::int64_t) { return factor; });
}

template <class T>
void cross_entropy_loss_rows_backward(const View& scales, const View& logits, const View& labels,
                                      const View& target) {
  scaled_gradient_rows<T>(logits, labels, target,
                          [&](std::int64_t i) { return scales.as<T>()[i * scales.strides[0]]; });
}

#define HYPERTAPE_LABEL_LOOPS(T)                                                                    \
  template void gather_label_elements<T>(const View&, const View&, const View&);                    \
  template void scatter_label_elements<T>(const View&, const View&, const View&);                   \
  template void cross_entropy_rows<T>(const View&, const View&, const View&);                       \
  template void cross_entropy_backward_rows<T>(const View&, const View&, const View&, const View&); \
  template void cross_entropy_loss_rows<T>(const View&, const View&, const View&);                  \
  template void cross_entropy_loss_rows_backward<T>(const View&, const View&, const View&, const View&);
HYPERTAPE_LABEL_LOOPS(float)
HYPERTAPE_LABEL_LOOPS(double)
#undef HYPERTAPE_LABEL_LOOPS

}  // namespace hypertape::detail
