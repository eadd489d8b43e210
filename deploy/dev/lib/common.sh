# What every dev service shares: where state lives, messages, packages, ports, processes.
# Sourced, never run. Owns nothing of any one service.

FLAKEFARM_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.." && pwd -P)
DEV_DIR=${FLAKEFARM_DEV_DIR:-$FLAKEFARM_ROOT/target/dev-services}
case $DEV_DIR in /*) ;; *) DEV_DIR=$PWD/$DEV_DIR ;; esac
BASE_IMAGE=flakefarm-base:bookworm

say() { printf 'dev: %s\n' "$*" >&2; }

die() {
  printf 'dev: error: %s\n' "$1" >&2
  shift
  for hint in "$@"; do printf 'hint: %s\n' "$hint" >&2; done
  exit 1
}

is_root() { [[ $(id -u) -eq 0 ]]; }

# Runs a command as root, or fails when that would need a password.
as_root() {
  if is_root; then "$@"; else sudo -n -- "$@"; fi
}

can_be_root() { is_root || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }

# state SERVICE KEY: what was remembered, or nothing. remember SERVICE KEY VALUE.
state() { cat -- "$DEV_DIR/$1/$2" 2>/dev/null || true; }

remember() {
  mkdir -p -- "$DEV_DIR/$1"
  printf '%s\n' "$3" >"$DEV_DIR/$1/.$2.new"
  mv -f -- "$DEV_DIR/$1/.$2.new" "$DEV_DIR/$1/$2"
}

forget() { rm -f -- "$DEV_DIR/$1/$2"; }

# install_packages WHAT PACKAGE...: from the distribution. Packages must not start services of their
# own: they would take the standard ports, and nobody would stop them.
install_packages() {
  local what=$1 policy='' rc=0 log=$DEV_DIR/install.log
  shift
  command -v apt-get >/dev/null ||
    die "$what is not installed, and this is no Debian or Ubuntu" "install $what with this system's package manager"
  can_be_root || die "$what is not installed" "sudo apt-get install $*"
  say "installing $* (log: $log)"
  mkdir -p -- "$DEV_DIR"
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  {
    as_root apt-get -q update &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"
  } </dev/null >>"$log" 2>&1 || rc=$?
  [[ -z $policy ]] || as_root rm -f -- "$policy"
  [[ $rc -eq 0 ]] || die "could not install $*" "see the end of $log"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# choose_port SERVICE KEY DEFAULT: the port used before if it is free, else the first free one from
# the default upwards. It is remembered, so that a restart keeps it. Defaults lie below the range from which
# the kernel takes ports for outgoing connections (32768 on): one of those may hold a port for hours, unseen by whoever
# knocks, and a client of a server that restarts may even be connected to itself.
choose_port() {
  local port
  port=$(state "$1" "$2")
  if [[ -z $port ]] || ! port_is_free "$port"; then
    port=$3
    until port_is_free "$port"; do port=$((port + 1)); done
  fi
  remember "$1" "$2" "$port"
  printf '%s\n' "$port"
}

command_line() {
  if [[ -r /proc/$1/cmdline ]]; then
    tr '\0' ' ' <"/proc/$1/cmdline"
  else
    ps -ww -o command= -p "$1" 2>/dev/null || true
  fi
}

# runs PID TEXT: whether that process lives and its command line contains the text. A pid alone
# proves nothing: after a crash or a reboot it may be somebody else's.
runs() {
  [[ $1 =~ ^[0-9]+$ ]] && [[ $(command_line "$1") == *"$2"* ]]
}

# spawn SERVICE COMMAND...: in the background and a session of its own, holding none of our
# descriptors (a caller that reads our output must not wait for a daemon); remembers the pid.
spawn() {
  local service=$1
  shift
  mkdir -p -- "$DEV_DIR/$service"
  setsid "$@" </dev/null >>"$DEV_DIR/$service/output.log" 2>&1 9>&- &
  remember "$service" pid "$!"
}

# wait_ready SERVICE SECONDS TEXT CHECK...: until the check succeeds. Fails as soon as the process
# is gone. The pause is between two questions to the service, never instead of one.
wait_ready() {
  local service=$1 deadline=$((SECONDS + $2)) text=$3 pid
  shift 3
  pid=$(state "$service" pid)
  while ! "$@" >/dev/null 2>&1; do
    if [[ -n $text ]] && ! kill -0 "$pid" 2>/dev/null; then
      say "$service ended while it started; the last lines of $DEV_DIR/$service/output.log:"
      tail -n 15 -- "$DEV_DIR/$service/output.log" >&2 || true
      return 1
    fi
    if ((SECONDS >= deadline)); then
      say "$service did not answer in time; the last lines of $DEV_DIR/$service/output.log:"
      tail -n 15 -- "$DEV_DIR/$service/output.log" >&2 || true
      return 1
    fi
    sleep 0.2
  done
}

# stop_pid SERVICE TEXT SIGNAL SECONDS: ends the remembered process if it is still ours.
stop_pid() {
  local service=$1 text=$2 signal=$3 deadline=$((SECONDS + $4)) pid
  pid=$(state "$service" pid)
  if [[ -n $pid ]] && runs "$pid" "$text"; then
    kill "-$signal" "$pid" 2>/dev/null || true
    while runs "$pid" "$text"; do
      if ((SECONDS >= deadline)); then
        say "$service did not stop in time: killing it"
        kill -KILL "$pid" 2>/dev/null || true
        deadline=$((SECONDS + 5))
      fi
      sleep 0.1
    done
  fi
  forget "$service" pid
}

# short_dir SERVICE KEY: a directory with a short path, for sockets (their paths end at 107 bytes).
short_dir() {
  local dir
  dir=$(state "$1" "$2")
  if [[ -z $dir || ! -d $dir ]]; then
    dir=$(mktemp -d /tmp/ffdev.XXXXXX)
    remember "$1" "$2" "$dir"
  fi
  printf '%s\n' "$dir"
}
