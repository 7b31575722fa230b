/* The member process of the oracle tests: makes the attempts that it is told of, one after the other, and says what came
 * of each, and when: what the kernel decided in between belongs to the attempt. Folders on the way are opened with O_PATH,
 * which is no access. What an attempt needs is made before, by requests of its own: `m`(ake a file), `l`(ink a program),
 * `D`(irectory), `f`(ree the name).
 *
 * argv: the descriptors of the folders that attempts are relative to (others are taken from its parent). stdin: u32
 * bytes, then requests; stdout: a reply for each. It ends at the end of stdin. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

struct request {
  uint8_t op, way;
  uint16_t length;
  uint32_t flags, uid, folder;
};
struct reply {
  int32_t result; /* 0 or more, or -errno */
  uint32_t pid;   /* of the child that executed */
  uint64_t from, until; /* ns since boot, sleep included */
  uint32_t folders; /* 1: the first name was a folder's; 2: the second's */
  uint32_t pad;
};

#define MAX_ARGUMENTS 64
#define PIECE 2000 /* bytes of a path that one call is given: PATH_MAX is less than what a path may have */

static uint64_t began, ended;

static uint64_t now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_BOOTTIME, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* The attempt itself, between two looks at the clock: what it returned, or -errno. */
#define TIMED(call) ({ began = now(); long _result = (call); _result = _result < 0 ? -errno : _result; ended = now(); _result; })

static void read_all(void *to, size_t length)
{
  for (char *at = to; length;) {
    ssize_t got = read(0, at, length);
    if (got <= 0)
      _exit(got < 0);
    at += got;
    length -= got;
  }
}

static void write_all(const void *from, size_t length)
{
  for (const char *at = from; length;) {
    ssize_t put = write(1, at, length);
    if (put <= 0)
      _exit(1);
    at += put;
    length -= put;
  }
}

/* The folder that holds the last PIECE bytes of `path`, to be closed by the caller unless it is `folder`; `*rest` is
 * what remains to be walked. */
static int near(int folder, char *path, char **rest)
{
  int at = folder;
  while (strlen(path) > PIECE) {
    char *cut = path + PIECE;
    while (*cut != '/')
      cut--;
    *cut = 0;
    int next = openat(at, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    *cut = '/';
    if (at != folder)
      close(at);
    if (next < 0)
      return -1;
    at = next;
    path = cut + 1;
  }
  *rest = *path ? path : ".";
  return at;
}

static void make_folders(int folder, char *path)
{
  int at = dup(folder);
  for (char *slash; (slash = strchr(path, '/')); path = slash + 1) {
    *slash = 0;
    if (mkdirat(at, path, 0755) && errno == EEXIST) {
      struct stat status;
      if (fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(status.st_mode)) {
        unlinkat(at, path, 0);
        mkdirat(at, path, 0755);
      }
    }
    int next = openat(at, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    *slash = '/';
    close(at);
    if (next < 0)
      return;
    at = next;
  }
  close(at);
}

static int make_one(int op, int folder, int at, char *rest)
{
  if (op != 'm')
    unlinkat(at, rest, 0);
  if (op == 'l')
    return linkat(folder, "tiny", at, rest, 0);
  if (op == 'D')
    return mkdirat(at, rest, 0755);
  int result = mknodat(at, rest, S_IFREG | 0755, 0);
  if (op == 'f' && result == 0)
    unlinkat(at, rest, 0);
  return result;
}

/* A file at `path`, another name of the folder's `tiny`, a folder, or nothing; a folder that is there already stays. */
static int make(int op, int folder, char *path)
{
  char *rest;
  for (int tries = 0;; tries++) {
    int at = near(folder, path, &rest);
    int result = -1;
    if (at >= 0) {
      result = make_one(op, folder, at, rest);
      result = result && errno != EEXIST ? -errno : 0;
      if (at != folder)
        close(at);
    }
    if (result == 0 || tries)
      return result;
    make_folders(folder, path);
  }
}

static int try_open(int folder, char *path, int flags, uint32_t *folders)
{
  char *rest;
  int at = near(folder, path, &rest), result = 0;
  if (at < 0)
    return -errno;
  int file = TIMED(openat(at, rest, flags | O_CLOEXEC | O_NONBLOCK, 0755));
  if (file == -EISDIR) { /* a folder can only be read */
    file = TIMED(openat(at, rest, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    result = *folders = 1;
  }
  if (file < 0)
    result = file;
  else
    close(file);
  if (at != folder)
    close(at);
  return result;
}

static int try_exec(int folder, char *path, int argc, char *text, uint32_t *pid)
{
  char *argv[MAX_ARGUMENTS + 1] = {0}, *rest, *none[] = {0};
  if (argc > MAX_ARGUMENTS)
    return -E2BIG;
  for (int i = 0; i < argc; i++, text += strlen(text) + 1)
    argv[i] = text;
  int at = near(folder, path, &rest), status = 0;
  if (at < 0)
    return -errno;
  volatile int error = 0;
  began = now();
  pid_t child = vfork();
  if (child == 0) {
    fchdir(at);
    if (*path)
      execve(rest, argv, none);
    else
      execveat(folder, "", argv, none, AT_EMPTY_PATH); /* what is no folder: a file by its descriptor */
    error = errno;
    _exit(127);
  }
  *pid = child;
  waitpid(child, &status, 0);
  ended = now();
  if (at != folder)
    close(at);
  return error ? -error : status;
}

enum way { TCP, UDP, SEND, SEND_UNSPEC, FAST_OPEN, SEND_MANY, FAMILY6 = 8 };

static int try_net(int way, const char *payload)
{
  struct sockaddr_in to4 = {.sin_family = AF_INET};
  struct sockaddr_in6 to6 = {.sin6_family = AF_INET6};
  int is6 = way & FAMILY6, result;
  way &= ~FAMILY6;
  memcpy(&to4.sin_addr, payload + 12, 4);
  memcpy(&to6.sin6_addr, payload, 16);
  memcpy(&to4.sin_port, payload + 16, 2);
  to6.sin6_port = to4.sin_port;
  if (way == SEND_UNSPEC)
    to4.sin_family = AF_UNSPEC;
  struct sockaddr *to = is6 ? (struct sockaddr *)&to6 : (struct sockaddr *)&to4;
  socklen_t length = is6 ? sizeof(to6) : sizeof(to4);
  int kind = way == TCP || way == FAST_OPEN ? SOCK_STREAM : SOCK_DGRAM;
  int file = socket(is6 ? AF_INET6 : AF_INET, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (file < 0)
    return -errno;
  struct iovec byte = {.iov_base = "x", .iov_len = 1};
  struct mmsghdr message = {.msg_hdr = {.msg_name = to, .msg_namelen = length, .msg_iov = &byte, .msg_iovlen = 1}};
  if (way == TCP || way == UDP)
    result = TIMED(connect(file, to, length));
  else if (way == SEND_MANY)
    result = TIMED(sendmmsg(file, &message, 1, 0));
  else
    result = TIMED(sendto(file, "x", 1, way == FAST_OPEN ? MSG_FASTOPEN : 0, to, length));
  close(file);
  return result < 0 ? result : 0;
}

/* Maps a file as code, as a loader would. */
static int try_map(int at, const char *rest)
{
  int file = openat(at, rest, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0)
    return -ENOENT; /* no attempt: it may not even be read */
  void *code;
  int result = TIMED((code = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0)) == MAP_FAILED ? -1 : 0);
  if (result == 0)
    munmap(code, 4096);
  close(file);
  return result;
}

/* What else can be done with a path; `way` 1: it is a folder. */
static int try_change(struct request *request, int at, char *rest, int other, char *second)
{
  switch (request->op) {
  case 'u': return TIMED(unlinkat(at, rest, request->way ? AT_REMOVEDIR : 0));
  case 'd': return TIMED(mkdirat(at, rest, 0755));
  case 's': return TIMED(symlinkat("nowhere", at, rest));
  case 'k': return TIMED(mknodat(at, rest, (request->way ? S_IFIFO : S_IFREG) | 0755, 0));
  case 'v': return TIMED(renameat2(at, rest, other, second, request->flags));
  case 'h': return TIMED(linkat(at, rest, other, second, 0));
  case 'c': return TIMED(fchmodat(at, rest, 0755, 0));
  case 'w': return TIMED(fchownat(at, rest, 0, 0, AT_SYMLINK_NOFOLLOW));
  case 'p': return try_map(at, rest);
  }
  if (fchdir(at))
    return -errno;
  if (request->op == 't')
    return TIMED(truncate(rest, 0));
  return request->op == 'a' ? TIMED(lsetxattr(rest, "user.x", "y", 1, 0)) : -EINVAL;
}

static int is_folder(int at, const char *rest)
{
  struct stat status;
  return fstatat(at, rest, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
}

static int try_path(struct request *request, int folder, char *path, uint32_t *folders)
{
  char *rest, *second = "";
  int at = near(folder, path, &rest), other = folder, result = -ENOENT;
  if (request->op == 'v' || request->op == 'h')
    other = near(folder, path + strlen(path) + 1, &second);
  if (at >= 0 && other >= 0) {
    *folders = is_folder(at, rest) | (*second && is_folder(other, second)) << 1;
    result = try_change(request, at, rest, other, second);
  }
  if (at != folder && at >= 0)
    close(at);
  if (other != folder && other >= 0)
    close(other);
  return result;
}

/* The real user id decides which rules count; the effective one stays root's, so that every file can be opened. */
static void become(uint32_t uid)
{
  static uint32_t now;
  if (uid != now && setresuid(uid, -1, -1) == 0)
    now = uid;
}

/* One that it inherited, or (bit 31) a descriptor of its parent's. */
static int folder_of(struct request *request, int argc, char **folders)
{
  if (request->folder >> 31) {
    static int parent = -1, taken = -1;
    if (parent < 0)
      parent = syscall(SYS_pidfd_open, getppid(), 0);
    if (taken >= 0)
      close(taken);
    return taken = syscall(SYS_pidfd_getfd, parent, request->folder & ~(1U << 31), 0);
  }
  return (int)request->folder + 1 < argc ? atoi(folders[request->folder + 1]) : -1;
}

int main(int argc, char **folders)
{
  umask(0);
  unshare(CLONE_NEWNET); /* without any route: nothing leaves, whatever is decided */
  for (;;) {
    uint32_t bytes;
    read_all(&bytes, sizeof(bytes));
    char *batch = malloc(bytes + 1);
    read_all(batch, bytes);
    for (char *at = batch; at < batch + bytes;) {
      struct request request;
      struct reply reply = {0};
      memcpy(&request, at, sizeof(request));
      char *payload = at + sizeof(request), kept = payload[request.length];
      at = payload + request.length;
      payload[request.length] = 0;
      int folder = folder_of(&request, argc, folders);
      become(request.uid);
      began = ended = 0;
      if (strchr("mlDf", request.op))
        reply.result = make(request.op, folder, payload);
      else if (request.op == 'o')
        reply.result = try_open(folder, payload, request.flags, &reply.folders);
      else if (request.op == 'x')
        reply.result = try_exec(folder, payload, request.flags, payload + strlen(payload) + 1, &reply.pid);
      else if (request.op == 'n')
        reply.result = try_net(request.way, payload);
      else
        reply.result = try_path(&request, folder, payload, &reply.folders);
      reply.from = began;
      reply.until = ended;
      payload[request.length] = kept;
      write_all(&reply, sizeof(reply));
    }
    free(batch);
  }
}
