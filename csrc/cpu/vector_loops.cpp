// This file is compiled three times: for x86-64 with AVX-512, with AVX2, and for any processor.
// PROTO_ENGINE_ISA names the variant. Vectors are the compiler's own (GCC and Clang), 8 doubles or
// 16 floats wide whatever the hardware has: narrower machines get two or four instructions each.
#include "vector_loops.h"

#include <cmath>
#include <limits>

#include "element.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

#define PROTO_ENGINE_JOIN2(a, b) a##b
#define PROTO_ENGINE_JOIN(a, b) PROTO_ENGINE_JOIN2(a, b)
#define PROTO_ENGINE_TEXT2(a) #a
#define PROTO_ENGINE_TEXT(a) PROTO_ENGINE_TEXT2(a)

namespace proto_engine {
namespace {

constexpr int kLanes = 8, kBlock = 256;  // part of the definition of S: never change one alone
typedef double Doubles __attribute__((vector_size(64)));
typedef float Floats8 __attribute__((vector_size(32)));

template <class T>
inline Doubles load_doubles(const T* p) {
  Doubles value;
  for (int l = 0; l < kLanes; ++l) value[l] = to_double(p[l]);
  return value;
}
template <>
inline Doubles load_doubles(const double* p) {
  Doubles value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
template <>
inline Doubles load_doubles(const float* p) {
  Floats8 value;
  std::memcpy(&value, p, sizeof value);
  return __builtin_convertvector(value, Doubles);
}
#if defined(__F16C__)
template <>
inline Doubles load_doubles(const Half* p) {
  const __m256 value = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return __builtin_convertvector(reinterpret_cast<const Floats8&>(value), Doubles);
}
#endif

// A last group shorter than eight is filled up with zeros: x + 0 changes nothing.
template <class T>
inline Doubles load_tail(const T* p, int64_t n) {
  Doubles value = {};
  for (int64_t l = 0; l < n; ++l) value[l] = to_double(p[l]);
  return value;
}

inline double fold(const Doubles& a) { return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7])); }

// Four sums at once: add(sum, load) adds the products of the eight columns that load(p) gives of a row p.
template <class Add>
inline void sum4(int64_t d, double out[4], const Add& add) {
  for (int t = 0; t < 4; ++t) out[t] = 0.0;
  for (int64_t begin = 0; begin < d; begin += kBlock) {
    Doubles sum[4] = {};
    const int64_t end = begin + kBlock < d ? begin + kBlock : d, whole = end - (end - begin) % kLanes;
#pragma GCC unroll 4  // the end of so short a loop would be mispredicted every time
    for (int64_t k = begin; k < whole; k += kLanes) add(sum, [k](const auto* p) { return load_doubles(p + k); });
    if (whole < end) add(sum, [whole, end](const auto* p) { return load_tail(p + whole, end - whole); });
    for (int t = 0; t < 4; ++t) out[t] += fold(sum[t]);
  }
}

template <class T>
void square4_of(const void* const a[4], int64_t d, double out[4]) {
  const auto row = [a](int t) { return static_cast<const T*>(a[t]); };
  sum4(d, out, [row](Doubles* sum, const auto& load) {
    for (int t = 0; t < 4; ++t) {
      const Doubles x = load(row(t));
      sum[t] += x * x;
    }
  });
}

template <class T>
void dot4_of(const void* const a[4], const void* const b[4], int64_t d, double out[4]) {
  const auto first = [a](int t) { return static_cast<const T*>(a[t]); };
  const auto second = [b](int t) { return static_cast<const T*>(b[t]); };
  sum4(d, out, [first, second](Doubles* sum, const auto& load) {
    for (int t = 0; t < 4; ++t) sum[t] += load(first(t)) * load(second(t));
  });
}

template <class T>
void dot2x2_of(const void* const a[2], const double* const b[4], int64_t d, double out[4]) {
  const auto row = [a](int t) { return static_cast<const T*>(a[t]); };
  sum4(d, out, [row, b](Doubles* sum, const auto& load) {
    for (int t = 0; t < 2; ++t) {
      const Doubles x = load(row(t));
      sum[2 * t] += x * load(b[2 * t]);
      sum[2 * t + 1] += x * load(b[2 * t + 1]);
    }
  });
}

template <class T>
void scale_of(const void* row, int64_t d, double inverse_norm, float* unit) {
  const T* x = static_cast<const T*>(row);
  const int64_t whole = d - d % kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) {
    const Floats8 value = __builtin_convertvector(load_doubles(x + k) * inverse_norm, Floats8);
    std::memcpy(unit + k, &value, sizeof value);
  }
  for (int64_t k = whole; k < d; ++k) unit[k] = static_cast<float>(to_double(x[k]) * inverse_norm);
}

// A loop for each of the stored types, and the choice among them.
#define PROTO_ENGINE_BY_TYPE(loop, ...) \
  switch (dtype) {                      \
    case DType::kFloat16:               \
      return loop<Half>(__VA_ARGS__);   \
    case DType::kBFloat16:              \
      return loop<BFloat>(__VA_ARGS__); \
    case DType::kFloat32:               \
      return loop<float>(__VA_ARGS__);  \
    case DType::kFloat64:               \
      return loop<double>(__VA_ARGS__); \
  }

void square4(DType dtype, const void* const a[4], int64_t d, double out[4]) {
  PROTO_ENGINE_BY_TYPE(square4_of, a, d, out);
}
void dot4(DType dtype, const void* const a[4], const void* const b[4], int64_t d, double out[4]) {
  PROTO_ENGINE_BY_TYPE(dot4_of, a, b, d, out);
}
void dot2x2(DType dtype, const void* const a[2], const double* const b[4], int64_t d, double out[4]) {
  PROTO_ENGINE_BY_TYPE(dot2x2_of, a, b, d, out);
}
void scale(DType dtype, const void* x, int64_t d, double inverse_norm, float* unit) {
  PROTO_ENGINE_BY_TYPE(scale_of, x, d, inverse_norm, unit);
}

int64_t scan_bracket(const float* s, int64_t n, float lo, float hi, int32_t* column_above, int32_t* inside,
                     int64_t* num_inside) {
  int64_t total = 0, found = 0, c = 0;
#if defined(__AVX512F__)
  const __m512 low = _mm512_set1_ps(lo), high = _mm512_set1_ps(hi);
  const __m512i one = _mm512_set1_epi32(1),
                ramp = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; c + 16 <= n; c += 16) {
    const __m512 value = _mm512_loadu_ps(s + c);
    const __mmask16 above = _mm512_cmp_ps_mask(value, high, _CMP_GT_OQ);
    const __mmask16 reach = _mm512_cmp_ps_mask(value, low, _CMP_GE_OQ);
    total += __builtin_popcount(above);
    const __m512i counts = _mm512_loadu_si512(column_above + c);
    _mm512_storeu_si512(column_above + c, _mm512_mask_add_epi32(counts, above, counts, one));
    const __mmask16 in = reach & static_cast<__mmask16>(~above);
    if (in) {
      const __m512i where = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int32_t>(c)), ramp);
      _mm512_storeu_si512(inside + found, _mm512_maskz_compress_epi32(in, where));
      found += __builtin_popcount(in);
    }
  }
#else
  // Chunks of 64: the two counts vectorize; only a chunk that holds an inside value is looked through.
  for (; c + 64 <= n; c += 64) {
    int32_t above = 0, reach = 0;
    for (int l = 0; l < 64; ++l) {
      const int32_t is_above = s[c + l] > hi;
      column_above[c + l] += is_above;
      above += is_above;
      reach += s[c + l] >= lo;
    }
    total += above;
    if (reach != above)
      for (int l = 0; l < 64; ++l)
        if (s[c + l] >= lo && !(s[c + l] > hi)) inside[found++] = static_cast<int32_t>(c + l);
  }
#endif
  for (; c < n; ++c) {
    const bool is_above = s[c] > hi;
    column_above[c] += is_above;
    total += is_above;
    if (s[c] >= lo && !is_above) inside[found++] = static_cast<int32_t>(c);
  }
  *num_inside = found;
  return total;
}

Top2 top2(const float* s, int64_t n) {
  constexpr int kWidth = 16;
  const float lowest = -std::numeric_limits<float>::infinity();
  float first[kWidth], second[kWidth];
  for (int l = 0; l < kWidth; ++l) first[l] = second[l] = lowest;
  int64_t c = 0;
  for (; c + kWidth <= n; c += kWidth) {
    for (int l = 0; l < kWidth; ++l) {
      const float value = s[c + l], loser = value > first[l] ? first[l] : value;
      first[l] = value > first[l] ? value : first[l];
      second[l] = loser > second[l] ? loser : second[l];
    }
  }
  Top2 best{lowest, lowest};
  const auto add = [&best](float value) {
    if (value > best.first) {
      best.second = best.first;
      best.first = value;
    } else if (value > best.second) {
      best.second = value;
    }
  };
  if (c > 0)
    for (int l = 0; l < kWidth; ++l) add(first[l]), add(second[l]);
  for (; c < n; ++c) add(s[c]);
  return best;
}

}  // namespace

extern const VectorLoops PROTO_ENGINE_JOIN(kVectorLoops_, PROTO_ENGINE_ISA);
const VectorLoops PROTO_ENGINE_JOIN(kVectorLoops_, PROTO_ENGINE_ISA) = {
    PROTO_ENGINE_TEXT(PROTO_ENGINE_ISA), square4, dot4, dot2x2, scale, scan_bracket, top2};

}  // namespace proto_engine
