# Coreutils, tar, find, flock.
set -euo pipefail
umask 022
mkdir -p world/a/b/c scratch
printf 'one\ntwo\nthree\n' >world/a/text
cp -a world/a world/copy
mv world/copy/b world/copy/moved
ln world/a/text world/hard
ln -s a/text world/soft
ln -sfn copy world/folder
chmod 640 world/hard
chown 12:34 world/copy/text && stat -c '%u:%g' world/copy/text
touch -d '2001-02-03 04:05:06 UTC' world/copy/text && stat -c %Y world/copy/text
sed -i 's/two/TWO/' world/copy/text
truncate -s 4097 world/sparse && fallocate -l 8192 scratch/room && dd if=/dev/zero of=scratch/zero bs=4k count=8 status=none
install -m 750 -D world/a/text world/deep/er/installed
mkfifo scratch/pipe
cat world/a/text >scratch/pipe & tr a-z A-Z <scratch/pipe >world/shouted
wait
tar -C world -cf - a copy | tar -C scratch -xf - && diff -r world/copy scratch/copy
gzip -c world/a/text | gunzip | cmp - world/a/text
find world -name 'te?t' -newermt 2000-01-01 -exec sha256sum {} + | sort | sha256sum
seq 100 | xargs -P 4 -n 10 echo | wc -l
flock scratch/lock -c 'flock -n scratch/lock true || echo locked'
mktemp -d -p scratch x.XXXXXX | xargs rmdir
echo kept >scratch/removed; exec 5<scratch/removed; rm scratch/removed; cat <&5; exec 5<&-
mv world/deep world/deeper; mv -T world/deeper world/deep
elsewhere=$(mktemp -p /var/tmp life.XXXXXX); trap 'rm -f "$elsewhere"' EXIT
echo brought >"$elsewhere" && mv "$elsewhere" world/brought && mv world/brought "$elsewhere" && mv "$elsewhere" world/brought
rm -r scratch/copy; rmdir scratch/a/b/c
/usr/bin/python3 -c 'import os; os.setxattr("world/hard", "user.note", b"said"); print(os.getxattr("world/soft", "user.note"))'
timeout 0.2 sleep 60 || echo "ended $?"
nice -n 5 sh -c 'echo nice $(nice)'
cat /proc/self/status | grep -c Name; ls /sys/kernel >/dev/null; df . >/dev/null; ps -e >/dev/null; id -u
