// Bad input to every public operation: an Error that begins with the operation's name, names what is wrong
// and leaves the operands as they were, given away or not. And no operands' elements, and NaN.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include <hypertape/autodiff/derivatives.h>
#include <hypertape/autodiff/ops.h>
#include <hypertape/nn/layers.h>
#include "bad_input.h"
#include "ladder.h"
#include "thrown.h"

namespace ht = hypertape;
using bad_input::Call;
using bad_input::Case;
using ht::Dtype;
using ht::Shape;
using ht::Tensor;
using ht::TensorList;

namespace {

std::string text_of(Dtype dtype) { return std::string(ht::name_of(dtype)); }

std::string text_of(const Shape& shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

// Memory of its own, so that an operation may take it.
TensorList copies(const TensorList& list) {
  TensorList result;
  for (const Tensor& x : list)
    result.push_back(x.defined() ? ht::reshape(ht::concatenate({ht::reshape(x, {x.size()})}), x.shape())
                                 : Tensor());
  return result;
}

bool same(const TensorList& a, const TensorList& b) {
  // Booleans are compared as integers.
  const auto comparable = [](TensorList list) {
    for (Tensor& x : list)
      if (x.defined() && x.dtype() == Dtype::boolean) x = ht::astype(x, Dtype::int64);
    return list;
  };
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i)
    if (a[i].defined() != b[i].defined() || (a[i].defined() && a[i].dtype() != b[i].dtype())) return false;
  return ladder::same_bits(comparable(a), comparable(b));
}

// `call` with these operands is refused by name, and takes nothing away.
void expect_refused(const std::string& name, const Call& call, const TensorList& operands,
                    const std::vector<std::string>& parts) {
  TensorList mine = copies(operands);
  const std::string text = thrown([&] { call(mine); });
  CHECK_MESSAGE(text.rfind("[" + name + "] ", 0) == 0, "expected [" << name << "] before: " << text);
  for (const std::string& part : parts) expect_text(text, part);
  CHECK_MESSAGE(same(mine, operands), name << " changed operands of a call that it refused: " << text);
}

bool has_nan(const TensorList& list) {
  for (const Tensor& x : list)
    if (x.defined() && ht::is_floating(x.dtype()))
      for (const double value : ladder::elements(x))
        if (std::isnan(value)) return true;
  return false;
}

const std::vector<Case>& table() {
  static const std::vector<Case> rows = bad_input::cases();
  return rows;
}

// Calls body(row, call) for each row, and for each with operands given away.
template <class Body>
void for_each_call(const Body& body) {
  for (const Case& row : table()) {
    CAPTURE(row.name);
    body(row, row.call);
    if (row.given) body(row, row.given);
  }
}

// The text of `path` with every run of white space as one blank.
std::string words_of(const std::string& path) {
  std::ifstream file(path);
  REQUIRE(file);
  std::ostringstream text;
  text << file.rdbuf();
  return std::regex_replace(text.str(), std::regex("\\s+"), " ");
}

}  // namespace

TEST_CASE("bad input: the table has a row for each declaration of ops.h") {
  std::map<std::string, int> rows;
  for (const Case& row : table()) ++rows[row.name];
  const std::string text = words_of(HYPERTAPE_OPS_HEADER);
  const std::regex declaration("HYPERTAPE_API \\w+[ (](\\w+)\\)?\\(");
  std::map<std::string, int> declared;
  for (std::sregex_iterator found(text.begin(), text.end(), declaration), end; found != end; ++found)
    ++declared[(*found)[1]];
  declared.erase("name");  // the macros of elementwise.def, whose rows come from the same list
  CHECK(declared.size() > 70);
  for (const auto& each : declared)
    CHECK_MESSAGE(rows[each.first] >= each.second, each.first << " has " << each.second
                                                              << " declarations but " << rows[each.first]
                                                              << " rows");
}

TEST_CASE("bad input: the good operands of the table are accepted, and not changed") {
  for (const Case& row : table()) {
    CAPTURE(row.name);
    TensorList mine = copies(row.operands);
    CHECK(thrown([&] { row.call(mine); }) == "nothing thrown");
    CHECK(same(mine, row.operands));
    CHECK(row.roles.size() == row.operands.size());
  }
}

TEST_CASE("bad input: absent operands") {
  for_each_call([](const Case& row, const Call& call) {
    for (std::size_t k = 0; k < row.roles.size(); ++k) {
      if (row.roles[k] == 'z') continue;
      TensorList operands = row.operands;
      operands[k] = Tensor();
      expect_refused(row.name, call, operands, {"absent"});
    }
  });
}

TEST_CASE("bad input: operands of another dtype") {
  for_each_call([](const Case& row, const Call& call) {
    for (std::size_t k = 0; k < row.roles.size(); ++k) {
      const char role = row.roles[k];
      if (role == 'a') continue;
      const auto expect = [&](Dtype other) {
        TensorList operands = row.operands;
        operands[k] = ht::astype(operands[k], other);
        const std::string text = thrown([&] {
          TensorList mine = copies(operands);
          call(mine);
        });
        expect_refused(row.name, call, operands, {});
        // Labels of a cross entropy are of either kind: then it is the shape that is wrong.
        const bool labels = role == 'i' || contains(row.name, "cross_entropy");
        const std::string shape = text_of(row.operands[k].shape());
        CHECK_MESSAGE((contains(text, text_of(other)) || (labels && contains(text, shape))), text);
      };
      const bool alone = row.roles.find_first_of("fmz", 0) == row.roles.find_last_of("fmz");
      if (role == 'i') expect(Dtype::float64);
      if (role == 'b') expect(Dtype::float64);
      if (role == 'f' || ((role == 'm' || role == 'z') && !alone)) {
        expect(Dtype::int64);
        expect(Dtype::boolean);
      }
      if (role != 'i' && role != 'b' && !alone) expect(Dtype::float32);
      if (role == 'i' || role == 'b') expect(role == 'i' ? Dtype::boolean : Dtype::int64);
    }
  });
}

TEST_CASE("bad input: ranks, shapes, axes and numbers that do not fit") {
  for (const Case& row : table()) {
    CAPTURE(row.name);
    for (const bad_input::Refusal& refusal : row.refusals)
      expect_refused(row.name, refusal.call, row.operands, refusal.parts);
  }
}

TEST_CASE("bad input: operands without elements") {
  for (const Case& row : table()) {
    CAPTURE(row.name);
    REQUIRE(!row.of_empty.empty());
    if (row.of_empty.front() == '!') {
      expect_refused(row.name, row.call, row.empty, {row.of_empty.substr(1)});
      continue;
    }
    TensorList mine = copies(row.empty), results;
    CHECK(thrown([&] { results = row.call(mine); }) == "nothing thrown");
    if (!results.empty()) CHECK(text_of(results.front().shape()) == row.of_empty);
    CHECK(same(mine, row.empty));
    if (!row.given) continue;
    TensorList lent = copies(row.empty);
    CHECK(same(row.given(lent), results));
  }
}

TEST_CASE("bad input: NaN comes through") {
  for (const Case& row : table()) {
    CAPTURE(row.name);
    for (std::size_t k = 0; k < row.operands.size(); ++k) {
      const Tensor& good = row.operands[k];
      if (!ht::is_floating(good.dtype()) || contains(row.ignores, std::to_string(k))) continue;
      TensorList operands = row.operands;
      operands[k] = Tensor::full(good.shape(), NAN, good.dtype());
      TensorList mine = copies(operands);
      CHECK_MESSAGE(has_nan(row.call(mine)), "operand " << k);
    }
  }
}
