// The files of `hypertape tune`: resuming to the same bits, and refusing what is not its own.
#include <doctest/doctest.h>

#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "file_size_limit.h"
#include "hyperparameters_file.h"
#include "npz_file.h"
#include "output_file.h"
#include "tune_folder.h"
#include "tune_runs.h"

namespace {

namespace fs = std::filesystem;
using hypertape::TuneState;

Words small(const fs::path& folder, const Words& more = {}) {
  return with(with(small_tune, more), {"--output", folder.string()});
}

// A state with something in every member.
TuneState full_state() {
  TuneState state({1.0, -0.0, 0.1});
  state.settings = {{"--steps", 8}, {"--rate", 0.1}, {"--layers", {6, 5}}};
  state.accepted = {0.1, 0.2, 1e-300};
  state.best = {5e-324, 2.0, 3.0};
  state.best_step = 0;
  state.adam.first = {0.3, 0.0, 1.0 / 3.0};
  state.adam.second = {1e-20, 0.0, 2.0};
  state.adam.steps = 1;
  state.rejections = 1;
  state.gradients = 48;
  state.hessian_vector_products = 24;
  state.before = hypertape::Evaluation{{1.5, 0.5}, {2.5, 0.25}, {3.5, 0.125}};
  state.history = {{0.1, 1.0 / 3.0, 0.7, 0.25, "exact"}, {{}, {}, {}, 0.5, "rejected: \xff\""}};
  state.grid = {{0.1, 0.9, 1e-4, 0.5}, {0.2, 0.9, 1e-4, std::nullopt}};
  return state;
}

// A state file whose archive is whole, but holds something else.
std::string with_header(const std::string& payload) {
  return "hypertape tune state 1, " + std::to_string(payload.size()) + " bytes, checksum " +
         hypertape::checksum(payload) + "\n" + payload;
}

std::string refusal_of(const std::string& bytes) {
  return thrown([&] { (void)hypertape::read_state(bytes, "s"); });
}

}  // namespace

TEST_CASE("a state comes back with the same bits") {
  const TuneState state = full_state();
  const std::string bytes = hypertape::state_bytes(state);
  const TuneState back = hypertape::read_state(bytes, "s");
  CHECK(back.next == state.next);
  CHECK(std::signbit(back.next[1]));
  CHECK(back.accepted == state.accepted);
  CHECK(back.best == state.best);
  CHECK(back.best_step == 0);
  CHECK(back.adam.first == state.adam.first);
  CHECK(back.adam.second == state.adam.second);
  CHECK(back.adam.steps == 1);
  CHECK(back.rejections == 1);
  CHECK(back.gradients == 48);
  CHECK(back.hessian_vector_products == 24);
  CHECK(back.before->test.accuracy == 0.125);
  CHECK(back.before->training.loss == 1.5);
  REQUIRE(back.history.size() == 2);
  CHECK(back.history[0].training_loss == 1.0 / 3.0);
  CHECK_FALSE(back.history[1].validation_loss);
  CHECK(back.history[1].seconds == 0.5);
  REQUIRE(back.grid.size() == 2);
  CHECK(back.grid[0].validation_loss == 0.5);
  CHECK_FALSE(back.grid[1].validation_loss);
  CHECK(back.settings == state.settings);
  CHECK(hypertape::state_bytes(back) ==
        hypertape::state_bytes(hypertape::read_state(hypertape::state_bytes(back), "s")));
}

TEST_CASE("a state with any byte changed, missing or added is refused") {
  const std::string whole = hypertape::state_bytes(full_state());
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (1 << at % 8));
    CHECK_MESSAGE(refusal_of(changed).starts_with("[read state] s: "), "byte " << at);
    CHECK(refusal_of(whole.substr(0, at)).starts_with("[read state] s: "));
  }
  CHECK(refusal_of(whole + '\0').starts_with("[read state] s: "));
  expect_text(refusal_of("once upon a time"), "not a state file of hypertape tune");
}

TEST_CASE("a state whose checksum fits but whose content does not is refused, whatever it holds") {
  const std::string whole = hypertape::state_bytes(full_state());
  const std::string payload = whole.substr(whole.find('\n') + 1);
  CHECK(refusal_of(with_header(payload)) == "nothing thrown");
  // Every byte of the archive, with a checksum that fits.
  for (std::size_t at = 0; at < payload.size(); ++at) {
    std::string changed = payload;
    changed[at] = static_cast<char>(changed[at] ^ 0xff);
    const std::string message = refusal_of(with_header(changed));
    CHECK_MESSAGE((message == "nothing thrown" || message.starts_with("[read state] s: ")), message);
  }
  hypertape::NamedArrays arrays = hypertape::read_npz(payload, "s");
  const auto refusal = [](const hypertape::NamedArrays& of) {
    return refusal_of(with_header(hypertape::npz_bytes(of)));
  };
  const auto replaced = [&](std::size_t which, const hypertape::NpyArray& array) {
    hypertape::NamedArrays other = arrays;
    other[which].second = array;
    return refusal(other);
  };
  REQUIRE(arrays[0].first == "record");
  for (std::size_t i = 1; i < arrays.size(); ++i) {
    expect_text(replaced(i, {{2}, std::vector<double>{1.0, 2.0}}), "differ in length");
    expect_text(replaced(i, {{3}, std::vector<double>{1.0, 2.0, NAN}}), "is not finite");
    expect_text(replaced(i, {{3}, std::vector<std::int64_t>{1, 2, 3}}), "is missing");
  }
  const auto record = [&](const std::string& text) {
    return replaced(
        0, {{static_cast<std::int64_t>(text.size())}, std::vector<std::uint8_t>(text.begin(), text.end())});
  };
  for (const char* text : {"", "{", "null", "[]", "{}", "\"x\"", "{\"settings\": 1}"})
    CHECK(record(text).starts_with("[read state] s: "));
  CHECK(record(std::string(200'000, '[')).starts_with("[read state] s: "));
  const auto& values = std::get<std::vector<std::uint8_t>>(arrays[0].second.values);
  const std::string good(values.begin(), values.end());
  CHECK(record(good) == "nothing thrown");
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    REQUIRE(at != text.npos);
    return record(text.replace(at, from.size(), to));
  };
  CHECK(edited("\"best_step\":0", "\"best_step\":7") != "nothing thrown");
  CHECK(edited("\"best_step\":0", "\"best_step\":-1") != "nothing thrown");
  CHECK(edited("\"best_step\":0", "\"best_step\":-2") != "nothing thrown");
  CHECK(edited("\"best_step\":0", "\"best_step\":0.5") != "nothing thrown");
  CHECK(edited("\"gradients\":48", "\"gradients\":\"48\"") != "nothing thrown");
  CHECK(edited("[0.1,0.9,", "[0.1,") != "nothing thrown");
  // A record that contradicts itself.
  expect_text(edited("[[0.1,0.3333333333333333,", "[[null,0.3333333333333333,"),
              "best step is not in the history");
  expect_text(edited("\"adam_steps\":1", "\"adam_steps\":3"), "more steps than its history has");
  expect_text(edited("\"gradients\":48", "\"gradients\":9223372036854775807"),
              "a count is missing or out of range");
  expect_text(edited("\"best_step\":0", "\"best_step\":18446744073709551615"), "out of range");
  // Texts of our own.
  CHECK(record("{") == "[read state] s: it is no JSON: byte 2 does not fit");
  CHECK(record("[]") == "[read state] s: \"settings\" is missing");
  CHECK(record(std::string(200'000, '[')) == "[read state] s: it is nested too deeply");
  CHECK(edited("\"grid\"", "\"history\"") == "[read state] s: \"history\" is there twice");
  CHECK(edited("\"grid\":[[0.1", "\"grid\":[[1e999") == "[read state] s: a number is too large");
  CHECK(edited("\"gradients\"", "\"g\"") == "[read state] s: \"gradients\" is missing");
  CHECK(edited("\"exact\"", "7") == "[read state] s: a text is missing");
  CHECK(edited(",\"exact\"", "") == "[read state] s: a list is too short");
}

TEST_CASE("a state made up by somebody is refused or continued, whatever it says") {
  using Json = nlohmann::ordered_json;
  const TemporaryFolder folder;
  const Words words = {"--groups", "momenta"};
  CHECK(run(small(folder / "o", with(words, {"--outer-steps", "2", "--baseline"}))).code == 0);
  const std::string whole = content(folder / "o" / "state");
  hypertape::NamedArrays arrays =
      hypertape::read_npz(std::string_view(whole).substr(whole.find('\n') + 1), "s");
  const auto& values = std::get<std::vector<std::uint8_t>>(arrays[0].second.values);
  const Json record = Json::parse(values.begin(), values.end());
  // Counts, one outer step, one run of the grid, and what holds them, in turn replaced by each of these.
  const std::vector<Json> hostile = {nullptr, -1, 1e308, "\n,\"", Json::object()};
  const std::vector<std::string> places = {
      "/settings",    "/settings/--steps", "/best_step", "/adam_steps", "/rejections",  "/gradients",
      "/before",      "/before/0/0",       "/history",   "/history/1",  "/history/1/0", "/history/1/1",
      "/history/1/3", "/history/1/4",      "/grid",      "/grid/0",     "/grid/0/0",    "/grid/0/3"};
  int continued = 0;
  for (const std::string& place : places) {
    for (const Json& value : hostile) {
      Json other = record;
      other[Json::json_pointer(place)] = value;
      const std::string text = other.dump();
      arrays[0].second = {{static_cast<std::int64_t>(text.size())},
                          std::vector<std::uint8_t>(text.begin(), text.end())};
      const std::string state = with_header(hypertape::npz_bytes(arrays));
      INFO(place, " = ", value.dump());
      if (const std::string message = refusal_of(state); message != "nothing thrown") {
        CHECK(message.starts_with("[read state] s: "));
        CHECK_FALSE(contains(message, "json"));
        continue;
      }
      set_content(folder / "o" / "state", state);
      const Words grid = place == "/grid/0/3" ? Words{"--baseline"} : Words{};
      const Outcome outcome = run(small(folder / "o", with(with(words, {"--outer-steps", "3"}), grid)));
      INFO(outcome.err);
      if (outcome.code == 0) ++continued;
      if (outcome.code == 0) continue;
      CHECK(outcome.err.find('\n') + 1 == outcome.err.size());
      if (outcome.out.empty()) CHECK(content(folder / "o" / "state") == state);
    }
  }
  CHECK(continued > 10);
  // As many gradients as the count allows would make a grid without end.
  hypertape::TuneState state = hypertape::read_state(whole, "s");
  state.gradients = std::int64_t{1} << 53;
  set_content(folder / "o" / "state", hypertape::state_bytes(state));
  check_error(run(small(folder / "o", with(words, {"--outer-steps", "2", "--baseline"}))), 1,
              "it counts more work than its steps can have been");
  state = hypertape::read_state(whole, "s");
  state.history[1].status = "exact,\n\"so\"";
  set_content(folder / "o" / "state", hypertape::state_bytes(state));
  CHECK(run(small(folder / "o", with(words, {"--outer-steps", "3"}))).code == 0);
  CHECK(contains(content(folder / "o" / "history.csv"), ",\"exact,\n\"\"so\"\"\"\n"));
}

TEST_CASE("a run stopped after any outer step and continued ends in the same files") {
  const TemporaryFolder folder;
  for (const char* method : {"checkpointed", "reversible"}) {
    const std::string name = method;
    const Words how = {"--method", name, "--baseline"};
    CHECK(run(small(folder / (name + "whole"), how)).code == 0);
    const auto whole = without_seconds(folder / (name + "whole"));
    CHECK(whole.size() == 7);
    for (const char* steps : {"1", "2", "5"}) {
      const fs::path stopped = folder / (name + steps);
      CHECK(run(small(stopped, with(how, {"--outer-steps", steps}))).code == 0);
      CHECK(without_seconds(stopped) != whole);
      CHECK(run(small(stopped, how)).code == 0);
      CHECK(without_seconds(stopped) == whole);
    }
    // Once more, with nothing left to do.
    CHECK(run(small(folder / (name + "whole"), how)).code == 0);
    CHECK(without_seconds(folder / (name + "whole")) == whole);
  }
}

TEST_CASE("options and data that are not those of the run are bad usage, named, and change nothing") {
  const TemporaryFolder folder;
  CHECK(run(small(folder / "o")).code == 0);
  const auto files = contents_of(folder / "o");
  set_content(folder / "data.csv", "0,1\n1,0\n0,1\n1,0\n0,1\n1,0\n0,1\n1,0\n0,1\n1,0\n");
  const std::vector<std::pair<Words, std::string>> cases = {
      {{"--steps", "9"}, "--steps: the run in "},
      {{"--layers", "7"}, "--layers: the run in "},
      {{"--activation", "relu"}, "--activation: the run in "},
      {{"--batch", "10"}, "--batch: the run in "},
      {{"--seed", "1"}, "--seed: the run in "},
      {{"--optimizer", "nesterov"}, "--optimizer: the run in "},
      {{"--dtype", "float32"}, "--dtype: the run in "},
      {{"--rate", "0.06"}, "--rate: the run in "},
      {{"--momentum", "0.8"}, "--momentum: the run in "},
      {{"--l2", "0.001"}, "--l2: the run in "},
      {{"--groups", "momenta"}, "--groups: the run in "},
      {{"--penalties", "layer"}, "--penalties: the run in "},
      {{"--method", "unrolled"}, "--method: the run in "},
      {{"--outer-rate", "0.05"}, "--outer-rate: the run in "},
      {{"--outer-beta1", "0.8"}, "--outer-beta1: the run in "},
      {{"--outer-beta2", "0.99"}, "--outer-beta2: the run in "},
      {{"--samples", "131"}, "--samples: the run in "},
      {{"--scale", "standard"}, "--scale: the run in "},
      {{"--data", (folder / "data.csv").string(), "--batch", "2"}, "--data: the run in "},
      {{"--start", (folder / "o" / "hyperparameters.npz").string()}, "--start: the run in "},
      {{"--outer-steps", "5"}, "--outer-steps: the run in "}};
  for (const auto& [words, message] : cases) {
    check_error(run(small(folder / "o", words)), 2, message);
    CHECK(contents_of(folder / "o") == files);
  }
}

TEST_CASE("a tampered, truncated or foreign state is an error that leaves everything untouched") {
  const TemporaryFolder folder;
  CHECK(run(small(folder / "o")).code == 0);
  const std::string good = content(folder / "o" / "state");
  std::string tampered = good;
  tampered[good.size() / 2] ^= 4;
  for (const std::string& bad :
       {tampered, good.substr(0, good.size() / 2), std::string(), std::string("my notes")}) {
    set_content(folder / "o" / "state", bad);
    const auto files = contents_of(folder / "o");
    check_error(run(small(folder / "o", {"--outer-steps", "8"})), 1, "state: ");
    CHECK(contents_of(folder / "o") == files);
  }
  set_content(folder / "o" / "state", good);
  CHECK(run(small(folder / "o", {"--outer-steps", "8"})).code == 0);
}

TEST_CASE("a folder that cannot be a run's is refused and left as it is") {
  const TemporaryFolder folder;
  const auto refused = [&](const fs::path& path, const std::string& message) {
    const auto files = fs::is_directory(path) ? contents_of(path) : std::map<std::string, std::string>();
    check_error(run(small(path)), 1, message);
    if (fs::is_directory(path)) CHECK(contents_of(path) == files);
  };
  set_content(folder / "file", "x");
  refused(folder / "file", "cannot write to the folder ");
  CHECK(content(folder / "file") == "x");
  refused(folder / "missing" / "o", "No such file or directory");
  CHECK_FALSE(fs::exists(folder / "missing"));
  refused("", "cannot write to the folder ");
  refused("/proc/hypertape", "cannot write to the folder ");

  fs::create_directory(folder / "foreign");
  set_content(folder / "foreign" / "thesis.tex", "x");
  refused(folder / "foreign", "holds thesis.tex");
  fs::create_directory(folder / "hidden");
  set_content(folder / "hidden" / ".hypertape.x.tmp", "x");
  refused(folder / "hidden", "holds .hypertape.x.tmp");
  fs::create_directories(folder / "nested" / "state");
  check_error(run(small(folder / "nested")), 1, "holds state");
  fs::create_directory(folder / "linked");
  fs::create_symlink("/dev/zero", folder / "linked" / "state");
  check_error(run(small(folder / "linked")), 1, "holds state");
  fs::create_directory(folder / "results");
  set_content(folder / "results" / "history.csv", "x");
  refused(folder / "results", "history.csv but no state");
  if (::geteuid() != 0) {
    fs::create_directory(folder / "fixed");
    fs::permissions(folder / "fixed", fs::perms::owner_read | fs::perms::owner_exec);
    refused(folder / "fixed", "Permission denied");
  }
}

TEST_CASE("what a killed process left half written is removed, nothing else") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "o");
  const std::string half = ".hypertape.0123456789abcdef.tmp";
  set_content(folder / "o" / half, "half");
  CHECK(run(small(folder / "o")).code == 0);
  CHECK_FALSE(fs::exists(folder / "o" / half));
  CHECK(hypertape::is_temporary_name(half));
  for (const char* name : {"state", ".state.1.tmp", "hypertape.0123456789abcdef.tmp", ".hypertape..tmp", "",
                           ".hypertape.0123456789abcdeF.tmp", ".hypertape.0123456789abcde.tmp", ".tmp",
                           ".hypertape.0123456789abcdef.tmpx", ".hypertape.0123456789abcdef0.tmp"})
    CHECK_FALSE(hypertape::is_temporary_name(name));
}

TEST_CASE("a run keeps to its folder when that is moved and another one takes its name") {
  const TemporaryFolder folder;
  const hypertape::TuneFolder mine((folder / "o").string());
  mine.write("state", "first");
  fs::rename(folder / "o", folder / "moved");
  const hypertape::TuneFolder other((folder / "o").string());
  mine.write("state", "mine");
  other.write("state", "theirs");
  CHECK(contents_of(folder / "moved") == std::map<std::string, std::string>{{"state", "mine"}});
  CHECK(contents_of(folder / "o") == std::map<std::string, std::string>{{"state", "theirs"}});
  CHECK(mine.state() == "mine");
}

TEST_CASE("data and folders whose names are not UTF-8 or hold line breaks are like others") {
  const TemporaryFolder folder;
  const fs::path data = folder / "da\xff\nta.csv", output = folder / "o\xfe\n";
  std::string rows;
  for (int i = 0; i < 40; ++i) rows += std::to_string(i) + ',' + std::to_string(i % 2) + '\n';
  set_content(data, rows);
  const Words words = {"--data", data.string(), "--samples", "40", "--batch", "5"};
  CHECK(run(small(output, with(words, {"--outer-steps", "2"}))).code == 0);
  const Outcome resumed = run(small(output, words));
  CHECK(resumed.code == 0);
  CHECK(resumed.out.starts_with("data      da\\xff\\x0ata.csv, "));
  CHECK(hypertape::read_state(content(output / "state"), "s").outer_steps() == 6);
  check_error(run(small(output, with(words, {"--steps", "9"}))), 2, "o\\xfe\\x0a has 8, not 9");
  fs::remove(data);
  check_error(run(small(output, words)), 1, "da\\xff\\x0ata.csv: no such file");
}

TEST_CASE("two runs do not share a folder") {
  const TemporaryFolder folder;
  CHECK(run(small(folder / "o")).code == 0);
  {
    const hypertape::TuneFolder held((folder / "o").string());
    check_error(run(small(folder / "o")), 1, "another process is writing");
  }
  CHECK(run(small(folder / "o")).code == 0);
}

TEST_CASE("a full disk is an error, the last whole state stays, and the run can go on from it") {
  const TemporaryFolder folder;
  CHECK(run(small(folder / "whole")).code == 0);
  CHECK(run(small(folder / "o", {"--outer-steps", "2"})).code == 0);
  const std::string state = content(folder / "o" / "state");
  const std::size_t files = contents_of(folder / "o").size();
  // A limit on a file's size fails as a full disk does.
  const Outcome outcome = [&] {
    const FileSizeLimit small_files(1000);
    return run(small(folder / "o"));
  }();
  check_error(outcome, 1, "cannot write ");
  CHECK(content(folder / "o" / "state") == state);
  CHECK(contents_of(folder / "o").size() == files);
  CHECK(run(small(folder / "o")).code == 0);
  CHECK(without_seconds(folder / "o") == without_seconds(folder / "whole"));
}

TEST_CASE("learned hyperparameters are read back from both files, and start another run") {
  const TemporaryFolder folder;
  CHECK(run(small(folder / "o")).code == 0);
  const auto json = hypertape::read_hyperparameters_file((folder / "o" / "hyperparameters.json").string());
  const auto npz = hypertape::read_hyperparameters_file((folder / "o" / "hyperparameters.npz").string());
  const TuneState state = hypertape::read_state(content(folder / "o" / "state"), "s");
  CHECK(json.names() == Words{"log_rates", "momenta", "log_init_scales", "log_l2"});
  CHECK(npz.names() == json.names());
  CHECK(npz.shapes() == json.shapes());
  CHECK(npz["log_rates"].shape() == hypertape::Shape{8, 2});
  CHECK(hypertape::elements_of(json) == state.best);
  CHECK(hypertape::elements_of(npz) == state.best);
  for (const char* file : {"hyperparameters.json", "hyperparameters.npz"}) {
    const fs::path next = folder / (std::string("next") + file);
    CHECK(run(small(next, {"--start", (folder / "o" / file).string()})).code == 0);
    const TuneState continued = hypertape::read_state(content(next / "state"), "s");
    CHECK(continued.history[0].validation_loss ==
          state.history[static_cast<std::size_t>(state.best_step)].validation_loss);
  }
  const std::string start = (folder / "o" / "hyperparameters.npz").string();
  check_error(run(with(small_tune, {"--start", start, "--steps", "9"})), 2,
              "has log_rates of shape (8, 2), not (9, 2)");
  check_error(run(with(small_tune, {"--start", start, "--groups", "momenta"})), 2,
              "--start: " + start + " has a group log_rates, which is not learned here");
  check_error(run(with(small_tune, {"--start", (folder / "none").string()})), 1, "cannot read ");
  check_error(run(with(small_tune, {"--start", "/dev/zero"})), 1, "not a regular file");
  check_error(run(with(small_tune, {"--start", (folder / "o").string()})), 1, "not a regular file");
  check_error(run(with(small_tune, {"--start", (folder / "o" / "figure.svg").string()})), 1,
              "[read hyperparameters]");
}

TEST_CASE("groups to start from may stand in any order, but all of them and each once") {
  const TemporaryFolder folder;
  CHECK(run(small(folder / "o")).code == 0);
  const auto learned = hypertape::read_hyperparameters_file((folder / "o" / "hyperparameters.npz").string());
  hypertape::NamedTensors reversed;
  for (std::size_t i = learned.size(); i-- > 0;) reversed.add(learned.names()[i], learned.tensors()[i]);
  const auto started = [&](const char* name, const std::string& bytes) {
    set_content(folder / name, bytes);
    const fs::path output = folder / (std::string("from_") + name);
    CHECK(run(small(output, {"--start", (folder / name).string()})).code == 0);
    auto files = without_seconds(output);
    return files;
  };
  const auto expected = started("same.npz", hypertape::hyperparameters_npz(learned));
  CHECK(started("reversed.npz", hypertape::hyperparameters_npz(reversed)) == expected);
  CHECK(started("reversed.json", hypertape::hyperparameters_json(reversed, {{"note", 1}})) == expected);

  hypertape::NamedTensors fewer;
  for (const char* name : {"momenta", "log_rates", "log_l2"}) fewer.add(name, learned[name]);
  set_content(folder / "fewer", hypertape::hyperparameters_npz(fewer));
  check_error(run(with(small_tune, {"--start", (folder / "fewer").string()})), 2,
              "has no group log_init_scales, which is learned here; see --groups");
  std::string twice = hypertape::hyperparameters_json(learned, {{"note", 1}});
  twice.replace(twice.find("\"momenta\""), 9, "\"log_l2\"");
  set_content(folder / "twice", twice);
  check_error(run(with(small_tune, {"--start", (folder / "twice").string()})), 1,
              "not hyperparameters that tune wrote: \"log_l2\" is there twice");
}

TEST_CASE("files that are not hyperparameters are refused") {
  const auto refusal = [](const std::string& bytes) {
    return thrown([&] { (void)hypertape::read_hyperparameters(bytes, "h"); });
  };
  const auto group = [&](const std::string& body) {
    return refusal("{\"format\": \"hypertape hyperparameters 1\", \"hyperparameters\": {\"a\": " + body +
                   "}}");
  };
  CHECK(group("{\"shape\": [2], \"values\": [1, 2.5]}") == "nothing thrown");
  CHECK(group("{\"shape\": [], \"values\": [1]}") == "nothing thrown");
  for (const char* body :
       {"{\"shape\": [3], \"values\": [1, 2]}", "{\"shape\": [-2], \"values\": [1, 2]}",
        "{\"shape\": [2], \"values\": [1, null]}", "{\"shape\": [2], \"values\": [1, \"2\"]}",
        "{\"shape\": [2], \"values\": [1, 1e999]}", "{\"shape\": 2, \"values\": [1, 2]}",
        "{\"shape\": [4611686018427387904, 4], \"values\": []}", "{\"shape\": [0, 99999], \"values\": [1]}",
        "{\"shape\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1], \"values\": [1]}", "{\"values\": [1]}",
        "{\"shape\": [1]}", "[]", "{\"shape\": [1], \"values\": 1}"})
    CHECK_MESSAGE(group(body).starts_with("[read hyperparameters] h: "), body << ": " << group(body));
  for (const std::string& bytes : {std::string(), std::string("{}"), std::string("PK"), std::string("PK\3\4"),
                                   std::string("{\"format\": \"other\", \"hyperparameters\": {}}"),
                                   std::string("{\"format\": \"hypertape hyperparameters 1\"}"),
                                   std::string(100'000, '{'), std::string("\xff\xfe")})
    CHECK(refusal(bytes).starts_with("[read hyperparameters] h: not hyperparameters that tune wrote: "));
  // In our words, not in those of the libraries that read them.
  const std::string start = "[read hyperparameters] h: not hyperparameters that tune wrote: ";
  CHECK(refusal("") == start + "it is no JSON: byte 1 does not fit");
  CHECK(refusal("{\"format\": 1,}") == start + "it is no JSON: byte 14 does not fit");
  CHECK(refusal("[]") == start + "\"format\" is missing");
  CHECK(refusal("PK") ==
        start +
            "not a zip archive that can be read: it has no directory, as if cut short or of another format");
  CHECK(refusal(std::string(100'000, '[')) == start + "it is nested too deeply");
  CHECK(refusal("{\"a\":{\"b\":1},\"c\":[{\"b\":1},{\"b\":1}],\"format\":1}") ==
        start + "it is of another format");
  CHECK(refusal("{\"a\":{\"b\":1,\"c\":{},\"b\":1}}") == start + "\"b\" is there twice");
  CHECK(group("{\"shape\": [1], \"values\": [1e999]}") == start + "a number is too large");
  const auto archive = [&](const hypertape::NpyArray& array) {
    return refusal(hypertape::npz_bytes({{"a", array}}));
  };
  CHECK(archive({{1}, std::vector<double>{1.0}}) == "nothing thrown");
  expect_text(archive({{1}, std::vector<double>{HUGE_VAL}}), "infinite or NaN");
  expect_text(archive({{1}, std::vector<float>{1.0F}}), "not of float64");
  expect_text(archive({std::vector<std::int64_t>(20, 1), std::vector<double>{1.0}}), "too many axes");
}

TEST_CASE("bad values of tune's options are bad usage, and the message names the option") {
  const std::vector<Words> cases = {
      {"--outer-steps", "0"},  {"--outer-steps", "x"},  {"--outer-rate", "0"},     {"--outer-rate", "nan"},
      {"--outer-rate", "1e9"}, {"--outer-beta1", "1"},  {"--outer-beta1", "-0.1"}, {"--outer-beta2", "1"},
      {"--penalties", "none"}, {"--method", "forward"}, {"--method", "unrolled,"}, {"--groups", "weights"},
      {"--threads", "0"},      {"--steps", "0"},        {"--batch", "85"}};
  for (const Words& words : cases) check_error(run(with(small_tune, words)), 2, words.front() + ": must be");
  check_error(run(with(small_tune, {"--method", "reversible", "--optimizer", "adam"})), 2,
              "--method: reversible undoes");
  check_error(run({"tune", "--fast"}), 2, "--fast");
  check_error(run({"tune", "--methods", "unrolled"}), 2, "--methods");
  check_error(run({"tune", "--output"}), 2, "--output: needs a value");
  check_error(run({"tune", "--baseline=3"}), 2, "--baseline: takes no value");
  const Outcome help = run({"tune", "--help"});
  CHECK(help.code == 0);
  for (const char* option :
       {"--data",       "--samples",     "--layers",      "--steps",  "--batch",      "--seed",
        "--rate",       "--momentum",    "--l2",          "--groups", "--penalties",  "--outer-steps",
        "--outer-rate", "--outer-beta1", "--outer-beta2", "--method", "--baseline",   "--start",
        "--threads",    "--output",      "--scale",       "--header", "--data-memory"})
    CHECK(contains(help.out, option));
}
