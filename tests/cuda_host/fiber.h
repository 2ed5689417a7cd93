// Stacks, and changing over from one to another.
#pragma once

#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_host {

constexpr std::size_t kStackBytes = std::size_t{256} << 10;

// A stack, with a page below it that nobody may touch.
class Stack {
 public:
  Stack() : guard_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    base_ = mmap(nullptr, guard_ + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED || mprotect(base_, guard_, PROT_NONE) != 0) throw std::bad_alloc();
  }
  ~Stack() { munmap(base_, guard_ + kStackBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  void* bottom() const { return static_cast<char*>(base_) + guard_; }

 private:
  std::size_t guard_;
  void* base_;
};

// Stacks are used again: the one given back last comes first. Those of a launch that failed are given back as
// they are, whatever is on them.
class StackPool {
 public:
  Stack* take() {
    if (free_.empty()) {
      all_.push_back(std::make_unique<Stack>());
      free_.push_back(all_.back().get());
    }
    Stack* stack = free_.back();
    free_.pop_back();
    return stack;
  }
  void give_back(Stack* stack) { free_.push_back(stack); }

 private:
  std::vector<std::unique_ptr<Stack>> all_;
  std::vector<Stack*> free_;
};

// Something that runs on a stack: its own, or the one that the host came with.
struct Fiber {
#if defined(__x86_64__)
  void* top = nullptr;  // of its stack, below which the registers are kept
#else
  ucontext_t context;
#endif
  Stack* stack = nullptr;
  // What AddressSanitizer wants to know.
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  void* fake_stack = nullptr;
};

#if defined(__x86_64__)
// Keeps what a function must preserve on the stack that is left, and goes on where the other one was left. The
// portable way asks the system for its mask of signals each time, which takes ten times as long.
__attribute__((naked, noinline)) inline void switch_stacks(void** /* left */, void* /* wanted */) {
  asm("pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
      "movq %rsp, (%rdi); movq %rsi, %rsp\n"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret");
}
#endif

// Make `fiber` begin with entry() when it is changed over to.
inline void prepare(Fiber& fiber, Stack* stack, void (*entry)()) {
  fiber.stack = stack;
  fiber.bottom = stack->bottom();
  fiber.bytes = kStackBytes;
  fiber.fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack->bottom(), kStackBytes);
#endif
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(static_cast<char*>(stack->bottom()) + kStackBytes);
  *--top = nullptr;  // where entry() would return to
  *--top = reinterpret_cast<void*>(entry);
  for (int k = 0; k < 6; ++k) *--top = nullptr;  // registers
  fiber.top = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack->bottom();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#endif
}

// To be called by `here` whenever it has been changed over to; `host` is asked for its stack the first time,
// when only it can have been left.
inline void arrive(Fiber& here, Fiber& host) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(here.fake_stack, &bottom, &bytes);
  if (host.bottom == nullptr) {
    host.bottom = bottom;
    host.bytes = bytes;
  }
#else
  (void)here;
  (void)host;
#endif
}

inline void change_over(Fiber& from, Fiber& to, Fiber& host, bool for_good = false) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.bottom, to.bytes);
#else
  (void)for_good;
#endif
#if defined(__x86_64__)
  switch_stacks(&from.top, to.top);
#else
  swapcontext(&from.context, &to.context);
#endif
  arrive(from, host);
}

}  // namespace cuda_host
