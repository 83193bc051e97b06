// ctest labels: kernels
//
// A host's rounding, flushing of subnormal numbers and traps: values are those of default arithmetic, bit for
// bit, nothing traps, and the host has its own settings back after every call.
#include <doctest/doctest.h>

#include <algorithm>
#include <cfenv>
#include <cstdint>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/bilevel/joint.h>
#include <hypertape/bilevel/linear.h>
#include <hypertape/bilevel/plan.h>
#include <hypertape/core/parallel.h>
#include <hypertape/hypertape.h>
#include "core/elementwise/structs.h"
#include "ladder.h"

namespace {

namespace ht = hypertape;
namespace bl = hypertape::bilevel;
using ht::Dtype;
using ht::NamedTensors;
using ht::Tensor;
using ht::TensorList;

// Rounding, flushing and traps of this thread, without the flags of exceptions.
std::uint64_t control_word() {
#if defined(__x86_64__)
  std::uint16_t x87;
  asm volatile("fnstcw %0" : "=m"(x87));
  return std::uint64_t{__builtin_ia32_stmxcsr() & ~0x3fu} << 16 | x87;
#elif defined(__aarch64__)
  std::uint64_t word;
  asm volatile("mrs %0, fpcr" : "=r"(word));
  return word;
#else
  return static_cast<std::uint64_t>(std::fegetround());
#endif
}

Tensor sample(const ht::Shape& shape, std::uint64_t seed) { return ladder::sample(shape, -1.0, 1.0, seed); }

struct Mode {
  int rounding = FE_TONEAREST;
  bool flushes = false, traps = false;
};

std::vector<Mode> all_modes() {
  std::vector<Mode> modes;
  for (const int rounding : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO})
    for (const bool flushes : {false, true})
      for (const bool traps : {false, true}) modes.push_back({rounding, flushes, traps});
  return modes;
}

std::string name_of(const Mode& mode) {
  return "rounding " + std::to_string(mode.rounding) + (mode.flushes ? ", flushing" : "") +
         (mode.traps ? ", trapping" : "");
}

// The thread's arithmetic is `mode` while this lives. All exceptions trap, where the processor can: the
// inexact one betrays nearly every operation that a host would feel.
class Host {
 public:
  explicit Host(const Mode& mode) {
    std::fegetenv(&before_);
    std::feclearexcept(FE_ALL_EXCEPT);
    std::fesetround(mode.rounding);
    if (mode.flushes) {
#if defined(__x86_64__)
      __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040u);
#elif defined(__aarch64__)
      std::uint64_t word;
      asm volatile("mrs %0, fpcr" : "=r"(word));
      asm volatile("msr fpcr, %0" : : "r"(word | 1u << 24));
#endif
    }
    if (mode.traps) feenableexcept(FE_ALL_EXCEPT);
  }
  ~Host() { std::fesetenv(&before_); }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

 private:
  std::fenv_t before_;
};

// What a program makes: tensors and text. Its own code has constants but no arithmetic.
struct Result {
  TensorList tensors;
  std::string text;
};

struct Program {
  std::string name;
  std::function<Result()> run;
};

bool are_same(const Result& a, const Result& b) {
  return a.text == b.text && ladder::same_bits(a.tensors, b.tensors);
}

void expect_default(const std::vector<Program>& programs, const std::vector<Mode>& modes) {
  for (const Program& program : programs) {
    const Result expected = program.run();
    for (const Mode& mode : modes) {
      Result got;
      std::uint64_t before = 0, after = 0;
      {
        const Host host(mode);
        before = control_word();
        got = program.run();
        after = control_word();
      }
      CHECK_MESSAGE(before == after, program.name << ", " << name_of(mode));
      CHECK_MESSAGE(are_same(got, expected), program.name << ", " << name_of(mode));
    }
  }
}

using List = ladder::Function;

// f, gradient, tangent and second derivatives.
Program derivatives_of(const std::string& name, const List& f, const TensorList& x) {
  TensorList u, v;
  for (const Tensor& y : f(x)) u.push_back(ladder::converted(sample(y.shape(), 7), y.dtype()));
  for (std::size_t i = 0; i < x.size(); ++i)
    v.push_back(ladder::converted(sample(x[i].shape(), 3 + i), x[i].dtype()));
  return {name, [=]() -> Result {
            const auto gradient = [&](const TensorList& z) { return ht::vjp(f, z).second(u); };
            TensorList all = f(x);
            const auto append = [&](const TensorList& list) {
              all.insert(all.end(), list.begin(), list.end());
            };
            append(gradient(x));
            append(ht::jvp(f, x, v).second);
            append(ht::linearize(f, x).second(v));
            append(ht::jvp(gradient, x, v).second);
            return {all, ""};
          }};
}

template <class S>
Program elementwise(const char* name, const List& f, Dtype dtype) {
  TensorList x;
  for (std::size_t i = 0; i < static_cast<std::size_t>(S::arity); ++i) {
    // Numbers of its domain, small and subnormal ones, and those at which activations underflow.
    const auto& [low, high] = S::domain[i];
    std::vector<double> numbers = {1e-8, 3e-40, 5e-310, -800.0, 40.0, 0.2, -0.7};
    for (int k = 0; k < 30; ++k) numbers.push_back(low + (high - low) * (k + 0.3) / 31);
    std::rotate(numbers.begin(), numbers.begin() + static_cast<int>(i), numbers.end());
    x.push_back(ladder::converted(Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())}), dtype));
  }
  return derivatives_of(std::string(name) + (dtype == Dtype::float32 ? ".float32" : ""), f, x);
}

constexpr double scalar = -1.7;

std::vector<Program> elementwise_programs() {
  std::vector<Program> all;
  for (const Dtype dtype : {Dtype::float64, Dtype::float32}) {
#define HYPERTAPE_UNARY(Op, name)                 \
  all.push_back(elementwise<ht::elementwise::Op>( \
      #name, [](const TensorList& x) -> TensorList { return {ht::name(x[0])}; }, dtype));
#define HYPERTAPE_BINARY(Op, name)                \
  all.push_back(elementwise<ht::elementwise::Op>( \
      #name, [](const TensorList& x) -> TensorList { return {ht::name(x[0], x[1])}; }, dtype));
#define HYPERTAPE_TERNARY(Op, name)               \
  all.push_back(elementwise<ht::elementwise::Op>( \
      #name, [](const TensorList& x) -> TensorList { return {ht::name(x[0], x[1], x[2])}; }, dtype));
#define HYPERTAPE_WITH_SCALAR(Op, name)           \
  all.push_back(elementwise<ht::elementwise::Op>( \
      #name, [](const TensorList& x) -> TensorList { return {ht::name(x[0], scalar)}; }, dtype));
#include <hypertape/core/elementwise.def>
  }
  return all;
}

std::vector<Program> other_programs() {
  const Tensor labels = Tensor::from<std::int64_t>({2, 0, 1, 2, 4}),
               places = Tensor::from<std::int64_t>({2, 0, 1});
  const std::pair<const char*, List> functions[] = {
      {"sum",
       [](const TensorList& x) -> TensorList {
         return {ht::sum(x[0], {0}), ht::sum(x[0])};
       }},
      {"mean",
       [](const TensorList& x) -> TensorList {
         return {ht::mean(x[0]), ht::mean(x[0], {1})};
       }},
      {"prod", [](const TensorList& x) -> TensorList { return {ht::prod(x[0], {1})}; }},
      {"norm",
       [](const TensorList& x) -> TensorList {
         return {ht::norm(x[0], {1}), ht::norm(x[0])};
       }},
      {"variance", [](const TensorList& x) -> TensorList { return {ht::variance(x[0], {0})}; }},
      {"deviation", [](const TensorList& x) -> TensorList { return {ht::standard_deviation(x[0], {0})}; }},
      {"maximum",
       [](const TensorList& x) -> TensorList {
         return {ht::max(x[0], {1}), ht::min(x[0])};
       }},
      {"cumulative", [](const TensorList& x) -> TensorList { return {ht::cumulative_sum(x[0], 1)}; }},
      {"softmax", [](const TensorList& x) -> TensorList { return {ht::softmax(x[0])}; }},
      {"log_softmax", [](const TensorList& x) -> TensorList { return {ht::log_softmax(x[0], 0)}; }},
      {"logsumexp", [](const TensorList& x) -> TensorList { return {ht::logsumexp(x[0], {0})}; }},
      {"clamp", [](const TensorList& x) -> TensorList { return {ht::clamp(x[0], -0.3, 0.1)}; }},
      {"power", [](const TensorList& x) -> TensorList { return {ht::pow(ht::exp(x[0]), 0.1)}; }},
      {"matmul", [](const TensorList& x) -> TensorList { return {ht::matmul(x[0], x[0], false, true)}; }},
      {"einsum",
       [](const TensorList& x) -> TensorList {
         return {ht::einsum("ij,kj->ik", {x[0], x[0]})};
       }},
      {"gather", [=](const TensorList& x) -> TensorList { return {ht::index_select(x[0], 0, places)}; }},
      {"cross_entropy",
       [=](const TensorList& x) -> TensorList { return {ht::softmax_cross_entropy(x[0], labels)}; }},
      {"logistic",
       [](const TensorList& x) -> TensorList {
         return {ht::binary_cross_entropy_with_logits(x[0], ht::stop_gradient(ht::sigmoid(x[0])))};
       }},
      {"checkpoint",
       [](const TensorList& x) -> TensorList {
         return {ht::checkpoint([](const Tensor& y) { return ht::tanh(y) / 3.0; }, x[0])};
       }},
  };
  std::vector<Program> all;
  for (const Dtype dtype : {Dtype::float64, Dtype::float32})
    for (const auto& [name, f] : functions)
      all.push_back(derivatives_of(name, f, {ladder::converted(sample({5, 7}, 1), dtype)}));
  const Tensor x = sample({5, 7}, 1), tiny = Tensor::from<double>({5e-310, -3e-320, 0.0, 1e-40});
  const Tensor large = Tensor::from<std::int64_t>({(std::int64_t{1} << 62) + 1});
  const auto whole = [](const Tensor& mask) { return ht::astype(mask, Dtype::int64); };
  all.push_back({"comparisons", [=]() -> Result {
                   return {{whole(ht::equal(tiny, 0.0)), whole(ht::less(tiny, 0.0)),
                            whole(ht::greater(tiny, 5e-320)), ht::where(ht::equal(tiny, 0.0), 1.0, tiny),
                            ht::astype(tiny, Dtype::float32), ht::astype(x, Dtype::float32),
                            ht::astype(large, Dtype::float64)},
                           ""};
                 }});
  all.push_back({"made of numbers", [=]() -> Result {
                   return {{Tensor::scalar(0.1, Dtype::float32), Tensor::full({3}, 1e-310),
                            Tensor::scalar(Tensor::scalar(1e-40, Dtype::float32).item()),
                            Tensor::scalar(large.item())},
                           ""};
                 }});
  all.push_back({"random", []() -> Result {
                   const ht::Key key{5, 1, 2};
                   return {{ht::random({200}, ht::Distribution::normal, key),
                            ht::random({200}, ht::Distribution::normal, key, Dtype::float32),
                            ht::random({200}, ht::Distribution::uniform, key),
                            ht::nn::Mlp({3, 5, 2}, ht::nn::Activation::tanh).init(key)["weight_1"]},
                           ""};
                 }});
  all.push_back({"text", [=]() -> Result {
                   std::ostringstream out;
                   out << Tensor::from<double>({0.1, 0.2, 1e-310}) << Tensor::scalar(0.7, Dtype::float32);
                   try {
                     (void)ht::clamp(x, 0.1, -0.7);
                   } catch (const ht::Error& error) {
                     out << error.what();
                   }
                   return {{}, out.str()};
                 }});
  return all;
}

// Three steps of a small net that learns rates and a penalty, and what is asked of it.
struct Training {
  explicit Training(ht::optim::Step step) {
    const ht::nn::Mlp net({3, 4, 2}, ht::nn::Activation::tanh);
    const Tensor inputs = sample({6, 3}, 1), others = sample({6, 3}, 2),
                 labels = Tensor::from<std::int64_t>({0, 1, 1, 0, 1, 0});
    problem.init = [=](const NamedTensors&) { return net.init(ht::Key{3}); };
    problem.loss = [=](const NamedTensors& w, const NamedTensors& at, const bl::StepContext&) {
      Tensor loss = ht::softmax_cross_entropy(net(w, inputs), labels);
      for (const Tensor& each : w.tensors()) loss = loss + ht::exp(at["penalty"]) * ht::squared_norm(each);
      return loss;
    };
    problem.full_loss = [=, loss = problem.loss](const NamedTensors& w, const NamedTensors& at) {
      return loss(w, at, {});
    };
    problem.step = std::move(step);
    problem.steps = 3;
    outer = [=](const NamedTensors& w, const NamedTensors&) {
      return ht::softmax_cross_entropy(net(w, others), labels);
    };
    h.add("rate", Tensor::scalar(0.1));
    h.add("penalty", Tensor::scalar(-1.5));
  }
  bl::Problem problem;
  bl::OuterLoss outer;
  NamedTensors h;

  // Hypergradient, its numbers and what is printed of it but its cost.
  Program by(const bl::Estimator& method) const {
    return {method.name() + " of " + problem.step.name, [*this, method]() -> Result {
              const bl::Hypergradient got = bl::hypergradient(problem, outer, h, method);
              TensorList all = got.gradients.tensors();
              for (const Tensor& each : got.parameters.tensors()) all.push_back(each);
              for (const double number : {got.value, got.adjoint_growth, got.inner_residual})
                all.push_back(Tensor::scalar(number));
              return {all, got.message};
            }};
  }
};

std::vector<Program> training_programs() {
  const Training sgd(ht::optim::sgd({.rate = "rate", .momentum = 0.9})),
      adam(ht::optim::adam({.rate = "rate", .weight_decay = 0.1}));
  std::vector<Program> all;
  for (const bl::Estimator& method :
       {bl::Estimator(bl::Unrolled{}), bl::Estimator(bl::Trajectory{}), bl::Estimator(bl::Checkpointed{}),
        bl::Estimator(bl::Forward{}), bl::Estimator(bl::Reversible{})})
    all.push_back(sgd.by(method));
  all.push_back(adam.by(bl::Unrolled{}));
  all.push_back(adam.by(bl::Trajectory{}));
  Training implicit = sgd;
  implicit.problem.steps = 30;
  implicit.h = {};
  implicit.h.add("penalty", Tensor::scalar(-1.5));
  implicit.problem.step = ht::optim::sgd({.rate = 0.1, .momentum = 0.5});
  for (const bl::Estimator& method :
       {bl::Estimator(bl::ImplicitCg{.inner_tolerance = 1.0}),
        bl::Estimator(bl::ImplicitDense{.inner_tolerance = 1.0}),
        bl::Estimator(bl::ImplicitNeumann{.rate = 0.1, .inner_tolerance = 1.0}),
        bl::Estimator(bl::T1T2{.rate = 0.1}), bl::Estimator(bl::Darts{.rate = 0.1})})
    all.push_back(implicit.by(method));
  all.push_back({"a solution's pullback", [sgd]() -> Result {
                   return {ht::grad(
                               [&](const TensorList& h) {
                                 const auto w = bl::solve(sgd.problem, sgd.h.with(h), bl::Trajectory{});
                                 return sgd.outer(w.parameters, sgd.h);
                               },
                               sgd.h.tensors()),
                           ""};
                 }});
  const Tensor root = sample({6, 9}, 4), right = sample({6, 1}, 5);
  all.push_back(
      {"conjugate_gradient", [=]() -> Result {
         const Tensor a = ht::matmul(root, root, false, true);
         const bl::LinearMap map = [&](const TensorList& x) { return TensorList{ht::matmul(a, x[0])}; };
         const TensorList b{right};
         const bl::LinearSolution one = bl::conjugate_gradient(map, b), two = bl::dense_solve(map, b);
         TensorList found{one.x[0], two.x[0],
                          Tensor::from(one.residuals, {static_cast<std::int64_t>(one.residuals.size())})};
         for (const double number : {one.largest_eigenvalue, one.smallest_eigenvalue, two.largest_eigenvalue,
                                     two.smallest_eigenvalue})
           found.push_back(Tensor::scalar(number));
         return {found, ""};
       }});
  all.push_back({"plan", [sgd]() -> Result {
                   return {{}, bl::plan(sgd.problem, sgd.outer, sgd.h, {.budget_bytes = 7000}).message};
                 }});
  all.push_back({"soba", []() -> Result {
                   const bl::JointAlgorithm algorithm =
                       bl::soba({.inner_rate = 0.1, .linear_rate = 0.1, .outer_rate = 0.01, .decay = 0.3});
                   bl::JointProblem problem;
                   problem.init = [](const NamedTensors&) {
                     NamedTensors w;
                     w.add("w", Tensor::from<double>({0.3, -0.1}));
                     return w;
                   };
                   problem.inner = [](const NamedTensors& w, const NamedTensors& h, const bl::StepContext&) {
                     return ht::sum(ht::exp(w["w"] * h["h"])) + ht::squared_norm(w["w"]);
                   };
                   problem.outer = [](const NamedTensors& w, const NamedTensors&, const bl::StepContext&) {
                     return ht::sum(ht::sin(w["w"]));
                   };
                   NamedTensors h;
                   h.add("h", Tensor::from<double>({0.7, 0.2}));
                   bl::JointState state = algorithm.init(problem, h);
                   for (int step = 0; step < 3; ++step) state = algorithm.step(problem, state);
                   return {{state.parameters["w"], state.adjoint["w"], state.hyperparameters["h"],
                            Tensor::scalar(state.hypergradient)},
                           ""};
                 }});
  return all;
}

}  // namespace

TEST_CASE("elementwise operations and their derivatives do not feel the host's floating-point modes") {
  expect_default(elementwise_programs(), all_modes());
}

TEST_CASE("other operations, random numbers and texts do not feel the host's floating-point modes") {
  expect_default(other_programs(), all_modes());
}

TEST_CASE("training, hypergradients and solvers do not feel the host's floating-point modes") {
  // Their parts have been through all modes.
  expect_default(training_programs(), {{FE_UPWARD, false, false},
                                       {FE_DOWNWARD, true, false},
                                       {FE_TONEAREST, true, false},
                                       {FE_TOWARDZERO, true, true}});
}

TEST_CASE("helpers do not feel the host's floating-point modes, nor what its own parallel work left") {
  const int before = ht::thread_count();
  ht::set_thread_count(std::min(ht::available_cpus(), 4));
  const Tensor x = sample({300, 400}, 1), tiny = x * 1e-309;
  expect_default(
      {{"parallel",
        [=]() -> Result {
          ht::parallel_chunks(16, [](std::int64_t) {});  // in the host's arithmetic, also on helpers
          return {{ht::sin(x), x / 3.0, ht::sum(x), ht::matmul(x, x, false, true), tiny / 7.0}, ""};
        }}},
      all_modes());
  // A thread begins with the arithmetic of its maker.
  const Tensor expected = ht::sin(x);
  const Host host({FE_UPWARD, true, false});
  std::thread([&] { CHECK(ladder::same_bits(ht::sin(x), expected)); }).join();
  ht::set_thread_count(before);
}

TEST_CASE("functions given to the library compute in default arithmetic, and errors leave the host its own") {
  const std::uint64_t usual = control_word();
  std::vector<std::uint64_t> seen;
  const auto look = [&](const Tensor& x) {
    seen.push_back(control_word());
    return ht::sum(ht::square(x));
  };
  const auto refuse = [](const Tensor&) -> Tensor { throw std::runtime_error("no"); };
  const Tensor x = Tensor::from<double>({0.1, 0.3});
  Training training(ht::optim::sgd({.rate = "rate"}));
  training.problem.loss = [&](const NamedTensors& w, const NamedTensors&, const bl::StepContext&) {
    return look(w.tensors()[0]);
  };
  std::uint64_t before = 0, after = 0;
  int thrown = 0;
  {
    const Host host({FE_UPWARD, true, false});
    before = control_word();
    (void)ht::grad(look, x);
    (void)ht::vjp(look, x);
    (void)ht::jvp(look, x, x);
    (void)ht::hvp(look, x, x);
    (void)ht::linearize(look, x);
    (void)ht::grad([&](const Tensor& y) { return ht::checkpoint(look, y); }, x);
    (void)bl::train(training.problem, training.h);
    (void)bl::hypergradient(training.problem, training.outer, training.h, bl::Trajectory{});
    for (int way = 0; way < 3; ++way) try {
        if (way == 0) (void)ht::grad(refuse, x);
        if (way == 1) (void)ht::jvp(refuse, x, x);
        if (way == 2) (void)ht::matmul(x, Tensor::zeros({3}));
      } catch (const std::exception&) {
        ++thrown;
      }
    after = control_word();
  }
  CHECK(seen.size() > 12);
  CHECK(std::all_of(seen.begin(), seen.end(), [&](std::uint64_t word) { return word == usual; }));
  CHECK(thrown == 3);
  CHECK(before == after);
  CHECK(before != usual);
  CHECK(control_word() == usual);
}
