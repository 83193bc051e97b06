#include "bilevel/run/replay_log.h"

#include <iomanip>
#include <limits>
#include <sstream>

#include <hypertape/core/error.h>
#include "core/backend/backend.h"

namespace hypertape::bilevel::detail {
namespace {
hypertape::detail::View view_of_place(const Tensor& values, std::int64_t place,
                                      const hypertape::detail::View& like) {
  hypertape::detail::View view = like;
  view.data = static_cast<std::byte*>(hypertape::detail::view_of(values).data) +
              static_cast<std::size_t>(place) * size_of(values.dtype());
  return view;
}
}  // namespace

bool ReplayLog::agrees(std::int64_t place, std::int64_t places, const Tensor& value) {
  if (!value.defined() || value.size() != 1 || !is_floating(value.dtype())) return true;
  if (kept_.empty()) {
    kept_ = hypertape::detail::list_of<std::vector<bool>>(places);
    values_ = hypertape::detail::make_tensor(Shape{places}, value.dtype());
  }
  if (value.dtype() != values_.dtype()) return false;
  const hypertape::detail::BackendCall backend = hypertape::detail::backend_of(value);
  const hypertape::detail::View seen = hypertape::detail::view_of(value),
                                kept = view_of_place(values_, place, seen);
  if (kept_[static_cast<std::size_t>(place)]) return backend->expect_same(seen, kept);
  backend->copy(seen, kept);
  kept_[static_cast<std::size_t>(place)] = true;
  return true;
}

std::string ReplayLog::difference(std::int64_t place, const Tensor& value) const {
  const auto position = static_cast<std::size_t>(place);
  std::ostringstream text = hypertape::detail::text_stream();
  text << std::setprecision(std::numeric_limits<double>::max_digits10)
       << (values_.dtype() == Dtype::float32 ? static_cast<double>(values_.data<float>()[position])
                                             : values_.data<double>()[position])
       << " at first, " << value.item() << " now";
  return text.str();
}

}  // namespace hypertape::bilevel::detail
