// The kernels, compiled for the host, as C functions. Each returns null, or what went wrong.
#include "api.h"
#include "bracket.cuh"
#include "finish.cuh"
#include "lists.cuh"
#include "mma_loop.cuh"
#include "peaks.cuh"
#include "rows.cuh"
#include "simt_loop.cuh"
#include "tile_kernel.cuh"

using namespace proto_engine;

namespace {

enum Element { kFloat16, kBFloat16, kFloat32, kFloat64 };
enum LoopName { kSimt, kMma };
enum EpilogueName { kCount, kHistogram, kStore };

template <class Loop, template <class> class Epilogue>
void tiles(const Work& work, const Operand& rows, const Operand& columns, const void* params) {
  using Params = typename Epilogue<Loop>::Params;
  const Params copy = *static_cast<const Params*>(params);
  run(Loop::kThreads, sizeof(TileShared<Loop, Epilogue<Loop>>),
      [&] { tile_kernel<Loop, Epilogue<Loop>>(work, rows, columns, copy); });
}

template <class Loop>
void tiles(int64_t epilogue, const Work& work, const Operand& rows, const Operand& columns, const void* params) {
  switch (epilogue) {
    case kCount:
      return tiles<Loop, CountEpilogue>(work, rows, columns, params);
    case kHistogram:
      return tiles<Loop, HistogramEpilogue>(work, rows, columns, params);
    case kStore:
      return tiles<Loop, StoreEpilogue>(work, rows, columns, params);
  }
  throw std::runtime_error("no such epilogue");
}

// f(T{}) for the type of the elements.
template <class F>
void with_element(int64_t element, F&& f) {
  switch (element) {
    case kFloat16:
      return f(Float16{});
    case kBFloat16:
      return f(BFloat16{});
    case kFloat32:
      return f(float{});
    case kFloat64:
      return f(double{});
  }
  throw std::runtime_error("no such element");
}

}  // namespace

extern "C" {

// Every number comes as int64_t or double.
void set_launch(int64_t x, int64_t y, int64_t seed) {
  next_launch = {static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<uint64_t>(seed)};
}

const char* run_tiles(int64_t loop, int64_t element, int64_t epilogue, const Work* work, const Operand* rows,
                      const Operand* columns, const void* params) {
  return guarded([&] {
    if (loop == kSimt)
      with_element(element, [&](auto t) { tiles<SimtLoop<decltype(t)>>(epilogue, *work, *rows, *columns, params); });
    else if (element == kFloat16)
      tiles<MmaLoop<Float16>>(epilogue, *work, *rows, *columns, params);
    else if (element == kBFloat16)
      tiles<MmaLoop<BFloat16>>(epilogue, *work, *rows, *columns, params);
    else
      throw std::runtime_error("tensor cores multiply float16 and bfloat16");
  });
}

}  // extern "C"
