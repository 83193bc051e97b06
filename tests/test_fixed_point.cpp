// ctest labels: kernels levels
//
// The reversible momentum step: against arithmetic written a second time here, against hand-worked numbers,
// and against itself reversed, bit for bit.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <hypertape/core/error.h>
#include "core/backend/fixed_point.h"
#include "core/cpu/reversible/kernels.h"

namespace {

using namespace hypertape::detail;

constexpr std::uint32_t d = momentum_denominator;
constexpr std::int64_t one = std::int64_t{1} << fraction_bits;
using Wide = __int128;

template <class T>
std::vector<T> normal(std::size_t size, double deviation, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> distribution(0.0, deviation);
  std::vector<T> values(size);
  for (T& value : values) value = static_cast<T>(distribution(random));
  return values;
}

std::vector<std::int64_t> fixed_normal(std::size_t size, double deviation, std::uint64_t seed) {
  std::vector<std::int64_t> fixed(size);
  to_fixed<double>(normal<double>(size, deviation, seed), fixed);
  return fixed;
}

// One parameter holding all elements, and the buffer for it.
template <class T>
struct Run {
  std::vector<std::int64_t> w;
  std::vector<std::int64_t> v;
  DigitBuffer digits{w.size()};

  Run(std::vector<std::int64_t> weights, std::vector<std::int64_t> velocities)
      : w(std::move(weights)), v(std::move(velocities)) {}

  MomentumSegment<T> segment(const std::vector<T>& gradient, double rate) { return {w, v, gradient, rate}; }

  StepFault forward(std::uint32_t n, bool dampened, const std::vector<T>& gradient, double rate) {
    const MomentumSegment<T> all = segment(gradient, rate);
    return momentum_forward<T>(digits, n, dampened, std::span(&all, 1));
  }
  StepFault reverse_weights(double rate) {
    const MomentumSegment<T> all{w, v, {}, rate};
    return momentum_reverse_weights<T>(std::span(&all, 1));
  }
  StepFault reverse_velocities(std::uint32_t n, bool dampened, const std::vector<T>& gradient) {
    const MomentumSegment<T> all = segment(gradient, 0.0);
    return momentum_reverse_velocities<T>(digits, n, dampened, std::span(&all, 1));
  }
};

// What a run does at step t.
struct Schedule {
  std::vector<std::uint32_t> numerators;
  std::vector<double> rates;

  Schedule(std::size_t steps, double lowest, double highest, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> momentum(lowest, highest);
    std::uniform_real_distribution<double> rate(1e-4, 0.02);
    for (std::size_t t = 0; t < steps; ++t) {
      numerators.push_back(momentum_numerator(momentum(random)));
      rates.push_back(rate(random));
    }
  }
};

Wide floor_divide(Wide a, Wide b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// The update on one element, with C++'s widest integers and the digits in a single number.
struct Reference {
  Wide w, v, digits = 0;

  void forward(std::int64_t n, double force, double rate) {
    const Wide quotient = floor_divide(v, d);
    const Wide grown = digits * d + (v - quotient * d);
    v = quotient * n + grown % n;
    digits = grown / n;
    v += static_cast<std::int64_t>(std::trunc(force * static_cast<double>(one)));
    w -= static_cast<std::int64_t>(std::trunc(static_cast<double>(static_cast<std::int64_t>(v)) * rate));
  }
};

template <class T>
void check_returns(std::size_t size, std::size_t steps, double lowest, double highest, bool dampened) {
  const Schedule schedule(steps, lowest, highest, 7);
  Run<T> run(fixed_normal(size, 0.5, 1), std::vector<std::int64_t>(size, 0));
  const auto first_w = run.w;
  const auto first_v = run.v;
  REQUIRE(run.digits.empty());

  // Gradients that depend on the weights, as in training, recomputed on the way back.
  const auto noise = normal<T>(size, 0.3, 3);
  std::vector<T> weights(size), gradient(size);
  const auto gradient_at = [&](std::size_t t) {
    from_fixed<T>(run.w, weights);
    for (std::size_t i = 0; i < size; ++i) gradient[i] = weights[i] + noise[(i * 31 + t * 17) % size];
  };
  std::vector<std::uint64_t> hashes;
  for (std::size_t t = 0; t < steps; ++t) {
    if (t % 100 == 0) hashes.push_back(hash_fixed(run.w) ^ (hash_fixed(run.v) << 1));
    gradient_at(t);
    REQUIRE(run.forward(schedule.numerators[t], dampened, gradient, schedule.rates[t]) == StepFault::none);
  }
  CHECK(run.w != first_w);
  CHECK(run.v != first_v);
  CHECK_FALSE(run.digits.empty());
  if (run.digits.entropy_bits() > 500) {
    CHECK(run.digits.packed_bits_per_element() < 1.1 * run.digits.entropy_bits());
    CHECK(run.digits.packed_bits_per_element() > run.digits.entropy_bits() - 64);
  }

  for (std::size_t t = steps; t-- > 0;) {
    REQUIRE(run.reverse_weights(schedule.rates[t]) == StepFault::none);
    gradient_at(t);
    REQUIRE(run.reverse_velocities(schedule.numerators[t], dampened, gradient) == StepFault::none);
    if (t % 100 == 0) REQUIRE(hashes[t / 100] == (hash_fixed(run.w) ^ (hash_fixed(run.v) << 1)));
  }
  CHECK(run.w == first_w);
  CHECK(run.v == first_v);
  CHECK(run.digits.empty());
  CHECK(run.digits.entropy_bits() == 0.0);
}

template <class Call>
std::string refusal(Call&& call) {
  try {
    call();
  } catch (const hypertape::Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

std::vector<Isa> levels() {
  std::vector<Isa> result;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (isa <= active_isa()) result.push_back(isa);
  }
  return result;
}

}  // namespace

TEST_CASE("fixed point: 3,000 steps return bit for bit, and the digits are used up") {
  SUBCASE("float, momenta 0.5 to 0.999") { check_returns<float>(203, 3000, 0.5, 0.999, false); }
  SUBCASE("double, momenta 0.5 to 0.999") { check_returns<double>(203, 3000, 0.5, 0.999, false); }
  SUBCASE("float, dampened") { check_returns<float>(64, 3000, 0.8, 0.999, true); }
  SUBCASE("double, momenta next to 1") { check_returns<double>(67, 3000, 0.9999, 1.0 - 1.0 / d, false); }
  SUBCASE("double, momenta next to 0: integer division") {
    check_returns<double>(67, 500, 1.0 / d, 0.2, false);
  }
  SUBCASE("several parallel pieces") { check_returns<float>(50001, 300, 0.5, 0.9, false); }
}

TEST_CASE("fixed point: agrees with arithmetic on wide integers") {
  constexpr std::size_t size = 257;
  constexpr std::size_t steps = 400;
  const auto noise = normal<double>(size, 1.0, 5);
  std::vector<double> gradient(size);
  for (const double highest : {0.12, 0.3, 0.999}) {
    CAPTURE(highest);
    const Schedule schedule(steps, highest / 2, highest, 11);
    Run<double> run(fixed_normal(size, 100.0, 1), fixed_normal(size, 100.0, 2));
    std::vector<Reference> reference;
    for (std::size_t i = 0; i < size; ++i) reference.push_back({run.w[i], run.v[i]});
    for (std::size_t t = 0; t < steps; ++t) {
      for (std::size_t i = 0; i < size; ++i) gradient[i] = noise[(i + t) % size];
      const double before = run.digits.packed_bits_per_element();
      REQUIRE(run.forward(schedule.numerators[t], false, gradient, schedule.rates[t]) == StepFault::none);
      const bool flushed = run.digits.packed_bits_per_element() > before;
      for (std::size_t i = 0; i < size; ++i) {
        if (flushed) reference[i].digits >>= plane_bits;
        reference[i].forward(schedule.numerators[t], gradient[i], schedule.rates[t]);
        if (run.w[i] != reference[i].w || run.v[i] != reference[i].v ||
            run.digits.live()[i] != static_cast<Wide>(reference[i].digits)) {
          FAIL("step ", t, ", element ", i);
        }
      }
    }
    CHECK(run.digits.packed_bits_per_element() > 64);
  }
}

TEST_CASE("fixed point: one step worked by hand") {
  // n/d = 1/2. v = -3: floor(-3 / 65536) = -1, remainder 65533; B1 = 65533 = 1 * 32768 + 32765.
  // Decayed: -32768 + 32765 = -3, B = 1. (-3 = 2 * -1.5 is not on the grid: floor(-1.5) = -2 needs B to
  // tell.) Gradient -5.75 units truncates to -5: v = -8; rate 0.3: -2.4 truncates to -2: w = 10 + 2.
  const double unit = std::ldexp(1.0, -52);
  Run<double> run({10, 10, 10}, {-3, 65536 * 4 + 1, 7});
  REQUIRE(run.forward(32768, false, {-5.75 * unit, 0.0, 5.75 * unit}, 0.3) == StepFault::none);
  CHECK(run.v[0] == -8);
  CHECK(run.w[0] == 12);
  CHECK(run.digits.live()[0] == 1);
  // v = 4 d + 1: decayed 4 n + 1, no digit lost beyond the 1; rate 0.3 * 131073 = 39321.9.
  CHECK(run.v[1] == 4 * 32768 + 1);
  CHECK(run.w[1] == 10 - 39321);
  CHECK(run.digits.live()[1] == 0);
  // v = 7: 0 n + 7, + 5 = 12; 3.6 truncates to 3.
  CHECK(run.v[2] == 12);
  CHECK(run.w[2] == 7);
  // U = floor((d - 1) / n).
  CHECK(run.digits.schedule().bound() == 1);
  CHECK(run.digits.entropy_bits() == 1.0);
  REQUIRE(run.reverse_weights(0.3) == StepFault::none);
  REQUIRE(run.reverse_velocities(32768, false, {-5.75 * unit, 0.0, 5.75 * unit}) == StepFault::none);
  CHECK(run.w == std::vector<std::int64_t>{10, 10, 10});
  CHECK(run.v == std::vector<std::int64_t>{-3, 65536 * 4 + 1, 7});
  CHECK(run.digits.empty());
}

TEST_CASE("fixed point: dampening scales the gradient by exactly 1 - n/d") {
  Run<double> run({0}, {0});
  REQUIRE(run.forward(49152, true, {1.0}, 1.0) == StepFault::none);
  CHECK(run.v[0] == one / 4);
  CHECK(run.w[0] == -one / 4);
}

TEST_CASE("fixed point: conversions and both truncations are odd") {
  const auto values = normal<double>(1000, 1e-3, 9);
  std::vector<double> mirrored(values);
  for (double& value : mirrored) value = -value;
  std::vector<std::int64_t> plain(1000), opposite(1000);
  to_fixed<double>(values, plain);
  to_fixed<double>(mirrored, opposite);
  for (std::size_t i = 0; i < 1000; ++i) REQUIRE(plain[i] == -opposite[i]);

  // From rest no digit is carried, so one step uses nothing but the two truncations.
  Run<double> run(plain, std::vector<std::int64_t>(1000, 0));
  Run<double> mirror(opposite, std::vector<std::int64_t>(1000, 0));
  REQUIRE(run.forward(58982, false, values, 0.0137) == StepFault::none);
  REQUIRE(mirror.forward(58982, false, mirrored, 0.0137) == StepFault::none);
  for (std::size_t i = 0; i < 1000; ++i) {
    REQUIRE(run.v[i] == -mirror.v[i]);
    REQUIRE(run.w[i] == -mirror.w[i]);
  }

  std::vector<double> back(1000);
  from_fixed<double>(plain, back);
  for (std::size_t i = 0; i < 1000; ++i) REQUIRE(std::abs(back[i] - values[i]) <= std::ldexp(1.0, -52));
  std::vector<float> single(1000);
  from_fixed<float>(plain, single);
  for (std::size_t i = 0; i < 1000; ++i) REQUIRE(single[i] == static_cast<float>(back[i]));
}

TEST_CASE("fixed point: planes stay within 10 % of the entropy, live words included") {
  // The schedule alone, since no element is needed to count bits.
  for (const double momentum : {0.5, 0.9, 0.98, 0.999, 0.9999, 1.0 - 1.0 / d}) {
    CAPTURE(momentum);
    const std::uint32_t n = momentum_numerator(momentum);
    DigitSchedule schedule;
    while (schedule.entropy_bits() < 1000) {
      if (schedule.must_flush()) schedule.flush();
      schedule.advance(n);
      if (schedule.entropy_bits() > 500) {
        const double packed = static_cast<double>(schedule.planes()) * plane_bits;
        if (packed > 1.1 * schedule.entropy_bits()) FAIL("packed ", packed, " of ", schedule.entropy_bits());
        // Fewer states than there were digits: some step could not be undone.
        if (packed + std::log2(static_cast<double>(schedule.bound()) + 1) < schedule.entropy_bits()) {
          FAIL("digits lost");
        }
      }
    }
    const double used = static_cast<double>(schedule.planes()) * plane_bits +
                        std::log2(static_cast<double>(schedule.bound()) + 1);
    CHECK(used < 1.1 * schedule.entropy_bits());
    while (schedule.steps() > 0) {
      schedule.retreat(n);
      if (schedule.must_restore()) schedule.restore();
    }
    CHECK(schedule.bound() == 0);
    CHECK(schedule.planes() == 0);
  }
}

TEST_CASE("fixed point: no live word exceeds the bound, at its worst") {
  // v = -1 has the largest remainder, d - 1, and gets it back each step: the words follow the bound exactly.
  for (const std::uint32_t n : {1U, 40000U, 58982U, 65535U}) {
    CAPTURE(n);
    Run<double> run({0}, {-1});
    for (int t = 0; t < 2000; ++t) {
      REQUIRE(run.forward(n, false, {0.0}, 0.0) == StepFault::none);
      REQUIRE(run.digits.live()[0] <= run.digits.schedule().bound());
      run.v[0] = -1;
    }
    CHECK(run.digits.live()[0] >= run.digits.schedule().bound() - 1);
  }
}

TEST_CASE("fixed point: a step that fails changes nothing, and says why") {
  constexpr std::size_t size = 40000;  // Three parallel pieces, so that others have been updated by then.
  const double infinity = std::numeric_limits<double>::infinity();
  struct Bad {
    double gradient;
    double rate;
    StepFault fault;
  };
  for (const Bad& bad :
       {Bad{infinity, 0.1, StepFault::non_finite}, Bad{-infinity, 0.1, StepFault::non_finite},
        Bad{std::nan(""), 0.1, StepFault::non_finite}, Bad{1024.0, 0.1, StepFault::overflow},
        Bad{-1e300, 0.1, StepFault::overflow}, Bad{1023.0, 0.1, StepFault::overflow},
        Bad{-1.0, 4096.0, StepFault::overflow}, Bad{-1.0, 1023.5, StepFault::overflow},
        Bad{1.0, -1023.5, StepFault::overflow}}) {
    CAPTURE(bad.gradient);
    CAPTURE(bad.rate);
    Run<double> run(std::vector<std::int64_t>(size, one), std::vector<std::int64_t>(size, 0));
    const std::vector<double> good(size, 0.001);
    // Just before a flush is due, so that the failing step makes one.
    while (!run.digits.schedule().must_flush())
      REQUIRE(run.forward(32768, false, good, 1e-3) == StepFault::none);
    run.v[39999] = bad.gradient > 1000 ? 10 * one : 0;
    const auto w = run.w;
    const auto v = run.v;
    const std::vector<std::uint64_t> live(run.digits.live().begin(), run.digits.live().end());
    const auto steps = run.digits.schedule().steps();
    std::vector<double> gradient(good);
    gradient[39999] = bad.gradient;
    CHECK(run.forward(32768, false, gradient, bad.rate) == bad.fault);
    CHECK(run.w == w);
    CHECK(run.v == v);
    CHECK(std::ranges::equal(run.digits.live(), live));
    CHECK(run.digits.packed_bits_per_element() == 0);
    CHECK(run.digits.schedule().steps() == steps);
    CHECK(run.forward(32768, false, good, 1e-3) == StepFault::none);
    CHECK(run.digits.packed_bits_per_element() == plane_bits);
  }
}

TEST_CASE("fixed point: the range is symmetric and its last number is usable") {
  const std::int64_t last = (std::int64_t{1} << 62) - 1;
  for (const std::int64_t sign : {1, -1}) {
    CAPTURE(sign);
    const double unit = std::ldexp(static_cast<double>(sign), -52);
    Run<double> weight({sign * (last - 1)}, {0});
    CHECK(weight.forward(58982, false, {-unit}, 1.0) == StepFault::none);
    CHECK(weight.w[0] == sign * last);
    CHECK(weight.forward(58982, false, {-unit}, 1.0) == StepFault::overflow);
    CHECK(weight.w[0] == sign * last);
    CHECK(weight.reverse_weights(1.0) == StepFault::none);
    CHECK(weight.reverse_velocities(58982, false, {-unit}) == StepFault::none);
    CHECK(weight.w[0] == sign * (last - 1));
    CHECK(weight.digits.empty());
  }
}

TEST_CASE("fixed point: several parameters share one buffer") {
  // The split must not show in the result.
  const auto w = fixed_normal(1000, 1.0, 1);
  const auto gradient = normal<float>(1000, 1.0, 2);
  Run<float> whole(w, std::vector<std::int64_t>(1000, 0));
  Run<float> split(w, std::vector<std::int64_t>(1000, 0));
  const auto piece = [&](std::size_t begin, std::size_t end) {
    return MomentumSegment<float>{std::span(split.w).subspan(begin, end - begin),
                                  std::span(split.v).subspan(begin, end - begin),
                                  std::span(gradient).subspan(begin, end - begin), 0.01};
  };
  const std::vector<MomentumSegment<float>> pieces{piece(0, 1), piece(1, 1), piece(1, 700), piece(700, 1000)};
  for (int t = 0; t < 400; ++t) {
    REQUIRE(whole.forward(60000, false, gradient, 0.01) == StepFault::none);
    REQUIRE(momentum_forward<float>(split.digits, 60000, false, pieces) == StepFault::none);
  }
  CHECK(whole.w == split.w);
  CHECK(whole.v == split.v);
  CHECK(std::ranges::equal(whole.digits.live(), split.digits.live()));
}

TEST_CASE("fixed point: misuse is refused with the reason") {
  Run<double> run({0, 0}, {0, 0});
  const std::vector<double> gradient{0.0, 0.0};
  for (const std::uint32_t n : {0U, d, d + 1}) {
    const std::string text = refusal([&] { run.forward(n, false, gradient, 0.1); });
    CHECK(contains(text, "[momentum_forward]"));
    CHECK(contains(text, "momentum"));
    CHECK(contains(text, "from 1 to 65535"));
  }
  CHECK(contains(refusal([&] { run.forward(1, false, {0.0}, 0.1); }), "2 weights and 1 gradients"));
  CHECK(contains(refusal([&] { run.forward(1, false, gradient, std::nan("")); }), "learning rate"));
  CHECK(contains(refusal([&] { run.reverse_velocities(58982, false, gradient); }), "no step left"));
  DigitBuffer other(3);
  const MomentumSegment<double> all = run.segment(gradient, 0.1);
  CHECK(contains(refusal([&] { momentum_forward<double>(other, 1, false, std::span(&all, 1)); }),
                 "2 elements"));
  REQUIRE(run.digits.empty());

  for (int t = 0; t < 100; ++t) REQUIRE(run.forward(58982, false, gradient, 0.1) == StepFault::none);
  CHECK(contains(refusal([&] { run.reverse_velocities(7, false, gradient); }), "step 99 was not made with"));
  CHECK(run.digits.schedule().steps() == 100);

  CHECK(momentum_numerator(0.9) == 58982);
  CHECK(momentum_numerator(1000.25 / d) == 1000);
  CHECK(momentum_numerator(1000.75 / d) == 1001);
  CHECK(effective_momentum(58982) == 58982.0 / 65536.0);
  for (const double bad : {0.0, -0.5, 1.0, 0.99999, std::nan("")}) {
    CHECK(contains(refusal([&] { momentum_numerator(bad); }), "momentum"));
  }
  std::vector<std::int64_t> fixed(2, 77);
  CHECK(contains(refusal([&] { to_fixed<double>(std::vector<double>{1.0, 1024.0}, fixed); }), "element 1"));
  CHECK(contains(refusal([&] {
                   to_fixed<float>(std::vector<float>{1.0F, std::nanf("")}, fixed);
                 }),
                 "element 1"));
  CHECK(fixed == std::vector<std::int64_t>{77, 77});
}

TEST_CASE("fixed point: quotients are exact at the edges of every fast momentum") {
  // Multiples of n and their neighbours are where an estimate can land on the wrong side; each n is tried at
  // the largest and at random sizes, forward through the digits and in reverse through the velocity.
  std::mt19937_64 random(3);
  constexpr std::int64_t limit = std::int64_t{1} << 62;
  for (const Isa isa : levels()) {
    const auto& kernels = fixed_point_kernels(isa).of<double>();
    for (std::uint32_t n = smallest_fast_numerator; n < d;
         n += 1 + static_cast<std::uint32_t>(random() % 40)) {
      const MomentumStep step{n, 1.0 / n, 0x1p52, 0.0};
      std::vector<std::int64_t> v;
      std::vector<std::uint64_t> live;
      for (int k = 0; k < 4; ++k) {
        const auto big = static_cast<std::int64_t>(random() >> 2) >> (k == 0 ? 0 : random() % 40);
        const std::int64_t multiple = (k == 1 ? limit - 1 : big) / n * n;
        for (const std::int64_t near : {std::int64_t{-1}, std::int64_t{0}, std::int64_t{1}}) {
          const std::int64_t grown = std::max<std::int64_t>(multiple + near, 0);
          v.push_back((random() % 2 == 0 ? -1 : 1) * (static_cast<std::int64_t>(random() >> 3)) / d * d +
                      grown % d);
          live.push_back(static_cast<std::uint64_t>(grown / d));
        }
      }
      const auto size = static_cast<std::int64_t>(v.size());
      const std::vector<double> gradient(v.size(), 0.0);
      std::vector<std::int64_t> w(v.size(), 0), forward_v(v);
      std::vector<std::uint64_t> forward_live(live);
      REQUIRE_FALSE(
          kernels.forward(w.data(), forward_v.data(), forward_live.data(), gradient.data(), size, step));
      for (std::size_t i = 0; i < v.size(); ++i) {
        const Wide quotient = floor_divide(v[i], d);
        const Wide grown = Wide{live[i]} * d + (v[i] - quotient * d);
        if (Wide{forward_v[i]} != quotient * n + grown % n || Wide{forward_live[i]} != grown / n)
          FAIL("n = ", n);
      }
      REQUIRE_FALSE(
          kernels.reverse_velocities(forward_v.data(), forward_live.data(), gradient.data(), size, step));
      REQUIRE(forward_v == v);
      REQUIRE(forward_live == live);

      // Reverse on velocities of its own: around multiples of n, both signs, up to where v d/n leaves the
      // range.
      std::vector<std::int64_t> own(v.size()), reversed;
      for (std::size_t i = 0; i < own.size(); ++i) {
        const std::int64_t most = static_cast<std::int64_t>(Wide{limit} * n / d) - 2 * std::int64_t{d};
        const std::int64_t any =
            i < 3 ? most : static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most));
        own[i] = (i % 2 == 0 ? 1 : -1) * (any / n * n) + static_cast<std::int64_t>(i % 3) - 1;
      }
      reversed = own;
      std::vector<std::uint64_t> none(v.size(), 0);
      REQUIRE_FALSE(kernels.reverse_velocities(reversed.data(), none.data(), gradient.data(), size, step));
      for (std::size_t i = 0; i < own.size(); ++i) {
        const Wide quotient = floor_divide(own[i], n);
        if (Wide{reversed[i]} != quotient * d + (own[i] - quotient * n)) FAIL("n = ", n);
      }
    }
  }
}

TEST_CASE_TEMPLATE("fixed point: every instruction set gives the same bits", T, float, double) {
  constexpr std::size_t size = 1031;
  const auto w = fixed_normal(size, 50.0, 1);
  const auto v = fixed_normal(size, 50.0, 2);
  const std::vector<std::uint64_t> live(size, 12345678901);
  auto gradient = normal<T>(size, 1.0, 4);
  for (const bool with_bad : {false, true}) {
    // A gradient that does not fit is part of it: the map stays total, and invertible.
    if (with_bad) gradient[77] = std::numeric_limits<T>::infinity();
    for (const std::uint32_t n : {100U, 8192U, 50000U, 65535U}) {
      const MomentumStep step{n, 1.0 / n, 0x1p52 * 0.37, 0.123};
      std::vector<std::int64_t> first_w, first_v;
      std::vector<std::uint64_t> first_live;
      std::vector<T> first_values;
      for (const Isa isa : levels()) {
        CAPTURE(static_cast<int>(isa));
        CAPTURE(n);
        const auto& kernels = fixed_point_kernels(isa).of<T>();
        const bool small = n < smallest_fast_numerator;
        auto here_w = w;
        auto here_v = v;
        auto here_live = live;
        std::vector<T> values(size);
        CHECK((small ? kernels.forward_small : kernels.forward)(here_w.data(), here_v.data(),
                                                                here_live.data(), gradient.data(),
                                                                std::int64_t{size}, step) == with_bad);
        kernels.from_fixed(here_w.data(), values.data(), std::int64_t{size}, 0x1p-52);
        if (isa == Isa::baseline) {
          first_w = here_w;
          first_v = here_v;
          first_live = here_live;
          first_values = values;
        }
        CHECK(here_w == first_w);
        CHECK(here_v == first_v);
        CHECK(here_live == first_live);
        CHECK(std::memcmp(values.data(), first_values.data(), size * sizeof(T)) == 0);
        for (const std::int64_t part : {0, 1, 31, 32, 33, 1031}) {
          CHECK(fixed_point_kernels(isa).hash(w.data(), part) ==
                fixed_point_kernels(Isa::baseline).hash(w.data(), part));
        }
        CHECK_FALSE(fixed_point_kernels(isa).reverse_weights(here_w.data(), here_v.data(), std::int64_t{size},
                                                             step.rate));
        CHECK((small ? kernels.reverse_velocities_small : kernels.reverse_velocities)(
                  here_v.data(), here_live.data(), gradient.data(), std::int64_t{size}, step) == with_bad);
        CHECK(here_w == w);
        CHECK(here_v == v);
        CHECK(here_live == live);
      }
    }
  }
}

TEST_CASE("fixed point: the hash sees every element, order and length") {
  auto fixed = fixed_normal(40000, 1.0, 1);
  const std::uint64_t before = hash_fixed(fixed);
  CHECK(hash_fixed(fixed) == before);
  for (const std::size_t i : {0U, 31U, 32U, 16383U, 16384U, 39999U}) {
    for (const int bit : {0, 40, 63}) {
      const auto flip = static_cast<std::int64_t>(std::uint64_t{1} << bit);
      fixed[i] ^= flip;
      CHECK(hash_fixed(fixed) != before);
      fixed[i] ^= flip;
    }
  }
  std::swap(fixed[5], fixed[37]);
  CHECK(hash_fixed(fixed) != before);
  std::swap(fixed[5], fixed[37]);
  CHECK(hash_fixed(fixed) == before);
  const std::vector<std::int64_t> zeros(100, 0);
  CHECK(hash_fixed(std::span(zeros).first(99)) != hash_fixed(zeros));
  CHECK(hash_fixed(std::span(zeros).first(0)) != hash_fixed(std::span(zeros).first(1)));
}
