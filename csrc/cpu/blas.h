// Matrix products belong to a BLAS; its functions arrive as pointers at run time.
#pragma once

#include <cstdint>

namespace proto_engine {

// c[i, j] = sum_k a[i, k] b[j, k].   a: [rows, d] stride lda, b: [columns, d] stride ldb, c: stride ldc.
void multiply_transposed(const float* a, int64_t rows, int64_t lda, const float* b, int64_t columns, int64_t ldb,
                         int64_t d, float* c, int64_t ldc);

// The same of a with itself, only where i <= j: about 0.6 times the time of the whole square.
void multiply_own_transposed(const float* a, int64_t rows, int64_t lda, int64_t d, float* c, int64_t ldc);

// c[i, j] = sum_k a[i, k] b[k, j].   a: [rows, d] stride lda, b: [d, columns] stride ldb, c: stride ldc.
void multiply(const float* a, int64_t rows, int64_t lda, const float* b, int64_t columns, int64_t ldb, int64_t d,
              float* c, int64_t ldc);

}  // namespace proto_engine
