/*
** The VFS's host over files of the system, for tests: a file is opened by its
** path when it is needed, made when it is written to, and has no bytes while
** it does not exist. As in OPFS, nothing but its size tells whether it exists.
**
** In C, for the suite that runs on it calls SQLite with a Python exception
** pending, which callbacks in Python do not survive.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 128

static struct {
  char *path;
  int fd;
} files[FILES];
static int used;

/* The number of a file; -1: there are too many. */
int host_name(const char *path) {
  if (used == FILES) return -1;
  files[used].path = strdup(path);
  files[used].fd = -1;
  return used++;
}

/* Its descriptor; -1: it does not exist. What was removed is opened anew. */
static int descriptor(int file, int create) {
  struct stat open_file, named;
  int fd = files[file].fd;
  if (fd >= 0 && fstat(fd, &open_file) == 0 && stat(files[file].path, &named) == 0 &&
      open_file.st_dev == named.st_dev && open_file.st_ino == named.st_ino)
    return fd;
  if (fd >= 0) close(fd);
  files[file].fd = open(files[file].path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
  return files[file].fd;
}

int host_read(int file, void *to, int n, double at) {
  int fd = descriptor(file, 0);
  if (fd < 0) return errno == ENOENT ? 0 : -1;
  return (int)pread(fd, to, (size_t)n, (off_t)at);
}

int host_write(int file, const void *from, int n, double at) {
  int fd = descriptor(file, 1);
  return fd < 0 ? -1 : (int)pwrite(fd, from, (size_t)n, (off_t)at);
}

int host_truncate(int file, double size) {
  int fd = descriptor(file, size > 0);
  if (fd < 0) return errno == ENOENT && size == 0 ? 0 : -1;
  return ftruncate(fd, (off_t)size);
}

double host_size(int file) {
  struct stat status;
  int fd = descriptor(file, 0);
  if (fd < 0) return errno == ENOENT ? 0 : -1;
  return fstat(fd, &status) ? -1 : (double)status.st_size;
}

int host_flush(int file) {
  (void)file; /* nothing here is cut short */
  return 0;
}
