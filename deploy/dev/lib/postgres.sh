# PostgreSQL for development: loopback only, no socket file, no passwords, no fsync. Its server
# refuses to run as root, so root runs it as the package's own account.

postgres_marker() { printf -- '-D %s' "$(state postgres data)"; }

postgres_is_up() { [[ -n $(state postgres data) ]] && runs "$(state postgres pid)" "$(postgres_marker)"; }

# The newest version's programs; Debian keeps them off PATH.
postgres_bin() {
  local dir
  dir=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  if [[ -x $dir/postgres ]]; then
    printf '%s\n' "$dir"
  elif command -v postgres >/dev/null; then
    dirname -- "$(command -v postgres)"
  fi
}

as_postgres() {
  if is_root; then
    (cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$@")
  else
    "$@"
  fi
}

postgres_ready() {
  [[ $("$(postgres_bin)/psql" -X -h 127.0.0.1 -p "$(state postgres port)" -U flakefarm -d "$1" -Atc 'select 1') == 1 ]]
}

# A data directory that the server's account can reach: below the state directory if every parent
# may be entered, else in /tmp.
postgres_data() {
  local data
  data=$(state postgres data)
  if [[ -z $data || ! -d $data ]]; then
    data=$DEV_DIR/postgres/cluster
    mkdir -p -- "$data"
    if is_root && ! as_postgres test -x "$data" 2>/dev/null; then
      rmdir -- "$data"
      data=$(mktemp -d /tmp/ffdev.XXXXXX)
    fi
    if is_root; then chown postgres: "$data"; fi
    chmod 700 "$data"
    remember postgres data "$data"
  fi
  printf '%s\n' "$data"
}

postgres_up() {
  local bin data port
  [[ -n $(postgres_bin) ]] || install_packages PostgreSQL postgresql
  bin=$(postgres_bin)
  data=$(postgres_data)
  if [[ ! -s $data/PG_VERSION ]] || [[ $(cat "$data/PG_VERSION") != "$("$bin/postgres" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')" ]]; then
    find "$data" -mindepth 1 -delete
    as_postgres "$bin/initdb" -D "$data" -U flakefarm -A trust -E UTF8 --locale=C.UTF-8 --no-sync \
      </dev/null >>"$DEV_DIR/postgres/output.log" 2>&1 || die "initdb failed" "see $DEV_DIR/postgres/output.log"
  fi
  # The server believes any living process of this number to be its twin, after a crash or a reboot.
  rm -f -- "$data/postmaster.pid"
  port=$(choose_port postgres port 21432)
  if is_root; then
    (cd / && spawn postgres setpriv --reuid=postgres --regid=postgres --init-groups -- "$bin/postgres" -D "$data" \
      -c listen_addresses=127.0.0.1 -c "port=$port" -c unix_socket_directories= -c fsync=off -c max_connections=200)
  else
    spawn postgres "$bin/postgres" -D "$data" \
      -c listen_addresses=127.0.0.1 -c "port=$port" -c unix_socket_directories= -c fsync=off -c max_connections=200
  fi
  wait_ready postgres 60 postgres postgres_ready postgres || return 1
  postgres_ready flakefarm 2>/dev/null ||
    "$bin/createdb" -h 127.0.0.1 -p "$port" -U flakefarm flakefarm </dev/null
}

postgres_down() { stop_pid postgres "$(postgres_marker)" INT 30; }

postgres_env() {
  export_line FLAKEFARM_TEST_PG_URL "postgres://flakefarm@127.0.0.1:$(state postgres port)/flakefarm"
  export_line FLAKEFARM_TEST_PG_RESTART "$(restart_command postgres)"
}
