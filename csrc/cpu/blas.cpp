#include "blas.h"

#include <atomic>
#include <limits>
#include <stdexcept>

#include "proto_engine.h"

namespace proto_engine {
namespace {
std::atomic<SgemmFunction> g_sgemm{nullptr};
std::atomic<SsyrkFunction> g_ssyrk{nullptr};

int fortran_int(int64_t value) {
  if (value > std::numeric_limits<int>::max()) throw std::length_error("a matrix side exceeds a BLAS integer");
  return static_cast<int>(value);
}
}  // namespace

void set_blas(SgemmFunction sgemm, SsyrkFunction ssyrk) {
  g_sgemm = sgemm;
  g_ssyrk = ssyrk;
}

namespace {

// Read as Fortran matrices, a is A^T [d, rows] and c is C^T = op(B)^T A^T.
void call_sgemm(char op_b, const float* a, int64_t rows, int64_t lda, const float* b, int64_t columns, int64_t ldb,
                int64_t d, float* c, int64_t ldc) {
  const SgemmFunction sgemm = g_sgemm.load();
  if (!sgemm) throw std::logic_error("no BLAS was set");
  char plain = 'N';
  int m = fortran_int(columns), n = fortran_int(rows), k = fortran_int(d);
  int ld_b = fortran_int(ldb), ld_a = fortran_int(lda), ld_c = fortran_int(ldc);
  float one = 1.0f, zero = 0.0f;
  sgemm(&op_b, &plain, &m, &n, &k, &one, const_cast<float*>(b), &ld_b, const_cast<float*>(a), &ld_a, &zero, c, &ld_c);
}

}  // namespace

void multiply_transposed(const float* a, int64_t rows, int64_t lda, const float* b, int64_t columns, int64_t ldb,
                         int64_t d, float* c, int64_t ldc) {
  call_sgemm('T', a, rows, lda, b, columns, ldb, d, c, ldc);
}

// Read as Fortran matrices, a is A^T [d, rows], and the upper triangle of c is the lower one of C^T.
void multiply_own_transposed(const float* a, int64_t rows, int64_t lda, int64_t d, float* c, int64_t ldc) {
  const SsyrkFunction ssyrk = g_ssyrk.load();
  if (!ssyrk) throw std::logic_error("no BLAS was set");
  char lower = 'L', transposed = 'T';
  int n = fortran_int(rows), k = fortran_int(d), ld_a = fortran_int(lda), ld_c = fortran_int(ldc);
  float one = 1.0f, zero = 0.0f;
  ssyrk(&lower, &transposed, &n, &k, &one, const_cast<float*>(a), &ld_a, &zero, c, &ld_c);
}

void multiply(const float* a, int64_t rows, int64_t lda, const float* b, int64_t columns, int64_t ldb, int64_t d,
              float* c, int64_t ldc) {
  call_sgemm('N', a, rows, lda, b, columns, ldb, d, c, ldc);
}

}  // namespace proto_engine
