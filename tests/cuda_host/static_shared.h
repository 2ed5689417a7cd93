// `__shared__` variables become thread-locals of the library that holds the kernels, and nothing else there may be
// thread-local: so all of them lie in one piece, which the dynamic linker knows.
#pragma once

#include <link.h>

#include <cstddef>
#include <cstring>

namespace cuda_host {

// Hidden: each library has its own of all this.
#define PROTO_ENGINE_OWN __attribute__((visibility("hidden"))) inline

PROTO_ENGINE_OWN thread_local int anchor;  // there is such a piece, and this tells it from other libraries'

struct Piece {
  unsigned char* begin = nullptr;
  std::size_t bytes = 0;
};

PROTO_ENGINE_OWN Piece find_static_shared() {
  anchor = 1;
  Piece found;
  const auto look = [](dl_phdr_info* library, std::size_t, void* result) {
    auto* begin = static_cast<unsigned char*>(library->dlpi_tls_data);
    const auto* wanted = reinterpret_cast<const unsigned char*>(&anchor);
    for (int i = 0; begin && i < library->dlpi_phnum; ++i) {
      const std::size_t bytes = library->dlpi_phdr[i].p_memsz;
      if (library->dlpi_phdr[i].p_type != PT_TLS || wanted < begin || wanted >= begin + bytes) continue;
      *static_cast<Piece*>(result) = {begin, bytes};
      return 1;
    }
    return 0;
  };
  dl_iterate_phdr(look, &found);
  return found;
}

PROTO_ENGINE_OWN const Piece& static_shared() {
  static const Piece piece = find_static_shared();  // launches all come from one thread
  return piece;
}

// What a block has in them, before another goes on and after.
PROTO_ENGINE_OWN void save_static_shared(unsigned char* to) {
  if (static_shared().bytes) std::memcpy(to, static_shared().begin, static_shared().bytes);
}
PROTO_ENGINE_OWN void load_static_shared(const unsigned char* from) {
  if (static_shared().bytes) std::memcpy(static_shared().begin, from, static_shared().bytes);
}

}  // namespace cuda_host
