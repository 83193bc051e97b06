#include "npz_file.h"

#include <zip.h>

#include <algorithm>
#include <memory>
#include <set>

#include <hypertape/core/error.h>

namespace hypertape {
namespace {

constexpr char reading[] = "read npz";
constexpr char writing[] = "write npz";
constexpr std::string_view suffix = ".npy";
constexpr zip_int64_t most_entries = 10'000;

// In words of our own, whatever the library calls it.
const char* cause_of(zip_error_t* error) {
  switch (zip_error_code_zip(error)) {
    case ZIP_ER_NOZIP:
      return "it has no directory, as if cut short or of another format";
    case ZIP_ER_CRC:
      return "its checksum does not fit its content: it is damaged";
    case ZIP_ER_MEMORY:
      return "memory is short";
    default:
      return "its parts contradict each other: it is damaged or cut short";
  }
}

class ZipError {
 public:
  ZipError() { zip_error_init(&error_); }
  ~ZipError() { zip_error_fini(&error_); }
  ZipError(const ZipError&) = delete;
  ZipError& operator=(const ZipError&) = delete;
  zip_error_t* get() { return &error_; }
  const char* text() { return cause_of(&error_); }

 private:
  zip_error_t error_;
};

struct Discard {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
struct FreeSource {
  void operator()(zip_source_t* source) const { zip_source_free(source); }
};
struct CloseFile {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using Archive = std::unique_ptr<zip_t, Discard>;
using Source = std::unique_ptr<zip_source_t, FreeSource>;
using File = std::unique_ptr<zip_file_t, CloseFile>;

void add_entry(zip_t* archive, const std::string& name, const std::string& bytes) {
  const auto refuse = [&] { fail(writing, "cannot add ", name, ": ", zip_strerror(archive)); };
  Source source(zip_source_buffer(archive, bytes.data(), bytes.size(), 0));
  if (!source) refuse();
  const zip_int64_t index =
      zip_file_add(archive, (name + std::string(suffix)).c_str(), source.get(), ZIP_FL_ENC_UTF_8);
  if (index < 0) refuse();
  (void)source.release();                             // the archive's now
  constexpr zip_uint16_t first_of_1980 = 1 << 5 | 1;  // the format's earliest date
  if (zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), ZIP_CM_STORE, 0) != 0 ||
      zip_file_set_dostime(archive, static_cast<zip_uint64_t>(index), 0, first_of_1980, 0) != 0)
    refuse();
}

std::string content_of(zip_source_t* source) {
  const auto refuse = [&] {
    fail(writing, "cannot make the archive: ", zip_error_strerror(zip_source_error(source)));
  };
  zip_stat_t stat;
  if (zip_source_stat(source, &stat) != 0 || zip_source_open(source) != 0) refuse();
  std::string bytes(stat.size, '\0');
  const zip_int64_t got = zip_source_read(source, bytes.data(), bytes.size());
  zip_source_close(source);
  if (got < 0 || static_cast<std::size_t>(got) != bytes.size()) refuse();
  return bytes;
}

std::string read_entry(zip_t* archive, zip_uint64_t index, std::size_t size, const std::string& name) {
  const File file(zip_fopen_index(archive, index, 0));
  if (!file) fail(reading, name, ": ", cause_of(zip_get_error(archive)));
  std::string bytes(size, '\0');
  std::size_t have = 0;
  char beyond;
  while (true) {
    // The checksum is compared when the end is met, hence one more byte is asked for.
    const bool all = have == size;
    const zip_int64_t got = zip_fread(file.get(), all ? &beyond : bytes.data() + have, all ? 1 : size - have);
    if (got < 0) fail(reading, name, ": ", cause_of(zip_file_get_error(file.get())));
    if (all && got == 0) return bytes;
    if (all || got == 0) fail(reading, name, ": its size is not what the archive says");
    have += static_cast<std::size_t>(got);
  }
}

}  // namespace

std::string npz_bytes(const NamedArrays& arrays) {
  ZipError error;
  const Source source(zip_source_buffer_create(nullptr, 0, 0, error.get()));
  if (!source) fail(writing, error.text());
  std::vector<std::string> contents;  // libzip reads them when it closes the archive
  contents.reserve(arrays.size());
  std::set<std::string> names;
  for (const auto& [name, array] : arrays) {
    if (!names.insert(name).second) fail(writing, "two arrays are called '", name, "'");
    contents.push_back(npy_bytes(array));
  }
  zip_source_keep(source.get());
  Archive archive(zip_open_from_source(source.get(), ZIP_TRUNCATE, error.get()));
  if (!archive) {
    zip_source_free(source.get());
    fail(writing, error.text());
  }
  for (std::size_t i = 0; i < arrays.size(); ++i) add_entry(archive.get(), arrays[i].first, contents[i]);
  if (zip_close(archive.get()) != 0) fail(writing, "cannot make the archive: ", zip_strerror(archive.get()));
  (void)archive.release();
  return content_of(source.get());
}

NamedArrays read_npz(std::string_view bytes, const std::string& name) {
  // libzip would take no bytes for an archive without entries.
  if (bytes.empty()) fail(reading, name, ": not a zip archive that can be read: it is empty");
  ZipError error;
  Source source(zip_source_buffer_create(bytes.data(), bytes.size(), 0, error.get()));
  if (!source) fail(reading, name, ": ", error.text());
  const Archive archive(zip_open_from_source(source.get(), ZIP_RDONLY | ZIP_CHECKCONS, error.get()));
  if (!archive) fail(reading, name, ": not a zip archive that can be read: ", error.text());
  (void)source.release();
  const zip_int64_t entries = zip_get_num_entries(archive.get(), 0);
  if (entries > most_entries) fail(reading, name, ": ", entries, " entries are too many");
  NamedArrays arrays;
  std::set<std::string> names;
  std::size_t total = 0;
  for (zip_uint64_t i = 0; i < static_cast<zip_uint64_t>(entries); ++i) {
    zip_stat_t stat;
    constexpr zip_uint64_t needed = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
                                    ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(archive.get(), i, 0, &stat) != 0 || (stat.valid & needed) != needed)
      fail(reading, name, ": entry ", i, " cannot be read: ", cause_of(zip_get_error(archive.get())));
    const std::string_view entry = stat.name;
    if (!entry.ends_with(suffix)) fail(reading, name, ": entry ", i, " is no .npy file");
    const std::string array_name(entry.substr(0, entry.size() - suffix.size()));
    if (!names.insert(array_name).second) fail(reading, name, ": two entries have the name of entry ", i);
    if (stat.comp_method != ZIP_CM_STORE || stat.encryption_method != ZIP_EM_NONE ||
        stat.size != stat.comp_size)
      fail(reading, name, ": entry ", i, " is compressed or encrypted; save with numpy.savez");
    // Entries of a well-formed archive do not overlap.
    if (stat.size > bytes.size() - total) fail(reading, name, ": entry ", i, " is larger than the file");
    total += static_cast<std::size_t>(stat.size);
    const std::string place = name + '/' + array_name;
    arrays.emplace_back(
        array_name,
        read_npy(read_entry(archive.get(), i, static_cast<std::size_t>(stat.size), place), place));
  }
  return arrays;
}

}  // namespace hypertape
