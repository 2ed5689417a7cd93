// Twins of the instructions that only Hopper has. Written from the PTX manual (the sections named in hopper.cuh),
// not from the kernel: addresses, swizzle, descriptors, phases and byte counts are worked out here on their own.
//
// What runs in the background on a GPU is put off here as long as the manual allows, and what nobody may look at
// meanwhile is poison: a copy lands, in any order, when somebody waits for a barrier that is not there yet; a
// product reads its operands when it is issued and again when it is waited for, and both must be the same.
#pragma once

#include <array>
#include <map>

#include "cuda_host.h"

#define __grid_constant__

// What the twin of the copy engine knows of a matrix of 16-bit elements.
struct alignas(64) CUtensorMap {
  const uint16_t* data;
  int64_t rows, width, stride;  // in elements
};

namespace cuda_host {

constexpr uint32_t kSharedBase = 1024;  // where dynamic shared memory begins in its window, as on the GPU
constexpr int kBoxColumns = 64, kBoxRows = 128;
constexpr int kWarpgroup = 4;  // warps
constexpr float kNothingYet = -12345.678f;

struct Barrier {
  uint32_t count, pending;  // arrivals
  int64_t bytes = 0;        // expected and not landed
  uint32_t phase = 0;       // the parity of the one under way
  bool visible = false;     // to the copy engine
  std::vector<unsigned> waiting;
};

struct BulkCopy {
  void* to;
  CUtensorMap map;
  uint64_t* barrier;
  int32_t x, y;
};

// What a warp reads of an operand for one product: rows of 16 elements.
using Fragment = std::vector<std::array<uint16_t, 16>>;

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

struct NamedBarrier {
  int threads = 0;
  std::vector<unsigned> waiting;
};

// The state of one block. The kernel is called between enter() and leave(), by every thread.
class Hopper {
 public:
  static Hopper& current() {
    static Hopper state;
    return state;
  }

  // Before a launch: one that failed may have left something behind.
  void clear() { *this = Hopper(); }
  void enter() { ++entered_; }
  void leave() {
    if (++left_ < blockDim.x) return;
    for (const auto& [word, barrier] : barriers_)
      if (barrier.pending != barrier.count || barrier.bytes != 0) fail("a block ended in the midst of a phase");
    if (!copies_.empty()) fail("a block ended while copies into its memory were under way");
    for (const auto& [index, warp] : warps_)
      if (!warp.under_way.empty()) fail("a block ended while products were under way");
    clear();
  }

  [[noreturn]] static void fail(const std::string& what) { Block::current()->fail(what); }

  Barrier& add_barrier(uint64_t* word, uint32_t count) {
    if (reinterpret_cast<uintptr_t>(word) % 8 || !Block::current()->is_shared(word, 8))
      fail("mbarrier.init: not eight aligned bytes of shared memory");
    if (count == 0 || count >= 1u << 20) fail("mbarrier.init: a count of 1 to 2^20 - 1");
    *word = marker(word);
    return barriers_[word] = Barrier{count, count};
  }
  Barrier& barrier(uint64_t* word) {
    const auto found = barriers_.find(word);
    if (found == barriers_.end()) fail("no mbarrier here");
    if (*word != marker(word)) fail("an mbarrier has been written over");
    return found->second;
  }
  void make_barriers_visible() {
    for (auto& [word, barrier] : barriers_) barrier.visible = true;
  }
  // After an arrival or a landing.
  static void look(Barrier& barrier) {
    if (barrier.pending > 0 || barrier.bytes != 0) return;
    barrier.phase ^= 1;
    barrier.pending = barrier.count;
    wake(barrier.waiting);
  }
  static void wake(std::vector<unsigned>& waiting) {
    for (const unsigned thread : waiting) Block::current()->make_ready(thread);
    waiting.clear();
  }

  void add_copy(const BulkCopy& copy) { copies_.push_back(copy); }
  // Let one of the copies land; false when there is none.
  bool land_one() {
    if (copies_.empty()) return false;
    Block& block = *Block::current();
    const auto which = copies_.begin() + static_cast<std::ptrdiff_t>(block.seeded() ? block.draw(copies_.size()) : 0);
    const BulkCopy copy = *which;
    copies_.erase(which);
    land(copy);
    return true;
  }

  TensorWarp& warp() { return warps_[Block::current()->thread().index / kWarpSize]; }
  NamedBarrier& named(int index) { return named_[index]; }

  // The warps of a warpgroup must all issue the same products.
  void check_sequence(const Product& product, std::size_t index) {
    auto& sequence = sequences_[Block::current()->thread().index / kWarpSize / kWarpgroup];
    const Same same{product.a, product.b, product.accumulate};
    if (index == sequence.size()) sequence.push_back(same);
    if (sequence[index] != same) fail("wgmma: the warps of a warpgroup disagree");
  }

 private:
  using Same = std::array<uint64_t, 3>;

  static uint64_t marker(const uint64_t* word) { return ~reinterpret_cast<uint64_t>(word); }
  void land(const BulkCopy& copy);

  std::map<uint64_t*, Barrier> barriers_;
  std::vector<BulkCopy> copies_;
  std::map<unsigned, TensorWarp> warps_;
  std::map<unsigned, std::vector<Same>> sequences_;
  std::map<int, NamedBarrier> named_;
  unsigned entered_ = 0, left_ = 0;
};

// ---- addresses ----------------------------------------------------------------------------------------------

inline uint32_t shared_address(const void* pointer) {
  Block& block = *Block::current();
  if (!block.is_shared(pointer, 0)) block.fail("an address that is not in shared memory");
  return kSharedBase + static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - block.shared());
}
inline unsigned char* at_shared_address(uint32_t address, std::size_t bytes) {
  Block& block = *Block::current();
  unsigned char* pointer = block.shared() + (static_cast<int64_t>(address) - kSharedBase);
  if (address < kSharedBase || !block.is_shared(pointer, bytes)) block.fail("an operand beyond shared memory");
  return pointer;
}
// The swizzle of 128 bytes: which of eight pieces of 16 bytes, by which of eight rows of 128.
inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

// ---- mbarrier -----------------------------------------------------------------------------------------------

inline void mbarrier_init(uint64_t* word, uint32_t count) { Hopper::current().add_barrier(word, count); }
inline void fence_mbarrier_init() { Hopper::current().make_barriers_visible(); }
inline void fence_proxy_async() {}

inline void mbarrier_arrive(uint64_t* word) {
  Barrier& barrier = Hopper::current().barrier(word);
  --barrier.pending;
  Hopper::look(barrier);
}
inline void mbarrier_arrive_expect_tx(uint64_t* word, uint32_t bytes) {
  Barrier& barrier = Hopper::current().barrier(word);
  barrier.bytes += bytes;
  if (barrier.bytes >= 1 << 20) Hopper::fail("mbarrier: more bytes than it can count");
  --barrier.pending;
  Hopper::look(barrier);
}
inline bool mbarrier_try_wait(uint64_t* word, uint32_t parity) {
  Block& block = *Block::current();
  if (parity > 1) block.fail("mbarrier.try_wait.parity: 0 or 1");
  if (block.seeded() && block.draw(4) == 0) block.give_way();
  Barrier& barrier = Hopper::current().barrier(word);
  if (barrier.phase != parity) return true;
  if (Hopper::current().land_one()) return barrier.phase != parity;
  barrier.waiting.push_back(block.thread().index);
  block.wait("mbarrier.try_wait");
  return barrier.phase != parity;
}

// ---- the copy engine ----------------------------------------------------------------------------------------

inline void tma_load_2d(void* shared, const CUtensorMap* map, uint64_t* word, int32_t x, int32_t y) {
  Block& block = *Block::current();
  constexpr std::size_t kBytes = kBoxRows * kBoxColumns * sizeof(uint16_t);
  if (shared_address(shared) % 128 || !block.is_shared(shared, kBytes))
    block.fail("cp.async.bulk.tensor: the destination must be shared memory, a multiple of 128");
  if (reinterpret_cast<uintptr_t>(map) % 64) block.fail("cp.async.bulk.tensor: the map must be a multiple of 64");
  Barrier& barrier = Hopper::current().barrier(word);
  if (!barrier.visible) block.fail("cp.async.bulk.tensor: nothing made the barrier visible to the copy engine");
  std::memset(shared, kPoison, kBytes);
  Hopper::current().add_copy({shared, *map, word, x, y});
  Hopper::wake(barrier.waiting);  // they see to it that the copy lands
}

inline void Hopper::land(const BulkCopy& copy) {
  const uint32_t begin = shared_address(copy.to);
  for (int r = 0; r < kBoxRows; ++r)
    for (int k = 0; k < kBoxColumns; ++k) {
      const int64_t row = int64_t{copy.y} + r, column = int64_t{copy.x} + k;
      const bool inside = row >= 0 && row < copy.map.rows && column >= 0 && column < copy.map.width;
      const uint16_t element = inside ? copy.map.data[row * copy.map.stride + column] : 0;
      const uint32_t address = swizzled(begin + static_cast<uint32_t>(r * kBoxColumns + k) * 2);
      std::memcpy(at_shared_address(address, 2), &element, 2);
    }
  Barrier& landed = barrier(copy.barrier);
  landed.bytes -= kBoxRows * kBoxColumns * 2;
  look(landed);
}

// ---- warps and groups of them -------------------------------------------------------------------------------

inline bool elect_one() {
  struct Slot {
    bool chosen;
  } slot{false};
  meet("elect.sync", slot, [](Slot** slots, int n) { slots[Block::current()->seeded() ? n / 3 : 0]->chosen = true; });
  return slot.chosen;
}

inline void named_barrier_sync(int index, int threads) {
  Block& block = *Block::current();
  if (index < 1 || index > 15 || threads % kWarpSize) block.fail("bar.sync: barriers 1 to 15, whole warps");
  NamedBarrier& barrier = Hopper::current().named(index);
  if (barrier.waiting.empty()) barrier.threads = threads;
  if (barrier.threads != threads) block.fail("bar.sync: threads do not agree on how many they are");
  if (static_cast<int>(barrier.waiting.size()) + 1 < threads) {
    barrier.waiting.push_back(block.thread().index);
    block.wait("bar.sync");
    return;
  }
  Hopper::wake(barrier.waiting);
  if (block.seeded()) block.give_way();
}

template <int kRegisters>
void set_registers() {
  static_assert(kRegisters >= 24 && kRegisters <= 256 && kRegisters % 8 == 0, "what setmaxnreg takes");
  char slot = 0;
  meet("setmaxnreg", slot, [](char**, int) {});
}
template <int kRegisters>
void set_registers_down() {
  set_registers<kRegisters>();
}
template <int kRegisters>
void set_registers_up() {
  set_registers<kRegisters>();
}

// ---- products -----------------------------------------------------------------------------------------------

// Rows `first` to first + count of an operand: consecutive along k, swizzled by 128 bytes.
inline Fragment read_operand(uint64_t descriptor, int first, int count) {
  const uint32_t start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  const uint32_t eight_rows = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1) Hopper::fail("wgmma: the twin knows the swizzle of 128 bytes only");
  if (descriptor >> 49 & 7) Hopper::fail("wgmma: the twin knows base offset 0 only");
  if (start % 128 > 128 - 32) Hopper::fail("wgmma: an operand that runs out of its 128 bytes");
  Fragment rows(static_cast<std::size_t>(count));
  for (int r = 0; r < count; ++r)
    for (int k = 0; k < 16; ++k) {
      const uint32_t row = static_cast<uint32_t>(first + r);
      const uint32_t address = swizzled(start + row / 8 * eight_rows + row % 8 * 128 + static_cast<uint32_t>(k) * 2);
      std::memcpy(&rows[static_cast<std::size_t>(r)][static_cast<std::size_t>(k)], at_shared_address(address, 2), 2);
    }
  return rows;
}
// The 16 rows of A that this warp multiplies, and all 128 of B.
inline void read_operands(Product& product) {
  const int warp = static_cast<int>(Block::current()->thread().index) / kWarpSize % kWarpgroup;
  product.left = read_operand(product.a, warp * 16, 16);
  product.right = read_operand(product.b, 0, 128);
}

inline void wgmma_fence(float (&)[64]) {
  char slot = 0;
  meet("wgmma.fence", slot, [](char**, int) { Hopper::current().warp().fenced = true; });
}

inline void wgmma_commit() {
  char slot = 0;
  meet("wgmma.commit_group", slot, [](char**, int) {
    for (Product& product : Hopper::current().warp().under_way) product.committed = true;
  });
}

inline void wgmma_64x128x16(float (&d)[64], uint64_t a, uint64_t b, bool accumulate, float (*to_float)(uint16_t)) {
  struct Slot {
    float* d;
    Product product;
  } slot{d, {a, b, accumulate, false, {}, {}, to_float}};
  meet("wgmma.mma_async", slot, [](Slot** slots, int n) {
    if (n != kWarpSize) Hopper::fail("wgmma: the warp is not whole");
    Product product = slots[0]->product;
    TensorWarp& warp = Hopper::current().warp();
    if (!warp.fenced) Hopper::fail("wgmma: no fence since the accumulators were touched");
    const bool first = warp.under_way.empty();
    for (int l = 0; l < n; ++l) {
      const auto lane = static_cast<std::size_t>(l);
      const Product& other = slots[l]->product;
      if (other.a != product.a || other.b != product.b || other.accumulate != product.accumulate)
        Hopper::fail("wgmma: the lanes of a warp disagree");
      if (!first && warp.accumulators[lane] != slots[l]->d) Hopper::fail("wgmma: one set of accumulators at a time");
      if (!first) continue;
      warp.accumulators[lane] = slots[l]->d;
      std::copy(slots[l]->d, slots[l]->d + 64, warp.sums[lane].begin());
      std::fill(slots[l]->d, slots[l]->d + 64, kNothingYet);
    }
    Hopper::current().check_sequence(product, warp.issued++);
    read_operands(product);
    warp.under_way.push_back(std::move(product));
  });
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

inline void wgmma_wait(float (&)[64]) {
  char slot = 0;
  meet("wgmma.wait_group", slot, [](char**, int) {
    TensorWarp& warp = Hopper::current().warp();
    warp.fenced = false;
    if (warp.under_way.empty()) return;
    for (const Product& product : warp.under_way) {
      if (!product.committed) Hopper::fail("wgmma: a wait for products that no group holds");
      Product again = product;
      read_operands(again);
      if (again.left != product.left || again.right != product.right)
        Hopper::fail("wgmma: an operand changed while it was being multiplied");
      multiply(warp, product);
    }
    for (std::size_t l = 0; l < kWarpSize; ++l)
      for (std::size_t i = 0; i < 64; ++i) {
        if (warp.accumulators[l][i] != kNothingYet) Hopper::fail("wgmma: accumulators touched before the wait");
        warp.accumulators[l][i] = warp.sums[l][i];
      }
    warp.under_way.clear();
  });
}

}  // namespace cuda_host
