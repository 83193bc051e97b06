// Growth of memory, asserted: accounting is exact, so linear means equal differences.
#include <cstdio>
#include <cstdlib>

#include <hypertape/core/memory.h>
#include "curves.h"

namespace hypertape::growth {
namespace {

// What a recorded peak may be off by, on one thread.
constexpr std::int64_t slack = 2 * peak_granularity;

class Checks {
 public:
  std::int64_t peak(const std::string& name, std::int64_t size) const {
    return peak_of(curve_named(curves_, name).make(size));
  }
  void expect(const std::string& what, bool holds, const std::string& figures) {
    std::printf("%-60s %s  %s\n", what.c_str(), holds ? "ok" : "FAILED", figures.c_str());
    if (!holds) ++failed_;
  }
  // Peaks at the three sizes do not differ.
  void constant(const std::string& name, std::int64_t small, std::int64_t large) {
    const std::int64_t a = peak(name, small), b = peak(name, large);
    expect(name + ": constant", std::abs(b - a) <= slack, text(a) + " at first, " + text(b) + " at last");
  }
  // Peaks at three sizes, which are evenly spaced in what the memory is linear in, lie on a line that rises
  // by at least `least` and at most `most` bytes between neighbours.
  void linear(const std::string& name, const std::vector<std::int64_t>& sizes, double least, double most) {
    const std::int64_t a = peak(name, sizes[0]), b = peak(name, sizes[1]), c = peak(name, sizes[2]);
    const auto rise = static_cast<double>(b - a);
    expect(name + ": linear", std::abs((c - b) - (b - a)) <= 2 * slack,
           "rises by " + text(b - a) + ", then " + text(c - b));
    expect(name + ": by as much as theory says", rise >= least && rise <= most, text(b - a));
  }
  int failed() const { return failed_; }

 private:
  static std::string text(std::int64_t bytes) { return std::to_string(bytes) + " B"; }
  std::vector<Curve> curves_ = all_curves();
  int failed_ = 0;
};

}  // namespace

int check_memory() {
  Checks checks;
  constexpr double weights = 8 * 16 + 16 + 16 * 4 + 4, state = 2 * 8 * weights;  // w and v in float64
  checks.constant("steps/train", 100, 2000);
  checks.constant("terms/neumann", 3, 60);
  checks.linear("steps/unrolled", {200, 400, 600}, 200 * state, 200 * 20 * state);
  // Eight small tensors a step, each with its header and its block's rounding.
  checks.linear("steps/trajectory", {400, 800, 1200}, 400 * state, 400 * 1.6 * state);
  // Checkpoints and the longest tape are sqrt(T) each.
  checks.linear("steps/checkpointed", {400, 900, 1600}, 10 * state, 10 * 21 * state);
  // log2(65536 / 58982) bits for each weight and step leave in planes of 32 bits, whose blocks round up.
  constexpr double digits = 0.152 / 8 * weights;
  // Methods that make a step more than once keep its loss, to compare it.
  constexpr double loss = 8;
  checks.linear("steps/reversible", {4000, 8000, 12000}, 4000 * (0.9 * digits + loss),
                4000 * (1.7 * digits + loss));
  checks.linear("steps/forward", {4000, 8000, 12000}, 4000 * loss, 4000 * 1.1 * loss);
  checks.linear("operations/chain", {1000, 2000, 3000}, 1000 * 64.0, 1000 * 320.0);
  return checks.failed();
}

}  // namespace hypertape::growth
