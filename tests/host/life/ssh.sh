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
C
here=$PWD
alias_ssh=(ssh -F "$PWD/ssh_config")
"${alias_ssh[@]}" server 'echo there; exit 3' || echo "exit $?"
seq 2000 | "${alias_ssh[@]}" server 'sort -rn' | sha256sum
"${alias_ssh[@]}" -tt server 'test -t 0 && echo terminal' </dev/null | tr -d '\r'
"${alias_ssh[@]}" -MNf -o ControlPath="$PWD/control" server
"${alias_ssh[@]}" -o ControlPath="$PWD/control" server 'echo multiplexed'
"${alias_ssh[@]}" -o ControlPath="$PWD/control" -O exit server 2>/dev/null
mkdir -p world/from/sub && seq 3000 >world/from/sub/numbers && ln -s sub/numbers world/from/link && chmod 600 world/from/sub/numbers
scp -qF "$PWD/ssh_config" world/from/sub/numbers "server:$here/world/copied"
rsync -a -e "${alias_ssh[*]}" world/from/ "server:$here/world/pushed/"
echo more >>world/pushed/sub/numbers
rsync -a --delete -e "${alias_ssh[*]}" "server:$here/world/pushed/" world/pulled/
diff -r world/pushed world/pulled && cmp world/copied world/from/sub/numbers
rm -f world/control
