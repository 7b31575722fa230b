#!/bin/bash
# What is in a guest: a root file system of Debian 12 with both kernels. box.py calls this and makes the box from it.
# usage: recipe.sh ROOTFS TREE WHEELS KEY.pub LINUX-IMAGE...   (root; TREE: this repository, WHEELS: requirements.lock)
set -euo pipefail
root=$1 tree=$2 wheels=$3 key=$4
shift 4

boot=(systemd systemd-sysv udev dbus kmod initramfs-tools)
reach=(openssh-server sudo rsync ifupdown isc-dhcp-client iproute2 iputils-ping)
hostwarden=(python3 python3-venv python3-bpfcc python3-psutil bpftool ca-certificates procps)
# What agents, and the tests that play them, work with.
agents=(git make gcc libc6-dev liburing-dev nodejs npm python3-pip sqlite3 curl openssl attr socat netcat-openbsd
    openssh-client tmux strace util-linux less)

join() { local IFS=,; echo "$*"; }
mmdebstrap --quiet --mode=root --variant=minbase \
    --include="$(join "${boot[@]}" "${reach[@]}" "${hostwarden[@]}" "${agents[@]}" "$@")" bookworm "$root"

inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"; }

# --- reached by ssh as vagrant, who may sudo; nothing else listens --------------------------------------------------------
echo guest >"$root/etc/hostname"
echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
printf '%s\n' 'auto lo' 'iface lo inet loopback' 'allow-hotplug eth0' 'iface eth0 inet dhcp' \
    >"$root/etc/network/interfaces"
inside useradd --create-home --shell /bin/bash vagrant
for home in /root /home/vagrant; do
    install -d -m 700 "$root$home/.ssh"
    install -m 600 "$key" "$root$home/.ssh/authorized_keys"
done
inside chown -R vagrant:vagrant /home/vagrant
install -m 440 /dev/stdin "$root/etc/sudoers.d/vagrant" <<<'vagrant ALL=(ALL) NOPASSWD: ALL'
echo 'UseDNS no' >"$root/etc/ssh/sshd_config.d/guest.conf"  # there is no name server
inside ssh-keygen -q -A
inside systemctl --quiet enable ssh networking
# Nothing that starts by itself while something is measured.
inside systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer

# --- the venv, as ./dev setup makes it; ./dev vm up copies the sources anew -----------------------------------------------
home=$root/opt/hostwarden
install -d "$home" "$root/wheels"
rsync --archive --exclude=.git --filter=':- .gitignore' "$tree/" "$home/"
cp "$wheels"/*.whl "$root/wheels/"
inside /usr/bin/python3 -m venv --system-site-packages /opt/hostwarden/.venv
pip() { inside /opt/hostwarden/.venv/bin/pip install --quiet --no-index --find-links /wheels "$@"; }
pip -r /opt/hostwarden/requirements.lock
pip --no-deps --editable /opt/hostwarden
rm -r "$root/wheels"
for program in hostwarden hostwardend hostwarden-collector; do
    ln -s "/opt/hostwarden/.venv/bin/$program" "$root/usr/local/bin/"
done

rm -rf "${root:?}"/usr/share/{doc,locale,man}/* "$root"/var/cache/apt/archives/*.deb
