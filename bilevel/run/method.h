// What every method gets and gives back: the one interface of the folder.
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <hypertape/bilevel/hypergradient.h>
#include <hypertape/bilevel/linear.h>
#include <hypertape/bilevel/problem.h>
#include "autodiff/tape/anomaly.h"
#include "bilevel/run/replay_log.h"

namespace hypertape::bilevel::detail {

/// What an implicit method did in its latest solve and pullback.
struct ImplicitRecord {
  double inner_residual = 0.0;
  /// f_w at w, absent if it is zero or not looked at; max(|w|, |w - w_0|) and max(|f_ww w|, |f_ww (w -
  /// w_0)|).
  TensorList slope;
  double way = 0.0, stretched = 0.0;
  /// What the latest solve told of |f_ww^-1 f_w| / way, of f_ww's condition and of its own relative error.
  double distance = std::numeric_limits<double>::quiet_NaN();
  double condition = std::numeric_limits<double>::quiet_NaN();
  double error = std::numeric_limits<double>::quiet_NaN();
  /// What is allowed of the inner residual, the distance and the error.
  double inner_limit = 0.0, distance_limit = 0.0, error_limit = 0.0;
  LinearStatus status = LinearStatus::converged;
  bool indefinite = false;
  std::vector<double> residuals;
  std::int64_t iterations = 0;
  /// Whether hypergradient() is there to read it; if not, a solve that failed is an Error.
  bool is_read = false;
};

/// What is noted while a method works. Those that evaluate the training loss count.
struct Counters {
  std::int64_t gradients = 0;
  std::int64_t hessian_vector_products = 0;
  ImplicitRecord implicit = {};
  /// Of the training loss at each step, and of the outer loss.
  ReplayLog replay = {}, outer_replay = {};
  /// Of full_loss at w*, whose elements lie at `minimum`.
  ReplayLog inner_replay = {};
  const void* minimum = nullptr;
  /// The step in which an Error arose, or -1.
  std::int64_t failed_step = -1;
  /// By prepared hyperparameter: the first unrecorded step, or the problem's solver (step 0), that an
  /// operation of it was part of; -1 if none was.
  std::vector<std::int64_t> first_read = {};
  /// The public function that was called, for messages.
  const char* caller = "hypergradient";
};

/// Which hyperparameters a method's pullback can reach.
enum class Reach : std::uint8_t {
  whole_run,   ///< all that the run reads
  last_steps,  ///< what the last steps read: the rest is zero by construction
  inner_loss   ///< what the inner loss reads: for the rest the method is not defined
};

class Method;

/// A problem with prepared hyperparameters: what a method differentiates. Shared, since a pullback outlives
/// the call that made it.
class Run {
 public:
  /// Checks the problem and prepares h; recorded like any other operation. `probes`, if given, are tensors
  /// shaped like the initial parameters that receive dF/dw_0.
  Run(Problem problem, const NamedTensors& h, std::shared_ptr<Counters> counters, const Method& method,
      const TensorList& probes = {});

  const Problem& problem() const noexcept { return problem_; }
  std::int64_t steps() const noexcept { return problem_.steps; }
  /// Prepared hyperparameters; per-step ones whole.
  const NamedTensors& hyper() const noexcept { return hyper_; }
  const optim::State& initial_state() const noexcept { return initial_state_; }
  /// The parameters' names, over w_0.
  const NamedTensors& initial() const noexcept { return initial_; }
  bool is_per_step(std::size_t position) const noexcept { return per_step_[position]; }

  /// Rows of every per-step hyperparameter that is being differentiated, rows[position][t]: one node for all
  /// T. Empty for shared ones, and for plain ones, whose rows at_step cuts when they are needed.
  using Rows = std::vector<TensorList>;
  Rows rows(const TensorList& hyper) const;
  /// Prepared hyperparameters as step t sees them; `rows` start at step `first`.
  NamedTensors at_step(const TensorList& hyper, const Rows& rows, std::int64_t t,
                       std::int64_t first = 0) const;
  /// Row t of a per-step hyperparameter as a view, unrecorded.
  static Tensor row(const Tensor& whole, std::int64_t t);

  /// Whether w* comes from the problem's own solver.
  bool uses_solver() const noexcept { return uses_solver_; }

  /// The training loss of step t.
  Tensor loss(const TensorList& w, const NamedTensors& h_t, std::int64_t t) const;
  /// Gradient of the training loss, zeros where a parameter has no path. Throws TrainingDiverged.
  TensorList gradient(const TensorList& w, const NamedTensors& h_t, std::int64_t t,
                      bool report = false) const;
  /// One step of training, in the memory of a state that is handed over and that nobody else holds; `report`
  /// passes the loss to the problem's on_step.
  optim::State advance(optim::State state, const NamedTensors& h_t, std::int64_t t,
                       bool report = false) const;

  Counters& counters() const noexcept { return *counters_; }

  /// Calls f, which works on step t: errors and anomalies say so.
  template <class F>
  decltype(auto) in_step(std::int64_t t, F&& f) const {
    const hypertape::detail::AnomalyStep step(t, problem_.steps);
    try {
      return f();
    } catch (Error& error) {
      add_step(error, t);
      throw;
    }
  }

 private:
  void add_step(Error& error, std::int64_t t) const;
  void require_replay(std::int64_t t, const Tensor& loss) const;

  Problem problem_;
  std::string method_;
  bool repeats_steps_;
  std::shared_ptr<Counters> counters_;
  NamedTensors hyper_, initial_;
  optim::State initial_state_;
  std::vector<bool> per_step_;
  bool uses_solver_ = false;
};

using RunPointer = std::shared_ptr<const Run>;

class Method {
 public:
  virtual ~Method() = default;
  virtual std::string name() const = 0;
  virtual std::string setting() const { return ""; }
  /// Whether derivatives are carried forward: then it is run under tangents, and has no pullback.
  virtual bool is_forward() const noexcept { return false; }
  /// Whether steps are made more than once: then their losses are kept, to be compared.
  virtual bool repeats_steps() const noexcept { return false; }
  /// Error if the method refuses hyperparameters of this many scalars.
  virtual void check_size(std::int64_t) const {}
  virtual Reach reach() const noexcept { return Reach::whole_run; }
  /// The first step whose rows of per-step hyperparameters the pullback reaches.
  virtual std::int64_t first_step(std::int64_t) const noexcept { return 0; }
  /// Whether the problem's own solver may take the place of training.
  virtual bool may_use_solver() const noexcept { return false; }
  /// Sets status, message and residuals of a result that is neither diverged nor chaotic.
  virtual void judge(const Problem&, const Counters&, Hypergradient&) const {}
  /// Runs training and returns the final state as differentiable values.
  virtual optim::State solve(const RunPointer& run) const = 0;
};

/// Calls f, a function of the problem that no step belongs to: errors say which ("in init").
template <class F>
decltype(auto) in_function(const char* where, F&& f) {
  try {
    return f();
  } catch (Error& error) {
    error.add_context(where);
    throw;
  }
}

/// Throws TrainingDiverged; under an AnomalyScope with what made `culprits` non-finite.
/// train() on behalf of the public function `caller`, for messages.
Solution train_for(const char* caller, const Problem& problem, const NamedTensors& h);

[[noreturn]] void diverge(const char* caller, std::int64_t step, const std::string& what,
                          const TensorList& culprits);

/// As messages write it.
std::string text_of(double number);

/// What a loss that runs again may depend on: the end of a message.
std::string_view replay_advice() noexcept;

/// Trains steps [first, last) without recording, from and to plain tensors. Notes which hyperparameters they
/// read.
optim::State train_plainly(const Run& run, optim::State state, const TensorList& plain_hyper,
                           std::int64_t first, std::int64_t last);

/// Euclidean norm of all elements together, without overflow on the way; absent tensors count as zero.
double norm(const TensorList& list);

/// parameters, then buffers.
TensorList join(const optim::State& state);
optim::State split(const TensorList& list, std::size_t parameters, std::size_t buffers);

/// Error if a tensor is being differentiated: for solvers whose step lengths are plain numbers, through which
/// a derivative would be wrong in silence.
void require_plain(const char* operation, const TensorList& list);

/// Zeros for absent tensors.
void fill_absent(TensorList& list, const TensorList& like);

}  // namespace hypertape::bilevel::detail
