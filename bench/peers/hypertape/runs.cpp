// Exact hypergradients of whole training runs.
#include "work.h"

namespace hypertape::peers_worker {
namespace {

struct Run {
  bilevel::Problem problem;
  bilevel::OuterLoss outer;
  NamedTensors h;
};

// SGD with momentum, one rate for each step and tensor, one momentum for each step, one L2 strength for each
// weight; the outer loss is the cross entropy of all rows.
Run run_of(std::int64_t steps, Dtype dtype) {
  const NetData data(peers::run_net, dtype, peers::batches);
  const auto tensor_count = static_cast<std::int64_t>(data.weights.size());
  Run run;
  run.h.add("log_rates", Tensor::full({steps, tensor_count}, std::log(peers::run_rate), dtype));
  run.h.add("momenta", Tensor::full({steps}, std::log(peers::momentum / (1.0 - peers::momentum)), dtype));
  run.h.add("log_l2", Tensor::full({data.net.parameter_count()}, std::log(peers::l2), dtype));

  run.problem.steps = steps;
  run.problem.per_step = {"rates", "momentum"};
  run.problem.step = optim::sgd({.rate = "rates", .momentum = "momentum"});
  run.problem.prepare = [data](const NamedTensors& h) {
    NamedTensors prepared;
    prepared.add("rates", exp(h["log_rates"]));
    prepared.add("momentum", sigmoid(h["momenta"]));
    const TensorList l2 = unflatten(exp(h["log_l2"]), data.weights.shapes());
    for (std::size_t i = 0; i < l2.size(); ++i) prepared.add("l2 of " + data.weights.names()[i], l2[i]);
    return prepared;
  };
  run.problem.init = [data](const NamedTensors&) { return data.weights; };
  run.problem.loss = [data](const NamedTensors& w, const NamedTensors& h,
                            const bilevel::StepContext& context) {
    const std::int64_t first = context.step % peers::batches * data.net.batch;
    const Tensor fit = softmax_cross_entropy(data.mlp(w, slice(data.rows, 0, first, first + data.net.batch)),
                                             slice(data.labels, 0, first, first + data.net.batch));
    return fit + penalty({h.tensors().begin() + 2, h.tensors().end()}, w.tensors());
  };
  run.outer = [data](const NamedTensors& w, const NamedTensors&) { return data.loss(w.tensors()); };
  return run;
}

bilevel::Estimator estimator_of(const std::string& method) {
  if (method == "tape") return bilevel::Unrolled{};
  if (method == "checkpoints") return bilevel::Checkpointed{.checkpoints = peers::checkpoints};
  if (method == "reversible") return bilevel::Reversible{};
  throw std::invalid_argument("unknown method " + method);
}

}  // namespace

peers::Work run_hypergradient(const std::string& work, Dtype dtype) {
  const std::vector<std::string> parts = peers::split(work, '/');
  const bilevel::Estimator estimator = estimator_of(parts.at(1));
  const Run run = run_of(std::stoll(parts.at(2)), dtype);
  return Kept()
      .add(estimator.name(),
           [=] {
             const bilevel::Hypergradient result =
                 bilevel::hypergradient(run.problem, run.outer, run.h, estimator);
             if (bilevel::is_failure(result.status)) throw std::runtime_error(result.message);
             TensorList results{Tensor::scalar(result.value)};
             const TensorList& gradients = result.gradients.tensors();
             results.insert(results.end(), gradients.begin(), gradients.end());
             return results;
           })
      .work();
}

}  // namespace hypertape::peers_worker
