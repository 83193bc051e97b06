// Values of options, from text. Each function throws std::invalid_argument with what is wrong: "must be ..."
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace hypertape {

/// A whole number from `least` to `most`.
std::int64_t parse_integer(const std::string& text, std::int64_t least, std::int64_t most);

/// A finite number from `least` to `most`, in C notation whatever the locale.
double parse_number(const std::string& text, double least, double most);

/// "40MB" -> 40,000,000: a number of B, kB, MB, GB or TB (powers of 1000), or of bytes without a unit; at
/// least 1 byte.
std::int64_t parse_bytes(const std::string& text);

/// "50,50" -> {50, 50}, each within the limits; at least one, at most 100.
std::vector<std::int64_t> parse_integers(const std::string& text, std::int64_t least, std::int64_t most);

/// Position of `text` among the choices.
std::size_t parse_choice(const std::string& text, std::span<const char* const> choices);

/// "b,a" -> {"a", "b"}: the choices named, each once, in the order of `choices`.
std::vector<std::string> parse_choices(const std::string& text, std::span<const char* const> choices);

}  // namespace hypertape
