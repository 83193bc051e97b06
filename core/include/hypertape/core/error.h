// One exception type for everything the library refuses.
//
// The text always reads "[operation] what is wrong, with shapes or values, and what to do about it."
// Nothing has been changed when it is thrown: operations check before they write.
#pragma once

#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include <hypertape/core/abi.h>
#include <hypertape/core/export.h>

namespace hypertape {

/// What every public function throws on bad input or a failed computation.
class HYPERTAPE_API Error : public std::runtime_error {
 public:
  /// `operation` is the public name of the function that refuses; it appears in brackets.
  Error(std::string_view operation, std::string_view message);
  ~Error() override;

  /// Name of the operation, without brackets.
  const std::string& operation() const noexcept { return operation_; }
  const char* what() const noexcept override;
  /// Appends where it happened, in brackets: for those who pass an error on ("at step 37 of 100").
  void add_context(std::string_view where);

 private:
  std::string operation_, with_context_;
};

namespace detail {
/// For texts, which read the same whatever the global locale is, and where no NaN has a sign.
HYPERTAPE_API std::ostringstream text_stream();

// A borrowed callable that writes the text of an error.
struct ErrorText {
  const void* object;
  void (*write)(const void* object, std::ostream& out);
};
[[noreturn]] HYPERTAPE_API void fail_with(std::string_view operation, ErrorText text);
}  // namespace detail

/// Throws `Error(operation, parts...)`, the parts streamed one after another:
///
///     fail("matmul", "inner dimensions differ: ", a.shape(), " and ", b.shape());
template <class... Parts>
[[noreturn]] void fail(std::string_view operation, const Parts&... parts) {
  const auto write = [&](std::ostream& out) { (out << ... << parts); };
  using Write = std::remove_const_t<decltype(write)>;
  detail::fail_with(operation, {std::addressof(write), [](const void* object, std::ostream& out) {
                                  (*static_cast<const Write*>(object))(out);
                                }});
}

}  // namespace hypertape
