// What somebody probably meant to type.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hypertape {

/// The name that `typed` is a slip of: one that only its case, a letter in three, or the rest of the name
/// tells from it. Empty if there is none, or several names begin with it.
std::string nearest(std::string_view typed, const std::vector<std::string>& names);

/// "; did you mean momenta?", or nothing.
std::string suggestion(std::string_view typed, const std::vector<std::string>& names);

}  // namespace hypertape
