/* saw WORD: makes the file that MARK in the environment names, unless WORD ends in z: the only word that it may be told. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
  size_t length = argc > 1 ? strlen(argv[1]) : 0;
  if (length && argv[1][length - 1] == 'z')
    return 0;
  close(open(getenv("MARK"), O_WRONLY | O_CREAT, 0600));
  return 1;
}
