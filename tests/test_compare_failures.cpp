// `hypertape compare` where methods fail: each loses its own rows, and nothing of the others'.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <hypertape/autodiff/ops.h>
#include <hypertape/core/memory.h>
#include "compare_runs.h"
#include "core/memory/faults.h"
#include "directional_rows.h"
#include "method_failure.h"
#include "report.h"
#include "thrown.h"
#include "tune_runs.h"
#include "tune_state.h"

namespace {

namespace ht = hypertape;
using ht::NamedTensors;
using ht::Tensor;
using ht::bilevel::StepContext;

constexpr std::int64_t size = 1000;

// f = 1/2 |w - h|^2 by momentum, F = 1/2 |w|^2: every step contracts, so every method can do it but where a
// test says otherwise.
ht::ComparisonSubject subject(std::int64_t steps, double momentum) {
  ht::ComparisonSubject result;
  ht::ComparedProblem& compared = result.problem;
  compared.problem.init = [](const NamedTensors&) { return NamedTensors{{"w", Tensor::ones({size})}}; };
  compared.problem.loss = [](const NamedTensors& w, const NamedTensors& h, const StepContext&) {
    return 0.5 * ht::sum(ht::square(w["w"] - h["h"]));
  };
  compared.problem.step = ht::optim::sgd({.rate = 0.1, .momentum = "momentum"});
  compared.problem.steps = steps;
  compared.outer = [](const NamedTensors& w, const NamedTensors&) {
    return 0.5 * ht::sum(ht::square(w["w"]));
  };
  compared.hyperparameters = {{"h", Tensor::scalar(2.0)}, {"momentum", Tensor::scalar(momentum)}};
  compared.parameters = size;
  return result;
}

ht::Comparison compared(ht::ComparisonSubject subject, const std::vector<std::string>& methods) {
  ht::CompareOptions options;
  options.methods = methods;
  ht::Progress progress(nullptr);
  ht::Comparison known;
  known.problem = "net";
  return ht::compare(std::move(subject), options, std::move(known), progress);
}

// The machine has `bytes` left, when the loss needs a block. `refused` counts.
ht::ComparisonSubject limited(ht::ComparisonSubject subject, std::int64_t bytes,
                              const std::shared_ptr<int>& refused = std::make_shared<int>()) {
  const std::int64_t before = ht::memory_statistics().live_bytes;
  auto& loss = subject.problem.problem.loss;
  loss = [=, free = loss](const NamedTensors& w, const NamedTensors& h, const StepContext& context) {
    if (ht::memory_statistics().live_bytes > before + bytes) {
      ++*refused;
      ht::release_bytes(ht::allocate_bytes(std::size_t{1} << 60));
    }
    return free(w, h, context);
  };
  return subject;
}

bool has_result(const std::vector<ht::ComparisonRow>& rows) {
  CHECK(rows.size() % 2 == 0);
  bool all = !rows.empty();
  for (const ht::ComparisonRow& row : rows)
    all = all && row.status == "exact" && row.relative_error && row.seconds && row.peak_bytes &&
          *row.relative_error < (row.method == "reversible" ? 1e-4 : 1e-9);  // it is another trajectory
  return all;
}

void check_failed(const std::vector<ht::ComparisonRow>& rows, const std::string& status) {
  REQUIRE(rows.size() % 2 == 0);
  REQUIRE_FALSE(rows.empty());
  for (const ht::ComparisonRow& row : rows) {
    INFO(row.method, " ", row.status);
    CHECK(row.status.starts_with(status));
    CHECK_FALSE(row.relative_error);
    CHECK_FALSE(row.cosine);
    CHECK_FALSE(row.seconds);
    CHECK_FALSE(row.training_runs);
    CHECK_FALSE(row.gradients);
    CHECK_FALSE(row.peak_bytes);
  }
}

}  // namespace

TEST_CASE("a method that refuses the point loses its own rows, in every format") {
  const ht::Comparison comparison = compared(
      subject(6, 0.0), {"ridders", "unrolled", "checkpointed", "trajectory", "reversible", "forward"});
  CHECK(comparison.reference == "unrolled");
  for (const char* method : {"unrolled", "checkpointed", "trajectory", "forward"})
    CHECK(has_result(rows_of(comparison, method)));
  for (const ht::ComparisonRow& row : rows_of(comparison, "ridders")) CHECK(*row.relative_error < 1e-6);
  const std::string why = "failed ([reversible] momentum 0 cannot be reversed: ";
  check_failed(rows_of(comparison, "reversible"), why);
  CHECK(comparison.failure.starts_with("reversible " + why));
  CHECK(comparison.failure.ends_with(" at step 0)"));

  const auto json = nlohmann::ordered_json::parse(ht::json_report(comparison));
  CHECK(json["failure"] == comparison.failure);
  CHECK(json["reference"] == "unrolled");
  CHECK(json["rows"].size() == comparison.rows.size());
  CHECK(contains(json.dump(), why));
  CHECK(contains(ht::csv_report(comparison), "reversible,,h,,,,,,,,\"" + why));
  const std::string table = ht::table_report(comparison);
  CHECK(contains(table, "failed [1]"));
  CHECK(contains(table, "\n[1] [reversible] momentum 0 cannot be reversed: "));
}

TEST_CASE("a method that runs out of memory loses its own rows, and its place as reference") {
  // The tape takes 1.1 MB; checkpoints and their segments at most 450 KB, the others 130 KB.
  const auto refused = std::make_shared<int>();
  const ht::Comparison comparison = compared(limited(subject(60, 0.5), 700'000, refused),
                                             {"unrolled", "checkpointed", "reversible", "forward"});
  CHECK(*refused == 1);  // it is not tried again
  check_failed(rows_of(comparison, "unrolled"), "out of memory ([allocate] the system has no block of ");
  CHECK(comparison.failure.starts_with("unrolled out of memory ([allocate] "));
  CHECK(comparison.reference == "checkpointed, 8 checkpoints");
  for (const char* method : {"checkpointed", "reversible", "forward"})
    CHECK(has_result(rows_of(comparison, method)));
  CHECK(comparison.validation_loss);

  // The reference alone, in float64.
  ht::ComparisonSubject single = subject(60, 0.5);
  single.reference = limited(subject(60, 0.5), 700'000).problem;
  const ht::Comparison halves = compared(single, {"unrolled", "checkpointed"});
  CHECK(halves.failure.starts_with("unrolled in float64 out of memory ([allocate] "));
  CHECK(halves.reference == "checkpointed, 8 checkpoints in float64");
  for (const char* method : {"unrolled", "checkpointed"}) CHECK(has_result(rows_of(halves, method)));
}

TEST_CASE("what runs along directions fails alone too") {
  const auto known = [](ht::ComparisonSubject of) {
    of.closed_form.emplace();
    of.closed_form->gradients = {{"h", Tensor::scalar(1.0)}, {"momentum", Tensor::scalar(1.0)}};
    of.closed_form->availability.assign(2, ht::bilevel::Availability::defined);
    return of;
  };
  const ht::Comparison narrow = compared(known(limited(subject(6, 0.5), 41'000)), {"ridders", "forward"});
  check_failed(rows_of(narrow, "forward"), "out of memory ([allocate] ");
  CHECK(narrow.failure.starts_with("forward out of memory ([allocate] "));
  for (const ht::ComparisonRow& row : rows_of(narrow, "ridders")) CHECK(row.relative_error);

  ht::ComparisonSubject steep = subject(6, 0.5);
  steep.problem.outer = [](const NamedTensors& w, const NamedTensors& h) {
    return ht::sum(w["w"]) + ht::sqrt(h["h"] - 2.0) + ht::sqrt(h["momentum"] - 0.5);
  };
  const ht::Comparison infinite = compared(known(steep), {"forward"});
  check_failed(rows_of(infinite, "forward"), "diverged ([");
  CHECK(contains(infinite.failure, "forward diverged (["));
  CHECK(contains(infinite.failure, "derivative is not finite"));
}

TEST_CASE("where no reference is left, the other methods still have their results") {
  const ht::Comparison comparison = compared(
      limited(subject(60, 0.5), 180'000), {"ridders", "unrolled", "checkpointed", "reversible", "forward"});
  CHECK(comparison.reference == "none");
  CHECK(comparison.failure.starts_with("unrolled out of memory"));
  CHECK_FALSE(comparison.validation_loss);
  for (const char* method : {"unrolled", "checkpointed"})
    check_failed(rows_of(comparison, method), "out of memory");
  for (const char* method : {"ridders", "forward"}) check_failed(rows_of(comparison, method), "no reference");
  for (const ht::ComparisonRow& row : rows_of(comparison, "reversible")) {
    CHECK(row.status == "exact");
    CHECK_FALSE(row.relative_error);
    CHECK(*row.gradients == 120);
  }
  CHECK(comparison.training_run_seconds);
}

TEST_CASE("a failure after the methods costs no row") {
  ht::ComparisonSubject late = subject(3, 0.5);
  struct Seen {
    bool outer = false;
    int runs = 0;
  };
  const auto seen = std::make_shared<Seen>();
  auto& problem = late.problem.problem;
  problem.loss = [seen, free = problem.loss](const NamedTensors& w, const NamedTensors& h,
                                             const StepContext& context) {
    if (context.step == 0) ++seen->runs;
    // No method starts two runs without an outer loss between them; timing does.
    if (seen->outer && seen->runs == 2) throw std::runtime_error("late");
    return free(w, h, context);
  };
  late.problem.outer = [seen, free = late.problem.outer](const NamedTensors& w, const NamedTensors& h) {
    *seen = {true, 0};
    return free(w, h);
  };
  const ht::Comparison comparison = compared(late, {"unrolled"});
  CHECK(has_result(rows_of(comparison, "unrolled")));
  CHECK(comparison.rows.front().training_runs);
  CHECK(comparison.failure == "training, timed again failed (late)");
}

TEST_CASE("a direction that leads out of the outer loss's domain is no exact result") {
  ht::ComparisonSubject edge = subject(3, 0.5);
  edge.problem.outer = [](const NamedTensors& w, const NamedTensors& h) {
    return ht::sum(ht::square(w["w"])) + ht::where(ht::equal(h["h"], 2.0), 0.0, Tensor::scalar(std::nan("")));
  };
  edge.problem.problem.step = ht::optim::sgd({.rate = 0.1, .momentum = 0.5});
  edge.problem.hyperparameters = {{"h", Tensor::scalar(2.0)}};
  const ht::Comparison comparison = compared(edge, {"ridders", "unrolled", "forward"});
  CHECK(rows_of(comparison, "unrolled").front().status == "exact");
  CHECK(rows_of(comparison, "forward").front().status == "exact");
  const ht::ComparisonRow row = rows_of(comparison, "ridders").front();
  CHECK(row.status == "diverged (the validation loss is not finite along the direction)");
  CHECK_FALSE(row.relative_error);
  CHECK(comparison.failure.empty());
}

TEST_CASE("what a failure is called") {
  CHECK(ht::status_of(std::bad_alloc()) == "out of memory");
  CHECK(ht::status_of(ht::Error("grad", "no")) == "failed ([grad] no)");
  CHECK(ht::status_of(std::runtime_error("no")) == "failed (no)");
}

TEST_CASE("plain training that fails ends the comparison") {
  ht::ComparisonSubject none = subject(3, 0.5);
  none.problem.problem.init = [](const NamedTensors&) { return NamedTensors{}; };
  CHECK(thrown([&] { compared(none, {"unrolled"}); }) == "[train] init returned no parameters");
}

TEST_CASE("tune: out of memory is no rejection, and says how to go on") {
  const TemporaryFolder folder;
  const auto tune = [&](const char* steps) {
    return run(with(small_tune,
                    {"--method", "unrolled", "--outer-steps", steps, "--output", (folder / "o").string()}));
  };
  REQUIRE(tune("1").code == 0);
  const std::string before = content(folder / "o" / "state");
  // At first among the data, then in the run and in its backward pass, at last nowhere.
  int failures = 0;
  for (std::int64_t successes = 50;; successes += successes / 3, ++failures) {
    CAPTURE(successes);
    const ht::detail::AllocationFaults faults(successes, 1);
    const Outcome outcome = tune("2");
    if (!faults.struck()) {
      CHECK(outcome.code == 0);
      break;
    }
    CHECK(outcome.code == 1);
    CHECK(outcome.err.starts_with("hypertape: out of memory; all that was finished is in "));
    CHECK(contains(outcome.err, "; to go on where there is more: "));
    const std::string after = content(folder / "o" / "state");
    if (after == before) continue;
    // Behind the step, in the table's last evaluation.
    CHECK(ht::read_state(after, "state").history.back().status == "exact");
    break;
  }
  CHECK(failures > 8);
}
