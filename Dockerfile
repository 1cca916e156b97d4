# syntax=docker/dockerfile:1
# The server in a small image: no shell, no package manager, not root.
#
#   docker build -t logyard .
#   docker run --rm -p 127.0.0.1:8001:8001 -v logyard-data:/var/lib/logyard logyard

FROM rust:1.95-bookworm AS build
# OpenSSL's headers, for TLS to Kafka; the last stage has the library.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --features kafka-tls --bin logyard \
    && cp target/release/logyard /logyard \
    && mkdir /data

# Of the same Debian as the first: it has libssl3 and the usual authorities.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /logyard /usr/local/bin/logyard
COPY --from=build --chown=65532:65532 /data /var/lib/logyard
USER 65532:65532
WORKDIR /var/lib/logyard
# Inside a container only the container's own network reaches the port. There are no users and keys yet: publish it on loopback, or
# put a proxy with a login in front of it.
ENV LOGYARD__DATA_DIR=/var/lib/logyard \
    LOGYARD__HTTP__LISTEN=0.0.0.0:8001 \
    LOGYARD__HTTP__INSECURE_NO_AUTH=true \
    LOGYARD__LOG__FORMAT=json
VOLUME /var/lib/logyard
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/logyard", "health"]
ENTRYPOINT ["/usr/local/bin/logyard"]
CMD ["serve"]
