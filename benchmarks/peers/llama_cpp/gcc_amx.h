/* Forced into llama.cpp's compilation (-include) where gcc is older than 12.4 or 13.3.
 *
 * gcc's _tile_loadconfig told the optimiser that it reads 8 of the 64 bytes of a tile
 * configuration, so -O3 dropped the stores to the rest and ldtilecfg faults: GCC PR
 * target/114098. Without this, llama.cpp crashes in its first prefill on AMX machines
 * with Debian 12's gcc 12.2, and leaving AMX out would make it slower than it is.
 */
#if defined(__GNUC__) && !defined(__clang__) && defined(__AMX_TILE__)
#include <immintrin.h>
#define _tile_loadconfig(config) \
    __asm__ volatile("ldtilecfg %0" ::"m"(*(const unsigned char(*)[64])(config)))
#endif
