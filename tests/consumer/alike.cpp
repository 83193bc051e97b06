// A program that meets the library in strings and lists: linked with libraries compiled alike and otherwise.
#include <hypertape/core/error.h>

int main() {
  try {
    hypertape::fail("consumer", "refused");
  } catch (const hypertape::Error& error) {
    return error.operation() == "consumer" ? 0 : 1;
  }
}
