# The same images from the sources alone, for machines with a registry: the context is the repository.
#   docker build --target coordinator -f deploy/images/source.Dockerfile .
ARG BUILD=rust:1.94-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILD} AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p flakefarm

FROM ${BASE} AS common
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates git openssh-client && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /var/lib/flakefarm /blobs && chown 10001:10001 /var/lib/flakefarm /blobs \
 && echo 'flakefarm:x:10001:10001:flakefarm:/var/lib/flakefarm:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'flakefarm:x:10001:' >> /etc/group
COPY --from=build /src/target/release/flakefarm /usr/local/bin/flakefarm
ENV FLAKEFARM_STATE=/var/lib/flakefarm HOME=/var/lib/flakefarm
WORKDIR /var/lib/flakefarm
USER 10001:10001

FROM common AS coordinator
ENV FLAKEFARM_LISTEN=0.0.0.0:7878
EXPOSE 7878
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["flakefarm", "probe", "healthz"]
ENTRYPOINT ["flakefarm", "coordinator"]

FROM common AS worker
ENV FLAKEFARM_HEALTH_LISTEN=127.0.0.1:7879 FLAKEFARM_SPOOL=/var/lib/flakefarm/spool
EXPOSE 7879
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["flakefarm", "probe", "healthz"]
ENTRYPOINT ["flakefarm", "worker"]
