// What the user asked `hypertape tune` for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "options.h"
#include "outer_adam.h"

namespace CLI {
class App;
}

namespace hypertape {

enum class Penalties : std::uint8_t {
  layer,  ///< one weight decay for each layer
  weight  ///< one for each weight and bias
};
inline constexpr const char* penalties_names[] = {"layer", "weight"};

/// The exact methods that take any number of hyperparameters.
inline constexpr const char* tune_method_names[] = {"unrolled", "checkpointed", "trajectory", "reversible"};

/// Arguments of `hypertape tune`.
struct TuneOptions : DataOptions {
  TrainingOptions training;  ///< its groups are those that are learned
  Penalties penalties = Penalties::weight;
  std::int64_t outer_steps = 50;
  OuterAdamOptions outer;
  /// The tape's bits in memory that grows with the square root of the steps.
  std::string method = "checkpointed";
  bool baseline = false;
  std::optional<std::string> start;  ///< file with hyperparameters to start from
  int threads = 0;                   ///< 0: thread_count()
  std::optional<std::string> output;
};

/// Adds the command with its options, which it writes to `options`; the footer ends with `exit_codes`.
CLI::App* add_tune_command(CLI::App& app, TuneOptions& options, const char* exit_codes);

}  // namespace hypertape
