/* A disk that fails, or a process that is killed, at the n-th operation on files under a folder.
 *
 * LD_PRELOAD it, with FAULT_FOLDER; FAULT_HOW: kill, enospc or eio; FAULT_AT: the number of the
 * operation, from 1. From then on every operation that takes space fails. FAULT_MARK is a file,
 * elsewhere, that is made where it strikes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long count = 0, at = 0;
static int how = 0; /* 0 only counts, 1 kills, else an errno */

static void setup(void) {
  static int done = 0;
  if (done) return;
  done = 1;
  const char *mode = getenv("FAULT_HOW"), *number = getenv("FAULT_AT");
  if (!mode || !number) return;
  at = atol(number);
  how = !strcmp(mode, "kill") ? 1 : !strcmp(mode, "eio") ? EIO : !strcmp(mode, "enospc") ? ENOSPC : 0;
}

static int inside(const char *path) {
  const char *folder = getenv("FAULT_FOLDER");
  return folder && path && !strncmp(path, folder, strlen(folder));
}

static int inside_fd(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return inside(path);
}

/* 0, or the errno with which an operation on the folder fails. */
static int strike(void) {
  pthread_mutex_lock(&lock);
  setup();
  long now = ++count;
  pthread_mutex_unlock(&lock);
  if (!at || now < at) return 0;
  const char *mark = getenv("FAULT_MARK");
  if (mark) close(syscall(SYS_openat, AT_FDCWD, mark, O_CREAT | O_WRONLY, 0644));
  if (how == 1) kill(getpid(), SIGKILL);
  return how > 1 ? how : 0;
}

static int fails(int is_inside) {
  if (!is_inside) return 0;
  int error = strike();
  if (!error) return 0;
  errno = error;
  return 1;
}

#define REAL(name) \
  static __typeof__(name) *real = 0; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
    if ((flags & (O_CREAT | O_WRONLY | O_RDWR)) && fails(inside(path))) return -1; \
    return real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    REAL(name); \
    va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
    if ((flags & (O_CREAT | O_WRONLY | O_RDWR)) && fails(inside(path))) return -1; \
    return real(folder, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  return fails(inside_fd(fd)) ? -1 : real(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t where) {
  REAL(pwrite);
  return fails(inside_fd(fd)) ? -1 : real(fd, data, size, where);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t where) {
  REAL(pwrite64);
  return fails(inside_fd(fd)) ? -1 : real(fd, data, size, where);
}
ssize_t writev(int fd, const struct iovec *data, int parts) {
  REAL(writev);
  return fails(inside_fd(fd)) ? -1 : real(fd, data, parts);
}
int fsync(int fd) {
  REAL(fsync);
  return fails(inside_fd(fd)) ? -1 : real(fd);
}
int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  return fails(inside(path)) ? -1 : real(path, mode);
}
int rename(const char *from, const char *to) {
  REAL(rename);
  return fails(inside(to)) ? -1 : real(from, to);
}

/* To take away is possible on a full disk; a kill may come in the middle all the same. */
int unlink(const char *path) {
  REAL(unlink);
  if (inside(path)) strike();
  return real(path);
}
int unlinkat(int folder, const char *path, int flags) {
  REAL(unlinkat);
  if (inside_fd(folder) || inside(path)) strike();
  return real(folder, path, flags);
}
int rmdir(const char *path) {
  REAL(rmdir);
  if (inside(path)) strike();
  return real(path);
}
