#include "nearest.h"

#include <algorithm>
#include <cctype>
#include <numeric>

namespace hypertape {
namespace {

// Without the dashes before an option.
std::string letters_of(std::string_view name) {
  name.remove_prefix(std::min(name.find_first_not_of('-'), name.size()));
  std::string letters;
  for (const char c : name) letters += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return letters;
}

// Letters to insert, remove, replace or exchange with their neighbours (Damerau's and Levenshtein's
// distance).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before, last(b.size() + 1), now(b.size() + 1);
  std::iota(last.begin(), last.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        now[j] = std::min(now[j], before[j - 2] + 1);
    }
    before = last;
    std::swap(last, now);
  }
  return last[b.size()];
}

}  // namespace

std::string nearest(std::string_view typed, const std::vector<std::string>& names) {
  constexpr std::size_t longest = 64, least_beginning = 2;
  const std::string letters = letters_of(typed);
  if (letters.empty() || letters.size() > longest) return "";
  std::string best;
  std::size_t least = std::max<std::size_t>(1, letters.size() / 3) + 1;
  for (const std::string& name : names) {
    const std::size_t away = distance(letters, letters_of(name));
    // Of two letters, one would be a slip of too much.
    if (away >= least || (away > 0 && letters.size() <= 2)) continue;
    least = away;
    best = name;
  }
  if (!best.empty() || letters.size() < least_beginning) return best;
  for (const std::string& name : names) {
    if (!letters_of(name).starts_with(letters)) continue;
    if (!best.empty()) return "";
    best = name;
  }
  return best;
}

std::string suggestion(std::string_view typed, const std::vector<std::string>& names) {
  const std::string name = nearest(typed, names);
  return name.empty() ? "" : "; did you mean " + name + "?";
}

}  // namespace hypertape
