// `hypertape compare` and the planner: --memory, predicted against measured bytes, and what is reported of
// it.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "compare_runs.h"
#include "option_values.h"
#include "program_run.h"
#include "report.h"
#include "thrown.h"

namespace {

using hypertape::Comparison;
using hypertape::PlanRow;

hypertape::CompareOptions planned_options(std::optional<std::int64_t> budget) {
  hypertape::CompareOptions options = small_compare_options();
  options.methods = {"unrolled", "checkpointed", "trajectory", "reversible"};
  options.training.groups = {"momenta", "log_l2"};
  options.training.steps = 60;
  options.memory_bytes = budget;
  return options;
}

const PlanRow* chosen_of(const Comparison& comparison) {
  for (const PlanRow& row : comparison.plan->rows)
    if (row.is_chosen) return &row;
  return nullptr;
}

}  // namespace

TEST_CASE("compare: the planner's choice runs, within the budget, with the bits of the tape") {
  const Comparison comparison = compared(planned_options(400'000));
  REQUIRE(comparison.plan);
  CHECK(comparison.plan->budget_bytes == 400'000);
  const PlanRow* chosen = chosen_of(comparison);
  REQUIRE(chosen != nullptr);
  CHECK(chosen->method == "checkpointed");
  CHECK(chosen->predicted_bytes <= 400'000);
  REQUIRE(chosen->measured_bytes);
  CHECK(*chosen->measured_bytes <= 400'000);
  bool found = false;
  for (const hypertape::ComparisonRow& row : comparison.rows) {
    if (row.setting != chosen->setting || row.method != chosen->method) continue;
    found = true;
    CHECK(*row.relative_error == 0.0);
    CHECK(*row.gradients == chosen->gradients);
    CHECK(*row.hessian_vector_products == chosen->hessian_vector_products);
  }
  CHECK(found);
}

TEST_CASE("compare: every method that differentiates the run is predicted within 10 % of what it takes") {
  for (const auto optimizer : {hypertape::Optimizer::sgd, hypertape::Optimizer::adam}) {
    hypertape::CompareOptions options = planned_options(std::nullopt);
    options.training.optimizer = optimizer;
    const Comparison comparison = compared(options);
    REQUIRE(comparison.plan);
    CHECK(comparison.plan->budget_bytes);  // what the system has
    CHECK(chosen_of(comparison)->method == "unrolled");
    int measured = 0;
    for (const PlanRow& row : comparison.plan->rows) {
      CAPTURE(row.method);
      CAPTURE(row.setting);
      if (!row.measured_bytes) continue;
      ++measured;
      CHECK(std::abs(static_cast<double>(row.predicted_bytes) / static_cast<double>(*row.measured_bytes) -
                     1.0) < 0.1);
    }
    CHECK(measured == (optimizer == hypertape::Optimizer::sgd ? 6 : 5));
  }
}

TEST_CASE("compare: reversible is chosen only where --fixed-point says so, and what fits nothing is said") {
  hypertape::CompareOptions options = planned_options(std::nullopt);
  const Comparison free = compared(options);
  for (const PlanRow& row : free.plan->rows)
    if (row.method == "reversible") options.memory_bytes = row.predicted_bytes + 5000;
  REQUIRE(options.memory_bytes);
  const Comparison floating = compared(options);
  CHECK((chosen_of(floating) == nullptr || chosen_of(floating)->method == "checkpointed"));
  options.fixed_point = true;
  CHECK(chosen_of(compared(options))->method == "reversible");
  options.memory_bytes = 1000;
  const Comparison nothing = compared(options);
  CHECK(chosen_of(nothing) == nullptr);
  CHECK(nothing.failure.empty());
  expect_text(nothing.plan->message, "nothing fits into 1.0 kB: the least is ");
}

TEST_CASE("compare: a run that diverges has no plan, and says why") {
  hypertape::CompareOptions options = planned_options(1'000'000);
  options.training.rate = 1e300;
  const Comparison comparison = compared(options);
  REQUIRE(comparison.plan);
  CHECK(comparison.plan->rows.empty());
  expect_text(comparison.plan->message, "the training loss is ");
  expect_text(hypertape::table_report(comparison), "plan      [");
}

TEST_CASE("compare: the plan in the table and in JSON") {
  const Comparison comparison = compared(planned_options(400'000));
  const std::string table = hypertape::table_report(comparison);
  expect_text(table, "\nplan      checkpointed, ");
  expect_text(table, "predicted  measured     off");
  expect_text(table, "\n> checkpointed, ");
  expect_text(table, "the fewest operations that fit");
  expect_text(table, "times the budget");
  const auto json = nlohmann::json::parse(hypertape::json_report(comparison));
  const auto& plan = json["plan"];
  CHECK(plan["budget_bytes"] == 400'000);
  CHECK(plan["message"] == comparison.plan->message);
  REQUIRE(plan["rows"].size() == comparison.plan->rows.size());
  int chosen = 0;
  for (const auto& row : plan["rows"]) {
    CHECK(row["predicted_bytes"].is_number_integer());
    chosen += row["chosen"].get<bool>() ? 1 : 0;
  }
  CHECK(chosen == 1);
}

TEST_CASE("--memory and --fixed-point: amounts, and what makes no sense") {
  using hypertape::parse_bytes;
  CHECK(parse_bytes("40MB") == 40'000'000);
  CHECK(parse_bytes("1.5GB") == 1'500'000'000);
  CHECK(parse_bytes("2TB") == 2'000'000'000'000);
  CHECK(parse_bytes("17kB") == 17'000);
  CHECK(parse_bytes("12B") == 12);
  CHECK(parse_bytes("123456") == 123'456);
  for (const char* wrong : {"", "MB", "-1MB", "0", "0.4", "40mb", "40 MB", "1e30", "nan", "40MBs", "infGB"}) {
    CAPTURE(wrong);
    CHECK(thrown([&] { parse_bytes(wrong); }).starts_with("must be an amount of memory such as 40MB"));
  }
  const Outcome vague = run({"compare", "--memory", "much"});
  CHECK(vague.code == 2);
  expect_text(vague.err, "--memory: must be an amount of memory such as 40MB or 1.5GB, not \"much\"");
  expect_text(run({"compare", "--fixed-point"}).err, "--fixed-point: says what --memory may choose");
  expect_text(run({"compare", "--problem", "ridge", "--memory", "1MB"}).err,
              "--memory: is for training a net, not for --problem ridge");
}
