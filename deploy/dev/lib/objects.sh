# An object store for development: moto, a server made for tests that speaks S3, with all that it holds in memory. It
# minds what S3 minds: parts that are too small, listings in pages, buckets that are not there.

OBJECTS_MOTO=5.2.5
OBJECTS_BUCKET=flakefarm

objects_marker() { printf 'moto.server -H 127.0.0.1 -p %s' "$(state objects port)"; }

objects_is_up() { [[ -n $(state objects port) ]] && runs "$(state objects pid)" "$(objects_marker)"; }

# From a package index, once: a directory that is whole is used as it is, without a network.
objects_install() {
  local python into making
  command -v python3 >/dev/null || install_packages Python python3
  python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  into=${XDG_CACHE_HOME:-$HOME/.cache}/flakefarm/objects-$OBJECTS_MOTO-python$python
  if [[ ! -e $into/whole ]]; then
    python3 -m pip --version >/dev/null 2>&1 || install_packages pip python3-pip
    say "installing moto $OBJECTS_MOTO (into $into)"
    making=$into.making.$$
    if ! python3 -m pip --disable-pip-version-check -q install --target "$making" "moto[s3]==$OBJECTS_MOTO" flask flask-cors >&2; then
      rm -rf -- "$making"
      die "could not install moto" "pip must reach a package index"
    fi
    touch "$making/whole"
    rm -rf -- "$into"
    mv -- "$making" "$into"
  fi
  printf '%s\n' "$into"
}

objects_bucket() {
  python3 - "http://127.0.0.1:$(state objects port)/$OBJECTS_BUCKET" <<'PYTHON'
import sys, urllib.request
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(urllib.request.Request(sys.argv[1], method="PUT"), timeout=10)
PYTHON
}

objects_up() {
  local tools port
  tools=$(objects_install)
  port=$(choose_port objects port 21333)
  spawn objects env PYTHONPATH="$tools" python3 -m moto.server -H 127.0.0.1 -p "$port"
  # Until it makes a bucket, which it may do again.
  wait_ready objects 120 objects objects_bucket
}

objects_down() { stop_pid objects "$(objects_marker)" TERM 10; }

objects_env() {
  export_line FLAKEFARM_TEST_S3_ENDPOINT "http://127.0.0.1:$(state objects port)"
  export_line FLAKEFARM_TEST_S3_BUCKET "$OBJECTS_BUCKET"
}
