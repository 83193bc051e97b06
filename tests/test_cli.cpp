// The program's command line: options, exit codes, what goes to which stream, and its output file.
#include <doctest/doctest.h>

#include <sstream>
#include <string>
#include <vector>

#include <hypertape/core/parallel.h>
#include <hypertape/core/version.h>
#include "option_values.h"
#include "options.h"
#include "program.h"
#include "program_run.h"
#include "thrown.h"

namespace {

using hypertape::Arguments;
using hypertape::CompareOptions;
using hypertape::Format;
CompareOptions parse(Words words) {
  words.insert(words.begin(), "compare");
  std::vector<const char*> argv = {"hypertape"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  const Arguments arguments = hypertape::parse_arguments(static_cast<int>(argv.size()), argv.data());
  REQUIRE(arguments.command == hypertape::Command::compare);
  return arguments.compare;
}

// A run of a few milliseconds.
const Words tiny = {"compare", "--layers",  "4", "--steps",   "2",        "--batch",  "10",     "--samples",
                    "60",      "--threads", "1", "--methods", "unrolled", "--groups", "momenta"};

}  // namespace

TEST_CASE("without options compare has the documented defaults") {
  const CompareOptions options = parse({});
  CHECK(options.training.layers == std::vector<std::int64_t>{100, 100, 100});
  CHECK(options.training.activation == hypertape::nn::Activation::tanh);
  CHECK(options.training.steps == 100);
  CHECK(options.training.batch == 200);
  CHECK(options.training.groups == Words{"log_rates", "momenta", "log_init_scales", "log_l2"});
  CHECK(options.methods.empty());  // the problem decides
  CHECK(options.format == Format::table);
  CHECK(options.samples == 0);
  CHECK_FALSE(options.data);
  CHECK_FALSE(options.output);
}

TEST_CASE("every option of compare reaches its setting") {
  const CompareOptions options = parse({"--data",
                                        "d.csv",
                                        "--labels",
                                        "l",
                                        "--label-column",
                                        "kind",
                                        "--samples",
                                        "70",
                                        "--layers",
                                        "5,6",
                                        "--activation",
                                        "relu",
                                        "--steps",
                                        "7",
                                        "--batch=8",
                                        "--seed",
                                        "9",
                                        "--rate",
                                        "0.5",
                                        "--momentum",
                                        "0.25",
                                        "--l2",
                                        "1e-3",
                                        "--threads",
                                        "1",
                                        "--methods",
                                        "forward,unrolled",
                                        "--groups",
                                        "log_l2",
                                        "--format",
                                        "json",
                                        "--output",
                                        "o.json"});
  CHECK(options.data == "d.csv");
  CHECK(options.labels == "l");
  CHECK(options.label_column == "kind");
  CHECK(options.samples == 70);
  CHECK(options.training.layers == std::vector<std::int64_t>{5, 6});
  CHECK(options.training.activation == hypertape::nn::Activation::relu);
  CHECK(options.training.steps == 7);
  CHECK(options.training.batch == 8);
  CHECK(options.training.seed == 9);
  CHECK(options.training.rate == 0.5);
  CHECK(options.training.momentum == 0.25);
  CHECK(options.training.l2 == 1e-3);
  CHECK(options.threads == 1);
  CHECK(options.methods == Words{"unrolled", "forward"});  // in the order in which they run
  CHECK(options.training.groups == Words{"log_l2"});
  CHECK(options.format == Format::json);
  CHECK(options.output == "o.json");
}

TEST_CASE("a bad value is bad usage, and the message names its option") {
  const std::string too_many = std::to_string(hypertape::available_cpus() + 1);
  const std::vector<Words> cases = {{"--steps", "0"},
                                    {"--steps", "1.5"},
                                    {"--steps", "-3"},
                                    {"--steps", ""},
                                    {"--steps", "99999999999999999999"},
                                    {"--batch", "0"},
                                    {"--layers", "0"},
                                    {"--layers", "50,,50"},
                                    {"--layers", "50,x"},
                                    {"--layers", ""},
                                    {"--activation", "gelu"},
                                    {"--seed", "-1"},
                                    {"--rate", "0"},
                                    {"--rate", "-0.1"},
                                    {"--rate", "nan"},
                                    {"--rate", "inf"},
                                    {"--rate", "1e400"},
                                    {"--momentum", "1"},
                                    {"--momentum", "0"},
                                    {"--momentum", "-0.5"},
                                    {"--l2", "0"},
                                    {"--samples", "1"},
                                    {"--threads", "0"},
                                    {"--threads", too_many},
                                    {"--methods", "magic"},
                                    {"--methods", "unrolled,"},
                                    {"--groups", "weights"},
                                    {"--format", "xml"},
                                    {"--batch", "1439"}};
  for (const Words& words : cases) check_error(run(with({"compare"}, words)), 2, words.front() + ": must be");
}

TEST_CASE("a command line without sense is bad usage") {
  check_error(run({}), 2, "no command");
  check_error(run({"train"}), 2, "train");
  check_error(run({"--fast"}), 2, "--fast");
  check_error(run({"compare", "--fast"}), 2, "--fast");
  check_error(run({"compare", "digits"}), 2, "digits");
  check_error(run({"compare", "--steps"}), 2, "--steps: needs a value");
  check_error(run({"compare", "--labels", "x"}), 2, "--labels requires --data");
  check_error(run({"info", "compare"}), 2, "compare");
}

TEST_CASE("what nobody takes is named as it was typed, with what was probably meant") {
  const std::vector<std::pair<Words, std::string>> cases = {
      {{"tune", "--baselin"}, "--baselin: no option of tune; did you mean --baseline?"},
      {{"tune", "--STEPS=4"}, "--STEPS: no option of tune; did you mean --steps?"},
      {{"tune", "-steps", "4"}, "-steps: no option of tune; did you mean --steps?"},
      {{"compare", "--label_column", "3"},
       "--label_column: no option of compare; did you mean --label-column?"},
      {{"compare", "--fixed"}, "--fixed: no option of compare; did you mean --fixed-point?"},
      {{"compare", "--output", "x", "--sampels", "5"},
       "--sampels: no option of compare; did you mean --samples?"},
      {{"tune", "--outer", "3"}, "--outer: no option of tune; see hypertape tune --help"},
      {{"tune", "--lr", "3"}, "--lr: no option of tune; see hypertape tune --help"},
      {{"tune", "--methods", "unrolled"},
       "--methods: no option of tune, but of compare; did you mean --method?"},
      {{"info", "--threads", "3"},
       "--threads: no option of info, but of compare and tune; see hypertape info"},
      {{"--steps", "4", "tune"}, "--steps: stands behind its command, as in hypertape tune --steps"},
      {{"--memory", "4"}, "--memory: stands behind its command, as in hypertape compare --memory"},
      {{"--versoin"}, "--versoin: no such option; did you mean --version?"},
      {{"--fast"}, "--fast: no such option; see hypertape --help"},
      {{"tuen"}, "\"tuen\": no such command; did you mean tune?"},
      {{"train"}, "\"train\": no such command; see hypertape --help"},
      {{"compare", "tune"}, "tune: one command at a time, and compare is there already"},
      {{"compare", "steps", "5"},
       "\"steps\": not expected here; options begin with --; did you mean --steps?"},
      {{"compare", "--layers", "1", "2"}, "\"2\": not expected here; options begin with --\n"},
      {{"compare", "--methods", "unrolled,truncted"}, "not \"truncted\"; did you mean truncated?"},
      {{"compare", "--methods", "implict-cg"}, "not \"implict-cg\"; did you mean implicit-cg?"},
      {{"compare", "--format", "JSON"},
       "--format: must be table, csv or json, not \"JSON\"; did you mean json?"},
      {{"compare", "--format", "xml"}, "not \"xml\"\n"},
      {{"tune", "--penalties", "weights"}, "not \"weights\"; did you mean weight?"},
      {{"tune", "--groups", "momenta,log_l2,momenta"},
       "--groups: must name each once, but momenta is there twice"},
      {{"compare", "--methods", "forward,forward"},
       "--methods: must name each once, but forward is there twice"}};
  for (const auto& [words, message] : cases) check_error(run(words), 2, message);
}

TEST_CASE("a failure after a good command line has exit code 1 and prints no result") {
  check_error(run({"compare", "--data", "/nonexistent.csv"}), 1, "/nonexistent.csv");
  check_error(run(with(tiny, {"--output", "/nonexistent/out"})), 1, "/nonexistent/out");
  check_error(run(with(tiny, {"--output", "/"})), 1, "cannot write /");
}

TEST_CASE("results go to the standard output, and nothing to the error output") {
  const Outcome outcome = run(tiny);
  CHECK(outcome.code == 0);
  CHECK(outcome.err.empty());
  CHECK(contains(outcome.out, "unrolled"));
}

TEST_CASE("an output stream that fails is a failure") {
  std::vector<const char*> argv = {"hypertape", "info"};
  std::ostringstream out, err;
  out.setstate(std::ios::failbit);
  CHECK(hypertape::run_program(2, argv.data(), out, err) == 1);
  CHECK(contains(err.str(), "standard output"));
}

TEST_CASE("help, version and info") {
  CHECK(run({"--version"}).out == "hypertape " + std::string(hypertape::version()) + "\n");
  const Outcome help = run({"compare", "--help"});
  CHECK(help.code == 0);
  for (const char* option :
       {"--data",        "--labels", "--label-column", "--samples",    "--layers", "--activation", "--steps",
        "--batch",       "--seed",   "--threads",      "--methods",    "--groups", "--format",     "--rate",
        "--momentum",    "--l2",     "--output",       "--optimizer",  "--dtype",  "--problem",    "--memory",
        "--fixed-point", "--header", "--scale",        "--data-memory"})
    CHECK(contains(help.out, option));
  CHECK(contains(run({"--help"}).out, "compare"));
  const Outcome info = run({"info"});
  CHECK(info.code == 0);
  for (const char* label : {"version", "CPU", "features", "kernels", "BLAS", "products", "threads", "memory"})
    CHECK(contains(info.out, std::string("\n") + label) != (std::string(label) == "version"));
}

TEST_CASE("the number of threads is that of the process again after a comparison") {
  const int before = hypertape::thread_count();
  CHECK(run(tiny).code == 0);
  CHECK(hypertape::thread_count() == before);
}

TEST_CASE("training that diverges is reported, with exit code 1") {
  const Outcome outcome =
      run({"compare", "--layers", "4", "--steps", "60", "--batch", "10", "--samples", "60", "--rate", "1e12",
           "--format", "json", "--methods", "unrolled,reversible", "--groups", "momenta"});
  CHECK(outcome.code == 1);
  CHECK(outcome.err.starts_with("hypertape: training diverged: "));
  CHECK(contains(outcome.err, "at step "));
  CHECK(contains(outcome.out, "\"status\": \"diverged at step "));
  CHECK(contains(outcome.out, "\"training_run_seconds\": null"));
}
