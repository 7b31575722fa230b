# A tmux server of its own: terminals, unix sockets, keys.
set -euo pipefail
mkdir world
export TERM=xterm TMUX_TMPDIR=$PWD SHELL=/bin/sh
tm() { tmux -f /dev/null -L life "$@"; }
trap 'tm kill-server 2>/dev/null || true' EXIT
tm new-session -d -x 80 -y 24 -s main 'sh'
tm send-keys -t main 'tty >/dev/null && echo typed > world/typed; tmux -L life wait-for -S typed' Enter
tm wait-for typed
tm split-window -t main 'echo split > world/split; tmux -L life wait-for -S split'
tm wait-for split
tm set-buffer pasted && tm save-buffer world/buffer
tm new-window -t main -n other 'stty size > world/size; tmux -L life wait-for -S size; cat'
tm wait-for size
tm list-windows -t main -F '#{window_index} #{window_name}' | tail -1
tm pipe-pane -t main:other 'cat > world/piped'
tm kill-session -t main
until ! tm ls 2>/dev/null; do sleep 0.05; done
rm -f world/piped
cat world/*
