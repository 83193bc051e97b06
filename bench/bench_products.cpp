// Matrix products: GFLOP/s, and percent of the fused-multiply-add peak measured in turns with them.
//
//   percent_of_peak   target for float32 squares of 512 and above: 65
//   of_blas           time / time of plain cblas on as many threads of its own: below 1 is faster
//
// Shapes are rows x depth x columns of the result's factors: 200x784x50 is (200, 784) (784, 50). nn, tn and
// nt say which factor is read transposed; tn is a layer's weight gradient, nt its input gradient.
#include <cblas.h>

#include <chrono>
#include <thread>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/random.h>
#include "fma_peak.h"
#include "measure.h"

namespace hypertape::bench {
namespace {

struct Product {
  std::int64_t m, k, n;
  bool transpose_a, transpose_b;
  std::string name() const {
    return std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n) + "/" +
           (transpose_a ? "t" : "n") + (transpose_b ? "t" : "n");
  }
  double operations() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(k) * static_cast<double>(n);
  }
};

// The three products of one layer.
void add_layer(std::vector<Product>& products, std::int64_t rows, std::int64_t in, std::int64_t out) {
  products.push_back({rows, in, out, false, false});
  products.push_back({in, rows, out, true, false});
  products.push_back({rows, out, in, false, true});
}

std::vector<Product> all_products() {
  std::vector<Product> products;
  for (const auto& [in, out] : {std::pair{784, 50}, {50, 50}, {50, 10}, {64, 100}, {100, 100}, {100, 10}})
    add_layer(products, 200, in, out);
  products.push_back({128, 784, 1024, false, false});
  for (const std::int64_t side : {512, 1024, 2048}) products.push_back({side, side, side, false, false});
  return products;
}

struct Operands {
  Tensor a, b;
};
Operands operands_of(const Product& p, Dtype dtype) {
  const Shape a = p.transpose_a ? Shape{p.k, p.m} : Shape{p.m, p.k};
  const Shape b = p.transpose_b ? Shape{p.n, p.k} : Shape{p.k, p.n};
  return {random(a, Distribution::normal, {1}, dtype), random(b, Distribution::normal, {2}, dtype)};
}

// Plain cblas into memory of its own.
class BlasCall {
 public:
  BlasCall(const Product& p, const Operands& operands, Dtype dtype)
      : p_(p), operands_(operands), single_(dtype == Dtype::float32) {
    const auto size = static_cast<std::size_t>(p.m * p.n);
    single_ ? floats_.resize(size) : doubles_.resize(size);
  }
  void operator()() {
    if (single_)
      call(cblas_sgemm, floats_);
    else
      call(cblas_dgemm, doubles_);
  }

 private:
  template <class T, class Gemm>
  void call(Gemm gemm, std::vector<T>& c) {
    const auto transposed = [](bool flag) { return flag ? CblasTrans : CblasNoTrans; };
    const auto i = [](std::int64_t x) { return static_cast<int>(x); };
    gemm(CblasRowMajor, transposed(p_.transpose_a), transposed(p_.transpose_b), i(p_.m), i(p_.n), i(p_.k),
         T{1}, operands_.a.template data<T>().data(), i(operands_.a.extent(1)),
         operands_.b.template data<T>().data(), i(operands_.b.extent(1)), T{0}, c.data(), i(p_.n));
  }
  Product p_;
  Operands operands_;
  bool single_;
  std::vector<float> floats_;
  std::vector<double> doubles_;
};

// BLAS's own threads spin for a while after a call and would disturb what follows.
double seconds_of_blas(BlasCall& blas, int threads) {
  openblas_set_num_threads(threads);
  blas();
  const double once = seconds_of(blas);
  const int calls = static_cast<int>(std::clamp(1e-4 / once, 1.0, 1000.0));
  std::vector<double> times;
  for (double spent = 0.0; spent < 0.02 || times.size() < 5;) {
    times.push_back(seconds_of([&] {
      for (int i = 0; i < calls; ++i) blas();
    }));
    spent += times.back();
  }
  openblas_set_num_threads(1);
  if (threads > 1) std::this_thread::sleep_for(std::chrono::milliseconds(60));
  return median(times) / calls;
}

void product_row(benchmark::State& state, const Product& p, Dtype dtype, int threads) {
  const Threads set(threads);
  const Operands operands = operands_of(p, dtype);
  BlasCall blas(p, operands, dtype);
  const double blas_seconds = seconds_of_blas(blas, threads);
  const std::vector<double> seconds = in_turns(
      state,
      [&] {
        benchmark::DoNotOptimize(matmul(operands.a, operands.b, p.transpose_a, p.transpose_b).header());
      },
      {{"", [&] { run_peak(threads); }}});
  const double peak = operations_at_peak(threads) / (dtype == Dtype::float32 ? 1 : 2) / seconds[1];
  state.counters["GFLOPs"] = 1e-9 * p.operations() / seconds[0];
  state.counters["peak_GFLOPs"] = 1e-9 * peak;
  state.counters["percent_of_peak"] = 100 * p.operations() / seconds[0] / peak;
  state.counters["blas_GFLOPs"] = 1e-9 * p.operations() / blas_seconds;
  state.counters["of_blas"] = seconds[0] / blas_seconds;
}

void register_rows() {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64})
    for_thread_counts([&](int threads) {
      for (const Product& p : all_products())
        add_row((dtype == Dtype::float32 ? "float32/" : "float64/") + p.name() + "/" + thread_text(threads),
                [p, dtype, threads](benchmark::State& state) { product_row(state, p, dtype, threads); })
            ->Unit(benchmark::kMicrosecond);
    });
}

}  // namespace
}  // namespace hypertape::bench

int main(int argc, char** argv) {
  hypertape::bench::register_rows();
  return hypertape::bench::run_all(argc, argv);
}
