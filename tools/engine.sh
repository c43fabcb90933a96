#!/usr/bin/env bash
# A private Docker engine for a machine that has none: its own containerd, data, socket; no systemd, no change to the network.
#   eval "$(tools/engine.sh start [STATE_DIR])"   start (or find it running) and set DOCKER_HOST
#   eval "$(tools/engine.sh env   [STATE_DIR])"   set DOCKER_HOST if it answers, else exit 1
#   tools/engine.sh stop [STATE_DIR]              remove its containers, stop it, keep its images and volumes
# Needs root. STATE_DIR must be short (a socket's path is at most 107 bytes) and on a disk, not on tmpfs or overlay.
set -euo pipefail

# An engine that answers already, the machine's own, is taken unless a STATE_DIR is named.
if [[ ${1:-} == start && $# == 1 ]] && docker version >/dev/null 2>&1; then
  [[ -z ${DOCKER_HOST:-} ]] || echo "export DOCKER_HOST=$DOCKER_HOST"
  exit 0
fi

action=${1:-} dir=${2:-${TMPDIR:-/tmp}/emperf-engine}
dir=$(realpath -m "$dir")
export DOCKER_HOST=unix://$dir/docker.sock

die() { echo "engine.sh: $*" >&2; exit 1; }
answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# The pid in the file, if that process is alive, is no zombie, and is really ours: pids are reused.
pid_of() {
  local pid
  pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 1
  grep -q '^State:[[:space:]]*[^ZX]' "/proc/$pid/status" 2>/dev/null || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF "$dir/" || return 1
  echo "$pid"
}

await() { # await SECONDS COMMAND...
  local tries=$(($1 * 10)); shift
  while ((tries-- > 0)); do "$@" && return 0; sleep 0.1; done
  return 1
}

install_engine() {
  if command -v dockerd >/dev/null && command -v containerd >/dev/null; then return; fi
  command -v apt-get >/dev/null || die "no dockerd here; install Docker's engine"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io; } \
    >/dev/null 2>&1 || die "apt could not install docker.io; install Docker's engine by hand"
}

start_containerd() {
  pid_of containerd >/dev/null && return
  cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/c-root"
state = "$dir/c"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$dir/containerd.sock"
TOML
  rm -f "$dir/containerd.sock"
  setsid containerd --config "$dir/containerd.toml" --log-level warn >>"$dir/containerd.log" 2>&1 </dev/null &
  echo $! >"$dir/containerd.pid"
  await 15 test -S "$dir/containerd.sock" || die "containerd did not start; see $dir/containerd.log"
}

# dockerd takes the pid file of a dead engine for a live one for as long as anything, even a zombie, has that pid.
start_dockerd() {
  pid_of docker >/dev/null || rm -f "$dir/docker.pid"
  setsid dockerd --host "$DOCKER_HOST" --containerd "$dir/containerd.sock" --pidfile "$dir/docker.pid" \
    --data-root "$dir/data" --exec-root "$dir/x" --storage-driver overlay2 --live-restore \
    --exec-opt native.cgroupdriver=cgroupfs --bridge none --iptables=false --ip6tables=false \
    --ip-forward=false --ip-masq=false --log-level warn >>"$dir/dockerd.log" 2>&1 </dev/null &
  await 30 answers || die "dockerd did not start; see $dir/dockerd.log"
}

end() { # end NAME: ask, wait, then insist
  local pid
  pid=$(pid_of "$1") || { rm -f "$dir/$1.pid"; return 0; }
  kill "$pid"
  await 10 eval "! pid_of $1 >/dev/null" || kill -KILL "$pid"
  rm -f "$dir/$1.pid"
}

stop() {
  if answers; then docker ps -aq | xargs -r docker rm -f >/dev/null; fi
  end docker
  # Containers of an engine that had died are still held by their shims.
  local cmdline
  for cmdline in /proc/[0-9]*/cmdline; do
    if { tr '\0' ' ' <"$cmdline"; } 2>/dev/null | grep -q "containerd-shim.* -address $dir/"; then
      kill -KILL "$(basename "$(dirname "$cmdline")")" || true
    fi
  done
  end containerd
  awk -v under="$dir/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
  rm -f "$dir/docker.sock" "$dir/containerd.sock"
}

case $action in
  start)
    ((${#dir} <= 85)) || die "the path $dir is too long for a socket; give a shorter STATE_DIR"
    if ! { mkdir -p "$dir" && answers; } 2>/dev/null; then
      ((EUID == 0)) || die "starting an engine needs root; run as root, or set DOCKER_HOST to an engine that you may use"
      install_engine
      start_containerd
      start_dockerd
    fi
    echo "export DOCKER_HOST=$DOCKER_HOST" ;;
  env) answers || die "no engine answers at $DOCKER_HOST; start one with: tools/engine.sh start"
    echo "export DOCKER_HOST=$DOCKER_HOST" ;;
  stop) stop ;;
  *) die "usage: engine.sh start|stop|env [STATE_DIR]" ;;
esac
