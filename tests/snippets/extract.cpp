// Collects the C++ of the documents, every block that begins with ```cpp, and of a header's first comment
// what is indented by five spaces. Programs, which have a main, go to one source and are run; all else goes
// to another, each piece into a function of its own, and is compiled after usual.h. Errors name the
// document's file and line.
//
//   hypertape_extract_snippets <root> <folder for fragments.cpp and programs.cpp> <documents and headers,
//   from root>...
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Snippet {
  std::string document, name, text;
  int line;  // of its first line
  bool is_program() const { return text.find("int main(") != std::string::npos; }
};

std::string name_of(const std::string& document, int line) {
  std::string name;
  for (const char c : document) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name + "_" + std::to_string(line);
}

void add_snippets(const fs::path& root, const std::string& document, std::vector<Snippet>& snippets) {
  std::ifstream file(root / document);
  if (!file) throw std::runtime_error(document + " cannot be read");
  bool inside = false, wanted = false;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.starts_with("```")) {
      inside = !inside;
      wanted = inside && line.starts_with("```cpp");
      if (wanted && line != "```cpp")
        throw std::runtime_error(document + ":" + std::to_string(number) +
                                 ": every ```cpp block is compiled");
      if (wanted) snippets.push_back({document, name_of(document, number + 1), "", number + 1});
    } else if (wanted) {
      snippets.back().text += line + '\n';
    } else if (!inside && (line.find("```") != std::string::npos || line.starts_with("~~~"))) {
      throw std::runtime_error(document + ":" + std::to_string(number) +
                               ": a block begins with ``` at the line's begin");
    }
  }
  if (inside) throw std::runtime_error(document + ": the last block is not closed");
}

// Names of the library are not qualified there.
void add_comment(const fs::path& root, const std::string& header, std::vector<Snippet>& snippets) {
  std::ifstream file(root / header);
  if (!file) throw std::runtime_error(header + " cannot be read");
  bool inside = false;
  int number = 0;
  for (std::string line; std::getline(file, line) && line.starts_with("//");) {
    ++number;
    const bool indented = line.starts_with("//     ");
    if (indented && !inside && line[7] != ' ')
      snippets.push_back({header, name_of(header, number), "using namespace hypertape;\n", number - 1});
    inside = indented && (inside || line[7] != ' ');
    if (inside) snippets.back().text += line.substr(2) + '\n';
  }
}

std::string place(const Snippet& snippet) {
  return "#line " + std::to_string(snippet.line) + " \"" + snippet.document + "\"\n";
}

// Its #include lines, and what is left with empty lines in their place.
std::pair<std::string, std::string> without_includes(const std::string& text) {
  std::string includes, rest;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    (line.starts_with("#include") ? includes : rest) += line;
    includes += '\n';
    rest += '\n';
    at = end + 1;
  }
  return {includes, rest};
}

void write(const fs::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (!file.flush()) throw std::runtime_error(path.string() + " cannot be written");
}

void write_sources(const fs::path& folder, const std::vector<Snippet>& snippets) {
  std::string fragments = "#include \"usual.h\"\n", programs, bodies, calls;
  for (const Snippet& snippet : snippets) {
    if (!snippet.is_program()) {
      fragments += "namespace {\nvoid " + snippet.name + "() {\n" + place(snippet) + snippet.text +
                   "}\n}  // namespace\n";
      continue;
    }
    auto [includes, body] = without_includes(snippet.text);
    body.insert(body.rfind('}'), "return 0; ");  // which only the one main may leave out
    programs += place(snippet) + includes;
    bodies += "namespace " + snippet.name + " {\n" + place(snippet) + body + "}\n";
    calls += "  if (" + snippet.name + "::main() != 0) return 1;\n";
  }
  write(folder / "fragments.cpp", fragments);
  write(folder / "programs.cpp", programs + bodies + "int main() {\n" + calls + "}\n");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) throw std::runtime_error("root, folder and documents?");
  std::vector<Snippet> snippets;
  for (int i = 3; i < argc; ++i) {
    if (std::string_view(argv[i]).ends_with(".h"))
      add_comment(argv[1], argv[i], snippets);
    else
      add_snippets(argv[1], argv[i], snippets);
  }
  write_sources(argv[2], snippets);
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
