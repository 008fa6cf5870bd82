// Matrix tiles where a processor has them (AMX): eight registers of 16 lines of 64 bytes each, shaped once for a loop.
#pragma once
#if defined(__linux__) && defined(__AMX_INT8__) && defined(__AMX_BF16__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#define HAS_TILES 1

constexpr int TILE_BYTES = 1024;

// The system gives tiles to a process that asks.
inline bool has_tiles() {
  static const bool granted = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return granted;
}

// Compilers do not know what tile instructions read: what is at `memory` and elsewhere has to be written by now.
inline void have_written(const void* memory) { __asm__ volatile("" ::"r"(memory) : "memory"); }

// While it lives the thread's tiles are in use.
class ShapedTiles {
 public:
  explicit ShapedTiles(bool wanted) : wanted(wanted) {
    if (!wanted) return;
    Shape shape;
    for (int t = 0; t < 8; t++) shape.bytes[t] = 64, shape.lines[t] = 16;
    have_written(&shape);
    _tile_loadconfig(&shape);
  }
  ~ShapedTiles() {
    if (wanted) _tile_release();
  }
  ShapedTiles(const ShapedTiles&) = delete;

 private:
  struct alignas(64) Shape {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t lines[16] = {};
  };
  const bool wanted;
};
#else
#define HAS_TILES 0
inline bool has_tiles() { return false; }

struct ShapedTiles {
  explicit ShapedTiles(bool) {}
};
#endif
