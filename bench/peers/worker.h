// The line protocol of worker.py for the workers in C++. Standard library only.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "problem.h"

namespace peers {

struct Variant {
  std::string name;
  std::function<void()> call;  // computes the result and keeps it
};

struct Work {
  std::vector<Variant> variants;                             // compute the same; the fastest is measured
  std::function<std::vector<std::vector<double>>()> result;  // of the last call
  std::function<void()> release;                             // drops that result
};

struct System {
  std::string name, versions;  // versions: a JSON object
  std::function<Work(const std::string& work, const std::string& dtype)> build;
  // Bytes that the call needed at most.
  std::function<std::int64_t(const std::function<void()>& call)> peak;
};

namespace detail {

inline double seconds_of(const std::function<void()>& call, std::int64_t calls) {
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t i = 0; i < calls; ++i) call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline std::string text_of(double value) {
  if (!std::isfinite(value)) throw std::runtime_error("the result is not finite");
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

inline std::string json_text(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return result + "\"";
}

// For each result its norm and its product with a fixed vector.
inline std::string checksum(const std::vector<std::vector<double>>& results) {
  std::string text = "[";
  for (const std::vector<double>& values : results) {
    double squares = 0.0, along = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      squares += values[i] * values[i];
      along += (-1.0 + 2.0 * uniform_at(99, i)) * values[i];
    }
    if (text.size() > 1) text += ", ";
    text += "[" + text_of(std::sqrt(squares)) + ", " + text_of(along) + "]";
  }
  return text + "]";
}

class Worker {
 public:
  explicit Worker(const System& system) : system_(system) {}

  std::string answer(const std::string& line) {
    std::istringstream words(line);
    std::string command, name, dtype;
    words >> command >> name >> dtype;
    if (command == "setup") return setup(name, dtype);
    if (!call_) throw std::invalid_argument(command + " before setup");
    if (command == "run")
      return "{\"seconds\": " + text_of(seconds_of(call_, calls_) / static_cast<double>(calls_)) + "}";
    if (command == "peak") {
      work_.release();
      return "{\"bytes\": " + std::to_string(system_.peak(call_)) + "}";
    }
    throw std::invalid_argument("unknown command " + command);
  }

 private:
  std::string setup(const std::string& name, const std::string& dtype) {
    call_ = nullptr;
    work_ = {};
    work_ = system_.build(name, dtype);
    double first = 0.0, best = 0.0;
    std::string sums, chosen;
    for (const Variant& variant : work_.variants) {
      const double seconds = seconds_of(variant.call, 1);
      std::string its_sums = checksum(work_.result());
      double fastest = 0.0;
      if (work_.variants.size() > 1) {
        fastest = seconds_of(variant.call, 1);
        for (int i = 0; i < 2; ++i) fastest = std::min(fastest, seconds_of(variant.call, 1));
      }
      if (call_ && fastest >= best) continue;
      call_ = variant.call;
      first = seconds, best = fastest, sums = std::move(its_sums), chosen = variant.name;
    }
    calls_ = 1;
    // A first call that long tells enough.
    if (first < long_seconds)
      while (seconds_of(call_, calls_) < least_seconds) calls_ *= 2;
    return "{\"first_seconds\": " + text_of(first) + ", \"checksum\": " + sums +
           ", \"calls\": " + std::to_string(calls_) + ", \"variant\": " + json_text(chosen) + "}";
  }

  static constexpr double least_seconds = 2e-3, long_seconds = 1.0;
  const System& system_;
  Work work_;
  std::function<void()> call_;
  std::int64_t calls_ = 1;
};

}  // namespace detail

inline int serve(const System& system) {
  std::cout << "{\"system\": " << detail::json_text(system.name) << ", \"versions\": " << system.versions
            << "}" << std::endl;
  detail::Worker worker(system);
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    std::string answer;
    try {
      answer = worker.answer(line);
    } catch (const std::exception& error) {
      answer = "{\"error\": " + detail::json_text(error.what()) + "}";
    }
    std::cout << answer << std::endl;
  }
  return 0;
}

}  // namespace peers
