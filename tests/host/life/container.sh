# A container by hand: user, mount, pid namespaces; overlayfs over a small root; pivot_root; life inside.
set -euo pipefail
mkdir -p lower/{bin,proc,tmp,data,old} upper work merged world
cp -L /bin/{sh,cat,ls,mv,rm,mkdir,mount,umount} lower/bin/
ldd lower/bin/* | grep -o '/[^ ]*' | grep -v ':$' | sort -u | xargs -I{} cp -L --parents {} lower/
echo below >lower/data/kept; echo below >lower/data/changed; echo below >lower/data/removed
cat >lower/inside <<'I'
set -eu
umount -l /old
echo "pid $$"
cat /data/kept
echo above >>/data/changed
rm /data/removed
mv /data/kept /data/renamed
mkdir /data/made && echo new >/data/made/file
mount -t tmpfs tmpfs /tmp && echo in memory >/tmp/note && cat /tmp/note
(echo child; exit 0)
ls /data
I
cat >outside <<'O'
set -eu
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr merged
mount -t proc proc merged/proc
cd merged
pivot_root . old
exec /bin/sh /inside
O
unshare --user --map-root-user --mount --pid --fork --uts --ipc sh outside
cp -a upper/data world/data
