// The program without its main, so that tests can run it.
#pragma once

#include <iosfwd>

namespace hypertape {

/// Runs a command line. Results go to `out`, only when whole; errors to `err`, one line beginning
/// "hypertape: ". Progress is shown only if `err` is std::cerr on a terminal.
///
/// Returns 0; 1 for a failure, such as bad data or training that diverged (the report is then still
/// printed); 2 for bad usage.
int run_program(int argc, const char* const* argv, std::ostream& out, std::ostream& err);

}  // namespace hypertape
