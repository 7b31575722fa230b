#!/bin/bash
# First process of the room in which guests live: see room.py, which makes the namespaces. Its death ends all of them.
# usage: room.sh STATE   (STATE: a folder on a disk, with libvirt/ as libvirt's configuration)
set -euo pipefail
state=$1

mount --make-rprivate /
mount -t tmpfs tmpfs /run    # libvirt's sockets and pid files; hides D-Bus and systemd, which it would ask
umount --lazy /sys           # with cgroups, which libvirt would use for its guests
mount -t sysfs sysfs /sys    # of this network namespace
for folder in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p "$folder" "$state$folder"
    mount --bind "$state$folder" "$folder"
done
ip link set lo up
libvirtd &
wait $!  # not exec: somebody must reap what libvirtd leaves behind, and pid 1 of a namespace is that somebody
