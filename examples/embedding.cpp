// Inside somebody else's program: its memory, its threads, its log, its error handling. Nothing is printed by
// the library, nothing is copied that need not be, and no mistake ends the process.
#include <hypertape/hypertape.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace ht = hypertape;
namespace bl = hypertape::bilevel;

namespace {

// What the program already has: rows of (4 features, target, 3 bytes-of-something-else as doubles).
struct Table {
  static constexpr std::int64_t rows = 50, pitch = 8, features = 4;
  std::vector<double> cells = std::vector<double>(rows * pitch);
};

// One user's request: the best ridge penalty's gradient for this part of the table.
bl::Hypergradient ridge_gradient(const ht::Tensor& x, const ht::Tensor& y, double log_penalty,
                                 std::int64_t steps) {
  const ht::Tensor train_x = ht::slice(x, 0, 0, 30), train_y = ht::slice(y, 0, 0, 30);
  const bl::Problem problem{
      .init =
          [](const ht::NamedTensors&) {
            return ht::NamedTensors{{"w", ht::Tensor::zeros({Table::features})}};
          },
      .loss =
          [=](const ht::NamedTensors& w, const ht::NamedTensors& h, const bl::StepContext&) {
            return ht::mean(ht::square(ht::matmul(train_x, w["w"]) - train_y)) +
                   ht::exp(h["log_penalty"]) * ht::dot(w["w"], w["w"]);
          },
      .step = ht::optim::sgd({.rate = 0.1, .momentum = 0.5}),
      .steps = steps,
  };
  const bl::OuterLoss held_out = [=](const ht::NamedTensors& w, const ht::NamedTensors&) {
    return ht::mean(ht::square(ht::matmul(ht::slice(x, 0, 30, 50), w["w"]) - ht::slice(y, 0, 30, 50)));
  };
  return bl::hypergradient(problem, held_out, {{"log_penalty", ht::Tensor::scalar(log_penalty)}},
                           bl::Checkpointed{});
}

bool check(bool holds, const char* claim) {
  std::cout << (holds ? "ok: " : "NOT SO: ") << claim << '\n';
  return holds;
}

}  // namespace

int main() {
  // 1. Once, in main, before threads start: kernels that fit this CPU, and where warnings go.
  ht::initialize();
  std::vector<std::string> log;
  ht::set_warning_sink([&](std::string_view text) { log.emplace_back(text); });

  // 2. Memory: the tensor reads the program's table where it lies. Columns are views; the table lives as long
  // as any of them, whoever drops it last.
  auto table = std::make_shared<Table>();
  for (std::size_t i = 0; i < table->cells.size(); ++i)
    table->cells[i] = static_cast<double>(i * 7919 % 101) / 50.0 - 1.0;
  const std::weak_ptr<Table> watch = table;
  auto cells = std::make_unique<ht::Tensor>(
      ht::Tensor::wrap(std::span<const double>(table->cells), {Table::rows, Table::pitch}, table));
  const double* address = table->cells.data();
  table.reset();
  bool good = check(cells->data<double>().data() == address, "the tensor reads the program's own memory");
  ht::Tensor x = ht::slice(*cells, 1, 0, Table::features);
  ht::Tensor y = ht::reshape(ht::slice(*cells, 1, Table::features, Table::features + 1), {Table::rows});
  cells.reset();
  good &= check(!watch.expired(), "the views keep the table alive");

  // 3. Threads: each user thread asks its own question of the shared data and gets the bits it would get
  // alone.
  const bl::Hypergradient alone = ridge_gradient(x, y, -2.0, 100);
  std::vector<double> answers(4);
  {
    std::vector<std::thread> users;
    for (double& answer : answers)
      users.emplace_back([&] { answer = ridge_gradient(x, y, -2.0, 100).gradients["log_penalty"].item(); });
    for (std::thread& user : users) user.join();
  }
  for (const double answer : answers)
    good &= check(answer == alone.gradients["log_penalty"].item(), "a thread's answer has the same bits");

  // 4. Errors: one exception type, thrown before anything has changed, with the operation and the shapes.
  try {
    ridge_gradient(x, ht::slice(y, 0, 0, 10), -2.0, 100);
    good = check(false, "a target that is too short is refused");
  } catch (const ht::Error& error) {
    std::cout << "    " << error.what() << '\n';
    good &= check(error.operation() == "slice", "the error names the operation");
  }
  // Divergence is an outcome, not an error: the result says so.
  const bl::Hypergradient diverged = ridge_gradient(x, y, 9.0, 4000);
  std::cout << "    " << diverged.message << '\n';
  good &= check(diverged.status == bl::ResultStatus::diverged && diverged.failed_step >= 0,
                "divergence is a status");

  // 5. The end: everything the library held for us goes with the handles.
  x = ht::Tensor();
  y = ht::Tensor();
  good &= check(watch.expired(), "the table goes with its last view");
  std::cout << log.size() << " warnings were logged\n";
  ht::set_warning_sink({});
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
