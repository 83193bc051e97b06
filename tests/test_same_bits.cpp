// ctest labels: kernels levels
//
// The same bits on every instruction set and architecture, for everything but products: checksums of values
// and derivatives against tests/golden/bits.txt, which an x86-64 CPU wrote: one sum for all levels that fuse
// multiply and add, one for those that do not. After a change of a formula, write both anew:
//
//   for isa in avx2 baseline; do
//     HYPERTAPE_ISA=$isa HYPERTAPE_WRITE_BITS=1 build/release/tests/hypertape_tests
//     --source-file='*test_same_bits.cpp'
//   done
#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <string>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/random.h>
#include "core/backend/fixed_point.h"
#include "core/cpu/isa/features.h"
#include "core/elementwise/structs.h"
#include "ladder.h"

namespace {

namespace ht = hypertape;
using ht::Dtype;
using ht::Tensor;
using ht::TensorList;

// FNV-1a over 64-bit words. All NaN count as one: their sign and payload are the processor's choice.
class Checksum {
 public:
  void add(std::uint64_t word) { state_ = (state_ ^ word) * 0x100000001b3; }
  void add(double x) { add(std::isnan(x) ? 0x7ff8000000000000 : std::bit_cast<std::uint64_t>(x)); }
  // Every float32 is a float64, so nothing is lost.
  void add(const TensorList& list) {
    for (const Tensor& x : list) {
      add(static_cast<std::uint64_t>(x.defined()));
      if (!x.defined()) continue;
      for (const double element : ladder::elements(x)) add(element);
    }
  }
  std::string text() const {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(state_));
    return digits;
  }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325;
};

class Recorded {
 public:
  static Recorded& instance() {
    static Recorded recorded;
    return recorded;
  }
  void expect(const std::string& name, const Checksum& got) {
    std::string& recorded = lines_[name][fuses_ ? 0 : 1];
    if (write_) {
      recorded = got.text();
      std::ofstream file(HYPERTAPE_BITS_FILE);
      for (const auto& [key, sums] : lines_) file << key << ' ' << sums[0] << ' ' << sums[1] << '\n';
    }
    CHECK_MESSAGE(recorded == got.text(), name << ": " << got.text() << ", recorded " << recorded);
  }

 private:
  Recorded() : write_(std::getenv("HYPERTAPE_WRITE_BITS") != nullptr) {
    std::ifstream file(HYPERTAPE_BITS_FILE);
    std::string name, with, without;
    while (file >> name >> with >> without) lines_[name] = {with, without};
  }
#if defined(__x86_64__)
  const bool fuses_ = ht::detail::active_isa() != ht::detail::Isa::baseline;
#else
  const bool fuses_ = true;
#endif
  bool write_;
  std::map<std::string, std::array<std::string, 2>> lines_;  // with and without fused multiply-adds
};

struct Named {
  std::string name;
  ht::elementwise::Interval domain[3];
  std::size_t arity;
  ladder::Function run;
};

template <class S>
Named describe(const char* name, ladder::Function run) {
  Named op{name, {}, static_cast<std::size_t>(S::arity), std::move(run)};
  for (std::size_t i = 0; i < op.arity; ++i) op.domain[i] = S::domain[i];
  return op;
}

constexpr double scalar = -1.7;

std::vector<Named> elementwise() {
  return {
#define HYPERTAPE_UNARY(Op, name) \
  describe<ht::elementwise::Op>(#name, [](const TensorList& x) -> TensorList { return {ht::name(x[0])}; }),
#define HYPERTAPE_BINARY(Op, name)     \
  describe<ht::elementwise::Op>(#name, \
                                [](const TensorList& x) -> TensorList { return {ht::name(x[0], x[1])}; }),
#define HYPERTAPE_TERNARY(Op, name) \
  describe<ht::elementwise::Op>(    \
      #name, [](const TensorList& x) -> TensorList { return {ht::name(x[0], x[1], x[2])}; }),
#define HYPERTAPE_WITH_SCALAR(Op, name) \
  describe<ht::elementwise::Op>(#name,  \
                                [](const TensorList& x) -> TensorList { return {ht::name(x[0], scalar)}; }),
#include <hypertape/core/elementwise.def>
  };
}

// By integer arithmetic and one rounding: no function of a C library.
double uniform(std::uint64_t index, double low, double high) {
  std::uint64_t x = index * 0x9e3779b97f4a7c15 + 0x632be59bd9b4e019;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return low + (high - low) * (static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53);
}

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double odd_numbers[] = {0.0,        -0.0,     1.0,       -1.0,
                                  0.5,        -2.5,     710.0,     -746.0,
                                  88.9,       -104.0,   1e-310,    0x1p-149,
                                  -0x1p-1074, 0x1p127,  -0x1p1023, 1e9,
                                  -3e5,       infinity, -infinity, std::numeric_limits<double>::quiet_NaN()};
constexpr std::size_t odd = std::size(odd_numbers);

// Odd numbers in all pairs, then many from the domain; a length that leaves a tail in any vector.
Tensor operand(std::size_t place, const ht::elementwise::Interval& domain, Dtype dtype) {
  std::vector<double> x(odd * odd + 1003);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = i < odd * odd ? odd_numbers[place == 0   ? i % odd
                                       : place == 1 ? i / odd
                                                    : (i + i / odd) % odd]
                         : uniform(10 * i + place, domain.low, domain.high);
  const Tensor all = Tensor::from(x, {static_cast<std::int64_t>(x.size())});
  return dtype == Dtype::float64 ? all : ht::astype(all, dtype);
}

const std::pair<std::string, Dtype> dtypes[] = {{".float32", Dtype::float32}, {".float64", Dtype::float64}};

Tensor directions(const Tensor& like, std::size_t place) {
  std::vector<double> x(static_cast<std::size_t>(like.size()));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = uniform(10 * i + 5 + place, -1, 1);
  return ladder::converted(Tensor::from(x, like.shape()), like.dtype());
}

// f, its gradient and tangent, and second derivatives in forward and in reverse, along fixed directions.
Checksum derivatives(const ladder::Function& f, const TensorList& x) {
  Checksum sum;
  TensorList v;
  for (std::size_t i = 0; i < x.size(); ++i) v.push_back(directions(x[i], i));
  const TensorList y = f(x), u{directions(y[0], 3)};
  const auto gradient = [&](const TensorList& z) { return ht::vjp(f, z).second(u); };
  const TensorList g = gradient(x);
  sum.add(y);
  sum.add(g);
  sum.add(ht::jvp(f, x, v).second);
  sum.add(ht::jvp(gradient, x, v).second);
  TensorList w(g.size());
  for (std::size_t i = 0; i < g.size(); ++i)
    if (g[i].defined()) w[i] = v[i];
  sum.add(ht::vjp(gradient, x).second(w));
  return sum;
}

}  // namespace

TEST_CASE("elementwise values and derivatives have the recorded bits") {
  for (const Named& op : elementwise())
    for (const auto& [suffix, dtype] : dtypes) {
      TensorList x;
      for (std::size_t i = 0; i < op.arity; ++i) x.push_back(operand(i, op.domain[i], dtype));
      Recorded::instance().expect(op.name + suffix, derivatives(op.run, x));
    }
}

TEST_CASE("reductions and losses have the recorded bits") {
  const Tensor labels = Tensor::from<std::int64_t>({2, 0, 1, 2, 4, 4, 3, 1, 2, 0, 0});
  const std::pair<const char*, ladder::Function> functions[] = {
      {"sum", [](const TensorList& x) -> TensorList { return {ht::sum(x[0])}; }},
      {"sum_rows", [](const TensorList& x) -> TensorList { return {ht::sum(x[0], {0})}; }},
      {"sum_columns", [](const TensorList& x) -> TensorList { return {ht::sum(x[0], {1})}; }},
      {"dot", [](const TensorList& x) -> TensorList { return {ht::dot(x[0], ht::tanh(x[0]))}; }},
      {"prod", [](const TensorList& x) -> TensorList { return {ht::prod(x[0], {1})}; }},
      {"variance", [](const TensorList& x) -> TensorList { return {ht::variance(x[0], {0})}; }},
      {"norm", [](const TensorList& x) -> TensorList { return {ht::norm(x[0], {1})}; }},
      {"logsumexp", [](const TensorList& x) -> TensorList { return {ht::logsumexp(x[0], {0})}; }},
      {"softmax", [](const TensorList& x) -> TensorList { return {ht::softmax(x[0])}; }},
      {"log_softmax", [](const TensorList& x) -> TensorList { return {ht::log_softmax(x[0], 0)}; }},
      {"max", [](const TensorList& x) -> TensorList { return {ht::max(x[0], {1})}; }},
      {"cumulative_sum", [](const TensorList& x) -> TensorList { return {ht::cumulative_sum(x[0], 1)}; }},
      {"cross_entropy",
       [&](const TensorList& x) -> TensorList { return {ht::softmax_cross_entropy(x[0], labels)}; }},
      {"logistic",
       [](const TensorList& x) -> TensorList {
         return {ht::binary_cross_entropy_with_logits(x[0], ht::stop_gradient(ht::sigmoid(x[0])))};
       }},
      {"squared_error",
       [](const TensorList& x) -> TensorList {
         return {ht::mean_squared_error(x[0], ht::expand(ht::mean(x[0], {0}), x[0].shape()))};
       }},
  };
  std::vector<double> numbers(11 * 317);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = uniform(i, -3, 3);
  for (const auto& [name, f] : functions)
    for (const auto& [suffix, dtype] : dtypes)
      Recorded::instance().expect(
          name + suffix, derivatives(f, {ladder::converted(Tensor::from(numbers, {11, 317}), dtype)}));
}

TEST_CASE("random numbers have the recorded bits") {
  for (const auto& [suffix, dtype] : dtypes) {
    Checksum sum;
    for (const ht::Distribution one :
         {ht::Distribution::uniform, ht::Distribution::normal, ht::Distribution::rademacher})
      sum.add({ht::random({5003}, one, {7, 3, 11}, dtype)});
    Recorded::instance().expect("random" + suffix, sum);
  }
  Checksum order;
  for (const std::int64_t place : ht::random_permutation(1001, {3}).to_vector<std::int64_t>())
    order.add(static_cast<std::uint64_t>(place));
  Recorded::instance().expect("random_permutation", order);
}

TEST_CASE_TEMPLATE("steps in fixed point have the recorded bits", T, float, double) {
  constexpr std::size_t size = 1003;
  std::vector<std::int64_t> w(size), v(size);
  std::vector<T> gradient(size);
  std::vector<double> start(size);
  for (std::size_t i = 0; i < size; ++i) start[i] = uniform(i, -2, 2);
  ht::detail::to_fixed<double>(start, w);
  ht::detail::DigitBuffer digits(size);
  Checksum sum;
  // Momenta on both sides of the quotients by way of doubles.
  for (const std::uint32_t n : {100u, 8192u, 50000u, 58982u, 65535u}) {
    for (int step = 0; step < 4; ++step) {
      ht::detail::from_fixed<T>(w, gradient);
      const ht::detail::MomentumSegment<T> all{w, v, gradient, 0.037};
      REQUIRE(ht::detail::momentum_forward<T>(digits, n, step % 2 == 1, std::span(&all, 1)) ==
              ht::detail::StepFault::none);
      sum.add(ht::detail::hash_fixed(w));
      sum.add(ht::detail::hash_fixed(v));
    }
  }
  Recorded::instance().expect(sizeof(T) == 4 ? "fixed_point.float32" : "fixed_point.float64", sum);
}
