#include "program.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <iostream>
#include <optional>
#include <utility>

#include <hypertape/core/error.h>
#include <hypertape/core/warning.h>
#include "compare.h"
#include "data.h"
#include "held_signals.h"
#include "info.h"
#include "interruption.h"
#include "method_failure.h"
#include "options.h"
#include "output_file.h"
#include "progress.h"
#include "readable.h"
#include "report.h"
#include "tune.h"
#include "tune_folder.h"
#include "tune_options.h"
#include "tune_report.h"

namespace hypertape {
namespace {

constexpr int success = 0, failure = 1, bad_usage = 2;

// One line, whatever a file in it is called.
void complain(std::ostream& err, std::string_view text) { err << "hypertape: " << printable(text) << '\n'; }

class WarningsTo {
 public:
  explicit WarningsTo(std::ostream& err) {
    set_warning_sink([&err](std::string_view text) { complain(err, "warning: " + std::string(text)); });
  }
  ~WarningsTo() { set_warning_sink({}); }
  WarningsTo(const WarningsTo&) = delete;
  WarningsTo& operator=(const WarningsTo&) = delete;
};

void print(std::ostream& out, const std::string& text) {
  const HeldSignals held({SIGXFSZ});
  errno = 0;
  out << text << std::flush;
  if (!out)
    fail("output", "cannot write to the standard output", errno == 0 ? "" : ": ",
         errno == 0 ? "" : std::strerror(errno));
}

// A result that has taken long is not lost with the place that it was meant for.
void write(OutputFile& output, const std::string& text, std::ostream& out) {
  try {
    output.write(text);
  } catch (const Error& error) {
    print(out, text);
    throw std::runtime_error(error.what() + std::string("; the result is on the standard output instead"));
  }
}

// The built-in digits, cut to the first samples; files are cut while they are read.
Dataset digits(std::int64_t samples) {
  Dataset data = builtin_digits();
  if (samples == 0 || samples >= data.samples) return data;
  data.samples = samples;
  data.inputs.resize(static_cast<std::size_t>(samples * data.features));
  data.labels.resize(static_cast<std::size_t>(samples));
  return data;
}

Dataset load(const DataOptions& options) {
  return options.data ? read_data(*options.data, options) : digits(options.samples);
}

// Where progress goes: nowhere unless somebody is watching.
std::ostream* terminal(std::ostream& err) {
  return &err == &std::cerr && ::isatty(STDERR_FILENO) == 1 ? &err : nullptr;
}

int run_compare(const CompareOptions& options, std::ostream& out, std::ostream& err) {
  std::optional<OutputFile> output;
  if (options.output) output.emplace(*options.output);
  Progress progress(terminal(err));
  const Comparison comparison = options.problem == ProblemKind::net
                                    ? compare(load(options), options, progress)
                                    : compare_closed(options, progress);
  progress.clear();
  const std::string text = report(comparison, options.format);
  if (output)
    write(*output, text, out);
  else
    print(out, text);
  if (comparison.failure.empty()) return success;
  complain(err, comparison.failure);
  return failure;
}

InterruptionNotice notice_of(const TuneFolder* folder, const std::string& command) {
  if (folder == nullptr)
    return {
        -1, "", "",
        "hypertape: interrupted; nothing is kept. With --output DIR the same command goes on where it was"};
  const std::string path = printable(folder->path_of("state")), interrupted = "hypertape: interrupted; ";
  return {folder->descriptor(), "state",
          interrupted + "all that was finished is in " + path + "; to go on: " + command,
          interrupted + "nothing was finished yet; to start again: " + command};
}

int run_tune(const TuneOptions& options, const std::string& command, std::ostream& out, std::ostream& err) {
  Dataset data = load(options);
  std::optional<TuneFolder> folder;
  if (options.output) folder.emplace(*options.output);
  TuneResult result;
  {
    const InterruptionNotice notice = notice_of(folder ? &*folder : nullptr, command);
    Progress progress(terminal(err));
    try {
      result = tune(std::move(data), options, folder ? &*folder : nullptr, progress);
    } catch (const std::exception& error) {
      if (!is_out_of_memory(error) || !folder || !folder->state()) throw;
      progress.clear();
      complain(err, "out of memory; all that was finished is in " + folder->path_of("state") +
                        "; to go on where there is more: " + command);
      return failure;
    }
    progress.clear();
    if (folder) write_results(result, *folder);
  }
  print(out, tune_table(result));
  if (result.failure.empty()) return success;
  complain(err, result.failure);
  return failure;
}

int run(const Arguments& arguments, const std::string& command, std::ostream& out, std::ostream& err) {
  switch (arguments.command) {
    case Command::compare:
      return run_compare(arguments.compare, out, err);
    case Command::tune:
      return run_tune(*arguments.tune, command, out, err);
    case Command::info:
      print(out, info_report());
      return success;
    case Command::none:
      break;
  }
  print(out, arguments.text);
  return success;
}

}  // namespace

int run_program(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  const WarningsTo warnings(err);
  try {
    return run(parse_arguments(argc, argv), shell_line(argc, argv), out, err);
  } catch (const UsageError& error) {
    complain(err, error.what());
    return bad_usage;
  } catch (const std::exception& error) {
    complain(err, is_out_of_memory(error)
                      ? "out of memory; use fewer --samples, smaller --layers or --batch, or fewer --steps"
                      : error.what());
  }
  return failure;
}

}  // namespace hypertape
