// Tangents along the run: training itself, run under jvp, is the method.
#include <hypertape/autodiff/ops.h>
#include <hypertape/bilevel/estimators.h>
#include <hypertape/core/error.h>
#include "autodiff/tape/node.h"
#include "bilevel/run/adjoint.h"

namespace hypertape::bilevel {
namespace {

class ForwardMethod final : public detail::Method {
 public:
  explicit ForwardMethod(std::int64_t most) : most_(most) {}
  std::string name() const override { return "forward"; }
  bool repeats_steps() const noexcept override { return true; }
  bool is_forward() const noexcept override { return true; }
  void check_size(std::int64_t scalars) const override {
    if (scalars > most_)
      fail("forward", "needs one training run for each of the ", scalars,
           " scalar hyperparameters, more than the ", most_,
           " allowed; use directional_derivative, a reverse method, or raise most_hyperparameters");
  }
  optim::State solve(const detail::RunPointer& run) const override {
    for (const Tensor& input : detail::node_inputs(*run))
      if (hypertape::detail::links_of(input).recorded)
        fail("forward",
             "carries tangents and has no pullback: use it in jvp, directional_derivative or "
             "hypergradient, not under grad or vjp");
    const detail::Run::Rows rows = run->rows(run->hyper().tensors());
    optim::State state = run->initial_state();
    bool tangents = false;
    for (const Tensor& input : detail::node_inputs(*run))
      tangents |= hypertape::detail::links_of(input).tangents;
    for (std::int64_t t = 0; t < run->steps(); ++t) {
      state = run->advance(std::move(state), run->at_step(run->hyper().tensors(), rows, t), t, true);
      if (tangents) ++run->counters().hessian_vector_products;
    }
    return state;
  }

 private:
  std::int64_t most_;
};

}  // namespace

Forward::operator Estimator() const {
  return Estimator(std::make_shared<ForwardMethod>(most_hyperparameters));
}

}  // namespace hypertape::bilevel
