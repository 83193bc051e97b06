#include "tune_options.h"

#include "option_groups.h"
#include "option_values.h"

namespace hypertape {
namespace {

constexpr std::int64_t most_outer_steps = 1'000'000;
constexpr double most_outer_rate = 100.0;
// Below 1, where the moments would never decay.
constexpr double most_beta = 0.999999;

constexpr char details[] =
    "Learns the hyperparameters of training a multilayer perceptron: Adam follows the exact\n"
    "hypergradient of the validation loss after all steps. A fifth of the samples, drawn by the\n"
    "seed, is the test set, which nothing learns from; a fifth of the others is the validation set.\n\n"
    "Hyperparameters: log_rates (one per step and layer), momenta (one logit per step; with Adam\n"
    "that of beta1), log_init_scales (one per layer), log_l2 (one per parameter, or per layer).\n\n"
    "DIR receives hyperparameters.json and .npz, history.csv, results.csv, figure.svg, with\n"
    "--baseline also baseline.csv, and state, from which the same command goes on where it was\n"
    "interrupted, to the same bits. More --outer-steps continue a run that has ended.\n\n";

}  // namespace

CLI::App* add_tune_command(CLI::App& app, TuneOptions& options, const char* exit_codes) {
  CLI::App* tune = app.add_subcommand("tune", "learn the hyperparameters of one training run");
  tune->footer(std::string(details) + exit_codes);
  add_data_options(*tune, options);
  add_training_options(*tune, options.training);
  const auto add = [&](const char* name, const char* type, const std::string& help,
                       const std::function<void(const std::string&)>& parse) {
    add_parsed_option(*tune, name, type, help, parse);
  };
  add("--groups", "NAME,...", "hyperparameters that are learned; default: all of " + joined(group_names),
      [&](const std::string& text) { options.training.groups = parse_choices(text, group_names); });
  add("--penalties", "NAME", "a weight decay per layer, or per weight (default)",
      [&](const std::string& text) {
        options.penalties = static_cast<Penalties>(parse_choice(text, penalties_names));
      });
  add("--outer-steps", "N", "hypergradients; default: 50",
      [&](const std::string& text) { options.outer_steps = parse_integer(text, 1, most_outer_steps); });
  add("--outer-rate", "R", "rate of the outer Adam; default: 0.04",
      [&](const std::string& text) { options.outer.rate = parse_number(text, 1e-12, most_outer_rate); });
  add("--outer-beta1", "B", "decay of its first moment; default: 0.9",
      [&](const std::string& text) { options.outer.beta1 = parse_number(text, 0.0, most_beta); });
  add("--outer-beta2", "B", "decay of its second moment; default: 0.999",
      [&](const std::string& text) { options.outer.beta2 = parse_number(text, 0.0, most_beta); });
  add("--method", "NAME", "for hypergradients: " + joined(tune_method_names) + "; default: checkpointed",
      [&](const std::string& text) {
        options.method = tune_method_names[parse_choice(text, tune_method_names)];
      });
  tune->add_flag("--baseline", options.baseline,
                 "also search a grid of constant rate, momentum and L2 for as many gradients' work")
      ->disable_flag_override();
  add("--start", "FILE", "start from a hyperparameters.json or .npz that tune wrote",
      [&](const std::string& text) { options.start = text; });
  add_threads_option(*tune, options.threads);
  add("--output", "DIR", "write results there, and go on from what is there",
      [&](const std::string& text) { options.output = text; });
  return tune;
}

}  // namespace hypertape
