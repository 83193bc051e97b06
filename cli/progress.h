// How far a long command is and when it will end, on one line of a terminal that is overwritten.
#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <string>

namespace hypertape {

/// Work is counted in training steps; the parts of a method that report none count when it is done.
class Progress {
 public:
  /// Writes to `terminal`, or nothing if null.
  explicit Progress(std::ostream* terminal) : terminal_(terminal) {}
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Estimate of the work from here on.
  void expect(double steps) { expected_ = done_ + steps; }
  /// Starts something that takes about `steps`.
  void begin(const std::string& what, double steps);
  /// One more step is done.
  void step();
  /// What was begun is done.
  void end();
  /// Removes the line.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  void show();

  std::ostream* terminal_;
  std::string what_;
  double expected_ = 0.0, done_ = 0.0, part_ = 0.0, part_done_ = 0.0;
  Clock::time_point start_ = Clock::now(), shown_ = start_;
  bool visible_ = false;
};

}  // namespace hypertape
