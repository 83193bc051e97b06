// What grows with what: each curve is a family of computations indexed by one number, with the exponents that
// theory gives its time and its memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace hypertape::growth {

/// One point of a curve, ready to run as often as wanted.
struct Work {
  std::function<void()> call;
  double size = 0.0;   ///< what the point is plotted over; as asked for unless shapes had to be rounded
  double units = 1.0;  ///< how often a call does what the curve times
};

struct Curve {
  std::string name;      ///< "steps/unrolled"
  std::string variable;  ///< "training steps T"
  std::string work;      ///< what one point computes
  std::vector<std::int64_t> sizes;
  std::int64_t most_quick = 0;  ///< the largest size of a quick run
  /// Exponents; none where theory gives no power law (threads) or the figure is not deterministic.
  std::optional<double> time, memory;
  std::function<Work(std::int64_t size)> make;
  /// The memory that grows is little beside a fixed part: the exponent is that of what exceeds the first
  /// point.
  bool memory_beyond_first = false;
};

std::vector<Curve> curves_of_runs();
std::vector<Curve> curves_of_nets();
std::vector<Curve> curves_of_threads();
std::vector<Curve> all_curves();
/// Error naming the curves there are.
const Curve& curve_named(const std::vector<Curve>& curves, const std::string& name);

/// Most bytes above the level before one call; the call before it has filled the caches.
std::int64_t peak_of(const Work& work);

/// Growth of memory that is exact to a block: prints one line each, returns how many failed.
int check_memory();

/// first, 3 first, 10 first, 30 first ... up to last.
std::vector<std::int64_t> thirds_of_decades(std::int64_t first, std::int64_t last);

}  // namespace hypertape::growth
