# syntax=docker/dockerfile:1

# A node in a container. docs/INSTALL.md says how to run it and who can reach it.
#
# The dependencies, llama.cpp among them, are a layer of their own, which changes with Cargo.lock alone. It is a layer and
# not a cache mount, because a layer travels with a registry cache to machines that begin empty; only the downloads are
# in cache mounts, whose loss costs seconds.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST_VERSION}-${DEBIAN} AS tools
# Without clang there is no AMX code (docs/adr/0003-cpu-code-chosen-at-run-time.md).
RUN apt-get update \
 && apt-get install --yes --no-install-recommends clang cmake libclang-dev \
 && rm -rf /var/lib/apt/lists/*
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo install cargo-chef --locked --version 0.1.78
WORKDIR /src

# What Cargo would build, without the sources.
FROM tools AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM tools AS build
COPY --from=plan /src/recipe.json recipe.json
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo chef cook --release --locked --package hearth --recipe-path recipe.json
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo build --release --locked --package hearth \
 && install -D --mode=755 target/release/hearth /out/hearth

FROM debian:${DEBIAN}-slim AS node
# Certificates for downloads of models, and the library of C++ that the program is linked with.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 10001 hearth \
 && useradd --system --uid 10001 --gid hearth --home-dir /var/lib/hearth --create-home hearth
COPY --from=build /out/hearth /usr/bin/hearth
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/hearth/
ENV HEARTH_HOME=/var/lib/hearth \
    HEARTH_HOST=0.0.0.0:8321
# A number, so that a cluster sees that it is not root.
USER 10001:10001
WORKDIR /var/lib/hearth
VOLUME /var/lib/hearth
EXPOSE 8321
# It is ready when its door is open. A default model that is still loading is no illness.
HEALTHCHECK --interval=30s --timeout=6s --start-period=30s --retries=3 \
    CMD ["hearth", "status", "--json"]
ENTRYPOINT ["hearth"]
CMD ["serve"]
