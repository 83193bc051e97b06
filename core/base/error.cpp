#include <hypertape/core/error.h>

#include <cmath>
#include <limits>
#include <locale>

#include "core/base/default_floats.h"
#include "core/base/texts.h"

namespace hypertape {
namespace {

// The sign of a NaN says nothing, and differs between machines.
class Numbers final : public std::num_put<char> {
  iter_type do_put(iter_type out, std::ios_base& format, char fill, double number) const override {
    return std::num_put<char>::do_put(out, format, fill, std::isnan(number) ? std::abs(number) : number);
  }
  iter_type do_put(iter_type out, std::ios_base& format, char fill, long double number) const override {
    return std::num_put<char>::do_put(out, format, fill, std::isnan(number) ? std::abs(number) : number);
  }
};

}  // namespace

// Never destroyed: static objects may fail in their destructors.
const std::locale& detail::text_locale() {
  static const std::locale& locale = *new std::locale(std::locale::classic(), new Numbers);
  return locale;
}

std::ostringstream detail::text_stream() {
  std::ostringstream text;
  text.imbue(text_locale());
  return text;
}

Error::Error(std::string_view operation, std::string_view message)
    : std::runtime_error(std::string("[").append(operation).append("] ").append(message)),
      operation_(operation) {}

Error::~Error() = default;

const char* Error::what() const noexcept {
  return with_context_.empty() ? std::runtime_error::what() : with_context_.c_str();
}

void Error::add_context(std::string_view where) {
  with_context_ = std::string(what()).append(" (").append(where).append(")");
}

void detail::fail_with(std::string_view operation, ErrorText text) {
  std::ostringstream out = text_stream();
  {
    const DefaultFloats floats;  // or 0.1 may read 0.100001
    text.write(text.object, out);
  }
  throw Error(operation, out.str());
}

}  // namespace hypertape
