// Marks in the instruction stream, which the virtual phone's counter (harness/virtual/count.c) sees.
#pragma once

namespace mobilepack {

enum class Mark : long { prefill = 1, decode = 2, end = 3 };

// A system call of a number that no kernel has: it fails at once, and qemu's plugin hears of it.
// Nothing happens unless MOBILEPACK_MARKS is set, so no real phone ever sees it.
void mark_instructions(Mark mark);

}  // namespace mobilepack
