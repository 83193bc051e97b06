// The comparison as a table, as CSV and as JSON.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "progress.h"
#include "readable.h"
#include "report.h"

namespace {

using hypertape::Comparison;
using hypertape::ComparisonRow;
using Words = std::vector<std::string>;

const Words keys = {"method",  "setting",       "group",     "relative_error",          "cosine",
                    "seconds", "training_runs", "gradients", "hessian_vector_products", "peak_bytes",
                    "status"};

Comparison example() {
  Comparison comparison;
  comparison.problem = "net";
  comparison.optimizer = "sgd";
  comparison.data_name = "digits";
  comparison.scale = "max";
  comparison.scale_text = "max: all values over the largest of the training samples, 16";
  comparison.data_notes = {"column 1 has no name"};
  comparison.features = 64;
  comparison.classes = 10;
  comparison.training_samples = 1438;
  comparison.validation_samples = 359;
  comparison.sizes = {64, 100, 10};
  comparison.activation = "tanh";
  comparison.parameters = 7510;
  comparison.groups = {{"log_rates", 300}, {"momenta", 100}};
  comparison.steps = 100;
  comparison.batch = 200;
  comparison.dtype = "float64";
  comparison.threads = 2;
  comparison.training_run_seconds = 0.125;
  comparison.first_loss = 2.4;
  comparison.last_loss = 0.25;
  comparison.validation_loss = 0.5;
  comparison.reference = "unrolled";
  comparison.rows = {
      {"unrolled", "", "log_rates", 0.0, 1.0, 0.5, 4.0, 100, 100, 209'200'000, "exact"},
      {"unrolled", "", "momenta", 0.0, 1.0, 0.5, 4.0, 100, 100, 209'200'000, "exact"},
      {"reversible", "", "log_rates", 1.5e-10, 0.99, 0.75, 6.0, 200, 100, 5'400'000, "exact"},
      {"forward", "2 directions", "momenta", {}, {}, {}, {}, {}, {}, {}, "diverged at step 3, \"late\""}};
  return comparison;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

}  // namespace

TEST_CASE("the JSON report has exactly the documented keys, in order, and null for what is not defined") {
  const auto json = nlohmann::ordered_json::parse(hypertape::json_report(example()));
  Words top;
  for (const auto& [key, value] : json.items()) top.push_back(key);
  CHECK(top == Words{"problem", "optimizer", "data", "training_run_seconds", "steps", "dtype", "threads",
                     "rows", "plan", "reference", "failure"});
  CHECK(json["plan"].is_null());
  CHECK(json["reference"] == example().reference);
  CHECK(json["failure"].is_null());
  hypertape::Comparison failed = example();
  failed.failure = "reversible failed (because)";
  CHECK(nlohmann::ordered_json::parse(hypertape::json_report(failed))["failure"] == failed.failure);
  CHECK(json["training_run_seconds"] == 0.125);
  CHECK(json["problem"] == "net");
  CHECK(json["optimizer"] == "sgd");
  CHECK(json["steps"] == 100);
  CHECK(json["dtype"] == "float64");
  CHECK(json["data"]["name"] == "digits");
  CHECK(json["data"]["scale"] == "max");
  CHECK(json["data"]["notes"] == nlohmann::ordered_json{"column 1 has no name"});
  CHECK(json["threads"] == 2);
  REQUIRE(json["rows"].size() == 4);
  for (const auto& row : json["rows"]) {
    Words found;
    for (const auto& [key, value] : row.items()) found.push_back(key);
    CHECK(found == keys);
  }
  CHECK(json["rows"][2]["relative_error"] == 1.5e-10);
  CHECK(json["rows"][1]["peak_bytes"] == 209'200'000);
  CHECK(json["rows"][1]["gradients"].is_number_integer());
  for (std::size_t i = 3; i < 10; ++i) CHECK(json["rows"][3][keys[i]].is_null());
  CHECK(json["rows"][3]["status"] == "diverged at step 3, \"late\"");
}

TEST_CASE("the CSV report has the same columns, empty for what is not defined, and quotes where needed") {
  const std::vector<std::string> lines = lines_of(hypertape::csv_report(example()));
  REQUIRE(lines.size() == 5);
  std::string header;
  for (const std::string& key : keys) header += (header.empty() ? "" : ",") + key;
  CHECK(lines[0] == header + ",problem,optimizer,dtype,scale");
  CHECK(lines[1] == "unrolled,,log_rates,0,1,0.5,4,100,100,209200000,exact,net,sgd,float64,max");
  CHECK(lines[3] == "reversible,,log_rates,1.5e-10,0.99,0.75,6,200,100,5400000,exact,net,sgd,float64,max");
  CHECK(lines[4] ==
        "forward,2 directions,momenta,,,,,,,,\"diverged at step 3, \"\"late\"\"\",net,sgd,float64,max");
}

TEST_CASE("numbers in CSV read back as the same bits") {
  Comparison comparison = example();
  comparison.rows.resize(1);
  comparison.rows[0].cosine = 0.1 + 0.2;
  CHECK(lines_of(hypertape::csv_report(comparison))[1].find("0.30000000000000004") != std::string::npos);
}

TEST_CASE("the table says what was done to the data, and what reading it decided") {
  const std::string table = hypertape::table_report(example());
  CHECK(table.find(
            "\n          column 1 has no name\nscale     max: all values over the largest of the training "
            "samples, 16\nnet ") != std::string::npos);
}

TEST_CASE("the table is aligned and says a method's cost once") {
  const std::vector<std::string> lines = lines_of(hypertape::table_report(example()));
  std::size_t head = 0;
  while (head < lines.size() && !lines[head].starts_with("method")) ++head;
  REQUIRE(head + 4 < lines.size());
  const std::string& header = lines[head];
  const std::size_t group = header.find("group"), status = header.find("status");
  // Numbers end where the names of their columns end.
  const std::size_t error_end = header.find("error") + 5, peak_end = header.find("peak") + 4;
  CHECK(lines[head + 1].compare(group, 9, "log_rates") == 0);
  CHECK(lines[head + 2].compare(group, 7, "momenta") == 0);
  CHECK(lines[head + 1].compare(status, 5, "exact") == 0);
  CHECK(lines[head + 4].compare(status, 8, "diverged") == 0);
  CHECK(lines[head + 1].substr(error_end - 2, 3) == " 0 ");
  CHECK(lines[head + 3].substr(error_end - 7, 7) == "1.5e-10");
  CHECK(lines[head + 1].substr(peak_end - 8, 8) == "209.2 MB");
  CHECK(lines[head + 3].substr(peak_end - 6, 6) == "5.4 MB");
  CHECK(lines[head + 4].substr(peak_end - 2, 2) == " -");
  CHECK(lines[head + 1].find("209.2 MB") != std::string::npos);
  CHECK(lines[head + 2].find("209.2 MB") == std::string::npos);
  CHECK(lines[head + 2].starts_with(' '));
}

TEST_CASE("the table says long statuses in notes, each once") {
  Comparison comparison = example();
  const std::string reason = "the inner problem is not at its minimum: residual 0.07, tolerance 1e-08";
  for (const std::size_t row : {0, 2}) comparison.rows[row].status = "not converged (" + reason + ")";
  comparison.rows[1].status = "chaotic (adjoint grew 1.23e+04 times)";
  comparison.rows[3].status = "approximate (to 2e-11)";
  const std::string table = hypertape::table_report(comparison);
  const std::vector<std::string> lines = lines_of(table);
  std::size_t head = 0;
  while (head < lines.size() && !lines[head].starts_with("method")) ++head;
  REQUIRE(head + 4 < lines.size());
  CHECK(lines[head + 1].ends_with("  not converged [1]"));
  CHECK(lines[head + 2].ends_with("  chaotic [2]"));
  CHECK(lines[head + 3].ends_with("  not converged [1]"));
  CHECK(lines[head + 4].ends_with("  approximate (to 2e-11)"));
  CHECK(table.find("\n[1] " + reason + "\n[2] adjoint grew 1.23e+04 times\nerror: ") != std::string::npos);
  CHECK(table.find("[3]") == std::string::npos);
}

TEST_CASE("the table leaves out the group where there is only one") {
  Comparison comparison = example();
  comparison.groups.resize(1);
  comparison.groups[0].second = 1;
  comparison.rows = {comparison.rows[0], comparison.rows[2]};
  const std::string table = hypertape::table_report(comparison);
  CHECK(table.find("groups    1 hyperparameter: log_rates 1\n") != std::string::npos);
  const std::string rows = table.substr(table.find("\nmethod"));
  CHECK(rows.find("group ") == std::string::npos);
  CHECK(rows.find("log_rates") == std::string::npos);
}

TEST_CASE("the table's header says what was trained") {
  const std::string table = hypertape::table_report(example());
  for (const char* part : {"digits", "1,438 training and 359 validation samples", "64-100-10 tanh",
                           "7,510 parameters", "400 hyperparameters", "100 steps", "batch 200", "2 threads",
                           "training 2.4 to 0.25", "validation 0.5"})
    CHECK_MESSAGE(table.find(part) != std::string::npos, part);
}

TEST_CASE("the table's header says which optimizer and dtype, or which problem with a closed form") {
  const auto header_of = [](const Comparison& comparison) {
    const std::string table = hypertape::table_report(comparison);
    return table.substr(0, table.find("\nmethod"));
  };
  Comparison comparison = example();
  CHECK(header_of(comparison).find("100 steps of SGD with momentum, batch 200") != std::string::npos);
  comparison.optimizer = "nesterov";
  CHECK(header_of(comparison).find("SGD with Nesterov momentum") != std::string::npos);
  comparison.optimizer = "adam";
  comparison.dtype = "float32";
  CHECK(header_of(comparison).find("steps of Adam") != std::string::npos);
  CHECK(header_of(comparison).find("in float32") != std::string::npos);
  comparison.problem = "ridge";
  comparison.description = "40 samples";
  comparison.rate = 0.25;
  const std::string closed = header_of(comparison);
  CHECK(closed.starts_with("problem   ridge: 40 samples\n"));
  CHECK(closed.find("gradient descent on the whole objective, rate 0.25, 2 threads") != std::string::npos);
  for (const char* part : {"digits", "64-100-10", "batch"}) CHECK(closed.find(part) == std::string::npos);
}

TEST_CASE("counts and bytes for people") {
  using hypertape::readable_bytes;
  using hypertape::readable_count;
  CHECK(readable_count(0) == "0");
  CHECK(readable_count(999) == "999");
  CHECK(readable_count(1000) == "1,000");
  CHECK(readable_count(1234567) == "1,234,567");
  CHECK(hypertape::counted(1, "step") == "1 step");
  CHECK(hypertape::counted(0, "step") == "0 steps");
  CHECK(hypertape::counted(2100, "step") == "2,100 steps");
  CHECK(readable_bytes(999) == "999 B");
  CHECK(readable_bytes(1000) == "1.0 kB");
  CHECK(readable_bytes(12'345'678) == "12.3 MB");
  CHECK(readable_bytes(999'960) == "1.0 MB");
  CHECK(readable_bytes(2'100'000'000) == "2.1 GB");
  using hypertape::readable_seconds;
  CHECK(readable_seconds(7.412e-6) == "7.41 us");
  CHECK(readable_seconds(0.0009994) == "999 us");
  CHECK(readable_seconds(0.0009996) == "1.00 ms");
  CHECK(readable_seconds(0.01234) == "12.3 ms");
  CHECK(readable_seconds(0.09996) == "100 ms");
  CHECK(readable_seconds(0.9996) == "1.00 s");
  CHECK(readable_seconds(75.02) == "75.0 s");
  CHECK(readable_seconds(1234.5) == "1234 s");
}

TEST_CASE("a NaN is printed without its sign, which x86 sets and nobody asked for") {
  const double negative = std::copysign(std::numeric_limits<double>::quiet_NaN(), -1.0);
  CHECK(hypertape::formatted("%.3g", negative) == "nan");
  CHECK(hypertape::formatted("%8.2f", negative) == "     nan");
  CHECK(hypertape::exact_text(negative) == "nan");
  CHECK(hypertape::formatted("%.3g", -HUGE_VAL) == "-inf");
}

TEST_CASE("progress writes nothing without a terminal and cleans up after itself on one") {
  hypertape::Progress silent(nullptr);
  silent.begin("training", 10);
  silent.step();
  silent.end();
  std::ostringstream terminal;
  {
    hypertape::Progress progress(&terminal);
    progress.expect(10);
    progress.begin("training", 10);
    progress.step();
  }
  const std::string text = terminal.str();
  CHECK((text.empty() || text.ends_with("\r\x1b[K")));
}
