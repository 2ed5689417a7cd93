// `__shared__` variables become thread-locals of the library that holds the kernels, and nothing else there may be
// thread-local: so all of them lie in one piece, which the dynamic linker knows.
#pragma once

namespace cuda_host {

// Give every byte of them a value, as each block does before it begins.
void poison_static_shared(int value);

}  // namespace cuda_host
