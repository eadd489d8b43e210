# RabbitMQ for development: own node name, own epmd, loopback only, no plugins, little memory.
# The distribution's wrapper in /usr/sbin changes user and directory, so the scripts behind it run.

RABBITMQ_DEV_NODE=ffdev@localhost

rabbitmq_marker() { printf 'flakefarm_dev %s' "$DEV_DIR/rabbitmq"; }

rabbitmq_is_up() { runs "$(state rabbitmq pid)" "$(rabbitmq_marker)"; }

rabbitmq_server() {
  if [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]]; then
    printf '/usr/lib/rabbitmq/bin/rabbitmq-server\n'
  else
    command -v rabbitmq-server || true
  fi
}

epmd_program() { command -v epmd || printf '%s\n' /usr/lib/erlang/erts-*/bin/epmd | tail -n 1; }

# The protocol's own handshake: a broker that has finished booting answers the header with a method
# frame (first byte 1). Listeners open last, so this is readiness, without starting an Erlang node.
rabbitmq_shakes_hands() {
  local port byte
  port=$(state rabbitmq port)
  byte=$(
    exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
    printf 'AMQP\x00\x00\x09\x01' >&3
    timeout 2 head -c 1 <&3 | od -An -tx1
  )
  [[ ${byte// /} == 01 ]]
}

rabbitmq_up() {
  local dir=$DEV_DIR/rabbitmq port dist epmd server
  [[ -n $(rabbitmq_server) ]] || install_packages RabbitMQ rabbitmq-server
  server=$(rabbitmq_server)
  mkdir -p -- "$dir/home" "$dir/mnesia" "$dir/log"
  rm -f -- "$dir/node.pid"
  rabbitmq_stop_epmd
  port=$(choose_port rabbitmq port 21672)
  dist=$(choose_port rabbitmq dist_port 21692)
  epmd=$(choose_port rabbitmq epmd_port 21369)
  if [[ ! -s $dir/home/.erlang.cookie ]]; then
    rm -f -- "$dir/home/.erlang.cookie"
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$dir/home/.erlang.cookie"
    chmod 400 "$dir/home/.erlang.cookie"
  fi
  rabbitmq_plugins "$dir"
  : >"$dir/env.conf"
  cat >"$dir/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$port
vm_memory_high_watermark.absolute = ${FLAKEFARM_DEV_RABBITMQ_MEMORY:-512MiB}
disk_free_limit.absolute = 200MB
log.console = false
log.file.level = info
CONF
  [[ -z $(state rabbitmq management_port) ]] || cat >>"$dir/rabbitmq.conf" <<CONF
management.tcp.ip = 127.0.0.1
management.tcp.port = $(state rabbitmq management_port)
CONF
  spawn rabbitmq env \
    HOME="$dir/home" LANG=C.UTF-8 LC_ALL=C.UTF-8 \
    ERL_EPMD_PORT="$epmd" ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_NODENAME="$RABBITMQ_DEV_NODE" \
    RABBITMQ_NODE_PORT="$port" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_DIST_PORT="$dist" \
    RABBITMQ_MNESIA_BASE="$dir/mnesia" RABBITMQ_LOG_BASE="$dir/log" RABBITMQ_PID_FILE="$dir/node.pid" \
    RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" RABBITMQ_CONF_ENV_FILE="$dir/env.conf" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none -flakefarm_dev $dir" \
    "$server"
  wait_ready rabbitmq 120 rabbitmq rabbitmq_shakes_hands || return 1
  rabbitmq_is_up || remember rabbitmq pid "$(cat "$dir/node.pid")"
}

# None but what FLAKEFARM_DEV_RABBITMQ_PLUGINS named when the broker was first started here: a plugin costs memory and
# seconds of each start. With rabbitmq_management there is a port for it.
rabbitmq_plugins() {
  [[ -z ${FLAKEFARM_DEV_RABBITMQ_PLUGINS:-} ]] || remember rabbitmq plugins "$FLAKEFARM_DEV_RABBITMQ_PLUGINS"
  printf '[%s].\n' "$(state rabbitmq plugins)" >"$1/enabled_plugins"
  case $(state rabbitmq plugins) in
    *rabbitmq_management*) choose_port rabbitmq management_port 21772 >/dev/null ;;
    *) forget rabbitmq management_port ;;
  esac
}

# Ours listens on a port of its own; the next epmd must not find a registration left by a killed node.
rabbitmq_stop_epmd() {
  local port
  port=$(state rabbitmq epmd_port)
  if [[ -n $port ]] && ! port_is_free "$port"; then
    ERL_EPMD_PORT=$port "$(epmd_program)" -kill </dev/null >>"$DEV_DIR/rabbitmq/output.log" 2>&1 || true
  fi
}

rabbitmq_down() {
  stop_pid rabbitmq "$(rabbitmq_marker)" TERM 45
  rabbitmq_stop_epmd
}

# A command that takes the broker's memory limit (`1MiB`, say): for tests that need it to be short of memory.
rabbitmq_memory_command() {
  local dir=$DEV_DIR/rabbitmq ctl=/usr/lib/rabbitmq/bin/rabbitmqctl
  [[ -x $ctl ]] || ctl=$(command -v rabbitmqctl)
  printf 'env HOME=%q ERL_EPMD_PORT=%q RABBITMQ_NODENAME=%q RABBITMQ_CONF_ENV_FILE=%q %q -q set_vm_memory_high_watermark absolute' \
    "$dir/home" "$(state rabbitmq epmd_port)" "$RABBITMQ_DEV_NODE" "$dir/env.conf" "$ctl"
}

rabbitmq_env() {
  export_line FLAKEFARM_TEST_AMQP_URL "amqp://guest:guest@127.0.0.1:$(state rabbitmq port)/%2f"
  export_line FLAKEFARM_TEST_AMQP_RESTART "$(restart_command rabbitmq)"
  export_line FLAKEFARM_TEST_AMQP_MEMORY "$(rabbitmq_memory_command)"
  [[ -z $(state rabbitmq management_port) ]] ||
    export_line FLAKEFARM_TEST_AMQP_MANAGEMENT "http://guest:guest@127.0.0.1:$(state rabbitmq management_port)"
}
