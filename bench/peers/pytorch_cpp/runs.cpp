// Exact hypergradients of whole training runs, unrolled with create_graph.
#include "work.h"

namespace pytorch_worker {
namespace {

using torch::autograd::grad;

// One L2 strength for each weight, one rate for each step and tensor, one momentum for each step.
struct Hyper {
  torch::Tensor log_rates, momenta, log_l2;
  Tensors list() const { return {log_rates, momenta, log_l2}; }
};

// Whole tensors cut once: indexing row t in each step would make the backward quadratic in the steps.
struct Prepared {
  std::vector<Tensors> rates;
  Tensors momenta, l2;
  Prepared(const Hyper& h, const Tensors& w) : momenta(h.momenta.sigmoid().unbind()) {
    for (const torch::Tensor& row : h.log_rates.exp().unbind()) rates.push_back(row.unbind());
    l2 = unflatten(h.log_l2.exp(), w);
  }
};

struct State {
  Tensors w, v;
};

class Run {
 public:
  Run(std::int64_t steps, torch::Dtype dtype)
      : data_(peers::run_net, dtype, peers::batches),
        rows_(data_.rows.split(data_.net.batch)),
        labels_(data_.labels.split(data_.net.batch)),
        steps_(steps),
        dtype_(dtype) {}

  Tensors by_tape() const {
    const Hyper h = hyper();
    const Prepared prepared(h, data_.weights);
    State state = start();
    for (torch::Tensor& w : state.w) w.requires_grad_();
    for (std::int64_t t = 0; t < steps_; ++t)
      step(state, prepared.rates[index(t)], prepared.momenta[index(t)], prepared.l2, t, true);
    const torch::Tensor value = data_.loss(state.w);
    return results(value, grad({value}, h.list()));
  }

  // Plain training that keeps a state every steps / checkpoints steps; then each segment is recorded from the
  // last one back, and its pullback takes the adjoint to the segment before.
  Tensors by_checkpoints() const {
    const Hyper h = hyper();
    const Prepared recorded(h, data_.weights);
    const std::int64_t length = (steps_ + peers::checkpoints - 1) / peers::checkpoints;
    // The segments differentiate leaves of their own, whose gradients enter the preparation's graph at the
    // end.
    const Tensors l2 = require_grad(detached(recorded.l2));
    std::vector<Tensors> rates;
    for (const Tensors& row : recorded.rates) rates.push_back(require_grad(detached(row)));
    const Tensors momenta = require_grad(detached(recorded.momenta));

    std::vector<State> starts;
    State state = start();
    for (std::int64_t t = 0; t < steps_; ++t) {
      if (t % length == 0) starts.push_back({detached(state.w), detached(state.v)});
      for (torch::Tensor& w : state.w) w = w.detach().requires_grad_();
      const auto k = index(t);
      step(state, detached(rates[k]), momenta[k].detach(), detached(l2), t, false);
    }
    Tensors last = require_grad(detached(state.w));
    const torch::Tensor value = data_.loss(last);
    Tensors adjoint_w = grad({value}, last), adjoint_v;
    for (const torch::Tensor& w : last) adjoint_v.push_back(torch::zeros_like(w));

    Tensors outputs, cotangents, l2_cotangents;
    for (const torch::Tensor& each : l2) l2_cotangents.push_back(torch::zeros_like(each));
    for (auto s = static_cast<std::int64_t>(starts.size()); s-- > 0;) {
      const std::int64_t first = s * length, end = std::min(steps_, first + length);
      State segment{require_grad(starts[index(s)].w), require_grad(starts[index(s)].v)};
      Tensors inputs = segment.w;
      inputs.insert(inputs.end(), segment.v.begin(), segment.v.end());
      inputs.insert(inputs.end(), l2.begin(), l2.end());
      for (std::int64_t t = first; t < end; ++t) {
        inputs.insert(inputs.end(), rates[index(t)].begin(), rates[index(t)].end());
        inputs.push_back(momenta[index(t)]);
        step(segment, rates[index(t)], momenta[index(t)], l2, t, true);
      }
      starts.pop_back();
      Tensors ends = segment.w, adjoints = adjoint_w;
      ends.insert(ends.end(), segment.v.begin(), segment.v.end());
      adjoints.insert(adjoints.end(), adjoint_v.begin(), adjoint_v.end());
      const Tensors g = grad(ends, inputs, adjoints);
      const std::size_t count = adjoint_w.size();
      for (std::size_t i = 0; i < count; ++i) {
        adjoint_w[i] = g[i];
        adjoint_v[i] = g[count + i];
        l2_cotangents[i] += g[2 * count + i];
      }
      std::size_t at = 3 * count;
      for (std::int64_t t = first; t < end; ++t) {
        for (const torch::Tensor& each : recorded.rates[index(t)])
          outputs.push_back(each), cotangents.push_back(g[at++]);
        outputs.push_back(recorded.momenta[index(t)]), cotangents.push_back(g[at++]);
      }
    }
    outputs.insert(outputs.end(), recorded.l2.begin(), recorded.l2.end());
    cotangents.insert(cotangents.end(), l2_cotangents.begin(), l2_cotangents.end());
    return results(value, grad(outputs, h.list(), cotangents));
  }

 private:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  static Tensors results(const torch::Tensor& value, const Tensors& gradients) {
    Tensors result{value.detach()};
    result.insert(result.end(), gradients.begin(), gradients.end());
    return result;
  }

  Hyper hyper() const {
    const auto tensors = static_cast<std::int64_t>(data_.weights.size());
    return {
        torch::full({steps_, tensors}, std::log(peers::run_rate), dtype_).requires_grad_(),
        torch::full({steps_}, std::log(peers::momentum / (1.0 - peers::momentum)), dtype_).requires_grad_(),
        torch::full({data_.net.parameter_count()}, std::log(peers::l2), dtype_).requires_grad_()};
  }
  State start() const {
    State state;
    for (const torch::Tensor& w : data_.weights) {
      state.w.push_back(w.detach().clone());
      state.v.push_back(torch::zeros_like(w));
    }
    return state;
  }
  void step(State& state, const Tensors& rates, const torch::Tensor& momentum, const Tensors& l2,
            std::int64_t t, bool create_graph) const {
    const auto batch = index(t % peers::batches);
    const torch::Tensor loss =
        torch::nn::functional::cross_entropy(data_.logits(state.w, rows_[batch]), labels_[batch]) +
        penalty(l2, state.w);
    const Tensors gradient = grad({loss}, state.w, {}, {}, create_graph);
    const torch::AutoGradMode recording(create_graph);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      state.v[i] = momentum * state.v[i] + gradient[i];
      state.w[i] = state.w[i] - rates[i] * state.v[i];
    }
  }

  NetData data_;
  Tensors rows_, labels_;
  std::int64_t steps_;
  torch::Dtype dtype_;
};

}  // namespace

peers::Work run_hypergradient(const std::string& work, torch::Dtype dtype) {
  const std::vector<std::string> parts = peers::split(work, '/');
  const Run run(std::stoll(parts.at(2)), dtype);
  if (parts.at(1) == "tape") return Kept().add("unrolled", [=] { return run.by_tape(); }).work();
  if (parts.at(1) == "checkpoints")
    return Kept().add("segments", [=] { return run.by_checkpoints(); }).work();
  throw std::invalid_argument("no method " + parts.at(1) + " in PyTorch");
}

}  // namespace pytorch_worker
