#include "static_shared.h"

#include <link.h>

#include <cstddef>
#include <cstring>

namespace cuda_host {
namespace {

thread_local int anchor;  // makes sure that there is such a piece, and tells it from those of other libraries

struct Piece {
  unsigned char* begin = nullptr;
  std::size_t bytes = 0;
};

Piece find() {
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

}  // namespace

void poison_static_shared(int value) {
  static const Piece piece = find();  // launches all come from one thread
  if (piece.bytes) std::memset(piece.begin, value, piece.bytes);
}

}  // namespace cuda_host
