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
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD \
  ["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7878 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *' 200 '* ]]"]
ENTRYPOINT ["flakefarm", "coordinator"]

FROM common AS worker
ENTRYPOINT ["flakefarm", "worker"]
