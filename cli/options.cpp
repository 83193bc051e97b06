#include "options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <limits>
#include <sstream>

#include <hypertape/core/error.h>
#include <hypertape/core/parallel.h>
#include <hypertape/core/version.h>
#include "nearest.h"
#include "option_groups.h"
#include "option_values.h"
#include "tune_options.h"

namespace hypertape {
namespace {

constexpr const char* format_names[] = {"table", "csv", "json"};
constexpr const char* activation_names[] = {"tanh", "relu"};
constexpr const char* dtype_names[] = {"float32", "float64"};
// Adam moves every weight by about its rate.
constexpr double default_adam_rate = 0.002;
// What a problem with a closed form fixes itself.
constexpr const char* net_options[] = {
    "--data",        "--labels",   "--label-column", "--samples",    "--header",    "--scale",
    "--data-memory", "--layers",   "--batch",        "--activation", "--optimizer", "--dtype",
    "--rate",        "--momentum", "--l2",           "--groups",     "--memory",    "--fixed-point"};
constexpr std::int64_t most_width = 100'000;
constexpr std::int64_t most_steps = 10'000'000;
constexpr std::int64_t most_samples = 1'000'000'000;
// Momenta that reversible training can execute even after rounding.
constexpr double least_momentum = 0.0001, most_momentum = 0.9999;

constexpr char exit_codes[] =
    "Exit code: 0 for success, 1 for a failure (bad data, training that diverged; the latter is\n"
    "still reported), 2 for a command line that makes no sense.";

constexpr char compare_details[] =
    "Trains a multilayer perceptron, and differentiates the validation loss with respect to the\n"
    "run's hyperparameters by several methods, each compared with the tape of the whole run in\n"
    "float64. A fifth of the samples, drawn by the seed, is the validation set.\n\n"
    "Hyperparameters: log_rates (one per step and layer), momenta (one logit per step; with Adam\n"
    "that of beta1), log_init_scales (one per layer), log_l2 (one per parameter).\n\n"
    "The other problems are small, trained to convergence by gradient descent on the whole\n"
    "objective, and compared with their hypergradient in closed form: quadratic, ridge (one\n"
    "penalty), regression and logistic (a penalty for each feature). Of the options above they\n"
    "take --seed, --methods, --threads, --format, --output, and --steps (default: enough to\n"
    "converge).\n\n";

// Adds an option whose text `parse` understands, or refuses by std::invalid_argument.
CLI::Option* add(CLI::App& app, const std::string& name, const char* type, const std::string& help,
                 const std::function<void(const std::string&)>& parse) {
  return app
      .add_option_function<std::string>(
          name,
          [name, parse](const std::string& text) {
            try {
              parse(text);
            } catch (const std::invalid_argument& error) {
              throw CLI::ValidationError(name, error.what());
            }
          },
          help)
      ->type_name(type)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

}  // namespace

CLI::Option* add_parsed_option(CLI::App& app, const std::string& name, const char* type,
                               const std::string& help,
                               const std::function<void(const std::string&)>& parse) {
  return add(app, name, type, help, parse);
}

std::string joined(std::span<const char* const> names, std::size_t in_a_line) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += in_a_line > 0 && i % in_a_line == 0 ? ",\n" : ",";
    text += names[i];
  }
  return text;
}

void add_data_options(CLI::App& app, DataOptions& options) {
  CLI::Option* data = add(app, "--data", "FILE",
                          "CSV (last column the label) or IDX, either compressed by gzip; default: the "
                          "built-in digits",
                          [&](const std::string& text) { options.data = text; });
  add(app, "--labels", "FILE", "IDX: the labels' file; default: looked for beside the images",
      [&](const std::string& text) { options.labels = text; })
      ->needs(data);
  add(app, "--label-column", "NAME", "CSV: name of the labels' column; default: the last column",
      [&](const std::string& text) { options.label_column = text; })
      ->needs(data);
  add(app, "--header", "WHEN", "CSV: whether the first line names the columns: auto (default), yes or no",
      [&](const std::string& text) {
        options.header = static_cast<CsvHeader>(parse_choice(text, csv_header_names));
      })
      ->needs(data);
  add(app, "--data-memory", "SIZE", "refuse data that take more memory, 8 bytes a value; default: 2GB",
      [&](const std::string& text) { options.data_bytes = parse_bytes(text); })
      ->needs(data);
  add(app, "--samples", "N", "use the first N samples only",
      [&](const std::string& text) { options.samples = parse_integer(text, 2, most_samples); });
}

void add_training_options(CLI::App& app, TrainingOptions& training) {
  add(app, "--scale", "HOW",
      "the data's columns, by the training samples: standard (less the mean, over the\nstandard deviation), "
      "range (0 to 1), max (all over the largest number), none;\ndefault: auto, which is max for images "
      "(digits, "
      "IDX) and standard for CSV",
      [&](const std::string& text) { training.scale = static_cast<Scale>(parse_choice(text, scale_names)); });
  add(app, "--layers", "N,N,...", "sizes of the hidden layers; default: 100,100,100",
      [&](const std::string& text) { training.layers = parse_integers(text, 1, most_width); });
  add(app, "--activation", "NAME", "tanh (default) or relu", [&](const std::string& text) {
    training.activation = nn::activation_from(activation_names[parse_choice(text, activation_names)]);
  });
  add(app, "--steps", "N", "training steps; default: 100",
      [&](const std::string& text) { training.steps = parse_integer(text, 1, most_steps); });
  add(app, "--batch", "N", "samples per step; default: 200",
      [&](const std::string& text) { training.batch = parse_integer(text, 1, most_samples); });
  add(app, "--seed", "N", "of the weights, the split and the random directions; default: 0",
      [&](const std::string& text) {
        training.seed =
            static_cast<std::uint64_t>(parse_integer(text, 0, std::numeric_limits<std::int64_t>::max()));
      });
  add(app, "--optimizer", "NAME", "sgd (with momentum, default), nesterov or adam",
      [&](const std::string& text) {
        training.optimizer = static_cast<Optimizer>(parse_choice(text, optimizer_names));
      });
  add(app, "--dtype", "NAME", "float64 (default) or float32", [&](const std::string& text) {
    training.dtype = parse_choice(text, dtype_names) == 0 ? Dtype::float32 : Dtype::float64;
  });
  add(app, "--rate", "R", "initial learning rate; default: 0.05, with adam 0.002",
      [&](const std::string& text) { training.rate = parse_number(text, 1e-12, 1e12); });
  add(app, "--momentum", "M", "initial momentum, rounded to a multiple of 2^-16; default: 0.9",
      [&](const std::string& text) {
        training.momentum = parse_number(text, least_momentum, most_momentum);
      });
  add(app, "--l2", "L", "initial weight decay; default: 0.0001",
      [&](const std::string& text) { training.l2 = parse_number(text, 1e-12, 1e12); });
}

void add_threads_option(CLI::App& app, int& threads) {
  add(app, "--threads", "N",
      "from 1 to the CPUs this process may run on, here " + std::to_string(available_cpus()) +
          "; default: " + std::to_string(thread_count()),
      [&](const std::string& text) { threads = static_cast<int>(parse_integer(text, 1, available_cpus())); });
}

namespace {

void add_comparison_options(CLI::App& app, CompareOptions& options) {
  add(app, "--problem", "NAME",
      "default: net; or one with a closed form: quadratic, ridge, regression, logistic",
      [&](const std::string& text) {
        options.problem = static_cast<ProblemKind>(parse_choice(text, problem_names));
      });
  add(app, "--methods", "NAME,...",
      "of " + joined(method_names, 4) +
          ";\ndefault: for a net all but implicit-dense,implicit-normal-cg,darts and with one\nsetting of "
          "each "
          "series, for the other problems all",
      [&](const std::string& text) { options.methods = parse_choices(text, method_names); });
  add(app, "--groups", "NAME,...", "hyperparameters; default: all of " + joined(group_names),
      [&](const std::string& text) { options.training.groups = parse_choices(text, group_names); });
  add(app, "--memory", "SIZE",
      "run the exact method with the fewest operations that fits, such as 40MB or 1.5GB, too",
      [&](const std::string& text) { options.memory_bytes = parse_bytes(text); });
  app.add_flag("--fixed-point", options.fixed_point,
               "--memory may choose training in fixed point, which is another trajectory");
  add_threads_option(app, options.threads);
  add(app, "--format", "NAME", "table (default), csv or json", [&](const std::string& text) {
    options.format = static_cast<Format>(parse_choice(text, format_names));
  });
  add(app, "--output", "FILE", "write there instead of to the standard output",
      [&](const std::string& text) { options.output = text; });
}

void set_default_rate(const CLI::App& app, TrainingOptions& training) {
  if (training.optimizer == Optimizer::adam && app.count("--rate") == 0) training.rate = default_adam_rate;
}

// Options that depend on others.
void finish(const CLI::App& app, CompareOptions& options) {
  if (options.fixed_point && !options.memory_bytes)
    throw UsageError("--fixed-point: says what --memory may choose, which is not given");
  if (options.problem == ProblemKind::net) return set_default_rate(app, options.training);
  const std::string problem = problem_names[static_cast<std::size_t>(options.problem)];
  for (const char* option : net_options)
    if (app.count(option) > 0)
      throw UsageError(std::string(option) + ": is for training a net, not for --problem " + problem);
  if (app.count("--steps") == 0) options.training.steps = 0;
}

void finish(const CLI::App& app, TuneOptions& options) {
  set_default_rate(app, options.training);
  if (options.method == "reversible" && options.training.optimizer != Optimizer::sgd)
    throw UsageError("--method: reversible undoes the steps of --optimizer sgd only");
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

// Ends a message about something that there is not.
std::string suggestion_or_help(const std::string& typed, const std::vector<std::string>& names,
                               const std::string& command) {
  const std::string text = suggestion(typed, names);
  return text.empty() ? "; see " + command + " --help" : text;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string message_of_unknown_option(const CLI::App& app, const CLI::App* command,
                                      const std::string& option) {
  std::vector<std::string> owners;
  for (const CLI::App* each : commands_of(app))
    if (has(option_names(*each), option)) owners.push_back(each->get_name());
  if (command == nullptr || has(owners, command->get_name())) {
    // Given before its command.
    if (owners.empty())
      return option + ": no such option" + suggestion_or_help(option, option_names(app), "hypertape");
    const std::string& name = command == nullptr ? owners.front() : command->get_name();
    return option + ": stands behind its command, as in hypertape " + name + " " + option;
  }
  std::string text = option + ": no option of " + command->get_name();
  for (std::size_t i = 0; i < owners.size(); ++i) text += (i == 0 ? ", but of " : " and ") + owners[i];
  return text + suggestion_or_help(option, option_names(*command), "hypertape " + command->get_name());
}

std::string message_of_unknown_word(const CLI::App& app, const CLI::App* command, const std::string& word) {
  std::vector<std::string> commands;
  for (const CLI::App* each : commands_of(app)) commands.push_back(each->get_name());
  if (command == nullptr)
    return "\"" + word + "\": no such command" + suggestion_or_help(word, commands, "hypertape");
  if (has(commands, word))
    return word + ": one command at a time, and " + command->get_name() + " is there already";
  return "\"" + word + "\": not expected here; options begin with --" +
         suggestion(word, option_names(*command));
}

// What the first of the arguments that nobody takes may have been meant for.
std::string message_of_extras(const CLI::App& app) {
  const auto parsed = app.get_subcommands();
  const CLI::App* command = parsed.empty() ? nullptr : parsed.front();
  const std::vector<std::string> extras = app.remaining(true);
  // An unknown option's value is unknown too.
  const auto is_option = [](const std::string& text) { return text.size() > 1 && text.front() == '-'; };
  const auto option = std::find_if(extras.begin(), extras.end(), is_option);
  if (option == extras.end()) return message_of_unknown_word(app, command, extras.front());
  return message_of_unknown_option(app, command, option->substr(0, option->find('=')));
}

// CLI11's message on one line, in our words where its own are obscure.
std::string message_of(const CLI::App& app, const CLI::ParseError& error) {
  std::string text = error.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) return message_of_extras(app);
  // A flag's name stands without its dashes.
  if (const std::size_t flag = text.find(" was given a disallowed flag override"); flag != text.npos)
    return "--" + text.substr(0, flag) + ": takes no value";
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr)
    return text.substr(0, text.find(':')) + ": needs a value";
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

Arguments parse_arguments(int argc, const char* const* argv) {
  Arguments arguments;
  CLI::App app("Exact hypergradients of whole training runs.", "hypertape");
  app.footer(exit_codes);
  app.set_version_flag("--version", "hypertape " + std::string(version()), "print the version and exit");
  app.set_help_flag("-h,--help", "print this and exit");
  app.require_subcommand(0, 1);
  CLI::App* compare = app.add_subcommand("compare", "compare methods for hypergradients on one training run");
  compare->footer(std::string(compare_details) + exit_codes);
  auto tune_options = std::make_shared<TuneOptions>();
  CLI::App* tune = add_tune_command(app, *tune_options, exit_codes);
  CLI::App* info =
      app.add_subcommand("info", "print what the library found on this machine, and what it uses");
  add_data_options(*compare, arguments.compare);
  add_training_options(*compare, arguments.compare.training);
  add_comparison_options(*compare, arguments.compare);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    std::ostringstream text = detail::text_stream();
    app.exit(request, text, text);
    arguments.text = text.str();
    return arguments;
  } catch (const CLI::ParseError& error) {
    throw UsageError(message_of(app, error));
  }
  if (app.get_subcommands().empty()) throw UsageError("no command given; see hypertape --help");
  arguments.command = info->parsed() ? Command::info : tune->parsed() ? Command::tune : Command::compare;
  if (compare->parsed()) finish(*compare, arguments.compare);
  if (tune->parsed()) finish(*tune, *tune_options);
  arguments.tune = std::move(tune_options);
  return arguments;
}

}  // namespace hypertape
