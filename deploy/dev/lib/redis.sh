# Redis for development: on loopback, with an append-only file so that a restart keeps what it held.

redis_marker() { printf 'redis-server 127.0.0.1:%s' "$(state redis port)"; }

redis_is_up() { [[ -n $(state redis port) ]] && runs "$(state redis pid)" "$(redis_marker)"; }

redis_ping() { [[ $(redis-cli -h 127.0.0.1 -p "$(state redis port)" ping) == PONG ]]; }

redis_up() {
  local port
  command -v redis-server >/dev/null && command -v redis-cli >/dev/null || install_packages Redis redis-server redis-tools
  port=$(choose_port redis port 21379)
  mkdir -p -- "$DEV_DIR/redis/data"
  spawn redis redis-server --bind 127.0.0.1 --port "$port" --dir "$DEV_DIR/redis/data" --pidfile "" \
    --appendonly yes --appendfsync everysec --save "" --maxmemory-policy noeviction --daemonize no
  wait_ready redis 30 redis redis_ping
}

redis_down() { stop_pid redis "$(redis_marker)" TERM 10; }

redis_env() {
  export_line FLAKEFARM_TEST_REDIS_URL "redis://127.0.0.1:$(state redis port)/0"
  export_line FLAKEFARM_TEST_REDIS_RESTART "$(restart_command redis)"
}
