// Twins of the instructions that feed the tensor cores, and of the tensor cores themselves.
//
// Where a lane's elements lie is taken from the PTX manual: "Matrix Fragments for mma.m16n8k16 with floating
// point type" and "ldmatrix".
#pragma once

#include <cmath>

#include "half.h"
#include "warp.h"

namespace cuda_host {

// A copy is put off until a wait demands it, and its destination is poison till then: what is read without a
// wait, or overwritten while it is still being read, shows.
inline void cp_async_16(void* shared, const void* global, int bytes) {
  Block& block = *Block::current();
  if (reinterpret_cast<uintptr_t>(shared) % 16 || reinterpret_cast<uintptr_t>(global) % 16)
    block.fail("cp.async: both addresses must be multiples of 16");
  if (!block.is_shared(shared, 16)) block.fail("cp.async: the destination is not shared memory");
  if (bytes < 0 || bytes > 16) block.fail("cp.async: 0 to 16 bytes");
  std::memset(shared, kPoison, 16);
  block.thread().copies.push_back({shared, global, bytes, block.thread().groups});
}

inline void cp_async_commit() { ++Block::current()->thread().groups; }

template <int kPending>
void cp_async_wait() {
  Thread& thread = Block::current()->thread();
  std::size_t done = 0;
  for (; done < thread.copies.size() && thread.copies[done].group < thread.groups - kPending; ++done) {
    const Copy& copy = thread.copies[done];
    unsigned char piece[16] = {};
    std::memcpy(piece, copy.from, static_cast<std::size_t>(copy.bytes));
    std::memcpy(copy.to, piece, 16);
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

// Lane 8 q + r names row r of matrix q. Register q of lane l gets elements 2 (l % 4) and 2 (l % 4) + 1 of row
// l / 4 of matrix q, the first of them in the low half.
inline void ldmatrix_x4(uint32_t (&out)[4], const void* row) {
  struct Slot {
    const void* row;
    uint32_t (*out)[4];
  } slot{row, &out};
  Block& block = *Block::current();
  if (reinterpret_cast<uintptr_t>(row) % 16) block.fail("ldmatrix: a row must begin at a multiple of 16");
  if (!block.is_shared(row, 16)) block.fail("ldmatrix: the row is not shared memory");
  meet("ldmatrix", slot, [](Slot** slots, int n) {
    if (n != kWarpSize) Block::current()->fail("ldmatrix: the warp is not whole");
    for (int q = 0; q < 4; ++q)
      for (int l = 0; l < kWarpSize; ++l)
        std::memcpy(&(*slots[l]->out)[q], static_cast<const char*>(slots[8 * q + l / 4]->row) + l % 4 * 4, 4);
  });
}

constexpr int kStep = 8;          // products that tensor cores add at once to a sum
constexpr int kAlignedBits = 24;  // of each addend, below the leading bit of the greatest

// 2^e, for the exponents of products of two narrow numbers.
inline double power_of_two(int e) { return same_bits<double>(static_cast<uint64_t>(1023 + e) << 52); }

// sum + terms[0] + ... as tensor cores add them: the addends are aligned to the greatest and cut off
// below kAlignedBits, added exactly, and the result is cut off to float32. This is how an A100 was found to
// add (Fasi, Higham, Mikaitis, Pranesh: "Numerical behavior of NVIDIA tensor cores", 2021); a H100 cuts off
// later, none rounds to nearest.
inline float add_aligned(float sum, const double (&terms)[kStep]) {
  double greatest = std::fabs(static_cast<double>(sum)), plain = static_cast<double>(sum);
  for (const double term : terms) {
    greatest = std::fabs(term) > greatest ? std::fabs(term) : greatest;
    plain += term;
  }
  if (greatest == 0.0 || !std::isfinite(plain)) return static_cast<float>(plain);
  const int exponent = static_cast<int>(same_bits<uint64_t>(greatest) >> 52) - 1023;
  const double to_units = power_of_two(kAlignedBits - exponent), unit = power_of_two(exponent - kAlignedBits);
  auto units = static_cast<int64_t>(static_cast<double>(sum) * to_units);
  for (const double term : terms) units += static_cast<int64_t>(term * to_units);
  const double exact = static_cast<double>(units) * unit;
  const float rounded = static_cast<float>(exact);
  return std::fabs(static_cast<double>(rounded)) > std::fabs(exact) ? std::nextafter(rounded, 0.0f) : rounded;
}

// c [16, 8] += a [16, 16] b [16, 8]. Of lane l, with g = l / 4 and t = 2 (l % 4):
//   a0..a7: rows g, g, g + 8, g + 8 and again; columns t, t + 1, t, t + 1, then the same plus 8
//   b0..b3: rows t, t + 1, t + 8, t + 9 of column g
//   c0..c3: rows g, g, g + 8, g + 8; columns t, t + 1, t, t + 1
template <float (*kToFloat)(uint16_t)>
void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Slot {
    float (*c)[4];
    uint32_t a[4], b[2];
  } slot{&c, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  meet("mma", slot, [](Slot** slots, int n) {
    if (n != kWarpSize) Block::current()->fail("mma: the warp is not whole");
    const auto element = [](const uint32_t* registers, int i) {
      return static_cast<double>(kToFloat(static_cast<uint16_t>(registers[i / 2] >> (16 * (i % 2)))));
    };
    double left[16][16], right[8][16];  // both with k along the row
    for (int l = 0; l < kWarpSize; ++l) {
      const int g = l / 4, t = l % 4 * 2;
      for (int i = 0; i < 8; ++i)
        left[i < 2 || (4 <= i && i < 6) ? g : g + 8][t + i % 2 + (i < 4 ? 0 : 8)] = element(slots[l]->a, i);
      for (int i = 0; i < 4; ++i) right[g][t + i % 2 + (i < 2 ? 0 : 8)] = element(slots[l]->b, i);
    }
    for (int l = 0; l < kWarpSize; ++l)
      for (int i = 0; i < 4; ++i) {
        const double* x = left[i < 2 ? l / 4 : l / 4 + 8];
        const double* y = right[l % 4 * 2 + i % 2];
        float& sum = (*slots[l]->c)[i];
        for (int k0 = 0; k0 < 16; k0 += kStep) {
          double terms[kStep];
          for (int k = 0; k < kStep; ++k) terms[k] = x[k0 + k] * y[k0 + k];
          sum = add_aligned(sum, terms);
        }
      }
  });
}

inline void mma_16x8x16_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma_16x8x16<half_to_float>(c, a, b0, b1);
}
inline void mma_16x8x16_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma_16x8x16<bfloat_to_float>(c, a, b0, b1);
}

}  // namespace cuda_host
