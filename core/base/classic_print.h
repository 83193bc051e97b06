// Printing to a stranger's stream, which may write 1.000 for a thousand.
#pragma once

#include <ostream>
#include <sstream>

#include <hypertape/core/error.h>
#include "core/base/default_floats.h"

namespace hypertape::detail {

/// What print(stream) writes, with the flags and the precision of `out` but numbers as in the classic locale,
/// rounded to nearest. A width set for `out` holds for the whole.
template <class Print>
std::ostream& print_classic(std::ostream& out, const Print& print) {
  std::ostringstream text = text_stream();
  text.flags(out.flags());
  text.precision(out.precision());
  const DefaultFloats floats;
  print(text);
  return out << text.str();
}

}  // namespace hypertape::detail
