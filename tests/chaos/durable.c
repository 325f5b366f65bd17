/* What a power loss leaves: preloaded into Shoal's processes, it keeps beside every file a copy of what was synced.
 *
 * fsync and fdatasync of a file below one of DURABLE_ROOTS (separated by colons) mirror the file's content into
 * DIRECTORY/.durable/f-INODE; fsync of a directory mirrors its entries into DIRECTORY/.durable/d-INODE. Nothing else
 * does: a file that was never synced is empty after a power loss, and a name whose directory was not synced since is
 * not there. INODE is the inode's number and birth, because numbers are used again. tests/chaos/power.py rebuilds
 * the tree from these copies. A copy that can't be made fails the sync: then nothing was promised.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHADOW ".durable"
#define CHUNK (64 * 1024)

static int below_a_root(const char *path)
{
    const char *root = getenv("DURABLE_ROOTS");
    while (root && *root) {
        size_t length = strcspn(root, ":");
        if (length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]))
            return 1;
        root += length + (root[length] == ':');
    }
    return 0;
}

static int identity(int directory, const char *name, int flags, char *out, size_t size)
{
    struct statx status;
    if (statx(directory, name, flags, STATX_INO | STATX_BTIME, &status))
        return -1;
    if (!(status.stx_mask & STATX_BTIME)) {
        errno = ENOTSUP;
        return -1;
    }
    snprintf(out, size, "%llu-%lld-%u", (unsigned long long)status.stx_ino, (long long)status.stx_btime.tv_sec,
             status.stx_btime.tv_nsec);
    return 0;
}

static int shadow_of(const char *directory)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/" SHADOW, directory) >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (mkdir(path, 0777) && errno != EEXIST)
        return -1;
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int write_at(int fd, const char *data, size_t size, off_t offset)
{
    while (size) {
        ssize_t done = pwrite(fd, data, size, offset);
        if (done < 0)
            return -1;
        data += done, size -= done, offset += done;
    }
    return 0;
}

/* Write only what differs: a log that grows costs what was added to it. */
static int copy(int source, int target)
{
    char *new = malloc(2 * CHUNK), *old = new + CHUNK;
    off_t offset = 0;
    ssize_t got = -1;
    while (new && (got = pread(source, new, CHUNK, offset)) > 0) {
        ssize_t had = pread(target, old, got, offset);
        if ((had != got || memcmp(new, old, got)) && write_at(target, new, got, offset)) {
            got = -1;
            break;
        }
        offset += got;
    }
    free(new);
    return got < 0 ? -1 : ftruncate(target, offset);
}

static int mirror_file(int fd, char *path)
{
    char name[96] = "f-", self[64];
    int shadow, source, target, result = -1;
    if (identity(fd, "", AT_EMPTY_PATH, name + 2, sizeof name - 2))
        return -1;
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    *strrchr(path, '/') = 0;
    if ((shadow = shadow_of(path)) < 0)
        return -1;
    source = open(self, O_RDONLY | O_CLOEXEC);
    target = openat(shadow, name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (source >= 0 && target >= 0)
        result = copy(source, target);
    close(source);
    close(target);
    close(shadow);
    return result;
}

static int list(int fd, FILE *out)
{
    int reading = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result = 0;
    DIR *entries = reading < 0 ? NULL : fdopendir(reading);
    struct dirent *entry;
    if (!entries)
        return -1;
    while (!result && (entry = readdir(entries))) {
        char id[96], target[PATH_MAX] = "";
        struct stat status;
        char kind;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !strcmp(entry->d_name, SHADOW))
            continue;
        if (fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) ||
            identity(fd, entry->d_name, AT_SYMLINK_NOFOLLOW, id, sizeof id)) {
            result = errno == ENOENT ? 0 : -1; /* removed meanwhile */
            continue;
        }
        kind = S_ISREG(status.st_mode) ? 'f' : S_ISDIR(status.st_mode) ? 'd' : S_ISLNK(status.st_mode) ? 'l' : 0;
        if (!kind)
            continue; /* sockets */
        if (kind == 'l' && readlinkat(fd, entry->d_name, target, sizeof target - 1) < 0)
            result = -1;
        fprintf(out, "%c\t%s\t%o\t%u\t%u\t%s\t%s\n", kind, id, status.st_mode & 07777, status.st_uid, status.st_gid,
                entry->d_name, target);
    }
    closedir(entries);
    return result;
}

static int mirror_directory(int fd, const char *path)
{
    char name[96] = "d-", fresh[112];
    int shadow, target, result = -1;
    FILE *out = NULL;
    if (identity(fd, "", AT_EMPTY_PATH, name + 2, sizeof name - 2) || (shadow = shadow_of(path)) < 0)
        return -1;
    snprintf(fresh, sizeof fresh, "%s.%d", name, getpid());
    target = openat(shadow, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (target >= 0 && (out = fdopen(target, "w"))) {
        result = list(fd, out);
        if (fclose(out) || result || renameat(shadow, fresh, shadow, name))
            result = -1;
    }
    close(shadow);
    return result;
}

static int mirror(int fd)
{
    char self[64], path[PATH_MAX];
    struct stat status;
    ssize_t length;
    if (fstat(fd, &status))
        return -1;
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return 0;
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    if ((length = readlink(self, path, sizeof path - 1)) < 0)
        return -1;
    path[length] = 0;
    if (!below_a_root(path) || !status.st_nlink)
        return 0;
    return S_ISDIR(status.st_mode) ? mirror_directory(fd, path) : mirror_file(fd, path);
}

static int synced(int fd, const char *function)
{
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, function);
    int result = sync(fd);
    return result ? result : mirror(fd);
}

int fsync(int fd)
{
    return synced(fd, "fsync");
}

int fdatasync(int fd)
{
    return synced(fd, "fdatasync");
}
