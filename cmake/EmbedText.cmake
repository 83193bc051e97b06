# Writes a C++ source that holds a text file as a string:
#
#   cmake -D INPUT=digits.csv -D OUTPUT=digits.cpp -D HEADER=digits.h -D FUNCTION=digits_csv -P EmbedText.cmake
#
# The header declares `std::string_view <FUNCTION>()` in namespace hypertape.

file(READ "${INPUT}" text)
if(text MATCHES "\\)embedded\"")
  message(FATAL_ERROR "${INPUT} contains the delimiter of the raw string it should become")
endif()
file(WRITE "${OUTPUT}" "#include \"${HEADER}\"\n\nnamespace hypertape {\n\n"
                       "std::string_view ${FUNCTION}() noexcept {\n  return R\"embedded(${text})embedded\";\n}\n\n"
                       "}  // namespace hypertape\n")
