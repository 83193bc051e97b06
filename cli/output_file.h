// A result file that is there whole or not at all.
#pragma once

#include <string>
#include <string_view>

namespace hypertape {

/// An open file or folder, closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) noexcept : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  int get() const noexcept { return number_; }
  bool is_open() const noexcept { return number_ >= 0; }
  int release() noexcept;
  /// 0, or errno: some file systems say only here that a write failed.
  int close() noexcept;

 private:
  int number_;
};

/// Where a result goes, opened before the work that would be lost.
///
/// A regular file is replaced: the new one is made beside it and renamed, so that no reader ever sees a part
/// of it and an error leaves what was there. It has the old one's owner and mode, and is on the disk when
/// write returns. Symbolic links are followed and stay. Only where that cannot be, the file is overwritten
/// instead: where it has other names (hard links), an owner that cannot be given, or a folder that cannot be
/// written.
///
/// /dev/stdout, /dev/fd/3 and whatever else is already open as the standard output or error, a pipe and a
/// device are written to as they are, at the end of what is there.
class OutputFile {
 public:
  /// Error if the path cannot be written, as far as the system can tell; nothing is changed.
  explicit OutputFile(std::string path);

  /// Once. Error if it fails, with no other file left behind.
  void write(std::string_view text);

 private:
  void open();
  void open_descriptor(int number);
  void open_special(const std::string& target);
  void open_regular(const std::string& target);

  std::string path_;
  Descriptor folder_;  // where the file is replaced
  std::string name_;   // in it
  Descriptor file_;    // what is written to: always, or where the file cannot be replaced
  bool appends_ = false;
};

/// Replaces the file `name` of an open folder as OutputFile does, or makes it. An owner or group that cannot
/// be given becomes the writer's, and then gets no rights that it did not have. Error names `path`.
void replace_file(int folder, const std::string& name, std::string_view text, const std::string& path);

/// 0 if files can be made in an open folder, or errno.
int trial_in(int folder);

/// Whether `name` is what replace_file calls a file while it is not whole: what a killed process leaves.
bool is_temporary_name(std::string_view name);

}  // namespace hypertape
