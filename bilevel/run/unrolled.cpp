// The whole run on the tape: the reference that the other methods are compared with.
#include <hypertape/bilevel/estimators.h>
#include "autodiff/tape/node.h"
#include "bilevel/run/method.h"

namespace hypertape::bilevel {
namespace {

class UnrolledMethod final : public detail::Method {
 public:
  std::string name() const override { return "unrolled"; }
  optim::State solve(const detail::RunPointer& run) const override {
    const detail::Run::Rows rows = run->rows(run->hyper().tensors());
    optim::State state = run->initial_state();
    for (std::int64_t t = 0; t < run->steps(); ++t)
      state = run->advance(std::move(state), run->at_step(run->hyper().tensors(), rows, t), t, true);
    // The backward pass goes through every step's gradient: a Hessian-vector product each.
    for (const Tensor& w : state.parameters) {
      if (!hypertape::detail::links_of(w).recorded) continue;
      run->counters().hessian_vector_products += run->steps();
      break;
    }
    return state;
  }
};

}  // namespace

Unrolled::operator Estimator() const { return Estimator(std::make_shared<UnrolledMethod>()); }

}  // namespace hypertape::bilevel
