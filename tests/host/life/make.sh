# gcc and make: temporary files, pipes to the assembler, the linker's library search, what was built is run.
set -euo pipefail
mkdir -p world/source && cd world/source
cat >main.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
int twice(int);
int main(void)
{
    void *library = dlopen("./libplug.so", RTLD_NOW);
    int (*plug)(int) = library ? (int (*)(int))dlsym(library, "plug") : 0;
    return printf("%d %d\n", twice(21), plug ? plug(21) : -1) < 0;
}
C
echo 'int twice(int n) { return n * 2; }' >twice.c
echo 'int plug(int n) { return n * 3; }' >plug.c
cat >Makefile <<'M'
all: program libplug.so
program: main.o libtwice.a
	$(CC) -pipe -o $@ main.o -L. -ltwice -ldl
libtwice.a: twice.o
	$(AR) rcD $@ $^
libplug.so: plug.c
	$(CC) -O2 -fPIC -shared -o $@ $<
%.o: %.c
	$(CC) -O2 -Wall -c -o $@ $<
clean:
	rm -f *.o *.a *.so program
.PHONY: all clean
M
make -sj2 && ./program && make -q && echo 'up to date'
touch -d '+1 minute' twice.c && make -sj2 2>/dev/null && ./program
echo 'int main(void) { return 0; }' | gcc -xc -static -flto -o static - && ./static
nm -D libplug.so | grep -c ' plug$'
strip -s program && ./program && objcopy --only-keep-debug static static.debug && rm -f static static.debug
! echo 'nonsense' | gcc -xc -c -o none.o - 2>/dev/null && echo 'errors are errors'
rm -f program libtwice.a libplug.so
