#include <hypertape/core/named_tensors.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <utility>

#include <hypertape/core/error.h>

namespace hypertape {

namespace {

// The names in order, as a list of `names_` always is, and where there are more than a few the place of each
// by its hash: open addressing in a table of a power of two, at most half full.
class Names : public std::vector<std::string> {
 public:
  std::size_t place_of(std::string_view name) const noexcept {
    if (size() <= few) return static_cast<std::size_t>(std::find(begin(), end(), name) - begin());
    const std::size_t place = table_[slot(table_, name)];
    return place == nowhere ? size() : place;
  }

  void add(std::string name) {
    std::vector<std::size_t> larger;
    if (size() >= few && 2 * (size() + 1) > table_.size()) {
      larger.assign(std::max<std::size_t>(2 * table_.size(), 4 * few), nowhere);
      for (std::size_t place = 0; place < size(); ++place) larger[slot(larger, (*this)[place])] = place;
    }
    push_back(std::move(name));
    if (!larger.empty()) table_ = std::move(larger);
    if (!table_.empty()) table_[slot(table_, back())] = size() - 1;
  }

 private:
  static constexpr std::size_t few = 16;
  static constexpr std::size_t nowhere = ~std::size_t{0};

  // Where the name is in the table, or would be.
  std::size_t slot(const std::vector<std::size_t>& in, std::string_view name) const noexcept {
    const std::size_t mask = in.size() - 1;
    std::size_t at = std::hash<std::string_view>{}(name)&mask;
    while (in[at] != nowhere && (*this)[in[at]] != name) at = (at + 1) & mask;
    return at;
  }

  std::vector<std::size_t> table_;
};

// Letters to insert, remove or replace (Levenshtein's distance), as far as the first ones tell.
std::size_t distance(std::string_view a, std::string_view b) {
  constexpr std::size_t longest = 64;
  a = a.substr(0, longest);
  b = b.substr(0, longest);
  std::array<std::size_t, longest + 1> row{};
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t corner = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = corner + (a[i - 1] == b[j - 1] ? 0 : 1);
      corner = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

[[noreturn]] void fail_to_find(std::string_view name, const std::vector<std::string>& names) {
  constexpr std::size_t most = 10, nearest = 3;
  const auto listed = [&](std::size_t count, const auto& name_of) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text.append(i == 0 ? "" : ", ").append(name_of(i));
    return text;
  };
  if (names.empty()) fail("named_tensors", "there is no '", name, "'; there are no names");
  if (names.size() <= most)
    fail("named_tensors", "there is no '", name,
         "'; the names are: ", listed(names.size(), [&](std::size_t i) { return names[i]; }));
  std::vector<std::pair<std::size_t, std::size_t>> found;  // distances and places
  for (std::size_t i = 0; i < names.size(); ++i) found.emplace_back(distance(name, names[i]), i);
  std::partial_sort(found.begin(), found.begin() + nearest, found.end());
  fail("named_tensors", "there is no '", name, "' among ", names.size(),
       " names; the nearest are: ", listed(nearest, [&](std::size_t i) { return names[found[i].second]; }));
}

const std::vector<std::string>& no_names() {
  static const std::vector<std::string>& empty = *new std::vector<std::string>;
  return empty;
}

}  // namespace

NamedTensors::NamedTensors(std::initializer_list<std::pair<std::string, Tensor>> entries) {
  for (const auto& [name, tensor] : entries) add(name, tensor);
}

const std::vector<std::string>& NamedTensors::names() const noexcept { return names_ ? *names_ : no_names(); }

void NamedTensors::add(std::string name, Tensor tensor) {
  if (contains(name)) fail("named_tensors", "the name '", name, "' is given twice");
  if (tensors_.size() == tensors_.capacity()) tensors_.reserve(2 * tensors_.size() + 1);
  // A list that others share is copied; a sole owner, who made it here, extends it.
  std::shared_ptr<Names> own;
  if (names_.use_count() == 1)
    own = std::static_pointer_cast<Names>(std::const_pointer_cast<std::vector<std::string>>(names_));
  else
    own = names_ ? std::make_shared<Names>(static_cast<const Names&>(*names_)) : std::make_shared<Names>();
  own->add(std::move(name));
  names_ = std::move(own);
  tensors_.push_back(std::move(tensor));
}

std::size_t NamedTensors::find(std::string_view name) const noexcept {
  return names_ ? static_cast<const Names&>(*names_).place_of(name) : size();
}

const Tensor& NamedTensors::operator[](std::string_view name) const {
  const std::size_t position = find(name);
  if (position == size()) {
    fail_to_find(name, names());
  }
  return tensors_[position];
}

std::vector<Shape> NamedTensors::shapes() const {
  std::vector<Shape> result;
  for (const Tensor& tensor : tensors_) result.push_back(tensor.shape());
  return result;
}

NamedTensors NamedTensors::with(TensorList tensors) const {
  if (tensors.size() != size())
    fail("named_tensors", tensors.size(), " tensors given for ", size(), " names");
  NamedTensors result;
  result.names_ = names_;
  result.tensors_ = std::move(tensors);
  return result;
}

NamedTensors NamedTensors::with(std::string_view name, Tensor tensor) const {
  (void)(*this)[name];
  NamedTensors result = *this;
  result.tensors_[find(name)] = std::move(tensor);
  return result;
}

}  // namespace hypertape
