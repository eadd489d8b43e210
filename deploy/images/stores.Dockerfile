# PostgreSQL, RabbitMQ and Redis out of the distribution, for machines without a registry. They take what compose says to
# the images that it names otherwise: the same variables, the same directories for data.
#   docker build --network host --target postgres -t flakefarm-postgres:bookworm - < deploy/images/stores.Dockerfile
# `deploy/images/stores` makes all of them, and says how to have compose use them.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS packages
# Nothing is started by its installation, and nothing but the programs is wanted.
RUN printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
 && apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
      postgresql-15 rabbitmq-server redis-server \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives /var/lib/postgresql/15 /etc/postgresql/15 /var/lib/rabbitmq/* /var/lib/redis/*

FROM packages AS postgres
ENV PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin
RUN mkdir -p $PGDATA && chown postgres:postgres $PGDATA && printf '%s\n' '#!/bin/bash' 'set -euo pipefail' \
  'if [[ ! -s $PGDATA/PG_VERSION ]]; then' \
  '  initdb --username="${POSTGRES_USER:-postgres}" --pwfile=<(printf "%s" "$POSTGRES_PASSWORD") --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 >/dev/null' \
  '  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"' \
  '  if [[ ${POSTGRES_DB:-postgres} != postgres ]]; then' \
  '    echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$PGDATA" -E postgres >/dev/null' \
  '  fi' \
  'fi' \
  'exec postgres -c listen_addresses="*"' > /usr/local/bin/start && chmod 755 /usr/local/bin/start
VOLUME /var/lib/postgresql/data
USER postgres
STOPSIGNAL SIGINT
EXPOSE 5432
ENTRYPOINT ["/usr/local/bin/start"]

FROM packages AS rabbitmq
RUN printf '%s\n' '#!/bin/bash' 'set -euo pipefail' \
  'printf "listeners.tcp.default = 5672\ndefault_user = %s\ndefault_pass = %s\nloopback_users = none\nlog.console = true\nmanagement.tcp.port = 15672\n" \' \
  '  "${RABBITMQ_DEFAULT_USER:-guest}" "${RABBITMQ_DEFAULT_PASS:-guest}" > /var/lib/rabbitmq/rabbitmq.conf' \
  'echo "[rabbitmq_management]." > /var/lib/rabbitmq/enabled_plugins' \
  'exec /usr/lib/rabbitmq/bin/rabbitmq-server' > /usr/local/bin/start && chmod 755 /usr/local/bin/start \
 && chown rabbitmq:rabbitmq /var/lib/rabbitmq
ENV HOME=/var/lib/rabbitmq LANG=C.UTF-8 RABBITMQ_CONFIG_FILE=/var/lib/rabbitmq/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE=/var/lib/rabbitmq/enabled_plugins \
    RABBITMQ_LOGS=- RABBITMQ_NODENAME=rabbit@localhost PATH=/usr/lib/rabbitmq/bin:/usr/bin:/bin
VOLUME /var/lib/rabbitmq
USER rabbitmq
EXPOSE 5672 15672
ENTRYPOINT ["/usr/local/bin/start"]

FROM packages AS redis
RUN mkdir -p /data && chown redis:redis /data
VOLUME /data
WORKDIR /data
USER redis
EXPOSE 6379
CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no"]
