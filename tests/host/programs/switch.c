/* switch ACT TRIES WAY ALLOWED DENIED [WORD]: does ACT again and again, while a thread keeps changing what it is done to between ALLOWED
 * and DENIED. Prints how many tries reached what is denied (read a `z` in it), were let through, were refused, were killed.
 * ACT: read, chmod, exec (a program, with the argument WORD), unix (connect): the name is changed in the memory that the call takes it from, in
 * its last byte; read-link, exec-link: the name is ALLOWED's all the time, and DENIED is exchanged with it (two symlinks);
 * tcp, udp: the port in the socket address is changed, ALLOWED and DENIED are ports on 127.0.0.1.
 * WAY: here (in this process) or child (each try in a process of its own that shares this one's memory: one that is
 * killed for it is one try). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LET, REFUSED, OTHER };
extern char **environ;
static char stack[1 << 16] __attribute__((aligned(16)));
static char name[108];
static const char *act, *allowed, *denied, *word = "";
static struct sockaddr_in peer;
static struct sockaddr_un place = {.sun_family = AF_UNIX};
static volatile int over, answer;
static volatile long reached, begun;
static char asked, other;
static volatile char *last;

static int is(const char *word) { return !strcmp(act, word); }

static void *rewrite(void *unused)
{
  unsigned short ports[2] = {htons(atoi(allowed)), htons(atoi(denied))};
  int is_port = is("tcp") || is("udp"), is_link = strstr(act, "-link") != 0;
  for (unsigned turn = 0; !over; turn++) {
    if (is_link) {
      long seen = begun;
      renameat2(AT_FDCWD, allowed, AT_FDCWD, denied, RENAME_EXCHANGE);
      while (!over && seen == begun) /* one for each try: each has its record */
        sched_yield();
    } else if (is_port) {
      *(volatile unsigned short *)&peer.sin_port = ports[turn & 1];
    } else {
      *last = turn & 1 ? other : asked;
    }
  }
  return 0;
}

static long read_it(void)
{
  char byte = 0;
  int fd = open(name, O_RDONLY);
  if (fd < 0)
    return -1;
  if (read(fd, &byte, 1) == 1 && byte == 'z')
    reached++;
  close(fd);
  return 0;
}

static long reach_peer(void)
{
  int fd = is("unix") ? socket(AF_UNIX, SOCK_STREAM, 0) : socket(AF_INET, is("udp") ? SOCK_DGRAM : SOCK_STREAM, 0), error;
  long result;
  if (is("unix"))
    result = connect(fd, (struct sockaddr *)&place, sizeof(place));
  else if (is("udp"))
    result = sendto(fd, "z", 1, 0, (struct sockaddr *)&peer, sizeof(peer));
  else
    result = connect(fd, (struct sockaddr *)&peer, sizeof(peer));
  error = errno;
  close(fd);
  errno = error;
  return result;
}

static int try(void *unused)
{
  char *arguments[] = {name, (char *)word, 0};
  long result;
  if (!strncmp(act, "exec", 4))
    result = execve(name, arguments, environ);
  else if (!strncmp(act, "read", 4))
    result = read_it();
  else if (is("chmod"))
    result = chmod(name, 0777);
  else
    result = reach_peer();
  answer = result >= 0 || errno == ECONNREFUSED ? LET : errno == EPERM || errno == EACCES ? REFUSED : OTHER;
  return 0;
}

static int in_child(void *unused)
{
  answer = LET; /* an exec that goes well says nothing more */
  try(0);
  _exit(0);
}

int main(int argc, char **argv)
{
  long counts[3] = {0}, killed = 0;
  int status, is_child;
  pthread_t thread;
  if (argc < 6)
    return 2;
  act = argv[1];
  is_child = !strcmp(argv[3], "child");
  allowed = argv[4];
  denied = argv[5];
  if (argc > 6)
    word = argv[6];
  snprintf(name, sizeof(name), "%s", allowed);
  snprintf(place.sun_path, sizeof(place.sun_path), "%s", allowed);
  last = is("unix") ? place.sun_path + strlen(allowed) - 1 : name + strlen(allowed) - 1;
  asked = *last;
  other = denied[strlen(denied) - 1];
  peer.sin_family = AF_INET;
  peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  peer.sin_port = htons(atoi(allowed));
  pthread_create(&thread, 0, rewrite, 0);
  for (int i = 0; i < atoi(argv[2]); i++) {
    begun++;
    if (!is_child) {
      try(0);
      counts[answer]++;
      if (i % 64 == 0)
        sched_yield(); /* one processor: or the other thread hardly runs */
      continue;
    }
    pid_t pid = clone(in_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, 0);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
      return 3;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
      killed++;
    else
      counts[answer]++;
  }
  over = 1;
  pthread_join(thread, 0);
  printf("%ld %ld %ld %ld %ld\n", reached, counts[LET], counts[REFUSED], killed, counts[OTHER]);
  return 0;
}
