# Programs that tests start by themselves, and end: no services. Sourced after common.sh.

# OpenSSH's server is asked for sources over ssh; OpenSSL's command makes certificates for those over TLS; libfaketime
# gives a coordinator a clock that is wrong.
test_programs() {
  [[ -x /usr/sbin/sshd ]] || install_packages "OpenSSH's server" openssh-server
  command -v openssl >/dev/null || install_packages OpenSSL openssl
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || install_packages libfaketime libfaketime
}
