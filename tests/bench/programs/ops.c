/* SPDX-License-Identifier: GPL-2.0-only
 * The load of the bench: open + close, spawn + exec + wait, connect + accept + close, timed from outside.
 *
 *   ops UID BATCHES PAUSE_US FILE PROGRAM      prints one JSON object: kind → nanoseconds an operation, the
 *                                              median of its batches; "KIND quiet" → that of the least disturbed tenth
 *
 * The three kinds take turns, a short batch each, so that what else goes on in the machine hits them alike; the median
 * of many short batches leaves out those that were interrupted; at real-time priority a spawned child doesn't wait for
 * other programs' slices. The pause after a batch keeps the rate below what every recorder can take: measured is what an
 * operation costs whose record is kept, not one whose record is dropped. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_BATCHES 10000
#define WARM_UP 5 /* batches that aren't counted */

enum { OPEN, EXEC, CONNECT, KINDS };
static const char *const names[KINDS] = {"open", "exec", "connect"};
static const int per_batch[KINDS] = {200, 3, 20};
static double costs[KINDS][MAX_BATCHES];

static struct sockaddr_in server = {.sin_family = AF_INET};
static int listener;

static void fail(const char *what)
{
  fprintf(stderr, "ops: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void listen_on_loopback(void)
{
  socklen_t length = sizeof(server);
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&server, length) || listen(listener, 16) ||
      getsockname(listener, (struct sockaddr *)&server, &length))
    fail("can't listen on loopback");
}

static void open_and_close(const char *path)
{
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    fail(path);
  close(fd);
}

static void spawn_and_wait(const char *program)
{
  char *argv[] = {(char *)program, 0}, *environment[] = {0};
  pid_t pid;
  int status;
  errno = posix_spawn(&pid, program, 0, 0, argv, environment);
  if (errno || waitpid(pid, &status, 0) != pid || status)
    fail(program);
}

static void connect_and_accept(void)
{
  /* A reset, not TIME_WAIT: used-up ports would make each connect dearer than the one before. */
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (client < 0 || setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) ||
      connect(client, (struct sockaddr *)&server, sizeof(server)))
    fail("can't connect to loopback");
  int accepted = accept4(listener, 0, 0, SOCK_CLOEXEC);
  if (accepted < 0)
    fail("accept");
  close(client);
  close(accepted);
}

static double now_ns(void)
{
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e9 + time.tv_nsec;
}

static double batch(int kind, const char *path, const char *program)
{
  double began = now_ns();
  for (int i = 0; i < per_batch[kind]; i++) {
    if (kind == OPEN)
      open_and_close(path);
    else if (kind == EXEC)
      spawn_and_wait(program);
    else
      connect_and_accept();
  }
  return (now_ns() - began) / per_batch[kind];
}

static int by_value(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
  if (argc != 6)
    return fprintf(stderr, "usage: ops UID BATCHES PAUSE_US FILE PROGRAM\n"), 2;
  uid_t uid = atoi(argv[1]);
  int batches = atoi(argv[2]);
  struct timespec pause = {.tv_nsec = atol(argv[3]) * 1000};
  struct sched_param priority = {.sched_priority = 1};
  if (batches < 1 || batches > MAX_BATCHES)
    return fprintf(stderr, "ops: 1 to %d batches\n", MAX_BATCHES), 2;
  if (sched_setscheduler(0, SCHED_FIFO, &priority) || setresuid(uid, uid, uid))
    fail("needs root for real-time priority and another uid");
  listen_on_loopback();
  for (int i = -WARM_UP; i < batches; i++)
    for (int kind = 0; kind < KINDS; kind++) {
      double cost = batch(kind, argv[4], argv[5]);
      if (i >= 0)
        costs[kind][i] = cost;
      nanosleep(&pause, 0);
    }
  for (int kind = 0; kind < KINDS; kind++) {
    qsort(costs[kind], batches, sizeof(double), by_value);
    printf("%s\"%s\": %.1f, \"%s quiet\": %.1f", kind ? ", " : "{", names[kind], costs[kind][batches / 2], names[kind],
           costs[kind][batches / 10]);
  }
  puts("}");
  return 0;
}
