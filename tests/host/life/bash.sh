# What bash does with pipes, files of its own and children.
set -euo pipefail
mkdir world
diff <(seq 5) <(seq 5) && echo same
tee >(wc -c >world/count) <<<"through a process" >/dev/null
until [[ -s world/count ]]; do sleep 0.05; done
cat <<A <<'B'
dropped
A
home-less $((6 * 7)) `echo nested` 
B
cat <<END | tr a-z A-Z
here: $((6 * 7)) $(basename "$PWD")
END
long=$(head -c 200000 /dev/zero | tr '\0' x); wc -c <<<"$long"
coproc UP { while read -r line; do echo "${line^^}"; done; }
echo coprocess >&"${UP[1]}"; read -r said <&"${UP[0]}"; echo "$said"
eval "exec ${UP[1]}>&-"; wait "$UP_PID"
mapfile -t lines < <(printf '%s\n' x y z); echo "${#lines[@]} lines"
trap 'echo trapped; exit 7' TERM
( trap 'echo sub trapped' USR1; kill -USR1 $BASHPID; echo after )
sleep 60 & sleeper=$!; kill $sleeper; wait $sleeper || echo "job ended $?"
set -m; sleep 60 & kill %1; wait %1 2>/dev/null || echo "group ended $?"; set +m
{ echo out; echo err >&2; } >world/both 2>&1
exec {fd}<>world/rw; echo data >&$fd; exec {fd}>&-; cat world/rw
setsid --fork sh -c 'sleep 0.2; echo later >world/later'; until [[ -s world/later ]]; do sleep 0.05; done
for n in 1 2 3 4; do (echo $((n * n)) >world/square.$n) & done; wait; cat world/square.*
exec bash -c 'echo replaced'
