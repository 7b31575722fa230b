/* exec WAY PROGRAM [ARGS]: executes PROGRAM by WAY. execve; fexecve (descriptor for reading), empty (O_PATH and
 * AT_EMPTY_PATH), procfd (/proc/self/fd/N), memfd (a copy in memory), copy (a copy that is deleted before it runs),
 * unlinked (PROGRAM itself, deleted before it runs), crowd (300 descriptors that close on exec), noargs (argc 0), vfork,
 * thread, young (300 times, each time in a program that has just begun and right before a timer tick: a program's first tick
 * queues work beside the files that exec closes). Exit 7: could not be executed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char **arguments; /* PROGRAM and ARGS */

static void by_descriptor(int fd) { syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH); }

static void copy_to(int fd)
{
  struct stat status;
  int from = open(arguments[0], O_RDONLY);
  if (fstat(from, &status) || sendfile(fd, from, 0, status.st_size) != status.st_size)
    exit(8);
  close(from);
}

static void by_copy(void)
{
  char path[] = "/var/tmp/hw-copy-XXXXXX", again[64];
  int fd = mkstemp(path);
  copy_to(fd);
  fchmod(fd, 0755);
  close(fd);
  fd = open(path, O_PATH);
  unlink(path);
  snprintf(again, sizeof(again), "/proc/self/fd/%d", fd);
  execve(again, arguments, environ);
}

static void by_memfd(void)
{
  int fd = memfd_create("copy", 0);
  copy_to(fd);
  by_descriptor(fd);
}

static void by_crowd(void)
{
  struct rlimit limit = {1000, 1000};
  setrlimit(RLIMIT_NOFILE, &limit);
  for (int i = 0; i < 300; i++)
    if (open("/dev/null", O_RDONLY | O_CLOEXEC) < 0)
      exit(8);
  execve(arguments[0], arguments, environ);
}

static void by_procfd(void)
{
  char again[64];
  snprintf(again, sizeof(again), "/proc/self/fd/%d", open(arguments[0], O_PATH));
  execve(again, arguments, environ);
}

static void by_vfork(void)
{
  int status;
  pid_t pid = vfork();
  if (pid == 0) {
    execve(arguments[0], arguments, environ);
    _exit(7);
  }
  waitpid(pid, &status, 0);
  exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* Time since the last timer tick, ns: the coarse clock goes on at ticks only. */
static long since_tick(void)
{
  struct timespec now, tick;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (now.tv_sec - tick.tv_sec) * 1000000000L + now.tv_nsec - tick.tv_nsec;
}

static void wait_before_tick(long margin)
{
  struct timespec period;
  clock_getres(CLOCK_MONOTONIC_COARSE, &period);
  for (int turn = 0; turn < 1000000 && since_tick() < period.tv_nsec - margin; turn++)
    ;
}

/* Exits with 0 if any of them ran. */
static void by_young(char *self)
{
  int status, ran = 0;
  char margin[16], *again[16] = {self, "about", margin};
  for (int i = 0; i < 12 && arguments[i]; i++)
    again[i + 3] = arguments[i];
  for (int i = 0; i < 300; i++) {
    snprintf(margin, sizeof(margin), "%d", 1000 * (i % 150));
    wait_before_tick(1500000);
    pid_t pid = vfork();
    if (pid == 0) {
      execve("/proc/self/exe", again, environ);
      _exit(7);
    }
    if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
      ran++;
  }
  exit(ran ? 0 : 137);
}

static void *in_thread(void *unused)
{
  execve(arguments[0], arguments, environ);
  return 0;
}

int main(int argc, char **argv)
{
  char *none[] = {0};
  pthread_t thread;
  if (argc < 3)
    return 2;
  const char *way = argv[1];
  arguments = argv + 2;
  if (!strcmp(way, "about")) {
    arguments++;
    wait_before_tick(atol(argv[2]));
    execve(arguments[0], arguments, environ);
  }
  if (!strcmp(way, "execve")) execve(arguments[0], arguments, environ);
  if (!strcmp(way, "fexecve")) fexecve(open(arguments[0], O_RDONLY), arguments, environ);
  if (!strcmp(way, "empty")) by_descriptor(open(arguments[0], O_PATH));
  if (!strcmp(way, "procfd")) by_procfd();
  if (!strcmp(way, "memfd")) by_memfd();
  if (!strcmp(way, "copy")) by_copy();
  if (!strcmp(way, "unlinked")) {
    int fd = open(arguments[0], O_PATH);
    unlink(arguments[0]);
    by_descriptor(fd);
  }
  if (!strcmp(way, "crowd")) by_crowd();
  if (!strcmp(way, "noargs")) execve(arguments[0], none, environ);
  if (!strcmp(way, "vfork")) by_vfork();
  if (!strcmp(way, "young")) by_young(argv[0]);
  if (!strcmp(way, "thread")) pthread_create(&thread, 0, in_thread, 0), pthread_join(thread, 0);
  return 7;
}
