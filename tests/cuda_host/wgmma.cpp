// The tile loop for Hopper, compiled for the host.
#include "api.h"
#include "wgmma_loop.cuh"

using namespace proto_engine;

namespace {

enum Element { kFloat16, kBFloat16 };
enum EpilogueName { kCount, kHistogram, kStore };

// The whole stored row, both halves of a split one: what the launcher tells the copy engine.
CUtensorMap map_of(const Operand& x, int64_t rows) {
  return {static_cast<const uint16_t*>(x.data), rows, x.segments == 1 ? x.dim : 2 * int64_t{x.dim}, x.stride};
}

template <class T, template <class> class Epilogue>
void tiles(const Work& work, const Operand& rows, int64_t num_rows, const Operand& columns, int64_t num_columns,
           const void* params) {
  using Loop = WgmmaLoop<T>;
  using Shared = TileShared<Loop, Epilogue<Loop>>;
  const auto copy = *static_cast<const typename Epilogue<Loop>::Params*>(params);
  const CUtensorMap rows_map = map_of(rows, num_rows), columns_map = map_of(columns, num_columns);
  cuda_host::Hopper::current().clear();
  run(Loop::kThreads, sizeof(Shared), [&] {
    cuda_host::Hopper::current().enter();
    wgmma_kernel<T, Epilogue<Loop>>(work, rows_map, columns_map, rows, columns, copy);
    cuda_host::Hopper::current().leave();
  });
}

template <class T>
void tiles(int64_t epilogue, const Work& work, const Operand& rows, int64_t num_rows, const Operand& columns,
           int64_t num_columns, const void* params) {
  if (epilogue == kCount) return tiles<T, CountEpilogue>(work, rows, num_rows, columns, num_columns, params);
  if (epilogue == kHistogram) return tiles<T, HistogramEpilogue>(work, rows, num_rows, columns, num_columns, params);
  if (epilogue == kStore) return tiles<T, StoreEpilogue>(work, rows, num_rows, columns, num_columns, params);
  throw std::runtime_error("no such epilogue");
}

}  // namespace

extern "C" {

void set_launch(int64_t x, int64_t y, int64_t seed) {
  next_launch = {static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<uint64_t>(seed)};
}

const char* run_wgmma(int64_t element, int64_t epilogue, const Work* work, const Operand* rows, int64_t num_rows,
                      const Operand* columns, int64_t num_columns, const void* params) {
  return guarded([&] {
    if (element == kFloat16)
      tiles<Float16>(epilogue, *work, *rows, num_rows, *columns, num_columns, params);
    else if (element == kBFloat16)
      tiles<BFloat16>(epilogue, *work, *rows, num_rows, *columns, num_columns, params);
    else
      throw std::runtime_error("tensor cores multiply float16 and bfloat16");
  });
}

}  // extern "C"
