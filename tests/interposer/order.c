/* Told to the loader before a program's own libraries (LD_PRELOAD): writes down, in one order, what the program writes
 * to files below a folder, what of it is synced, and what it says on sockets. A test then builds the files as a disk would
 * have them that lost all unsynced writes at any of these moments.
 *
 * ORDER_FOLDER  the folder, absolute
 * ORDER_LOG     where it is written down: a line for each event, bytes behind some
 *
 *   W OFFSET LENGTH PATH  a write, its bytes behind
 *   T LENGTH PATH         another length
 *   S PATH                synced, a file or a folder
 *   C PATH                made
 *   U PATH                removed
 *   R FROM<tab>TO         renamed
 *   A LENGTH              about to be said on a socket, its bytes behind
 *
 * One lock is held over each call and its line: the order of the lines is the order of what happened. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static const char *folder;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("ORDER_LOG");
    folder = getenv("ORDER_FOLDER");
    if (path && folder)
        journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length > 0) {
        long done = syscall(SYS_write, journal, at, length);
        if (done <= 0)
            abort(); /* A journal with holes proves nothing. */
        at += done;
        length -= (size_t)done;
    }
}

static void line(const char *format, ...) {
    char text[2 * PATH_MAX + 64];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    put(text, (size_t)length);
}

static int below(const char *path) {
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* The path of a descriptor below the folder, or 0. */
static int known(int fd, char *path) {
    char link[64];
    if (journal < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return below(path);
}

static int is_socket(int fd) {
    struct stat stat;
    return journal >= 0 && fstat(fd, &stat) == 0 && S_ISSOCK(stat.st_mode);
}

static void said(const struct iovec *parts, int count) {
    size_t length = 0;
    for (int at = 0; at < count; at++)
        length += parts[at].iov_len;
    line("A %zu\n", length);
    for (int at = 0; at < count; at++)
        put(parts[at].iov_base, parts[at].iov_len);
}

static ssize_t written(int fd, const void *bytes, size_t length, off_t offset, int positioned) {
    char path[PATH_MAX];
    int saved;
    ssize_t done;
    pthread_mutex_lock(&lock);
    int ours = known(fd, path);
    if (!positioned && ours) {
        int flags = fcntl(fd, F_GETFL);
        struct stat stat;
        offset = lseek(fd, 0, SEEK_CUR);
        if ((flags & O_APPEND) && fstat(fd, &stat) == 0)
            offset = stat.st_size;
    }
    if (!ours && !positioned && is_socket(fd)) {
        struct iovec part = {(void *)bytes, length};
        said(&part, 1);
    }
    done = positioned ? REAL(pwrite64)(fd, bytes, length, offset) : REAL(write)(fd, bytes, length);
    saved = errno;
    if (ours && done > 0) {
        line("W %lld %zd %s\n", (long long)offset, done, path);
        put(bytes, (size_t)done);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) { return written(fd, bytes, length, 0, 0); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return written(fd, bytes, length, offset, 1);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return written(fd, bytes, length, offset, 1);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    if (known(fd, path))
        abort(); /* Not expected of files: it would have to be written down. */
    if (is_socket(fd))
        said(parts, count);
    ssize_t done = REAL(writev)(fd, parts, count);
    int saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    pthread_mutex_lock(&lock);
    struct iovec part = {(void *)bytes, length};
    if (journal >= 0)
        said(&part, 1);
    ssize_t done = REAL(send)(fd, bytes, length, flags);
    int saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    pthread_mutex_lock(&lock);
    if (journal >= 0)
        said(message->msg_iov, (int)message->msg_iovlen);
    ssize_t done = REAL(sendmsg)(fd, message, flags);
    int saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}

static int synced(int fd, int data_alone) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = known(fd, path);
    int done = data_alone ? REAL(fdatasync)(fd) : REAL(fsync)(fd);
    int saved = errno;
    if (ours && done == 0)
        line("S %s\n", path);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
int fsync(int fd) { return synced(fd, 0); }
int fdatasync(int fd) { return synced(fd, 1); }

static int resized(int fd, off64_t length) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int ours = known(fd, path);
    int done = REAL(ftruncate64)(fd, length);
    int saved = errno;
    if (ours && done == 0)
        line("T %lld %s\n", (long long)length, path);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
int ftruncate64(int fd, off64_t length) { return resized(fd, length); }
int ftruncate(int fd, off_t length) { return resized(fd, length); }

static int opened(const char *name, int at, const char *path, int flags, mode_t mode) {
    (void)name;
    char found[PATH_MAX];
    struct stat stat;
    pthread_mutex_lock(&lock);
    int missing = journal >= 0 && (flags & O_CREAT) && fstatat(at, path, &stat, 0) != 0;
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    int saved = errno;
    if (fd >= 0 && (missing || (flags & O_TRUNC)) && known(fd, found)) {
        if (missing)
            line("C %s\n", found);
        else
            line("T 0 %s\n", found);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}
#define MODE(flags, mode)                      \
    mode_t mode = 0;                           \
    if ((flags) & (O_CREAT | O_TMPFILE)) {     \
        va_list arguments;                     \
        va_start(arguments, flags);            \
        mode = va_arg(arguments, mode_t);      \
        va_end(arguments);                     \
    }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return opened("open64", AT_FDCWD, path, flags, mode); }
int open(const char *path, int flags, ...) { MODE(flags, mode) return opened("open", AT_FDCWD, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, mode) return opened("openat64", at, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode) return opened("openat", at, path, flags, mode); }

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    int done = REAL(rename)(from, to);
    int saved = errno;
    if (journal >= 0 && done == 0 && below(to))
        line("R %s\t%s\n", from, to);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int done = REAL(unlink)(path);
    int saved = errno;
    if (journal >= 0 && done == 0 && below(path))
        line("U %s\n", path);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
