// What this machine can do at most, as one line of JSON for bench/peers/table.py, on <threads> threads:
//
//   operations   float32 operations per second of independent fused multiply-adds; float64 has half as many
//   bandwidth    [bytes, bytes per second] of the fastest of copy, sum and a[i] + b[i] over as many bytes in
//                all, with no more threads than serve it: a working set that fits a cache is faster, and a
//                small one fastest on one thread
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "fma_peak.h"
#include "measure.h"

namespace hypertape::bench {
namespace {

constexpr double spent_on_each = 0.02;

// The most of `amount` per second that repetitions of `body` reach.
template <class Body>
double highest_rate(double amount, Body&& body) {
  body();
  double fastest = seconds_of(body);
  for (double spent = 0.0; spent < spent_on_each;) {
    const auto calls = std::max<std::int64_t>(1, static_cast<std::int64_t>(1e-4 / fastest));
    const double seconds = seconds_of([&] {
      for (std::int64_t i = 0; i < calls; ++i) body();
    });
    spent += seconds;
    fastest = std::min(fastest, seconds / static_cast<double>(calls));
  }
  return amount / fastest;
}

using Lanes = float __attribute__((vector_size(64), aligned(4)));
constexpr std::size_t lanes = sizeof(Lanes) / sizeof(float);

float sum_of(const float* x, std::size_t size) {
  Lanes sums[4] = {};
  for (std::size_t i = 0; i + 4 * lanes <= size; i += 4 * lanes)
    for (std::size_t j = 0; j < 4; ++j) {
      Lanes values;
      std::memcpy(&values, x + i + j * lanes, sizeof values);
      sums[j] += values;
    }
  const Lanes total = sums[0] + sums[1] + sums[2] + sums[3];
  return total[0] + total[1];
}

double bandwidth(std::size_t bytes, int threads) {
  const std::size_t size = bytes / sizeof(float);
  std::vector<float> memory(size, 1.0F);
  // Each thread has a share of its own.
  const std::size_t share = size / static_cast<std::size_t>(threads);
  const auto rate = [&](auto&& body) {
    return highest_rate(static_cast<double>(bytes), [&] {
      parallel_chunks(threads,
                      [&](std::int64_t t) { body(memory.data() + static_cast<std::size_t>(t) * share); });
    });
  };
  const double copy = rate([&](float* x) {
    std::memcpy(x + share / 2, x, share / 2 * sizeof(float));
    benchmark::ClobberMemory();
  });
  const double sum = rate([&](float* x) { benchmark::DoNotOptimize(sum_of(x, share)); });
  const double add = rate([&](float* x) {
    const std::size_t third = share / 3;
    for (std::size_t i = 0; i + lanes <= third; i += lanes) {
      Lanes a, b;
      std::memcpy(&a, x + i, sizeof a);
      std::memcpy(&b, x + third + i, sizeof b);
      a += b;
      std::memcpy(x + 2 * third + i, &a, sizeof a);
    }
    benchmark::ClobberMemory();
  });
  return std::max({copy, sum, add});
}

void report(int threads) {
  set_thread_count(threads);
  const double operations = highest_rate(operations_at_peak(threads), [&] { run_peak(threads); });
  std::printf("{\"operations\": %.6g, \"bandwidth\": [", operations);
  constexpr std::size_t least = 1U << 12, most = 1U << 29;
  for (std::size_t bytes = least; bytes <= most; bytes *= 2) {
    double rate = 0.0;
    for (int used = 1; used <= threads; used *= 2) rate = std::max(rate, bandwidth(bytes, used));
    std::printf("%s[%zu, %.6g]", bytes > least ? ", " : "", bytes, rate);
  }
  std::printf("]}\n");
}

}  // namespace
}  // namespace hypertape::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s <threads>\n", argv[0]);
    return 2;
  }
  hypertape::bench::report(std::stoi(argv[1]));
  return 0;
}
