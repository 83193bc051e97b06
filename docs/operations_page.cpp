// Writes docs/operations.md from the sources that define the operations, so that the page needs no list of
// its own: core/elementwise.def, the structs of core/elementwise/*.h with their comments, and the
// declarations of autodiff/ops.h with theirs.
//
//   hypertape_operations_page <root> --write     writes the page
//   hypertape_operations_page <root> --check     returns 1 if the page in the tree differs
//
// It reads the sources as text, in the form that clang-format gives them.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + " cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\n");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

// Runs of white space as one space.
std::string one_line(const std::string& text) {
  std::istringstream stream(text);
  std::string result;
  for (std::string word; stream >> word;) result += (result.empty() ? "" : " ") + word;
  return result;
}

// For a cell of a table: bars would end it.
std::string cell(const std::string& text) { return std::regex_replace(text, std::regex("\\|"), "\\|"); }
std::string code(const std::string& text) { return text.empty() ? "" : "`" + cell(text) + "`"; }

// The place after the bracket that closes the one at `open`.
std::size_t after_closing(const std::string& text, std::size_t open) {
  const char opening = text[open], closing = opening == '(' ? ')' : '}';
  int depth = 0;
  for (std::size_t at = open; at < text.size(); ++at) {
    if (text[at] == opening) ++depth;
    if (text[at] == closing && --depth == 0) return at + 1;
  }
  throw std::runtime_error("a bracket is not closed: " + text.substr(open, 80));
}

// --- Elementwise operations

struct Struct {
  std::string comment, body;
};

// Every `struct Name { ... };` with the `///` lines above it.
void collect_structs(const std::string& source, std::map<std::string, Struct>& structs) {
  static const std::regex pattern(
      "((?:///[^\n]*\n)*)(?:template <[^\n]*>\n)?struct (\\w+) (?:: [\\w:<>, ]+)?\\{");
  for (std::sregex_iterator at(source.begin(), source.end(), pattern), end; at != end; ++at) {
    Struct found;
    std::string comment = std::regex_replace((*at)[1].str(), std::regex("///<? ?"), " ");
    found.comment = one_line(comment);
    const auto open = static_cast<std::size_t>(at->position() + at->length() - 1);
    found.body = source.substr(open, after_closing(source, open) - open);
    structs[(*at)[2].str()] = found;
  }
}

// The expressions that a function returns, for operand after operand.
std::string returned(const std::string& body, const std::string& function) {
  const std::size_t start = body.find("static auto " + function + "(");
  if (start == std::string::npos) return "";
  const std::size_t open = body.find('{', after_closing(body, body.find('(', start)));
  const std::string code_text = body.substr(open, after_closing(body, open) - open);
  static const std::regex pattern("return ([^;]*);");
  std::string result;
  for (std::sregex_iterator at(code_text.begin(), code_text.end(), pattern), end; at != end; ++at)
    result += (result.empty() ? "" : "; ") + one_line((*at)[1].str());
  return result;
}

// The initialiser of a constant, without braces that only hold one value.
std::string constant(const std::string& body, const std::string& name) {
  std::smatch match;
  if (!std::regex_search(body, match, std::regex("\\b" + name + "(?:\\[\\])? ?(?:= ?)?([^;]*);"))) return "";
  return one_line(match[1].str());
}

// A formula of the sources without what only the compiler needs.
std::string formula(std::string text) {
  text = std::regex_replace(text, std::regex("\\b(?:bodies|math|std)::"), "");
  return std::regex_replace(text, std::regex("Constant\\{([^}]*)\\}"), "$1");
}

// {{-3, 3}, {0.5, 3}} as [-3, 3], [0.5, 3].
std::string intervals(std::string text) {
  if (text.starts_with("{{") && text.ends_with("}}")) text = text.substr(1, text.size() - 2);
  std::replace(text.begin(), text.end(), '{', '[');
  std::replace(text.begin(), text.end(), '}', ']');
  return text;
}

std::string elementwise_rows(const fs::path& root) {
  std::map<std::string, Struct> structs;
  std::vector<fs::path> headers;
  for (const auto& entry : fs::directory_iterator(root / "core/elementwise"))
    if (entry.path().extension() == ".h") headers.push_back(entry.path());
  std::sort(headers.begin(), headers.end());
  for (const fs::path& header : headers) collect_structs(read(header), structs);

  static const std::map<std::string, std::string> signatures = {
      {"UNARY", "x"}, {"BINARY", "a, b"}, {"TERNARY", "a, b, c"}, {"WITH_SCALAR", "x, scalar"}};
  std::string rows;
  const std::string list = read(root / "core/include/hypertape/core/elementwise.def");
  static const std::regex pattern("(?:^|\n)HYPERTAPE_(\\w+)\\((\\w+), (\\w+)\\)");
  for (std::sregex_iterator at(list.begin(), list.end(), pattern), end; at != end; ++at) {
    const std::string form = (*at)[1].str(), type = (*at)[2].str(), name = (*at)[3].str();
    const auto found = structs.find(type);
    if (found == structs.end()) throw std::runtime_error("no struct " + type + " in core/elementwise/*.h");
    const auto arguments = signatures.find(form);
    const std::string& body = found->second.body;
    std::string kink = constant(body, "kink");
    if (kink.empty()) kink = constant(body, "kinks");
    if (kink == "no_kink" || kink == "{no_kink}" || kink == "{}") kink = "";
    kink = std::regex_replace(kink, std::regex("no_kink"), "none");
    if (kink.starts_with("{") && kink.ends_with("}")) kink = kink.substr(1, kink.size() - 2);
    const std::string& comment = found->second.comment;
    rows += "| `" + name + "(" + (arguments == signatures.end() ? "..." : arguments->second) + ")` | " +
            (comment.empty() ? code(formula(returned(body, "value"))) : cell(comment)) + " | " +
            code(formula(returned(body, "pull"))) + " | " + cell(intervals(constant(body, "domain"))) +
            " | " + cell(kink) + " |\n";
  }
  return rows;
}

// --- The other operations: declarations of ops.h, in its order and under its headings

std::string declared_sections(const fs::path& root) {
  const std::vector<std::string> lines = lines_of(read(root / "autodiff/include/hypertape/autodiff/ops.h"));
  std::string page, comment;
  bool open = false;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string line = trimmed(lines[i]);
    if (line.starts_with("// --- ")) {
      std::string heading = line.substr(7);
      // A heading may go on in the lines below.
      while (i + 1 < lines.size() && trimmed(lines[i + 1]).starts_with("// "))
        heading += " " + trimmed(lines[++i]).substr(3);
      const std::size_t border = heading.find_first_of(";:.");
      const std::string title = heading.substr(0, border);
      open = !title.starts_with("Elementwise");
      if (open) {
        page += "\n## " + title + "\n\n";
        if (border != std::string::npos) {
          std::string rest = trimmed(heading.substr(border + 1));
          if (!rest.empty()) rest[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(rest[0])));
          page += rest + (rest.ends_with(".") ? "\n\n" : ".\n\n");
        }
        page += "| declaration | meaning |\n|---|---|\n";
      }
      comment.clear();
    } else if (line.starts_with("///")) {
      comment += " " + trimmed(line.substr(3));
    } else if (line.starts_with("HYPERTAPE_API ")) {
      std::string declaration = line.substr(std::string("HYPERTAPE_API ").size());
      while (declaration.find(';') == std::string::npos && i + 1 < lines.size())
        declaration += " " + trimmed(lines[++i]);
      declaration = one_line(declaration.substr(0, declaration.find(';')));
      // Names in parentheses, which keep macros away, are for compilers only.
      declaration = std::regex_replace(declaration, std::regex("\\((\\w+)\\)\\("), " $1(");
      if (open) page += "| " + code(declaration) + " | " + cell(one_line(comment)) + " |\n";
      // The declarations that follow without a comment of their own share this one.
      if (i + 1 >= lines.size() || !trimmed(lines[i + 1]).starts_with("HYPERTAPE_API ")) comment.clear();
    } else {
      comment.clear();
    }
  }
  return page;
}

std::string page_of(const fs::path& root) {
  return "# Operations\n\n"
         "Generated from the sources by the target `operations_page`; a test says when it is out of date.\n\n"
         "Every operation refuses absent operands, mixed dtypes and shapes that do not fit, by an `Error` "
         "that names "
         "it; is\ndifferentiable to any order in its floating operands unless its row says otherwise; and "
         "gives the "
         "same bits whether or\nnot a derivative is recorded, and on any number of threads.\n\n"
         "## Elementwise\n\n"
         "Shapes broadcast. The formulas are the sources' own: `t` is the output's cotangent and `y` the "
         "output; `c` is "
         "the scalar.\nThe cotangent column holds that of the first operand, then, where they differ, those "
         "of the "
         "next; `minus_from(c, x)` is\n`c - x`, `masked(t, y)` is `t` where `y > 0` and 0 elsewhere, and "
         "`...` stands for "
         "the operands that the formula is given.\nThe Jacobian is diagonal, so the same formula maps "
         "tangents. Domain: "
         "where the tests sample each operand. Kinks: where\nthe derivative jumps; its value there is what "
         "the cotangent "
         "formula gives.\n\n"
         "| operation | meaning | cotangent | tested domain | kinks |\n|---|---|---|---|---|\n" +
         elementwise_rows(root) +
         "\nOperators: `+ - * /` between tensors are `add`, `subtract`, `multiply` and `divide`; with a C++ "
         "number, "
         "which takes\nthe tensor's dtype, they are the scalar operations.\n" +
         declared_sections(root);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.size() != 2 || (arguments[1] != "--write" && arguments[1] != "--check"))
      throw std::runtime_error("arguments: <root> --write or --check");
    const fs::path root = arguments[0], path = root / "docs/operations.md";
    const std::string page = page_of(root);
    if (arguments[1] == "--write") {
      std::ofstream file(path, std::ios::binary);
      file << page;
      if (!file.flush()) throw std::runtime_error(path.string() + " cannot be written");
    } else if (!fs::exists(path) || read(path) != page) {
      throw std::runtime_error(
          "docs/operations.md is out of date; run: cmake --build build/release --target "
          "operations_page");
    }
  } catch (const std::exception& error) {
    std::cerr << "operations page: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
