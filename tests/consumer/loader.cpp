// Loads the plugin while it runs, uses it and lets it go, and again: what stays loaded has to go on working.
#include <dlfcn.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  for (int time = 0; time < 3; ++time) {
    void* plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (plugin == nullptr) {
      std::cerr << dlerror() << '\n';
      return 1;
    }
    const auto use = reinterpret_cast<int (*)()>(dlsym(plugin, "use_hypertape"));
    if (use == nullptr || use() < 1 || dlclose(plugin) != 0) return 1;
  }
  return 0;
}
