// Which variant of the vector loops runs on this processor.
#include <atomic>
#include <cstring>

#include "vector_loops.h"

namespace proto_engine {

extern const VectorLoops kVectorLoops_baseline;
#if defined(PROTO_ENGINE_X86)
extern const VectorLoops kVectorLoops_avx2;
extern const VectorLoops kVectorLoops_avx512;
#endif

namespace {

const VectorLoops* find(const char* name) {
#if defined(PROTO_ENGINE_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (!std::strcmp(name, "avx512"))
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
               ? &kVectorLoops_avx512
               : nullptr;
  if (!std::strcmp(name, "avx2")) return avx2 ? &kVectorLoops_avx2 : nullptr;
#endif
  return std::strcmp(name, "baseline") ? nullptr : &kVectorLoops_baseline;
}

const VectorLoops* best() {
  for (const char* name : {"avx512", "avx2", "baseline"})
    if (const VectorLoops* loops = find(name)) return loops;
  return &kVectorLoops_baseline;
}

std::atomic<const VectorLoops*>& chosen() {
  static std::atomic<const VectorLoops*> loops{best()};
  return loops;
}

}  // namespace

const VectorLoops& vector_loops() { return *chosen().load(std::memory_order_relaxed); }
const char* instruction_set() { return vector_loops().name; }

bool use_instruction_set(const char* name) {
  const VectorLoops* loops = find(name);
  if (loops) chosen().store(loops);
  return loops != nullptr;
}

}  // namespace proto_engine
