// The library has no voice of its own: whatever it is asked to do, nothing appears on the embedder's standard
// output or standard error. What its objects could call at all is checked by cmake/CheckQuiet.cmake.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/initialize.h>
#include <hypertape/core/memory.h>
#include <hypertape/core/warning.h>
#include "bilevel_problems.h"
#include "core/base/warn_once.h"
#include "thrown.h"

namespace {

namespace ht = hypertape;
using namespace bilevel_problems;

// What arrives at the descriptors of standard output and standard error during its life.
class Captured {
 public:
  Captured() : file_(std::tmpfile()) {
    REQUIRE(file_ != nullptr);
    flush();
    for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
      before_[descriptor - STDOUT_FILENO] = dup(descriptor);
      dup2(fileno(file_), descriptor);
    }
  }
  ~Captured() {
    restore();
    std::fclose(file_);
  }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;

  /// Ends the capture.
  std::string text() {
    restore();
    std::rewind(file_);
    std::string result;
    for (int c = std::fgetc(file_); c != EOF; c = std::fgetc(file_)) result += static_cast<char>(c);
    return result;
  }

 private:
  static void flush() {
    std::cout.flush();
    std::cerr.flush();
    std::fflush(nullptr);
  }
  void restore() {
    flush();
    for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
      int& saved = before_[descriptor - STDOUT_FILENO];
      if (saved < 0) continue;
      dup2(saved, descriptor);
      close(saved);
      saved = -1;
    }
  }

  std::FILE* file_;
  int before_[2] = {-1, -1};
};

}  // namespace

TEST_CASE("quiet: the capture itself sees both streams, by descriptor, by stdio and by iostream") {
  Captured capture;
  std::cout << "a";
  std::cerr << "b";
  std::fputs("c", stdout);
  const bool written = write(STDERR_FILENO, "d", 1) == 1;
  const std::string text = capture.text();
  CHECK(written);
  for (const char* each : {"a", "b", "c", "d"}) CHECK(contains(text, each));
}

TEST_CASE("quiet: results, refusals, divergence, chaos and discarded warnings print nothing") {
  ht::set_warning_sink({});
  Case diverging = Quadratic(6, Rule::momentum).problem();
  diverging.problem.loss = [loss = diverging.problem.loss](const NamedTensors& w, const NamedTensors& h,
                                                           const ht::bilevel::StepContext& context) {
    return loss(w, h, context) / (3.0 - static_cast<double>(context.step));
  };
  const Case chaotic = digits({.sizes = {64, 8, 10}, .steps = 60, .rate = 40.0});
  std::vector<ht::bilevel::ResultStatus> statuses;
  std::string refusal;
  Captured capture;
  ht::initialize();
  ht::runtime_info();
  for (const ht::bilevel::Estimator& method : reverse_methods()) {
    Quadratic(5, Rule::momentum).problem().by(method);
    statuses.push_back(diverging.by(method).status);
    statuses.push_back(chaotic.by(method).status);
  }
  refusal = thrown([] { ht::matmul(ht::Tensor::ones({2, 3}), ht::Tensor::ones({2, 3})); });
  ht::detail::warn_once("test quiet", "[test] discarded");
  ht::matmul(ht::Tensor::ones({300, 300}), ht::Tensor::ones({300, 300}));
  ht::trim_memory();
  const std::string text = capture.text();
  CHECK(text == "");
  CHECK(contains(refusal, "[matmul]"));
  // It was what it was meant to be: things that other libraries print about.
  int troubled = 0;
  for (const ht::bilevel::ResultStatus status : statuses)
    troubled += status != ht::bilevel::ResultStatus::exact;
  CHECK(troubled == static_cast<int>(statuses.size()));
}

TEST_CASE("quiet: a warning goes to the sink, once, and one without a sink is given when there is one") {
  std::vector<std::string> given;
  ht::detail::warn_once("test sink", "[test] too early");
  ht::set_warning_sink([&](std::string_view text) { given.emplace_back(text); });
  Captured capture;
  for (int i = 0; i < 3; ++i) ht::detail::warn_once("test sink", "[test] once");
  const std::string text = capture.text();
  ht::set_warning_sink({});
  CHECK(text == "");
  CHECK(given == std::vector<std::string>{"[test] once"});
}
