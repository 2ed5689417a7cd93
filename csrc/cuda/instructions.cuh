// The instructions that C++ has no words for, one wrapper each. The tests' twins of them are in the header
// that stands in for CUDA there, under the same names.
#pragma once

#include "elements.cuh"

namespace proto_engine {

#if defined(PROTO_ENGINE_CUDA_HOST)
using cuda_host::cp_async_16;
using cuda_host::cp_async_commit;
using cuda_host::cp_async_wait;
using cuda_host::ldmatrix_x4;

__device__ inline void mma_16x8x16(Float16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  cuda_host::mma_16x8x16_f16(c, a, b0, b1);
}
__device__ inline void mma_16x8x16(BFloat16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  cuda_host::mma_16x8x16_bf16(c, a, b0, b1);
}
#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copy 16 bytes from global to shared memory in the background; the last 16 - bytes of them become zero.
__device__ inline void cp_async_16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
// Close the group of the copies since the last one.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Wait until this thread has no more than kPending groups under way.
template <int kPending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements: lane l names row l % 8 of matrix l / 8, 16 bytes of shared memory.
// out[q] of lane l then holds elements 2 (l % 4) and the next of row l / 4 of matrix q.
__device__ inline void ldmatrix_x4(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

// c [16, 8] += a [16, 16] b [8, 16]^T over a warp. Lane l holds of c the rows l / 4 and l / 4 + 8, columns
// 2 (l % 4) and the next: {row, row, row + 8, row + 8}.
__device__ inline void mma_16x8x16(Float16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void mma_16x8x16(BFloat16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

}  // namespace proto_engine
