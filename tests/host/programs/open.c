/* open FORM FLAGS TARGET: opens TARGET by one of the doors to open and uses the descriptor at once: what can be read goes to
 * stdout, what can be written gets a line, a directory is listed. FORM: open openat openat2 creat open80 openat80 creat80
 * (int 0x80, the 32-bit table), reopen (O_PATH, then /proc/self/fd), dirfd (O_PATH of the folder, then the name),
 * handle (open_by_handle_at), clone (a detached copy of the folder's mount), chroot (into the folder).
 * FLAGS: words joined by commas. Exit 0: used, 1: could not be opened. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static char path[4200]; /* static, so that its address fits into 32 bits */
static char folder[4200];
static const char *name;

static const struct { const char *word; int flag; } FLAGS[] = {
  {"rdonly", O_RDONLY}, {"wronly", O_WRONLY}, {"rdwr", O_RDWR},         {"trunc", O_TRUNC},
  {"creat", O_CREAT},   {"excl", O_EXCL},     {"append", O_APPEND},     {"tmpfile", O_TMPFILE},
  {"path", O_PATH},     {"dir", O_DIRECTORY}, {"nofollow", O_NOFOLLOW}, {"sync", O_SYNC},
};

static int parse(char *words)
{
  int flags = 0;
  for (char *word = strtok(words, ","); word; word = strtok(0, ","))
    for (unsigned i = 0; i < sizeof(FLAGS) / sizeof(*FLAGS); i++)
      if (!strcmp(word, FLAGS[i].word))
        flags |= FLAGS[i].flag;
  return flags;
}

/* The 32-bit table, entered from 64-bit code as a program that wants to be missed would. */
static long int80(long number, long a, long b, long c, long d)
{
  long result;
  asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory", "r8", "r9", "r10", "r11");
  if (result < 0) {
    errno = -result;
    return -1;
  }
  return result;
}

static int by_openat2(int flags)
{
  struct open_how how = {.flags = flags, .mode = flags & O_CREAT ? 0600 : 0};
  return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

static int by_reopen(int flags)
{
  char again[64];
  int fd = open(path, O_PATH);
  snprintf(again, sizeof(again), "/proc/self/fd/%d", fd);
  return fd < 0 ? -1 : open(again, flags);
}

static int by_handle(int flags)
{
  struct { struct file_handle handle; char bytes[MAX_HANDLE_SZ]; } buffer = {.handle.handle_bytes = MAX_HANDLE_SZ};
  int mount_id, mount = open("/var/tmp", O_RDONLY | O_DIRECTORY);
  if (name_to_handle_at(AT_FDCWD, path, &buffer.handle, &mount_id, 0))
    return -1;
  return open_by_handle_at(mount, &buffer.handle, flags);
}

static int by_clone(int flags)
{
  int tree = syscall(SYS_open_tree, AT_FDCWD, folder, 1 /* OPEN_TREE_CLONE */);
  return tree < 0 ? -1 : openat(tree, name, flags);
}

static int by_chroot(int flags)
{
  char inside[4200];
  snprintf(inside, sizeof(inside), "/%s", name);
  return chroot(folder) || chdir("/") ? -1 : open(inside, flags);
}

static int by_form(const char *form, int flags)
{
  if (!strcmp(form, "open")) return syscall(SYS_open, path, flags, 0600);
  if (!strcmp(form, "openat")) return openat(AT_FDCWD, path, flags, 0600);
  if (!strcmp(form, "openat2")) return by_openat2(flags);
  if (!strcmp(form, "creat")) return syscall(SYS_creat, path, 0600);
  if (!strcmp(form, "open80")) return int80(5, (long)path, flags, 0600, 0);
  if (!strcmp(form, "creat80")) return int80(8, (long)path, 0600, 0, 0);
  if (!strcmp(form, "openat80")) return int80(295, AT_FDCWD, (long)path, flags, 0600);
  if (!strcmp(form, "reopen")) return by_reopen(flags);
  if (!strcmp(form, "dirfd")) return openat(open(folder, O_PATH | O_DIRECTORY), name, flags, 0600);
  if (!strcmp(form, "handle")) return by_handle(flags);
  if (!strcmp(form, "clone")) return by_clone(flags);
  if (!strcmp(form, "chroot")) return by_chroot(flags);
  fprintf(stderr, "open: no form %s\n", form);
  exit(2);
}

static void list(int fd)
{
  DIR *all = fdopendir(fd);
  for (struct dirent *entry; all && (entry = readdir(all));)
    if (entry->d_name[0] != '.')
      puts(entry->d_name);
}

int main(int argc, char **argv)
{
  char bytes[256];
  if (argc != 4)
    return 2;
  int flags = parse(argv[2]);
  snprintf(path, sizeof(path), "%s", argv[3]);
  snprintf(folder, sizeof(folder), "%s", argv[3]);
  name = strrchr(argv[3], '/') ? strrchr(argv[3], '/') + 1 : argv[3];
  dirname(folder);
  int fd = by_form(argv[1], flags);
  if (fd < 0) {
    perror(argv[1]);
    return 1;
  }
  if (flags & O_DIRECTORY && (flags & O_TMPFILE) != O_TMPFILE) {
    list(fd);
    return 0;
  }
  ssize_t length = read(fd, bytes, sizeof(bytes));
  if (length > 0 && write(1, bytes, length) != length)
    return 3;
  if (flags & (O_WRONLY | O_RDWR) || !strncmp(argv[1], "creat", 5))
    if (write(fd, "the agent's line\n", 17) != 17)
      return 3;
  return 0;
}
