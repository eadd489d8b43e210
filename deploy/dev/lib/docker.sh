# Docker for development: the engine that answers already, or one of our own with private paths.

docker_marker() { printf -- '--data-root %s' "$DEV_DIR/docker/data"; }

docker_private_is_up() { runs "$(state docker pid)" "$(docker_marker)"; }

docker_answers() { timeout 20 docker info </dev/null >/dev/null 2>&1; }

# Prefer what the caller points at; else our own from an earlier start.
docker_use() {
  if docker_private_is_up; then
    DOCKER_HOST=unix://$(state docker run)/docker.sock
    export DOCKER_HOST
  fi
}

# With FLAKEFARM_DEV_DOCKER_PRIVATE set, another engine does not count.
docker_is_up() {
  command -v docker >/dev/null || return 1
  [[ -z ${FLAKEFARM_DEV_DOCKER_PRIVATE:-} ]] || docker_private_is_up || return 1
  (docker_use && docker_answers)
}

docker_up() {
  local run
  command -v docker >/dev/null || install_packages Docker docker.io iptables iproute2 cgroupfs-mount
  if [[ -z ${FLAKEFARM_DEV_DOCKER_PRIVATE:-} ]] && docker_answers; then
    forget docker pid
    say "docker: using the engine that is running"
    return 0
  fi
  is_root || die "no Docker engine answers, and starting one needs root" \
    "start Docker and let this user use it (sudo usermod -aG docker \$USER, then log in again)"
  command -v dockerd >/dev/null || install_packages "the Docker engine" docker.io iptables iproute2 cgroupfs-mount
  docker_mount_cgroups
  run=$(short_dir docker run)
  docker_forget_the_dead "$run"
  docker_network_arguments
  docker_start "$run" || {
    say "docker: trying again with the vfs storage driver (slower: copies instead of layers)"
    docker_start "$run" --storage-driver vfs
  } || {
    docker_without_network
    docker_start "$run"
  }
}

# Pid files of an engine that was killed would stop the next one, should their numbers be in use
# again. A containerd that outlived its engine is found and used by the next.
docker_forget_the_dead() {
  local run=$1
  rm -f -- "$run/docker.pid" "$run/docker.sock"
  runs "$(cat "$run/exec/containerd/containerd.pid" 2>/dev/null || true)" "$run/exec" ||
    rm -f -- "$run/exec/containerd/containerd.pid" "$run/exec/containerd/"*.sock
}

# The last resort: in a network namespace of its own, because an engine without a bridge deletes
# the default bridge, which another engine may be using.
docker_without_network() {
  say "docker: starting without a bridge: set-up steps will not reach the network"
  DOCKER_PREFIX=(unshare --net)
  DOCKER_NETWORK=(--bridge=none --iptables=false)
}

# crun, where it is installed, is there to be chosen; the default stays what it is.
docker_start() {
  local run=$1 runtimes=()
  shift
  if command -v crun >/dev/null; then runtimes=(--add-runtime "crun=$(command -v crun)"); fi
  spawn docker "${DOCKER_PREFIX[@]}" dockerd --data-root "$DEV_DIR/docker/data" --exec-root "$run/exec" --pidfile "$run/docker.pid" \
    -H "unix://$run/docker.sock" "${DOCKER_NETWORK[@]}" "${runtimes[@]}" "$@"
  if DOCKER_HOST=unix://$run/docker.sock wait_ready docker 60 dockerd docker_answers; then return 0; fi
  stop_pid docker "$(docker_marker)" TERM 20
  return 1
}

docker_mount_cgroups() {
  if [[ ! -e /sys/fs/cgroup/cgroup.controllers && ! -d /sys/fs/cgroup/memory ]]; then
    command -v cgroupfs-mount >/dev/null || install_packages "cgroupfs-mount" cgroupfs-mount
    cgroupfs-mount >>"$DEV_DIR/docker/output.log" 2>&1 || true
  fi
  # Beside the old control groups crun bears the new ones only if they control nothing.
  local unified=/sys/fs/cgroup/unified controller
  [[ -s $unified/cgroup.controllers ]] || return 0
  for controller in $(<"$unified/cgroup.controllers"); do
    mkdir -p "/sys/fs/cgroup/$controller" &&
      mount -t cgroup -o "$controller" "$controller" "/sys/fs/cgroup/$controller" 2>>"$DEV_DIR/docker/output.log" || true
  done
}

# Two engines must not share a bridge (both would hand out the same addresses) nor chains in the
# packet filter (each flushes the other's at its start). Alone, the engine's defaults are right;
# beside another, this one gets a bridge and two rules of its own.
docker_network_arguments() {
  local bridge=ffdev0 subnet
  DOCKER_PREFIX=()
  DOCKER_NETWORK=()
  docker_remove_bridge
  pgrep -x dockerd >/dev/null 2>&1 || return 0
  subnet=$(docker_free_subnet)
  if ! ip link add name "$bridge" type bridge 2>/dev/null ||
    ! ip address add "$subnet.1/24" dev "$bridge" || ! ip link set "$bridge" up; then
    docker_without_network
    return 0
  fi
  remember docker subnet "$subnet.0/24"
  DOCKER_NETWORK=("--bridge=$bridge" --iptables=false)
  echo 1 >/proc/sys/net/ipv4/ip_forward 2>/dev/null || true
  iptables -w -t nat -A POSTROUTING -s "$subnet.0/24" ! -o "$bridge" -j MASQUERADE &&
    iptables -w -I FORWARD -i "$bridge" -j ACCEPT &&
    iptables -w -I FORWARD -o "$bridge" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT ||
    say "docker: the packet filter refused a rule: set-up steps will not reach the network"
}

docker_free_subnet() {
  local third=201
  while ip -4 route show | grep -q "^10\.213\.$third\."; do third=$((third + 1)); done
  printf '10.213.%s\n' "$third"
}

docker_remove_bridge() {
  local bridge=ffdev0 subnet
  subnet=$(state docker subnet)
  [[ -n $subnet ]] || return 0
  iptables -w -t nat -D POSTROUTING -s "$subnet" ! -o "$bridge" -j MASQUERADE 2>/dev/null || true
  iptables -w -D FORWARD -i "$bridge" -j ACCEPT 2>/dev/null || true
  iptables -w -D FORWARD -o "$bridge" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT 2>/dev/null || true
  ip link delete "$bridge" 2>/dev/null || true
  forget docker subnet
}

docker_down() {
  # An engine that was running before us is not ours to stop.
  local run containerd mount
  run=$(state docker run)
  stop_pid docker "$(docker_marker)" TERM 30
  docker_remove_bridge
  [[ $run == /tmp/ffdev.* ]] || return 0
  # After a kill, a containerd and mounts may be left.
  containerd=$(cat "$run/exec/containerd/containerd.pid" 2>/dev/null || true)
  if [[ -n $containerd ]] && runs "$containerd" "$run/exec"; then kill "$containerd" || true; fi
  while read -r _ mount _; do
    case $mount in "$run"/* | "$DEV_DIR/docker/data" | "$DEV_DIR/docker/data"/*) umount -l -- "$mount" || true ;; esac
  done </proc/mounts
  rm -rf --one-file-system -- "$run"
  forget docker run
}

docker_env() {
  if docker_private_is_up; then export_line DOCKER_HOST "unix://$(state docker run)/docker.sock"; fi
  export_line FLAKEFARM_TEST_IMAGE "$BASE_IMAGE"
  export_line FLAKEFARM_IMAGE "$BASE_IMAGE"
}
