// What texts are written with.
#pragma once

#include <locale>

namespace hypertape::detail {

/// The classic locale, but for NaN, which has no sign.
const std::locale& text_locale();

}  // namespace hypertape::detail
