// einsum: the equation is read into indices, and operands are contracted two by two with matmul.
#include <algorithm>
#include <map>
#include <string>

#include <hypertape/autodiff/ops.h>
#include "autodiff/ops/checks.h"

namespace hypertape {
namespace detail {
namespace {

// A letter, or one of the axes that "..." stands for: first_of_dots + its place from the back.
using Index = int;
using Indices = std::vector<Index>;
constexpr Index first_of_dots = 256;

bool contains(const Indices& list, Index index) {
  return std::find(list.begin(), list.end(), index) != list.end();
}

std::string name_of_index(Index index) {
  return index < first_of_dots ? std::string(1, static_cast<char>(index)) : std::string("...");
}

struct Subscript {
  std::string text;       // as written
  Indices before, after;  // letters on either side of the dots
  bool dots = false;

  // With `rank` axes behind the dots.
  Indices indices(int rank) const {
    Indices all = before;
    for (int place = rank - 1; place >= 0; --place) all.push_back(first_of_dots + place);
    all.insert(all.end(), after.begin(), after.end());
    return all;
  }
  int letters() const { return static_cast<int>(before.size() + after.size()); }
};

struct Equation {
  std::vector<Subscript> operands;
  Subscript output;
  bool has_output = false;
};

Subscript parse_subscript(const std::string& text, std::string_view equation) {
  Subscript subscript;
  subscript.text = text;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      (subscript.dots ? subscript.after : subscript.before).push_back(c);
    } else if (text.compare(i, 3, "...") == 0) {
      if (subscript.dots) fail("einsum", "\"...\" stands twice in \"", text, "\" of \"", equation, '"');
      subscript.dots = true;
      i += 2;
    } else {
      fail("einsum", "\"", equation, "\" has \"", c, "\" where a letter, \"...\", \",\" or \"->\" belongs");
    }
  }
  return subscript;
}

Equation parse(std::string_view text) {
  std::string left;
  for (const char c : text)
    if (c != ' ') left += c;
  Equation equation;
  if (const std::size_t arrow = left.find("->"); arrow != std::string::npos) {
    equation.output = parse_subscript(left.substr(arrow + 2), text);
    equation.has_output = true;
    left.resize(arrow);
  }
  for (std::size_t begin = 0;;) {
    const std::size_t comma = left.find(',', begin);
    equation.operands.push_back(parse_subscript(left.substr(begin, comma - begin), text));
    if (comma == std::string::npos) return equation;
    begin = comma + 1;
  }
}

// A tensor whose axes have indices.
struct Term {
  Tensor tensor;
  Indices indices;
};

std::int64_t extent_of(const Term& term, Index index) {
  const auto place = std::find(term.indices.begin(), term.indices.end(), index);
  return term.tensor.extent(place - term.indices.begin());
}

// The axes in the given order; `order` names each once.
Tensor arranged(const Term& term, const Indices& order) {
  if (order == term.indices) return term.tensor;
  std::vector<std::int64_t> axes;
  for (const Index index : order)
    axes.push_back(std::find(term.indices.begin(), term.indices.end(), index) - term.indices.begin());
  return permute(term.tensor, axes);
}

// Axes of one index become their diagonal.
Term without_repeats(Term term) {
  for (std::size_t p = 0; p < term.indices.size(); ++p) {
    const auto again = std::find(term.indices.begin() + static_cast<std::ptrdiff_t>(p) + 1,
                                 term.indices.end(), term.indices[p]);
    if (again == term.indices.end()) continue;
    const Index repeated = term.indices[p];
    const auto q = static_cast<std::size_t>(again - term.indices.begin());
    std::vector<std::int64_t> axes;
    Indices rest;
    for (std::size_t k = 0; k < term.indices.size(); ++k) {
      if (k == p || k == q) continue;
      axes.push_back(static_cast<std::int64_t>(k));
      rest.push_back(term.indices[k]);
    }
    axes.push_back(static_cast<std::int64_t>(p));
    axes.push_back(static_cast<std::int64_t>(q));
    rest.push_back(repeated);
    term = {diagonal(permute(term.tensor, axes)), rest};
    --p;  // what moved to this place may repeat too
  }
  return term;
}

// Sums over what nobody needs any more.
Term without_unneeded(Term term, const Indices& needed) {
  std::vector<std::int64_t> axes;
  Indices rest;
  for (std::size_t k = 0; k < term.indices.size(); ++k) {
    if (contains(needed, term.indices[k]))
      rest.push_back(term.indices[k]);
    else
      axes.push_back(static_cast<std::int64_t>(k));
  }
  if (axes.empty()) return term;
  return {sum(term.tensor, axes), rest};
}

Indices operator+(Indices a, const Indices& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::int64_t count_of(const Term& term, const Indices& indices) {
  std::int64_t count = 1;
  for (const Index index : indices) count *= extent_of(term, index);
  return count;
}

// (batch..., rows, columns): the axes of the two kinds each joined to one. Kinds of one axis are never
// copied, whatever their order in memory: products read transposes where they are.
Tensor folded(const Term& term, const Indices& batch, const Indices& rows, const Indices& columns) {
  std::vector<std::int64_t> extents;
  if (batch.size() + 2 > static_cast<std::size_t>(max_rank))
    extents.push_back(count_of(term, batch));
  else
    for (const Index index : batch) extents.push_back(extent_of(term, index));
  extents.push_back(count_of(term, rows));
  extents.push_back(count_of(term, columns));
  return reshape(arranged(term, batch + rows + columns), Shape(std::span<const std::int64_t>(extents)));
}

// The term's axes in this order, with extent 1 for those that it lacks.
Tensor spread(const Term& term, const Indices& order) {
  Indices own;
  for (const Index index : order)
    if (contains(term.indices, index)) own.push_back(index);
  std::vector<std::int64_t> extents;
  for (const Index index : order)
    extents.push_back(contains(term.indices, index) ? extent_of(term, index) : 1);
  return reshape(arranged(term, own), Shape(std::span<const std::int64_t>(extents)));
}

// The product of two terms, summed over the indices that only they have.
Term contract(const Term& left, const Term& right, const Indices& needed, std::size_t last) {
  Indices batch, rows, columns, summed;
  for (const Index index : left.indices) {
    if (!contains(right.indices, index))
      rows.push_back(index);
    else if (contains(needed, index))
      batch.push_back(index);
    else
      summed.push_back(index);
  }
  for (const Index index : right.indices)
    if (!contains(left.indices, index)) columns.push_back(index);
  Term result{{}, batch + rows + columns};
  if (result.indices.size() > static_cast<std::size_t>(max_rank))
    fail("einsum", "the product of operands 0 to ", last, " has ", result.indices.size(),
         " axes, above the highest rank, ", max_rank, "; contract in another order");
  if (batch.empty() && rows.empty() && columns.empty() && !summed.empty()) {
    const Shape vector{count_of(left, summed)};
    result.tensor = dot(reshape(arranged(left, summed), vector), reshape(arranged(right, summed), vector));
  } else if (rows.empty() && columns.empty()) {
    const Indices order = batch + summed;
    result = without_unneeded({multiply(arranged(left, order), arranged(right, order)), order}, batch);
  } else if (summed.empty() && (rows.empty() || columns.empty())) {
    result.tensor = multiply(spread(left, result.indices), spread(right, result.indices));
  } else {
    std::vector<std::int64_t> extents;
    for (const Index index : result.indices)
      extents.push_back(extent_of(contains(left.indices, index) ? left : right, index));
    result.tensor = reshape(matmul(folded(left, batch, rows, summed), folded(right, batch, summed, columns)),
                            Shape(std::span<const std::int64_t>(extents)));
  }
  return result;
}

// The operands with their indices; checks ranks and extents.
std::vector<Term> read_operands(const Equation& equation, const TensorList& operands, int& dots_rank) {
  std::vector<Term> terms;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const Subscript& subscript = equation.operands[i];
    const int beyond = operands[i].rank() - subscript.letters();
    if (beyond < 0 || (beyond > 0 && !subscript.dots))
      fail("einsum", "\"", subscript.text, "\" names ", subscript.letters(), " axes",
           subscript.dots ? " besides \"...\"" : "", ", but operand ", i, " of shape ", operands[i].shape(),
           " has ", operands[i].rank());
    dots_rank = std::max(dots_rank, beyond);
    terms.push_back({operands[i], subscript.indices(beyond)});
  }
  struct Seen {
    std::int64_t extent;
    std::size_t operand;
  };
  std::map<Index, Seen> extents;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    for (std::size_t axis = 0; axis < terms[i].indices.size(); ++axis) {
      const Index index = terms[i].indices[axis];
      const std::int64_t extent = operands[i].extent(static_cast<std::int64_t>(axis));
      const auto [seen, fresh] = extents.insert({index, {extent, i}});
      if (fresh || seen->second.extent == extent) continue;
      if (index >= first_of_dots && seen->second.extent == 1)
        seen->second = {extent, i};
      else if (index < first_of_dots || extent != 1)
        fail("einsum", "index '", name_of_index(index), "' has extent ", seen->second.extent, " in operand ",
             seen->second.operand, " but ", extent, " in operand ", i);
    }
  }
  // An axis that broadcasts is one that the operand does not have.
  for (Term& term : terms) {
    std::vector<std::int64_t> axes;
    Indices rest;
    for (std::size_t axis = 0; axis < term.indices.size(); ++axis) {
      const Index index = term.indices[axis];
      if (term.tensor.extent(static_cast<std::int64_t>(axis)) != extents.at(index).extent)
        axes.push_back(static_cast<std::int64_t>(axis));
      else
        rest.push_back(index);
    }
    if (!axes.empty()) term = {squeeze(term.tensor, axes), rest};
    term = without_repeats(std::move(term));
  }
  return terms;
}

Indices read_output(const Equation& equation, std::string_view text, int dots_rank) {
  std::map<Index, int> occurrences;
  for (const Subscript& operand : equation.operands)
    for (const Index letter : operand.indices(0)) ++occurrences[letter];
  if (!equation.has_output) {
    Subscript once;
    for (const auto& [letter, count] : occurrences)
      if (count == 1) once.after.push_back(letter);
    return once.indices(dots_rank);
  }
  const Subscript& output = equation.output;
  if (dots_rank > 0 && !output.dots)
    fail("einsum", "\"...\" stands for ", dots_rank, " axes, which the output of \"", text,
         "\" does not name; write \"...\" there too");
  const Indices letters = output.indices(0);
  for (const Index letter : letters) {
    if (occurrences.find(letter) == occurrences.end())
      fail("einsum", "the output of \"", text, "\" names '", name_of_index(letter),
           "', which no operand has");
    if (std::count(letters.begin(), letters.end(), letter) > 1)
      fail("einsum", "the output of \"", text, "\" names '", name_of_index(letter), "' twice");
  }
  return output.indices(dots_rank);
}

}  // namespace
}  // namespace detail

Tensor einsum(std::string_view equation, const TensorList& operands) {
  using namespace detail;
  const Equation parsed = parse(equation);
  if (parsed.operands.size() != operands.size())
    fail("einsum", "\"", equation, "\" has ", parsed.operands.size(), " operands, but ", operands.size(),
         " were given");
  for (const Tensor& operand : operands) require_same_dtype("einsum", operands.front(), operand);
  int dots_rank = 0;
  const std::vector<Term> terms = read_operands(parsed, operands, dots_rank);
  const Indices output = read_output(parsed, equation, dots_rank);
  if (output.size() > static_cast<std::size_t>(max_rank))
    fail("einsum", "the output has ", output.size(), " axes, above the highest rank, ", max_rank);

  // What is needed after operand i has been multiplied: the output's indices and those of later operands.
  std::vector<Indices> needed(terms.size(), output);
  for (std::size_t i = terms.size() - 1; i > 0; --i) needed[i - 1] = needed[i] + terms[i].indices;
  Term product = without_unneeded(terms[0], needed[0]);
  for (std::size_t i = 1; i < terms.size(); ++i) {
    const Term next = without_unneeded(terms[i], needed[i] + product.indices);
    product = contract(product, next, needed[i], i);
  }
  return arranged(product, output);
}

}  // namespace hypertape
