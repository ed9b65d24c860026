# A small image that runs the binary as nobody in particular. Nothing is fetched when it runs.
#
#   docker build -t tidegate .
#   docker run -p 9464:9464 -e TIDEGATE_REDIS__URL=redis://redis:6379 -e TIDEGATE_MONGODB__URI=mongodb://db:27017 tidegate
#
# For routes of your own, mount a file over /etc/tidegate/config.toml.

# Not the slim one: it lacks make, which the allocator is built with.
FROM rust:1-bookworm AS build
WORKDIR /build
# Only what cargo wants for the binary, so that a change to tests or docs does not build it again. It refuses a manifest that
# names benches which are not there.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY benches ./benches
COPY src ./src
RUN cargo build --release --locked --bin tidegate

FROM debian:bookworm-slim
# For TLS to Redis and MongoDB.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /build/target/release/tidegate /usr/local/bin/tidegate
COPY config.toml /etc/tidegate/config.toml
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/tidegate/
# By number: orchestrators that forbid root cannot tell what a name stands for.
USER 65532:65532
# Within a container, 127.0.0.1 would be out of reach for Prometheus and for probes of /livez and /readyz.
ENV TIDEGATE_HTTP__LISTEN=0.0.0.0:9464
EXPOSE 9464
STOPSIGNAL SIGTERM
# Whether it lives, not whether it is ready: while MongoDB is away a restart would not help.
HEALTHCHECK --interval=10s --timeout=10s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/tidegate", "healthcheck", "--config", "/etc/tidegate/config.toml"]
ENTRYPOINT ["/usr/local/bin/tidegate"]
CMD ["--config", "/etc/tidegate/config.toml"]
