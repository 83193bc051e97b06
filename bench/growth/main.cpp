// bench_growth --list                     the curves, a line of JSON each
// bench_growth <curve> <size> <seconds>   one point: a line of JSON
// bench_growth --check                    growth of memory that is exact to a block; exit status 1 if it is
// not
//
// Points are measured in a process each, by `run`, so that none inherits the memory of another.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>

#include <hypertape/core/error.h>
#include <hypertape/core/initialize.h>
#include <hypertape/core/memory.h>
#include "curves.h"

namespace hypertape::growth {

std::vector<std::int64_t> thirds_of_decades(std::int64_t first, std::int64_t last) {
  std::vector<std::int64_t> sizes;
  for (std::int64_t size = first; size <= last; size *= 10) {
    sizes.push_back(size);
    if (3 * size <= last) sizes.push_back(3 * size);
  }
  return sizes;
}

std::vector<Curve> all_curves() {
  std::vector<Curve> all = curves_of_runs();
  for (auto* more : {curves_of_nets, curves_of_threads})
    for (Curve& curve : more()) all.push_back(std::move(curve));
  return all;
}

const Curve& curve_named(const std::vector<Curve>& curves, const std::string& name) {
  std::string known;
  for (const Curve& curve : curves) {
    if (curve.name == name) return curve;
    known += "\n  " + curve.name;
  }
  fail("growth", "no curve '", name, "'; there are:", known);
}

std::int64_t peak_of(const Work& work) {
  work.call();
  const PeakScope scope;
  work.call();
  return scope.peak_bytes();
}

namespace {

double seconds_of(const std::function<void()>& call, std::int64_t calls) {
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t i = 0; i < calls; ++i) call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double at_quantile(const std::vector<double>& sorted, double quantile) {
  return sorted[static_cast<std::size_t>(quantile * static_cast<double>(sorted.size() - 1) + 0.5)];
}

// The median of as many repetitions as fit into `budget` seconds, at least three; of a call that alone takes
// longer, a single one. The first call fills the caches and is not counted.
void measure(const Curve& curve, std::int64_t size, double budget) {
  constexpr double least_repetition = 1e-3;
  constexpr std::size_t least_repetitions = 3, most_repetitions = 1000;
  const Work work = curve.make(size);
  const double first = seconds_of(work.call, 1);
  PeakScope scope;
  const double second = seconds_of(work.call, 1);
  const std::int64_t peak = scope.peak_bytes();
  std::vector<double> seconds;
  std::int64_t calls = 1;
  if (second > budget) {
    seconds.push_back(second);
  } else {
    calls = std::max<std::int64_t>(1, static_cast<std::int64_t>(least_repetition / second));
    const auto fits = static_cast<std::size_t>(budget / (static_cast<double>(calls) * second));
    const std::size_t repetitions = std::clamp(fits, least_repetitions, most_repetitions);
    for (std::size_t i = 0; i < repetitions; ++i)
      seconds.push_back(seconds_of(work.call, calls) / static_cast<double>(calls));
  }
  std::sort(seconds.begin(), seconds.end());
  for (double& each : seconds) each /= work.units;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "{\"size\": %.17g, \"seconds\": %.9g, \"quartiles\": [%.9g, %.9g], \"repetitions\": %zu, "
      "\"first_seconds\": "
      "%.9g, \"peak_bytes\": %lld, \"resident_bytes\": %lld}\n",
      work.size > 0.0 ? work.size : static_cast<double>(size), at_quantile(seconds, 0.5),
      at_quantile(seconds, 0.25), at_quantile(seconds, 0.75), seconds.size(), first / work.units,
      static_cast<long long>(peak), 1024LL * usage.ru_maxrss);
}

std::string exponent(const std::optional<double>& value) {
  char text[32] = "null";
  if (value) std::snprintf(text, sizeof text, "%g", *value);
  return text;
}

void list(const std::vector<Curve>& curves) {
  for (const Curve& curve : curves) {
    std::string sizes;
    for (const std::int64_t size : curve.sizes) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
    std::printf(
        "{\"curve\": \"%s\", \"variable\": \"%s\", \"work\": \"%s\", \"sizes\": [%s], \"most_quick\": %lld, "
        "\"time\": %s, \"memory\": %s, \"memory_beyond_first\": %s}\n",
        curve.name.c_str(), curve.variable.c_str(), curve.work.c_str(), sizes.c_str(),
        static_cast<long long>(curve.most_quick), exponent(curve.time).c_str(),
        exponent(curve.memory).c_str(), curve.memory_beyond_first ? "true" : "false");
  }
}

}  // namespace
}  // namespace hypertape::growth

int main(int argc, char** argv) {
  using namespace hypertape::growth;
  try {
    if (argc == 2 && std::strcmp(argv[1], "--check") == 0) return check_memory() == 0 ? 0 : 1;
    const std::vector<Curve> curves = all_curves();
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
      list(curves);
      return 0;
    }
    if (argc == 4) {
      hypertape::initialize();
      measure(curve_named(curves, argv[1]), std::stoll(argv[2]), std::stod(argv[3]));
      return 0;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::fprintf(stderr, "usage: %s --list | --check | <curve> <size> <seconds>\n", argv[0]);
  return 2;
}
