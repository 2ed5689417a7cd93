// The instructions that only Hopper has (sm_90a), one wrapper each. Numbers in brackets are sections of the PTX
// ISA 9.0; the other wrappers are described there under the name of the instruction. The tests have a twin of
// each in the header that is included for them, under the same name.
#pragma once

#include "instructions.cuh"

#if defined(__CUDACC_RTC__)
struct alignas(64) CUtensorMap {
  unsigned long long opaque[16];
};
#else
#include <cuda.h>
#endif
#if defined(PROTO_ENGINE_CUDA_HOST)
#include "hopper_twin.h"
#endif

// Whether this pass of the compiler may use them: the pass for sm_90a, and the host's, which only parses them.
#if defined(PROTO_ENGINE_CUDA_HOST) || !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PROTO_ENGINE_HOPPER 1
#else
#define PROTO_ENGINE_HOPPER 0
#endif

namespace proto_engine {

#if defined(PROTO_ENGINE_CUDA_HOST)
using cuda_host::cluster_rank;
using cuda_host::cluster_sync;
using cuda_host::elect_one;
using cuda_host::fence_mbarrier_init;
using cuda_host::fence_proxy_async;
using cuda_host::mbarrier_arrive;
using cuda_host::mbarrier_arrive_at;
using cuda_host::mbarrier_arrive_expect_tx;
using cuda_host::mbarrier_init;
using cuda_host::mbarrier_try_wait;
using cuda_host::named_barrier_sync;
using cuda_host::set_registers_down;
using cuda_host::set_registers_up;
using cuda_host::shared_address;
using cuda_host::store_async;
using cuda_host::tma_load_2d;
using cuda_host::tma_load_2d_multicast;
using cuda_host::wgmma_commit;
using cuda_host::wgmma_fence;
using cuda_host::wgmma_wait;

__device__ inline void wgmma_64x128x16(Float16, float (&d)[64], uint64_t a, uint64_t b, bool accumulate) {
  cuda_host::wgmma_64x128x16(d, a, b, accumulate, cuda_host::half_to_float);
}
__device__ inline void wgmma_64x128x16(BFloat16, float (&d)[64], uint64_t a, uint64_t b, bool accumulate) {
  cuda_host::wgmma_64x128x16(d, a, b, accumulate, cuda_host::bfloat_to_float);
}
#elif PROTO_ENGINE_HOPPER

// mbarrier: 64 bits in shared memory. A phase ends when as many arrivals as `count` have been made
// and as many bytes have landed as were expected. Phases have parity 0, 1, 0, ...
__device__ inline void mbarrier_init(uint64_t* barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
// Makes the initialization visible to the copy engine.
__device__ inline void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// Orders what this thread wrote to shared memory before what the copy engine and the tensor cores do there.
__device__ inline void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ inline void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Expect so many bytes more in this phase, then arrive.
__device__ inline void mbarrier_arrive_expect_tx(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Whether the phase of this parity has ended: true where the phase under way has the other
// parity, so that on a fresh barrier parity 1 has "ended". Suspends the thread for a while before it says no.
__device__ inline bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity) {
  uint32_t ended;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(ended)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return ended != 0;
}

// One box of a matrix into shared memory, its first element at column x of row y; zeros for what lies outside
// the matrix. The box's bytes, zeros included, count towards the barrier's phase.
__device__ inline void tma_load_2d(void* shared, const CUtensorMap* map, uint64_t* barrier, int32_t x, int32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(shared_address(shared)),
      "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier))
      : "memory");
}

// Clusters: blocks that run at the same time and reach each other's shared memory. All blocks of a launch have the
// same layout there, so that an address in one's own block names its counterpart in another.

// Which of the cluster's blocks this one is.
__device__ inline uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// A barrier of all threads of all blocks of the cluster; what they wrote to shared memory before is seen after.
__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
// Arrive at the barrier of block `rank` that is in the place of this one. It says that this thread has read, not
// that others may read what it wrote: a release for the whole cluster would wait for all its writes to the GPU.
__device__ inline void mbarrier_arrive_at(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}
// A number to the place in block `rank` that is `to` in this one, in the background: its bytes count towards the
// barrier in the place of `barrier` there, and who has waited for that barrier reads it [9.7.9.12].
#define PROTO_ENGINE_STORE_ASYNC(type, values)  \
  "{\n.reg .b32 there, barrier;\n"              \
  "mapa.shared::cluster.u32 there, %0, %2;\n"   \
  "mapa.shared::cluster.u32 barrier, %1, %2;\n" \
  "st.async.shared::cluster.mbarrier::complete_tx::bytes." type " [there], " values ", [barrier];\n}"
__device__ inline void store_async(uint32_t* to, uint64_t* barrier, uint32_t rank, uint32_t value) {
  asm volatile(PROTO_ENGINE_STORE_ASYNC("b32", "%3")::"r"(shared_address(to)), "r"(shared_address(barrier)),
               "r"(rank), "r"(value)
               : "memory");
}
__device__ inline void store_async(float* to, uint64_t* barrier, uint32_t rank, float value) {
  store_async(reinterpret_cast<uint32_t*>(to), barrier, rank, __float_as_uint(value));
}
// Two numbers; `to` is a multiple of eight bytes.
__device__ inline void store_async(float* to, uint64_t* barrier, uint32_t rank, float first, float second) {
  asm volatile(PROTO_ENGINE_STORE_ASYNC("v2.b32", "{%3, %4}")::"r"(shared_address(to)), "r"(shared_address(barrier)),
               "r"(rank), "r"(__float_as_uint(first)), "r"(__float_as_uint(second))
               : "memory");
}
__device__ inline void store_async(double* to, uint64_t* barrier, uint32_t rank, double value) {
  asm volatile(PROTO_ENGINE_STORE_ASYNC("b64", "%3")::"r"(shared_address(to)), "r"(shared_address(barrier)),
               "r"(rank), "l"(__double_as_longlong(value))
               : "memory");
}
#undef PROTO_ENGINE_STORE_ASYNC
// tma_load_2d for several blocks at once, those whose bits are set in `blocks`: the box lands in the same place of
// each, and its bytes count towards the barrier in the same place of each.
__device__ inline void tma_load_2d_multicast(void* shared, const CUtensorMap* map, uint64_t* barrier, int32_t x,
                                             int32_t y, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(shared)),
      "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier)), "h"(blocks)
      : "memory");
}

// One lane of the warp, the same at every call.
__device__ inline bool elect_one() {
  uint32_t elected;
  asm volatile(
      "{\n.reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(elected)::"memory");
  return elected != 0;
}

// A barrier of some of the block's threads: `threads` of them, whole warps. Barrier 0 is __syncthreads.
__device__ inline void named_barrier_sync(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Registers a thread, for all warps of a warpgroup: given back, or asked for until they are there.
template <int kRegisters>
__device__ inline void set_registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void set_registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Accumulators are named as operands of the fence and of the wait too, or the compiler would be free to use
// them while the tensor cores do.
#define PROTO_ENGINE_ACCUMULATORS                                                                             \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), \
      "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),  \
      "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), \
      "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), \
      "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), \
      "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), \
      "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), \
      "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define PROTO_ENGINE_ACCUMULATOR_NAMES                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// Before the first product after the accumulators have been touched.
__device__ inline void wgmma_fence(float (&d)[64]) {
  asm volatile("wgmma.fence.sync.aligned;" : PROTO_ENGINE_ACCUMULATORS::"memory");
}
// Close the group of the products since the last one.
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Wait until all groups of this warp are done.
__device__ inline void wgmma_wait(float (&d)[64]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : PROTO_ENGINE_ACCUMULATORS::"memory");
}

// d [64, 128] = (accumulate ? d : 0) + a [64, 16] b [128, 16]^T over a warpgroup, in the background
// [9.7.15.5.2]. Both operands lie in shared memory, consecutive along k ("K-major", no transposition). Thread t
// holds of d, in d[4 q + 2 r + e], row 16 (t / 32) + t % 32 / 4 + 8 r and column 8 q + 2 (t % 4) + e
// [9.7.15.5.1.1.1, accumulator D].
#define PROTO_ENGINE_WGMMA(type)                                                                       \
  asm volatile(                                                                                        \
      "{\n.reg .pred p;\n"                                                                             \
      "setp.ne.b32 p, %66, 0;\n"                                                                       \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" PROTO_ENGINE_ACCUMULATOR_NAMES \
      "}, %64, %65, p, 1, 1, 0, 0;\n}"                                                                 \
      : PROTO_ENGINE_ACCUMULATORS                                                                      \
      : "l"(a), "l"(b), "r"(static_cast<int32_t>(accumulate))                                          \
      : "memory")

__device__ inline void wgmma_64x128x16(Float16, float (&d)[64], uint64_t a, uint64_t b, bool accumulate) {
  PROTO_ENGINE_WGMMA("f16");
}
__device__ inline void wgmma_64x128x16(BFloat16, float (&d)[64], uint64_t a, uint64_t b, bool accumulate) {
  PROTO_ENGINE_WGMMA("bf16");
}
#undef PROTO_ENGINE_WGMMA
#undef PROTO_ENGINE_ACCUMULATOR_NAMES
#undef PROTO_ENGINE_ACCUMULATORS

#endif

// How the tensor cores find an operand whose rows are 128 bytes of shared memory, stored with the swizzle of
// 128 bytes: 16-byte piece q of row r lies at place q ^ (r % 8) of its row [9.7.15.5.1.2.1, 9.7.15.5.1.2.2].
//   bits 0-13   start address / 16
//   bits 16-29  leading dimension offset / 16: has no meaning for K-major swizzled operands, "assumed to be 1"
//   bits 32-45  stride dimension offset / 16: from eight rows to the next eight, 8 * 128 bytes
//   bits 49-51  base offset: 0, because the pattern starts at a multiple of 1024 bytes
//   bits 62-63  swizzle: 1 = 128 bytes
// The swizzle works on address bits (4-6 ^= 7-9), so that a step of 16 elements along k, 32 bytes within the
// row, is a plain addition to the start address: it touches bits 5 and 6 only.
__device__ inline uint64_t swizzled_operand(uint32_t address) {
  constexpr uint64_t kLeading = 1, kStride = 8 * 128 >> 4, kSwizzle128 = 1;
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | kLeading << 16 | kStride << 32 | kSwizzle128 << 62;
}

}  // namespace proto_engine
