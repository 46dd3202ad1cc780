// A plug-in of qemu's user emulation (plug-in interface 1, qemu 7.2) that counts the instructions of
// the emulated program between the marks of the native runner (harness/native/src/marks.h).
//
// Writes one line `MARK COUNT` per mark, and `exit COUNT` at the end, to the file in `out=`.
// The interface is declared here because Debian ships no header of it.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>

extern "C" {
typedef uint64_t qemu_plugin_id_t;
struct qemu_info_t;
struct qemu_plugin_tb;
typedef void (*on_translate_t)(qemu_plugin_id_t, qemu_plugin_tb*);
typedef void (*on_system_call_t)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                 uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
typedef void (*on_exit_t)(qemu_plugin_id_t, void*);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, on_translate_t);
size_t qemu_plugin_tb_n_insns(const qemu_plugin_tb*);
void qemu_plugin_register_vcpu_tb_exec_inline(qemu_plugin_tb*, int operation, void*, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, on_system_call_t);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, on_exit_t, void*);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
}

namespace {

constexpr int64_t kMark = 0x6d70;
constexpr int kAdd = 0;  // QEMU_PLUGIN_INLINE_ADD_U64

uint64_t count = 0;
FILE* out = nullptr;

void on_translate(qemu_plugin_id_t, qemu_plugin_tb* block) {
  qemu_plugin_register_vcpu_tb_exec_inline(block, kAdd, &count, qemu_plugin_tb_n_insns(block));
}

void on_system_call(qemu_plugin_id_t, unsigned, int64_t number, uint64_t mark, uint64_t, uint64_t,
                    uint64_t, uint64_t, uint64_t, uint64_t, uint64_t) {
  if (number == kMark) std::fprintf(out, "%" PRIu64 " %" PRIu64 "\n", mark, count);
}

void on_exit(qemu_plugin_id_t, void*) {
  std::fprintf(out, "exit %" PRIu64 "\n", count);
  std::fclose(out);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id,
                                                                          const qemu_info_t*,
                                                                          int argc, char** argv) {
  for (int i = 0; i < argc; ++i) {
    if (std::strncmp(argv[i], "out=", 4) == 0) out = std::fopen(argv[i] + 4, "w");
  }
  if (out == nullptr) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
  qemu_plugin_register_atexit_cb(id, on_exit, nullptr);
  return 0;
}
