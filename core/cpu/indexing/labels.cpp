// Rows and integer labels, which were checked: gather and scatter.
#include "core/cpu/views.h"

namespace hypertape::detail {
namespace {

std::int64_t label_at(const View& labels, std::int64_t row) {
  return labels.as<std::int64_t>()[row * labels.strides[0]];
}

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

#define HYPERTAPE_LABEL_LOOPS(T)                                                 \
  template void gather_label_elements<T>(const View&, const View&, const View&); \
  template void scatter_label_elements<T>(const View&, const View&, const View&);
HYPERTAPE_LABEL_LOOPS(float)
HYPERTAPE_LABEL_LOOPS(double)
#undef HYPERTAPE_LABEL_LOOPS

}  // namespace hypertape::detail
