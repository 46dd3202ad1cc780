/* Preloaded first. Code for Android reads its stack guard 0x28 bytes behind the thread pointer; glibc
 * keeps thread-local variables there. This block, aligned to 64 bytes, moves the first of them to
 * 0x40, so that what is read does not change while a function runs. */
#ifndef NOTHING
__thread char mobilepack_gap[64] __attribute__((aligned(64), tls_model("initial-exec"))) = {1};
char* mobilepack_gap_of_this_thread(void) { return mobilepack_gap; }
#endif
