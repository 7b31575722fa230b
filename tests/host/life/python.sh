# Processes, memory and loops of Python's.
set -euo pipefail
mkdir world
cat >program.py <<'P'
import asyncio, ctypes, mmap, multiprocessing, os, socket, subprocess, sys, tempfile, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import shared_memory

def square(n):
    return n * n

def fill(name):
    memory = shared_memory.SharedMemory(name)
    memory.buf[:5] = b"hello"
    memory.close()

async def speak():
    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
    for start, opened in (
        (asyncio.start_server(answer, "127.0.0.1", 0), lambda s: asyncio.open_connection(*s.sockets[0].getsockname())),
        (asyncio.start_unix_server(answer, "s.sock"), lambda s: asyncio.open_unix_connection("s.sock")),
    ):
        server = await start
        reader, writer = await opened(server)
        writer.write(b"loop\n")
        print((await reader.read()).decode().strip())
        writer.close()
        server.close()
    child = await asyncio.create_subprocess_exec("echo", "child", stdout=subprocess.PIPE)
    print((await child.communicate())[0].decode().strip())

def main():
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, sum(pool.map(square, range(50))))
    with ProcessPoolExecutor(2) as processes, ThreadPoolExecutor(4) as threads:
        print(sum(processes.map(square, range(20))), sum(threads.map(square, range(20))))
    memory = shared_memory.SharedMemory(create=True, size=4096)
    child = multiprocessing.Process(target=fill, args=(memory.name,))
    child.start()
    child.join()
    print(bytes(memory.buf[:5]), child.exitcode)
    memory.close()
    memory.unlink()
    with multiprocessing.Manager() as manager:
        shared, lock = manager.dict(), multiprocessing.Lock()
        with lock:
            shared["key"] = "value"
        print(dict(shared))
    with open("world/mapped", "w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192) as area:
            area[:6] = b"mapped"
            area.flush()
            area.resize(4096)
    with mmap.mmap(-1, 4096) as area:
        if os.fork() == 0:
            area[:1] = b"c"
            os._exit(0)
        os.wait()
        print(area[:1])
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    ctypes.CDLL(None).qsort(numbers, 3, 4, compare(lambda a, b: a[0] - b[0]))
    print(list(numbers))
    left, right = socket.socketpair()
    socket.send_fds(left, [b"x"], [os.memfd_create("memory")])
    received = socket.recv_fds(right, 1, 1)[1][0]
    os.write(received, b"memfd")
    print(os.pread(received, 9, 0))
    os.kill(os.getpid(), 0)
    thread = threading.Thread(target=lambda: subprocess.run(["true"], check=True))
    thread.start()
    thread.join()
    with tempfile.NamedTemporaryFile() as named, open(os.open("world", os.O_TMPFILE | os.O_RDWR), "wb") as unnamed:
        named.write(b"x")
        unnamed.write(b"unnamed until now")
        unnamed.flush()
        # With a folder, and only then, Python asks the kernel to follow the link.
        os.link(f"/proc/self/fd/{unnamed.fileno()}", "world/linked", src_dir_fd=left.fileno(), follow_symlinks=True)
    datagrams = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    datagrams[0].bind(("127.0.0.1", 0))
    datagrams[1].sendto(b"datagram", datagrams[0].getsockname())
    print(datagrams[0].recv(20))
    asyncio.run(speak())

if __name__ == "__main__":
    main()
P
/usr/bin/python3 program.py
