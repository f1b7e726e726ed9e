# Portico in a container.
#
#   docker build -t portico .
#   docker run -p 8080:8080 -v portico:/srv/portico/data portico
#
# The image keeps the defaults: public HTTP on 8080, API and admin port on the
# container's own loopback. To reach the API from outside, add
#   -p 127.0.0.1:8081:8081 portico run --set api.listen=0.0.0.0:8081

# Build: needs only the Rust toolchain and a C compiler (for the allocator).
FROM rust:1.90-slim-trixie AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package portico

# Run: the binary, its settings, a user without rights.
FROM debian:trixie-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin portico \
    && install -d -o portico -g portico -m 0700 /srv/portico/data
COPY --from=build /src/target/release/portico /usr/local/bin/portico
COPY config/portico.toml /srv/portico/config/portico.toml
# Settings (config/portico.toml) and state (data) are found from here.
WORKDIR /srv/portico
USER portico
# Store, token and the table's snapshot.
VOLUME /srv/portico/data
EXPOSE 8080 8081 8082
# SIGTERM drains: give `docker stop -t` more than edge.drain_timeout.
STOPSIGNAL SIGTERM
# `portico ready` asks /readyz on the admin port that the supervisor bound: no
# shell and no curl needed.
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s --retries=3 \
    CMD ["portico", "ready"]
ENTRYPOINT ["portico"]
CMD ["run"]
