// What a user reads when a long run is interrupted.
#pragma once

#include <signal.h>

#include <string>

namespace hypertape {

/// While it lives, SIGINT, SIGTERM and SIGHUP write a line to the standard error output before they end the
/// process as ever; where one of them is ignored, it stays so. One at a time.
class InterruptionNotice {
 public:
  /// `kept` is written if the open folder `folder` holds a file `name` by then, `lost` if it does not.
  InterruptionNotice(int folder, std::string name, std::string kept, std::string lost);
  ~InterruptionNotice();
  InterruptionNotice(const InterruptionNotice&) = delete;
  InterruptionNotice& operator=(const InterruptionNotice&) = delete;

 private:
  struct sigaction before_[3];
};

/// A command line that a shell reads as these arguments.
std::string shell_line(int argc, const char* const* argv);

}  // namespace hypertape
