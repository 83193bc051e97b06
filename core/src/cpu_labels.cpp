// Rows and integer labels: gather, scatter, and the fused softmax cross entropy. Rows are contiguous here.
#include <cmath>
#include <vector>

#include "cpu_loops.h"
#include "hypertape/core/error.h"
#include "loops.h"
#include "scalar_math.h"

namespace hypertape::detail {
namespace {

std::int64_t label_at(std::string_view operation, const View& labels, std::int64_t row,
                      std::int64_t classes) {
  const std::int64_t label = labels.as<std::int64_t>()[row * labels.strides[0]];
  if (label < 0 || label >= classes)
    fail(operation, "label ", label, " of row ", row, " is outside 0..", classes - 1, " (", classes,
         " classes)");
  return label;
}

template <class T>
T row_max(const T* row, std::int64_t n) {
  // A NaN anywhere must survive: `!(x <= m)` takes it, and nothing compares below it afterwards.
  T m = row[0];
  for (std::int64_t j = 1; j < n; ++j)
    if (!(row[j] <= m)) m = m != m ? m : row[j];
  return m;
}

// exponentials[j] = exp(row[j] - max); returns their sum.
template <class T>
T shifted_exponentials(const T* row, std::int64_t n, T maximum, T* exponentials) {
  for (std::int64_t j = 0; j < n; ++j) exponentials[j] = math::exp(row[j] - maximum);
  return loops<T>().sum(n, exponentials);
}

}  // namespace

template <class T>
void gather_label_elements(const View& rows, const View& labels, const View& target) {
  for (std::int64_t i = 0; i < rows.extents[0]; ++i) {
    const std::int64_t label = label_at("gather_labels", labels, i, rows.extents[1]);
    target.as<T>()[i] = rows.as<T>()[i * rows.strides[0] + label * rows.strides[1]];
  }
}

template <class T>
void scatter_label_elements(const View& values, const View& labels, const View& target) {
  fill_elements<T>(target, 0.0);
  for (std::int64_t i = 0; i < target.extents[0]; ++i) {
    const std::int64_t label = label_at("scatter_labels", labels, i, target.extents[1]);
    target.as<T>()[i * target.extents[1] + label] = values.as<T>()[i * values.strides[0]];
  }
}

template <class T>
void cross_entropy_rows(const View& logits, const View& labels, const View& target) {
  const std::int64_t rows = logits.extents[0], classes = logits.extents[1];
  std::vector<T> exponentials(static_cast<std::size_t>(classes)), losses(static_cast<std::size_t>(rows));
  for (std::int64_t i = 0; i < rows; ++i) {
    const T* row = logits.as<T>() + i * classes;
    const std::int64_t label = label_at("softmax_cross_entropy", labels, i, classes);
    const T maximum = row_max(row, classes);
    const T total = shifted_exponentials(row, classes, maximum, exponentials.data());
    losses[static_cast<std::size_t>(i)] = math::log(total) - (row[label] - maximum);
  }
  *target.as<T>() = loops<T>().sum(rows, losses.data()) / static_cast<T>(rows);
}

template <class T>
void cross_entropy_backward_rows(const View& scale, const View& logits, const View& labels,
                                 const View& target) {
  const std::int64_t rows = logits.extents[0], classes = logits.extents[1];
  const T factor = *scale.as<T>() / static_cast<T>(rows);
  for (std::int64_t i = 0; i < rows; ++i) {
    const T* row = logits.as<T>() + i * classes;
    T* out = target.as<T>() + i * classes;
    const std::int64_t label = label_at("softmax_cross_entropy", labels, i, classes);
    const T inverse = T(1) / shifted_exponentials(row, classes, row_max(row, classes), out);
    for (std::int64_t j = 0; j < classes; ++j)
      out[j] = factor * (out[j] * inverse - (j == label ? T(1) : T(0)));
  }
}

template <class T>
void row_maxima(const View& rows, const View& target) {
  const std::int64_t width = rows.extents[rows.rank - 1];
  for (std::int64_t i = 0; i < target.size; ++i) target.as<T>()[i] = row_max(rows.as<T>() + i * width, width);
}

#define HYPERTAPE_LABEL_LOOPS(T)                                                                    \
  template void gather_label_elements<T>(const View&, const View&, const View&);                    \
  template void scatter_label_elements<T>(const View&, const View&, const View&);                   \
  template void cross_entropy_rows<T>(const View&, const View&, const View&);                       \
  template void cross_entropy_backward_rows<T>(const View&, const View&, const View&, const View&); \
  template void row_maxima<T>(const View&, const View&);
HYPERTAPE_LABEL_LOOPS(float)
HYPERTAPE_LABEL_LOOPS(double)
#undef HYPERTAPE_LABEL_LOOPS

}  // namespace hypertape::detail
