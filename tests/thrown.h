// What a call that must fail says.
#pragma once

#include <doctest/doctest.h>

#include <exception>
#include <string>

/// The message of what `call` throws, or "nothing thrown".
template <class Call>
std::string thrown(Call&& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing thrown";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline void expect_text(const std::string& text, const std::string& part) {
  CHECK_MESSAGE(contains(text, part), "expected \"" << part << "\" in: " << text);
}
