#include "progress.h"

#include <algorithm>
#include <iomanip>
#include <ostream>
#include <sstream>

#include <hypertape/core/error.h>

namespace hypertape {

void Progress::begin(const std::string& what, double steps) {
  what_ = what;
  part_ = steps;
  part_done_ = 0.0;
  show();
}

void Progress::step() {
  part_done_ = std::min(part_, part_done_ + 1.0);
  show();
}

void Progress::end() {
  done_ += part_;
  part_ = part_done_ = 0.0;
  show();
}

void Progress::show() {
  constexpr auto interval = std::chrono::milliseconds(200);
  if (terminal_ == nullptr) return;
  const Clock::time_point now = Clock::now();
  if (now - shown_ < interval) return;
  shown_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double done = done_ + part_done_;
  const double rate = done / seconds;
  std::ostringstream line = detail::text_stream();
  line << std::fixed << std::setprecision(0) << what_ << ": " << rate << " steps/s";
  if (expected_ > 0.0 && rate > 0.0) {
    line << ", " << std::min(99.0, 100.0 * done / expected_) << " %, about "
         << std::max(1.0, (expected_ - done) / rate) << " s left";
  }
  // \x1b[K erases what a longer line left behind.
  *terminal_ << '\r' << line.str() << "\x1b[K" << std::flush;
  visible_ = true;
}

void Progress::clear() {
  if (!visible_) return;
  *terminal_ << "\r\x1b[K" << std::flush;
  visible_ = false;
}

}  // namespace hypertape
