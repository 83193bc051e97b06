// The program run inside the tests.
#pragma once

#include <doctest/doctest.h>

#include <sstream>
#include <string>
#include <vector>

#include "program.h"
#include "thrown.h"

using Words = std::vector<std::string>;

struct Outcome {
  int code;
  std::string out, err;
};

inline Outcome run(const Words& words) {
  std::vector<const char*> argv = {"hypertape"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  std::ostringstream out, err;
  const int code = hypertape::run_program(static_cast<int>(argv.size()), argv.data(), out, err);
  return {code, out.str(), err.str()};
}

inline Words with(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

/// The one line that every error is.
inline void check_error(const Outcome& outcome, int code, const std::string& part) {
  INFO(outcome.err);
  CHECK(outcome.code == code);
  CHECK(outcome.out.empty());
  CHECK(outcome.err.starts_with("hypertape: "));
  CHECK(outcome.err.find('\n') == outcome.err.size() - 1);
  CHECK(contains(outcome.err, part));
}
