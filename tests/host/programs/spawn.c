/* spawn WAY TARGET: comes to a new process, thread or program by WAY, and reads TARGET there; what it reads goes to stdout,
 * which ends only when the last of them is gone. WAY: now fork daemon (double fork, setsid) deep (20 forks) vfork clone3
 * clonevm cloneparent posix_spawn thread threadexec pidns setuid. Exit 0: the bytes were read. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char *target;
static char stack[1 << 16] __attribute__((aligned(16)));

static int attempt(void)
{
  char bytes[256];
  int fd = open(target, O_RDONLY);
  ssize_t length = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));
  return length > 0 && write(1, bytes, length) == length ? 0 : 1;
}

static int again(void)
{
  execl("/proc/self/exe", "spawn", "now", target, (char *)0);
  return 4;
}

static void *attempt_in_thread(void *unused) { return (void *)(long)attempt(); }
static void *again_in_thread(void *unused) { return (void *)(long)again(); }
static int attempt_in_clone(void *unused) { _exit(attempt()); }

static int code_of(pid_t pid)
{
  int status;
  if (pid < 0 || waitpid(pid, &status, __WALL) < 0)
    return 5;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int in_thread(void *(*what)(void *))
{
  pthread_t thread;
  void *result = (void *)5L;
  pthread_create(&thread, 0, what, 0);
  pthread_join(thread, &result);
  return (long)result;
}

static int by_fork(void)
{
  pid_t pid = fork();
  if (pid == 0)
    _exit(attempt());
  return code_of(pid);
}

static int by_daemon(void) /* the caller sees the pipe's end when the grandchild is gone */
{
  int pipe_ends[2];
  char byte;
  if (pipe(pipe_ends))
    return 5;
  pid_t pid = fork();
  if (pid == 0) {
    setsid();
    if (fork() == 0) {
      while (getppid() == getpgrp()) /* until its parent is gone: it is init's then, or a subreaper's */
        sched_yield();
      _exit(attempt());
    }
    _exit(0);
  }
  close(pipe_ends[1]);
  code_of(pid);
  return read(pipe_ends[0], &byte, 1) == 0 ? 0 : 5;
}

static int by_deep(int depth)
{
  pid_t pid = fork();
  if (pid == 0)
    _exit(depth ? by_deep(depth - 1) : attempt());
  return code_of(pid);
}

static int by_vfork(void)
{
  pid_t pid = vfork();
  if (pid == 0)
    _exit(attempt());
  return code_of(pid);
}

static int by_clone3(uint64_t flags)
{
  struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
  pid_t pid = syscall(SYS_clone3, &args, sizeof(args));
  if (pid == 0)
    _exit(attempt());
  return code_of(pid);
}

static int by_posix_spawn(void)
{
  extern char **environ;
  char *argv[] = {"spawn", "now", target, 0};
  pid_t pid = -1;
  return posix_spawn(&pid, "/proc/self/exe", 0, 0, argv, environ) ? 5 : code_of(pid);
}

static int by_parent(void) /* a sibling: our own parent's child */
{
  return clone(attempt_in_clone, stack + sizeof(stack), CLONE_PARENT | SIGCHLD, 0) < 0 ? 5 : 0;
}

static int by_setuid(void) { return setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534) ? 5 : by_fork(); }

int main(int argc, char **argv)
{
  if (argc != 3)
    return 2;
  const char *way = argv[1];
  target = argv[2];
  if (!strcmp(way, "now")) return attempt();
  if (!strcmp(way, "fork")) return by_fork();
  if (!strcmp(way, "daemon")) return by_daemon();
  if (!strcmp(way, "deep")) return by_deep(20);
  if (!strcmp(way, "vfork")) return by_vfork();
  if (!strcmp(way, "clone3")) return by_clone3(0);
  if (!strcmp(way, "clonevm")) return code_of(clone(attempt_in_clone, stack + sizeof(stack), CLONE_VM | SIGCHLD, 0));
  if (!strcmp(way, "cloneparent")) return by_parent();
  if (!strcmp(way, "posix_spawn")) return by_posix_spawn();
  if (!strcmp(way, "thread")) return in_thread(attempt_in_thread);
  if (!strcmp(way, "threadexec")) return in_thread(again_in_thread);
  if (!strcmp(way, "pidns")) return by_clone3(CLONE_NEWPID);
  if (!strcmp(way, "setuid")) return by_setuid();
  return 2;
}
