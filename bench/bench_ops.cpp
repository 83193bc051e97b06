// What one operation costs: overhead on tiny tensors, and time per element of every elementwise operation.
//
//   chain rows   ns_per_op over 1,000 multiplies of 8 floats on one thread; targets: recorded 100, with
//                backward 200; system_allocations per operation once warm: 0
//   elementwise  ns_per_element, GB_per_s over operands and result, of_copy: time / memcpy of as many bytes
//   as
//                the result has
#include <cstring>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/core/memory.h>
#include <hypertape/core/random.h>
#include "core/elementwise/structs.h"
#include "measure.h"

namespace hypertape::bench {
namespace {

constexpr std::int64_t chain_length = 1000;

enum class Mode { plain, recorded, backward };

// `both`: the second factor is differentiated too, so each backward step makes and adds up two products.
void chain(benchmark::State& state, Mode mode, bool both) {
  const Threads one(1);
  const Tensor x = Tensor::full({8}, 1.5, Dtype::float32), factor = Tensor::full({8}, 1.0, Dtype::float32);
  const auto multiply_often = [](Tensor y, const Tensor& by) {
    for (std::int64_t i = 0; i < chain_length; ++i) y = std::move(y) * by;
    return y;
  };
  const auto run = [&] {
    const auto function = [&](const TensorList& inputs) {
      return TensorList{multiply_often(inputs[0], both ? inputs[1] : factor)};
    };
    if (mode == Mode::plain) {
      benchmark::DoNotOptimize(multiply_often(x, factor).header());
      return;
    }
    auto [y, pullback] = vjp(function, TensorList{x, factor});
    benchmark::DoNotOptimize(y.front().header());
    if (mode == Mode::backward) benchmark::DoNotOptimize(pullback.consume({factor}).front().header());
  };
  run();
  const std::int64_t before = memory_statistics().system_allocations;
  std::int64_t runs = 0;
  const auto counted = [&] {
    run();
    ++runs;
  };
  const double seconds = in_turns(state, counted, {}).front();
  state.counters["ns_per_op"] = 1e9 * seconds / chain_length;
  state.counters["system_allocations"] =
      static_cast<double>(memory_statistics().system_allocations - before) /
      static_cast<double>(runs * chain_length);
  const double target = mode == Mode::recorded ? 100 : mode == Mode::backward ? 200 : 0;
  if (target > 0) state.counters["target_ns"] = target;
}

// Elements spread over the operand's domain.
Tensor sample(const elementwise::Interval& domain, std::int64_t size, std::uint64_t seed, Dtype dtype) {
  return domain.low +
         (domain.high - domain.low) * random({size}, Distribution::uniform, Key{.seed = seed}, dtype);
}

template <class Op, class Call>
void elementwise_row(benchmark::State& state, Call call, Dtype dtype) {
  const Threads one(1);
  const std::int64_t size = state.range(0);
  const Tensor a = sample(Op::domain[0], size, 1, dtype);
  const Tensor b = sample(Op::domain[Op::arity - 1], size, 2, dtype);
  const std::size_t bytes = static_cast<std::size_t>(size) * (dtype == Dtype::float32 ? 4 : 8);
  std::vector<char> source(bytes, 1), target(bytes, 2);
  const std::vector<double> seconds = in_turns(state, [&] { benchmark::DoNotOptimize(call(a, b).header()); },
                                               {{"of_copy", [&] {
                                                   std::memcpy(target.data(), source.data(), bytes);
                                                   benchmark::ClobberMemory();
                                                 }}});
  state.counters["ns_per_element"] = 1e9 * seconds[0] / static_cast<double>(size);
  state.counters["GB_per_s"] = 1e-9 * static_cast<double>((Op::arity + 1) * bytes) / seconds[0];
}

template <class Op, class Call>
void register_elementwise(const char* name, Call call) {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    add_row("elementwise/" + std::string(name) + (dtype == Dtype::float32 ? "/float32" : "/float64"),
            [call, dtype](benchmark::State& state) { elementwise_row<Op>(state, call, dtype); })
        ->Arg(100)
        ->Arg(10000)
        ->Arg(1000000)
        ->Unit(benchmark::kMicrosecond);
}

void register_rows() {
  const auto row = [](const char* name, Mode mode, bool both) {
    add_row(name, [mode, both](benchmark::State& state) {
      chain(state, mode, both);
    })->Unit(benchmark::kMicrosecond);
  };
  row("chain/plain", Mode::plain, false);
  row("chain/recorded", Mode::recorded, false);
  row("chain/recorded_and_backward", Mode::backward, false);
  row("chain/recorded_and_backward_of_both_factors", Mode::backward, true);

#define HYPERTAPE_UNARY(Op, name) \
  register_elementwise<elementwise::Op>(#name, [](const Tensor& a, const Tensor&) { return name(a); });
#define HYPERTAPE_BINARY(Op, name) \
  register_elementwise<elementwise::Op>(#name, [](const Tensor& a, const Tensor& b) { return name(a, b); });
#define HYPERTAPE_TERNARY(Op, name)            \
  register_elementwise<elementwise::Op>(#name, \
                                        [](const Tensor& a, const Tensor& b) { return name(a, b, b); });
#define HYPERTAPE_WITH_SCALAR(Op, name) \
  register_elementwise<elementwise::Op>(#name, [](const Tensor& a, const Tensor&) { return name(a, 1.5); });
#include <hypertape/core/elementwise.def>
}

}  // namespace
}  // namespace hypertape::bench

int main(int argc, char** argv) {
  hypertape::bench::register_rows();
  return hypertape::bench::run_all(argc, argv);
}
