// `__shared__` variables become thread-locals of the test library, and nothing else in it may be thread-local:
// so all of them lie in one piece, which the dynamic linker knows and which each block finds poisoned.
#pragma once

#include <link.h>

#include <cstdint>
#include <cstring>

namespace cuda_host {

inline thread_local int static_shared_anchor;  // makes sure that there is such a piece for this thread

inline void poison_static_shared(int value) {
  static_shared_anchor = value;
  const auto poison = [](dl_phdr_info* module, std::size_t, void* wanted) {
    auto* begin = static_cast<unsigned char*>(module->dlpi_tls_data);
    for (int i = 0; begin && i < module->dlpi_phnum; ++i) {
      if (module->dlpi_phdr[i].p_type != PT_TLS) continue;
      const std::size_t bytes = module->dlpi_phdr[i].p_memsz;
      auto* anchor = reinterpret_cast<unsigned char*>(&static_shared_anchor);
      if (anchor < begin || anchor >= begin + bytes) continue;
      std::memset(begin, *static_cast<int*>(wanted), bytes);
      return 1;
    }
    return 0;
  };
  dl_iterate_phdr(poison, &value);
}

}  // namespace cuda_host
