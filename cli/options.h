// What the user asked for on the command line.
#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <hypertape/core/shape.h>
#include <hypertape/nn/layers.h>
#include "read_options.h"
#include "scaling.h"

namespace hypertape {

/// The groups of hyperparameters, in the order in which they are reported.
inline constexpr const char* group_names[] = {"log_rates", "momenta", "log_init_scales", "log_l2"};

/// The methods, in the order in which they are run and reported.
inline constexpr const char* method_names[] = {
    "ridders",   "unrolled",    "checkpointed",   "trajectory",         "reversible",
    "forward",   "implicit-cg", "implicit-dense", "implicit-normal-cg", "implicit-neumann",
    "truncated", "t1-t2",       "darts"};

/// What runs by default where a net is trained: far from its minimum more implicit methods only take time.
inline constexpr const char* net_method_names[] = {
    "ridders", "unrolled",    "checkpointed",     "trajectory", "reversible",
    "forward", "implicit-cg", "implicit-neumann", "truncated",  "t1-t2"};

/// What is differentiated: training a net, or a converged problem with a closed form (closed_problems.h).
enum class ProblemKind : std::uint8_t { net, quadratic, ridge, regression, logistic };
inline constexpr const char* problem_names[] = {"net", "quadratic", "ridge", "regression", "logistic"};

enum class Optimizer : std::uint8_t { sgd, nesterov, adam };
inline constexpr const char* optimizer_names[] = {"sgd", "nesterov", "adam"};

/// What is trained, and from which values.
struct TrainingOptions {
  std::vector<std::int64_t> layers = {100, 100, 100};  ///< hidden sizes
  nn::Activation activation = nn::Activation::tanh;
  std::int64_t steps = 100;  ///< 0, only where there is a closed form: enough to converge
  std::int64_t batch = 200;
  std::uint64_t seed = 0;
  Optimizer optimizer = Optimizer::sgd;
  /// Of all numbers, which are rounded to it.
  Dtype dtype = Dtype::float64;
  /// Initial learning rate, every step and layer; the command line's default for Adam is less.
  double rate = 0.05;
  double momentum = 0.9;  ///< initial momentum (Adam: beta1), every step; rounded to a multiple of 2^-16
  double l2 = 1e-4;       ///< initial weight decay, every weight
  Scale scale = Scale::automatic;
  std::vector<std::string> groups = {std::begin(group_names), std::end(group_names)};
};

enum class Format : std::uint8_t { table, csv, json };

/// Which data.
struct DataOptions : ReadOptions {
  std::optional<std::string> data;  ///< built-in digits if absent
};

/// Arguments of `hypertape compare`.
struct CompareOptions : DataOptions {
  ProblemKind problem = ProblemKind::net;
  TrainingOptions training;
  /// Empty: net_method_names with one setting of each series, or where there is a closed form all.
  std::vector<std::string> methods;
  int threads = 0;  ///< 0: thread_count()
  /// Methods that need more memory are skipped; absent: most of what the system has. Not on the command line.
  std::optional<double> usable_bytes;
  /// The planner's budget, and whether it may choose training in fixed point.
  std::optional<std::int64_t> memory_bytes;
  bool fixed_point = false;
  Format format = Format::table;
  std::optional<std::string> output;
};

enum class Command : std::uint8_t { none, compare, tune, info };

struct TuneOptions;  // tune_options.h

/// A command line that was understood. `text` is set instead of a command for --help and --version.
struct Arguments {
  Command command = Command::none;
  CompareOptions compare;
  std::shared_ptr<const TuneOptions> tune;  ///< of Command::tune
  std::string text;
};

/// A command line that was not: one line naming the option.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws UsageError.
Arguments parse_arguments(int argc, const char* const* argv);

}  // namespace hypertape
