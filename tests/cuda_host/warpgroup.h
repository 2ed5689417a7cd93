// Twin of the products that a warpgroup makes on Hopper's tensor cores. Written from the PTX manual (9.7.15), not
// from the kernel: descriptors, swizzle and the accumulators' places are worked out here on their own.
//
// A product reads its operands when it is issued and again when it is waited for, and must find the same both
// times: the manual leaves open when in between they are read. Its accumulators are poison till then.
#pragma once

#include <array>

#include "bulk_copy.h"
#include "tensor_cores.h"

namespace cuda_host {

constexpr unsigned kWarpgroup = 4;  // warps
constexpr float kNothingYet = -12345.678f;

using Fragment = std::vector<std::array<uint16_t, 16>>;  // rows of 16 elements

struct Product {
  uint64_t a, b;  // descriptors
  bool accumulate, committed;
  Fragment left, right;
  float (*to_float)(uint16_t);
};

struct TensorWarp {
  bool fenced = false;
  std::vector<Product> under_way;
  std::array<std::array<float, 64>, kWarpSize> sums;  // of the products under way
  std::array<float*, kWarpSize> accumulators{};
  std::size_t issued = 0;
};

struct TensorWarps {
  using Issued = std::array<uint64_t, 3>;
  std::map<unsigned, TensorWarp> warps;
  std::map<unsigned, std::vector<Issued>> sequences;  // what the warps of a warpgroup issue, all of them the same

  bool at_rest() const {
    bool rest = true;
    for (const auto& [index, warp] : warps) rest = rest && warp.under_way.empty();
    return rest;
  }
  static TensorWarp& current() {
    return block_local<TensorWarps>().warps[Block::current()->thread().index / kWarpSize];
  }
};

// Rows `first` to first + count of an operand: consecutive along k, swizzled by 128 bytes.
inline Fragment read_operand(uint64_t descriptor, uint32_t first, uint32_t count) {
  const uint32_t start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  const uint32_t eight_rows = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
    Block::current()->fail("wgmma: the twin knows the swizzle of 128 bytes and base offset 0 only");
  if (start % 128 > 128 - 32) Block::current()->fail("wgmma: an operand that runs out of its 128 bytes");
  Fragment rows(count);
  for (uint32_t r = 0; r < count; ++r)
    for (uint32_t k = 0; k < 16; ++k) {
      const uint32_t address = start + (first + r) / 8 * eight_rows + (first + r) % 8 * 128 + k * 2;
      std::memcpy(&rows[r][k], at_shared_address(swizzled(address), 2), 2);
    }
  return rows;
}
// The 16 rows of A that this warp multiplies, and all 128 of B.
inline void read_operands(Product& product) {
  const uint32_t warp = Block::current()->thread().index / kWarpSize % kWarpgroup;
  product.left = read_operand(product.a, warp * 16, 16);
  product.right = read_operand(product.b, 0, 128);
}

// Of lane l, d[4 q + 2 h + e] is row l / 4 + 8 h of the warp's 16 and column 8 q + 2 (l % 4) + e.
inline void multiply(TensorWarp& warp, const Product& product) {
  double left[16][16], right[128][16];
  for (std::size_t k = 0; k < 16; ++k) {
    for (std::size_t r = 0; r < 16; ++r) left[r][k] = static_cast<double>(product.to_float(product.left[r][k]));
    for (std::size_t r = 0; r < 128; ++r) right[r][k] = static_cast<double>(product.to_float(product.right[r][k]));
  }
  for (std::size_t l = 0; l < kWarpSize; ++l)
    for (std::size_t i = 0; i < 64; ++i) {
      const std::size_t row = l / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + l % 4 * 2 + i % 2;
      float& sum = warp.sums[l][i];
      if (!product.accumulate) sum = 0.0f;
      for (int k0 = 0; k0 < 16; k0 += kStep) {
        double terms[kStep];
        for (int k = 0; k < kStep; ++k) terms[k] = left[row][k0 + k] * right[column][k0 + k];
        sum = add_aligned(sum, terms);
      }
    }
}

// ---- the instructions ---------------------------------------------------------------------------------------

inline void wgmma_fence(float (&)[64]) {
  char slot = 0;
  meet("wgmma.fence", slot, [](char**, int) { TensorWarps::current().fenced = true; });
}

inline void wgmma_commit() {
  char slot = 0;
  meet("wgmma.commit_group", slot, [](char**, int) {
    for (Product& product : TensorWarps::current().under_way) product.committed = true;
  });
}

inline void wgmma_64x128x16(float (&d)[64], uint64_t a, uint64_t b, bool accumulate, float (*to_float)(uint16_t)) {
  struct Slot {
    float* d;
    Product product;
  } slot{d, {a, b, accumulate, false, {}, {}, to_float}};
  meet("wgmma.mma_async", slot, [](Slot** slots, int n) {
    Block& block = *Block::current();
    TensorWarp& warp = TensorWarps::current();
    if (n != kWarpSize) block.fail("wgmma: the warp is not whole");
    if (!warp.fenced) block.fail("wgmma: no fence since the accumulators were touched");
    Product product = slots[0]->product;
    const bool first = warp.under_way.empty();
    for (std::size_t l = 0; l < kWarpSize; ++l) {
      const Product& other = slots[l]->product;
      if (other.a != product.a || other.b != product.b || other.accumulate != product.accumulate)
        block.fail("wgmma: the lanes of a warp disagree");
      if (!first && warp.accumulators[l] != slots[l]->d) block.fail("wgmma: one set of accumulators at a time");
      if (!first) continue;
      warp.accumulators[l] = slots[l]->d;
      std::copy(slots[l]->d, slots[l]->d + 64, warp.sums[l].begin());
      std::fill(slots[l]->d, slots[l]->d + 64, kNothingYet);
    }
    auto& sequence = block_local<TensorWarps>().sequences[block.thread().index / kWarpSize / kWarpgroup];
    const TensorWarps::Issued issued{product.a, product.b, product.accumulate};
    if (warp.issued == sequence.size()) sequence.push_back(issued);
    if (sequence[warp.issued++] != issued) block.fail("wgmma: the warps of a warpgroup disagree");
    read_operands(product);
    warp.under_way.push_back(std::move(product));
  });
}

inline void wgmma_wait(float (&)[64]) {
  char slot = 0;
  meet("wgmma.wait_group", slot, [](char**, int) {
    Block& block = *Block::current();
    TensorWarp& warp = TensorWarps::current();
    warp.fenced = false;
    for (const Product& product : warp.under_way) {
      if (!product.committed) block.fail("wgmma: a wait for products that no group holds");
      Product again = product;
      read_operands(again);
      if (again.left != product.left || again.right != product.right)
        block.fail("wgmma: an operand changed while it was being multiplied");
      multiply(warp, product);
    }
    for (std::size_t l = 0; l < kWarpSize && !warp.under_way.empty(); ++l)
      for (std::size_t i = 0; i < 64; ++i) {
        if (warp.accumulators[l][i] != kNothingYet) block.fail("wgmma: accumulators touched before the wait");
        warp.accumulators[l][i] = warp.sums[l][i];
      }
    warp.under_way.clear();
  });
}

}  // namespace cuda_host
