/* What Android's C library has and glibc lacks or has otherwise, for the imports of
 * libexecutorch.so, libfbjni.so and libc++_shared.so. Imports that exist in both and differ are
 * renamed to bionic_*: see RENAMED in conftest.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int* __errno(void) { return __errno_location(); }

/* stdin, stdout and stderr are the elements of an array of 152 bytes each. */
char __sF[3][152];

static FILE* stream(void* file) {
  if (file == __sF[0]) return stdin;
  if (file == __sF[1]) return stdout;
  return file == __sF[2] ? stderr : file;
}

int bionic_vfprintf(void* file, const char* format, va_list arguments) {
  return vfprintf(stream(file), format, arguments);
}

int bionic_fprintf(void* file, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int count = vfprintf(stream(file), format, arguments);
  va_end(arguments);
  return count;
}

size_t bionic_fwrite(const void* from, size_t size, size_t count, void* file) {
  return fwrite(from, size, count, stream(file));
}

int bionic_fputs(const char* text, void* file) { return fputs(text, stream(file)); }
int bionic_fputc(int character, void* file) { return fputc(character, stream(file)); }
int bionic_fflush(void* file) { return fflush(file ? stream(file) : NULL); }

/* bits/sysconf.h of bionic counts from 0 in POSIX's order, glibc in another. */
long bionic_sysconf(int name) {
  switch (name) {
    case 0x27:
    case 0x28: return sysconf(_SC_PAGESIZE);
    case 0x60: return sysconf(_SC_NPROCESSORS_CONF);
    case 0x61: return sysconf(_SC_NPROCESSORS_ONLN);
    case 0x62: return sysconf(_SC_PHYS_PAGES);
    default: return sysconf(name);
  }
}

/* A mutex has 40 bytes there and 48 here, of which the last 8 are never used: keep off them. */
int bionic_mutex_init(void* mutex, const pthread_mutexattr_t* attributes) {
  pthread_mutex_t own;
  const int status = pthread_mutex_init(&own, attributes);
  memcpy(mutex, &own, 40);
  return status;
}

int bionic_strerror_r(int error, char* buffer, size_t size) {
  return __xpg_strerror_r(error, buffer, size);
}

char* __gnu_strerror_r(int error, char* buffer, size_t size) {
  return strerror_r(error, buffer, size);
}

int __android_log_vprint(int priority, const char* tag, const char* format, va_list arguments) {
  if (priority < 6) return 0; /* errors and worse */
  fprintf(stderr, "%s: ", tag ? tag : "");
  vfprintf(stderr, format, arguments);
  return fputc('\n', stderr);
}

int __android_log_print(int priority, const char* tag, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int status = __android_log_vprint(priority, tag, format, arguments);
  va_end(arguments);
  return status;
}

int __android_log_write(int priority, const char* tag, const char* text) {
  return __android_log_print(priority, tag, "%s", text);
}

void __android_log_assert(const char* condition, const char* tag, const char* format, ...) {
  fprintf(stderr, "%s: %s %s\n", tag ? tag : "", condition ? condition : "", format ? format : "");
  abort();
}

void __assert2(const char* file, int line, const char* function, const char* text) {
  fprintf(stderr, "%s:%d %s: %s\n", file, line, function, text);
  abort();
}

void android_set_abort_message(const char* text) { fprintf(stderr, "abort: %s\n", text); }
int __system_property_get(const char* name, char* value) { return (void)name, *value = 0; }
void __gcov_dump(void) {}
void __gcov_flush(void) {}

/* _FORTIFY_SOURCE's variants, without the check. */
char* __strchr_chk(const char* s, int c, size_t size) { return (void)size, strchr(s, c); }
char* __strrchr_chk(const char* s, int c, size_t size) { return (void)size, strrchr(s, c); }
size_t __strlen_chk(const char* s, size_t size) { return (void)size, strlen(s); }
ssize_t __write_chk(int file, const void* from, size_t count, size_t size) {
  return (void)size, write(file, from, count);
}
