// Derivatives of one network's loss, batch 200, beside their floors.
//
//   of_products    median over turns of this row / the matrix products of one gradient alone
//   of_gradient    the same / one gradient of the same loss
//   floor          of_gradient by multiply-adds alone, F = those of the first layer, R of the rest:
//                  HVP (3F + 8R) / (2F + 3R), with the mixed product (4F + 9R) / (2F + 3R)
#include <cblas.h>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/bilevel/linear.h>
#include "measure.h"
#include "nets.h"

namespace hypertape::bench {
namespace {

struct Case {
  Net net;
  Dtype dtype;
  int threads;
};

// Everything a row may differentiate, built once per row.
class Workload {
 public:
  explicit Workload(const Case& c)
      : data_(synthetic_data(c.net, batch_rows, c.dtype)),
        mlp_(c.net.sizes, nn::Activation::tanh),
        weights_(mlp_.init({5}, c.dtype)),
        w_(weights_.tensors()) {
    for (const Tensor& w : w_) {
      v_.push_back(random(w.shape(), Distribution::normal, {11}, c.dtype));
      l2_.push_back(Tensor::full(w.shape(), 1e-4, c.dtype));
    }
    Tensor x = data_.rows;
    for (std::size_t l = 0; l < mlp_.layers(); ++l) {
      inputs_.push_back(x);
      x = tanh(nn::linear(x, w_[2 * l], w_[2 * l + 1]));
      cotangents_.push_back(random(x.shape(), Distribution::normal, {12}, c.dtype));
    }
  }

  Tensor loss(const TensorList& w) const {
    return softmax_cross_entropy(mlp_(weights_.with(w), data_.rows), data_.labels);
  }
  // With one L2 strength per weight; x is the weights, then the strengths.
  Tensor penalised_loss(const TensorList& x) const {
    const TensorList w(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(w_.size()));
    return penalised(w, {x.begin() + static_cast<std::ptrdiff_t>(w_.size()), x.end()});
  }

  // The products of one gradient and nothing else: 4 forward, 4 of weights, 3 of inputs.
  void products() const {
    for (std::size_t l = 0; l < mlp_.layers(); ++l)
      benchmark::DoNotOptimize(matmul(inputs_[l], w_[2 * l]).header());
    for (std::size_t l = mlp_.layers(); l-- > 0;) {
      benchmark::DoNotOptimize(matmul(inputs_[l], cotangents_[l], true, false).header());
      if (l > 0) benchmark::DoNotOptimize(matmul(cotangents_[l], w_[2 * l], false, true).header());
    }
  }

  void gradient() const {
    benchmark::DoNotOptimize(grad([&](const TensorList& w) { return loss(w); }, w_).front().header());
  }
  void penalised_gradient() const {
    benchmark::DoNotOptimize(
        grad([&](const TensorList& w) { return penalised(w, l2_); }, w_).front().header());
  }
  void hessian_vector_product() const {
    benchmark::DoNotOptimize(hvp([&](const TensorList& w) { return loss(w); }, w_, v_).front().header());
  }
  // Gradient, Hessian-vector and mixed product in one pass.
  void all_three() const {
    TensorList x = w_, tangents = v_;
    x.insert(x.end(), l2_.begin(), l2_.end());
    tangents.resize(x.size());
    const auto gradient = [&](const TensorList& at) {
      return grad([&](const TensorList& inner) { return penalised_loss(inner); }, at);
    };
    benchmark::DoNotOptimize(jvp(gradient, x, tangents).second.front().header());
  }
  auto linearised() const {
    const auto gradient = [&](const TensorList& w) {
      return grad([&](const TensorList& inner) { return loss(inner); }, w);
    };
    return linearize(gradient, w_).second;
  }
  bilevel::CurvatureOperator gauss_newton() const {
    return bilevel::gauss_newton_operator(
        [this](const TensorList& w) { return TensorList{mlp_(weights_.with(w), data_.rows)}; },
        [this](const TensorList& z) { return softmax_cross_entropy(z.front(), data_.labels); }, w_);
  }
  const TensorList& direction() const { return v_; }

 private:
  Tensor penalised(const TensorList& w, const TensorList& l2) const {
    Tensor penalty;
    for (std::size_t i = 0; i < w.size(); ++i) {
      Tensor term = sum(weighted_square(l2[i], w[i]));
      penalty = penalty.defined() ? penalty + term : term;
    }
    return loss(w) + 0.5 * penalty;
  }

  Data data_;
  nn::Mlp mlp_;
  NamedTensors weights_;
  TensorList w_, v_, l2_, inputs_, cotangents_;
};

// The same products by plain calls of BLAS with as many threads of its own.
class BlasProducts {
 public:
  explicit BlasProducts(const Case& c) : sizes_(c.net.sizes), single_(c.dtype == Dtype::float32) {
    const std::int64_t widest = *std::max_element(sizes_.begin(), sizes_.end());
    const auto most = static_cast<std::size_t>(widest * std::max(widest, batch_rows));
    for (auto& each : doubles_) each.assign(most, 0.5);
    for (auto& each : floats_) each.assign(most, 0.5F);
  }
  void operator()() {
    for (std::size_t l = 0; l + 1 < sizes_.size(); ++l) {
      const int in = static_cast<int>(sizes_[l]), out = static_cast<int>(sizes_[l + 1]);
      constexpr int rows = static_cast<int>(batch_rows);
      call(CblasNoTrans, CblasNoTrans, rows, out, in, in, out);
      call(CblasTrans, CblasNoTrans, in, out, rows, in, out);
      if (l > 0) call(CblasNoTrans, CblasTrans, rows, in, out, out, out);
    }
  }

 private:
  void call(CBLAS_TRANSPOSE a, CBLAS_TRANSPOSE b, int m, int n, int k, int lda, int ldb) {
    if (single_)
      cblas_sgemm(CblasRowMajor, a, b, m, n, k, 1.0F, floats_[0].data(), lda, floats_[1].data(), ldb, 0.0F,
                  floats_[2].data(), n);
    else
      cblas_dgemm(CblasRowMajor, a, b, m, n, k, 1.0, doubles_[0].data(), lda, doubles_[1].data(), ldb, 0.0,
                  doubles_[2].data(), n);
  }
  std::vector<std::int64_t> sizes_;
  bool single_;
  std::vector<double> doubles_[3];
  std::vector<float> floats_[3];
};

void plain_blas(benchmark::State& state, const Case& c) {
  BlasProducts products(c);
  openblas_set_num_threads(c.threads);
  in_turns(state, [&] { products(); }, {});
  openblas_set_num_threads(1);
}

void products(benchmark::State& state, const Case& c) {
  const Threads set(c.threads);
  const Workload work(c);
  in_turns(state, [&] { work.products(); }, {});
}

void gradient(benchmark::State& state, const Case& c) {
  const Threads set(c.threads);
  const Workload work(c);
  in_turns(state, [&] { work.gradient(); }, {{"of_products", [&] { work.products(); }}});
}

void penalised_gradient(benchmark::State& state, const Case& c) {
  const Threads set(c.threads);
  const Workload work(c);
  in_turns(state, [&] { work.penalised_gradient(); },
           {{"of_products", [&] { work.products(); }}, {"of_gradient", [&] { work.gradient(); }}});
}

void hessian_vector_product(benchmark::State& state, const Case& c) {
  const Threads set(c.threads);
  const Workload work(c);
  in_turns(state, [&] { work.hessian_vector_product(); },
           {{"of_products", [&] { work.products(); }}, {"of_gradient", [&] { work.gradient(); }}});
  const auto [f, r] = work_of(c.net);
  state.counters["floor"] = (3 * f + 8 * r) / (2 * f + 3 * r);
}

void all_three(benchmark::State& state, const Case& c) {
  const Threads set(c.threads);
  const Workload work(c);
  in_turns(state, [&] { work.all_three(); },
           {{"of_products", [&] { work.products(); }}, {"of_gradient", [&] { work.penalised_gradient(); }}});
  const auto [f, r] = work_of(c.net);
  state.counters["floor"] = (4 * f + 9 * r) / (2 * f + 3 * r);
}

void linearised(benchmark::State& state, const Case& c) {
  const Threads set(c.threads);
  const Workload work(c);
  const auto operation = work.linearised();
  in_turns(state, [&] { benchmark::DoNotOptimize(operation(work.direction()).front().header()); },
           {{"of_products", [&] { work.products(); }}, {"of_gradient", [&] { work.gradient(); }}});
}

// `count` products at once.
template <int count>
void linearised_block(benchmark::State& state, const Case& c) {
  const Threads set(c.threads);
  const Workload work(c);
  const auto operation = work.linearised();
  TensorList block;
  for (const Tensor& v : work.direction()) block.push_back(stack(TensorList(count, v)));
  const auto one_by_one = [&] {
    for (int k = 0; k < count; ++k) benchmark::DoNotOptimize(operation(work.direction()).front().header());
  };
  in_turns(state, [&] { benchmark::DoNotOptimize(operation.block(block).front().header()); },
           {{"of_one_by_one", one_by_one}});
}

void gauss_newton(benchmark::State& state, const Case& c) {
  const Threads set(c.threads);
  const Workload work(c);
  const auto operation = work.gauss_newton();
  in_turns(state, [&] { benchmark::DoNotOptimize(operation(work.direction()).front().header()); },
           {{"of_products", [&] { work.products(); }}, {"of_gradient", [&] { work.gradient(); }}});
  const auto [f, r] = work_of(c.net);
  state.counters["floor"] = (2 * f + 4 * r) / (2 * f + 3 * r);
}

void register_rows() {
  const std::vector<std::pair<std::string, void (*)(benchmark::State&, const Case&)>> rows{
      {"products_by_plain_blas", plain_blas},
      {"products", products},
      {"gradient", gradient},
      {"gradient_with_l2", penalised_gradient},
      {"hvp", hessian_vector_product},
      {"gradient_hvp_mixed", all_three},
      {"linearised_hvp", linearised},
      {"linearised_hvp_4", linearised_block<4>},
      {"linearised_hvp_16", linearised_block<16>},
      {"gauss_newton", gauss_newton}};
  for (const Net& net : nets())
    for (const Dtype dtype : {Dtype::float64, Dtype::float32})
      for_thread_counts([&](int threads) {
        for (const auto& [name, function] : rows) {
          const Case c{net, dtype, threads};
          const std::string type = dtype == Dtype::float32 ? "float32" : "float64";
          add_row(net.name + "/" + type + "/" + name + "/" + thread_text(threads),
                  [c, function = function](benchmark::State& state) { function(state, c); })
              ->Unit(benchmark::kMicrosecond);
        }
      });
}

}  // namespace
}  // namespace hypertape::bench

int main(int argc, char** argv) {
  hypertape::bench::register_rows();
  return hypertape::bench::run_all(argc, argv);
}
