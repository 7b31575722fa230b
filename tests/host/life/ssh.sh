# To a server on loopback that is no agent's (LIFE_SSHD: its port; LIFE_KEYS: key and known_hosts).
set -euo pipefail
mkdir -p world/from
cat >ssh_config <<C
Host server
    HostName 127.0.0.1
    Port $LIFE_SSHD
    User root
    IdentityFile $LIFE_KEYS/key
    IdentitiesOnly yes
    UserKnownHostsFile $LIFE_KEYS/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
    LogLevel ERROR
    ControlPath $PWD/control
C
here=$PWD
there() { ssh -F "$here/ssh_config" "$@"; }
there server 'echo there; exit 3' || echo "exit $?"
there -MNf server  # one connection for all that follows
seq 2000 | there server 'sort -rn' | sha256sum
there -tt server 'test -t 0 && echo terminal' </dev/null | tr -d '\r'
mkdir -p world/from/sub && seq 3000 >world/from/sub/numbers && ln -s sub/numbers world/from/link && chmod 600 world/from/sub/numbers
scp -qF ssh_config world/from/sub/numbers "server:$here/world/copied"
rsync -a -e "ssh -F $here/ssh_config" world/from/ "server:$here/world/pushed/"
echo more >>world/pushed/sub/numbers
rsync -a --delete -e "ssh -F $here/ssh_config" "server:$here/world/pushed/" world/pulled/
there -O exit server 2>/dev/null
diff -r world/pushed world/pulled && cmp world/copied world/from/sub/numbers
